"""What the rungs of `gemm` read and write: every access of a product to its arrays, in order.

Each function repeats the loops of the kernel of its name line by line, but computes nothing: where
the kernel reads or writes a number or a vector, it puts an access into a `stream.Stream`. Arrays
are given as places (`stream.Blocks`, `stream.Matrix`).

The compiler makes pieces of a loop over the 64 bytes of a line's lanes, loads a number of A once
for all of them, keeps C in memory in `multiply` and in a register in `contract`, where it adds
along the lanes number by number. Legend: that of `gemm`; `memory` stands for the plan.
"""

from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.stream import at, load, number_at, store
from minibutter.nn.kernels.tile import LINE_BYTES, RELU, RELU_MASK
from minibutter.nn.kernels.tiled_stream import contract_tiled, multiply_tiled


@kernel
def _add_to_line(stream, c, b):
    """c[lane] += a * b[lane] for all lanes of a line, a in a register."""
    for piece in range(0, LINE_BYTES, stream.loop_bytes):
        load(stream, b + piece, stream.loop_bytes)
        load(stream, c + piece, stream.loop_bytes)
        store(stream, c + piece, stream.loop_bytes)


@kernel
def _clear_line(stream, c):
    """c[lane] = 0 for all lanes of a line."""
    for piece in range(0, LINE_BYTES, stream.loop_bytes):
        store(stream, c + piece, stream.loop_bytes)


# ---------------------------------------------------------------------------------------------
# naive


@kernel
def multiply_naive(stream, c, a, b, memory, epilogue, gate):
    """Accesses of `gemm.multiply_naive`. c, b, gate: `Blocks`, a: `Matrix`."""
    for q in range(c.blocks):
        for i in range(a.rows):
            _clear_line(stream, at(c, q, i))
            for j in range(a.columns):
                load(stream, number_at(a, i, j), a.size)
                _add_to_line(stream, at(c, q, i), at(b, q, j))
    finish(stream, c, a.rows, epilogue, gate)


@kernel
def contract_naive(stream, c, x, y, n, memory):
    """Accesses of `gemm.contract_naive`. c: `Matrix`, x, y: `Blocks`."""
    lanes, size = x.lanes, x.size
    for i in range(c.rows):
        for k in range(c.columns):
            for q in range((n + lanes - 1) // lanes):
                for lane in range(min(lanes, n - q * lanes)):
                    load(stream, at(x, q, i) + lane * size, size)
                    load(stream, at(y, q, k) + lane * size, size)
            store(stream, number_at(c, i, k), size)


# ---------------------------------------------------------------------------------------------
# blocked


@kernel
def multiply_blocked(stream, c, a, b, memory, epilogue, gate):
    """Accesses of `gemm.multiply_blocked`."""
    for j_start in range(0, a.columns, memory.block_depth):
        j_end = min(j_start + memory.block_depth, a.columns)
        for i_start in range(0, a.rows, memory.block_rows):
            i_end = min(i_start + memory.block_rows, a.rows)
            for q in range(c.blocks):
                for i in range(i_start, i_end):
                    if j_start == 0:
                        _clear_line(stream, at(c, q, i))
                    for j in range(j_start, j_end):
                        load(stream, number_at(a, i, j), a.size)
                        _add_to_line(stream, at(c, q, i), at(b, q, j))
    finish(stream, c, a.rows, epilogue, gate)


@kernel
def contract_blocked(stream, c, x, y, n, memory):
    """Accesses of `gemm.contract_blocked`."""
    lanes, size = x.lanes, x.size
    blocks = (n + lanes - 1) // lanes
    few_blocks = max(memory.block_depth // lanes, 1)
    for q_start in range(0, blocks, few_blocks):
        q_end = min(q_start + few_blocks, blocks)
        for i_start in range(0, c.rows, memory.block_rows):
            i_end = min(i_start + memory.block_rows, c.rows)
            for k in range(c.columns):
                for i in range(i_start, i_end):
                    if q_start > 0:
                        load(stream, number_at(c, i, k), size)
                    for q in range(q_start, q_end):
                        for lane in range(min(lanes, n - q * lanes)):
                            load(stream, at(x, q, i) + lane * size, size)
                            load(stream, at(y, q, k) + lane * size, size)
                    store(stream, number_at(c, i, k), size)


# ---------------------------------------------------------------------------------------------
# What follows a product


@kernel
def finish(stream, c, m, epilogue, gate):
    """Accesses of `gemm.finish`: every line is read, decided upon, and written."""
    if epilogue in (RELU, RELU_MASK):
        for q in range(c.blocks):
            for i in range(m):
                for piece in range(0, LINE_BYTES, stream.loop_bytes):
                    if epilogue == RELU_MASK:
                        load(stream, at(gate, q, i) + piece, stream.loop_bytes)
                    load(stream, at(c, q, i) + piece, stream.loop_bytes)
                    store(stream, at(c, q, i) + piece, stream.loop_bytes)


STREAMS = {
    "naive": (multiply_naive, contract_naive),
    "blocked": (multiply_blocked, contract_blocked),
    "tiled": (multiply_tiled, contract_tiled),
}
"""The streams of `multiply` and `contract` by rung; what BLAS does is not known."""
