"""Sums of rows by pairs, and squared norms."""

import numpy as np
import pytest

from minibutter.nn.kernels.slices import COLUMNS, add_pairs, squared_norm

DTYPES = ("float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_columns", [0, 1, 17, COLUMNS, 2 * COLUMNS + 3])
def test_every_column_goes_through_the_pairs_in_their_order(n_columns, dtype):
    rng = np.random.default_rng(n_columns)
    rows = rng.standard_normal((5, n_columns)).astype(dtype)
    expected = rows.copy()
    pairs = np.array([(3, 4), (0, 3), (1, 0)])
    for into, what in pairs:
        expected[into] += expected[what]
    add_pairs(rows, pairs)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1003])
def test_squared_norms_are_summed_in_double_precision(size, dtype):
    vector = np.random.default_rng(size).standard_normal(size).astype(dtype)
    expected = (vector.astype(np.float64) ** 2).sum()
    assert squared_norm(vector) == pytest.approx(expected, rel=1e-14)


def test_squared_norm_of_tiny_numbers_does_not_underflow():
    assert squared_norm(np.full(3, 1e-30, np.float32)) == pytest.approx(3e-60, rel=1e-6)
