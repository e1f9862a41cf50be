"""Data for measurements: some rows of a classification to train on, others to test with.

Studies get their rows here, whether they all measure on one split (`load_split`) or split all rows
anew for every repetition (`load_classes`, `split_sizes`).
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from minibutter import datasets
from minibutter.datasets import DatasetInfo
from minibutter.datasets.files import TABLE_SUFFIXES
from minibutter.nn.starts import TrainingData
from minibutter.studies.catalogue import StudyError

Scaling = Literal["none", "global"]

_TEST_SHARE = 0.2  # where there are fewer rows than asked for
_POOLED_SIDE = 20


@lru_cache(maxsize=2)
def load_classes(dataset: str, data_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a classification, as the data set has them.

    Returns
    -------
    x, y : (n_rows, n_inputs) and (n_rows, n_classes); to be read only, as those of the last calls
        are remembered.

    Raises
    ------
    DatasetError
        If the data set cannot be had.
    StudyError
        If it is not a classification.
    """
    found = datasets.load(dataset, data_dir=data_dir)
    if found.info.task != "classification":
        kind = "two classes in one output" if found.info.task == "binary" else found.info.task
        raise StudyError(
            f"{dataset} is for {kind}; a study of this kind needs classes with an output each, as "
            "mnist or digits has them"
        )
    return found.x, found.y


def split_sizes(n_rows: int, n_train: int, n_test: int) -> tuple[int, int]:
    """As many rows as wanted; of too few, 80 % at the most are for training, and the rest to test.

    Parameters
    ----------
    n_rows : of the data set.
    n_train, n_test : wanted.
    """
    if n_rows < n_train + n_test:
        n_train = min(n_train, n_rows - max(round(_TEST_SHARE * n_rows), 1))
    return n_train, min(n_test, n_rows - n_train)


def scale_globally(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Minus the mean and over the standard deviation of all numbers of `like`, as for pixels.

    Returns
    -------
    float64; to be rounded once.

    Raises
    ------
    StudyError
        If `like` is constant.
    """
    like = like.astype(np.float64)
    spread = like.std()
    if spread == 0:
        raise StudyError("all inputs of the data set are equal; there is nothing to learn from")
    return (x - like.mean()) / spread


def pool_images(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels of square images (n, side²) of an even side of 20 or more.

    Other rows stay as they are.
    """
    side = math.isqrt(x.shape[1])
    if side * side != x.shape[1] or side % 2 or side < _POOLED_SIDE:
        return x
    blocks = x.reshape(-1, side // 2, 2, side // 2, 2)
    return blocks.mean(axis=(2, 4)).reshape(len(x), -1)


def describe_data(dataset: str, data_dir: Path | None) -> DatasetInfo:
    """What a study is to measure on, before anything is begun; of names no file is opened.

    Raises
    ------
    DatasetError
        If there is no such data set.
    StudyError
        If it is a table, which does not say by itself what its target is.
    """
    if dataset.endswith(TABLE_SUFFIXES):
        raise StudyError(
            f"{dataset} is a table, and a study cannot be told which column is its target; name a "
            "data set of `minibutter data list`, or IDX images as of MNIST"
        )
    return datasets.describe(dataset, data_dir=data_dir)


@lru_cache(maxsize=2)
def load_split(
    dataset: str,
    data_dir: Path | None,
    n_train: int,
    n_test: int,
    seed: int | tuple[int, ...],
    dtype: str = "float32",
    scaling: Scaling = "none",
) -> TrainingData:
    """Some rows of a classification to train on and others to test with, drawn with a seed.

    Parameters
    ----------
    dataset : as sweeps name them.
    data_dir : folder of local data sets; None for the usual ones.
    n_train, n_test : rows wanted; fewer of a smaller data set, see `split_sizes`.
    seed : of the permutation that chooses them; several numbers to keep it apart from what else a
        study draws from its seed.
    dtype : of the arrays.
    scaling : "none", or "global": `scale_globally` by the training rows.

    Returns
    -------
    Arrays to be read only: those of the last two calls are remembered.

    Raises
    ------
    DatasetError, StudyError
        As `load_classes` and `scale_globally`.
    """
    x, y = load_classes(dataset, data_dir)
    n_train, n_test = split_sizes(len(x), n_train, n_test)
    chosen = np.random.default_rng(seed).permutation(len(x))[: n_train + n_test]
    x, y = x[chosen], y[chosen]
    if scaling == "global":
        x = scale_globally(x, x[:n_train])
    x, y = (np.ascontiguousarray(array, dtype=dtype) for array in (x, y))
    return TrainingData(x[:n_train], y[:n_train], x[n_train:], y[n_train:])
