"""What the paper says, held against the tables of the study.

Ranges are those of the paper's MNIST task (Table 1, figure 14), and of what follows from its
equations. Numbers that only mean something on MNIST at the size of the study are left unresolved on
other data, with what was measured.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from minibutter.studies.noise_scale.judging import (
    Interval,
    judge_mean,
    judge_nothing,
    ratio_interval,
    rms_interval,
)
from minibutter.studies.noise_scale.levels import MeanOfLogs, geometric_mean
from minibutter.studies.noise_scale.routes import route_deviations
from minibutter.studies.verdict import Criterion, judge

NO_CHECKPOINT = "no run comes near the levels of the training error at which this is measured"

CRITICAL_BATCH_START, CRITICAL_BATCH_END = 20.0, 200.0
"""B_crit of MNIST at the begin and as an average of the whole run, Table 1."""

# ---------------------------------------------------------------------------------------------
# The critical batch size


def judge_hyperbola(fits: pd.DataFrame) -> Criterion:
    """Steps against batch size lie on the hyperbola at every goal."""
    statement = "S = S_min (1 + B_crit / B) at every goal: the worst rms log residual is below 0.12"
    if fits.empty:
        return judge_nothing(
            "hyperbola", statement, (None, 0.12), "no goal was reached at four batches"
        )
    worst = fits.loc[fits["rms_log_residual"].idxmax()]
    return judge(
        *("hyperbola", statement, float(worst["rms_log_residual"])),
        rms_interval(float(worst["rms_log_residual"]), int(worst["n_batch_sizes"])),
        expected=(None, 0.12),
        reason=f"at goal {worst['goal']:g}, {int(worst['n_batch_sizes'])} batch sizes",
    )


def judge_growth(fits: pd.DataFrame, goals: Sequence[float]) -> list[Criterion]:
    """B_crit rises from goal to goal, by how much, and from where to where.

    Parameters
    ----------
    fits : of `fit_frontier`.
    goals : of the study, from the easiest to the hardest; where B_crit is not resolved at an end,
        what is said of that end is left open, for another goal has another B_crit.
    """
    easiest, hardest = f"train error {goals[0]:g}", f"train error {goals[-1]:g}"
    names = ("critical batch grows", "critical batch rises", "critical start", "critical end")
    statements = (
        f"B_crit at {hardest} is at least 4 times that at {easiest}",
        "B_crit never falls from one goal to the next harder one: the smallest ratio is at least 1",
        f"B_crit at {easiest} is within a factor 3 of the paper's 20",
        f"B_crit at {hardest} is within a factor 3 of the paper's 200",
    )
    ranges = (
        (4.0, None),
        (1.0, None),
        (CRITICAL_BATCH_START / 3, CRITICAL_BATCH_START * 3),
        (CRITICAL_BATCH_END / 3, CRITICAL_BATCH_END * 3),
    )
    known = fits[fits["critical_batch_size_state"] == "resolved"] if len(fits) else fits
    at = {row["goal"]: row for row in known.to_dict("records")}
    first, last = at.get(goals[0]), at.get(goals[-1])
    found = [at[goal] for goal in sorted(at, reverse=True)]
    ratios = [
        (*_ratio(harder, easier), f"at goal {harder['goal']:g}")
        for easier, harder in pairwise(found)
    ]
    not_first, not_last = (f"B_crit is not resolved at {end}" for end in (easiest, hardest))
    measured = (
        None if first is None or last is None else (*_ratio(last, first), ""),
        min(ratios) if ratios else None,
        None if first is None else (first["critical_batch_size"], _interval(first), ""),
        None if last is None else (last["critical_batch_size"], _interval(last), ""),
    )
    reasons = (
        not_first if first is None else not_last,
        "B_crit is resolved at fewer than two goals",
        not_first,
        not_last,
    )
    return [
        judge_nothing(name, statement, expected, why)
        if number is None
        else judge(name, statement, *number[:2], expected=expected, reason=number[2])
        for name, statement, expected, number, why in zip(
            names, statements, ranges, measured, reasons, strict=True
        )
    ]


def _interval(fit: Mapping[str, Any]) -> tuple[float, float]:
    return float(fit["critical_batch_size_low"]), float(fit["critical_batch_size_high"])


def _ratio(above: Mapping[str, Any], below: Mapping[str, Any]) -> tuple[float, Interval]:
    """Of two critical batch sizes; their errors are taken as independent, in logarithms."""
    ratio = float(above["critical_batch_size"] / below["critical_batch_size"])
    return ratio, ratio_interval(ratio, _interval(above), _interval(below))


# ---------------------------------------------------------------------------------------------
# Noise scales


def judge_simple_scale(along: pd.DataFrame, by_goal: pd.DataFrame, goal: float) -> list[Criterion]:
    """B_simple before training, and late."""
    start = along[along["step"] == 0]
    first = geometric_mean((start["trace"] / start["squared_gradient"]).to_numpy())
    late = by_goal[by_goal["goal"] == goal].iloc[0]
    return [
        judge_mean(
            "simple start",
            "B_simple before training is between 30 and 100",
            first,
            expected=(30, 100),
            reason=f"geometric mean of {len(start)} seeds",
        ),
        judge_mean(
            "simple late",
            f"B_simple exceeds 800 by train error {goal:g}",
            MeanOfLogs(late["value"], late["low"], late["high"]),
            expected=(800, None),
            reason=f"{int(late['n_seeds'])} seeds, neighbouring checkpoints averaged",
        ),
    ]


def judge_ratios(
    simple: pd.DataFrame, noise: pd.DataFrame, fits: pd.DataFrame, goal: float
) -> list[Criterion]:
    """B_simple beside B_crit early, and beside B_noise everywhere."""
    statement = f"B_simple / B_crit is between 1 and 10 early, at train error {goal:g}"
    of_simple = simple[simple["goal"] == goal].iloc[0]
    of_fit = fits[fits["goal"] == goal] if len(fits) else fits
    if of_fit.empty or not np.isfinite(of_fit["critical_batch_size"].iloc[0]):
        early = judge_nothing(
            "simple over critical", statement, (1, 10), "B_crit is not resolved there"
        )
    else:
        ratio = float(of_simple["value"] / of_fit["critical_batch_size"].iloc[0])
        ends = (of_simple["low"], of_simple["high"])
        interval = (np.nan, np.nan)
        if np.isfinite(ends).all():
            interval = ratio_interval(ratio, ends, _interval(of_fit.iloc[0]))
        early = judge_mean(
            *("simple over critical", statement, MeanOfLogs(ratio, *interval)), expected=(1, 10)
        )
    both = simple.merge(noise, on="goal", suffixes=("_simple", "_noise"))
    ratios = both["value_simple"] / both["value_noise"]
    order = judge_mean(
        "simple over noise",
        "B_simple is at least B_noise: their ratio, as a mean over the goals, is at least 1",
        geometric_mean(ratios.to_numpy()),
        expected=(1, None),
        reason="" if ratios.empty else f"from {ratios.min():.2g} to {ratios.max():.2g}",
    )
    return [early, order]


def judge_routes(routes: pd.DataFrame) -> Criterion:
    """Two batches and slices of ranks tell what the exact computation tells."""
    statement = (
        "tr Σ and |G|² from two batch sizes and by rank are the exact ones within their errors: "
        "the largest of all deviations is within the 95 % interval of the largest of so many"
    )
    if routes.empty:
        return judge_nothing("routes agree", statement, (None, None), NO_CHECKPOINT)
    deviations = route_deviations(routes)
    n, freedom = len(deviations), int(deviations["epochs"].min()) - 1
    limit = float(stats.t.ppf(1 - 0.025 / n, freedom))
    worst = deviations.loc[deviations["deviation"].abs().idxmax()]
    return judge(
        "routes agree",
        statement,
        float(abs(worst["deviation"])),
        expected=(None, limit),
        unit="standard errors",
        reason=f"{n} comparisons, the worst is {worst['quantity']} {worst['route']} at step "
        f"{int(worst['step'])}",
    )


def judge_stream(ratios: np.ndarray) -> Criterion:
    """Moving averages over the steps of a run beside exact checkpoints; one ratio a seed."""
    return judge_mean(
        "moving averages agree",
        "B_simple from moving averages over steps is that of exact values, averaged over the same "
        "steps, within a factor 1.5",
        geometric_mean(ratios),
        expected=(1 / 1.5, 1.5),
        reason=f"{len(ratios)} seeds; checkpoints at which the average is resolved",
    )


# ---------------------------------------------------------------------------------------------
# Steps, temperature, batches that follow


def judge_step_law(laws: pd.DataFrame) -> list[Criterion]:
    """Measured best steps lie on (2.6), and where the Hessian predicts.

    Parameters
    ----------
    laws : one row a seed and checkpoint: `rms_log_residual`, `n_batch_sizes`, `fitted_step` and
        `largest_step`, both ε_max.
    """
    statement = "ε_opt(B) = ε_max / (1 + B_noise / B): the worst rms log residual is below 0.12"
    prediction = "ε_max of the fit is |G|² / GᵀHG of the Hessian within a factor 2"
    if laws.empty:
        reason = "nowhere were best steps of four batch sizes within the grid"
        return [
            judge_nothing("step law", statement, (None, 0.12), reason),
            judge_nothing("step prediction", prediction, (0.5, 2), reason),
        ]
    worst = laws.loc[laws["rms_log_residual"].idxmax()]
    of_prediction = geometric_mean((laws["fitted_step"] / laws["largest_step"]).to_numpy())
    return [
        judge(
            *("step law", statement, float(worst["rms_log_residual"])),
            rms_interval(float(worst["rms_log_residual"]), int(worst["n_batch_sizes"])),
            expected=(None, 0.12),
            reason=f"seed {int(worst['seed'])}, step {int(worst['step'])} of training",
        ),
        judge_mean(
            "step prediction",
            prediction,
            of_prediction,
            expected=(0.5, 2),
            reason=f"{len(laws)} checkpoints",
        ),
    ]


def judge_temperature(responses: pd.DataFrame) -> list[Criterion]:
    """The noise scale rises as the temperature falls, and comes back."""
    return [
        judge_mean(
            "temperature rise",
            "a temperature 16 times lower makes B_simple rise by a factor between 8 and 32",
            geometric_mean(responses["rise"].to_numpy()),
            expected=(8, 32),
            reason=f"{len(responses)} seeds",
        ),
        judge_mean(
            "temperature return",
            "B_simple comes back within a factor 3 when the temperature does",
            geometric_mean(responses["rest"].to_numpy()),
            expected=(1 / 3, 3),
            reason=f"{len(responses)} seeds",
        ),
    ]


def judge_adaptive(gains: pd.DataFrame | None) -> Criterion:
    """Batches that follow the noise scale beside the frontier of fixed ones.

    Parameters
    ----------
    gains : one row a seed, goal and exchange rate: `measured_gamma`, `predicted_gamma`; None where
        there was no critical batch size to choose a rate by.
    """
    statement = "batches that follow the noise scale cost no more than the best fixed ones: γ <= 1"
    if gains is None:
        return judge_nothing(
            "adaptive batch", statement, (None, 1.0), "no critical batch size is known"
        )
    by_seed = gains.dropna(subset=["measured_gamma"])
    by_seed = by_seed.assign(log_gamma=np.log(by_seed["measured_gamma"].clip(lower=1e-3)))
    means = np.exp(by_seed.groupby("seed")["log_gamma"].mean().to_numpy())
    if not means.size:
        return judge_nothing(
            "adaptive batch", statement, (None, 1.0), "no run reached a goal with a fit"
        )
    predicted = gains["predicted_gamma"].mean()
    return judge_mean(
        *("adaptive batch", statement, geometric_mean(means)),
        expected=(None, 1.0),
        reason=f"{means.size} seeds; predicted from the noise scale along a run: {predicted:.2f}",
    )
