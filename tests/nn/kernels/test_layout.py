"""Blocks of lanes: what is gathered and transposed stands in its place, nothing else moves."""

import numpy as np
import pytest

from minibutter.nn.kernels import layout
from minibutter.nn.kernels.tile import LINE_BYTES

DTYPES = ("float32", "float64")
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


@pytest.mark.parametrize(("dtype", "lanes"), [("float32", 16), ("float64", 8)])
def test_lanes_of_a_type_fill_a_cache_line(dtype, lanes):
    assert layout.lanes_of(dtype) == layout.lanes_of(np.dtype(dtype)) == lanes
    for n_rows, blocks in ((1, 1), (lanes, 1), (lanes + 1, 2), (5 * lanes - 1, 5)):
        assert layout.count_blocks(n_rows, dtype) == blocks


@EVERY_DTYPE
@pytest.mark.parametrize("shape", [1, 7, (3, 5), (2, 3, 16)])
def test_aligned_zeros_are_zeros_that_start_on_a_cache_line(shape, dtype):
    arrays = [layout.aligned_zeros(shape, dtype) for _ in range(20)]
    for array in arrays:
        assert array.ctypes.data % LINE_BYTES == 0
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, np.zeros(shape))
        array[...] = 1  # memory of its own, or the next would not be zero


@EVERY_DTYPE
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 10, 16, 17, 18, 31, 33])
@pytest.mark.parametrize("n", [1, 5, 8, 16, 23, 33])
def test_gathered_rows_lie_in_the_lanes_of_their_blocks(n, width, dtype):
    rng = np.random.default_rng([1, n, width])
    lanes, blocks_of_n = layout.lanes_of(dtype), layout.count_blocks(n, dtype)
    source = rng.standard_normal((50, width)).astype(dtype)
    order, start = rng.permutation(50), 7
    # A block and two units more than are needed: those behind keep what they have.
    blocks = layout.aligned_zeros((blocks_of_n + 1, width + 2, lanes), dtype)
    blocks[:] = 7
    rows = np.zeros(lanes, np.int64)
    layout.gather_rows(blocks, source, order, start, n, rows)
    expected = np.full_like(blocks, 7)
    expected[:blocks_of_n, :width] = 0  # lanes behind the last row
    for i in range(n):
        expected[i // lanes, :width, i % lanes] = source[order[start + i]]
    np.testing.assert_array_equal(blocks, expected)


@EVERY_DTYPE
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 9, 17, 33])
def test_gathered_repetitions_lie_in_lanes_of_their_own(width, dtype):
    rng = np.random.default_rng([2, width])
    lanes, n, start = layout.lanes_of(dtype), 6, 3
    sources = rng.standard_normal((lanes, 11, width)).astype(dtype)
    orders = np.array([rng.permutation(11) for _ in range(lanes)])
    blocks = layout.aligned_zeros((n + 1, width + 1, lanes), dtype)
    blocks[:] = 7
    rows = np.zeros(lanes, np.int64)
    layout.gather_repetitions(blocks, sources, orders, start, n, rows)
    expected = np.full_like(blocks, 7)
    for lane in range(lanes):
        expected[:n, :width, lane] = sources[lane, orders[lane, start : start + n]]
    np.testing.assert_array_equal(blocks, expected)


@EVERY_DTYPE
@pytest.mark.parametrize("extra_units", [0, 1])
@pytest.mark.parametrize("width", [1, 3, 4, 8, 15, 16, 17, 31, 48])
@pytest.mark.parametrize("n_blocks", [1, 3])
def test_transposed_blocks_have_units_for_columns(n_blocks, width, extra_units, dtype):
    """A view without the constant unit has rows further apart, and is transposed alike."""
    rng = np.random.default_rng([3, n_blocks, width])
    lanes = layout.lanes_of(dtype)
    n = n_blocks * lanes - 3
    blocks = rng.standard_normal((n_blocks, width + extra_units, lanes)).astype(dtype)[:, :width]
    n_panels = layout.count_blocks(width, dtype)
    frame = np.full((n_panels + 2, n_blocks * lanes, lanes), 7, dtype)
    layout.transpose_blocks(frame[1:-1], blocks, n)
    by_unit = blocks.transpose(1, 0, 2).reshape(width, -1)
    for k in range(width):
        np.testing.assert_array_equal(frame[1 + k // lanes, :n, k % lanes], by_unit[k, :n])
    assert (frame[0] == 7).all()
    assert (frame[-1] == 7).all()
