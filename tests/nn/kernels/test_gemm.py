"""The matrix product: its value, and its order of summation, which is part of the contract."""

import numpy as np
import pytest

from minibutter.nn.kernels.gemm import gemm_naive, transpose

DTYPES = ("float32", "float64")

# (m, depth, n): ones, primes, and numbers on and beside the widths of vector registers.
SHAPES = [
    (1, 1, 1), (1, 7, 1), (3, 1, 5), (5, 3, 2), (7, 13, 17), (16, 16, 16), (17, 31, 33),
    (65, 5, 1), (2, 257, 3), (4, 8, 47), (3, 0, 2),
]  # fmt: skip


def draw(rng, rows, columns, dtype):
    return rng.standard_normal((rows, columns)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gemm_equals_numpy_and_overwrites_what_was_there(shape, dtype, assert_within):
    m, depth, n = shape
    rng = np.random.default_rng([1, *shape])
    a, b = draw(rng, m, depth, dtype), draw(rng, depth, n, dtype)
    c = np.full((m, n), np.nan, dtype)
    gemm_naive(c, a, b)
    # A sum of d products, in any order, errs by at most d eps/2 Σ|a||b|; here are two such sums.
    bound = depth * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))
    assert_within(c, a @ b, bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gemm_adds_its_products_one_by_one_in_their_order(shape, dtype):
    m, depth, n = shape
    rng = np.random.default_rng([2, *shape])
    a, b = draw(rng, m, depth, dtype), draw(rng, depth, n, dtype)
    c, one_by_one = np.empty((m, n), dtype), np.zeros((m, n), dtype)
    gemm_naive(c, a, b)
    for j in range(depth):
        one_by_one += a[:, j, np.newaxis] * b[j]
    np.testing.assert_array_equal(c, one_by_one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_strides_of_a_do_not_change_a_bit(shape, dtype):
    m, depth, n = shape
    rng = np.random.default_rng([3, *shape])
    a, b = draw(rng, m, depth, dtype), draw(rng, depth, n, dtype)
    transposed = np.ascontiguousarray(a.T).T
    spread = np.full((2 * m, 3 * depth), np.nan, dtype)
    spread[::2, ::3] = a
    expected = np.empty((m, n), dtype)
    gemm_naive(expected, a, b)
    for strided in (transposed, spread[::2, ::3]):
        c = np.full((m, n), np.nan, dtype)
        gemm_naive(c, strided, b)
        np.testing.assert_array_equal(c, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_reach_the_product_even_against_zeros(dtype):
    a = np.array([[np.nan, 1], [np.inf, 1], [1, 1]], dtype)
    c = np.empty((3, 2), dtype)
    gemm_naive(c, a, np.array([[0, 1], [1, 1]], dtype))
    np.testing.assert_array_equal(c, [[np.nan, np.nan], [np.nan, np.inf], [1, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (7, 1), (13, 17), (16, 8)])
def test_transpose_moves_every_entry(rows, columns, dtype):
    a = draw(np.random.default_rng([4, rows, columns]), rows, columns, dtype)
    at = np.full((columns, rows), np.nan, dtype)
    transpose(at, a)
    np.testing.assert_array_equal(at, a.T)
