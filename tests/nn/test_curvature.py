"""Products with the Hessian: against differences of exact gradients, PyTorch, and a formula."""

import numpy as np
import pytest

from minibutter.nn.curvature import Hessian
from minibutter.nn.gradients import BatchGradient
from minibutter.nn.lanczos import largest_eigenpairs
from minibutter.nn.network import ACTIVATIONS, LOSSES, Network
from tests.nn.test_gradients_of_batches import draw_batch

EVERY_NETWORK = pytest.mark.parametrize(
    ("activation", "task", "shape"),
    [
        (activation, task, shape)
        for activation in ACTIVATIONS
        for task in LOSSES
        for shape in ("rectangle", "rectangle_residual")
    ],
)


def draw_small(activation, task, shape):
    return draw_batch(task, activation, shape, width=5)


def dense(hessian):
    """All columns (P, P) of the Hessian."""
    return np.array([hessian.product(unit) for unit in np.eye(hessian.network.num_parameters)])


def extrapolated_differences(gradient, point, step=2e-3):
    """Columns of the Hessian from gradients at four points, with an error of step⁴."""

    def difference(unit, h):
        return (gradient(point + h * unit) - gradient(point - h * unit)) / (2 * h)

    units = np.eye(point.size)
    return np.array([(4 * difference(e, step / 2) - difference(e, step)) / 3 for e in units])


@EVERY_NETWORK
def test_loss_and_gradient_are_those_of_training(activation, task, shape):
    network, parameters, x, y = draw_small(activation, task, shape)
    hessian = Hessian(network, parameters, x, y, l2=0.01)
    batch = BatchGradient(network, len(x), l2=0.01)
    assert hessian.loss == pytest.approx(batch.loss(parameters, x, y), rel=1e-13)
    np.testing.assert_allclose(
        hessian.gradient, batch.gradient(parameters, x, y), rtol=0, atol=1e-14
    )


@EVERY_NETWORK
def test_every_entry_of_the_hessian_is_a_difference_of_gradients(activation, task, shape):
    network, parameters, x, y = draw_small(activation, task, shape)
    columns = dense(Hessian(network, parameters, x, y, l2=0.01))
    batch = BatchGradient(network, len(x), l2=0.01)
    # Under relu no unit opens or shuts within so short a step, which costs digits.
    step, digits = (1e-6, 1e-8) if activation == "relu" else (2e-3, 1e-9)
    expected = extrapolated_differences(lambda point: batch.gradient(point, x, y), parameters, step)
    scale = np.abs(columns).max()
    np.testing.assert_allclose(columns, expected, rtol=0, atol=digits * scale)
    np.testing.assert_allclose(columns, columns.T, rtol=0, atol=1e-14 * scale)


def torch_loss(network, x, y, l2):
    """The same loss in PyTorch, of the flat parameters."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    activation = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "gelu": functional.gelu,
        "swish": functional.silu,
    }[network.activation]
    output = {
        "classification": functional.cross_entropy,
        "binary": functional.binary_cross_entropy_with_logits,
        "regression": lambda z, y: functional.mse_loss(torch.sigmoid(z), y),
    }[network.task]
    x, y = torch.from_numpy(x), torch.from_numpy(y)

    def loss(vector):
        h, penalty, start = x, 0.0, 0
        for layer, (fan_in, fan_out) in enumerate(
            zip(network.topology.fan_in.tolist(), network.widths, strict=True)
        ):
            stop = start + (fan_in + 1) * fan_out
            w = vector[start:stop].reshape(fan_in + 1, fan_out)
            z, start = h @ w[:-1] + w[-1], stop
            penalty = penalty + l2 * w[:-1].square().sum()
            if layer < network.depth - 1:
                h = activation(z) + h if network.skip[layer] else activation(z)
        return output(z, y) + penalty

    return torch, loss


@pytest.mark.peers
@EVERY_NETWORK
def test_products_equal_those_of_pytorch(activation, task, shape):
    network, parameters, x, y = draw_batch(task, activation, shape)
    torch, loss = torch_loss(network, x, y, l2=0.01)
    direction = np.random.default_rng(2).standard_normal(parameters.size)
    _, expected = torch.autograd.functional.hvp(
        loss, torch.from_numpy(parameters), torch.from_numpy(direction)
    )
    product = Hessian(network, parameters, x, y, l2=0.01).product(direction)
    error = np.linalg.norm(product - expected.numpy()) / np.linalg.norm(product)
    assert error < 1e-12


def test_hessian_of_a_float32_network_has_float64_digits():
    network, parameters, x, y = draw_batch("classification", "gelu", dtype="float32")
    precise, *_ = draw_batch("classification", "gelu", dtype="float64")
    direction = np.random.default_rng(2).standard_normal(parameters.size)
    rounded = [array.astype(np.float64) for array in (parameters, x, y)]
    np.testing.assert_array_equal(
        Hessian(network, parameters, x, y).product(direction),
        Hessian(precise, *rounded).product(direction),
    )


def test_weighted_gradients_are_sums_of_those_of_single_rows():
    network, parameters, x, y = draw_batch("binary", "tanh", "rectangle_residual")
    hessian = Hessian(network, parameters, x, y, l2=0.3)
    weights = np.random.default_rng(4).standard_normal(len(x))
    single = BatchGradient(network, 1)
    rows = [single.gradient(parameters, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    np.testing.assert_allclose(
        hessian.weighted_gradient(weights), weights @ np.array(rows), rtol=0, atol=1e-14
    )


def test_the_point_and_the_directions_are_left_alone():
    network, parameters, x, y = draw_batch("classification", "gelu")
    direction = np.ones_like(parameters)
    kept = parameters.copy()
    hessian = Hessian(network, parameters, x, y, l2=0.1)
    first, gradient = hessian.product(direction), hessian.gradient
    np.testing.assert_array_equal(hessian.product(direction), first)
    np.testing.assert_array_equal(hessian.gradient, gradient)
    np.testing.assert_array_equal(parameters, kept)
    np.testing.assert_array_equal(direction, 1)
    parameters += 1  # what was given may change afterwards
    np.testing.assert_array_equal(hessian.product(direction), first)


def test_sharpness_of_softmax_regression_at_zero_is_that_of_its_inputs(pooled_digits):
    """Of the output layer at W = 0, K classes: the largest eigenvalue of E[x xᵀ], over K."""
    x, y = (array[:500] for array in pooled_digits)
    n_inputs = x.shape[1]
    network = Network(n_inputs, (n_inputs, 10), "classification", "relu", dtype="float64")
    parameters = np.zeros(network.num_parameters)
    network.weights(parameters, 0)[:] = np.eye(n_inputs)  # pixels are not negative
    hessian = Hessian(network, parameters, x, y)
    first = network.topology.weight_start[1]

    def product(v):
        return hessian.product(np.concatenate([np.zeros(first), v]))[first:]

    found = largest_eigenpairs(product, parameters.size - first, rng=np.random.default_rng(0))
    features = np.column_stack([x, np.ones(len(x))])
    expected = np.linalg.eigvalsh(features.T @ features / len(x))[-1] / 10
    assert found.is_converged
    assert found.values[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, x, y: (p[1:], x, y), "parameters has shape"),
        (lambda p, x, y: (p, x[:, 1:], y), "x has shape"),
        (lambda p, x, y: (p, x, y[1:]), "y has shape"),
        (lambda p, x, y: (p, x[:0], y[:0]), r"x has shape \(0, 6\); the network and 0 rows need"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(spoil, message):
    network, parameters, x, y = draw_batch("classification")
    with pytest.raises(ValueError, match=message):
        Hessian(network, *spoil(parameters, x, y))


def test_directions_weights_and_factors_that_do_not_fit_are_refused():
    network, parameters, x, y = draw_batch("classification")
    hessian = Hessian(network, parameters, x, y)
    with pytest.raises(ValueError, match=r"direction has shape \(3,\)"):
        hessian.product(np.ones(3))
    with pytest.raises(ValueError, match=r"weights have shape \(3,\); there are 19 rows"):
        hessian.weighted_gradient(np.ones(3))
    with pytest.raises(ValueError, match=r"l2 is -1\.0"):
        Hessian(network, parameters, x, y, l2=-1.0)
