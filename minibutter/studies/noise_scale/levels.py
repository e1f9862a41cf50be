"""Noise scales at levels of the training error, from tables of checkpoints.

|G|² of a single checkpoint scatters by a factor of two or three, so numerator and denominator are
averaged over the checkpoints of a seed near the level before they are divided, and what is left of
the scatter is that between seeds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

NEARBY = 1.5
"""How far the error of a checkpoint may be from the level that it counts for, as a factor."""


class MeanOfLogs(NamedTuple):
    """A geometric mean with its interval."""

    value: float
    low: float
    high: float


def geometric_mean(values: np.ndarray, confidence: float = 0.95) -> MeanOfLogs:
    """Geometric mean of positive numbers; the interval is Student's, of their logarithms.

    NaN without values, and without an interval for a single one.
    """
    logs = np.log(np.asarray(values, np.float64))
    logs = logs[np.isfinite(logs)]
    if logs.size == 0:
        return MeanOfLogs(np.nan, np.nan, np.nan)
    mean = float(logs.mean())
    if logs.size == 1:
        return MeanOfLogs(float(np.exp(mean)), np.nan, np.nan)
    width = stats.t.ppf((1 + confidence) / 2, logs.size - 1) * logs.std(ddof=1) / logs.size**0.5
    return MeanOfLogs(*(float(np.exp(mean + side)) for side in (0, -width, width)))


def ratios_of_seeds(
    checkpoints: pd.DataFrame, numerator: str, denominator: str, level: float
) -> pd.Series:
    """Mean of one column over mean of the other near a level of `error`, by seed.

    Parameters
    ----------
    checkpoints : one row a checkpoint, with `seed`, `error` and the two columns.
    """
    near = np.abs(np.log(checkpoints["error"].clip(lower=1e-12) / level)) <= np.log(NEARBY)
    means = checkpoints[near].groupby("seed")[[numerator, denominator]].mean()
    ratios = means[numerator] / means[denominator]
    return ratios[(ratios > 0) & np.isfinite(ratios)]


def scale_by_level(
    checkpoints: pd.DataFrame, numerator: str, denominator: str, levels: list[float]
) -> pd.DataFrame:
    """A noise scale at several levels of the error: `goal`, `value`, `low`, `high`, `n_seeds`."""
    found = []
    for level in levels:
        ratios = ratios_of_seeds(checkpoints, numerator, denominator, level)
        mean = geometric_mean(ratios.to_numpy())
        found.append({"goal": level, **mean._asdict(), "n_seeds": len(ratios)})
    return pd.DataFrame(found)


def checkpoints_near(along: pd.DataFrame, levels: list[float], count: int) -> list[tuple[int, int]]:
    """(seed, step) of the checkpoints of every seed whose error is nearest to a level.

    Parameters
    ----------
    along : one row a checkpoint, with `seed`, `step` and `error`.
    levels : of the error.
    count : how many for each seed and level; those farther away than `NEARBY` are left out.
    """
    chosen = set()
    for _, run in along.groupby("seed"):
        for level in levels:
            distance = np.abs(np.log(run["error"].clip(lower=1e-12) / level))
            nearest = run.assign(distance=distance).nsmallest(count, "distance")
            nearest = nearest[nearest["distance"] <= np.log(NEARBY)]
            chosen |= {
                (int(seed), int(step))
                for seed, step in zip(nearest["seed"], nearest["step"], strict=True)
            }
    return sorted(chosen)
