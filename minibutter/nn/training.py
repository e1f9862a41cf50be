"""From a network and its data to one row of metrics per epoch.

A `Trainer` owns what changes during a run: parameters, optimizer memory, the stream of shuffles.
It knows nothing of files, energy or ranks; whoever calls `run_epoch` may measure around it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.arena import Workspace
from minibutter.nn.kernels.jit import compile_once
from minibutter.nn.kernels.layout import aligned_zeros, lanes_of
from minibutter.nn.kernels.tiling import DEFAULT_TILING, Tiling
from minibutter.nn.network import Network, penalty_factors
from minibutter.nn.parameterization import Parameterization
from minibutter.nn.schedules import StepSchedule
from minibutter.nn.starts import Start, TrainingData, check_starts, is_binary
from minibutter.nn.state import TrainingState, digest_arrays, pack_generator

OPTIMIZERS: dict[str, int] = {"adam": epoch.ADAM, "rmsprop": epoch.RMSPROP, "sgd": epoch.SGD}

MOMENTUM_FORMS: tuple[str, ...] = ("keras", "torch")

SAMPLINGS: tuple[str, ...] = ("shuffle", "replacement")

MAX_PERTURBATION = 2**20
"""A whole number that every type holds."""


def make_optimizer(
    rule: str,
    learning_rate: float,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
    momentum_form: str = "keras",
    perturbation: int = 1,
) -> epoch.Optimizer:
    """An update rule with Keras' constants.

    Parameters
    ----------
    rule : a key of `OPTIMIZERS`.
    learning_rate : positive and finite.
    momentum : in [0, 1), for "sgd" and "rmsprop".
    nesterov : of "sgd" with momentum: Nesterov's variant, in PyTorch's form.
    momentum_form : of "sgd": whether the learning rate enters the buffer ("keras") or multiplies
        what comes out of it ("torch"). Without momentum there is no difference.
    perturbation : k >= 1 of "sgd": the step is (k η) (d / k), with d the update direction of
        PyTorch's form; 1 is the usual step.

    Raises
    ------
    ValueError
        For an unknown rule, an impossible constant, or one that the rule cannot use.
    """
    if rule not in OPTIMIZERS:
        raise ValueError(f"optimizer is {rule!r}; it must be one of {', '.join(OPTIMIZERS)}")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive and finite")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be in [0, 1)")
    if rule == "adam" and momentum != 0:
        raise ValueError(
            f"momentum is {momentum}, but adam has its own (beta_1 = 0.9); "
            "leave momentum out, or use sgd or rmsprop"
        )
    _check_sgd(rule, momentum, nesterov, momentum_form, perturbation)
    is_torch = nesterov or momentum_form == "torch" or perturbation != 1
    return epoch.Optimizer(
        rule=epoch.TORCH_SGD if is_torch else OPTIMIZERS[rule],
        learning_rate=float(learning_rate),
        momentum=float(momentum),
        rho=0.9,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        is_nesterov=bool(nesterov),
        perturbation=float(perturbation),
        part_stop=np.array([np.iinfo(np.int64).max]),
        part_rate=np.ones(1),
        part_epsilon=np.ones(1),
    )


def _check_sgd(
    rule: str, momentum: float, nesterov: bool, momentum_form: str, perturbation: int
) -> None:
    """What only SGD has, and what its parts ask of each other."""
    if momentum_form not in MOMENTUM_FORMS:
        raise ValueError(
            f"momentum_form is {momentum_form!r}; it must be one of {', '.join(MOMENTUM_FORMS)}"
        )
    if perturbation != int(perturbation) or not 1 <= perturbation <= MAX_PERTURBATION:
        raise ValueError(
            f"perturbation is {perturbation}; it must be a whole number from 1 to "
            f"{MAX_PERTURBATION}"
        )
    for name, value, usual in (
        ("nesterov", nesterov, False),
        ("momentum_form", momentum_form, "keras"),
        ("perturbation", perturbation, 1),
    ):
        if rule != "sgd" and value != usual:
            raise ValueError(f"{name} is {value!r}, but {rule} has none; leave it out, or use sgd")
    if nesterov and momentum == 0:
        raise ValueError("nesterov without momentum is plain descent; give momentum, as in 0.9")
    if perturbation != 1 and momentum > 0 and not nesterov and momentum_form == "keras":
        raise ValueError(
            f"perturbation is {perturbation}, but in Keras' form of momentum the learning rate is "
            "within the buffer: take momentum_form 'torch', or nesterov, for all perturbations"
        )


@dataclass(frozen=True)
class EpochRow:
    """What one epoch measured: vectors of the ten `METRICS` followed by the weight penalty.

    Attributes
    ----------
    train : float64 (11,), running means over the epoch's batches, as in BUTTER.
    test : float64 (11,), at the end of the epoch.
    trained : float64 (11,), the training set at the end of the epoch; None unless asked for.
    is_finite : whether both losses and all parameters are finite.
    """

    train: np.ndarray
    test: np.ndarray
    trained: np.ndarray | None
    is_finite: bool


class Trainer:
    """One run in progress.

    Parameters
    ----------
    network : what is trained.
    parameters : (num_parameters,), trained in place.
    optimizer : from `make_optimizer`.
    data : the split data set.
    batch_size : rows per step, at most n_train; the last batch of an epoch may be smaller.
    shuffle : draws the order of the rows, once per epoch.
    l1, l2 : penalty factors on the weights of every layer.
    evaluate_train : whether to evaluate the training set at the end of every epoch.
    records_metrics : whether to measure all ten metrics, or only the loss; the others are NaN then.
    parameterization, schedule, sampling : see `TrainingGroup`.

    Raises
    ------
    ValueError
        If an array does not fit the network, the batch not the training set, or a penalty factor
        is negative or not finite.
    """

    def __init__(
        self,
        network: Network,
        parameters: np.ndarray,
        optimizer: epoch.Optimizer,
        data: TrainingData,
        *,
        batch_size: int,
        shuffle: np.random.Generator,
        **options: Any,
    ) -> None:
        start = Start(parameters, data, shuffle)
        self.network, self.data = network, data
        self._group = TrainingGroup(network, [start], optimizer, batch_size=batch_size, **options)
        self.parameters = parameters

    def run_epoch(self) -> EpochRow:
        """Train on every row once, in a new random order, then evaluate."""
        return self._group.run_epoch()[0]


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
    epochs : done so far, those of before included.
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
        check_starts(network, starts, batch_size)
        multipliers = np.ones(network.depth)
        if parameterization is not None:
            multipliers = parameterization.multipliers
        self._penalty = penalty_factors(l1, l2, multipliers)
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling is {sampling!r}; it must be one of {', '.join(SAMPLINGS)}")
        self.network = network
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
        self._train = _Rows(*(_stack(starts, name) for name in ("x_train", "y_train")))
        self._test = _Rows(*(_stack(starts, name) for name in ("x_test", "y_test")))
        self._shuffles = [start.shuffle for start in starts[: self._n_starts]]
        self._digests: dict[int, np.ndarray] = {}
        self._evaluate_train = evaluate_train
        self._records_metrics = bool(records_metrics)

    def _make_workspace(self, batch_size: int, repetitions: int) -> Workspace:
        """Memory for what is computed of a batch at once."""
        return self.network.workspace(batch_size, repetitions)

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
        orders = [self._draw_order(shuffle) for shuffle in self._shuffles]
        orders += [orders[0]] * (self._topology.repetitions - len(orders))
        if self._schedule is not None:
            rate = self._first_rate * self._schedule.factor(self.epochs)
            self.optimizer = self.optimizer._replace(learning_rate=rate)
        train = self._train_on(orders[0][None] if len(orders) == 1 else np.array(orders))
        self.epochs += 1
        test = self._evaluate(self._test)
        trained = self._evaluate(self._train) if self._evaluate_train else None
        rows = []
        for repetition in range(self._n_starts):
            is_finite = (
                math.isfinite(train[repetition, 0])
                and math.isfinite(test[repetition, 0])
                and bool(np.isfinite(self.parameters(repetition)).all())
            )
            trained_row = None if trained is None else trained[repetition]
            rows.append(EpochRow(train[repetition], test[repetition], trained_row, is_finite))
        return rows

    def _draw_order(self, shuffle: np.random.Generator) -> np.ndarray:
        n_rows = self._train.n_rows
        if self._sampling == "replacement":
            return shuffle.integers(n_rows, size=n_rows)
        return shuffle.permutation(n_rows)

    def _train_on(self, orders: np.ndarray) -> np.ndarray:
        """Make the steps of an epoch, its rows in these orders (R, n_train).

        Returns the means (R, 11) of what the batches were measured at.
        """
        sums = np.zeros((self._topology.repetitions, epoch.N_SUMS))
        self.steps = epoch.train_epoch(
            sums,
            self._parameters,
            self._slots,
            self._work,
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

    def _evaluate(self, rows: "_Rows") -> np.ndarray:
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


class _Rows:
    """A data set as the kernels take it: x (R, n_rows, n_inputs), y (R, n_rows, n_outputs)."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.n_rows = x.shape[1]
        self.order = np.tile(np.arange(self.n_rows), (len(x), 1))
        self.is_binary = is_binary(y)


def _stack(starts: Sequence[Start], name: str) -> np.ndarray:
    """An array of every repetition's data, one behind the other; of a single one, a view."""
    arrays = [getattr(start.data, name) for start in starts]
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def compile_kernels(dtype: str, kernel: str = "tiled", tiling: Tiling = DEFAULT_TILING) -> None:
    """Compile, or load from disk, everything that an epoch needs, so that no run is timed with it.

    Takes about half a minute where the kernels of this dtype were never compiled before, and
    seconds for another rung or shape of tile; of several processes one does it, and the others
    sleep until it has. A BLAS that the rung calls is loaded afterwards.

    Parameters
    ----------
    dtype : "float32" or "float64".
    kernel : rung of the matrix product.
    tiling : of the runs; only the shape of the register tile decides what is compiled.
    """
    network = Network(
        n_inputs=1, widths=(1, 1), task="regression", dtype=dtype, kernel=kernel, tiling=tiling
    )
    shape, usual_shape = (
        f"{sizes.tile_rows}x{sizes.tile_columns}"
        for sizes in (tiling.resolved(dtype), DEFAULT_TILING.resolved(dtype))
    )
    is_usual = kernel == "tiled" and shape == usual_shape
    rows = np.zeros((1, 1), dtype=dtype)
    with compile_once(dtype if is_usual else f"{dtype}-{kernel}-{shape}"):
        Trainer(
            network,
            np.zeros(network.num_parameters, dtype=dtype),
            make_optimizer("adam", 1e-3),
            TrainingData(rows, rows, rows, rows),
            batch_size=1,
            shuffle=np.random.default_rng(0),
        ).run_epoch()
        if kernel == "tiled":
            network.workspace(batch_size=1, repetitions=lanes_of(dtype))
