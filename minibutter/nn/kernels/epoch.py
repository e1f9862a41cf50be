"""One compiled call = one epoch: gather, forward, loss, metrics, backward, penalty, update.

The functions below are the whole training algorithm in reading order. They see a network as flat
arrays: `Topology` says where the weights, biases and units of each layer lie, the parameters are
one vector (w_0, b_0, w_1, b_1, ...), and every intermediate array is a view into `Workspace`, made
once per run. Nothing is allocated, and the interpreter lock is free for the whole epoch.

Legend: n rows of the current batch (the last batch of an epoch may be smaller), layer l of depth
layers, P parameters. Sums over an epoch are float64.
"""

from typing import NamedTuple

import numpy as np

from minibutter.nn.kernels import layers, losses, optimizers
from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.metrics import METRICS, add_metrics, finish_metrics

RELU, TANH, SIGMOID, GELU = range(4)
SIGMOID_MSE, SIGMOID_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY = range(3)
SGD, RMSPROP, ADAM = range(3)

N_SUMS = len(METRICS) + 1  # the ten metrics, then the weight penalty
PENALTY = len(METRICS)


class Topology(NamedTuple):
    """Where everything lies. Arrays are int64 of shape (depth,) unless said otherwise."""

    fan_in: np.ndarray
    fan_out: np.ndarray
    weight_start: np.ndarray  # offset of w_l, (fan_in * fan_out) numbers, in the parameter vector
    bias_start: np.ndarray  # offset of b_l, (fan_out) numbers
    unit_start: np.ndarray  # units of the layers before l: offset in z, a, h, times batch rows
    skip: np.ndarray  # bool: h = a + x instead of h = a
    activation: int  # RELU ... GELU, of the hidden layers
    loss: int  # SIGMOID_MSE ... SOFTMAX_CROSS_ENTROPY
    rung: int  # of the matrix product ladder: NAIVE ... BLAS


class Workspace(NamedTuple):
    """Every intermediate array of a run. The type is that of the parameters."""

    x: np.ndarray  # (batch_size, n_inputs): gathered rows
    y: np.ndarray  # (batch_size, n_outputs): gathered targets
    z: np.ndarray  # (batch_size * units,): pre-activations of all layers
    a: np.ndarray  # (batch_size * units,): activations; the output layer's are the outputs p
    h: np.ndarray  # (batch_size * units,) with skips, else (1,): outputs of layers with a skip
    dz: np.ndarray  # (batch_size * widest,)
    dh: np.ndarray  # (2, batch_size * widest): gradient of this layer's and the previous output
    wt: np.ndarray  # (largest layer's weights,): scratch for a transposed w
    dw: np.ndarray  # (P,): the gradient of all parameters


class Optimizer(NamedTuple):
    """An update rule and its constants; which of them matter depends on the rule."""

    rule: int  # SGD, RMSPROP or ADAM
    learning_rate: float
    momentum: float
    rho: float
    beta_1: float
    beta_2: float
    epsilon: float


@kernel
def layer_weights(topology, parameters, layer):
    """View of w_l (fan_in, fan_out) in a flat vector (parameters or their gradient)."""
    start = topology.weight_start[layer]
    fan_in, fan_out = topology.fan_in[layer], topology.fan_out[layer]
    return parameters[start : start + fan_in * fan_out].reshape(fan_in, fan_out)


@kernel
def layer_biases(topology, parameters, layer):
    """View of b_l (fan_out) in a flat vector (parameters or their gradient)."""
    start = topology.bias_start[layer]
    return parameters[start : start + topology.fan_out[layer]]


@kernel
def layer_rows(topology, arena, layer, n):
    """View (n, fan_out) of layer l in one of the workspace's z, a, h."""
    rows = arena.size // (topology.unit_start[-1] + topology.fan_out[-1])
    start = topology.unit_start[layer] * rows
    width = topology.fan_out[layer]
    return arena[start : start + n * width].reshape(n, width)


@kernel
def layer_output(topology, work, layer, n):
    """View (n, fan_out) of what layer l hands on: h with a skip, a without."""
    if topology.skip[layer]:
        return layer_rows(topology, work.h, layer, n)
    return layer_rows(topology, work.a, layer, n)


# ---------------------------------------------------------------------------------------------
# Forward and backward


@kernel
def activation_forward(code, a, z):
    """a = f(z) for the activation of that code."""
    if code == RELU:
        layers.relu_forward(a, z)
    elif code == TANH:
        layers.tanh_forward(a, z)
    elif code == SIGMOID:
        layers.sigmoid_forward(a, z)
    else:
        layers.gelu_forward(a, z)


@kernel
def activation_backward(code, dz, da, z, a):
    """dz = da f'(z) for the activation of that code."""
    if code == RELU:
        layers.relu_backward(dz, da, z, a)
    elif code == TANH:
        layers.tanh_backward(dz, da, z, a)
    elif code == SIGMOID:
        layers.sigmoid_backward(dz, da, z, a)
    else:
        layers.gelu_backward(dz, da, z, a)


@kernel
def forward(topology, parameters, work, x, y):
    """Run a batch through the network; returns the summed loss of its rows.

    Writes: work.z, work.a, work.h. Reads: parameters (P,), x (n, n_inputs), y (n, n_outputs).
    """
    n = x.shape[0]
    last = topology.fan_out.size - 1
    below = x
    for layer in range(last + 1):
        z = layer_rows(topology, work.z, layer, n)
        a = layer_rows(topology, work.a, layer, n)
        w = layer_weights(topology, parameters, layer)
        b = layer_biases(topology, parameters, layer)
        layers.dense_forward(z, below, w, b, topology.rung)
        if layer < last:
            activation_forward(topology.activation, a, z)
            if topology.skip[layer]:
                layers.skip_forward(layer_rows(topology, work.h, layer, n), a, below)
            below = layer_output(topology, work, layer, n)
    z = layer_rows(topology, work.z, last, n)
    p = layer_rows(topology, work.a, last, n)
    if topology.loss == SIGMOID_MSE:
        return losses.sigmoid_mse_forward(p, z, y)
    if topology.loss == SIGMOID_BINARY_CROSS_ENTROPY:
        return losses.sigmoid_binary_cross_entropy_forward(p, z, y)
    return losses.softmax_cross_entropy_forward(p, z, y)


@kernel
def backward(topology, parameters, work, x, y):
    """Gradient of the batch's mean loss, walking the forward pass from its end.

    Writes: work.dw (P,). Reads: what `forward` left in work, x, y.
    """
    n = x.shape[0]
    last = topology.fan_out.size - 1
    width = topology.fan_out[last]
    dz = work.dz[: n * width].reshape(n, width)
    p = layer_rows(topology, work.a, last, n)
    if topology.loss == SIGMOID_MSE:
        losses.sigmoid_mse_backward(dz, p, y)
    elif topology.loss == SIGMOID_BINARY_CROSS_ENTROPY:
        losses.sigmoid_binary_cross_entropy_backward(dz, p, y)
    else:
        losses.softmax_cross_entropy_backward(dz, p, y)

    for layer in range(last, -1, -1):
        w = layer_weights(topology, parameters, layer)
        dw = layer_weights(topology, work.dw, layer)
        db = layer_biases(topology, work.dw, layer)
        fan_in, fan_out = w.shape
        if layer == 0:
            layers.dense_backward_parameters(dw, db, x, dz, topology.rung)
            return
        below = layer_output(topology, work, layer - 1, n)
        layers.dense_backward_parameters(dw, db, below, dz, topology.rung)
        # The two halves of work.dh take turns: the gradient of this layer's output is still needed
        # by its skip while that of the layer below is written.
        dh_below = work.dh[(layer - 1) % 2, : n * fan_in].reshape(n, fan_in)
        wt = work.wt[: fan_in * fan_out].reshape(fan_out, fan_in)
        layers.dense_backward_input(dh_below, wt, w, dz, topology.rung)
        if topology.skip[layer]:
            dh = work.dh[layer % 2, : n * fan_out].reshape(n, fan_out)
            layers.skip_backward(dh_below, dh)
        # h = a or h = a + x: either way da = dh.
        dz = work.dz[: n * fan_in].reshape(n, fan_in)
        z = layer_rows(topology, work.z, layer - 1, n)
        a = layer_rows(topology, work.a, layer - 1, n)
        activation_backward(topology.activation, dz, dh_below, z, a)


@kernel
def penalty(topology, parameters, l1, l2):
    """l1 Σ|w| + l2 Σ w² over the weights of every layer; biases are free."""
    total = 0.0
    if l1 == 0 and l2 == 0:
        return total
    for layer in range(topology.fan_out.size):
        w = layer_weights(topology, parameters, layer)
        total += losses.penalty_forward(w.reshape(w.size), l1, l2)
    return total


@kernel
def add_penalty_gradient(topology, parameters, gradient, l1, l2):
    """gradient += d penalty / d parameters."""
    if l1 == 0 and l2 == 0:
        return
    for layer in range(topology.fan_out.size):
        w = layer_weights(topology, parameters, layer)
        dw = layer_weights(topology, gradient, layer)
        losses.penalty_backward(dw.reshape(dw.size), w.reshape(w.size), l1, l2)


# ---------------------------------------------------------------------------------------------
# Training and evaluation


@kernel
def update(optimizer, parameters, slots, gradient, step):
    """One step of the optimizer; slots (2, P) are its memory, step counts from 1."""
    if optimizer.rule == SGD:
        optimizers.sgd_update(
            parameters, slots[0], gradient, optimizer.learning_rate, optimizer.momentum
        )
    elif optimizer.rule == RMSPROP:
        optimizers.rmsprop_update(
            parameters,
            slots[0],
            slots[1],
            gradient,
            optimizer.learning_rate,
            optimizer.momentum,
            optimizer.rho,
            optimizer.epsilon,
        )
    else:
        optimizers.adam_update(
            parameters,
            slots[0],
            slots[1],
            gradient,
            step,
            optimizer.learning_rate,
            optimizer.beta_1,
            optimizer.beta_2,
            optimizer.epsilon,
        )


@kernel
def gather_rows(rows, source, order, start):
    """rows[i] = source[order[start + i]].

    Writes: rows (n, width). Reads: source (n_rows, width), order (n_rows,) int64.
    """
    n, width = rows.shape
    for i in range(n):
        row = order[start + i]
        for k in range(width):
            rows[i, k] = source[row, k]


@kernel
def train_epoch(
    sums, parameters, slots, work, topology, optimizer, x, y, order, step, l1, l2, is_binary
):
    """Train on all rows once, in the given order; returns the number of steps taken so far.

    Writes: sums (11,) float64: the ten metrics as running means over the epoch's batches, each
    taken before its step as Keras does, and the mean penalty. Updates: parameters (P,),
    slots (2, P). Reads: x (n_train, n_inputs), y (n_train, n_outputs), order (n_train,) int64 row
    numbers, step: steps before this epoch, l1, l2: penalty factors, is_binary: see `metrics`.
    """
    n_rows, batch_size = order.size, work.x.shape[0]
    last = topology.fan_out.size - 1
    sums[:] = 0
    for start in range(0, n_rows, batch_size):
        n = min(batch_size, n_rows - start)
        x_batch, y_batch = work.x[:n], work.y[:n]
        gather_rows(x_batch, x, order, start)
        gather_rows(y_batch, y, order, start)
        loss = forward(topology, parameters, work, x_batch, y_batch)
        p = layer_rows(topology, work.a, last, n)
        add_metrics(sums[:PENALTY], p, y_batch, loss, is_binary)
        sums[PENALTY] += n * penalty(topology, parameters, l1, l2)
        backward(topology, parameters, work, x_batch, y_batch)
        add_penalty_gradient(topology, parameters, work.dw, l1, l2)
        step += 1
        update(optimizer, parameters, slots, work.dw, step)
    finish_metrics(sums[:PENALTY], n_rows)
    sums[PENALTY] /= n_rows
    return step


@kernel
def evaluate(sums, work, topology, parameters, x, y, l1, l2, is_binary):
    """The ten metrics and the penalty of a data set at fixed parameters.

    Writes: sums (11,) float64. Reads: x (n_rows, n_inputs), y (n_rows, n_outputs).
    """
    n_rows, batch_size = x.shape[0], work.x.shape[0]
    last = topology.fan_out.size - 1
    sums[:] = 0
    for start in range(0, n_rows, batch_size):
        n = min(batch_size, n_rows - start)
        y_batch = y[start : start + n]
        loss = forward(topology, parameters, work, x[start : start + n], y_batch)
        p = layer_rows(topology, work.a, last, n)
        add_metrics(sums[:PENALTY], p, y_batch, loss, is_binary)
    finish_metrics(sums[:PENALTY], n_rows)
    sums[PENALTY] = penalty(topology, parameters, l1, l2)
