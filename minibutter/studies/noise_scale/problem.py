"""What the study trains, and from where its random numbers come.

One hidden layer of 128 relu units on digits, He initialization, softmax and cross-entropy, plain
gradient descent at a constant rate. Measurements get it as plain values, which are part of what
identifies them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minibutter.nn.kernels.epoch import Optimizer
from minibutter.nn.network import Network
from minibutter.nn.steps import RowStream, StepTrainer
from minibutter.nn.training import make_optimizer
from minibutter.studies.data import load_split

_INITIAL, _ORDER, _SAMPLE = range(3)  # streams of random numbers of a seed
_SPLIT = 0x5917

LARGEST_RATE = 0.5
HALF_RATE_BATCH = 64


class Problem(NamedTuple):
    """A network and all that it is trained on."""

    network: Network
    x: np.ndarray  # float32 (n_train, n_inputs)
    y: np.ndarray  # float32 (n_train, n_outputs)

    @property
    def n(self) -> int:
        """Number of training rows."""
        return len(self.x)


class Run(NamedTuple):
    """The begin of a run."""

    parameters: np.ndarray  # float32 (P,)
    rows: RowStream


def describe_problem(
    dataset: str, n_train: int, n_test: int, split_seed: int, hidden: int
) -> dict[str, Any]:
    """A problem as plain values, for the arguments of measurements."""
    return {
        "dataset": dataset,
        "n_train": n_train,
        "n_test": n_test,
        "split_seed": split_seed,
        "hidden": hidden,
    }


def load_problem(problem: Mapping[str, Any], data_dir: Path | None) -> Problem:
    """The arrays and the network of what `describe_problem` has described.

    Raises
    ------
    DatasetError, StudyError
        As `load_split`.
    """
    data = load_split(
        *(problem["dataset"], data_dir, problem["n_train"], problem["n_test"]),
        (_SPLIT, problem["split_seed"]),
        scaling="global",
    )
    widths = (problem["hidden"], data.y_train.shape[1])
    network = Network(data.x_train.shape[1], widths, "classification")
    return Problem(network, data.x_train, data.y_train)


def begin_run(problem: Problem, seed: int, branch: int = 0) -> Run:
    """First parameters of a seed, and an order of rows of its own for every branch."""
    initial = np.random.default_rng([_INITIAL, seed])
    parameters = problem.network.initial_parameters("he_uniform", initial)
    order = np.random.default_rng([_ORDER, seed, branch])
    return Run(parameters, RowStream(problem.n, order))


def sampler(seed: int, *purpose: int) -> np.random.Generator:
    """Random numbers of a measurement, apart from those of the run that it looks at."""
    return np.random.default_rng([_SAMPLE, seed, *purpose])


def descent() -> Optimizer:
    """Plain gradient descent; the rate is given with the steps."""
    return make_optimizer("sgd", 1.0)


def usual_rate(batch_size: float) -> float:
    """Centre of the grid of rates: 0.5 / (1 + 64 / B), of the form of (A.3)."""
    return LARGEST_RATE / (1 + HALF_RATE_BATCH / batch_size)


def run_to(
    problem: Problem, seed: int, steps: int, batch_size: int, learning_rate: float
) -> np.ndarray:
    """Parameters (P,) of a seed's run after so many steps, the same wherever they are asked for."""
    run = begin_run(problem, seed)
    if steps > 0:
        trainer = StepTrainer(
            *(problem.network, run.parameters, descent(), problem.x, problem.y),
            largest_batch=batch_size,
        )
        trainer.run(run.rows.take(steps * batch_size), batch_size, learning_rate)
    return run.parameters


def checkpoints(last: int, ratio: float) -> list[int]:
    """Steps from 0 to the last, each about `ratio` times the one before."""
    steps, position = [0], 1.0
    while position < last:
        if round(position) > steps[-1]:
            steps.append(round(position))
        position *= ratio
    return [*steps, last] if steps[-1] < last else steps
