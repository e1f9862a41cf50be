"""The parts of a layer, each forward directly followed by its backward.

Legend: n rows of a batch, `fan_in` and `fan_out` units. x is what comes in, w (fan_in, fan_out) and
b (fan_out) are trained, z = x @ w + b is the pre-activation, a = f(z) the activation, h what goes
out (h = a, or h = a + x with a skip). All but w and b are stored in blocks of lanes (see `layout`).
`dx` is the gradient of the loss with respect to x, and so on; `plan` says how products are made
(`plan.Plan`). Kernels write into their first arguments and allocate nothing.

A literal such as 1 would widen float32 arithmetic to float64 in numba; constants are therefore made
with `z.dtype.type`. NaN must survive: `not (z <= 0)` is true for NaN where `z > 0` is not, hence
the form of relu's tests.

Source of the formulas: Goodfellow, Bengio, Courville, *Deep Learning* (2016), section 6.5; GELU:
Hendrycks & Gimpel 2016, arXiv:1606.08415, equation in section 2, the exact form with erf; Swish,
with β = 1: Ramachandran, Zoph, Le 2017, arXiv:1710.05941, section 4.
"""

import math

from minibutter.nn.kernels.elementary import exp, tanh
from minibutter.nn.kernels.jit import call, inlined_kernel, kernel
from minibutter.nn.kernels.layout import swap_axes
from minibutter.nn.kernels.tile import PLAIN

# ---------------------------------------------------------------------------------------------
# Dense: w (fan_in + 1, fan_out * R) has the biases as its last row; R is 1 in a single run, else
# every lane has weights of its own (fan_in + 1, fan_out, R)


@kernel
def dense_forward(z, x, w, repetitions, plan, epilogue):
    """z = x @ w + b, and what the layer does to it (`tile.PLAIN` or RELU).

    Writes: z (blocks, >= fan_out, lanes). Reads: x (blocks, fan_in + 1, lanes), its last unit 1.
    Cost: 2 n (fan_in + 1) fan_out flops. The bias is added last, to the finished sum.
    """
    if repetitions == 1:
        call(plan.multiply_transposed, (z, w.T, x, plan, epilogue, z))
    else:
        wt = swap_axes(w.reshape(w.shape[0], -1, repetitions))
        call(plan.multiply_lanes, (z, wt, x, plan, epilogue, z))


@kernel
def dense_backward_parameters(dw, x, dz, n, repetitions, plan):
    """From z = x @ w + b:  dw = xᵀ @ dz,  db = Σ_rows dz.

    Writes: dw, like w. Reads: x (blocks, fan_in + 1, lanes), dz (blocks, fan_out, lanes), n: rows.
    Cost: 2 n (fan_in + 1) fan_out flops. Rows are summed in their order.
    """
    if repetitions == 1:
        call(plan.contract, (dw, x, dz, n, plan))
    else:
        dwt = swap_axes(dw.reshape(dw.shape[0], -1, repetitions))
        call(plan.multiply_lanes, (dwt, swap_axes(x), swap_axes(dz), plan, PLAIN, dwt))


@kernel
def dense_backward_input(dx, w, dz, repetitions, plan, epilogue, gate):
    """From z = x @ w + b:  dx = dz @ wᵀ, and the mask of relu where x = relu(gate) is wanted.

    Writes: dx (blocks, fan_in, lanes). Reads: dz (blocks, fan_out, lanes), gate (blocks, >= fan_in,
    lanes). Cost: 2 n fan_in fan_out flops.
    """
    fan_in = w.shape[0] - 1
    if repetitions == 1:
        call(plan.multiply, (dx, w[:fan_in], dz, plan, epilogue, gate))
    else:
        w_lanes = w[:fan_in].reshape(fan_in, -1, repetitions)
        call(plan.multiply_lanes, (dx, w_lanes, dz, plan, epilogue, gate))


# ---------------------------------------------------------------------------------------------
# Skip


@kernel
def skip_forward(h, a, x):
    """h = a + x. Writes: h (blocks, >= width, lanes). Reads: a (blocks, width, lanes), x like h."""
    blocks, width, lanes = a.shape
    for q in range(blocks):
        for k in range(width):
            for lane in range(lanes):
                h[q, k, lane] = a[q, k, lane] + x[q, k, lane]


@kernel
def skip_backward(dx, dh):
    """From h = a + x:  da = dh (nothing to do),  dx += dh, on top of what came through the layer.

    Updates: dx (blocks, width, lanes). Reads: dh (blocks, width, lanes).
    """
    blocks, width, lanes = dx.shape
    for q in range(blocks):
        for k in range(width):
            for lane in range(lanes):
                dx[q, k, lane] += dh[q, k, lane]


# ---------------------------------------------------------------------------------------------
# Activations: all take (a, z) forward and (dz, da, z, a) backward, flat arrays of one size. relu
# has no forward of its own: it is part of the product (`tile.RELU`).


@kernel
def relu_backward(dz, da, z, a):
    """dz = da where a > 0, else 0; at the kink the derivative is 0, as everywhere in the field.

    As a > 0 where z > 0, the pre-activations need not be kept.
    """
    for e in range(a.size):
        dz[e] = da[e] if not (a[e] <= 0) else 0


@kernel
def tanh_forward(a, z):
    """a = tanh z."""
    for e in range(a.size):
        a[e] = tanh(z[e])


@kernel
def tanh_backward(dz, da, z, a):
    """dz = da (1 - a²)."""
    one = z.dtype.type(1)
    for e in range(a.size):
        dz[e] = da[e] * (one - a[e] * a[e])


@inlined_kernel
def logistic(z, one):
    """1 / (1 + e^-z), or e^z / (1 + e^z) for z < 0: nothing overflows. `one` sets the type."""
    shrunk = exp(-abs(z))
    numerator = one if z >= 0 else shrunk
    return numerator / (one + shrunk)


@kernel
def sigmoid_forward(a, z):
    """a = 1 / (1 + e^-z)."""
    one = z.dtype.type(1)
    for e in range(a.size):
        a[e] = logistic(z[e], one)


@kernel
def sigmoid_backward(dz, da, z, a):
    """dz = da a (1 - a)."""
    one = z.dtype.type(1)
    for e in range(a.size):
        dz[e] = da[e] * a[e] * (one - a[e])


@kernel
def gelu_forward(a, z):
    """a = z Φ(z), with Φ the normal distribution function (1 + erf(z/√2)) / 2."""
    root_half = z.dtype.type(math.sqrt(0.5))
    half, one = z.dtype.type(0.5), z.dtype.type(1)
    for e in range(a.size):
        a[e] = z[e] * half * (one + math.erf(z[e] * root_half))


@kernel
def gelu_backward(dz, da, z, a):
    """dz = da (Φ(z) + z φ(z)), with φ the normal density e^(-z²/2) / √(2π)."""
    root_half = z.dtype.type(math.sqrt(0.5))
    half, one = z.dtype.type(0.5), z.dtype.type(1)
    density_at_0 = z.dtype.type(1 / math.sqrt(2 * math.pi))
    for e in range(a.size):
        z_e = z[e]
        distribution = half * (one + math.erf(z_e * root_half))
        density = density_at_0 * exp(-half * z_e * z_e)
        dz[e] = da[e] * (distribution + z_e * density)


@kernel
def swish_forward(a, z):
    """a = z σ(z), with σ(z) = 1 / (1 + e^-z)."""
    one = z.dtype.type(1)
    for e in range(a.size):
        a[e] = z[e] * logistic(z[e], one)


@kernel
def swish_backward(dz, da, z, a):
    """dz = da (σ(z) + z σ'(z)), with σ'(z) = e^-|z| / (1 + e^-|z|)², which does not cancel."""
    one = z.dtype.type(1)
    for e in range(a.size):
        z_e = z[e]
        shrunk = exp(-abs(z_e))
        share = one / (one + shrunk)
        gate = share if z_e >= 0 else shrunk * share
        dz[e] = da[e] * (gate + z_e * (shrunk * share * share))
