"""What the rungs of `gemm` read and write: every access of a product to its arrays, in order.

Each function repeats the loops of the kernel of its name line by line, but computes nothing: where
the kernel reads or writes a number or a vector, it puts an access into a `stream.Stream`. Arrays
are given as places (`stream.Blocks`, `stream.Matrix`).

The compiler makes pieces of a loop over the 64 bytes of a line's lanes, loads a number of A once
for all of them, keeps C in memory in `multiply` and in a register in `contract`, where it adds
along the lanes number by number. Legend: that of `gemm`; `memory` stands for the plan.

The loops around the lanes need more numbers than there are registers: bounds, strides and addresses
of three arrays and a plan, which numba's calling convention puts on the stack, the locals below
them. These lines are always in use, so that the sets of the cache that they fall into have a way
less for the arrays.
"""

from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.stream import at, load, number_at, store, use_stack
from minibutter.nn.kernels.tile import LINE_BYTES, RELU, RELU_MASK
from minibutter.nn.kernels.tiled_stream import contract_tiled, multiply_tiled

# Of each line of the stack that a loop uses one place, as seen in code for AVX2; see `use_stack`.
_OF_PRODUCTS = (-312, -248, 104, 192)  # the loop over the depth in `multiply`
_OF_UNITS = (-312, -248, -184, -120, 24, 104, 192)  # the loop over rows of A around it
_OF_NAIVE_SUMS = (-128, -64, 24)  # around a sum in `contract_naive`
_OF_BLOCKED_SUMS = (-248, -216, -160, -136, -104, 16, 88, 176, 224)  # in `contract_blocked`


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
            use_stack(stream, _OF_UNITS)
            _clear_line(stream, at(c, q, i))
            for j in range(a.columns):
                use_stack(stream, _OF_PRODUCTS)
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
            use_stack(stream, _OF_NAIVE_SUMS)
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
                    use_stack(stream, _OF_UNITS)
                    if j_start == 0:
                        _clear_line(stream, at(c, q, i))
                    for j in range(j_start, j_end):
                        use_stack(stream, _OF_PRODUCTS)
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
                    use_stack(stream, _OF_BLOCKED_SUMS)
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
