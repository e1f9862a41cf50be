"""What a repetition does to a data set before it trains: the split, and noise on its labels.

Both draw from a generator that the caller seeds, one stream for each; neither touches its input.
Source: BUTTER (arXiv 2207.12547), section on methods, and its framework.
"""

import math

import numpy as np

from minibutter.datasets.dataset import DatasetError


def split_sizes(n_rows: int, test_fraction: float, method: str) -> tuple[int, int]:
    """How many rows `split_dataset` gives to training and to testing; nothing is drawn.

    Parameters
    ----------
    n_rows : int
    test_fraction : float in (0, 1)
    method : "shuffled" or "last", see `split_dataset`

    Returns
    -------
    n_train, n_test : int, both at least 1

    Raises
    ------
    DatasetError
        When the method is unknown, or the fraction is out of range or leaves no training rows.

    Examples
    --------
    >>> split_sizes(4898, 0.2, "shuffled")
    (3918, 980)
    """
    if not 0 < test_fraction < 1:
        raise DatasetError(f"test_split is {test_fraction}; it must be between 0 and 1")
    # The products are those of scikit-learn and of Keras, rounding included: 0.07 × 100 is
    # 7.000000000000001, so that scikit-learn tests on 8 of 100 rows and Keras on 7.
    if method == "shuffled":
        n_test = math.ceil(test_fraction * n_rows)
    elif method == "last":
        n_test = n_rows - math.floor(n_rows * (1 - test_fraction))
    else:
        raise DatasetError(f'the split method is {method!r}; it must be "shuffled" or "last"')
    if not 0 < n_test < n_rows:
        raise DatasetError(
            f"a test_split of {test_fraction} of {n_rows} rows makes {n_test} test and"
            f" {n_rows - n_test} training rows; choose a fraction that leaves both some"
        )
    return n_rows - n_test, n_test


def split_dataset(
    n_rows: int, test_fraction: float, method: str, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the rows into training and test rows.

    Parameters
    ----------
    n_rows : int
    test_fraction : float in (0, 1)
    method : "shuffled", BUTTER's: a random permutation, not stratified, of which the test rows come
        first, ceil(test_fraction × n_rows) many, all as in scikit-learn's `train_test_split`; or
        "last": the last rows of the file, as many as Keras takes for `validation_split`
    rng : numpy Generator for "shuffled"; "last" draws nothing

    Returns
    -------
    train_indices, test_indices : ndarrays of shapes (n_train,) and (n_test,), int64

    Raises
    ------
    DatasetError
        As `split_sizes`.

    Examples
    --------
    >>> train_indices, test_indices = split_dataset(5, 0.2, "last", None)
    >>> train_indices.tolist(), test_indices.tolist()
    ([0, 1, 2, 3], [4])
    """
    n_train, n_test = split_sizes(n_rows, test_fraction, method)
    if method == "last":
        rows = np.arange(n_rows, dtype=np.int64)
        return rows[:n_train], rows[n_train:]
    rows = rng.permutation(n_rows).astype(np.int64, copy=False)
    return rows[n_test:], rows[:n_test]


def add_label_noise(y: np.ndarray, task: str, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Corrupt training targets, as BUTTER describes it.

    A regression gets y + N(0, (noise × std)²), with the standard deviation of each output. In a
    classification int(noise × n_rows) rows, drawn without replacement, get another class: the
    opposite one of two, else one of the others with equal probability. BUTTER's code rolls the
    block of all chosen rows instead of each row, which mixes rows and breaks one-hot targets; the
    published sweep over label noise carries that defect, and this function does not.

    Parameters
    ----------
    y : ndarray of shape (n_rows, n_outputs), targets of the training rows
    task : "regression", "binary" or "classification"
    noise : float, at least 0, and at most 1 in a classification
    rng : numpy Generator; a noise of 0 draws nothing from it

    Returns
    -------
    noisy : ndarray of the shape and dtype of y, a new array

    Raises
    ------
    DatasetError
        When the task is unknown or the noise out of its range.

    Examples
    --------
    >>> y = np.array([[1.0], [0.0]])
    >>> add_label_noise(y, "binary", 1.0, np.random.default_rng(0)).tolist()
    [[0.0], [1.0]]
    """
    if task not in ("regression", "binary", "classification"):
        raise DatasetError(
            f'the task is {task!r}; it must be "regression", "binary" or "classification"'
        )
    highest = math.inf if task == "regression" else 1
    if not 0 <= noise <= highest or noise == math.inf:
        raise DatasetError(f"label noise is {noise} for a {task}; it must be from 0 to {highest}")
    noisy = y.copy()
    n_rows, n_outputs = y.shape
    if task == "regression":
        if noise > 0:
            std = y.std(axis=0, dtype=np.float64)
            noisy += rng.normal(0, noise * std, size=y.shape).astype(y.dtype)
        return noisy
    n_noisy = int(noise * n_rows)
    chosen = rng.choice(n_rows, size=n_noisy, replace=False)
    if task == "binary":
        noisy[chosen] = 1 - y[chosen]
        return noisy
    # Going 1 to n_outputs - 1 classes further reaches each of the other classes once.
    shift = rng.integers(1, n_outputs, size=n_noisy)
    noisy[chosen] = 0
    noisy[chosen, (y[chosen].argmax(axis=1) + shift) % n_outputs] = 1
    return noisy
