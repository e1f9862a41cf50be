"""Dense layers, skips and activations against the reference, and NaN and inf through them."""

import math

import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.kernels import layers
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.kernels.layout import aligned_zeros, count_blocks, lanes_of
from minibutter.nn.kernels.tile import PLAIN, RELU, RELU_MASK
from minibutter.nn.network import Network

DTYPES = ("float32", "float64")

# (n, fan_in, fan_out): ones, primes, and numbers on and beside the widths of vector registers.
SHAPES = [(1, 1, 1), (1, 5, 3), (7, 1, 2), (13, 4, 1), (17, 31, 19), (64, 16, 8), (33, 15, 47)]


def relu_forward(a, z):
    """Within kernels it is part of the product (`tile.RELU`)."""
    a[:] = np.maximum(z, 0)


ACTIVATIONS = {
    "relu": (relu_forward, layers.relu_backward),
    "tanh": (layers.tanh_forward, layers.tanh_backward),
    "sigmoid": (layers.sigmoid_forward, layers.sigmoid_backward),
    "gelu": (layers.gelu_forward, layers.gelu_backward),
    "swish": (layers.swish_forward, layers.swish_backward),
}

NAN, INF = math.nan, math.inf


def draw(rng, *shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def poisoned(*shape, dtype):
    """An output array in which an entry that a kernel forgets is seen."""
    array = aligned_zeros(shape, dtype)
    array[:] = NAN
    return array


def to_blocks(rows, constant=False):
    """Rows (n, width) as blocks (B, width, LANES); with `constant`, a last unit that is 1."""
    n, width = rows.shape
    lanes = lanes_of(rows.dtype)
    blocks = aligned_zeros((count_blocks(n, rows.dtype), width + constant, lanes), rows.dtype)
    if constant:
        blocks[:, -1] = 1
    for i, row in enumerate(rows):
        blocks[i // lanes, :width, i % lanes] = row
    return blocks


def to_rows(blocks, n):
    """The inverse of `to_blocks`."""
    return blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])[:n]


def make_plan(shape, dtype, rung="tiled", repetitions=1):
    """How a network with a layer of this shape makes its products."""
    n, fan_in, fan_out = shape
    network = Network(fan_in, (fan_out, 1), "regression", dtype=dtype, kernel=rung)
    return network.workspace(n, repetitions).plan


class Dense:
    """A layer and a batch, in rows for the reference and in blocks for the kernels."""

    def __init__(self, seed, shape, dtype, rung):
        self.n, self.fan_in, self.fan_out = shape
        rng = np.random.default_rng([*np.atleast_1d(seed), *shape])
        self.x, self.dz = (
            draw(rng, self.n, width, dtype=dtype) for width in (self.fan_in, self.fan_out)
        )
        self.w = draw(rng, self.fan_in, self.fan_out, dtype=dtype)
        self.b = draw(rng, self.fan_out, dtype=dtype)
        self.with_biases = np.vstack([self.w, self.b])
        self.x_blocks, self.dz_blocks = to_blocks(self.x, constant=True), to_blocks(self.dz)
        self.plan = make_plan(shape, dtype, rung)

    def make_outputs(self, width, dtype):
        return poisoned(len(self.x_blocks), width, lanes_of(dtype), dtype=dtype)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_forward_equals_reference(shape, dtype, rung, assert_within):
    layer = Dense(1, shape, dtype, rung)
    z, a = (layer.make_outputs(layer.fan_out, dtype) for _ in range(2))
    layers.dense_forward(z, layer.x_blocks, layer.with_biases, 1, layer.plan, PLAIN)
    layers.dense_forward(a, layer.x_blocks, layer.with_biases, 1, layer.plan, RELU)
    # Both sides sum fan_in products and the bias, each with an error of at most eps/2 a term.
    sums = np.abs(layer.x) @ np.abs(layer.w) + np.abs(layer.b)
    bound = (layer.fan_in + 1) * np.finfo(dtype).eps * sums
    expected = reference.dense_forward(layer.x, layer.w, layer.b)
    assert_within(to_rows(z, layer.n), expected, bound)
    np.testing.assert_array_equal(a, np.maximum(z, 0))


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_backward_equals_reference(shape, dtype, rung, assert_within):
    layer = Dense(2, shape, dtype, rung)
    n, fan_in, fan_out = shape
    dw = poisoned(fan_in + 1, fan_out, dtype=dtype)
    dx, masked = (layer.make_outputs(fan_in, dtype) for _ in range(2))
    layers.dense_backward_parameters(dw, layer.x_blocks, layer.dz_blocks, n, 1, layer.plan)
    operands = layer.with_biases, layer.dz_blocks, 1, layer.plan
    layers.dense_backward_input(dx, *operands, PLAIN, dx)
    layers.dense_backward_input(masked, *operands, RELU_MASK, layer.x_blocks)
    expected_dx, expected_dw, expected_db = reference.dense_backward(layer.x, layer.w, layer.dz)
    eps, sizes = np.finfo(dtype).eps, np.abs(layer.dz)
    assert_within(dw[:-1], expected_dw, n * eps * (np.abs(layer.x).T @ sizes), "dw")
    assert_within(dw[-1], expected_db, n * eps * sizes.sum(axis=0), "db")
    bound = fan_out * eps * (sizes @ np.abs(layer.w).T)
    assert_within(to_rows(dx, n), expected_dx, bound, "dx")
    np.testing.assert_array_equal(masked, np.where(layer.x_blocks[:, :fan_in] > 0, dx, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_layers_have_the_bits_of_layers_of_their_own(shape, dtype):
    n, fan_in, fan_out = shape
    lanes = lanes_of(dtype)
    alone = [Dense([3, lane], shape, dtype, "tiled") for lane in range(lanes)]
    plan = make_plan(shape, dtype, repetitions=lanes)

    def pack(arrays):
        packed = aligned_zeros((*arrays[0].shape, lanes), dtype)
        packed[:] = np.stack(arrays, axis=-1)
        return packed

    w = pack([layer.with_biases for layer in alone]).reshape(fan_in + 1, fan_out * lanes)
    x = pack([np.hstack([layer.x, np.ones((n, 1), dtype)]) for layer in alone])
    dz = pack([layer.dz for layer in alone])
    a, masked = (poisoned(n, width, lanes, dtype=dtype) for width in (fan_out, fan_in))
    dw = np.full_like(w, NAN)
    layers.dense_forward(a, x, w, lanes, plan, RELU)
    layers.dense_backward_parameters(dw, x, dz, n, lanes, plan)
    layers.dense_backward_input(masked, w, dz, lanes, plan, RELU_MASK, x)
    for lane, layer in enumerate(alone):
        own_a, own_masked = (layer.make_outputs(width, dtype) for width in (fan_out, fan_in))
        own_dw = poisoned(fan_in + 1, fan_out, dtype=dtype)
        layers.dense_forward(own_a, layer.x_blocks, layer.with_biases, 1, layer.plan, RELU)
        layers.dense_backward_parameters(own_dw, layer.x_blocks, layer.dz_blocks, n, 1, layer.plan)
        layers.dense_backward_input(
            own_masked, layer.with_biases, layer.dz_blocks, 1, layer.plan, RELU_MASK, layer.x_blocks
        )
        np.testing.assert_array_equal(a[..., lane], to_rows(own_a, n))
        np.testing.assert_array_equal(masked[..., lane], to_rows(own_masked, n))
        np.testing.assert_array_equal(dw.reshape(fan_in + 1, fan_out, lanes)[..., lane], own_dw)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rung", ["naive", "blocked", "tiled"])
def test_bias_gradient_adds_the_rows_in_their_order(rung, dtype):
    layer = Dense(4, (41, 2, 5), dtype, rung)
    dw = poisoned(3, 5, dtype=dtype)
    layers.dense_backward_parameters(dw, layer.x_blocks, layer.dz_blocks, 41, 1, layer.plan)
    row_by_row = np.zeros(5, dtype)
    for row in layer.dz:
        row_by_row += row
    np.testing.assert_array_equal(dw[-1], row_by_row)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rung", ["naive", "blocked", "tiled"])
def test_bias_is_added_last_to_the_finished_sum(rung, dtype):
    layer = Dense(5, (3, 2, 1), dtype, rung)
    huge = 2 / np.finfo(dtype).eps
    # In this order 1 is lost in the first sum; the bias takes the huge number away only then.
    layer.x_blocks[:, :2], layer.with_biases[:] = 1, [[1], [huge], [-huge]]
    z = layer.make_outputs(1, dtype)
    layers.dense_forward(z, layer.x_blocks, layer.with_biases, 1, layer.plan, PLAIN)
    np.testing.assert_array_equal(to_rows(z, 3), np.zeros((3, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (16, 8)])
def test_skip_adds_forward_and_adds_backward(shape, dtype):
    """What goes into a layer has a constant unit more, which stays as it is."""
    blocks, width = shape
    rng = np.random.default_rng([4, *shape])
    lanes = lanes_of(dtype)
    a, dh, dx = (draw(rng, blocks, width, lanes, dtype=dtype) for _ in range(3))
    x, h = (draw(rng, blocks, width + 1, lanes, dtype=dtype) for _ in range(2))
    h[:, -1] = 1
    through_the_layer = dx.copy()
    layers.skip_forward(h, a, x)
    layers.skip_backward(dx, dh)
    np.testing.assert_array_equal(h[:, :-1], a + x[:, :-1])
    np.testing.assert_array_equal(h[:, -1], np.ones((blocks, lanes)))
    np.testing.assert_array_equal(dx, through_the_layer + dh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 31, 91, 128, 235])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_equals_reference(activation, size, dtype, assert_within):
    forward, backward = ACTIVATIONS[activation]
    function, derivative = reference.ACTIVATIONS[activation]
    rng = np.random.default_rng([5, size])
    z = 3 * draw(rng, size, dtype=dtype)
    z[0] = 0
    da = draw(rng, size, dtype=dtype)
    a, dz = poisoned(size, dtype=dtype), poisoned(size, dtype=dtype)
    forward(a, z)
    backward(dz, da, z, a)
    eps = np.finfo(dtype).eps
    # Values (those of gelu and swish: divided by |z|) and derivatives are at most about 1, and each
    # side rounds in two or three places; relu does not round at all.
    gated = 2 * eps * np.abs(z)
    a_bound = {"relu": 0, "gelu": gated, "swish": gated}.get(activation, 2 * eps)
    dz_bound = {"relu": 0}.get(activation, 3 * eps * np.abs(da))
    if activation == "swish":  # the reference multiplies z by what is left of 1 - σ
        dz_bound = dz_bound * (1 + np.abs(z))
    assert_within(a, function(z), a_bound, "a")
    assert_within(dz, da * derivative(z), dz_bound, "dz")


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_keeps_its_relative_accuracy_in_the_tail(dtype, assert_within):
    z = np.array([-1, -20, -80], dtype)
    a = np.empty_like(z)
    layers.sigmoid_forward(a, z)
    exact = [1 / (1 + math.exp(-value)) for value in z.tolist()]
    # expf and exp err by less than an ulp, addition and division by half an ulp each.
    assert_within(a, np.array(exact), 2 * np.finfo(dtype).eps * np.abs(exact))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("activation", "limits"),
    [
        ("relu", (0, INF)),
        ("tanh", (-1, 1)),
        ("sigmoid", (0, 1)),
        ("gelu", (NAN, INF)),  # -inf times Φ(-inf) = 0
        ("swish", (NAN, INF)),  # and -inf times σ(-inf)
    ],
)
def test_activation_keeps_nan_and_reaches_its_limits_at_infinity(activation, limits, dtype):
    forward, _ = ACTIVATIONS[activation]
    z = np.array([NAN, -INF, INF, 0], dtype)
    a = np.zeros_like(z)
    forward(a, z)
    at_zero = 0.5 if activation == "sigmoid" else 0
    np.testing.assert_array_equal(a, [NAN, *limits, at_zero])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_is_never_turned_into_a_zero_gradient(activation, dtype):
    forward, backward = ACTIVATIONS[activation]
    z = np.array([NAN, NAN, 1.5], dtype)
    da = np.array([NAN, 1, NAN], dtype)
    a, dz = np.empty_like(z), np.zeros_like(z)
    forward(a, z)
    backward(dz, da, z, a)
    assert np.isnan(dz[[0, 2]]).all(), dz
    assert dz[1] != 0, dz


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_passes_nothing_at_its_kink(dtype):
    a, dz = np.array([0, -0.0, 0, np.finfo(dtype).tiny], dtype), poisoned(4, dtype=dtype)
    layers.relu_backward(dz, np.ones_like(a), a, a)
    np.testing.assert_array_equal(dz, [0, 0, 0, 1])
