"""The statements that the study holds against its measurements."""

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from minibutter.studies.verdict import Criterion, judge
from minibutter.studies.width.optima import (
    Optimum,
    Setting,
    batch_slope,
    left_out,
    of_parameterization,
    usable,
)
from minibutter.studies.width.peak import Slope, bounds, difference, largest_ratio

NTK_RANGE = (-1.3, -0.6)
STANDARD_RANGE = (-0.35, 0.35)
COLLAPSE_FACTOR = 1.5
WANTED_REPETITIONS = 20
"""That the statements are about; with fewer, intervals are wide and the verdict says so."""


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
