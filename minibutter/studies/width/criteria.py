"""The statements that the study holds against its measurements."""

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

from minibutter.studies.verdict import Criterion, judge
from minibutter.studies.width.optima import (
    Optimum,
    Setting,
    batch_slope,
    left_out,
    of_parameterization,
    usable,
)
from minibutter.studies.width.peak import Slope, bounds, difference, fit_slope, largest_ratio
from minibutter.studies.width.scales import PREDICTED_RATE_SLOPE, squared_scale

NTK_RANGE = (-1.3, -0.6)
STANDARD_RANGE = (-0.35, 0.35)
COLLAPSE_FACTOR = 1.5
RATE_TOLERANCE = 0.25


def judge_estimate(
    name: str,
    statement: str,
    measured: float | None,
    interval: tuple[float | None, float | None] = (None, None),
    *,
    expected: tuple[float | None, float | None],
    unit: str = "",
    reason: str = "",
) -> Criterion:
    """`judge` for a number that means nothing without an interval."""
    if measured is not None and interval == (None, None):
        reason = f"{measured:.3g}, without an interval" + (f": {reason}" if reason else "")
        measured = None
    return judge(name, statement, measured, interval, expected=expected, unit=unit, reason=reason)


def judge_slopes(optima: Mapping[Setting, Optimum], n_draws: int) -> list[Criterion]:
    """How the best batch size goes with the width, in both parameterizations."""
    of_ntk, of_standard = (of_parameterization(optima, name) for name in ("ntk", "standard"))
    ntk, standard = batch_slope(of_ntk, n_draws), batch_slope(of_standard, n_draws)
    apart = difference(standard, ntk)
    return [
        _judge_slope(
            "ntk batch slope",
            "NTK, fixed rate: the best batch size falls about as 1 / width",
            ntk,
            NTK_RANGE,
            left_out(of_ntk),
        ),
        judge_estimate(
            "ntk slope below 0",
            "upper end of the interval of that slope: it excludes 0",
            ntk.high,
            (ntk.low, ntk.high),
            expected=(None, 0),
            reason=ntk.reason,
        ),
        _judge_slope(
            "standard batch slope",
            "standard, fixed rate: the best batch size hardly changes with the width",
            standard,
            STANDARD_RANGE,
            left_out(of_standard),
        ),
        judge_estimate(
            "slopes differ",
            "lower end of the interval of standard less NTK slope: the difference is significant",
            apart.low,
            (apart.low, apart.high),
            expected=(0, None),
            reason=apart.reason,
        ),
    ]


def _judge_slope(
    name: str, statement: str, slope: Slope, expected: tuple[float, float], without: str
) -> Criterion:
    reason = "; ".join(part for part in (slope.reason, without) if part)
    return judge_estimate(
        name, statement, slope.value, (slope.low, slope.high), expected=expected, reason=reason
    )


def judge_collapse(optima: Mapping[Setting, Optimum], parameterization: str) -> Criterion:
    """Whether all learning rates have their optimum at the same normalised noise scale."""
    kept = usable(of_parameterization(optima, parameterization))
    logs, draws = {}, {}
    for width in sorted({setting.width for setting in kept}):
        rates = sorted(s.learning_rate for s in kept if s.width == width)
        if len(rates) < 2:
            continue
        # At one width s² is the same for all rates, and drops out of their ratio.
        pair = [Setting(parameterization, rate, width) for rate in (rates[0], rates[-1])]
        logs[width] = tuple(math.log2(s.learning_rate) - kept[s].log2_batch for s in pair)
        draws[width] = tuple(math.log2(s.learning_rate) - kept[s].peak.log2_batch for s in pair)
    factor, interval = largest_ratio(logs, draws)
    reason = "no width has an optimum at two learning rates"
    if logs:
        ratios = ", ".join(f"{w}: {2 ** (b - a):.2f}" for w, (a, b) in logs.items())
        reason = (
            f"best noise scale at the largest over that at the smallest rate, by width: {ratios}"
        )
    return judge_estimate(
        f"{parameterization} collapse",
        "best noise scales at two learning rates agree within 1.5, where they least do",
        factor,
        interval,
        expected=(1, COLLAPSE_FACTOR),
        reason=reason,
    )


def judge_accuracy(optima: Mapping[Setting, Optimum], parameterization: str) -> Criterion:
    """Whether wider networks are better at their optimum, from every width to the next."""
    found = of_parameterization(optima, parameterization)
    gains: dict[tuple[int, int, float], tuple[float, np.ndarray]] = {}
    for rate in sorted({setting.learning_rate for setting in found}):
        settings = sorted(
            s for s in found if s.learning_rate == rate and found[s].log2_batch is not None
        )
        for narrow, wide in pairwise(settings):
            a, b = found[narrow].peak, found[wide].peak
            gains[narrow.width, wide.width, rate] = (
                b.accuracy.value - a.accuracy.value,
                b.draws_accuracy - a.draws_accuracy,
            )
    if not gains:
        return judge_estimate(
            f"{parameterization} accuracy",
            "test accuracy at the optimum increases with the width",
            None,
            expected=(0, None),
            unit="percent",
            reason="less than two widths have an optimum",
        )
    worst = min(gains, key=lambda key: gains[key][0])
    value, draws = gains[worst]
    interval = tuple(None if end is None else 100 * end for end in bounds(draws, 0.95))
    return judge_estimate(
        f"{parameterization} accuracy",
        "test accuracy at the optimum increases with the width: the smallest gain of all",
        100 * value,
        interval,
        expected=(0, None),
        unit="percent",
        reason=f"from width {worst[0]} to {worst[1]} at rate {worst[2]:g}",
    )


# ---------------------------------------------------------------------------------------------
# Largest stable learning rates


def rate_slope(
    stability: pd.DataFrame, parameterization: str, column: str, draws: np.ndarray
) -> Slope:
    """d log of a column / d log width, of geometric means over repetitions.

    Parameters
    ----------
    stability : rows of `stability.measure_stability`.
    column : a positive number of every repetition.
    draws : of as many repetitions as there are.
    """
    logs = log2_by_width(stability, parameterization, column)
    drawn = np.array([values[draws].mean(axis=1) for values in logs.values()])
    drawn = drawn.T if len(drawn) else np.empty((len(draws), 0))
    return fit_slope(list(logs), [values.mean() for values in logs.values()], drawn)


def log2_by_width(
    stability: pd.DataFrame, parameterization: str, column: str
) -> dict[int, np.ndarray]:
    """log2 of a column, (repetitions,) by width; without widths of which some is not known."""
    rows = stability[stability["parameterization"] == parameterization]
    return {
        int(width): np.log2(some.sort_values("repetition")[column].to_numpy(np.float64))
        for width, some in rows.groupby("width")
        if some[column].notna().all()
    }


def judge_rates(stability: pd.DataFrame, draws: np.ndarray) -> list[Criterion]:
    """How the largest stable learning rate goes with the width."""
    criteria = []
    for name in ("standard", "ntk"):
        slope = rate_slope(stability, name, "largest_learning_rate", draws)
        expected = PREDICTED_RATE_SLOPE[name]
        other = rate_slope(stability, name, "largest_learning_rate_without_rise", draws)
        linear = rate_slope(stability, name, "sharpness", draws)
        criteria.append(
            judge_estimate(
                f"{name} largest rate",
                f"largest stable learning rate goes as width to the power {expected:g}",
                slope.value,
                (slope.low, slope.high),
                expected=(expected - RATE_TOLERANCE, expected + RATE_TOLERANCE),
                reason=f"slope of 2 / λ0 {_text(linear, -1)}; of the largest rate without any rise "
                f"of the loss {_text(other)}",
            )
        )
    return criteria


def _text(slope: Slope, sign: int = 1) -> str:
    return "unknown" if slope.value is None else f"{sign * slope.value:.2f}"


def largest_batches(
    optima: Mapping[Setting, Optimum],
    stability: pd.DataFrame,
    sigma0: float,
    draws: np.ndarray,
) -> tuple[pd.DataFrame, dict[str, Slope]]:
    """The largest batch size with the best noise scale: at the largest stable learning rate.

    B_max = ε_max / (s² ḡ_opt), ḡ_opt the geometric mean over learning rates. The repetitions of
    both measurements are independent, so their draws are paired at will.

    Parameters
    ----------
    draws : of the repetitions of `stability`, as many as the optima were drawn.

    Returns
    -------
    A row a parameterization and width, and the slopes by parameterization.
    """
    rows, slopes = [], {}
    for name in ("standard", "ntk"):
        rates = log2_by_width(stability, name, "largest_learning_rate")
        kept = usable(of_parameterization(optima, name))
        widths = sorted({setting.width for setting in kept} & set(rates))
        values, drawn = [], []
        for width in widths:
            some = [o for s, o in kept.items() if s.width == width]
            # log2 of ε / B at the optimum; s² drops out of B_max.
            best = np.mean([math.log2(o.setting.learning_rate) - o.log2_batch for o in some])
            best_drawn = np.mean(
                [math.log2(o.setting.learning_rate) - o.peak.log2_batch for o in some], axis=0
            )
            values.append(float(rates[width].mean() - best))
            drawn.append(rates[width][draws].mean(axis=1) - best_drawn)
            low, high = bounds(drawn[-1], 0.95)
            rows.append(
                {
                    "parameterization": name,
                    "width": width,
                    "noise_opt": 2**best / squared_scale(name, width, sigma0),
                    "largest_learning_rate": 2 ** float(rates[width].mean()),
                    "largest_batch": 2 ** values[-1],
                    "largest_batch_low": None if low is None else 2**low,
                    "largest_batch_high": None if high is None else 2**high,
                }
            )
        stacked = np.stack(drawn, axis=1) if drawn else np.empty((len(draws), 0))
        slopes[name] = fit_slope(widths, values, stacked)
    columns = ("largest_batch", "largest_batch_low", "largest_batch_high")
    table = pd.DataFrame(
        rows,
        columns=["parameterization", "width", "noise_opt", "largest_learning_rate", *columns],
    )
    return table.astype(dict.fromkeys(columns, "float64")), slopes


def judge_largest_batches(slopes: Mapping[str, Slope]) -> list[Criterion]:
    """Whether the largest batch size with the best noise scale falls with the width."""
    return [
        judge_estimate(
            f"{name} largest batch",
            "the largest batch size with the best noise scale falls with the width",
            slope.value,
            (slope.low, slope.high),
            expected=(None, 0),
            reason=slope.reason or "predicted slope -1",
        )
        for name, slope in slopes.items()
    ]


def doubt(criteria: list[Criterion], reason: str) -> list[Criterion]:
    """The same, unresolved: their ranges are not those of this data set."""
    return [
        judge(
            criterion.name,
            criterion.statement,
            None,
            (criterion.low, criterion.high),
            expected=(criterion.expected_low, criterion.expected_high),
            unit=criterion.unit,
            reason=reason,
        )
        for criterion in criteria
    ]
