"""Images for networks that are trained some thousand times: small ones, split anew for every seed.

Every repetition draws training and test rows of its own, the same at every batch size, width,
learning rate and parameterization. Averages over repetitions so speak of the data set, and not of
one choice of training rows, while differences within a repetition stay free of that choice.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from minibutter.nn.starts import TrainingData
from minibutter.studies.data import load_classes, pool_images, scale_globally

SPLIT, INITIAL, BATCHES, DIRECTION = range(4)
"""Streams of random numbers of a repetition."""


def stream(seed: int, repetition: int, what: int) -> np.random.Generator:
    """Random numbers of one kind of one repetition, whatever else is chosen."""
    return np.random.default_rng([seed, repetition, what])


@lru_cache(maxsize=1)
def load_rows(dataset: str, data_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a classification, images pooled, inputs scaled by those of all rows.

    Returns
    -------
    x, y : (n_rows, n_inputs) and (n_rows, n_classes), float32.

    Raises
    ------
    DatasetError, StudyError
        As `load_classes` and `scale_globally`.
    """
    x, y = load_classes(dataset, data_dir)
    x = pool_images(x.astype(np.float64))
    return scale_globally(x, x).astype(np.float32), y


def split_rows(
    x: np.ndarray, y: np.ndarray, n_train: int, n_test: int, rng: np.random.Generator
) -> TrainingData:
    """Training and test rows of a repetition, drawn without replacement."""
    rows = rng.permutation(len(x))
    train, test = rows[:n_train], rows[n_train : n_train + n_test]
    return TrainingData(x[train], y[train], x[test], y[test])
