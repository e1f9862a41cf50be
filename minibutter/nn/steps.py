"""Training by steps instead of epochs: as many at a time as asked for, of any batch size and rate.

What studies need that look at a run between two epochs, branch from it, change its batch, or
compare batches at equal numbers of steps. The steps are those of `TrainingGroup`; who calls draws
the rows, and looks at the network with an `Evaluation` whenever it likes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.metrics import METRICS
from minibutter.nn.network import Network
from minibutter.nn.starts import Rows, Start, TrainingData

_LOSS, _ACCURACY = METRICS.index("loss"), METRICS.index("accuracy")


class Means(NamedTuple):
    """Means over rows: numbers of a single run, float64 (R,) of repetitions."""

    loss: Any
    accuracy: Any  # NaN if it was not recorded

    @property
    def error(self) -> Any:
        """Share of rows that the network takes for another class."""
        return 1 - self.accuracy


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


class StepGroup(TrainingGroup):
    """Repetitions of one experiment in progress, that go as many steps as they are told.

    Parameters
    ----------
    network, starts : as of `TrainingGroup`. Who calls draws the rows, from `Start.shuffle` or not.
    optimizer : its learning rate gives way to that of the steps.
    largest_batch : for which memory is taken. It may be larger than the training set: a batch can
        hold a row twice.
    options : `records_metrics`, without which there are no errors, `l1`, `l2`, `parameterization`.

    Raises
    ------
    ValueError
        As `TrainingGroup`, but for the batch.
    """

    def __init__(
        self,
        network: Network,
        starts: Sequence[Start],
        optimizer: epoch.Optimizer,
        *,
        largest_batch: int,
        **options: Any,
    ) -> None:
        super().__init__(network, starts, optimizer, batch_size=largest_batch, **options)

    def _check_largest_batch(self, batch_size: int, n_train: int) -> None:
        if batch_size < 1:
            raise ValueError(f"largest_batch is {batch_size}; it must be at least 1")

    def run(self, rows: Sequence[np.ndarray], batch_size: int, learning_rate: float) -> Means:
        """Steps over these rows in their order; means (R,) of every batch before its step.

        Parameters
        ----------
        rows : row numbers (n,) int64 of every repetition, as many whole batches as steps; the last
            may be smaller.
        batch_size : at most the largest.
        learning_rate : positive and finite.

        Raises
        ------
        ValueError
            If there is no such row, batch or rate.
        """
        if len(rows) != self._n_starts:
            raise ValueError(f"rows of {len(rows)} repetitions; the group has {self._n_starts}")
        if not 0 < learning_rate < np.inf:
            raise ValueError(f"learning_rate is {learning_rate}; it must be positive and finite")
        orders = self._in_lanes([checked_rows(order, self._train.n_rows) for order in rows])
        self.batch_size = int(batch_size)
        self.optimizer = self.optimizer._replace(learning_rate=float(learning_rate))
        means = self._train_on(orders)[: self._n_starts]
        return Means(means[:, _LOSS], means[:, _ACCURACY])


class StepTrainer:
    """A single run in progress, without penalties and tests, that goes as many steps as it is told.

    Parameters
    ----------
    network : what is trained.
    parameters : (P,), trained in place.
    optimizer, largest_batch : as of `StepGroup`.
    x, y : training set, (n_train, n_inputs) and (n_train, n_outputs), of the network's dtype.

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
        unasked = np.random.default_rng(0)  # every call brings its rows
        start = Start(parameters, TrainingData(x, y, x[:0], y[:0]), unasked)
        self._group = StepGroup(network, [start], optimizer, largest_batch=largest_batch)
        self.parameters = parameters

    @property
    def steps(self) -> int:
        """Made so far."""
        return self._group.steps

    def run(self, rows: np.ndarray, batch_size: int, learning_rate: float) -> Means:
        """Steps over these rows (n,), as of `StepGroup.run`."""
        means = self._group.run([rows], batch_size, learning_rate)
        return Means(*(float(values[0]) for values in means))


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
        n = max(len(x), 1)
        network.check_array("x", x, (n, network.n_inputs))
        network.check_array("y", y, (n, network.n_outputs))
        self.network = network
        self._rows = Rows(x[None], y[None])
        self._work = network.workspace(min(chunk_size, len(x)))
        self._no_penalty = np.zeros(network.depth)

    def measure(self, parameters: np.ndarray) -> Means:
        """Means over the rows; parameters (P,)."""
        network, rows = self.network, self._rows
        network.check_array("parameters", parameters, (network.num_parameters,))
        sums = np.zeros((1, epoch.N_SUMS))
        epoch.evaluate(
            *(sums, self._work, network.topology, parameters, rows.x, rows.y, rows.order),
            *(self._no_penalty, self._no_penalty, rows.is_binary, True),
        )
        return Means(float(sums[0, _LOSS]), float(sums[0, _ACCURACY]))


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
