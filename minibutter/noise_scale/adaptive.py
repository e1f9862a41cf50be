"""Batches that grow with the noise scale: how large, and what that saves (appendix D).

Progress s counts steps of the whole gradient; at noise scale B_n(s), a batch of B takes
1 + B_n / B steps and B_n + B examples for one unit of it. The rule, the predicted gain and the
average noise scale all weight by progress and not by steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibutter.noise_scale.estimators import GradientNoise
from minibutter.noise_scale.streaming import StreamingNoise

DECAY = 0.5
"""Of the moving average over epochs: the last one counts as much as all before it. An epoch is an
average of its steps already, and the noise scale grows while a run learns."""


def adaptive_batch_size(
    noise_scale: np.ndarray | float, exchange_rate: float
) -> np.ndarray | float:
    """B = √(r B_n): the batch that spends least (D.3); with B_simple for B_n, the rule D.6.

    Parameters
    ----------
    noise_scale : B_n, not negative.
    exchange_rate : r, how many examples a step is worth; E_min / S_min weighs both alike.

    Raises
    ------
    ValueError
        If a noise scale is negative or not a number, or the rate is not positive.
    """
    if not 0 < exchange_rate < np.inf:
        raise ValueError(f"exchange_rate is {exchange_rate}; it must be positive and finite")
    if not np.all(np.asarray(noise_scale) >= 0):
        raise ValueError("a noise scale is negative or NaN; an estimate that is not resolved")
    return np.sqrt(exchange_rate * noise_scale)


class AdaptiveBatch:
    """The batch size of a run in progress, chosen anew after every epoch by the rule D.6.

    It follows from the noise of the epochs so far and from nothing else, so that a run that goes on
    from a checkpoint finds it again.

    Parameters
    ----------
    exchange_rate : r, how many examples a step is worth.
    least, most : limits of the batch size, which begins with the least.

    Attributes
    ----------
    size : rows of a step of the next epoch.

    Raises
    ------
    ValueError
        If the limits cross, or the rate is not positive and finite.
    """

    def __init__(self, exchange_rate: float, least: int, most: int) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"batches from {least} to {most} rows: there are none")
        adaptive_batch_size(0.0, exchange_rate)  # refuses a rate that cannot be
        self._exchange_rate, self._least, self._most = exchange_rate, least, most
        self._average = StreamingNoise(DECAY)
        self._n_seen = 0
        self.size = least

    def follow(self, epochs: Sequence[tuple[float, float]]) -> None:
        """Take in the epochs that are new.

        Where the average of |G|² is not positive, or an epoch has diverged, nothing says how large
        a batch should be, and the size stays what it was.

        Parameters
        ----------
        epochs : tr Σ and |G|² of all epochs of the run so far.
        """
        for trace, squared_gradient in epochs[self._n_seen :]:
            self._n_seen += 1
            if not (math.isfinite(trace) and math.isfinite(squared_gradient)):
                continue
            self._average.update(GradientNoise(squared_gradient, trace, "population"))
            if self._average.squared_gradient > 0:
                # Slices may estimate a trace below 0: as little noise as can be.
                scale = max(self._average.trace, 0.0) / self._average.squared_gradient
                wanted = adaptive_batch_size(scale, self._exchange_rate)
                self.size = int(min(max(np.rint(wanted), self._least), self._most))


@dataclass(frozen=True)
class AdaptiveFrontier:
    """What a run costs with batches that follow its noise scale, or with a fixed one.

    Attributes
    ----------
    least_steps : S_min = ∫ ds, of infinite batches.
    least_examples : E_min = ∫ B_n ds, of infinitely small ones.
    root_integral : ∫ √B_n ds.
    """

    least_steps: float
    least_examples: float
    root_integral: float

    @property
    def average_noise_scale(self) -> float:
        """E_min / S_min, what B_crit of the whole run is predicted to be."""
        return self.least_examples / self.least_steps

    @property
    def gamma(self) -> float:
        """γ = (∫ √B_n ds)² / (S_min E_min), 1 where B_n is constant (D.5).

        The frontier is (S / S_min - 1) (E / E_min - 1) = γ (D.4); with a fixed batch it is 1.
        """
        return self.root_integral**2 / (self.least_steps * self.least_examples)

    def adaptive_cost(self, exchange_rate: float) -> tuple[float, float]:
        """Steps and examples with B = √(r B_n)."""
        root = np.sqrt(exchange_rate)
        steps = self.least_steps + self.root_integral / root
        return float(steps), float(self.least_examples + self.root_integral * root)

    def fixed_cost(self, batch_size: float) -> tuple[float, float]:
        """Steps and examples with one batch size."""
        steps = self.least_steps + self.least_examples / batch_size
        return steps, self.least_examples + self.least_steps * batch_size


def adaptive_frontier(progress: np.ndarray, noise_scales: np.ndarray) -> AdaptiveFrontier:
    """The frontier of a run whose noise scale was measured along its way.

    Parameters
    ----------
    progress : (n,), s, increasing; steps of the whole gradient, which at batch size B is
        ds = dS / (1 + B_n / B).
    noise_scales : (n,), B_n(s), not negative, n at least 2; straight lines join them and their
        roots.

    Raises
    ------
    ValueError
        If the arrays do not belong together, progress does not increase, or a scale is negative.
    """
    progress, noise_scales = (np.asarray(array, np.float64) for array in (progress, noise_scales))
    if progress.ndim != 1 or progress.shape != noise_scales.shape or len(progress) < 2:
        raise ValueError(
            f"shapes are {progress.shape} and {noise_scales.shape}; both need the same one axis, "
            "of at least 2 numbers"
        )
    if not np.all(np.diff(progress) > 0):
        raise ValueError("progress does not increase from entry to entry")
    if not np.all(noise_scales >= 0) or not noise_scales.any():
        raise ValueError("the noise scales must not be negative, nor all 0")
    return AdaptiveFrontier(
        least_steps=float(progress[-1] - progress[0]),
        least_examples=float(np.trapezoid(noise_scales, progress)),
        root_integral=float(np.trapezoid(np.sqrt(noise_scales), progress)),
    )
