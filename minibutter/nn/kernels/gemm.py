"""Matrix products, the work horse of a dense layer, on a ladder of rungs.

A layer needs three: z = x @ w forward, dw = xᵀ @ dz and dx = dz @ wᵀ backward. With a batch in
blocks of lanes (see `layout`) they are two operations: `multiply`, C_q = A @ B_q for every block q
(forward A = wᵀ, backward A = w), and `contract`, C = Σ_q X_q @ Y_qᵀ, the sum over all rows of the
batch. Every rung has both, with one signature:

naive    the textbook's three loops.
blocked  the same loops over blocks that fit the caches, each used often before it leaves them.
tiled    blocks of C in vector registers, A packed when it is larger than a cache block (`tiled`).
blas     `np.dot`, with copies from and to blocks: the outside reference.

Legend: A is (m, d), B_q is (d, lanes), C_q is (m, lanes); i and j run over m and d. What has more
units than that (the constant one) keeps them. n rows of a single run count in `contract`. `plan`
(`plan.Plan`) holds block sizes and scratch memory.
The order of summation is part of the contract: an element adds its products one by one, j = 0 (or
row 0) first, on all rungs but `blas`; `tiled` rounds once for product and sum (fused multiply-add),
where the machine has it.
"""

import numpy as np

from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.tile import RELU, RELU_MASK
from minibutter.nn.kernels.tiled import contract_tiled, multiply_tiled

# ---------------------------------------------------------------------------------------------
# naive


@kernel
def multiply_naive(c, a, b, plan, epilogue, gate):
    """C_q[i] = epilogue(Σ_j A[i, j] B_q[j]).

    Writes: c (blocks, >= m, lanes). Reads: a (m, d), b (blocks, >= d, lanes), gate, like c, for
    RELU_MASK. Cost: 2 m d flops a lane.
    """
    blocks, _, lanes = c.shape
    m, depth = a.shape
    for q in range(blocks):
        for i in range(m):
            for lane in range(lanes):
                c[q, i, lane] = 0
            for j in range(depth):
                for lane in range(lanes):
                    c[q, i, lane] += a[i, j] * b[q, j, lane]
    finish(c, m, epilogue, gate)


@kernel
def contract_naive(c, x, y, n, plan):
    """C[i, k] = Σ_rows X[i, row] Y[k, row].

    Writes: c (m, p). Reads: x (blocks, >= m, lanes), y (blocks, >= p, lanes), n: rows.
    Cost: 2 m p n flops.
    """
    m, p = c.shape
    lanes = x.shape[2]
    for i in range(m):
        for k in range(p):
            total = c.dtype.type(0)
            for q in range((n + lanes - 1) // lanes):
                for lane in range(min(lanes, n - q * lanes)):
                    total += x[q, i, lane] * y[q, k, lane]
            c[i, k] = total


# ---------------------------------------------------------------------------------------------
# blocked


@kernel
def multiply_blocked(c, a, b, plan, epilogue, gate):
    """As `multiply_naive`, block by block.

    A block of A, block_rows x block_depth, stays in the second-level cache while all of B's blocks
    of block_depth units, each small enough for the first level, pass by.
    """
    blocks, _, lanes = c.shape
    m, depth = a.shape
    for j_start in range(0, depth, plan.block_depth):
        j_end = min(j_start + plan.block_depth, depth)
        for i_start in range(0, m, plan.block_rows):
            i_end = min(i_start + plan.block_rows, m)
            for q in range(blocks):
                for i in range(i_start, i_end):
                    if j_start == 0:
                        for lane in range(lanes):
                            c[q, i, lane] = 0
                    for j in range(j_start, j_end):
                        for lane in range(lanes):
                            c[q, i, lane] += a[i, j] * b[q, j, lane]
    finish(c, m, epilogue, gate)


@kernel
def contract_blocked(c, x, y, n, plan):
    """As `contract_naive`, block by block: block_depth rows of the batch at a time."""
    m, p = c.shape
    lanes = x.shape[2]
    blocks = (n + lanes - 1) // lanes
    few_blocks = max(plan.block_depth // lanes, 1)
    for q_start in range(0, blocks, few_blocks):
        q_end = min(q_start + few_blocks, blocks)
        for i_start in range(0, m, plan.block_rows):
            i_end = min(i_start + plan.block_rows, m)
            for k in range(p):
                for i in range(i_start, i_end):
                    total = c[i, k] if q_start > 0 else c.dtype.type(0)
                    for q in range(q_start, q_end):
                        for lane in range(min(lanes, n - q * lanes)):
                            total += x[q, i, lane] * y[q, k, lane]
                    c[i, k] = total


# ---------------------------------------------------------------------------------------------
# blas


@kernel
def _as_rows(rows, blocks, width):
    """rows[k, q * lanes + lane] = blocks[q, k, lane]."""
    lanes = blocks.shape[2]
    for q in range(blocks.shape[0]):
        for k in range(width):
            for lane in range(lanes):
                rows[k, q * lanes + lane] = blocks[q, k, lane]


@kernel
def multiply_blas(c, a, b, plan, epilogue, gate):
    """As `multiply_naive`, by the BLAS that SciPy brings (OpenBLAS), in an order of its own.

    Writes: c (blocks, >= m, lanes). Reads: a (m, d), contiguous along rows or columns, b (blocks,
    >= d, lanes). Cost: 2 m d flops a lane, and the copies.
    """
    blocks, _, lanes = c.shape
    m, depth = a.shape
    n = blocks * lanes
    b_rows = plan.rows[0].reshape(plan.rows[0].size)[: depth * n].reshape(depth, n)
    c_rows = plan.rows[1].reshape(plan.rows[1].size)[: m * n].reshape(m, n)
    _as_rows(b_rows, b, depth)
    np.dot(a, b_rows, c_rows)
    for q in range(blocks):
        for i in range(m):
            for lane in range(lanes):
                c[q, i, lane] = c_rows[i, q * lanes + lane]
    finish(c, m, epilogue, gate)


@kernel
def contract_blas(c, x, y, n, plan):
    """As `contract_naive`, by BLAS; lanes behind the n-th row count as zeros."""
    m, p = c.shape
    rows = x.shape[0] * x.shape[2]
    x_rows = plan.rows[0].reshape(plan.rows[0].size)[: m * rows].reshape(m, rows)
    y_rows = plan.rows[1].reshape(plan.rows[1].size)[: p * rows].reshape(p, rows)
    _as_rows(x_rows, x, m)
    _as_rows(y_rows, y, p)
    x_rows[:, n:] = 0
    y_rows[:, n:] = 0
    np.dot(x_rows, y_rows.T, c)


# ---------------------------------------------------------------------------------------------
# What follows a product


@kernel
def finish(c, m, epilogue, gate):
    """What the tile does to finished sums, as a pass of its own for the other rungs.

    Updates: c (blocks, >= m, lanes). Reads: gate, like c, for RELU_MASK.
    NaN must survive: `not (z <= 0)` is true for NaN where `z > 0` is not.
    """
    blocks, _, lanes = c.shape
    if epilogue == RELU:
        for q in range(blocks):
            for i in range(m):
                for lane in range(lanes):
                    c[q, i, lane] = c[q, i, lane] if not (c[q, i, lane] <= 0) else 0
    elif epilogue == RELU_MASK:
        for q in range(blocks):
            for i in range(m):
                for lane in range(lanes):
                    c[q, i, lane] = c[q, i, lane] if not (gate[q, i, lane] <= 0) else 0


RUNGS = {
    "naive": (multiply_naive, contract_naive),
    "blocked": (multiply_blocked, contract_blocked),
    "tiled": (multiply_tiled, contract_tiled),
    "blas": (multiply_blas, contract_blas),
}
"""The rungs of the ladder by name, values of a run's `kernel`: `multiply` and `contract`."""
