"""Repetitions of one experiment in progress: from a network and their data to rows of metrics.

A group owns what changes while it trains: parameters, optimizer memory, the streams of shuffles.
It knows nothing of files, energy or ranks; whoever calls `run_epoch` may measure around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.arena import Workspace
from minibutter.nn.kernels.layout import aligned_zeros, lanes_of
from minibutter.nn.network import Network, penalty_factors
from minibutter.nn.noise import StepNoise
from minibutter.nn.parameterization import Parameterization
from minibutter.nn.schedules import StepSchedule
from minibutter.nn.starts import Rows, Start, check_batch_size, check_starts, stack_rows
from minibutter.nn.state import TrainingState, digest_arrays, pack_generator

SAMPLINGS: tuple[str, ...] = ("shuffle", "replacement")


@dataclass(frozen=True)
class EpochRow:
    """What one epoch measured: vectors of the ten `METRICS` followed by the weight penalty.

    Attributes
    ----------
    train : float64 (11,), running means over the epoch's batches, as in BUTTER.
    test : float64 (11,), at the end of the epoch.
    trained : float64 (11,), the training set at the end of the epoch; None unless asked for.
    is_finite : whether both losses and all parameters are finite.
    batch_size : rows of its steps; the last may have had fewer.
    steps : that it made.
    noise : of its gradients, step by step; None unless the group measures it.
    """

    train: np.ndarray
    test: np.ndarray
    trained: np.ndarray | None
    is_finite: bool
    batch_size: int
    steps: int
    noise: StepNoise | None = None


class TrainingGroup:
    """Repetitions of one experiment in progress, packed into the lanes of vector registers.

    Every repetition has its own data, order and parameters, and gets the bits that it would get
    alone. A group of one is a single run.

    Parameters
    ----------
    network : what is trained, once per repetition.
    starts : 1 to LANES repetitions (`layout.lanes_of`) whose data have the same shapes, and that
        have done equally many epochs. A single one's parameters are trained in place.
    optimizer, batch_size, l1, l2, evaluate_train, records_metrics : as for `Trainer`.
    parameterization : whose learning rates are folded into the optimizer, and whose multipliers
        into the penalties; the parameters are the effective ones. None: one rate for all.
    schedule : of the learning rate, by the epochs that are done. None: it is constant.
    sampling : one of `SAMPLINGS`: an epoch takes every row once, "shuffle", or n_train rows drawn
        independently, "replacement", of which some come twice and others not at all.

    Attributes
    ----------
    steps, epochs : done so far, those of before included.
    share : the part of the work that is this process's, of 1.

    Raises
    ------
    ValueError
        As `Trainer`, and if there are too many repetitions, or they cannot be packed.
    """

    share = 1.0

    def __init__(
        self,
        network: Network,
        starts: Sequence[Start],
        optimizer: epoch.Optimizer,
        *,
        batch_size: int,
        l1: float = 0.0,
        l2: float = 0.0,
        evaluate_train: bool = False,
        records_metrics: bool = True,
        parameterization: Parameterization | None = None,
        schedule: StepSchedule | None = None,
        sampling: str = "shuffle",
    ) -> None:
        check_starts(network, starts)
        self._check_largest_batch(batch_size, len(starts[0].data.x_train))
        multipliers = np.ones(network.depth)
        if parameterization is not None:
            multipliers = parameterization.multipliers
        self._penalty = penalty_factors(l1, l2, multipliers)
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}")
        self.network = network
        self._batch_size = self._most_rows = batch_size
        self.steps, self.epochs = starts[0].steps, starts[0].epochs
        self._n_starts = len(starts)
        repetitions = 1 if len(starts) == 1 else lanes_of(network.dtype)
        # Lanes that nobody asked for repeat the first repetition; nobody reads them.
        starts = [*starts, *[starts[0]] * (repetitions - len(starts))]
        self._topology = network.topology._replace(repetitions=repetitions)
        if parameterization is not None:
            optimizer = parameterization.fold_into(optimizer, network)
        stop = np.minimum(optimizer.part_stop, network.num_parameters) * repetitions
        self.optimizer = optimizer._replace(part_stop=stop)
        self._schedule, self._sampling = schedule, sampling
        self._first_rate = optimizer.learning_rate
        self._work = self._make_workspace(batch_size, repetitions)
        self._slots = aligned_zeros((2, network.num_parameters * repetitions), network.dtype)
        if repetitions == 1:
            self._parameters = starts[0].parameters
        else:
            self._parameters = aligned_zeros(network.num_parameters * repetitions, network.dtype)
            self._parameters.reshape(-1, repetitions)[:] = np.transpose(
                [start.parameters for start in starts]
            )
        for repetition, start in enumerate(starts):
            if start.slots is not None:
                self._slots_of(repetition)[:] = start.slots
        self._train = Rows(*(stack_rows(starts, name) for name in ("x_train", "y_train")))
        self._test = Rows(*(stack_rows(starts, name) for name in ("x_test", "y_test")))
        self._shuffles = [start.shuffle for start in starts[: self._n_starts]]
        self._digests: dict[int, np.ndarray] = {}
        self._evaluate_train = evaluate_train
        self._records_metrics = bool(records_metrics)

    def _check_largest_batch(self, batch_size: int, n_train: int) -> None:
        """Raise ValueError for batches that this kind of training cannot have."""
        check_batch_size(batch_size, n_train)

    def _make_workspace(self, batch_size: int, repetitions: int) -> Workspace:
        """Memory for what is computed of a batch at once."""
        return self.network.workspace(batch_size, repetitions)

    @property
    def batch_size(self) -> int:
        """Rows of the steps of the next epoch; may be set to as many as at first, or fewer."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, rows: int) -> None:
        if not 1 <= rows <= self._most_rows:
            raise ValueError(
                f"batch_size is {rows}; memory was taken for batches of 1 to {self._most_rows} rows"
            )
        self._batch_size = rows

    def parameters(self, repetition: int) -> np.ndarray:
        """View (num_parameters,) of a repetition's parameters."""
        return self._parameters.reshape(-1, self._topology.repetitions)[:, repetition]

    def _slots_of(self, repetition: int) -> np.ndarray:
        """View (2, num_parameters) of a repetition's part of the optimizer's memory."""
        return self._slots.reshape(2, -1, self._topology.repetitions)[:, :, repetition]

    def state(self, repetition: int) -> TrainingState:
        """All that decides the next bits of a repetition, copied.

        `Start.resumed` goes on from it, alone or in a group with others.
        """
        if repetition not in self._digests:
            parts = (self._train, self._test)
            arrays = [array[repetition] for rows in parts for array in (rows.x, rows.y)]
            self._digests[repetition] = digest_arrays(arrays)
        return TrainingState(
            parameters=self.parameters(repetition).copy(),
            slots=self._slots_of(repetition).copy(),
            steps=self.steps,
            epochs=self.epochs,
            shuffle=pack_generator(self._shuffles[repetition]),
            data=self._digests[repetition],
        )

    def run_epoch(self) -> list[EpochRow]:
        """Train on as many rows as there are, in new random orders, then evaluate.

        Returns
        -------
        A row per repetition.
        """
        orders = self._in_lanes([self._draw_order(shuffle) for shuffle in self._shuffles])
        if self._schedule is not None:
            rate = self._first_rate * self._schedule.factor(self.epochs)
            self.optimizer = self.optimizer._replace(learning_rate=rate)
        steps = self.steps
        train = self._train_on(orders)
        steps, self.epochs = self.steps - steps, self.epochs + 1
        test = self._evaluate(self._test)
        trained = self._evaluate(self._train) if self._evaluate_train else None
        is_finite = np.isfinite(train[:, 0]) & np.isfinite(test[:, 0]) & self._are_finite()
        common = self.batch_size, steps, self._noise()
        return [
            EpochRow(
                *(train[i], test[i], None if trained is None else trained[i], bool(is_finite[i])),
                *common,
            )
            for i in range(self._n_starts)
        ]

    def _are_finite(self) -> np.ndarray:
        """Whether all parameters of a repetition are finite, (R,) bool."""
        is_finite = np.isfinite(self._parameters)
        if self._topology.repetitions == 1:
            return is_finite.all(keepdims=True)  # along an axis of one it takes ten times as long
        return is_finite.reshape(-1, self._topology.repetitions).all(axis=0)

    def _noise(self) -> StepNoise | None:
        """What the steps of the last epoch tell of the noise of gradients, if it was measured."""
        return None

    @property
    def _n_drawn_from(self) -> int | None:
        """Rows that an epoch draws from without replacement; None where it draws each anew."""
        return None if self._sampling == "replacement" else self._train.n_rows

    def _draw_order(self, shuffle: np.random.Generator) -> np.ndarray:
        n_rows = self._train.n_rows
        if self._sampling == "replacement":
            return shuffle.integers(n_rows, size=n_rows)
        return shuffle.permutation(n_rows)

    def _in_lanes(self, orders: Sequence[np.ndarray]) -> np.ndarray:
        """Row numbers (n,) of every repetition as those of every lane, (R, n)."""
        if len(orders) == 1 and self._topology.repetitions == 1:
            return orders[0][None]  # a view
        return np.array([*orders, *[orders[0]] * (self._topology.repetitions - len(orders))])

    def _train_on(self, orders: np.ndarray) -> np.ndarray:
        """Make the steps of an epoch, its rows in these orders (R, n).

        Returns the means (R, 11) of what the batches were measured at.
        """
        sums = np.zeros((self._topology.repetitions, epoch.N_SUMS))
        self.steps = epoch.train_epoch(
            sums,
            self._parameters,
            self._slots,
            self._work._replace(batch_size=self.batch_size),
            self._topology,
            self.optimizer,
            self._train.x,
            self._train.y,
            orders,
            self.steps,
            *self._penalty,
            self._train.is_binary,
            self._records_metrics,
        )
        return self._without_unmeasured(sums)

    def _evaluate(self, rows: "Rows") -> np.ndarray:
        """Metrics and penalty (R, 11) of a data set."""
        sums = np.zeros((self._topology.repetitions, epoch.N_SUMS))
        epoch.evaluate(
            sums,
            self._work,
            self._topology,
            self._parameters,
            rows.x,
            rows.y,
            rows.order,
            *self._penalty,
            rows.is_binary,
            self._records_metrics,
        )
        return self._without_unmeasured(sums)

    def _without_unmeasured(self, sums: np.ndarray) -> np.ndarray:
        """NaN for the metrics (R, 11) that nobody asked for."""
        if not self._records_metrics:
            sums[:, 1 : epoch.PENALTY] = np.nan
        return sums
