"""From columns of a table to float32 inputs and targets, by the rules of BUTTER.

Each column is encoded alone and by what it holds: a constant is dropped, two values become 0/1, a
few values or text become one-hot, other numbers are scaled to [0, 1]. As in BUTTER the scaling sees
all rows, test rows included. Values that would poison a training (missing, infinite, misspelt) are
refused with their column and row. Arithmetic is float64, results are stored as float32.
Source: BUTTER (arXiv 2207.12547) and the loaders of its framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from minibutter.datasets.dataset import DatasetError

if TYPE_CHECKING:
    import pandas as pd  # slow to import, so only the functions that call it do

# BUTTER: a column of numbers with at most this many distinct values counts as categorical.
MAX_CATEGORICAL_NUMBERS = 20

# Ours: text with more distinct values than this is an identifier or free text, and one-hot columns
# for it would fill the memory without teaching anything. BUTTER's widest column has 20.
MAX_CATEGORIES = 1000


def encode_inputs(frame: pd.DataFrame, source: str) -> np.ndarray:
    """Encode all columns of a table and put the results side by side.

    Parameters
    ----------
    frame : DataFrame with n_rows rows; its column names may repeat
    source : str, the file's name for messages

    Returns
    -------
    x : ndarray of shape (n_rows, n_inputs), float32, C-contiguous

    Raises
    ------
    DatasetError
        For a value that can not be encoded, and when no column distinguishes the rows.
    """
    # By position and not by name, because names may repeat.
    blocks = [
        _encode_column(frame.iloc[:, i], f"column {name!r} of {source}")
        for i, name in enumerate(frame.columns)
    ]
    if not any(block.shape[1] for block in blocks):
        raise DatasetError(
            f"{source} has no input that varies: beside the target it holds {len(blocks)} columns,"
            " each with one value at most; add a column to learn from"
        )
    return np.concatenate(blocks, axis=1)


def _encode_column(column: pd.Series, where: str) -> np.ndarray:
    """One column to (n_rows, k) float32; k is 0 for a constant."""
    column = _complete(column, where)
    codes, n_distinct = _factorize(column, where)
    if n_distinct <= 1:
        return np.empty((len(column), 0), dtype=np.float32)
    if n_distinct == 2:
        return _equals_first(codes)
    if _is_numeric(column):
        if n_distinct <= MAX_CATEGORICAL_NUMBERS:
            return one_hot(codes, n_distinct)
        return _min_max(column, where)
    _refuse_numbers_written_as_text(column, n_distinct, where)
    if n_distinct > MAX_CATEGORIES:
        raise DatasetError(
            f"{where} holds {n_distinct} different texts, each of which would become an input"
            f" (limit {MAX_CATEGORIES}); remove the column, or merge its values into groups"
        )
    return one_hot(codes, n_distinct)


def encode_target(column: pd.Series, task: str | None, where: str) -> tuple[np.ndarray, str]:
    """Encode the target, and settle the task if it is open.

    A target of text, or with at most 20 distinct values, is a classification; other numbers are a
    regression. `task` overrides that. A regression on two values gets 0/1 targets (BUTTER's
    `banana`), every other regression targets in [0, 1], because BUTTER's outputs are sigmoids.

    Parameters
    ----------
    column : Series of n_rows values
    task : "regression", "classification" or None to infer it
    where : str, the column and the file for messages

    Returns
    -------
    y : ndarray of shape (n_rows, n_outputs), float32
    task : "regression", "binary" or "classification"

    Raises
    ------
    DatasetError
        When a value is missing or infinite, all values are equal, text is asked to be a regression,
        or there are more classes than a network of this library should have outputs.
    """
    column = _complete(column, where)
    codes, n_distinct = _factorize(column, where)
    if n_distinct < 2:
        raise DatasetError(
            f"{where} is the target, and all its values are equal: there is nothing to learn;"
            " choose another target"
        )
    if not _is_numeric(column):
        _refuse_numbers_written_as_text(column, n_distinct, where)
    if task is None:
        is_regression = _is_numeric(column) and n_distinct > MAX_CATEGORICAL_NUMBERS
        task = "regression" if is_regression else "classification"
    if task == "regression":
        if not _is_numeric(column):
            raise DatasetError(
                f"{where} holds text, so it can not be the target of a regression;"
                ' choose task = "classification" or another target'
            )
        y = _equals_first(codes) if n_distinct == 2 else _min_max(column, where)
        return y, "regression"
    if n_distinct == 2:
        return _equals_first(codes), "binary"
    if n_distinct > MAX_CATEGORIES:
        raise DatasetError(
            f"{where} is the target of a classification and holds {n_distinct} classes"
            f' (limit {MAX_CATEGORIES}); choose task = "regression" or another target'
        )
    return one_hot(codes, n_distinct), "classification"


def encode_pixels(pixels: np.ndarray, white: int) -> np.ndarray:
    """Scale grey values 0..white to [0, 1]; no column is dropped, however constant.

    Parameters
    ----------
    pixels : ndarray of shape (n_rows, n_pixels) of integers in 0..white
    white : int, the value that becomes 1

    Returns
    -------
    x : ndarray of shape (n_rows, n_pixels), float32
    """
    # A table instead of a division: 70,000 images need no float64 copy of themselves.
    levels = (np.arange(white + 1) / white).astype(np.float32)
    return levels[pixels]


def one_hot(codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Row i gets a 1 in column codes[i].

    Parameters
    ----------
    codes : ndarray of shape (n_rows,), integers in 0..n_classes - 1
    n_classes : int

    Returns
    -------
    indicators : ndarray of shape (n_rows, n_classes), float32
    """
    indicators = np.zeros((len(codes), n_classes), dtype=np.float32)
    indicators[np.arange(len(codes)), codes] = 1
    return indicators


def _equals_first(codes: np.ndarray) -> np.ndarray:
    """Two values as 1 (equal to the first row's) and 0: BUTTER's polarity depends on row 0."""
    return (codes == codes[0]).astype(np.float32)[:, None]


def _min_max(column: pd.Series, where: str) -> np.ndarray:
    """Numbers to [0, 1], as a column."""
    values = column.to_numpy(dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise DatasetError(
            f"{where} spans {low:g} to {high:g}, more than float64 can subtract; rescale the column"
        )
    return ((values - low) / (high - low)).astype(np.float32)[:, None]


def _complete(column: pd.Series, where: str) -> pd.Series:
    """The column with plain values, none of them missing or infinite."""
    missing = column.isna().to_numpy(dtype=bool)
    if not _is_numeric(column):
        missing = missing | np.array([isinstance(v, str) and not v.strip() for v in column], bool)
    if len(missing) and missing.all():
        raise DatasetError(f"{where} is empty in all {len(missing)} rows; remove the column")
    if missing.any():
        raise DatasetError(
            f"{where} has no value in {missing.sum()} of {len(missing)} rows, first in data row"
            f" {missing.argmax() + 1}; fill those values in, or remove the rows or the column"
        )
    if column.dtype.name == "category":
        # A stored category type lists its values in any order, and some that never occur.
        column = column.astype(column.cat.categories.dtype)
    if _is_numeric(column):
        infinite = np.isinf(column.to_numpy(dtype=np.float64))
        if infinite.any():
            raise DatasetError(
                f"{where} is infinite in {infinite.sum()} of {len(infinite)} rows, first in data"
                f" row {infinite.argmax() + 1}; replace those values, or remove the rows"
            )
    return column


def _is_numeric(column: pd.Series) -> bool:
    return column.dtype.kind in "biuf"


def _factorize(column: pd.Series, where: str) -> tuple[np.ndarray, int]:
    """Number the distinct values in sorted order: codes of shape (n_rows,), and their count."""
    import pandas as pd

    try:
        codes, distinct = pd.factorize(column, sort=True)
    except TypeError as error:
        raise DatasetError(
            f"{where} holds {type(column.iloc[0]).__name__} values ({error});"
            " store one number or one text in each row, or remove the column"
        ) from error
    return codes, len(distinct)


def _refuse_numbers_written_as_text(column: pd.Series, n_distinct: int, where: str) -> None:
    """One "?" turns a column of numbers into text, which would then be one-hot without a word."""
    import pandas as pd

    if n_distinct <= MAX_CATEGORICAL_NUMBERS or column.dtype.kind != "O":
        return
    unreadable = pd.to_numeric(column, errors="coerce").isna().to_numpy()
    n_unreadable = int(unreadable.sum())
    if 2 * n_unreadable > len(column):
        return  # most values are words: text is meant
    if n_unreadable == 0:
        raise DatasetError(
            f"{where} holds numbers that are stored as text; store them as numbers, or put a letter"
            " before them if they are names"
        )
    first = int(unreadable.argmax())
    raise DatasetError(
        f"{where} holds numbers, but {n_unreadable} of {len(column)} rows hold something else,"
        f" first {column.iloc[first]!r} in data row {first + 1}; correct or remove those rows"
    )
