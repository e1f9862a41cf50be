"""A run in progress that measures the noise of its gradients, and loses no bit by it.

The statistics are exact, of every example in every step; `kernels.moments` has them for some 8 to
23 % of a step in float32 (`python -m bench.moments`).
"""

from typing import Any

import numpy as np

from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import epoch, moments
from minibutter.nn.kernels.jit import compile_once
from minibutter.nn.moments import Scratch, StepMoments, step_columns
from minibutter.nn.network import Network
from minibutter.nn.noise import StepNoise, noise_of_rows
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import Start, TrainingData


class MeasuredGroup(TrainingGroup):
    """One repetition in progress, with the moments of its gradients at every step.

    Its rows are those of a `TrainingGroup`, and tell the noise, too; the moments are of the mean
    loss without the penalty, with respect to the effective parameters.

    Parameters
    ----------
    network, start, optimizer, batch_size, options : as for `TrainingGroup`.

    Attributes
    ----------
    moments : of the steps of the last epoch; None before.

    Raises
    ------
    ValueError
        As `TrainingGroup`.
    """

    def __init__(
        self,
        network: Network,
        start: Start,
        optimizer: epoch.Optimizer,
        *,
        batch_size: int,
        **options: Any,
    ) -> None:
        super().__init__(network, [start], optimizer, batch_size=batch_size, **options)
        self._scratch = Scratch(network, batch_size)
        self.moments: StepMoments | None = None

    def _train_on(self, orders: np.ndarray) -> np.ndarray:
        n_rows, scratch = orders.shape[1], self._scratch
        sums = np.zeros((1, epoch.N_SUMS))
        columns = np.empty(step_columns(n_rows, self.batch_size, self.network.depth))
        self.steps = moments.train_epoch_with_moments(
            *(sums, columns, self._parameters, self._slots),
            *(self._work._replace(batch_size=self.batch_size), self._topology, self.optimizer),
            *(self._train.x, self._train.y, orders, self.steps, *self._penalty),
            *(self._train.is_binary, self._records_metrics),
            *(scratch.rows, scratch.row, scratch.partial),
        )
        self.moments = StepMoments.of_columns(columns, n_rows, self.batch_size)
        return self._without_unmeasured(sums)

    def _noise(self) -> StepNoise:
        squares = self.moments.example_squared_norms, self.moments.batch_squared_norms
        of_rows, of_batches = (layers.sum(axis=1) for layers in squares)
        return noise_of_rows(of_rows, of_batches, self.moments.batch_sizes, self._n_drawn_from)


def compile_moment_kernels(dtype: str) -> None:
    """Compile, or load from disk, what moments need besides what `compile_kernels` has compiled.

    Parameters
    ----------
    dtype : "float32" or "float64".
    """
    network = Network(n_inputs=1, widths=(1, 1), task="regression", dtype=dtype)
    rows = np.zeros((1, 1), dtype=dtype)
    parameters = np.zeros(network.num_parameters, dtype=dtype)
    start = Start(parameters, TrainingData(rows, rows, rows, rows), np.random.default_rng(0))
    with compile_once(f"{dtype}-moments"):
        MeasuredGroup(network, start, make_optimizer("adam", 1e-3), batch_size=1).run_epoch()
