"""Training counted in steps: batches of rows drawn by lot, and a look at the network in between.

An epoch ties how often one looks to the batch size. Who compares batch sizes at equal numbers of
steps wants to look at the same steps of every run, and to pay for no look that nobody needs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.network import Network
from minibutter.nn.starts import Start
from minibutter.nn.training import TrainingGroup

_EVALUATED_ROWS = 64
"""Rows of a batch in evaluation, so that small batches of training do not slow it down."""


class SteppedGroup(TrainingGroup):
    """Repetitions of one experiment in progress, whose batches are drawn with replacement.

    The gradients of a batch of B rows then have exactly the covariance F / B, F that of single
    examples: there is no correction for a finite training set.

    Parameters
    ----------
    network, starts, optimizer, batch_size : as of `TrainingGroup`; `Start.shuffle` draws the rows.
    options : l1, l2 and parameterization, as there.

    Raises
    ------
    ValueError
        As `TrainingGroup`.
    """

    def __init__(
        self,
        network: Network,
        starts: Sequence[Start],
        optimizer: epoch.Optimizer,
        *,
        batch_size: int,
        **options: Any,
    ) -> None:
        super().__init__(
            *(network, starts, optimizer),
            batch_size=batch_size,
            sampling="replacement",
            records_metrics=False,
            **options,
        )
        self._batch_size = batch_size
        self._training_work = self._work
        self._evaluation_work = network.workspace(_EVALUATED_ROWS, self._topology.repetitions)

    def run_steps(self, n_steps: int) -> np.ndarray:
        """Make so many steps; no row is evaluated beside those of the batches.

        Returns
        -------
        Mean loss (R,) of the batches, each before its step; float64.
        """
        shape = n_steps * self._batch_size
        orders = [shuffle.integers(self._train.n_rows, size=shape) for shuffle in self._shuffles]
        orders += [orders[0]] * (self._topology.repetitions - len(orders))
        return self._train_on(np.array(orders))[: self._n_starts, 0]

    def evaluate_test(self) -> np.ndarray:
        """Loss and accuracy (R, 2) of the test rows, float64."""
        return self._look_at(self._test)

    def evaluate_train(self) -> np.ndarray:
        """Loss and accuracy (R, 2) of the training rows, float64."""
        return self._look_at(self._train)

    def _look_at(self, rows: Any) -> np.ndarray:
        self._work, self._records_metrics = self._evaluation_work, True
        try:
            return self._evaluate(rows)[: self._n_starts, :2]
        finally:
            self._work, self._records_metrics = self._training_work, False
