"""How a batch lies in memory: in blocks whose innermost axis is one cache line.

A layer's units are stored as (blocks, units, LANES): LANES numbers, 64 bytes, stand side by side
for every unit of a block. In a single run the lanes are rows of the batch, row i in lane i % LANES
of block i // LANES; what is in the lanes behind the last row never enters a sum. When
repetitions of an experiment are packed together, block i is row i and lane r is repetition r.
Either way every loop over lanes is a vector instruction, without a remainder, and a layer's work is
the same whichever way it is counted.

What goes into a layer has one unit more, which is always 1: its weights are the biases, so that
z = x @ w + b and both of its gradients are plain products (the trick is as old as the perceptron;
Bishop, *Pattern Recognition and Machine Learning* (2006), section 3.1).

Legend: n rows of a batch, `width` units of a layer without the constant one.
"""

import numba
import numpy as np
from numpy.lib.stride_tricks import as_strided

from minibutter.nn.kernels.jit import inlined_kernel, kernel
from minibutter.nn.kernels.tile import (
    LINE_BYTES,
    VECTOR_BYTES,
    gather_square,
    transpose_square,
    vector_lanes,
)

# Columns of packed repetitions: with fewer, all rows of one repetition after the other stay in the
# first-level cache, which is worth more than whole vectors.
_WORTH_TRANSPOSING = 6
_HAS_REGISTERS = not numba.config.DISABLE_JIT
_CHECKS_BOUNDS = bool(numba.config.BOUNDSCHECK) or not _HAS_REGISTERS


def lanes_of(dtype: np.dtype | str) -> int:
    """Numbers in a cache line: 16 float32 or 8 float64."""
    return LINE_BYTES // np.dtype(dtype).itemsize


def count_blocks(n_rows: int, dtype: np.dtype | str) -> int:
    """Blocks that hold this many rows of a single run."""
    return -(-n_rows // lanes_of(dtype))


def aligned_zeros(shape: int | tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
    """Zeros that start on a cache line: a vector that straddles two lines takes twice as long."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape))
    memory = np.zeros(size * dtype.itemsize + LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % LINE_BYTES
    return memory[start : start + size * dtype.itemsize].view(dtype).reshape(shape)


@inlined_kernel
def _transpose(like, target, target_stride, n_targets, source, source_stride, n_sources):
    """target[j, i] = source[i, j], square by square: addresses, and strides in bytes.

    Writes: target, n_targets rows of whole vectors: what is in them behind the n_sources-th number
    has no meaning. Reads: source, n_sources rows of whole vectors.
    """
    side = vector_lanes(like)
    size = VECTOR_BYTES // side
    for j in range(0, n_targets, side):
        for i in range(0, n_sources, side):
            transpose_square(
                like,
                target + j * target_stride + i * size,
                target_stride,
                n_targets - j,
                source + i * source_stride + j * size,
                source_stride,
                n_sources - i,
            )


@kernel
def gather_rows(blocks, source, order, start, n, rows):
    """Rows order[start], ..., order[start + n - 1] of a single run, as blocks.

    Writes: blocks (>= n / LANES, >= width, LANES), zeros in the lanes behind the n-th row; units
    behind `width` are left alone. Reads: source (n_rows, width), C-contiguous and of the blocks'
    type; order (n_rows,) int64, from 0. Scratch: rows (LANES,) int64.
    """
    width, lanes = source.shape[1], blocks.shape[2]
    first, row_stride = np.int64(source.ctypes.data), np.int64(source.strides[0])
    target, unit_stride = np.int64(blocks.ctypes.data), np.int64(blocks.strides[1])
    for q in range((n + lanes - 1) // lanes):
        n_lanes = min(lanes, n - q * lanes)
        for lane in range(n_lanes):
            rows[lane] = _checked(order[start + q * lanes + lane], source.shape[0])
        if _HAS_REGISTERS:
            for lane in range(n_lanes):
                rows[lane] = first + rows[lane] * row_stride
            block = target + q * np.int64(blocks.strides[0])
            addresses = np.int64(rows.ctypes.data)
            _gather_block(blocks.dtype.type(0), block, unit_stride, width, addresses, n_lanes)
        else:
            blocks[q, :width, :n_lanes] = source[rows[:n_lanes]].T
            blocks[q, :width, n_lanes:] = 0


@kernel
def gather_repetitions(blocks, sources, orders, start, n, rows):
    """The same for packed repetitions: block i holds the i-th row of every repetition.

    Writes: blocks (>= n, >= width, LANES). Reads: sources (LANES, n_rows, width), C-contiguous and
    of the blocks' type; orders (LANES, n_rows) int64, from 0. Scratch: rows (LANES,) int64.
    """
    lanes, n_rows, width = sources.shape
    if width < _WORTH_TRANSPOSING or not _HAS_REGISTERS:
        for lane in range(lanes):
            for i in range(n):
                row = _checked(orders[lane, start + i], n_rows)
                for k in range(width):
                    blocks[i, k, lane] = sources[lane, row, k]
        return
    first, source_stride = np.int64(sources.ctypes.data), np.int64(sources.strides[0])
    target, unit_stride = np.int64(blocks.ctypes.data), np.int64(blocks.strides[1])
    for i in range(n):
        for lane in range(lanes):
            row = _checked(orders[lane, start + i], n_rows)
            rows[lane] = first + lane * source_stride + row * np.int64(sources.strides[1])
        block = target + i * np.int64(blocks.strides[0])
        addresses = np.int64(rows.ctypes.data)
        _gather_block(blocks.dtype.type(0), block, unit_stride, width, addresses, lanes)


@inlined_kernel
def _checked(row, n_rows):
    """A row number; IndexError for one that does not exist where NUMBA_BOUNDSCHECK is set.

    An address is read without asking, so that the compiler's own check does not see it.
    """
    if _CHECKS_BOUNDS and not 0 <= row < n_rows:
        raise IndexError("there is no such row to gather")
    return row


@inlined_kernel
def _gather_block(like, block, unit_stride, width, rows, n_lanes):
    """block[k, lane] = row_lane[k] for k < width, zeros behind the n_lanes-th lane.

    Addresses and strides in bytes (arrays would be counted as references in every call, which
    takes as long as a square); rows: where the addresses of the rows stand.
    """
    side = vector_lanes(like)
    size = VECTOR_BYTES // side
    for k in range(0, width, side):
        for lane in range(0, LINE_BYTES // size, side):
            gather_square(
                like,
                block + k * unit_stride + lane * size,
                unit_stride,
                width - k,
                rows + 8 * lane,
                n_lanes - lane,
                k * size,
            )


@kernel
def units_from_blocks(units, blocks):
    """Lay the lanes of all blocks behind each other: units[0, k, q LANES + lane] is of block q.

    Writes: units (1, width, blocks * LANES). Reads: blocks (blocks, width, LANES).
    """
    lanes = blocks.shape[2]
    for q in range(blocks.shape[0]):
        for k in range(blocks.shape[1]):
            for lane in range(lanes):
                units[0, k, q * lanes + lane] = blocks[q, k, lane]


@kernel
def blocks_from_units(blocks, units):
    """The way back from `units_from_blocks`. Writes: blocks. Reads: units."""
    lanes = blocks.shape[2]
    for q in range(blocks.shape[0]):
        for k in range(blocks.shape[1]):
            for lane in range(lanes):
                blocks[q, k, lane] = units[0, k, q * lanes + lane]


@kernel
def swap_axes(array):
    """View of a three-dimensional array with its first two axes exchanged.

    numba's own `transpose` allocates, and takes seconds to compile.
    """
    (first, second, third), (step_1, step_2, step_3) = array.shape, array.strides
    return as_strided(array, (second, first, third), (step_2, step_1, step_3))


@kernel
def transpose_blocks(panels, blocks, n):
    """Units become columns: panels[p, i, k] is unit p LANES + k of row i of a single run.

    Writes: panels (ceil(width / LANES), >= n in whole lines, LANES); columns without a unit hold
    numbers without meaning. Reads: blocks (>= n / LANES, width, LANES), any strides but the last.
    """
    width, lanes = blocks.shape[1], blocks.shape[2]
    for p in range((width + lanes - 1) // lanes):
        n_units = min(lanes, width - p * lanes)
        for q in range((n + lanes - 1) // lanes):
            if _HAS_REGISTERS:
                block_stride, unit_stride = np.int64(blocks.strides[0]), np.int64(blocks.strides[1])
                panel_stride, row_stride = np.int64(panels.strides[0]), np.int64(panels.strides[1])
                _transpose(
                    panels.dtype.type(0),
                    np.int64(panels.ctypes.data) + p * panel_stride + q * lanes * row_stride,
                    row_stride,
                    lanes,
                    np.int64(blocks.ctypes.data) + q * block_stride + p * lanes * unit_stride,
                    unit_stride,
                    n_units,
                )
            else:
                rows = panels[p, q * lanes : (q + 1) * lanes, :n_units]
                rows[:] = blocks[q, p * lanes : p * lanes + n_units].T
