"""How far two trainings are from each other, and how fast they part.

Source of the first measure: the code of Sun et al. 2022, arXiv:2206.02001; of the last: Benettin,
Galgani, Giorgilli, Strelcyn 1980, Meccanica 15, for trajectories of which one may follow only two.
"""

from dataclasses import dataclass

import numpy as np

PARTED = 0.1
"""Relative L1 difference above which rounding has decided the weights."""

SATURATION = 0.02
"""Relative difference from which on two networks are no longer near: growth ends in what they are,
two networks of one kind, and no longer tells of the instability."""

ACCUMULATION = 2.0
"""Exponent of the time: roundings of a stable training add up at most in proportion to it."""


def relative_l1(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """2 mean |a - b| / (|a| + |b|) over the last axis: 0 for the same, 2 for opposite signs.

    Pairs of exact zeros are left out: they tell nothing. A weight that is nearly 0 counts as much
    as any other, so that weights which decay to nothing (those of pixels that are always dark)
    saturate the mean; `relative_l2` does not see them.

    Returns
    -------
    0 where all are zeros; NaN where one is not finite.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    size = np.abs(first) + np.abs(second)
    apart = np.divide(np.abs(first - second), size, out=np.zeros_like(size), where=size != 0)
    counted = np.count_nonzero(size, axis=-1)
    return 2 * apart.sum(axis=-1) / np.maximum(counted, 1)


def relative_l2(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """|a - b| / √((|a|² + |b|²) / 2) over the last axis: 0 for the same, √2 for orthogonal ones."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    apart = np.linalg.norm(first - second, axis=-1)
    size = np.sqrt((np.sum(first**2, axis=-1) + np.sum(second**2, axis=-1)) / 2)
    return np.divide(apart, size, out=np.zeros_like(apart), where=size != 0)


def disagreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the rows (n, classes) in which the largest output is not of the same class."""
    return float(np.mean(first.argmax(axis=-1) != second.argmax(axis=-1)))


@dataclass(frozen=True)
class Growth:
    """Exponential growth of a difference, fitted to its logarithm.

    Attributes
    ----------
    rate : per unit of time, as a Lyapunov exponent; positive where the difference grows.
    standard_error : of the rate, of the scatter around the line.
    start : logarithm of the difference at time 0, on the line.
    n_points : that were fitted.
    steepest : the largest rate of four looks that follow each other, as instability comes in
        bursts; NaN where roundings only add up, less than as the square of the time.
    steepest_from, steepest_to : the times of the first and the last of these four.
    """

    rate: float
    standard_error: float
    start: float
    n_points: int
    steepest: float
    steepest_from: float
    steepest_to: float


def fit_growth(
    time: np.ndarray, difference: np.ndarray, saturation: float = SATURATION
) -> Growth | None:
    """The slope of log difference against time, until the two have parted.

    Parameters
    ----------
    time, difference : (n,), in the order of time, which is positive. Points from the first beyond
        `saturation` on are left out, and those where the two are still the same.

    Returns
    -------
    None where fewer than four points are left.
    """
    time, difference = np.asarray(time, np.float64), np.asarray(difference, np.float64)
    beyond = np.flatnonzero(~(difference <= saturation))
    end = int(beyond[0]) if len(beyond) else len(time)
    used = np.flatnonzero(difference[:end] > 0)
    if len(used) < 4:
        return None
    t, logarithm = time[used], np.log(difference[used])
    (rate, start), covariance = np.polyfit(t, logarithm, 1, cov=True)
    best = (np.nan, np.nan, np.nan)
    for first in range(len(used) - 3):
        four = slice(first, first + 4)
        is_burst = np.polyfit(np.log(t[four]), logarithm[four], 1)[0] > ACCUMULATION
        slope = float(np.polyfit(t[four], logarithm[four], 1)[0])
        if is_burst and not slope <= best[0]:
            best = slope, float(t[first]), float(t[first + 3])
    return Growth(float(rate), float(np.sqrt(covariance[0, 0])), float(start), len(used), *best)
