"""A stream of memory accesses on its way to whoever asked for it, and the places of arrays.

An access (address, bytes, whether it writes) is what one machine instruction moves, as far as it is
known. Accesses are gathered in a buffer, and a full buffer is handed over: to a cache simulator, or
to a test that keeps it. Arrays are known by their addresses and strides alone, so that a stream can
be made for memory that does not exist here. What loops keep on the stack is in a stream if the
stack's place is known; else it is left out, with the arguments that lie there.
"""

from typing import Any, NamedTuple

import numpy as np

from minibutter.nn.kernels.jit import call, inlined_kernel, kernel
from minibutter.nn.kernels.plan import Plan
from minibutter.nn.kernels.tile import LINE_BYTES, VECTOR_BYTES

LOOP_BYTES = 16
"""Pieces in which compiled loops over lanes move a line: LLVM unrolls vectors four times, for which
16 lanes are too few, and takes 16 bytes at a time for what remains (seen with AVX2)."""

_STACK_NUMBER = 8  # bytes of what lies on the stack: integers and addresses

CAPACITY = 2**16
"""Accesses in a buffer: it stays in the second-level cache."""


class Stream(NamedTuple):
    """Where accesses go."""

    addresses: np.ndarray  # (capacity,) int64
    sizes: np.ndarray  # (capacity,) int32, bytes
    writes: np.ndarray  # (capacity,) bool
    used: np.ndarray  # (1,) int64: accesses in the buffer
    vector_bytes: int  # of the register tile's vectors
    loop_bytes: int  # see `LOOP_BYTES`
    stack: int  # where the kernel's return address lies, see `use_stack`; 0 leaves the stack out
    drain: int  # address of the kernel drain(consumer, addresses, sizes, writes, n)
    consumer: Any  # what `drain` works on, a tuple


class Blocks(NamedTuple):
    """Where an array (blocks, units, lanes) lies: start and strides in bytes."""

    start: int
    blocks: int
    units: int
    lanes: int
    block_stride: int
    unit_stride: int
    size: int  # bytes of a number


class Matrix(NamedTuple):
    """Where a matrix lies: start and strides in bytes."""

    start: int
    rows: int
    columns: int
    row_stride: int
    column_stride: int
    size: int


class Memory(NamedTuple):
    """Of a `plan.Plan` what decides the order of accesses, and where its memory lies."""

    tile_rows: int
    tile_lines: int
    block_rows: int
    block_depth: int
    block_columns: int
    packed: int
    panels: Blocks
    edge: Matrix


def make_stream(
    drain: int,
    consumer: tuple,
    vector_bytes: int = VECTOR_BYTES,
    capacity: int = CAPACITY,
    stack: int = 0,
) -> Stream:
    """An empty buffer.

    Parameters
    ----------
    drain : address (`jit.address_of`) of drain(consumer, addresses, sizes, writes, n), which takes
        the n first accesses of a buffer.
    consumer : first argument of `drain`.
    vector_bytes : of the tile's vectors, where they are not this machine's.
    capacity : accesses that are handed over at once.
    stack : where the return address of the kernel lies; 0 leaves the stack out.
    """
    return Stream(
        addresses=np.zeros(capacity, np.int64),
        sizes=np.zeros(capacity, np.int32),
        writes=np.zeros(capacity, np.bool_),
        used=np.zeros(1, np.int64),
        vector_bytes=vector_bytes,
        loop_bytes=LOOP_BYTES,
        stack=stack,
        drain=drain,
        consumer=consumer,
    )


def blocks_at(start: int, blocks: int, units: int, dtype: str) -> Blocks:
    """A contiguous array (blocks, units, LANES) at an address."""
    size = np.dtype(dtype).itemsize
    return Blocks(start, blocks, units, LINE_BYTES // size, units * LINE_BYTES, LINE_BYTES, size)


def matrix_at(start: int, rows: int, columns: int, dtype: str) -> Matrix:
    """A contiguous matrix at an address."""
    size = np.dtype(dtype).itemsize
    return Matrix(start, rows, columns, columns * size, size, size)


def transposed(matrix: Matrix) -> Matrix:
    """The view of the same memory with rows and columns exchanged."""
    start, rows, columns, row_stride, column_stride, size = matrix
    return Matrix(start, columns, rows, column_stride, row_stride, size)


def place_of_memory(plan: Plan, tile_lines: int) -> Memory:
    """What a stream has to know of a plan; `tile_lines` is the width of its register tile."""
    dtype = plan.packed.dtype.name
    return Memory(
        tile_rows=plan.tile_rows,
        tile_lines=tile_lines,
        block_rows=plan.block_rows,
        block_depth=plan.block_depth,
        block_columns=plan.block_columns,
        packed=plan.packed.ctypes.data,
        panels=blocks_at(plan.panels.ctypes.data, *plan.panels.shape[:2], dtype),
        edge=matrix_at(plan.edge.ctypes.data, *plan.edge.shape, dtype),
    )


# ---------------------------------------------------------------------------------------------
# Single accesses


@kernel
def load(stream, address, size):
    """The processor reads `size` bytes."""
    _append(stream, address, size, False)


@kernel
def store(stream, address, size):
    """The processor writes `size` bytes."""
    _append(stream, address, size, True)


@kernel
def use_stack(stream, offsets):
    """The processor reads a number in each of these places, bytes away from the return address.

    Above it lie the arguments, below it what the compiler could not keep in registers.
    """
    if stream.stack != 0:
        for offset in offsets:
            _append(stream, stream.stack + offset, _STACK_NUMBER, False)


@kernel
def _append(stream, address, size, is_write):
    n = stream.used[0]
    stream.addresses[n] = address
    stream.sizes[n] = size
    stream.writes[n] = is_write
    stream.used[0] = n + 1
    if n + 1 == stream.addresses.size:
        hand_over(stream)


@kernel
def hand_over(stream):
    """Give what is in the buffer to the consumer, also at the end of a stream."""
    call(
        stream.drain,
        (stream.consumer, stream.addresses, stream.sizes, stream.writes, stream.used[0]),
    )
    stream.used[0] = 0


@inlined_kernel
def at(blocks, q, i):
    """Address of blocks[q, i]: a line of lanes."""
    return blocks.start + q * blocks.block_stride + i * blocks.unit_stride


@inlined_kernel
def number_at(matrix, i, j):
    """Address of matrix[i, j]."""
    return matrix.start + i * matrix.row_stride + j * matrix.column_stride
