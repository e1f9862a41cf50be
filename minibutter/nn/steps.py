"""Training by steps instead of epochs: as many at a time as asked for, of any batch size and rate.

What studies need that look at a run between two epochs, branch from it, or change its batch. The
steps are those of `Trainer`; who calls draws the rows.
"""

from typing import NamedTuple

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.layout import aligned_zeros
from minibutter.nn.kernels.metrics import METRICS
from minibutter.nn.network import Network
from minibutter.nn.starts import is_binary

_LOSS, _ACCURACY = METRICS.index("loss"), METRICS.index("accuracy")


class Means(NamedTuple):
    """Means over rows."""

    loss: float
    error: float  # share of rows that the network takes for another class


class RowStream:
    """Rows of a data set without end: a permutation of all of them, then the next one.

    So a batch is never cut short, and only one that lies across two permutations can hold a row
    twice.

    Parameters
    ----------
    n_rows : of the data set.
    rng : draws the permutations.
    """

    def __init__(self, n_rows: int, rng: np.random.Generator) -> None:
        self._n_rows, self._rng = n_rows, rng
        self._rest = np.empty(0, np.int64)

    def take(self, count: int) -> np.ndarray:
        """The next row numbers (count,), int64."""
        parts, n_drawn = [self._rest], self._rest.size
        while n_drawn < count:
            parts.append(self._rng.permutation(self._n_rows))
            n_drawn += self._n_rows
        rows = np.concatenate(parts)
        self._rest = rows[count:]
        return rows[:count]


class StepTrainer:
    """A run in progress, without penalties and tests, that goes as many steps as it is told.

    Parameters
    ----------
    network : what is trained.
    parameters : (P,), trained in place.
    optimizer : from `training.make_optimizer`; its learning rate gives way to that of the steps.
    x, y : training set, (n_train, n_inputs) and (n_train, n_outputs), of the network's dtype.
    largest_batch : for which memory is taken.

    Attributes
    ----------
    steps : made so far.

    Raises
    ------
    ValueError
        If an array does not fit the network.
    """

    def __init__(
        self,
        network: Network,
        parameters: np.ndarray,
        optimizer: epoch.Optimizer,
        x: np.ndarray,
        y: np.ndarray,
        *,
        largest_batch: int,
    ) -> None:
        _check(network, parameters, x, y)
        if largest_batch < 1:
            raise ValueError(f"largest_batch is {largest_batch}; it must be at least 1")
        self.network, self.parameters, self.optimizer = network, parameters, optimizer
        self.steps = 0
        self._x, self._y, self._is_binary = x, y, is_binary(y)
        self._work = network.workspace(largest_batch)
        self._slots = aligned_zeros((2, network.num_parameters), network.dtype)
        self._no_penalty = np.zeros(network.depth)

    def run(self, rows: np.ndarray, batch_size: int, learning_rate: float) -> Means:
        """Steps over these rows in their order; loss and error of every batch before its step.

        Parameters
        ----------
        rows : (n,) int64 row numbers, as many whole batches as steps; the last may be smaller.
        batch_size : at most the largest.
        learning_rate : positive and finite.

        Raises
        ------
        ValueError
            If there is no such row, batch or rate.
        """
        if not 1 <= batch_size <= self._work.batch_size:
            raise ValueError(
                f"batch_size is {batch_size}; there is memory for 1 to {self._work.batch_size}"
            )
        if not 0 < learning_rate < np.inf:
            raise ValueError(f"learning_rate is {learning_rate}; it must be positive and finite")
        sums = np.zeros((1, epoch.N_SUMS))
        self.steps = epoch.train_epoch(
            *(sums, self.parameters, self._slots, self._work._replace(batch_size=int(batch_size))),
            *(self.network.topology, self.optimizer._replace(learning_rate=float(learning_rate))),
            *(self._x[None], self._y[None], checked_rows(rows, len(self._x))[None], self.steps),
            *(self._no_penalty, self._no_penalty, self._is_binary, True),
        )
        return Means(float(sums[0, _LOSS]), float(1 - sums[0, _ACCURACY]))


class Evaluation:
    """Loss and error of some rows, at any parameters.

    Parameters
    ----------
    network : any.
    x, y : (n, n_inputs) and (n, n_outputs), n at least 1, of the network's dtype.
    chunk_size : rows that go through the network at once.
    """

    def __init__(
        self, network: Network, x: np.ndarray, y: np.ndarray, chunk_size: int = 256
    ) -> None:
        _check(network, None, x, y)
        self.network = network
        self._x, self._y, self._is_binary = x, y, is_binary(y)
        self._order = np.arange(len(x))[None]
        self._work = network.workspace(min(chunk_size, len(x)))
        self._no_penalty = np.zeros(network.depth)

    def measure(self, parameters: np.ndarray) -> Means:
        """Means over the rows; parameters (P,)."""
        network = self.network
        network.check_array("parameters", parameters, (network.num_parameters,))
        sums = np.zeros((1, epoch.N_SUMS))
        epoch.evaluate(
            *(sums, self._work, network.topology, parameters, self._x[None], self._y[None]),
            *(self._order, self._no_penalty, self._no_penalty, self._is_binary, True),
        )
        return Means(float(sums[0, _LOSS]), float(1 - sums[0, _ACCURACY]))


def checked_rows(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """The row numbers as the kernels take them.

    Raises
    ------
    ValueError
        If there are none, or one is not a row: the kernels check no bounds.
    """
    rows = np.ascontiguousarray(rows, np.int64)
    if rows.ndim != 1 or not rows.size or rows.min() < 0 or rows.max() >= n_rows:
        raise ValueError(f"rows must be one axis of numbers from 0 to {n_rows - 1}, at least one")
    return rows


def _check(network: Network, parameters: np.ndarray | None, x: np.ndarray, y: np.ndarray) -> None:
    n = max(len(x), 1)
    if parameters is not None:
        network.check_array("parameters", parameters, (network.num_parameters,))
    network.check_array("x", x, (n, network.n_inputs))
    network.check_array("y", y, (n, network.n_outputs))
