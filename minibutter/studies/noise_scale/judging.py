"""From estimates of this study to criteria: intervals, and what is left open."""

from dataclasses import replace

import numpy as np
from scipy import stats

from minibutter.studies.noise_scale.levels import MeanOfLogs
from minibutter.studies.verdict import Criterion, judge

Interval = tuple[float | None, float | None]

_OTHER_DATA = "the range is that of 8,000 digits of MNIST; these are other data"


def on_these_data(criterion: Criterion, is_paper_data: bool) -> Criterion:
    """The criterion, or unresolved where its range belongs to other data."""
    if is_paper_data:
        return criterion
    return replace(criterion, state="unresolved", reason=_OTHER_DATA)


def judge_nothing(name: str, statement: str, expected: Interval, reason: str) -> Criterion:
    """Unresolved, without a number."""
    return judge(name, statement, None, expected=expected, reason=reason)


def judge_mean(
    name: str, statement: str, mean: MeanOfLogs, *, expected: Interval, reason: str = ""
) -> Criterion:
    """`judge` of a geometric mean; of a single value nobody knows the error, so that it is open."""
    value, low, high = (float(end) if np.isfinite(end) else None for end in mean)
    judged = judge(name, statement, value, (low, high), expected=expected, reason=reason)
    if value is None or low is not None:
        return judged
    alone = "a single value, which has no interval"
    return replace(judged, state="unresolved", reason=f"{reason}; {alone}" if reason else alone)


def rms_interval(rms: float, n: int, fitted: int = 2, confidence: float = 0.95) -> Interval:
    """Of the root mean square of n normal residuals around a fit of some numbers."""
    freedom = n - fitted
    if freedom < 1:
        return None, None
    low, high = stats.chi2.ppf([(1 - confidence) / 2, (1 + confidence) / 2], freedom)
    return float(rms * np.sqrt(freedom / high)), float(rms * np.sqrt(freedom / low))


def ratio_interval(
    ratio: float, above: tuple[float, float], below: tuple[float, float]
) -> tuple[float, float]:
    """Of a ratio of independent numbers, from their intervals, in logarithms."""
    width = np.sqrt(sum((np.log(high / low) / 2) ** 2 for low, high in (above, below)))
    return float(ratio * np.exp(-width)), float(ratio * np.exp(width))
