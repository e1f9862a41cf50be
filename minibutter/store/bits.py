"""Comparing columns bit by bit.

Arrow's own `equals` says that NaN differs from NaN and that 0.0 is -0.0; here a float is its bits.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def differing_rows(one: pa.ChunkedArray, other: pa.ChunkedArray, any_nan: bool) -> np.ndarray:
    """Numbers of the rows, from 0, in which two columns of one length and type differ.

    Parameters
    ----------
    one, other : columns; null differs from every value.
    any_nan : whether one NaN is as good as another. Which one a calculation ends with depends on
        the order in which a compiler names the operands, and means nothing.
    """
    is_known, other_is_known = (np.asarray(column.is_valid()) for column in (one, other))
    if pa.types.is_floating(one.type):
        numbers, other_numbers = (pc.fill_null(column, 0.0).to_numpy() for column in (one, other))
        width = f"u{numbers.dtype.itemsize}"
        differs = numbers.view(width) != other_numbers.view(width)
        if any_nan:
            differs &= ~(np.isnan(numbers) & np.isnan(other_numbers))
    elif pa.types.is_list(one.type):
        pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
        differs = np.array([value != other_value for value, other_value in pairs], dtype=bool)
    else:
        differs = np.asarray(pc.fill_null(pc.not_equal(one, other), False))
    return np.flatnonzero((is_known != other_is_known) | (is_known & other_is_known & differs))


def is_same(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same columns and rows, to the last bit."""
    if one.schema != other.schema or len(one) != len(other):
        return False
    return not any(len(differing_rows(one[n], other[n], any_nan=False)) for n in one.column_names)
