"""`BatchGradient`: the gradients of training.

That loss and gradient belong together is tested in test_gradients, by differences.
"""

import re

import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.gradients import BatchGradient
from minibutter.nn.network import ACTIVATIONS, LOSSES, Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import TrainingData
from minibutter.nn.training import Trainer

DTYPES = ("float32", "float64")
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def draw_batch(task, activation="tanh", shape="rectangle", dtype="float64", n=19, width=11):
    """A network with nonzero biases, and a batch of rows."""
    rng = np.random.default_rng([n, width])
    n_outputs = 1 if task == "binary" else 4
    network = Network(6, (width, width, width, n_outputs), task, activation, shape, dtype)
    parameters = network.initial_parameters("glorot_uniform", rng)
    for layer in range(network.depth):
        network.biases(parameters, layer)[:] = rng.uniform(-0.3, 0.3, network.widths[layer])
    x = rng.standard_normal((n, 6)).astype(dtype)
    if task == "regression":
        y = rng.uniform(size=(n, n_outputs))
    elif task == "binary":
        y = rng.integers(2, size=(n, 1))
    else:
        y = np.eye(n_outputs)[rng.integers(n_outputs, size=n)]
    return network, parameters, x, y.astype(dtype)


def eps_of(network):
    """Rounding of the longest chain of sums: down through all layers and up again, in units 1."""
    return 2 * int(sum(network.topology.fan_in + 1)) * np.finfo(network.dtype).eps


@EVERY_DTYPE
def test_gradient_of_a_batch_is_the_mean_of_those_of_its_rows(dtype, assert_within):
    network, parameters, x, y = draw_batch("binary", "relu", "rectangle_residual", dtype)
    batch, n = BatchGradient(network, len(x)), len(x)
    rows = [batch.gradient(parameters, x[i : i + 1], y[i : i + 1]) for i in range(n)]
    rows = np.array(rows, np.float64)
    bound = (n * np.finfo(dtype).eps + eps_of(network)) * np.abs(rows).mean(axis=0).max()
    assert_within(batch.gradient(parameters, x, y), rows.mean(axis=0), bound)


@EVERY_DTYPE
@pytest.mark.parametrize("task", LOSSES)
def test_outputs_are_those_of_the_reference_whatever_the_targets(
    task, dtype, layers_of, assert_within
):
    network, parameters, x, y = draw_batch(task, "swish", dtype=dtype)
    layers = layers_of(network, parameters)
    _, _, expected, _ = reference.forward(layers, network.skip, "swish", task, x, y)
    outputs = BatchGradient(network, 32).outputs(parameters, x, np.roll(y, 1, axis=0))
    assert outputs.shape == y.shape
    assert_within(outputs, expected, eps_of(network))


@EVERY_DTYPE
@pytest.mark.parametrize("task", LOSSES)
def test_loss_is_that_of_the_reference_and_the_penalty(task, dtype, layers_of, assert_within):
    network, parameters, x, y = draw_batch(task, "sigmoid", dtype=dtype)
    layers, l1, l2 = layers_of(network, parameters), 0.01, 0.02
    *_, losses = reference.forward(layers, network.skip, "sigmoid", task, x, y)
    penalty = sum(reference.penalty(w.astype(np.float64), l1, l2) for w, _ in layers)
    loss = BatchGradient(network, 32, l1=l1, l2=l2).loss(parameters, x, y)
    assert isinstance(loss, float)
    expected = losses.mean(dtype=np.float64) + penalty
    assert_within(loss, expected, eps_of(network) * expected)
    without = BatchGradient(network, 32).loss(parameters, x, y)
    assert_within(loss - without, penalty, 4 * np.finfo(np.float64).eps * expected)


@EVERY_DTYPE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bits_of_loss_and_gradient_are_those_of_training(activation, shape, dtype):
    """A step of plain gradient descent at rate 1 subtracts the gradient."""
    network, parameters, x, y = draw_batch("classification", activation, shape, dtype)
    batch = BatchGradient(network, 40, l1=0.01, l2=0.02)
    order = np.random.default_rng(3).permutation(len(x))
    loss = batch.loss(parameters, x[order], y[order])
    expected = parameters - batch.gradient(parameters, x[order], y[order])
    trainer = Trainer(
        network, parameters, make_optimizer("sgd", 1.0), TrainingData(x, y, x, y),
        batch_size=len(x), shuffle=np.random.default_rng(3), l1=0.01, l2=0.02,
    )  # fmt: skip
    row = trainer.run_epoch()
    np.testing.assert_array_equal(trainer.parameters, expected)
    # Loss and penalty are added once, in float64.
    assert row.train[0] + row.train[-1] == pytest.approx(loss, rel=1e-15, abs=0)


def test_gradients_belong_to_the_caller():
    network, parameters, x, y = draw_batch("classification")
    batch, before = BatchGradient(network, 19), parameters.copy()
    first = batch.gradient(parameters, x, y)
    kept = first.copy()
    second = batch.gradient(parameters + 1, x, y)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(parameters, before)


def test_row_of_nan_makes_loss_and_gradient_nan():
    network, parameters, x, y = draw_batch("classification", "relu")
    batch = BatchGradient(network, 19)
    x[7, 2] = np.nan
    assert np.isnan(batch.loss(parameters, x, y))
    assert np.isnan(batch.gradient(parameters, x, y)).any()


@pytest.mark.parametrize("method", ["loss", "gradient"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, x, y: (p, x[:0], y[:0]), "the batch has 0 rows; there is memory for 1 to 18"),
        (lambda p, x, y: (p, x, y), "the batch has 19 rows; there is memory for 1 to 18"),
        (lambda p, x, y: (p[1:], x[:9], y[:9]), "parameters is a .*the network needs"),
        (lambda p, x, y: (p, x[:9, 1:], y[:9]), "x is a .*the network needs"),
        (lambda p, x, y: (p, x[:9], y[:8]), "y is a .*the network needs"),
        (lambda p, x, y: (p, x[:9].astype("float32"), y[:9]), "x is a float32 .*float64 array"),
        (lambda p, x, y: (p, x[:18:2], y[:9]), "x is a .*C-contiguous"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_a_kernel_reads_them(spoil, message, method):
    network, parameters, x, y = draw_batch("classification")
    call = getattr(BatchGradient(network, 18), method)
    with pytest.raises(ValueError, match=message):
        call(*spoil(parameters, x, y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"batch_size": 4, "l2": -1.0}, "l2 is -1.0; a penalty factor is at least 0 and finite"),
        ({"batch_size": 4, "l1": np.nan}, "l1 is nan; a penalty factor is at least 0 and finite"),
    ],
)
def test_impossible_batches_and_factors_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        BatchGradient(Network(3, (4, 2), "classification"), **options)
