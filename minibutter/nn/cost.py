"""What a training step costs, alone and packed: decides which repetitions are worth packing.

A single run lays the rows of its batch along the lanes of a register, so that the last rows of a
batch and, in the gradient of the weights, the last units of a layer may leave lanes empty, and
calls cost more than their work in a narrow layer. Packed repetitions fill every lane whatever the
widths, but read parameters, data and activations LANES times as large.

The estimate only decides how runs are executed and in which order; it cannot change their numbers.
"""

from functools import lru_cache
from operator import mul
from typing import NamedTuple

import numpy as np

from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.kernels.tiling import read_cache_bytes
from minibutter.nn.network import Network


class Rates(NamedTuple):
    """Microseconds of a step, of which it has as many as ... (arithmetic in float32; see below)."""

    step: float  # steps: 1
    layer: float  # layers
    row: float  # rows of the batch: loss and metrics
    gathered: float  # numbers of the batch that are read from the data set
    flop: float  # flops of the products, empty lanes included
    activation: float  # units times rows
    output: float  # outputs times rows: the same
    parameter: float  # parameters: the optimizer's update
    distant: float  # parameters that do not fit into the second-level cache, see `step_amounts`


ALONE = Rates(
    step=11.0,
    layer=0.7,
    row=0.0,
    gathered=1.6e-3,
    flop=7.1e-6,
    activation=1.9e-3,
    output=8e-3,
    parameter=4e-4,
    distant=3e-3,
)
PACKED = Rates(
    step=22.0,
    layer=0.0,
    row=0.0,
    gathered=1.5e-3,
    flop=2.3e-5,
    activation=7.3e-4,
    output=9e-3,
    parameter=4e-4,
    distant=3e-3,
)
"""Fitted by non-negative least squares of relative errors to 32 networks (2 to 64 inputs, widths 2
to 64, depths 3 to 13, batches 32 to 256, both types, ten metrics) on one core of a Zen 3 with AVX2;
what a row costs beside its outputs is in the other rates. The rate of parameters was measured
apart, and that of distant ones on a Sapphire Rapids. On the Zen 3, half of the estimates were
within an eighth, and 31 of 32 chose right between one by one and packed. On a Zen 4 with AVX-512
both times are shorter, by about the same factor: 18 of 20 choose right."""


class CostModel(NamedTuple):
    """Rates of one machine: of single runs and of packed repetitions."""

    alone: Rates
    packed: Rates


BUILT_IN = CostModel(ALONE, PACKED)
"""What is used where nothing was measured; `minibutter.calibration` measures."""

EPOCH_US = 35.0
"""What an epoch costs beside its steps: orders are drawn, and the meter is read."""

REPETITION_US = 15.0
"""And for every repetition: its row is made and kept."""

EVALUATION = 1 / 3
"""A forward pass is a third of a step."""


_VISITED = 4
"""Numbers that the optimizer visits for every parameter: itself, its gradient and two moments."""

_NEAR_BYTES = read_cache_bytes()[2]


def step_amounts(network: Network, batch_size: int, repetitions: int = 1) -> Rates:
    """What a training step of all repetitions together has how many of: the factors of the rates.

    Parameters count as distant, in float32, as far as they, their gradients and the optimizer's
    memory exceed the second-level cache: they come from behind it, once a step.

    Parameters
    ----------
    network : what is trained, with kernel "tiled".
    batch_size : rows of a step.
    repetitions : 1 for a single run; a group takes the same time however many of its lanes are
        asked for.
    """
    lanes = lanes_of(network.dtype)
    is_packed = repetitions > 1
    copies = lanes if is_packed else 1
    rows = batch_size if is_packed else _whole(batch_size, lanes)
    flops = 2 * rows * _multiplications(network.n_inputs, network.widths, 1 if is_packed else lanes)
    itemsize = np.dtype(network.dtype).itemsize
    visited_bytes = _VISITED * itemsize * copies * network.num_parameters
    # Half as many float64 as float32 fit into a register.
    arithmetic = copies * lanes_of("float32") / lanes
    return Rates(
        step=1.0,
        layer=network.depth,
        row=arithmetic * batch_size,
        gathered=copies * batch_size * network.n_inputs,
        flop=arithmetic * flops,
        activation=arithmetic * batch_size * sum(network.widths),
        output=arithmetic * batch_size * network.n_outputs,
        parameter=arithmetic * network.num_parameters,
        distant=max(visited_bytes - _NEAR_BYTES, 0) / (_VISITED * np.dtype("float32").itemsize),
    )


@lru_cache(maxsize=2**16)  # a plan asks for each network with several batch sizes
def _multiplications(n_inputs: int, widths: tuple[int, ...], lanes: int) -> int:
    """Of a row in all products of a step; the gradient of the weights takes whole registers."""
    total = 0
    for layer, fan_out in enumerate(widths):
        fan_in = 1 + (n_inputs if layer == 0 else widths[layer - 1])
        n_rowwise = 1 if layer == 0 else 2  # forward, and backward to the input of the layer
        total += fan_in * (n_rowwise * fan_out + _whole(fan_out, lanes))
    return total


def step_us(
    network: Network, batch_size: int, repetitions: int = 1, model: CostModel = BUILT_IN
) -> float:
    """Estimated microseconds of a training step of all repetitions together.

    Parameters
    ----------
    network, batch_size, repetitions : as for `step_amounts`.
    model : rates of the machine.
    """
    rates = model.packed if repetitions > 1 else model.alone
    amounts = step_amounts(network, batch_size, repetitions)
    return sum(map(mul, amounts, rates))


def step_shares(
    network: Network, batch_size: int, repetitions: int = 1, model: CostModel = BUILT_IN
) -> np.ndarray:
    """What part of a step each rate is responsible for: where an estimate can be wrong.

    Parameters
    ----------
    network, batch_size, repetitions, model : as for `step_us`.

    Returns
    -------
    float64, shape (2 * len(Rates._fields),): the rates of single runs, then those of packed ones,
    of which one half is 0. The sum is 1.
    """
    rates = model.packed if repetitions > 1 else model.alone
    parts = np.array(step_amounts(network, batch_size, repetitions)) * np.array(rates)
    shares = np.zeros((2, len(parts)))
    shares[int(repetitions > 1)] = parts / parts.sum()
    return shares.ravel()


def epoch_us(
    network: Network,
    n_train: int,
    n_evaluated: int,
    batch_size: int,
    repetitions: int = 1,
    model: CostModel = BUILT_IN,
) -> float:
    """Estimated microseconds of an epoch of all repetitions together.

    Parameters
    ----------
    n_train : rows to train on.
    n_evaluated : rows that are evaluated afterwards, those for testing, say.
    network, batch_size, repetitions, model : as for `step_us`.
    """
    n_steps = (n_train + EVALUATION * n_evaluated) / batch_size
    beside_us = EPOCH_US + REPETITION_US * repetitions
    return beside_us + n_steps * step_us(network, batch_size, repetitions, model)


def max_group_size(network: Network) -> int:
    """How many repetitions can be packed: LANES, or 1 on the rungs that cannot pack."""
    return lanes_of(network.dtype) if network.kernel == "tiled" else 1


def choose_group_size(
    network: Network,
    batch_size: int,
    n_pending: int,
    n_ranks: int,
    model: CostModel = BUILT_IN,
) -> int:
    """How many repetitions of an experiment to pack, so that all of them are done soonest.

    With fewer groups than ranks some ranks would stand idle, so that fewer repetitions, or none,
    are packed, unless that would end no sooner.

    Parameters
    ----------
    network : of the experiment.
    batch_size : rows of a step.
    n_pending : repetitions to train.
    n_ranks : ranks that train them, at least 1.
    model : rates of the machine.

    Returns
    -------
    int from 1 (train one by one) to LANES.
    """
    sizes = range(1, min(max_group_size(network), n_pending) + 1)
    alone_us, packed_us = (step_us(network, batch_size, size, model) for size in (1, 2))
    if packed_us >= len(sizes) * alone_us:
        return 1  # as most networks are wide, this is most of the answers of a large sweep

    def unit_us(size: int) -> float:
        return packed_us if size > 1 else size * alone_us

    def when_done_us(size: int) -> tuple[float, float]:
        """Of a step of every repetition: until the last rank has done it, and of all ranks."""
        n_whole, rest = divmod(n_pending, size)
        n_rounds, n_left = divmod(n_whole, n_ranks)
        last_us = unit_us(size) if n_left else unit_us(rest)
        return n_rounds * unit_us(size) + last_us, n_whole * unit_us(size) + unit_us(rest)

    return min(sizes, key=when_done_us, default=1)


def _whole(count: int, lanes: int) -> int:
    """Rounded up to whole registers."""
    return -(-count // lanes) * lanes
