"""Dense layers, skips and activations against the reference, and NaN and inf through them."""

import math

import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.kernels import layers
from minibutter.nn.kernels.gemm import NAIVE, RUNGS

DTYPES = ("float32", "float64")

# (n, fan_in, fan_out): ones, primes, and numbers on and beside the widths of vector registers.
SHAPES = [(1, 1, 1), (1, 5, 3), (7, 1, 2), (13, 4, 1), (17, 31, 19), (64, 16, 8), (33, 15, 47)]

ACTIVATIONS = {
    "relu": (layers.relu_forward, layers.relu_backward),
    "tanh": (layers.tanh_forward, layers.tanh_backward),
    "sigmoid": (layers.sigmoid_forward, layers.sigmoid_backward),
    "gelu": (layers.gelu_forward, layers.gelu_backward),
}

NAN, INF = math.nan, math.inf


def draw(rng, *shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def poisoned(*shape, dtype):
    """An output array in which an entry that a kernel forgets is seen."""
    return np.full(shape, np.nan, dtype)


@pytest.mark.parametrize("rung", RUNGS.values(), ids=RUNGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_forward_equals_reference(shape, dtype, rung, assert_within):
    n, fan_in, fan_out = shape
    rng = np.random.default_rng([1, *shape])
    x, w = draw(rng, n, fan_in, dtype=dtype), draw(rng, fan_in, fan_out, dtype=dtype)
    b = draw(rng, fan_out, dtype=dtype)
    z = poisoned(n, fan_out, dtype=dtype)
    layers.dense_forward(z, x, w, b, rung)
    # Both sides sum fan_in products and the bias, each with an error of at most eps/2 a term.
    bound = (fan_in + 1) * np.finfo(dtype).eps * (np.abs(x) @ np.abs(w) + np.abs(b))
    assert_within(z, reference.dense_forward(x, w, b), bound)


@pytest.mark.parametrize("rung", RUNGS.values(), ids=RUNGS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_backward_equals_reference(shape, dtype, rung, assert_within):
    n, fan_in, fan_out = shape
    rng = np.random.default_rng([2, *shape])
    x, w = draw(rng, n, fan_in, dtype=dtype), draw(rng, fan_in, fan_out, dtype=dtype)
    dz = draw(rng, n, fan_out, dtype=dtype)
    dw, db = poisoned(fan_in, fan_out, dtype=dtype), poisoned(fan_out, dtype=dtype)
    dx, wt = poisoned(n, fan_in, dtype=dtype), poisoned(fan_out, fan_in, dtype=dtype)
    layers.dense_backward_parameters(dw, db, x, dz, rung)
    layers.dense_backward_input(dx, wt, w, dz, rung)
    expected_dx, expected_dw, expected_db = reference.dense_backward(x, w, dz)
    eps = np.finfo(dtype).eps
    assert_within(dw, expected_dw, n * eps * (np.abs(x).T @ np.abs(dz)), "dw")
    assert_within(db, expected_db, n * eps * np.abs(dz).sum(axis=0), "db")
    assert_within(dx, expected_dx, fan_out * eps * (np.abs(dz) @ np.abs(w).T), "dx")


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_gradient_adds_the_rows_in_their_order(dtype):
    rng = np.random.default_rng(3)
    x, dz = draw(rng, 41, 2, dtype=dtype), draw(rng, 41, 5, dtype=dtype)
    dw, db = poisoned(2, 5, dtype=dtype), poisoned(5, dtype=dtype)
    layers.dense_backward_parameters(dw, db, x, dz, NAIVE)
    row_by_row = np.zeros(5, dtype)
    for row in dz:
        row_by_row += row
    np.testing.assert_array_equal(db, row_by_row)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (16, 8)])
def test_skip_adds_forward_and_adds_backward(shape, dtype):
    rng = np.random.default_rng([4, *shape])
    a, x, dh, dx = (draw(rng, *shape, dtype=dtype) for _ in range(4))
    h, through_the_layer = poisoned(*shape, dtype=dtype), dx.copy()
    layers.skip_forward(h, a, x)
    layers.skip_backward(dx, dh)
    np.testing.assert_array_equal(h, a + x)
    np.testing.assert_array_equal(dx, through_the_layer + dh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 31), (7, 13), (16, 8), (5, 47)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_equals_reference(activation, shape, dtype, assert_within):
    forward, backward = ACTIVATIONS[activation]
    function, derivative = reference.ACTIVATIONS[activation]
    rng = np.random.default_rng([5, *shape])
    z = 3 * draw(rng, *shape, dtype=dtype)
    z[0, 0] = 0
    da = draw(rng, *shape, dtype=dtype)
    a, dz = poisoned(*shape, dtype=dtype), poisoned(*shape, dtype=dtype)
    forward(a, z)
    backward(dz, da, z, a)
    eps = np.finfo(dtype).eps
    # Values (gelu's: divided by |z|) and derivatives are at most about 1, and each side rounds in
    # two or three places; relu does not round at all.
    a_bound = {"relu": 0, "gelu": 2 * eps * np.abs(z)}.get(activation, 2 * eps)
    dz_bound = {"relu": 0}.get(activation, 3 * eps * np.abs(da))
    assert_within(a, function(z), a_bound, "a")
    assert_within(dz, da * derivative(z), dz_bound, "dz")


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_keeps_its_relative_accuracy_in_the_tail(dtype, assert_within):
    z = np.array([[-1, -20, -80]], dtype)
    a = np.empty_like(z)
    layers.sigmoid_forward(a, z)
    exact = [[1 / (1 + math.exp(-value)) for value in z[0].tolist()]]
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
    ],
)
def test_activation_keeps_nan_and_reaches_its_limits_at_infinity(activation, limits, dtype):
    forward, _ = ACTIVATIONS[activation]
    z = np.array([[NAN, -INF, INF, 0]], dtype)
    a = np.zeros_like(z)
    forward(a, z)
    at_zero = 0.5 if activation == "sigmoid" else 0
    np.testing.assert_array_equal(a, [[NAN, *limits, at_zero]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_is_never_turned_into_a_zero_gradient(activation, dtype):
    forward, backward = ACTIVATIONS[activation]
    z = np.array([[NAN, NAN, 1.5]], dtype)
    da = np.array([[NAN, 1, NAN]], dtype)
    a, dz = np.empty_like(z), np.zeros_like(z)
    forward(a, z)
    backward(dz, da, z, a)
    assert np.isnan(dz[0, [0, 2]]).all(), dz
    assert dz[0, 1] != 0, dz


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_passes_nothing_at_and_below_its_kink(dtype):
    z = np.array([[-1, -0.0, 0.0, np.finfo(dtype).tiny]], dtype)
    a, dz = poisoned(1, 4, dtype=dtype), poisoned(1, 4, dtype=dtype)
    layers.relu_forward(a, z)
    layers.relu_backward(dz, np.ones_like(z), z, a)
    np.testing.assert_array_equal(a, [[0, 0, 0, np.finfo(dtype).tiny]])
    np.testing.assert_array_equal(dz, [[0, 0, 0, 1]])
