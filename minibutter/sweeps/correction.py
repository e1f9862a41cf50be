"""What finished runs teach about those to come: predictions are corrected while a sweep is run.

A prediction is a sum of parts (flops, rows, parameters, ...), each an amount times a rate. Where a
rate is too high, runs in which its part is large end early. So the logarithm of measured over
predicted is fitted by a constant, how fast the machine is, and a term for each part's share, held
near 0 unless runs say otherwise (ridge regression: Hoerl & Kennard 1970, *Technometrics* 12, 55);
runs that were disturbed count little (Huber 1964, *Ann. Math. Statist.* 35, 73). What that leaves
unexplained of an experiment, its own runs correct.

Arrays in, arrays out: the same runs give the same corrections, in whatever order they ended, up to
rounding. A *class* is a row of the shares: runs of one experiment, trained alone or packed.
"""

import math
from dataclasses import dataclass

import numpy as np

TYPICAL_SPREAD = 0.3
"""Standard deviation of log(measured / predicted) while there is little to tell it from."""

_TYPICAL_WEIGHT = 10.0
"""Classes that this counts as."""

_NOISE = 0.2
"""How far classes lie from the regression, in logarithms."""

_CONSTANT, _PART = 0.5, 1.0
"""How far off machines and rates are likely to be, in logarithms."""

_HUBER = 1.345
"""Spreads; a fit of undisturbed rows is then 95 % as precise as least squares."""

_LEAST_SPREAD = 0.02
_ROUNDS = 30


@dataclass(frozen=True)
class Correction:
    """Factors on predictions.

    Attributes
    ----------
    factors : float64, shape (n_classes,): measured over predicted, as far as runs tell.
    spread : standard deviation of the logarithm of what the factors leave of an unseen class.
    n_runs : runs that they were learned from.
    """

    factors: np.ndarray
    spread: float
    n_runs: int

    @property
    def margin(self) -> float:
        """Nine of ten runs take less than this times their corrected prediction: the `margin` of a
        `Schedule` whose time is limited."""
        return math.exp(1.2816 * self.spread)


class FinishedRuns:
    """How long runs took, class by class.

    Parameters
    ----------
    shares : array (n_classes, n_parts): parts of each class's prediction, as `nn.cost.step_shares`
        tells them.
    predicted_s : array (n_classes,), above 0: seconds that a task of each class was predicted to
        take.
    """

    def __init__(self, shares: np.ndarray, predicted_s: np.ndarray) -> None:
        self._shares = np.asarray(shares, np.float32)
        self._log_predicted = np.log(np.asarray(predicted_s, np.float64))
        if self._shares.ndim != 2 or self._log_predicted.shape != (len(self._shares),):
            raise ValueError(
                f"shares of shape {self._shares.shape} and predictions of shape "
                f"{self._log_predicted.shape} do not belong to the same classes"
            )
        if not np.isfinite(self._log_predicted).all():
            raise ValueError("a prediction is not above 0 and finite")
        self._counts = np.zeros(len(self._shares))
        self._sums = np.zeros(len(self._shares))

    def add(self, number: int, measured_s: float) -> None:
        """A task of this class is done and took so long; one that took no time says nothing."""
        if measured_s > 0 and math.isfinite(measured_s):
            self._counts[number] += 1
            self._sums[number] += math.log(measured_s) - self._log_predicted[number]

    def correct(self) -> Correction:
        """Factors for all classes, those that nobody has run included."""
        seen = np.flatnonzero(self._counts)
        if not len(seen):
            return Correction(np.ones(len(self._counts)), TYPICAL_SPREAD, 0)
        counts = self._counts[seen]
        # Runs of a class have much in common: ten of them are no ten witnesses.
        weights = counts / (counts + 1)
        observed = self._sums[seen] / counts
        coefficients, spread = _fit(self._design(seen), observed, weights)
        factors = self._design(slice(None)) @ coefficients
        factors[seen] += weights * (observed - factors[seen])
        return Correction(np.exp(factors), spread, int(counts.sum()))

    def _design(self, classes: np.ndarray | slice) -> np.ndarray:
        shares = self._shares[classes]
        return np.column_stack([np.ones(len(shares)), shares])


def _fit(design: np.ndarray, observed: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients of a robust ridge regression, and the spread around it.

    Iteratively reweighted: a row further away than `_HUBER` spreads pulls no harder than
    one at that distance.
    """
    likely = np.full(design.shape[1], _PART)
    likely[0] = _CONSTANT
    penalty = np.diag((_NOISE / likely) ** 2)
    # The constant begins where most of the rows are: one disturbed run must not set it.
    coefficients = np.zeros(design.shape[1])
    coefficients[0] = np.median(observed)
    for _ in range(_ROUNDS):
        residuals = observed - design @ coefficients
        spread = max(1.4826 * float(np.median(np.abs(residuals))), _LEAST_SPREAD)
        far = np.maximum(np.abs(residuals) / (_HUBER * spread), 1.0)
        weighted = design * (weights / far)[:, None]
        before = coefficients
        coefficients = np.linalg.solve(weighted.T @ design + penalty, weighted.T @ observed)
        if np.abs(coefficients - before).max() < 1e-9:
            break
    residuals = observed - design @ coefficients
    spread = max(1.4826 * float(np.median(np.abs(residuals))), _LEAST_SPREAD)
    together = len(observed) * spread**2 + _TYPICAL_WEIGHT * TYPICAL_SPREAD**2
    return coefficients, math.sqrt(together / (len(observed) + _TYPICAL_WEIGHT))
