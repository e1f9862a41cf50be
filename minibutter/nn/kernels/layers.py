"""The parts of a layer, each forward directly followed by its backward.

Legend: n rows of a batch, `fan_in` and `fan_out` units. x (n, fan_in) is what comes in, w
(fan_in, fan_out) and b (fan_out) are trained, z = x @ w + b is the pre-activation, a = f(z) the
activation, h what goes out (h = a, or h = a + x with a skip). `dx` is the gradient of the loss with
respect to x, and so on; `rung` is one of `gemm.RUNGS`. Kernels write into their first arguments
and allocate nothing.

A literal such as 1 would widen float32 arithmetic to float64 in numba; constants are therefore made
with `z.dtype.type`. NaN must survive: `not (z <= 0)` is true for NaN where `z > 0` is not, hence
the form of relu's tests.

Source of the formulas: Goodfellow, Bengio, Courville, *Deep Learning* (2016), section 6.5; GELU:
Hendrycks & Gimpel 2016, arXiv:1606.08415, equation in section 2, the exact form with erf.
"""

import math

from minibutter.nn.kernels.elementary import exp, tanh
from minibutter.nn.kernels.gemm import gemm, transpose
from minibutter.nn.kernels.jit import kernel

# ---------------------------------------------------------------------------------------------
# Dense


@kernel
def dense_forward(z, x, w, b, rung):
    """z = x @ w + b.

    Writes: z (n, fan_out). Reads: x (n, fan_in), w (fan_in, fan_out), b (fan_out).
    Cost: 2 n fan_in fan_out flops. The bias is added last, to the finished sum.
    """
    gemm(rung, z, x, w)
    n, fan_out = z.shape
    for i in range(n):
        for k in range(fan_out):
            z[i, k] += b[k]


@kernel
def dense_backward_parameters(dw, db, x, dz, rung):
    """From z = x @ w + b:  dw = xᵀ @ dz,  db = Σ_rows dz.

    Writes: dw (fan_in, fan_out), db (fan_out). Reads: x (n, fan_in), dz (n, fan_out).
    Cost: 2 n fan_in fan_out flops. Rows are summed in their order.
    """
    gemm(rung, dw, x.T, dz)
    n, fan_out = dz.shape
    for k in range(fan_out):
        db[k] = 0
    for i in range(n):
        for k in range(fan_out):
            db[k] += dz[i, k]


@kernel
def dense_backward_input(dx, wt, w, dz, rung):
    """From z = x @ w + b:  dx = dz @ wᵀ.

    Writes: dx (n, fan_in), wt (fan_out, fan_in): scratch. Reads: w (fan_in, fan_out),
    dz (n, fan_out). Cost: 2 n fan_in fan_out flops.
    """
    transpose(wt, w)
    gemm(rung, dx, dz, wt)


# ---------------------------------------------------------------------------------------------
# Skip


@kernel
def skip_forward(h, a, x):
    """h = a + x. Writes: h (n, width). Reads: a, x (n, width)."""
    n, width = h.shape
    for i in range(n):
        for k in range(width):
            h[i, k] = a[i, k] + x[i, k]


@kernel
def skip_backward(dx, dh):
    """From h = a + x:  da = dh (nothing to do),  dx += dh, on top of what came through the layer.

    Updates: dx (n, width). Reads: dh (n, width).
    """
    n, width = dx.shape
    for i in range(n):
        for k in range(width):
            dx[i, k] += dh[i, k]


# ---------------------------------------------------------------------------------------------
# Activations: all take (a, z) forward and (dz, da, z, a) backward, arrays of shape (n, width)


@kernel
def relu_forward(a, z):
    """a = max(z, 0)."""
    n, width = z.shape
    for i in range(n):
        for k in range(width):
            a[i, k] = z[i, k] if not (z[i, k] <= 0) else 0


@kernel
def relu_backward(dz, da, z, a):
    """dz = da where z > 0, else 0; at the kink the derivative is 0, as everywhere in the field."""
    n, width = z.shape
    for i in range(n):
        for k in range(width):
            dz[i, k] = da[i, k] if not (z[i, k] <= 0) else 0


@kernel
def tanh_forward(a, z):
    """a = tanh z."""
    n, width = z.shape
    for i in range(n):
        for k in range(width):
            a[i, k] = tanh(z[i, k])


@kernel
def tanh_backward(dz, da, z, a):
    """dz = da (1 - a²)."""
    n, width = z.shape
    one = z.dtype.type(1)
    for i in range(n):
        for k in range(width):
            dz[i, k] = da[i, k] * (one - a[i, k] * a[i, k])


@kernel
def logistic(z, one):
    """1 / (1 + e^-z), or e^z / (1 + e^z) for z < 0, so that nothing overflows; `one` sets the type."""
    shrunk = exp(-abs(z))
    numerator = one if z >= 0 else shrunk
    return numerator / (one + shrunk)


@kernel
def sigmoid_forward(a, z):
    """a = 1 / (1 + e^-z)."""
    n, width = z.shape
    one = z.dtype.type(1)
    for i in range(n):
        for k in range(width):
            a[i, k] = logistic(z[i, k], one)


@kernel
def sigmoid_backward(dz, da, z, a):
    """dz = da a (1 - a)."""
    n, width = z.shape
    one = z.dtype.type(1)
    for i in range(n):
        for k in range(width):
            dz[i, k] = da[i, k] * a[i, k] * (one - a[i, k])


@kernel
def gelu_forward(a, z):
    """a = z Φ(z), with Φ the normal distribution function (1 + erf(z/√2)) / 2."""
    n, width = z.shape
    root_half = z.dtype.type(math.sqrt(0.5))
    half, one = z.dtype.type(0.5), z.dtype.type(1)
    for i in range(n):
        for k in range(width):
            a[i, k] = z[i, k] * half * (one + math.erf(z[i, k] * root_half))


@kernel
def gelu_backward(dz, da, z, a):
    """dz = da (Φ(z) + z φ(z)), with φ the normal density e^(-z²/2) / √(2π)."""
    n, width = z.shape
    root_half = z.dtype.type(math.sqrt(0.5))
    half, one = z.dtype.type(0.5), z.dtype.type(1)
    density_at_0 = z.dtype.type(1 / math.sqrt(2 * math.pi))
    for i in range(n):
        for k in range(width):
            z_ik = z[i, k]
            distribution = half * (one + math.erf(z_ik * root_half))
            density = density_at_0 * exp(-half * z_ik * z_ik)
            dz[i, k] = da[i, k] * (distribution + z_ik * density)
