"""Whole batches through whole networks against the reference, and the bookkeeping of an epoch.

What an epoch means (running means, last batch, repeatability) is tested in test_training.
"""

from dataclasses import replace

import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.kernels import arena, epoch, optimizers
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.kernels.jit import in_python
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.network import ACTIVATIONS, LOSSES, Network, penalty_factors
from minibutter.nn.optimizers import make_optimizer

DTYPES = ("float32", "float64")


def draw_network(rng, task, activation, shape, dtype, width=13):
    """A network of four layers with nonzero biases, and a batch of 17 rows."""
    n_outputs = 1 if task == "binary" else 5
    network = Network(7, (width, width, width, n_outputs), task, activation, shape, dtype)
    parameters = network.initial_parameters("glorot_uniform", rng)
    for layer in range(network.depth):
        network.biases(parameters, layer)[:] = 0.1 * rng.standard_normal(network.widths[layer])
    x = rng.standard_normal((17, 7)).astype(dtype)
    y = np.eye(n_outputs, dtype=dtype)[rng.integers(n_outputs, size=17)]
    if task == "binary":
        y = rng.integers(2, size=(17, 1)).astype(dtype)
    return network, parameters, x, y


def poison(network, work):
    """NaN in every array: an entry that is read before it is written is seen.

    But for the units that are always 1. A row number that nobody wrote is far outside.
    """
    plan_arrays = [entry for entry in work.plan if isinstance(entry, np.ndarray)]
    arrays = [entry for entry in work if isinstance(entry, np.ndarray)]
    for array in (*arrays, *plan_arrays):
        array.fill(np.nan if array.dtype.kind == "f" else -(2**62))
    work.x[:, -1] = 1
    for layer in range(network.depth - 1):
        in_python(arena.layer_output)(network.topology, work, layer, len(work.x))[:, -1] = 1
    return work


def run(network, parameters, work, x, y):
    """Forward and backward of one batch; returns the sum of the losses of its rows."""
    order = np.arange(len(x))[None]
    blocks = in_python(arena.count_batch_blocks)(network.topology, work, len(x))
    arena.gather(network.topology, work, x[None], y[None], order, 0, len(x))
    epoch.forward(network.topology, parameters, work, blocks)
    losses = in_python(arena.output_rows)(work, blocks)[0].ravel()[: len(x)]
    epoch.backward(network.topology, parameters, work, blocks, len(x))
    return losses.sum(dtype=np.float64)


def outputs_of(network, work, which, n):
    """Logits or outputs (n, n_outputs) that `run` has left."""
    blocks = -(-n // work.x.shape[2])
    return in_python(arena.output_units)(network.topology, work, which, blocks)[0, :, :n].T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_and_backward_equal_reference(
    activation, task, shape, dtype, layers_of, assert_within
):
    rng = np.random.default_rng(1)
    network, parameters, x, y = draw_network(rng, task, activation, shape, dtype)
    # A workspace for more rows than the batch has, as for the last batch of an epoch.
    work = poison(network, network.workspace(40))
    total = run(network, parameters, work, x, y)

    ref_layers = layers_of(network, parameters)
    _, ref_z, ref_p, ref_losses = reference.forward(
        ref_layers, network.skip, activation, task, x, y
    )
    ref_gradients = reference.backward(ref_layers, network.skip, activation, task, x, y)
    # Terms in the longest chain of sums: down through all layers, up again, and over the rows.
    eps = np.finfo(dtype).eps
    down = sum(network.topology.fan_in) * eps
    around = 2 * down + len(x) * eps
    z, p = (outputs_of(network, work, which, len(x)) for which in (arena.LOGITS, arena.P))
    assert_within(z, ref_z[-1], down * np.abs(ref_z[-1]).max(), "z")
    assert_within(p, ref_p, down * np.abs(ref_z[-1]).max() / 4, "p")  # dp/dz <= 1/4
    assert_within(total, ref_losses.sum(dtype=np.float64), down * ref_losses.sum(), "loss")
    for layer, (ref_dw, ref_db) in enumerate(ref_gradients):
        dw, db = network.weights(work.dw, layer), network.biases(work.dw, layer)
        assert_within(dw, ref_dw, around * np.abs(ref_dw).max(), f"dw of layer {layer}")
        assert_within(db, ref_db, around * np.abs(ref_db).max(), f"db of layer {layer}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(1, 1), (31, 1, 4), (3, 17, 2, 5), (16, 8, 4)])
def test_networks_of_any_widths_equal_reference(widths, dtype, layers_of, assert_within):
    rng = np.random.default_rng([2, *widths])
    network = Network(1, widths, "regression", "tanh", dtype=dtype)
    parameters = network.initial_parameters("he_uniform", rng)
    x, y = rng.uniform(size=(1, 1)).astype(dtype), rng.uniform(size=(1, widths[-1])).astype(dtype)
    work = poison(network, network.workspace(1))
    run(network, parameters, work, x, y)
    expected = reference.backward(
        layers_of(network, parameters), network.skip, "tanh", "regression", x, y
    )
    flat = np.concatenate([part.ravel() for pair in expected for part in pair])
    bound = (2 * sum(network.topology.fan_in) + 4) * np.finfo(dtype).eps * np.abs(flat).max()
    assert_within(work.dw, flat, bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.02), (0.01, 0.02)])
def test_penalty_is_that_of_the_weights_of_every_layer_and_of_no_bias(
    l1, l2, dtype, layers_of, assert_within
):
    rng = np.random.default_rng(3)
    network, parameters, *_ = draw_network(rng, "classification", "relu", "rectangle", dtype)
    ref_layers = layers_of(network, parameters)
    eps, size = np.finfo(dtype).eps, network.num_parameters
    expected = sum(reference.penalty(w.astype(np.float64), l1, l2) for w, _ in ref_layers)
    # The kernel sums in float64.
    total = np.full(1, np.nan)
    factors = penalty_factors(l1, l2, np.ones(network.depth))
    epoch.penalty(network.topology, parameters, total, *factors)
    assert_within(total, expected, size * np.finfo(np.float64).eps * expected)

    gradient = rng.standard_normal(size).astype(dtype)
    through_the_loss = gradient.copy()
    epoch.add_penalty_gradient(network.topology, parameters, gradient, *factors)
    for layer, (w, _) in enumerate(ref_layers):
        dw, added = network.weights(through_the_loss, layer), reference.penalty_gradient(w, l1, l2)
        bound = eps * (np.abs(dw) + np.abs(added))
        assert_within(network.weights(gradient, layer), dw + added, bound, f"layer {layer}")
        np.testing.assert_array_equal(
            network.biases(gradient, layer), network.biases(through_the_loss, layer)
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row_repeated_has_the_mean_gradient_of_the_single_row(dtype, assert_within):
    rng = np.random.default_rng(4)
    network, parameters, x, y = draw_network(
        rng, "classification", "gelu", "rectangle_residual", dtype
    )
    n = 19
    gradients = []
    for repeats in (1, n):
        work = poison(network, network.workspace(repeats))
        rows, targets = np.repeat(x[:1], repeats, axis=0), np.repeat(y[:1], repeats, axis=0)
        run(network, parameters, work, rows, targets)
        gradients.append(work.dw)
    # dz is p - y over n: rounded n times alike, then carried up and summed n times.
    bound = (n + network.depth) * np.finfo(dtype).eps * np.abs(gradients[0])
    assert_within(gradients[1], gradients[0], bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", LOSSES)
def test_gathered_batch_holds_the_rows_of_the_order_their_targets_and_a_unit_of_1(task, dtype):
    rng = np.random.default_rng(5)
    network, _, x, y = draw_network(rng, task, "relu", "rectangle", dtype)
    work, order = network.workspace(12), rng.permutation(17)
    for start, n in ((0, 12), (12, 5)):
        rows = order[start : start + n]
        blocks = in_python(arena.count_batch_blocks)(network.topology, work, n)
        arena.gather(network.topology, work, x[None], y[None], order[None], start, n)
        gathered = work.x[:blocks].transpose(0, 2, 1).reshape(-1, 8)
        np.testing.assert_array_equal(gathered[:n, :7], x[rows])
        np.testing.assert_array_equal(gathered[:, 7], np.ones(len(gathered)))
        np.testing.assert_array_equal(outputs_of(network, work, arena.Y, n), y[rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["sgd", "rmsprop", "adam"])
def test_update_takes_the_rule_and_the_constants_of_the_optimizer(rule, dtype):
    rng = np.random.default_rng(6)
    parameters, gradient = rng.standard_normal((2, 9)).astype(dtype)
    expected = parameters.copy()
    slots, expected_slots = np.zeros((2, 2, 9), dtype)
    momentum = 0.0 if rule == "adam" else 0.5
    optimizer = make_optimizer(rule, 0.03, momentum)
    for step in (1, 2, 3):
        epoch.update(optimizer, parameters, slots, gradient, step)
        first, second = expected_slots
        if rule == "sgd":
            optimizers.sgd_update(expected, first, gradient, 0.03, 0.5)
        elif rule == "rmsprop":
            optimizers.rmsprop_update(expected, first, second, gradient, 0.03, 0.5, 0.9, 1e-7)
        else:
            optimizers.adam_update(expected, first, second, gradient, step, 0.03, 0.9, 0.999, 1e-7)
    np.testing.assert_array_equal(parameters, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
def test_size_of_the_workspace_changes_no_bit_of_a_batch(shape, dtype):
    rng = np.random.default_rng(7)
    network, parameters, x, y = draw_network(rng, "classification", "relu", shape, dtype)
    results = []
    for batch_size in (len(x), 64):
        work = poison(network, network.workspace(batch_size))
        results.append((run(network, parameters, work, x, y), work.dw))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 16, 17, 33])
def test_constant_units_and_neighbours_survive_batches_of_all_sizes(n, dtype):
    rng = np.random.default_rng(8)
    network, parameters, x, y = draw_network(
        rng, "classification", "tanh", "rectangle_residual", dtype
    )
    x, y = np.tile(x, (2, 1)), np.tile(y, (2, 1))
    work = network.workspace(34)
    for size in (34, n):
        run(network, parameters, work, x[:size], y[:size])
        for layer in range(network.depth - 1):
            units = in_python(arena.layer_output)(network.topology, work, layer, len(work.x))
            if size == 34:
                np.testing.assert_array_equal(units[:, -1], np.ones_like(units[:, -1]))
            else:  # the same memory, cut into fewer blocks
                blocks = -(-size // units.shape[2])
                units = in_python(arena.layer_output)(network.topology, work, layer, blocks)
                np.testing.assert_array_equal(units[:, -1], np.ones_like(units[:, -1]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_gives_the_gradient_of_the_reference(rung, dtype, layers_of, assert_within):
    rng = np.random.default_rng(9)
    network, parameters, x, y = draw_network(rng, "regression", "gelu", "rectangle_residual", dtype)
    network = replace(network, kernel=rung, tiling=Tiling(2, None, 5, 7, 16))
    work = poison(network, network.workspace(len(x)))
    run(network, parameters, work, x, y)
    expected = reference.backward(
        layers_of(network, parameters), network.skip, "gelu", "regression", x, y
    )
    flat = np.concatenate([part.ravel() for pair in expected for part in pair])
    bound = (2 * sum(network.topology.fan_in) + len(x)) * np.finfo(dtype).eps * np.abs(flat).max()
    assert_within(work.dw, flat, bound)
