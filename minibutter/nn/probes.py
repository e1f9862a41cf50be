"""A few networks to be timed: each has much of one thing that a rate of `cost` belongs to."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minibutter.nn.cost import EVALUATION
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import Start, TrainingData

N_STEPS = 8
"""Of a timed epoch; as many rows as one of them takes are evaluated."""

PATIENCE_S = 0.5
"""Epochs of a probe are repeated for so long, and at least three times."""


class Probe(NamedTuple):
    """A network to be timed, trained alone or in all lanes.

    Attributes
    ----------
    network : of float32; another type differs by the width of a register.
    batch_size : rows of a step.
    is_packed : whether all lanes are trained together.
    """

    network: Network
    batch_size: int
    is_packed: bool

    @property
    def repetitions(self) -> int:
        """1, or LANES."""
        return lanes_of(self.network.dtype) if self.is_packed else 1


def _probes() -> tuple[Probe, ...]:
    regression, binary, classification = "regression", "binary", "classification"
    alone = (
        (2, (2, 1), regression, 32),  # nothing but a step
        (2, (*[2] * 15, 1), regression, 32),  # layers
        (6, (5, 5, 1), binary, 256),  # rows
        (600, (4, 3), classification, 256),  # inputs
        (8, (*[24] * 6, 1), regression, 256),  # units
        (16, (32, 32, 12), classification, 256),  # outputs
        (10, (60, 40, 20, 10, 5, 3), classification, 128),
        (100, (128, 128, 128, 8), classification, 256),  # products
        (200, (320, 320, 6), classification, 256),
        (50, (300, 300, 10), classification, 32),  # parameters, in the cache
        (100, (480, 480, 480, 5), classification, 256),
        (300, (1500, 1500, 8), classification, 64),  # and far beyond
        (250, (1200, 1200, 10), classification, 256),
        (40, (*[400] * 14, 4), classification, 256),
    )
    packed = (
        (2, (2, 1), regression, 32),
        (2, (*[2] * 15, 1), regression, 256),
        (6, (5, 5, 1), binary, 256),
        (120, (4, 3), classification, 256),
        (8, (*[24] * 6, 1), regression, 256),
        (16, (16, 16, 12), classification, 256),
        (500, (16, 4), classification, 256),
        (40, (64, 64, 8), classification, 64),
        (30, (96, 96, 5), classification, 32),
        (100, (128, 128, 8), classification, 32),
    )
    return tuple(
        Probe(Network(n_inputs, widths, task), batch_size, is_packed)
        for is_packed, rows in ((False, alone), (True, packed))
        for n_inputs, widths, task, batch_size in rows
    )


PROBES = _probes()


def measure_step_us(probe: Probe, clock: Callable[[], float] = time.process_time) -> float:
    """Microseconds of a training step of all repetitions together.

    What counts is the processor time of this process, of the epoch that took least: what a
    neighbour on the same core takes is none of our business, and runs have a core for themselves.

    Parameters
    ----------
    clock : seconds.
    """
    network, batch_size = probe.network, probe.batch_size
    rng = np.random.default_rng(0)
    n_rows = N_STEPS * batch_size
    x = rng.random((n_rows, network.n_inputs), np.float32)
    if network.task == "classification":
        y = np.eye(network.n_outputs, dtype=np.float32)[rng.integers(0, network.n_outputs, n_rows)]
    else:
        y = rng.integers(0, 2, (n_rows, network.n_outputs)).astype(np.float32)
    data = TrainingData(x, y, x[:batch_size], y[:batch_size])
    starts = [
        Start(network.initial_parameters("glorot_uniform", rng), data, rng)
        for _ in range(probe.repetitions)
    ]
    group = TrainingGroup(network, starts, make_optimizer("adam", 1e-4), batch_size=batch_size)
    group.run_epoch()  # touches all memory
    durations_s: list[float] = []
    while len(durations_s) < 3 or sum(durations_s) < PATIENCE_S:
        begun_s = clock()
        group.run_epoch()
        durations_s.append(clock() - begun_s)
    return min(durations_s) / (N_STEPS + EVALUATION) * 1e6
