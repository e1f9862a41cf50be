"""What the energy of each observation was spent on: epochs of runs, its own and those beside it."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from minibutter.energy.model.features import Features
from minibutter.energy.model.forms import Design


@dataclass(frozen=True)
class Composition:
    """Epochs of m runs in the energies of n observations.

    Attributes
    ----------
    epochs : shape (n, m): how many epochs of each run fell into an epoch of the observation; the
        epochs of the observation's own runs add up to 1.
    experiments : int, shape (m,): number of the experiment of each run.
    features : of an epoch of each run.
    duration_s : float64, shape (m,): seconds of an epoch of each run.
    """

    epochs: sparse.csr_array
    experiments: np.ndarray
    features: Features
    duration_s: np.ndarray

    def work(self, own: Features) -> Features:
        """Features of the observations with the FLOPs and bytes of all that the energy paid for.

        Parameters
        ----------
        own : features of the n observations.
        """
        traffic = {level: self.epochs @ each for level, each in self.features.traffic_bytes.items()}
        return replace(own, flops=self.epochs @ self.features.flops, traffic_bytes=traffic)

    def design(self, of_runs: Design) -> Design:
        """The design of the observations, from that of the m runs: joules add up, and so do its
        columns."""
        return Design(of_runs.terms, self.epochs @ of_runs.matrix)

    @property
    def seconds(self) -> np.ndarray:
        """Seconds of all runs in an epoch of each observation, one after the other; (n,)."""
        return self.epochs @ self.duration_s

    @property
    def n_mixed(self) -> np.ndarray:
        """How many experiments are in each energy, as if each had been as long; float64, (n,).

        One over the sum of their squared shares of the time: 1 where there is one experiment, n
        where n of them ran beside each other all the time. What a model misses of an experiment
        averages out in a sum of several; of the sum it misses less, by the root of this number.
        """
        n_runs, n_experiments = len(self.experiments), int(self.experiments.max()) + 1
        belongs = sparse.csr_array(
            (self.duration_s, (np.arange(n_runs), self.experiments)), (n_runs, n_experiments)
        )
        return self.seconds**2 / (self.epochs @ belongs).power(2).sum(axis=1)


def compose(
    fractions: sparse.csr_array,
    epochs: np.ndarray,
    rows: np.ndarray,
    n_epochs: np.ndarray,
) -> sparse.csr_array:
    """Epochs of every run in an epoch of each observation: observations are means over their runs.

    Parameters
    ----------
    fractions : shape (r, m): part of the work of each of m runs that was paid for by each of r
        energies.
    epochs : float64, shape (m,): epochs of each run.
    rows : int, shape (r,): number of the observation that each energy belongs to.
    n_epochs : float64, shape (r,): epochs of the run whose energy it is.

    Returns
    -------
    shape (n, m).
    """
    n, r = int(rows.max()) + 1, len(rows)
    members = sparse.csr_array((np.ones(r), (rows, np.arange(r))), shape=(n, r))
    per_epoch = sparse.diags_array(1 / (members @ n_epochs))
    return sparse.csr_array(per_epoch @ members @ fractions.multiply(epochs).tocsr())
