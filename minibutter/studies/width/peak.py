"""Where test accuracy peaks against the batch size, how that goes with width, and how sure one is.

Repetitions share their rows, first weights and streams of batches at every batch size, width and
learning rate, as far as shapes allow, so accuracies are kept as (repetitions, batch sizes). The
intervals are a bootstrap over repetitions: a draw takes the same repetitions everywhere, and so
what all batch sizes have in common (a hard set of test rows) moves no peak.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minibutter.estimate import Estimate

HALF_WINDOW = 1.5
"""Octaves to either side of the centre that the parabola is fitted to."""

_MIN_POINTS = 4
_FITS = 3
_ROUNDING = 1e-9
_MAX_LOST = 0.1
"""Of the draws of a bootstrap; if more have no answer, neither has the data."""

FAILED_SHARE = 0.5
"""Of the best mean accuracy: below, a repetition has not trained; its batch size is left out."""


@dataclass(frozen=True)
class Curve:
    """Late accuracy of one network at one learning rate.

    Attributes
    ----------
    log2_batch : (n,), increasing.
    accuracy : (repetitions, n).
    """

    log2_batch: np.ndarray
    accuracy: np.ndarray

    def trained(self) -> "Curve":
        """Without the batch sizes at which some repetition has not trained.

        A mean over trained and untrained networks lies on no parabola.
        """
        floor = FAILED_SHARE * self.accuracy.mean(axis=0).max()
        kept = self.accuracy.min(axis=0) >= floor
        return Curve(self.log2_batch[kept], self.accuracy[:, kept])


def vertex(log2_batch: np.ndarray, accuracy: np.ndarray) -> tuple[float, float]:
    """Where a parabola through the points around the best one peaks, and how high.

    The window is moved to the vertex that it gave, twice; the last vertex must lie in its window.

    Parameters
    ----------
    log2_batch, accuracy : (n,).

    Returns
    -------
    log2 of the batch size, and the accuracy there. -inf or inf, with the best mean, where the best
    points lie at an end of the grid so that the peak may be beyond it; NaN where the points have
    no single peak.
    """
    centre, best = float(log2_batch[np.argmax(accuracy)]), float(accuracy.max())
    height = best
    for _ in range(_FITS):
        near = np.abs(log2_batch - centre) <= HALF_WINDOW + 1e-9
        if near.sum() < _MIN_POINTS:
            return _nearest_end(log2_batch, centre), best
        curvature, slope, level = np.polyfit(log2_batch[near] - centre, accuracy[near], 2)
        if curvature >= 0:
            return _nearest_end(log2_batch, centre), best
        move = -slope / (2 * curvature)
        height = float(level - slope**2 / (4 * curvature))
        centre += math.copysign(min(abs(move), HALF_WINDOW), move)
        if not log2_batch[0] <= centre <= log2_batch[-1]:
            return math.copysign(math.inf, move), best
    return (centre, height) if abs(move) <= HALF_WINDOW else (math.nan, best)


def _nearest_end(log2_batch: np.ndarray, centre: float) -> float:
    """-inf or inf if this end of the grid is near, else NaN."""
    if centre - log2_batch[0] <= HALF_WINDOW / 2:
        return -math.inf
    return math.inf if log2_batch[-1] - centre <= HALF_WINDOW / 2 else math.nan


def draw_repetitions(n_repetitions: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """(n_draws, n_repetitions) numbers of repetitions, drawn with replacement."""
    return rng.integers(n_repetitions, size=(n_draws, n_repetitions))


@dataclass(frozen=True)
class Peak:
    """The optimum of a curve.

    Attributes
    ----------
    batch : best batch size, with its interval.
    accuracy : at the optimum, with its interval; None where there is no optimum.
    log2_batch, draws_accuracy : (n_draws,) of the bootstrap, as `vertex` gives them.
    """

    batch: Estimate
    accuracy: Estimate
    log2_batch: np.ndarray
    draws_accuracy: np.ndarray


def find_peak(curve: Curve, draws: np.ndarray, confidence: float = 0.95) -> Peak:
    """The optimum, and those of the draws of a bootstrap.

    Parameters
    ----------
    draws : from `draw_repetitions`, of as many repetitions as the curve has.
    """
    curve = curve.trained()
    n_draws = len(draws)
    if len(curve.log2_batch) < _MIN_POINTS:
        none = Estimate.unresolved(
            f"only {len(curve.log2_batch)} batch sizes at which every repetition trains"
        )
        empty = np.full(n_draws, math.nan)
        return Peak(none, none, empty, empty)
    place, height = vertex(curve.log2_batch, curve.accuracy.mean(axis=0))
    found = np.array([vertex(curve.log2_batch, curve.accuracy[d].mean(axis=0)) for d in draws])
    places, heights = found[:, 0], found[:, 1]
    batch = _edge(curve, place)
    if math.isfinite(place):
        low, high = (None if end is None else 2**end for end in bounds(places, confidence))
        if low is None and high is None:
            lost = np.isnan(places).mean()
            batch = Estimate.unresolved(f"{lost:.0%} of the draws have no single peak")
        else:
            reason = "the interval is open on one side" if None in (low, high) else ""
            batch = Estimate(2**place, low, high, "resolved", reason)
    accuracy = Estimate.resolved(height, *np.quantile(heights, _tails(confidence)))
    return Peak(batch, accuracy, places, heights)


def _edge(curve: Curve, place: float) -> Estimate:
    smallest, largest = 2.0 ** curve.log2_batch[[0, -1]]
    if place == -math.inf:
        return Estimate.at_most(smallest, "the best of the batch sizes is the smallest that trains")
    if place == math.inf:
        return Estimate.at_least(largest, "the best of the batch sizes is the largest")
    return Estimate.unresolved("accuracy has no single peak near its largest value")


def bounds(draws: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """Percentile interval of draws, some of which may be infinite or NaN.

    Returns
    -------
    low, high; None for a side that infinite draws leave open. Both None if more than a tenth of the
    draws are NaN.
    """
    known = np.sort(draws[~np.isnan(draws)])
    if len(known) < max((1 - _MAX_LOST) * len(draws), 2):
        return None, None
    low_tail, high_tail = _tails(confidence)
    last = len(known) - 1
    low, high = (
        known[math.floor(low_tail * last + _ROUNDING)],
        known[math.ceil(high_tail * last - _ROUNDING)],
    )
    return tuple(float(end) if math.isfinite(end) else None for end in (low, high))


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


# ---------------------------------------------------------------------------------------------
# Slopes


@dataclass(frozen=True)
class Slope:
    """d log y / d log x.

    Attributes
    ----------
    value : least squares; None where less than two points are there.
    low, high : interval; None where the draws do not tell.
    draws : (n_draws,), NaN where a draw has a point without a value.
    reason : why there is no value or no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    draws: np.ndarray
    reason: str = ""


def fit_slope(
    x: Sequence[float],
    log2_y: Sequence[float],
    draws: np.ndarray,
    groups: Sequence[object] | None = None,
    confidence: float = 0.95,
) -> Slope:
    """The slope of points in logarithms, each counted alike, with a bootstrap interval.

    Parameters
    ----------
    x : (n,), positive.
    log2_y : (n,).
    draws : (n_draws, n), log2 y of every draw; where one is not finite the draw has no slope.
    groups : (n,), of points that share an intercept, say those of a learning rate; None: all do.
    """
    groups = [0] * len(x) if groups is None else list(groups)
    weights = np.log2(np.asarray(x, np.float64))
    for group in set(groups):
        members = np.array([other == group for other in groups])
        weights[members] -= weights[members].mean()
    spread = float(np.sum(weights**2))
    if spread == 0:
        reason = f"{len(x)} points, without two different widths to fit a slope to"
        return Slope(None, None, None, np.full(len(draws), math.nan), reason)
    weights = weights / spread
    value = float(weights @ np.asarray(log2_y, np.float64))
    with np.errstate(invalid="ignore"):
        slopes = draws @ weights
    slopes = np.where(np.isfinite(draws).all(axis=1), slopes, math.nan)
    low, high = bounds(slopes, confidence)
    reason = ""
    if low is None:
        lost = float(np.isnan(slopes).mean())
        reason = f"in {lost:.0%} of the draws of repetitions some optimum lies beyond the grid"
    return Slope(value, low, high, slopes, reason)


def difference(first: Slope, second: Slope, confidence: float = 0.95) -> Slope:
    """First less second slope, whose draws are of the same repetitions."""
    if first.value is None or second.value is None:
        reason = first.reason or second.reason
        return Slope(None, None, None, np.full(len(first.draws), math.nan), reason)
    draws = first.draws - second.draws
    low, high = bounds(draws, confidence)
    reason = "" if low is not None else first.reason or second.reason
    return Slope(first.value - second.value, low, high, draws, reason)


def largest_ratio(
    logs: Mapping[object, tuple[float, float]],
    draws: Mapping[object, tuple[np.ndarray, np.ndarray]],
    confidence: float = 0.95,
) -> tuple[float | None, tuple[float | None, float | None]]:
    """By which factor two numbers differ where they differ most.

    Parameters
    ----------
    logs : pairs of log2 by name.
    draws : of a bootstrap, in the same pairs.

    Returns
    -------
    The factor, at least 1, and its interval; None where nothing is known.
    """
    if not logs:
        return None, (None, None)
    value = max(abs(a - b) for a, b in logs.values())
    with np.errstate(invalid="ignore"):
        drawn = np.max([np.abs(a - b) for a, b in draws.values()], axis=0)
    ends = bounds(np.where(np.isfinite(drawn), drawn, math.nan), confidence)
    return 2**value, tuple(None if end is None else 2**end for end in ends)
