"""Matrix products: C = A @ B, the work horse of a dense layer.

A layer needs three of them: z = x @ w forward, dw = xᵀ @ dz and dx = dz @ wᵀ backward. All go
through one signature and a ladder of rungs, of which every run chooses one by name. A may have any
strides (xᵀ costs nothing); the rows of B must be contiguous, because the innermost loop runs along
them.

Legend: C is (m, n), A is (m, d), B is (d, n); i, j, k run over m, d, n.
The order of summation is part of the contract: C[i, k] adds its d products one by one, j = 0 first;
only `blas` has an order of its own.
"""

import numba
import numpy as np

from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.tile import ROWS, VECTOR_BYTES, VECTORS, full_tile, masked_tile


@kernel
def gemm_naive(c, a, b):
    """C[i, k] = Σ_j A[i, j] B[j, k].

    Writes: c (m, n). Reads: a (m, d), b (d, n). Cost: 2 m n d flops.

    The textbook's three loops with the two inner ones exchanged: k innermost walks along the rows
    of B and C, so a compiler can put several k in one register without changing any sum.
    """
    m, depth = a.shape
    n = b.shape[1]
    for i in range(m):
        for k in range(n):
            c[i, k] = 0
        for j in range(depth):
            a_ij = a[i, j]
            for k in range(n):
                c[i, k] += a_ij * b[j, k]


@kernel
def gemm_tiled(c, a, b):
    """C[i, k] = Σ_j A[i, j] B[j, k], block by block of C in vector registers.

    Writes: c (m, n). Reads: a (m, d), b (d, n). Cost: 2 m n d flops.

    A panel of B, as wide as the tile, is used by all rows of A before the next one, so that it
    stays in the nearest cache while C is written once.
    """
    m, depth = a.shape
    n = b.shape[1]
    if depth == 0:  # the tile's loop runs at least once
        c[:, :] = 0
        return
    width = VECTORS * (VECTOR_BYTES // c.itemsize)
    for k in range(0, n, width):
        for i in range(0, m, ROWS):
            c_block, a_rows, b_panel = c[i:, k:], a[i:], b[:, k:]
            if n - k >= width:
                full_tile(c_block, a_rows, b_panel, depth, m - i, n - k)
            else:
                masked_tile(c_block, a_rows, b_panel, depth, m - i, n - k)


@kernel
def gemm_blas(c, a, b):
    """C = A @ B by the BLAS that SciPy brings (OpenBLAS): the outside reference.

    Writes: c (m, n). Reads: a (m, d), contiguous along rows or columns, b (d, n). Its order of
    summation is its own and may differ between processors.
    """
    np.dot(a, b, c)


if numba.config.DISABLE_JIT:
    # Plain Python has no registers to speak of: the same sums, with every product rounded.
    gemm_tiled = gemm_naive

NAIVE, TILED, BLAS = range(3)

RUNGS = {"naive": NAIVE, "tiled": TILED, "blas": BLAS}
"""The rungs of the ladder by name: values of a run's `kernel`."""


@kernel
def gemm(rung, c, a, b):
    """C = A @ B on one of the `RUNGS`."""
    if rung == TILED:
        gemm_tiled(c, a, b)
    elif rung == BLAS:
        gemm_blas(c, a, b)
    else:
        gemm_naive(c, a, b)


@kernel
def transpose(at, a):
    """Aᵀ[j, i] = A[i, j], so that rows become contiguous columns.

    Writes: at (n, m). Reads: a (m, n).
    """
    m, n = a.shape
    for i in range(m):
        for j in range(n):
            at[j, i] = a[i, j]
