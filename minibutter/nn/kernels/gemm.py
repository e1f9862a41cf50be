"""Matrix products: C = A @ B, the work horse of a dense layer.

A layer needs three of them: z = x @ w forward, dw = xᵀ @ dz and dx = dz @ wᵀ backward. All go
through one signature, so that a faster rung can take the place of this one. A may have any
strides (xᵀ costs nothing); the rows of B must be contiguous, because the innermost loop runs along
them.

Legend: C is (m, n), A is (m, d), B is (d, n); i, j, k run over m, d, n.
The order of summation is part of the contract: C[i, k] adds its d products one by one, j = 0 first.
"""

from minibutter.nn.kernels.jit import kernel


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
def transpose(at, a):
    """Aᵀ[j, i] = A[i, j], so that rows become contiguous columns.

    Writes: at (n, m). Reads: a (m, n).
    """
    m, n = a.shape
    for i in range(m):
        for j in range(n):
            at[j, i] = a[i, j]
