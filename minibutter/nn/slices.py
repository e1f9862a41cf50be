"""One network over many ranks: every batch is cut into slices that ranks share out (data parallel).

Each rank holds all parameters and all rows. In a step it computes what its slices give to the
gradient, the ranks add up what all slices give, and everybody makes the same step of the optimizer.

**The result does not depend on the launch.** The number of slices belongs to the run, not the
number of ranks, and what slices give is added along a fixed tree (`summation`): one rank or many,
the bits are the same. Another number of slices is another order of summation, which changes the
last digits; with a single slice they are those of an ordinary run. Metrics are summed slice by
slice over the epoch, and along the same tree at its end; the test rows are cut into as many slices.

**What it costs.** A slice has a gradient of its own to write and to add, which takes as long
whether it has many rows or few. With its slices added as far as the tree allows, a rank sends and
receives about two gradients in a step, however many ranks there are (`shared_sum`).
"""

from typing import Any

import numpy as np

from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import epoch, slices
from minibutter.nn.kernels.arena import Workspace
from minibutter.nn.kernels.epoch import N_SUMS, PENALTY
from minibutter.nn.kernels.jit import compile_once
from minibutter.nn.kernels.layout import count_blocks, lanes_of
from minibutter.nn.kernels.metrics import finish_metrics
from minibutter.nn.network import Network
from minibutter.nn.noise import SliceNorms, StepNoise, noise_of_slices
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.partners import ALONE, Partners
from minibutter.nn.shared_sum import SharedSum, collect
from minibutter.nn.starts import Start, TrainingData, check_batch_size
from minibutter.nn.summation import Span, cut, pair_up


class SlicedGroup(TrainingGroup):
    """One repetition in progress on one rank or many, each with some slices of every batch.

    A rank takes memory for a gradient of each of its slices.

    Parameters
    ----------
    network : what is trained, on any rung but `blas`: the order of its sums may depend on how many
        rows a rank has.
    start : the same on all ranks, and so is everything else; its parameters are trained in place.
    optimizer : from `make_optimizer`.
    batch_size : rows per step, at most n_train; the last batch of an epoch may be smaller.
    slices : parts of a batch, at most `batch_size`; of the last batch some may be empty.
    partners : the ranks; those beyond the number of slices only help with the sums.
    records_norms : whether to keep the norms of the gradients of every step in `norms`.
    l1, l2, evaluate_train, records_metrics : as for `Trainer`.

    Attributes
    ----------
    norms : of the steps of the last epoch, on all ranks; None before, or if not asked for.

    Raises
    ------
    ValueError
        As `Trainer`, and for slices that cannot be.
    """

    def __init__(
        self,
        network: Network,
        start: Start,
        optimizer: epoch.Optimizer,
        *,
        batch_size: int,
        slices: int,
        partners: Partners = ALONE,
        records_norms: bool = False,
        **options: Any,
    ) -> None:
        check_batch_size(batch_size, len(start.data.x_train))
        check_slices(slices, batch_size, network.kernel)
        self._n_slices, self._partners = slices, partners
        self._records_norms = records_norms
        self.norms: SliceNorms | None = None
        self._gradients = SharedSum(network.num_parameters, network.dtype, slices, partners)
        self._own = self._gradients.own
        self.share = self._own.size / slices
        self._pairs, _ = pair_up([Span(s, s + 1) for s in range(slices)], slices)
        super().__init__(network, [start], optimizer, batch_size=batch_size, **options)

    def _make_workspace(self, batch_size: int, repetitions: int) -> Workspace:
        """For this rank's slices alone, each from the begin of a block on."""
        blocks = count_blocks(-(-batch_size // self._n_slices), self.network.dtype)
        rows = max(self._own.size, 1) * blocks * lanes_of(self.network.dtype)
        return self.network.workspace(rows)

    def _cut(self, begin: int, n_batch: int) -> np.ndarray:
        """Where this rank's slices of a batch lie, as `kernels.slices` wants it."""
        cuts = np.zeros((self._own.size, 3), np.int64)
        block = 0
        for row, part in zip(cuts, cut(n_batch, self._n_slices)[slice(*self._own)], strict=True):
            row[:] = block, begin + part.begin, part.size
            block += count_blocks(part.size, self.network.dtype)
        return cuts

    def _train_on(self, orders: np.ndarray) -> np.ndarray:
        n_rows, gradients = orders.shape[1], self._gradients
        sums = np.zeros((self._own.size, N_SUMS))
        penalty, norms = 0.0, []
        for begin in range(0, n_rows, self.batch_size):
            n_batch = min(self.batch_size, n_rows - begin)
            cuts = self._cut(begin, n_batch)
            slices.train_slices(
                sums,
                gradients.vectors,
                cuts,
                self._parameters,
                self._work,
                self._topology,
                self._train.x,
                self._train.y,
                orders,
                n_batch,
                self._train.is_binary,
                self._records_metrics,
            )
            if self._records_norms:
                squares = _mean_squares(gradients.vectors, cuts[:, 2], n_batch)
            gradient = gradients.add_up()
            if self._records_norms:
                norms.append((n_batch, squares, slices.squared_norm(gradient)))
            epoch.penalty(self._topology, self._parameters, self._work.penalties, *self._penalty)
            penalty += n_batch * self._work.penalties[0]
            epoch.add_penalty_gradient(self._topology, self._parameters, gradient, *self._penalty)
            self.steps += 1
            epoch.update(self.optimizer, self._parameters, self._slots, gradient, self.steps)
        if self._records_norms:
            self.norms = self._collect_norms(norms)
        self._compare_parameters()
        return self._finish(sums, n_rows, penalty / n_rows)

    def _compare_parameters(self) -> None:
        """Raise RuntimeError where ranks hold different parameters: it is no longer one run."""
        own = np.array([[slices.squared_norm(self._parameters)]])
        norms = collect(own, self._partners.size, self._partners)
        if not np.array_equal(norms, np.broadcast_to(own, norms.shape), equal_nan=True):
            raise RuntimeError(
                f"after {self.steps} steps the ranks hold different parameters, of squared norms "
                f"{norms.ravel().tolist()}; are their processors of one kind and in order?"
            )

    def _noise(self) -> StepNoise | None:
        return None if self.norms is None else noise_of_slices(self.norms, self._n_drawn_from)

    def _collect_norms(self, steps: list[tuple[int, list[float], float]]) -> SliceNorms:
        """From rows of the batch, squares of this rank's slices, and of the batch, of all steps."""
        n_batches, own, squares = zip(*steps, strict=True)
        rows = [[part.size for part in cut(n_batch, self._n_slices)] for n_batch in n_batches]
        own_squares = np.array(own).reshape(len(steps), -1)
        return SliceNorms(
            slice_rows=np.array(rows),
            slice_squares=collect(own_squares.T, self._n_slices, self._partners).T,
            batch_rows=np.array(n_batches),
            batch_squares=np.array(squares),
        )

    def _evaluate(self, rows: Any) -> np.ndarray:
        sums = np.zeros((self._own.size, N_SUMS))
        parts = cut(rows.n_rows, self._n_slices)[slice(*self._own)]
        for part, sums_of_slice in zip(parts, sums, strict=True):
            epoch.measure(
                sums_of_slice[None],
                self._work,
                self._topology,
                self._parameters,
                rows.x,
                rows.y,
                rows.order,
                *part,
                rows.is_binary,
                self._records_metrics,
            )
        epoch.penalty(self._topology, self._parameters, self._work.penalties, *self._penalty)
        return self._finish(sums, rows.n_rows, self._work.penalties[0])

    def _finish(self, own: np.ndarray, n_rows: int, penalty: float) -> np.ndarray:
        """Metrics and penalty (1, 11) from the sums (n own slices, 11) of all ranks."""
        sums = collect(own, self._n_slices, self._partners)
        slices.add_pairs(sums, self._pairs)
        finish_metrics(sums[0, :PENALTY], n_rows)
        sums[0, PENALTY] = penalty
        return self._without_unmeasured(sums[:1])


def check_slices(slices: int, batch_size: int, kernel: str) -> None:
    """Raise ValueError for slices that a batch cannot be cut into, or a rung that cannot have any.

    Parameters
    ----------
    slices : parts of a batch.
    batch_size : rows of it.
    kernel : rung of the matrix product.
    """
    if not 1 <= slices <= batch_size:
        raise ValueError(
            f"slices is {slices}; a batch of {batch_size} rows can be cut into 1 to {batch_size}"
        )
    if slices > 1 and kernel == "blas":
        raise ValueError(
            "kernel is 'blas', whose order of summation may depend on how many rows a rank has; "
            "with slices, take another one"
        )


def default_slices(batch_size: int) -> int:
    """Parts of a batch, where nothing was asked for: of 128 rows or more, from 2 to 8.

    With fewer rows, what a slice takes whatever its rows is most of its time
    (`python -m bench.data_parallel`).
    """
    return max(2, min(8, batch_size // 128))


def _mean_squares(gradients: np.ndarray, rows: np.ndarray, n_batch: int) -> list[float]:
    """Squared norms of the mean gradients of slices; NaN for a slice without rows.

    Parameters
    ----------
    gradients : (S, >= P), what the slices give to the mean of n_batch rows.
    rows : (S,), of the slices.
    """
    return [
        slices.squared_norm(gradient) * (n_batch / n) ** 2 if n else np.nan
        for gradient, n in zip(gradients, rows, strict=True)
    ]


def compile_sliced_kernels(dtype: str) -> None:
    """Compile, or load from disk, what slices need besides what `compile_kernels` has compiled.

    Parameters
    ----------
    dtype : "float32" or "float64".
    """
    network = Network(n_inputs=1, widths=(1, 1), task="regression", dtype=dtype)
    rows = np.zeros((1, 1), dtype=dtype)
    with compile_once(f"{dtype}-slices"):
        SlicedGroup(
            network,
            Start(
                np.zeros(network.num_parameters, dtype=dtype),
                TrainingData(rows, rows, rows, rows),
                np.random.default_rng(0),
            ),
            make_optimizer("adam", 1e-3),
            batch_size=1,
            slices=1,
            records_norms=True,
        ).run_epoch()
