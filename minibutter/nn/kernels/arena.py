"""Where everything of a run lies: what the kernels of an epoch see of a network.

`Topology` describes it, `Workspace` holds every intermediate array, made once per run, and the
functions give views of them. Nothing is allocated while a run lasts, and nothing copied but the
rows of a batch and what goes in and out of the few output units.

Legend: B blocks of the largest batch (see `layout`), layer l of depth layers, P parameters, R
repetitions that are trained at once: 1, or LANES.
"""

from typing import NamedTuple

import numpy as np

from minibutter.nn.kernels.jit import kernel, view
from minibutter.nn.kernels.layout import gather_repetitions, gather_rows, units_from_blocks
from minibutter.nn.kernels.metrics import N_METRICS
from minibutter.nn.kernels.plan import Plan

Y, LOGITS, P, DZ = range(4)
"""Rows of `Workspace.outputs`: targets, z, p and dz of the output layer."""


class Topology(NamedTuple):
    """Where everything lies. Arrays are int64 of shape (depth,) unless said otherwise."""

    fan_in: np.ndarray
    fan_out: np.ndarray
    weight_start: np.ndarray  # offset of w_l, (fan_in + 1) * fan_out numbers with its biases
    unit_start: np.ndarray  # units of the layers before l
    skip: np.ndarray  # bool: h = a + x instead of h = a
    has_skip: bool  # of any layer
    activation: int  # RELU ... SWISH, of the hidden layers
    loss: int  # SIGMOID_MSE ... SOFTMAX_CROSS_ENTROPY
    repetitions: int  # R: 1, or LANES


class Workspace(NamedTuple):
    """Every intermediate array, aligned to cache lines, of the parameters' type."""

    x: np.ndarray  # (B, n_inputs + 1, LANES): gathered rows, and the constant unit
    z: np.ndarray  # flat: pre-activations (B, fan_out, LANES) of all hidden layers, but of relu
    a: np.ndarray  # flat, as z: activations of layers with a skip
    h: np.ndarray  # flat: outputs (B, fan_out + 1, LANES) of the hidden layers, with constant units
    dz: np.ndarray  # (2, B * widest * LANES)
    dh: np.ndarray  # (2, B * widest * LANES): gradient of this layer's and the previous output
    output_blocks: np.ndarray  # (B * n_outputs * LANES,): z and dz of the output layer in blocks
    outputs: (
        np.ndarray
    )  # (4, B * n_outputs * LANES): y, logits z, outputs p, dz, see `output_units`
    dw: np.ndarray  # (P * R,): the gradient of all parameters
    row_values: np.ndarray  # (N_METRICS * B * LANES,): the metrics of every row
    loss_scratch: np.ndarray  # (4, B * LANES)
    penalties: np.ndarray  # (R,) float64
    batch_size: int
    gathered_rows: np.ndarray  # (LANES,) int64: scratch of `gather`
    plan: Plan  # how products are made
    gather: int  # address of `gather`, which is part of every epoch and evaluation
    forward: int  # address of `epoch.forward`
    backward: int  # address of `epoch.backward`
    add_metrics: int  # address of `epoch.add_metrics`
    measure: int  # address of `epoch.measure`


@view
def layer_weights(topology, parameters, layer):
    """View of w_l and its biases, (fan_in + 1, fan_out * R), in a flat vector (P * R,)."""
    rows, columns = topology.fan_in[layer] + 1, topology.fan_out[layer] * topology.repetitions
    start = topology.weight_start[layer] * topology.repetitions
    return parameters[start : start + rows * columns].reshape(rows, columns)


@view
def layer_units(topology, work, arena, layer, blocks):
    """View (blocks, fan_out, LANES) of layer l in the workspace's z or a."""
    most_blocks, _, lanes = work.x.shape
    width = topology.fan_out[layer]
    start = topology.unit_start[layer] * most_blocks * lanes
    return arena[start : start + blocks * width * lanes].reshape(blocks, width, lanes)


@view
def layer_output(topology, work, layer, blocks):
    """View (blocks, fan_out + 1, LANES) of what hidden layer l hands on."""
    most_blocks, _, lanes = work.x.shape
    width = topology.fan_out[layer] + 1
    start = (topology.unit_start[layer] + layer) * most_blocks * lanes
    return work.h[start : start + blocks * width * lanes].reshape(blocks, width, lanes)


@view
def layer_activation(topology, work, layer, blocks):
    """View (blocks, >= fan_out, LANES) of a = f(z): the output itself, unless a skip is added."""
    if topology.skip[layer]:
        a = layer_units(topology, work, work.a, layer, blocks)
    else:
        a = layer_output(topology, work, layer, blocks)
    return a


@view
def output_units(topology, work, which, blocks):
    """One of work.outputs as `losses` wants it, (1, n_outputs, blocks * LANES).

    There are few outputs, and what happens to them is long: the lanes of all blocks stand behind
    each other, so that loops over them are long as well.
    """
    lanes, width = work.x.shape[2], topology.fan_out[-1]
    flat = work.outputs[which, : blocks * width * lanes]
    return flat.reshape(1, width, blocks * lanes)


@view
def output_blocks(topology, work, blocks):
    """View (blocks, n_outputs, LANES) of the output layer's z or dz as products want it."""
    lanes, width = work.x.shape[2], topology.fan_out[-1]
    return work.output_blocks[: blocks * width * lanes].reshape(blocks, width, lanes)


@view
def output_rows(work, blocks):
    """View (N_METRICS, 1, blocks * LANES) of the metrics of the rows, like `output_units`."""
    lanes = work.x.shape[2]
    return work.row_values[: N_METRICS * blocks * lanes].reshape(N_METRICS, 1, blocks * lanes)


@view
def work_half(arena, layer, blocks, width, lanes):
    """View (blocks, width, lanes) of layer l in work.dz or work.dh.

    Layers take turns: those of a layer are still needed while those of the layer below are written.
    """
    return arena[layer % 2, : blocks * width * lanes].reshape(blocks, width, lanes)


@view
def count_batch_blocks(topology, work, n):
    """Blocks that n rows of every repetition take."""
    lanes = work.x.shape[2]
    return (n + lanes - 1) // lanes if topology.repetitions == 1 else n


@kernel
def gather(topology, work, x, y, orders, start, n):
    """Put n rows, from `start` of the order on, into work.x and work.outputs.

    Reads: x (R, n_rows, n_inputs), y (R, n_rows, n_outputs), orders (R, n_rows) int64.
    """
    blocks = count_batch_blocks(topology, work, n)
    targets = output_blocks(topology, work, blocks)
    if topology.repetitions == 1:
        gather_rows(work.x, x[0], orders[0], start, n, work.gathered_rows)
        gather_rows(targets, y[0], orders[0], start, n, work.gathered_rows)
    else:
        gather_repetitions(work.x, x, orders, start, n, work.gathered_rows)
        gather_repetitions(targets, y, orders, start, n, work.gathered_rows)
    units_from_blocks(output_units(topology, work, Y, blocks), targets)
