"""Blocks of lanes: what is gathered and transposed stands in its place, nothing else moves."""

import ctypes
import mmap

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


# ---------------------------------------------------------------------------------------------
# Memory that is not ours


PAGE = mmap.PAGESIZE


@pytest.fixture
def guarded():
    """Makes arrays beside a page that must not be touched, at their end or at their start."""
    libc = ctypes.CDLL(None, use_errno=True)
    kept = []

    def make(shape, dtype, at_end):
        dtype = np.dtype(dtype)
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        whole = -(-n_bytes // PAGE) * PAGE
        memory = mmap.mmap(-1, whole + 2 * PAGE)
        view = np.frombuffer(memory, np.uint8)
        for page in (0, PAGE + whole):
            address = ctypes.c_void_p(view.ctypes.data + page)
            assert libc.mprotect(address, ctypes.c_size_t(PAGE), 0) == 0
        kept.append((memory, view))
        start = PAGE + (whole - n_bytes if at_end else 0)
        return view[start : start + n_bytes].view(dtype).reshape(shape)

    yield make
    for memory, view in kept:
        libc.mprotect(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(memory)), 3)


@EVERY_DTYPE
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 31, 33, 64, 65])
def test_gathering_touches_nothing_outside_of_its_arrays(guarded, width, at_end, dtype):
    """A number too many would end the process here."""
    rng = np.random.default_rng([4, width])
    lanes = layout.lanes_of(dtype)
    source = guarded((20, width), dtype, at_end)
    source[:] = rng.standard_normal(source.shape)
    rows = guarded((lanes,), np.int64, at_end)
    for n in (1, 3, lanes - 1, lanes, lanes + 1):
        rows[:] = -(2**62)  # what an earlier batch may have left
        order = np.array([19, *rng.integers(0, 20, n - 1)])
        blocks = guarded((layout.count_blocks(n, dtype), width, lanes), dtype, at_end)
        layout.gather_rows(blocks, source, order, 0, n, rows)
        for i in range(n):
            np.testing.assert_array_equal(blocks[i // lanes, :, i % lanes], source[order[i]])
    sources = guarded((lanes, 3, width), dtype, at_end)
    sources[:] = rng.standard_normal(sources.shape)
    orders = np.array([rng.permutation(3) for _ in range(lanes)])
    blocks = guarded((3, width, lanes), dtype, at_end)
    layout.gather_repetitions(blocks, sources, orders, 0, 3, rows)
    for lane in range(lanes):
        np.testing.assert_array_equal(blocks[:, :, lane], sources[lane, orders[lane]])
