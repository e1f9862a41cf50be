"""Data for measurements: some rows of a data set to train on, others to test with."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from minibutter import datasets
from minibutter.nn.starts import TrainingData
from minibutter.studies.catalogue import StudyError

Scaling = Literal["none", "global"]

_TEST_SHARE = 0.2  # where there are fewer rows than asked for


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
    n_train, n_test : rows wanted; of a smaller data set, 80 % are for training.
    seed : of the permutation that chooses them; several numbers to keep it apart from what else a
        study draws from its seed.
    dtype : of the arrays.
    scaling : "none", or "global": minus the mean and over the standard deviation of all inputs of
        the training rows together, as for pixels.

    Returns
    -------
    Arrays to be read only: those of the last two calls are remembered.

    Raises
    ------
    DatasetError
        If the data set cannot be had.
    StudyError
        If it is not a classification.
    """
    found = datasets.load(dataset, data_dir=data_dir)
    if found.info.task != "classification":
        raise StudyError(
            f"{dataset} is for {found.info.task}; a study of this kind needs classes, as in mnist "
            "or digits"
        )
    n_rows = len(found.x)
    if n_rows < n_train + n_test:
        n_test = round(_TEST_SHARE * n_rows)
        n_train = n_rows - n_test
    chosen = np.random.default_rng(seed).permutation(n_rows)[: n_train + n_test]
    x, y = found.x[chosen], found.y[chosen]
    if scaling == "global":
        # In float64, and rounded once.
        trained = x[:n_train].astype(np.float64)
        x = (x - trained.mean()) / trained.std()
    x, y = (np.ascontiguousarray(array, dtype=dtype) for array in (x, y))
    return TrainingData(x[:n_train], y[:n_train], x[n_train:], y[n_train:])
