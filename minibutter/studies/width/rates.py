"""Largest stable learning rates against the width, and the batch sizes that they allow."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from minibutter.studies.verdict import Criterion
from minibutter.studies.width.criteria import judge_estimate
from minibutter.studies.width.optima import Optimum, Setting, of_parameterization, usable
from minibutter.studies.width.peak import Slope, bounds, fit_slope
from minibutter.studies.width.scales import PREDICTED_RATE_SLOPE, squared_scale
from minibutter.studies.width.stability import STEPS_PER_OCTAVE

RATE_TOLERANCE = 0.25
RATES = {
    "largest_learning_rate": 1,
    "largest_learning_rate_that_trains": 1,
    "sharpness": -1,
}
"""Columns of stability, and the power of them that is a learning rate."""


def rate_slope(
    stability: pd.DataFrame, parameterization: str, column: str, draws: np.ndarray
) -> Slope:
    """d log of a column / d log width, of geometric means over repetitions.

    Learning rates lie on a grid, and repetitions tend to agree on a point of it; so the interval is
    wider than that of the bootstrap, by what half a step of the grid at every width can do.

    Parameters
    ----------
    stability : rows of `stability.measure_stability`.
    column : a positive number of every repetition.
    draws : of as many repetitions as there are.
    """
    logs = log2_by_width(stability, parameterization, column)
    drawn = np.array([values[draws].mean(axis=1) for values in logs.values()])
    drawn = drawn.T if len(drawn) else np.empty((len(draws), 0))
    slope = fit_slope(list(logs), [values.mean() for values in logs.values()], drawn)
    if slope.low is None or slope.high is None or column == "sharpness":
        return slope
    widths = np.log2(list(logs))
    weights = (widths - widths.mean()) / np.sum((widths - widths.mean()) ** 2)
    rounding = float(np.abs(weights).sum()) / (2 * STEPS_PER_OCTAVE)
    return replace(slope, low=slope.low - rounding, high=slope.high + rounding)


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


def judge_rates(
    stability: pd.DataFrame, n_inputs: int, draws: np.ndarray
) -> tuple[list[Criterion], pd.DataFrame]:
    """How the largest stable learning rate goes with the width, in networks that are wide.

    The powers are those of widths that are large. Up to some n_inputs units the first layer, whose
    fan-in is no width, has the larger part of the curvature; so the slopes are those of widths from
    n_inputs on.

    Parameters
    ----------
    stability : rows of `stability.measure_stability`.
    n_inputs : of the networks.
    draws : of as many repetitions as there are.

    Returns
    -------
    The criteria, and the slopes by all definitions, over wide networks and over all.
    """
    criteria, rows = [], []
    is_wide = stability["width"] >= n_inputs
    for name in ("standard", "ntk"):
        expected = PREDICTED_RATE_SLOPE[name]
        slopes = {}
        for networks, some in (("wide", stability[is_wide]), ("all", stability)):
            for column, sign in RATES.items():
                slope = rate_slope(some, name, column, draws)
                slopes[networks, column] = slope
                ends = [None if end is None else sign * end for end in (slope.low, slope.high)]
                rows.append(
                    {
                        "parameterization": name,
                        "networks": networks,
                        "rate": "two_over_sharpness" if sign < 0 else column,
                        "slope": None if slope.value is None else sign * slope.value,
                        "slope_low": ends[0 if sign > 0 else 1],
                        "slope_high": ends[1 if sign > 0 else 0],
                        "predicted_slope": expected,
                    }
                )
        slope = slopes["wide", "largest_learning_rate"]
        others = "; ".join(
            f"{label} {_text(slopes[networks, column], RATES[column])}"
            for label, networks, column in (
                ("2 / λ0", "wide", "sharpness"),
                ("rate that trains", "wide", "largest_learning_rate_that_trains"),
                ("over all widths", "all", "largest_learning_rate"),
            )
        )
        criteria.append(
            judge_estimate(
                f"{name} largest rate",
                f"the largest rate without a rise of the loss goes as width to the power "
                f"{expected:g}, from {n_inputs} units on",
                slope.value,
                (slope.low, slope.high),
                expected=(expected - RATE_TOLERANCE, expected + RATE_TOLERANCE),
                reason="; ".join(
                    part for part in (slope.reason, f"other slopes: {others}") if part
                ),
            )
        )
    table = pd.DataFrame(rows)
    numbers = [column for column in table if "slope" in column]
    return criteria, table.astype(dict.fromkeys(numbers, "float64"))


def _text(slope: Slope, sign: int = 1) -> str:
    return "unknown" if slope.value is None else f"{sign * slope.value:.2f}"


def largest_batches(
    optima: Mapping[Setting, Optimum],
    stability: pd.DataFrame,
    sigma0: float,
    draws: np.ndarray,
) -> tuple[pd.DataFrame, dict[str, Slope]]:
    """The largest batch size with the best noise scale: at the largest stable learning rate.

    B_max = ε_max / (s² ḡ_opt), ḡ_opt the geometric mean over learning rates. Draws of the two are
    paired at will, as if they were independent; the first repetitions of both share first weights.

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
