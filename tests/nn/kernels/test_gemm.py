"""The matrix product: its value, and its order of summation, which is part of the contract."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from minibutter.nn.kernels import tile
from minibutter.nn.kernels.gemm import RUNGS, gemm, gemm_naive, gemm_tiled, transpose

DTYPES = ("float32", "float64")

# (m, depth, n): ones, primes, and numbers on and beside the widths of vector registers.
SHAPES = [
    (1, 1, 1), (1, 7, 1), (3, 1, 5), (5, 3, 2), (7, 13, 17), (16, 16, 16), (17, 31, 33),
    (65, 5, 1), (2, 257, 3), (4, 8, 47), (3, 0, 2), (6, 4, 64), (12, 3, 16), (13, 2, 130),
]  # fmt: skip
EVERY_RUNG = pytest.mark.parametrize("rung", RUNGS.values(), ids=RUNGS)


def draw(rng, rows, columns, dtype):
    return rng.standard_normal((rows, columns)).astype(dtype)


@EVERY_RUNG
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gemm_equals_numpy_and_overwrites_what_was_there(shape, dtype, rung, assert_within):
    m, depth, n = shape
    rng = np.random.default_rng([1, *shape])
    a, b = draw(rng, m, depth, dtype), draw(rng, depth, n, dtype)
    c = np.full((m, n), np.nan, dtype)
    gemm(rung, c, a, b)
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


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="without a compiler there is no tile")
@pytest.mark.skipif(not tile.HAS_FMA, reason="this processor does not fuse")
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_add_in_the_same_order_with_one_rounding_a_product(shape):
    """float32 products are exact in float64, so that one rounding to float32 a step is a fused
    multiply-add; every element must have that value, whichever tile or mask it fell into."""
    m, depth, n = shape
    rng = np.random.default_rng([5, *shape])
    a, b = draw(rng, m, depth, "float32"), draw(rng, depth, n, "float32")
    c, fused = np.full((m, n), np.nan, "float32"), np.zeros((m, n), "float32")
    gemm_tiled(c, a, b)
    for j in range(depth):
        # Double rounding could only matter where a float64 sum falls on a tie: not here.
        fused = (fused.astype("float64") + a[:, j, None].astype("float64") * b[j]).astype("float32")
    np.testing.assert_array_equal(c, fused)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="without a compiler there is no tile")
@pytest.mark.parametrize(
    ("features", "vector_bytes", "has_fma"),
    [("", 16, False), ("+sse2,+avx", 32, False), ("+avx,+avx2,+fma", 32, True)],
)
def test_tiles_follow_the_features_that_numba_compiles_for(features, vector_bytes, has_fma):
    """Without fused multiply-add the bits are those of the naive rung."""
    code = f"""
import numpy as np
from minibutter.nn.kernels import gemm, tile
assert (tile.VECTOR_BYTES, tile.HAS_FMA) == ({vector_bytes}, {has_fma})
rng = np.random.default_rng(8)
for m, depth, n in {SHAPES}:
    a, b = rng.standard_normal((m, depth)), rng.standard_normal((depth, n))
    tiled, naive = np.full((m, n), np.nan), np.full((m, n), np.nan)
    gemm.gemm_tiled(tiled, a, b)
    gemm.gemm_naive(naive, a, b)
    if tile.HAS_FMA:
        assert np.allclose(tiled, naive, rtol=1e-12, atol=1e-12)
    else:
        assert (tiled == naive).all(), (m, depth, n)
"""
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_writes_nothing_outside_its_matrix(dtype):
    rng = np.random.default_rng(6)
    for m, n in ((1, 1), (5, 7), (7, 17), (6, 16), (13, 33)):
        frame = np.full((m + 8, n + 40), 7, dtype)
        a, b = draw(rng, m, 3, dtype), draw(rng, 3, n, dtype)
        gemm_tiled(frame[4 : m + 4, 20 : n + 20], a, b)
        frame[4 : m + 4, 20 : n + 20] = 7
        assert (frame == 7).all(), (m, n)


@EVERY_RUNG
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_reach_the_product_even_against_zeros(dtype, rung):
    a = np.array([[np.nan, 1], [np.inf, 1], [1, 1]], dtype)
    c = np.empty((3, 2), dtype)
    gemm(rung, c, a, np.array([[0, 1], [1, 1]], dtype))
    np.testing.assert_array_equal(c, [[np.nan, np.nan], [np.nan, np.inf], [1, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (7, 1), (13, 17), (16, 8)])
def test_transpose_moves_every_entry(rows, columns, dtype):
    a = draw(np.random.default_rng([4, rows, columns]), rows, columns, dtype)
    at = np.full((columns, rows), np.nan, dtype)
    transpose(at, a)
    np.testing.assert_array_equal(at, a.T)
