"""From the tables of all stages to criteria, tables and figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from minibutter.studies.noise_scale import criteria
from minibutter.studies.noise_scale.along import layer_table, stream_ratios
from minibutter.studies.noise_scale.branching import (
    best_branches,
    largest_recovering_batch,
)
from minibutter.studies.noise_scale.following import adaptive_gains
from minibutter.studies.noise_scale.frontier import Frontier, make_frontier
from minibutter.studies.noise_scale.judging import on_these_data
from minibutter.studies.noise_scale.levels import geometric_mean, scale_by_level
from minibutter.studies.noise_scale.pareto import fit_step_law
from minibutter.studies.noise_scale.routes import route_deviations
from minibutter.studies.noise_scale.sizes import Sizes
from minibutter.studies.noise_scale.temperature import temperature_responses
from minibutter.studies.study import Conclusion
from minibutter.studies.verdict import Criterion

RECOVERING = 0.1
"""By how much a branch may gain less per example and still count as recovering."""

_MNIST_ONLY = {
    "critical batch grows",
    "critical start",
    "critical end",
    "simple start",
    "simple late",
    "temperature rise",
}


class Findings(NamedTuple):
    """The tables of the stages; those of checkpoints near some levels of the error are empty where
    there is none, and `adaptive` is None where no exchange rate was known."""

    along: pd.DataFrame
    curvature: pd.DataFrame
    routes: pd.DataFrame
    sweep: pd.DataFrame
    branches: pd.DataFrame
    best_steps: pd.DataFrame
    temperature: pd.DataFrame
    adaptive: pd.DataFrame | None


def conclude(
    found: Findings, sizes: Sizes, n_rows: int, is_paper_data: bool, rng: np.random.Generator
) -> Conclusion:
    """Judge everything, and say what is to be written.

    Parameters
    ----------
    found : tables of the stages.
    sizes : of the study.
    n_rows : training rows that there were.
    is_paper_data : whether the ranges that belong to 8,000 digits of MNIST apply.
    rng : draws resamples.
    """
    goals = list(sizes.goals)
    frontier, smoothed = (
        make_frontier(found.sweep, rng, column) for column in ("steps", "smoothed_steps")
    )
    simple = scale_by_level(found.along, "trace", "squared_gradient", goals)
    noise = scale_by_level(
        found.curvature, "curvature_of_noise", "curvature", list(sizes.curvature_levels)
    )
    laws = fit_step_laws(found.best_steps, rng)
    responses = temperature_responses(
        found.temperature, sizes.temperature_begin, sizes.temperature_end
    )
    branches = best_branches(_with_levels(found.branches, "error_before", sizes.branch_levels))
    direct = direct_batches(branches, frontier, simple, noise)
    both = simple.merge(noise, on="goal", suffixes=("", "_noise"))
    bias = geometric_mean((both["value"] / both["value_noise"]).to_numpy()).value
    gains = None
    if found.adaptive is not None and len(frontier.fits) and np.isfinite(bias):
        gains = adaptive_gains(found.adaptive, frontier.fits, found.along, sizes.trunk_batch, bias)
    judged = [
        criteria.judge_hyperbola(frontier.fits),
        *criteria.judge_growth(frontier.fits, goals),
        *criteria.judge_simple_scale(found.along, simple, goals[-1]),
        *criteria.judge_ratios(simple, noise, frontier.fits, goals[0]),
        criteria.judge_routes(found.routes),
        criteria.judge_stream(stream_ratios(found.along, sizes.decay)),
        *criteria.judge_step_law(laws),
        *criteria.judge_temperature(responses),
        criteria.judge_adaptive(gains),
    ]
    tables = {
        "along": found.along,
        "layers": layer_table(found.along),
        "curvature": found.curvature,
        "routes": route_deviations(found.routes),
        "runs": found.sweep,
        "frontier": frontier.points,
        "critical-batch": frontier.fits,
        "critical-batch-smoothed": smoothed.fits,
        "noise-scales": noise_scales(simple, noise, frontier),
        "branches": branches,
        "critical-batch-branches": direct,
        "best-steps": _with_levels(found.best_steps, "error", sizes.step_levels),
        "step-laws": laws,
        "temperature": found.temperature,
        "temperature-response": responses,
    }
    if gains is not None:
        tables["adaptive"] = gains
    return Conclusion(
        tuple(_where_it_applies(criterion, is_paper_data) for criterion in judged),
        {name: table for name, table in tables.items() if len(table)},
        _figures(tables, sizes),
        {
            "n_train": n_rows,
            "goals": goals,
            "simple_over_noise": None if np.isnan(bias) else bias,
            "rates_still_on_edge": int(frontier.points["is_on_edge"].sum()),
            "rates_chosen": len(frontier.points),
        },
    )


def _where_it_applies(criterion: Criterion, is_paper_data: bool) -> Criterion:
    if criterion.name not in _MNIST_ONLY:
        return criterion
    return on_these_data(criterion, is_paper_data)


def _with_levels(table: pd.DataFrame, column: str, levels: tuple[float, ...]) -> pd.DataFrame:
    """The table with the level of the error that every checkpoint was chosen for, `level`."""
    if table.empty:
        return table
    errors = np.log(table[column].clip(lower=1e-12).to_numpy())
    nearest = np.abs(errors[:, None] - np.log(levels)).argmin(axis=1)
    return table.assign(level=np.array(levels)[nearest])


def noise_scales(simple: pd.DataFrame, noise: pd.DataFrame, frontier: Frontier) -> pd.DataFrame:
    """The three scales at every goal beside each other, one row a scale and goal."""
    parts = [simple.assign(scale="B_simple"), noise.assign(scale="B_noise")]
    if len(frontier.fits):
        names = {
            "critical_batch_size": "value",
            "critical_batch_size_low": "low",
            "critical_batch_size_high": "high",
        }
        fits = frontier.fits[["goal", *names]].rename(columns=names)
        parts.append(fits.assign(scale="B_crit"))
    table = pd.concat(parts, ignore_index=True)
    return table[["scale", "goal", "value", "low", "high"]].dropna(subset=["value"])


def fit_step_laws(best_steps: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """(2.6) through the measured best steps of every checkpoint with at least four of them.

    Returns
    -------
    One row a seed and step of training: `error`, `n_batch_sizes`, `rms_log_residual`, `fitted_step`
    and `fitted_scale` with intervals, and the predictions `largest_step` and `noise_scale`.
    """
    if best_steps.empty:
        return pd.DataFrame()
    found = []
    for (seed, step), rows in best_steps.groupby(["seed", "step"]):
        known = rows.dropna(subset=["best_step"])
        if len(known) < 4:
            continue
        fit = fit_step_law(known["batch_size"].to_numpy(), known["best_step"].to_numpy(), rng)
        row: dict[str, Any] = {
            "seed": seed,
            "step": step,
            "error": rows["error"].iloc[0],
            "n_batch_sizes": len(known),
            "rms_log_residual": fit.rms_log_residual,
            "largest_step": rows["largest_step"].iloc[0],
            "noise_scale": rows["noise_scale"].iloc[0],
        }
        for name, estimate in (
            ("fitted_step", fit.largest_step),
            ("fitted_scale", fit.noise_scale),
        ):
            row[name] = np.nan if estimate.value is None else estimate.value
            row[f"{name}_low"] = np.nan if estimate.low is None else estimate.low
            row[f"{name}_high"] = np.nan if estimate.high is None else estimate.high
        found.append(row)
    return pd.DataFrame(found)


def direct_batches(
    branches: pd.DataFrame,
    frontier: Frontier,
    simple: pd.DataFrame,
    noise: pd.DataFrame,
) -> pd.DataFrame:
    """What branches say of every level, beside what the sweep and the noise say there.

    Returns
    -------
    One row a level: `largest_recovering_batch`; and where the level is a goal,
    `critical_batch_size`, `simple_noise_scale` and `noise_scale`.
    """
    if branches.empty:
        return pd.DataFrame()
    critical = (
        dict(zip(frontier.fits["goal"], frontier.fits["critical_batch_size"], strict=True))
        if len(frontier.fits)
        else {}
    )
    of_simple, of_noise = (
        dict(zip(table["goal"], table["value"], strict=True)) for table in (simple, noise)
    )
    found = []
    for level, rows in branches.groupby("level", sort=False):
        recovering = largest_recovering_batch(rows, RECOVERING)
        found.append(
            {
                "level": level,
                "n_seeds": rows["seed"].nunique(),
                "largest_recovering_batch": np.nan if recovering is None else recovering,
                "critical_batch_size": critical.get(level, np.nan),
                "simple_noise_scale": of_simple.get(level, np.nan),
                "noise_scale": of_noise.get(level, np.nan),
            }
        )
    return pd.DataFrame(found)


def _figures(tables: dict[str, pd.DataFrame], sizes: Sizes) -> dict[str, Callable[[Path], None]]:
    """Functions that draw to a path; matplotlib is loaded when the first is called."""

    def draw(name: str, path: Path, *arguments: Any) -> None:
        from minibutter.plots import noise_scale as plots

        getattr(plots, name)(*arguments, path)

    def later(name: str, *arguments: Any) -> Callable[[Path], None]:
        return lambda path: draw(name, path, *arguments)

    figures = {
        "noise-scales": later("draw_noise_scales", tables["along"], tables["noise-scales"]),
        "temperature": later(
            "draw_temperature",
            tables["temperature"],
            sizes.temperature_begin,
            sizes.temperature_end,
        ),
    }
    if len(tables["critical-batch"]):
        figures["frontier"] = later("draw_frontier", tables["frontier"], tables["critical-batch"])
        if len(tables["critical-batch-smoothed"]):
            figures["smoothing"] = later(
                "draw_smoothing", tables["critical-batch"], tables["critical-batch-smoothed"]
            )
    if len(tables["step-laws"]):
        figures["best-steps"] = later("draw_best_steps", tables["best-steps"], tables["step-laws"])
    if "adaptive" in tables and len(tables["adaptive"]):
        figures["adaptive"] = later(
            "draw_adaptive", tables["frontier"], tables["critical-batch"], tables["adaptive"]
        )
    return figures
