"""Images for networks that are trained some thousand times: small ones, split anew for every seed.

Every repetition draws training and test rows of its own, the same at every batch size, width,
learning rate and parameterization. Averages over repetitions so speak of the data set, and not of
one choice of training rows, while differences within a repetition stay free of that choice.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from minibutter import datasets
from minibutter.nn.starts import TrainingData
from minibutter.studies.catalogue import StudyError

LARGE_SIDE = 28
"""Pixels; images of this side are pooled by two, to 14 x 14."""

SPLIT, INITIAL, BATCHES, DIRECTION = range(4)
"""Streams of random numbers of a repetition."""


def stream(seed: int, repetition: int, what: int) -> np.random.Generator:
    """Random numbers of one kind of one repetition, whatever else is chosen."""
    return np.random.default_rng([seed, repetition, what])


@lru_cache(maxsize=1)
def load_rows(dataset: str, data_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a classification, with large images pooled and inputs scaled.

    The mean of all inputs is then 0 and their standard deviation 1.

    Returns
    -------
    x, y : (n_rows, n_inputs) and (n_rows, n_classes), float32.

    Raises
    ------
    StudyError
        If the data set is not a classification, or its inputs are constant.
    """
    found = datasets.load(dataset, data_dir=data_dir)
    if found.info.task != "classification":
        raise StudyError(
            f"{found.info.name} is a {found.info.task}; the width study needs a classification of "
            "more than two classes, say mnist or digits"
        )
    x = pool_images(found.x.astype(np.float64))
    spread = x.std()
    if spread == 0:
        raise StudyError(f"all inputs of {found.info.name} are equal; there is nothing to learn")
    x = ((x - x.mean()) / spread).astype(np.float32)
    return x, found.y


def pool_images(x: np.ndarray) -> np.ndarray:
    """Means of squares of two by two pixels of 28 x 28 images; other rows as they are.

    Parameters
    ----------
    x : (n_rows, n_inputs).
    """
    if x.shape[1] != LARGE_SIDE**2:
        return x
    half = LARGE_SIDE // 2
    return x.reshape(-1, half, 2, half, 2).mean(axis=(2, 4)).reshape(-1, half * half)


def split_sizes(n_rows: int, n_train: int, n_test: int) -> tuple[int, int]:
    """As many rows as asked for; where there are fewer, 80 of 100 for training."""
    if n_rows < n_train + n_train // 4:
        n_train = n_rows * 4 // 5
    return n_train, min(n_test, n_rows - n_train)


def split_rows(
    x: np.ndarray, y: np.ndarray, n_train: int, n_test: int, rng: np.random.Generator
) -> TrainingData:
    """Training and test rows of a repetition, drawn without replacement."""
    rows = rng.permutation(len(x))
    train, test = rows[:n_train], rows[n_train : n_train + n_test]
    return TrainingData(x[train], y[train], x[test], y[test])
