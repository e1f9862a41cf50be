"""Slices of a batch: what each gives to the gradient, and their sum in a fixed order.

The batch of a step is cut into slices, and a rank computes some of them. Their rows go through the
network together: what comes of a row does not depend on the others. Only the sums over rows are
those of a slice, and begin anew with each. They are added by pairs, which `nn.summation` lists: the
same pairs whoever computes which slice, so that the sum has the same bits.

Legend: S slices of a rank, P parameters; topology of a single run. `cuts` (S, 3) int64 holds, for
every slice, its first block in memory, its first row in the order of the epoch, and its rows.
"""

import numpy as np

from minibutter.nn.kernels import arena, layers
from minibutter.nn.kernels.arena import (
    layer_output,
    layer_weights,
    output_blocks,
    output_rows,
    output_units,
    work_half,
)
from minibutter.nn.kernels.epoch import backward_input, output_gradient
from minibutter.nn.kernels.jit import call, kernel
from minibutter.nn.kernels.layout import gather_rows, units_from_blocks
from minibutter.nn.kernels.metrics import LOSS, add_row_losses, add_rows, row_metrics

COLUMNS = 1024
"""Of the arrays that are added: as much of eight rows as stays in a first-level cache."""


@kernel
def train_slices(
    sums,
    gradients,
    cuts,
    parameters,
    work,
    topology,
    x,
    y,
    orders,
    n_batch,
    is_binary,
    records_metrics,
):
    """What slices give to the gradient of their batch's mean loss, and the metrics of their rows.

    Updates: sums (S, >= 10) float64, by the rows' metrics at these parameters. Writes: gradients
    (S, >= P), zeros for a slice without rows. Reads: parameters (P,), x (1, n_rows, n_inputs), y
    (1, n_rows, n_outputs), orders (1, n_rows) int64; n_batch: rows of the batch.
    """
    if cuts.shape[0] == 0:
        return
    lanes = work.x.shape[2]
    blocks = cuts[-1, 0] + (cuts[-1, 2] + lanes - 1) // lanes
    gather_slices(topology, work, x, y, orders, cuts, blocks)
    call(work.forward, (topology, parameters, work, blocks))
    add_slices(sums, topology, work, cuts, blocks, is_binary, records_metrics)
    backward_slices(gradients, topology, parameters, work, cuts, blocks, n_batch)


@kernel
def gather_slices(topology, work, x, y, orders, cuts, blocks):
    """`arena.gather`, every slice from its first block on. Writes: work.x, work.outputs."""
    lanes = work.x.shape[2]
    targets = output_blocks(topology, work, blocks)
    for s in range(cuts.shape[0]):
        first, row, n = cuts[s]
        end = first + (n + lanes - 1) // lanes
        gather_rows(work.x[first:end], x[0], orders[0], row, n, work.gathered_rows)
        gather_rows(targets[first:end], y[0], orders[0], row, n, work.gathered_rows)
    units_from_blocks(output_units(topology, work, arena.Y, blocks), targets)


@kernel
def add_slices(sums, topology, work, cuts, blocks, is_binary, records_metrics):
    """Add the metrics of the rows of each slice to its sums, or only the losses."""
    lanes = work.x.shape[2]
    rows = output_rows(work, blocks)
    if records_metrics:
        p = output_units(topology, work, arena.P, blocks)
        targets = output_units(topology, work, arena.Y, blocks)
        row_metrics(rows, p, targets, is_binary, work.loss_scratch)
    for s in range(cuts.shape[0]):
        begin = cuts[s, 0] * lanes
        end = begin + cuts[s, 2]
        if records_metrics:
            add_rows(sums[s : s + 1], rows.reshape(rows.shape[0], -1, 1)[:, begin:end])
        else:
            add_row_losses(sums[s : s + 1], rows[LOSS].reshape(-1, 1)[begin:end])


@kernel
def backward_slices(gradients, topology, parameters, work, cuts, blocks, n_batch):
    """`epoch.backward` with gradients of the parameters for every slice."""
    last = topology.fan_out.size - 1
    dz = output_gradient(topology, work, blocks, n_batch)
    for layer in range(last, -1, -1):
        if layer < last:
            width = topology.fan_out[layer]
            dz = work_half(work.dz, layer, blocks, width, work.x.shape[2])
        below = work.x[:blocks] if layer == 0 else layer_output(topology, work, layer - 1, blocks)
        for s in range(cuts.shape[0]):
            first, _, n = cuts[s]
            end = first + (n + dz.shape[2] - 1) // dz.shape[2]
            dw = layer_weights(topology, gradients[s], layer)
            if n == 0:
                dw[:] = 0
            else:
                layers.dense_backward_parameters(
                    dw, below[first:end], dz[first:end], n, 1, work.plan
                )
        if layer > 0:
            backward_input(topology, parameters, work, layer, dz)


@kernel
def add_pairs(rows, pairs):
    """rows[into] += rows[what] for every pair (into, what), one after the other.

    Some columns go through all pairs before the next ones do, and stay in the cache meanwhile; each
    column for itself is added in the order of the pairs.

    Updates: rows (n_rows, n_columns). Reads: pairs (n_pairs, 2) int64.
    """
    n_columns = rows.shape[1]
    for start in range(0, n_columns, COLUMNS):
        end = min(start + COLUMNS, n_columns)
        for pair in range(pairs.shape[0]):
            into, what = rows[pairs[pair, 0], start:end], rows[pairs[pair, 1], start:end]
            for j in range(into.size):
                into[j] += what[j]


@kernel
def squared_norm(vector):
    """Σ v², in float64: four sums of every fourth number, and these from the first to the last."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    whole = vector.size // 4 * 4
    for j in range(0, whole, 4):
        first += np.float64(vector[j]) ** 2
        second += np.float64(vector[j + 1]) ** 2
        third += np.float64(vector[j + 2]) ** 2
        fourth += np.float64(vector[j + 3]) ** 2
    for j in range(whole, vector.size):
        first += np.float64(vector[j]) ** 2
    return first + second + third + fourth
