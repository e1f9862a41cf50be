"""One compiled call = one epoch: gather, forward, loss, metrics, backward, penalty, update.

The functions below are the whole training algorithm in reading order. They see a network as flat
arrays: the parameters are one vector (w_0, b_0, w_1, b_1, ...), and every intermediate array is a
view into a `Workspace`, made once per run (`arena`). Nothing is allocated, and the interpreter lock
is free for the whole epoch.

A batch lies in memory as blocks of lanes (see `layout`), and so the same code trains a single run,
whose lanes are rows of the batch, and LANES repetitions of an experiment at once, each in a lane of
its own with parameters (P, LANES). Only the matrix products, the gather and the sums over rows
differ; the numbers of a repetition do not.

Legend: n rows of the current batch (the last batch of an epoch may be smaller), layer l of depth
layers, P parameters, R repetitions: 1 or LANES. Sums over an epoch are float64.
"""

from functools import cache
from typing import NamedTuple

import numba
import numpy as np

from minibutter.nn.kernels import arena, layers, losses, optimizers
from minibutter.nn.kernels.arena import (
    count_batch_blocks,
    gather,
    layer_activation,
    layer_output,
    layer_units,
    layer_weights,
    output_blocks,
    output_rows,
    output_units,
    work_half,
)
from minibutter.nn.kernels.jit import address_of, call, kernel, view
from minibutter.nn.kernels.layout import blocks_from_units, units_from_blocks
from minibutter.nn.kernels.metrics import (
    LOSS,
    METRICS,
    N_METRICS,
    add_row_losses,
    add_rows,
    finish_metrics,
    row_metrics,
)
from minibutter.nn.kernels.tile import PLAIN, RELU_MASK
from minibutter.nn.kernels.tile import RELU as RELU_SUM

RELU, TANH, SIGMOID, GELU, SWISH = range(5)
SIGMOID_MSE, SIGMOID_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY = range(3)
SGD, RMSPROP, ADAM, TORCH_SGD = range(4)

N_SUMS = len(METRICS) + 1  # the ten metrics, then the weight penalty
PENALTY = len(METRICS)


class Optimizer(NamedTuple):
    """An update rule and its constants; which of them matter depends on the rule."""

    rule: int  # SGD ... TORCH_SGD
    learning_rate: float
    momentum: float
    rho: float
    beta_1: float
    beta_2: float
    epsilon: float
    is_nesterov: bool  # of TORCH_SGD, as is the next
    perturbation: float  # k of the step (k η) (d / k)
    # Parts of the parameter vector one behind the other, each with factors of its own:
    part_stop: np.ndarray  # (parts,) int64: where each ends; the last may be said to end later
    part_rate: np.ndarray  # (parts,) float64: over learning_rate
    part_epsilon: np.ndarray  # (parts,) float64: over epsilon


# ---------------------------------------------------------------------------------------------
# Forward and backward


@kernel
def activation_forward(code, a, z):
    """a = f(z) for the activation of that code, but relu: flat arrays."""
    if code == TANH:
        layers.tanh_forward(a, z)
    elif code == SIGMOID:
        layers.sigmoid_forward(a, z)
    elif code == GELU:
        layers.gelu_forward(a, z)
    else:
        layers.swish_forward(a, z)


@kernel
def activation_backward(code, dz, da, z, a):
    """dz = da f'(z) for the activation of that code: flat arrays."""
    if code == RELU:
        layers.relu_backward(dz, da, z, a)
    elif code == TANH:
        layers.tanh_backward(dz, da, z, a)
    elif code == SIGMOID:
        layers.sigmoid_backward(dz, da, z, a)
    elif code == GELU:
        layers.gelu_backward(dz, da, z, a)
    else:
        layers.swish_backward(dz, da, z, a)


@kernel
def forward(topology, parameters, work, blocks):
    """Run the batch that `gather` has put into work through the network, to the losses of its rows.

    Writes: work.z, work.a, work.h, work.outputs and the losses in work.row_values. Reads:
    parameters (P * R,).
    """
    last = topology.fan_out.size - 1
    plain, relu = np.int64(PLAIN), np.int64(RELU_SUM)  # a literal would compile code of its own
    below = work.x[:blocks]
    for layer in range(last):
        w = layer_weights(topology, parameters, layer)
        a = layer_activation(topology, work, layer, blocks)
        if topology.activation == RELU:
            layers.dense_forward(a, below, w, topology.repetitions, work.plan, relu)
        else:
            z = layer_units(topology, work, work.z, layer, blocks)
            layers.dense_forward(z, below, w, topology.repetitions, work.plan, plain)
            for q in range(blocks):
                a_q, z_q = a[q, : z.shape[1]], z[q]
                activation_forward(
                    topology.activation, a_q.reshape(a_q.size), z_q.reshape(z_q.size)
                )
        h = layer_output(topology, work, layer, blocks)
        if topology.skip[layer]:
            layers.skip_forward(h, a, below)
        below = h
    w = layer_weights(topology, parameters, last)
    last_blocks = output_blocks(topology, work, blocks)
    layers.dense_forward(last_blocks, below, w, topology.repetitions, work.plan, plain)
    z = output_units(topology, work, arena.LOGITS, blocks)
    p = output_units(topology, work, arena.P, blocks)
    y = output_units(topology, work, arena.Y, blocks)
    units_from_blocks(z, last_blocks)
    loss_forward(topology.loss, p, output_rows(work, blocks)[LOSS], z, y, work.loss_scratch)


@kernel
def loss_forward(code, p, row_losses, z, y, scratch):
    """Outputs and losses of rows for the loss of that code; arrays as in `losses`."""
    if code == SIGMOID_MSE:
        losses.sigmoid_mse_forward(p, row_losses, z, y)
    elif code == SIGMOID_BINARY_CROSS_ENTROPY:
        losses.sigmoid_binary_cross_entropy_forward(p, row_losses, z, y)
    else:
        losses.softmax_cross_entropy_forward(p, row_losses, z, y, scratch)


@kernel
def loss_backward(code, dz, p, y, n):
    """Gradient of the mean loss of n rows for the loss of that code; arrays as in `losses`."""
    if code == SIGMOID_MSE:
        losses.sigmoid_mse_backward(dz, p, y, n)
    elif code == SIGMOID_BINARY_CROSS_ENTROPY:
        losses.sigmoid_binary_cross_entropy_backward(dz, p, y, n)
    else:
        losses.softmax_cross_entropy_backward(dz, p, y, n)


@view
def output_gradient(topology, work, blocks, n):
    """dz (blocks, n_outputs, LANES) of the mean loss of n rows. Writes: work.outputs and blocks."""
    dz = output_units(topology, work, arena.DZ, blocks)
    p = output_units(topology, work, arena.P, blocks)
    y = output_units(topology, work, arena.Y, blocks)
    loss_backward(topology.loss, dz, p, y, n)
    dz_blocks = output_blocks(topology, work, blocks)
    blocks_from_units(dz_blocks, dz)
    return dz_blocks


@kernel
def backward(topology, parameters, work, blocks, n):
    """Gradient of the batch's mean loss, walking the forward pass from its end.

    Writes: work.dw (P * R,). Reads: what `forward` left in work; n: rows of the batch.
    """
    last = topology.fan_out.size - 1
    dz = output_gradient(topology, work, blocks, n)
    backward_parameters(topology, work, last, dz, n)
    backward_input(topology, parameters, work, last, dz)
    for layer in range(last - 1, -1, -1):
        width = topology.fan_out[layer]
        dz = work_half(work.dz, layer, blocks, width, work.x.shape[2])
        backward_parameters(topology, work, layer, dz, n)
        if layer > 0:
            backward_input(topology, parameters, work, layer, dz)


@kernel
def backward_parameters(topology, work, layer, dz, n):
    """Gradient of w_l and b_l, from dz (blocks, fan_out, LANES) of the layer. Writes: work.dw."""
    blocks = dz.shape[0]
    below = work.x[:blocks] if layer == 0 else layer_output(topology, work, layer - 1, blocks)
    dw = layer_weights(topology, work.dw, layer)
    layers.dense_backward_parameters(dw, below, dz, n, topology.repetitions, work.plan)


@kernel
def backward_input(topology, parameters, work, layer, dz):
    """dz of layer l - 1 from that of layer l > 0, through w_l, the skip and the activation."""
    blocks, lanes, width = dz.shape[0], dz.shape[2], topology.fan_in[layer]
    w = layer_weights(topology, parameters, layer)
    dz_below = work_half(work.dz, layer - 1, blocks, width, lanes)
    a = layer_activation(topology, work, layer - 1, blocks)
    plain, mask = np.int64(PLAIN), np.int64(RELU_MASK)
    if topology.activation == RELU and not topology.has_skip:
        layers.dense_backward_input(dz_below, w, dz, topology.repetitions, work.plan, mask, a)
        return
    dh_below = work_half(work.dh, layer - 1, blocks, width, lanes)
    layers.dense_backward_input(dh_below, w, dz, topology.repetitions, work.plan, plain, dh_below)
    if topology.skip[layer]:
        layers.skip_backward(dh_below, work_half(work.dh, layer, blocks, width, lanes))
    # h = a or h = a + x: either way da = dh.
    z = a if topology.activation == RELU else layer_units(topology, work, work.z, layer - 1, blocks)
    for q in range(blocks):
        dz_q, da_q, z_q, a_q = dz_below[q], dh_below[q], z[q, :width], a[q, :width]
        size = width * lanes
        activation_backward(
            topology.activation,
            dz_q.reshape(size),
            da_q.reshape(size),
            z_q.reshape(size),
            a_q.reshape(size),
        )


@kernel
def penalty(topology, parameters, totals, l1, l2):
    """l1 Σ|w| + l2 Σ w² over the weights of every layer; biases are free.

    Writes: totals (R,) float64. Reads: parameters (P * R,), l1, l2 (depth,) float64.
    """
    for repetition in range(topology.repetitions):
        totals[repetition] = 0
    for layer in range(topology.fan_out.size):
        if l1[layer] == 0 and l2[layer] == 0:
            continue
        w = layer_weights(topology, parameters, layer)[: topology.fan_in[layer]]
        losses.penalty_forward(totals, w.reshape(-1, topology.repetitions), l1[layer], l2[layer])


@kernel
def add_penalty_gradient(topology, parameters, gradient, l1, l2):
    """gradient += d penalty / d parameters; both (P * R,), l1, l2 (depth,)."""
    for layer in range(topology.fan_out.size):
        if l1[layer] == 0 and l2[layer] == 0:
            continue
        w = layer_weights(topology, parameters, layer)[: topology.fan_in[layer]]
        dw = layer_weights(topology, gradient, layer)[: topology.fan_in[layer]]
        losses.penalty_backward(dw.reshape(dw.size), w.reshape(w.size), l1[layer], l2[layer])


# ---------------------------------------------------------------------------------------------
# Training and evaluation


@kernel
def update(optimizer, parameters, slots, gradient, step):
    """One step of the optimizer; slots (2, P * R) are its memory, step counts from 1."""
    start = 0
    for part in range(optimizer.part_stop.size):
        stop = min(optimizer.part_stop[part], parameters.size)
        w, dw = parameters[start:stop], gradient[start:stop]
        first, second = slots[0][start:stop], slots[1][start:stop]
        rate = optimizer.learning_rate * optimizer.part_rate[part]
        epsilon = optimizer.epsilon * optimizer.part_epsilon[part]
        mu = optimizer.momentum
        if optimizer.rule == SGD:
            optimizers.sgd_update(w, first, dw, rate, mu)
        elif optimizer.rule == TORCH_SGD:
            optimizers.torch_sgd_update(
                w, first, dw, rate, mu, optimizer.is_nesterov, optimizer.perturbation
            )
        elif optimizer.rule == RMSPROP:
            optimizers.rmsprop_update(w, first, second, dw, rate, mu, optimizer.rho, epsilon)
        else:
            beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
            optimizers.adam_update(w, first, second, dw, step, rate, beta_1, beta_2, epsilon)
        start = stop


@kernel
def add_metrics(sums, rows, p, y, n, is_binary, records_metrics, scratch):
    """Add the batch to the sums of every repetition: all ten metrics, or only the loss.

    Updates: sums (R, >= 10) float64, rows (10, 1, blocks * LANES), whose losses are there already.
    Reads: p, y (1, n_outputs, blocks * LANES), n: rows of a repetition.
    """
    repetitions = sums.shape[0]
    if records_metrics:
        row_metrics(rows, p, y, is_binary, scratch)
        n_rows = rows.shape[2] // repetitions
        add_rows(sums, rows.reshape(N_METRICS, n_rows, repetitions)[:, :n])
    else:
        add_row_losses(sums, rows[LOSS].reshape(-1, repetitions)[:n])


@view
def add_batch(sums, topology, work, blocks, n, is_binary, records_metrics):
    """`add_metrics` of what `forward` has left in work."""
    rows = output_rows(work, blocks)
    p = output_units(topology, work, arena.P, blocks)
    targets = output_units(topology, work, arena.Y, blocks)
    call(
        work.add_metrics, (sums, rows, p, targets, n, is_binary, records_metrics, work.loss_scratch)
    )


def compile_steps(topology, work) -> dict[str, int]:
    """Addresses of what an epoch consists of, by the names of `Workspace`'s fields.

    Parameters
    ----------
    topology, work : of the types that they will be called with.
    """
    return _compile_steps(numba.typeof(topology), numba.typeof(work), numba.typeof(work.dw))


@cache
def _compile_steps(topology, work, parameters) -> dict[str, int]:
    number, flag = numba.int64, numba.boolean
    sums, orders = (numba.types.Array(dtype, 2, "C") for dtype in (numba.float64, numba.int64))
    scratch, units = (numba.types.Array(parameters.dtype, ndim, "C") for ndim in (2, 3))
    rows = units, units, orders
    return {
        "gather": address_of(gather, topology, work, *rows, number, number),
        "forward": address_of(forward, topology, parameters, work, number),
        "backward": address_of(backward, topology, parameters, work, number, number),
        "add_metrics": address_of(
            add_metrics, *(sums, units, units, units, number, flag, flag, scratch)
        ),
        "measure": address_of(
            measure, sums, work, topology, parameters, *rows, *(number, number, flag, flag)
        ),
    }


@kernel
def train_epoch(
    sums,
    parameters,
    slots,
    work,
    topology,
    optimizer,
    x,
    y,
    orders,
    step,
    l1,
    l2,
    is_binary,
    records_metrics,
):
    """Train on all rows once, in the given order; returns the number of steps taken so far.

    Writes: sums (R, 11) float64, zeros before: the ten metrics as running means over the epoch's
    batches, each taken before its step as Keras does, and the mean penalty; without
    `records_metrics` only the loss and the penalty. Updates: parameters (P * R,), slots (2, P * R).
    Reads: x (R, n_train, n_inputs), y (R, n_train, n_outputs), orders (R, n_train) int64 row
    numbers, step: steps before this epoch, l1, l2 (depth,): penalty factors, is_binary: see
    `metrics`.
    """
    n_rows, batch_size = orders.shape[1], work.batch_size
    for start in range(0, n_rows, batch_size):
        n = min(batch_size, n_rows - start)
        blocks = count_batch_blocks(topology, work, n)
        call(work.gather, (topology, work, x, y, orders, start, n))
        call(work.forward, (topology, parameters, work, blocks))
        add_batch(sums, topology, work, blocks, n, is_binary, records_metrics)
        penalty(topology, parameters, work.penalties, l1, l2)
        for repetition in range(topology.repetitions):
            sums[repetition, PENALTY] += n * work.penalties[repetition]
        call(work.backward, (topology, parameters, work, blocks, n))
        add_penalty_gradient(topology, parameters, work.dw, l1, l2)
        step += 1
        update(optimizer, parameters, slots, work.dw, step)
    for repetition in range(topology.repetitions):
        finish_metrics(sums[repetition, :PENALTY], n_rows)
        sums[repetition, PENALTY] /= n_rows
    return step


@kernel
def evaluate(sums, work, topology, parameters, x, y, orders, l1, l2, is_binary, records_metrics):
    """The ten metrics and the penalty of a data set at fixed parameters.

    Writes: sums (R, 11) float64, zeros before. Reads: x (R, n_rows, n_inputs), y (R, n_rows,
    n_outputs), orders (R, n_rows) int64: in which the rows are summed.
    """
    n_rows, first = orders.shape[1], np.int64(0)
    rows = x, y, orders, first, n_rows
    call(work.measure, (sums, work, topology, parameters, *rows, is_binary, records_metrics))
    penalty(topology, parameters, work.penalties, l1, l2)
    for repetition in range(topology.repetitions):
        finish_metrics(sums[repetition, :PENALTY], n_rows)
        sums[repetition, PENALTY] = work.penalties[repetition]


@kernel
def measure(sums, work, topology, parameters, x, y, orders, begin, end, is_binary, records_metrics):
    """Add the metrics of rows `begin` to `end` of the orders, one after the other.

    Updates: sums (R, >= 10) float64. Reads: as `evaluate`.
    """
    for start in range(begin, end, work.batch_size):
        n = min(work.batch_size, end - start)
        blocks = count_batch_blocks(topology, work, n)
        call(work.gather, (topology, work, x, y, orders, start, n))
        call(work.forward, (topology, parameters, work, blocks))
        add_batch(sums, topology, work, blocks, n, is_binary, records_metrics)
