"""First and second moments of the gradients of single examples, from the arrays of a training step.

The gradient of a dense layer for one example is the outer product of its input x (with the
constant unit for the biases) and dz. So its squared norm is Σ x² Σ dz², and its product with a
direction V is dz · (x @ V): no gradient of an example is ever formed (Goodfellow 2015,
arXiv:1510.01799).
`backward_with_squares` is `epoch.backward` with one more pass over what it holds in the cache.

All sums are float64; those over units go four units at a time, in their order. Arrays of rows may
hold more blocks than the batch has; lanes behind its last row have no meaning. A single run is
meant: R is 1.
"""

import numpy as np

from minibutter.nn.kernels import epoch, layers
from minibutter.nn.kernels.arena import (
    count_batch_blocks,
    layer_output,
    layer_weights,
    output_rows,
    work_half,
)
from minibutter.nn.kernels.jit import call, kernel
from minibutter.nn.kernels.metrics import LOSS, finish_metrics
from minibutter.nn.kernels.tile import PLAIN

MEAN_LOSS, PENALTY_SUM = 0, 1
N_STEP_COLUMNS = 2  # before the columns of the layers

# ---------------------------------------------------------------------------------------------
# Sums over the units of every row. The arrays are handed over whole, see `metrics`.


@kernel
def _add_squares(sums, units, block):
    """sums += Σ_k units_k² for the row in every lane of a block.

    Updates: sums (>= blocks, lanes) float64. Reads: units (blocks, width, lanes).
    """
    width, lanes = units.shape[1], units.shape[2]
    whole = width - width % 4
    for k in range(0, whole, 4):
        for lane in range(lanes):
            a = np.float64(units[block, k, lane])
            b = np.float64(units[block, k + 1, lane])
            c = np.float64(units[block, k + 2, lane])
            d = np.float64(units[block, k + 3, lane])
            sums[block, lane] += (a * a + b * b) + (c * c + d * d)
    for k in range(whole, width):
        for lane in range(lanes):
            a = np.float64(units[block, k, lane])
            sums[block, lane] += a * a


@kernel
def outer_squares(squares, x, dz, scratch):
    """squares = Σ_j x_j² Σ_k dz_k² for the row in every lane.

    Writes: squares (>= blocks, lanes) float64. Reads: x (blocks, fan_in + 1, lanes), dz (blocks,
    fan_out, lanes). Scratch: like squares.
    """
    blocks, _, lanes = dz.shape
    for q in range(blocks):
        for lane in range(lanes):
            squares[q, lane], scratch[q, lane] = 0, 0
        _add_squares(squares, dz, q)
        _add_squares(scratch, x, q)
        for lane in range(lanes):
            squares[q, lane] *= scratch[q, lane]


@kernel
def unit_products(products, z, dz):
    """products = Σ_k z_k dz_k for the row in every lane.

    Writes: products (>= blocks, lanes) float64. Reads: z, dz (blocks, fan_out, lanes).
    """
    blocks, width, lanes = dz.shape
    for q in range(blocks):
        for lane in range(lanes):
            products[q, lane] = 0
        for k in range(width):
            for lane in range(lanes):
                products[q, lane] += np.float64(z[q, k, lane]) * np.float64(dz[q, k, lane])


@kernel
def squared_norm(vector, partial):
    """Σ v² in eight sums side by side, as one alone would wait for itself.

    Reads: vector (size,). Scratch: partial (8,) float64.
    """
    whole = vector.size - vector.size % 8
    for lane in range(8):
        partial[lane] = 0
    for j in range(0, whole, 8):
        for lane in range(8):
            v = np.float64(vector[j + lane])
            partial[lane] += v * v
    total = 0.0
    for j in range(whole, vector.size):
        total += np.float64(vector[j]) ** 2
    for lane in range(8):
        total += partial[lane]
    return total


# ---------------------------------------------------------------------------------------------
# The backward pass


@kernel
def backward_with_squares(squares, topology, parameters, work, blocks, n, scratch):
    """`epoch.backward`, and what every row contributes to it, layer by layer.

    Writes: squares (depth, >= blocks, LANES) float64, squared norms of the gradients of the rows'
    own losses divided by n, as the loss is a mean; work.dw. Scratch: (>= blocks, LANES) float64.
    """
    dz = epoch.output_gradient(topology, work, blocks, n)
    for layer in range(topology.fan_out.size - 1, -1, -1):
        below = work.x[:blocks] if layer == 0 else layer_output(topology, work, layer - 1, blocks)
        outer_squares(squares[layer], below, dz, scratch)
        epoch.backward_parameters(topology, work, layer, dz, n)
        if layer > 0:
            epoch.backward_input(topology, parameters, work, layer, dz)
            dz = work_half(work.dz, layer - 1, blocks, topology.fan_out[layer - 1], work.x.shape[2])


@kernel
def backward_with_products(products, topology, parameters, direction, work, blocks, n, units):
    """How much of every row's gradient points along a direction, layer by layer.

    Writes: products (depth, >= blocks, LANES) float64, of the gradients divided by n. Reads:
    direction (P,), like the parameters, and what `epoch.forward` left in work. Scratch: units
    (blocks * widest * LANES,) of the network's type.
    """
    lanes, plain = work.x.shape[2], np.int64(PLAIN)
    dz = epoch.output_gradient(topology, work, blocks, n)
    for layer in range(topology.fan_out.size - 1, -1, -1):
        below = work.x[:blocks] if layer == 0 else layer_output(topology, work, layer - 1, blocks)
        width = topology.fan_out[layer]
        z = units[: blocks * width * lanes].reshape(blocks, width, lanes)
        v = layer_weights(topology, direction, layer)
        layers.dense_forward(z, below, v, topology.repetitions, work.plan, plain)
        unit_products(products[layer], z, dz)
        if layer > 0:
            epoch.backward_input(topology, parameters, work, layer, dz)
            dz = work_half(work.dz, layer - 1, blocks, topology.fan_out[layer - 1], lanes)


@kernel
def layer_squared_norms(norms, topology, vector, partial):
    """Squared norm of every layer's part of a vector (P,).

    Writes: norms (depth,) float64. Scratch: partial (8,) float64.
    """
    for layer in range(topology.fan_out.size):
        w = layer_weights(topology, vector, layer)
        norms[layer] = squared_norm(w.reshape(w.size), partial)


# ---------------------------------------------------------------------------------------------
# Training


@kernel
def add_rows_of_layers(sums, squares, n):
    """Add the first n rows of every layer, one by one.

    Updates: sums (depth,) float64. Reads: squares (depth, >= blocks, LANES).
    """
    depth, _, lanes = squares.shape
    for layer in range(depth):
        for row in range(n):
            sums[layer] += squares[layer, row // lanes, row % lanes]


@kernel
def train_epoch_with_moments(
    sums,
    steps,
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
    squares,
    scratch,
    partial,
):
    """`epoch.train_epoch` of a single run that measures moments, too.

    Writes: sums (1, 11) as there; steps (n_steps, 2 + 2 depth) float64: mean loss of the batch,
    weight penalty, for every layer Σ_i |g_i|² / n, and for every layer |Σ_i g_i / n|², all before
    the step and the last two without the penalty. Scratch: squares (depth, >= blocks, LANES),
    scratch (>= blocks, LANES) and partial (8,), float64. The rest as there; returns the number of
    steps so far.
    """
    n_rows, batch_size, depth = orders.shape[1], work.batch_size, topology.fan_out.size
    for i in range(steps.shape[0]):
        start = i * batch_size
        n = min(batch_size, n_rows - start)
        blocks = count_batch_blocks(topology, work, n)
        call(work.gather, (topology, work, x, y, orders, start, n))
        call(work.forward, (topology, parameters, work, blocks))
        row_losses = output_rows(work, blocks)[LOSS, 0]
        total = 0.0
        for row in range(n):
            total += np.float64(row_losses[row])
        epoch.add_batch(sums, topology, work, blocks, n, is_binary, records_metrics)
        epoch.penalty(topology, parameters, work.penalties, l1, l2)
        sums[0, epoch.PENALTY] += n * work.penalties[0]
        steps[i, MEAN_LOSS], steps[i, PENALTY_SUM] = total / n, work.penalties[0]
        backward_with_squares(squares, topology, parameters, work, blocks, n, scratch)
        norms = steps[i, N_STEP_COLUMNS : N_STEP_COLUMNS + depth]
        norms[:] = 0
        add_rows_of_layers(norms, squares, n)
        for layer in range(depth):
            norms[layer] *= n  # Σ |g_i / n|² n = Σ |g_i|² / n
        layer_squared_norms(steps[i, N_STEP_COLUMNS + depth :], topology, work.dw, partial)
        epoch.add_penalty_gradient(topology, parameters, work.dw, l1, l2)
        step += 1
        epoch.update(optimizer, parameters, slots, work.dw, step)
    finish_metrics(sums[0, : epoch.PENALTY], n_rows)
    sums[0, epoch.PENALTY] /= n_rows
    return step
