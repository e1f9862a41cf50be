"""Data of a study: a seeded part of a data set, scaled."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from minibutter.datasets import DatasetInfo, load
from minibutter.nn.training import TrainingData

Scaling = Literal["none", "standard"]


@lru_cache(maxsize=2)
def load_split(
    dataset: str,
    data_dir: Path | None,
    n_train: int,
    n_test: int,
    seed: int,
    *,
    dtype: str = "float32",
    scaling: Scaling = "none",
) -> tuple[TrainingData, DatasetInfo]:
    """Draw training and test rows of a data set.

    Parameters
    ----------
    dataset, data_dir : as sweeps take them.
    n_train, n_test : rows; where the data set has fewer than both, all its rows are divided 80:20.
    seed : of the permutation from which both are taken.
    dtype : of all arrays.
    scaling : "standard" subtracts the mean of all features of all training rows and divides by
        their standard deviation, one number each.

    Returns
    -------
    The rows, read-only as the next caller gets the same arrays, and what the data set is.

    Raises
    ------
    DatasetError
        As `minibutter.datasets.load`.
    """
    found = load(dataset, data_dir=data_dir)
    n_rows = found.info.n_rows
    if n_rows < n_train + n_test:
        n_train = n_rows * 4 // 5
        n_test = n_rows - n_train
    rows = np.random.default_rng(seed).permutation(n_rows)[: n_train + n_test]
    x, y = found.x[rows].astype(dtype), found.y[rows].astype(dtype)
    if scaling == "standard":
        drawn = x[:n_train].astype(np.float64)
        x = ((x - drawn.mean()) / drawn.std()).astype(dtype)
    parts = x[:n_train], y[:n_train], x[n_train:], y[n_train:]
    for part in parts:
        part.setflags(write=False)
    return TrainingData(*(np.ascontiguousarray(part) for part in parts)), found.info
