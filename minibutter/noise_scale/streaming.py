"""The noise scale of a run in progress: moving averages of signal and noise, divided at the end.

A single step's |G|² may be negative, and the mean of ratios is not the ratio of means (footnote
12). So both are averaged, with one decay and one count, and only the averages are divided (A.2).
"""

import numpy as np

from minibutter.estimate import Estimate
from minibutter.noise_scale.estimators import GradientNoise
from minibutter.noise_scale.intervals import NoiseCovariance, ratio_estimate

_LEAST_UPDATES = 1.5  # that must count for a scatter


class StreamingNoise:
    """Exponential moving averages of tr Σ and |G|², and how far they can be trusted.

    The average is corrected for its start at zero: after t updates it is divided by 1 - decay^t,
    where t counts updates and not steps of training (Kingma & Ba 2015, section 3).

    Parameters
    ----------
    decay : in [0, 1), the share of the average that an update keeps; about 1 / (1 - decay) updates
        count.

    Raises
    ------
    ValueError
        If the decay is not in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must be in [0, 1)")
        self.decay = decay
        self.updates = 0
        self._first = np.zeros(2)  # of tr Σ and |G|²
        self._second = np.zeros((2, 2))  # of their products

    def update(self, noise: GradientNoise) -> None:
        """Take in one step's signal and noise: numbers, of whatever batches.

        Raises
        ------
        ValueError
            If they are not finite: a diverged step would spoil every average after it.
        """
        pair = np.array([noise.trace, noise.squared_gradient], np.float64)
        if pair.shape != (2,) or not np.isfinite(pair).all():
            raise ValueError(
                f"tr Σ is {noise.trace} and |G|² is {noise.squared_gradient}; an average takes two "
                "finite numbers"
            )
        self._first = self.decay * self._first + (1 - self.decay) * pair
        self._second = self.decay * self._second + (1 - self.decay) * np.outer(pair, pair)
        self.updates += 1

    @property
    def trace(self) -> float:
        """Average of tr Σ."""
        return float(self._means()[0])

    @property
    def squared_gradient(self) -> float:
        """Average of |G|²; it may be negative."""
        return float(self._means()[1])

    def estimate(self, confidence: float = 0.95) -> Estimate:
        """B_simple of the averages.

        The interval comes from the scatter of the updates, which are taken as independent and of
        one distribution: it is too narrow where the same examples come again within the average,
        and too wide where the parameters move much.
        """
        if self.updates < 2:
            return Estimate.unresolved(f"there are {self.updates} updates; a scatter takes two")
        if 1 / self._squared_weights() < _LEAST_UPDATES:
            return Estimate.unresolved(f"at decay {self.decay} only the last update counts")
        return ratio_estimate(self.trace, self.squared_gradient, self._covariance(), confidence)

    def _means(self) -> np.ndarray:
        if self.updates == 0:
            raise ValueError("there is no average before the first update")
        return self._first / (1 - self.decay**self.updates)

    def _squared_weights(self) -> float:
        """Sum of the squared weights of the updates in an average: one over how many count."""
        kept = self.decay**self.updates
        return (1 - self.decay) / (1 + self.decay) * (1 + kept) / (1 - kept)

    def _covariance(self) -> NoiseCovariance:
        """Of the two averages."""
        means, kept = self._means(), self.decay**self.updates
        scatter = self._second / (1 - kept) - np.outer(means, means)
        squared_weights = self._squared_weights()
        covariance = scatter * squared_weights / (1 - squared_weights)
        variance_of_trace, variance_of_signal = np.maximum(np.diag(covariance), 0)
        return NoiseCovariance(
            float(variance_of_trace), float(variance_of_signal), float(covariance[0, 1])
        )
