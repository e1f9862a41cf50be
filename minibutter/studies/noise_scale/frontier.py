"""From runs at many batch sizes and rates to one critical batch size for every goal."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from minibutter.estimate import Estimate
from minibutter.studies.noise_scale.pareto import ParetoFit, fit_pareto


class Frontier(NamedTuple):
    """The least steps to every goal, and the hyperbolas through them."""

    points: pd.DataFrame  # see `fastest_rates`
    fits: pd.DataFrame  # see `fit_frontier`


def fastest_rates(runs: pd.DataFrame, column: str = "steps") -> pd.DataFrame:
    """For every goal and batch size the rate whose runs were fastest, as a mean over seeds.

    The rate is chosen for all seeds together: the fastest of every seed by itself would be faster
    than any rate is in the mean.

    Parameters
    ----------
    runs : of `measure_steps_to_goals`, with its arguments `seed` and `batch_size`.
    column : "steps", or "smoothed_steps" to see what that does.

    Returns
    -------
    One row a goal and batch size: `goal`, `batch_size`, `multiplier`, `learning_rate`, `steps` as a
    geometric mean over seeds, `examples`, `n_seeds`, and `is_on_edge`, whether the rate is the
    smallest or largest that was tried there. A batch size at which no rate reached the goal with
    all seeds is left out.
    """
    n_seeds = runs["seed"].nunique()
    keys = ["goal", "batch_size", "multiplier"]
    reached = runs.dropna(subset=[column])
    means = (
        reached.assign(log_steps=np.log(reached[column]))
        .groupby(keys)
        .agg(
            log_steps=("log_steps", "mean"),
            n_seeds=("seed", "nunique"),
            learning_rate=("learning_rate", "first"),
        )
        .reset_index()
    )
    means = means[means["n_seeds"] == n_seeds]
    best = means.loc[means.groupby(["goal", "batch_size"])["log_steps"].idxmin()].copy()
    tried = runs.groupby("batch_size")["multiplier"].agg(["min", "max"])
    ends = tried.loc[best["batch_size"]].to_numpy()
    best["is_on_edge"] = (best["multiplier"].to_numpy()[:, None] == ends).any(axis=1)
    best["steps"] = np.exp(best["log_steps"])
    best["examples"] = best["steps"] * best["batch_size"]
    best = best.sort_values(["goal", "batch_size"], ascending=[False, True])
    names = ["goal", "batch_size", "multiplier", "learning_rate", "steps", "examples", "n_seeds"]
    return best[[*names, "is_on_edge"]].reset_index(drop=True)


def rates_to_add(runs: pd.DataFrame) -> dict[int, list[float]]:
    """Where the fastest rate to any goal is at an end of those tried: the next one beyond it.

    Returns
    -------
    Multipliers by batch size; empty where nothing is on an edge.
    """
    best = fastest_rates(runs)
    wider: dict[int, list[float]] = {}
    for batch_size, rows in best[best["is_on_edge"]].groupby("batch_size"):
        tried = runs.loc[runs["batch_size"] == batch_size, "multiplier"]
        ends = {tried.min(): tried.min() / 2, tried.max(): tried.max() * 2}
        found = {ends[multiplier] for multiplier in rows["multiplier"]}
        wider[int(batch_size)] = sorted(float(multiplier) for multiplier in found)
    return wider


def fit_frontier(points: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """B_crit, S_min and E_min of every goal with at least four batch sizes.

    Parameters
    ----------
    points : of `fastest_rates`.
    rng : draws resamples of the residuals.

    Returns
    -------
    One row a goal, from the easiest on: `goal`, `n_batch_sizes`, `rms_log_residual`, and for each
    of `critical_batch_size`, `least_steps` and `least_examples` the value, `..._low`, `..._high`
    and `..._state`.
    """
    found = []
    for goal, rows in points.groupby("goal", sort=False):
        if rows["batch_size"].nunique() < 4:
            continue
        fit = fit_pareto(rows["batch_size"].to_numpy(), rows["steps"].to_numpy(), rng)
        found.append(
            {
                "goal": goal,
                "n_batch_sizes": len(rows),
                "rms_log_residual": fit.rms_log_residual,
                **_columns(fit),
            }
        )
    return pd.DataFrame(found)


def _columns(fit: ParetoFit) -> dict[str, float | str]:
    columns: dict[str, float | str] = {}
    for name in ("critical_batch_size", "least_steps", "least_examples"):
        estimate: Estimate = getattr(fit, name)
        for end, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high)):
            columns[name + end] = np.nan if value is None else value
        columns[f"{name}_state"] = estimate.state
    return columns


def make_frontier(runs: pd.DataFrame, rng: np.random.Generator, column: str = "steps") -> Frontier:
    """Both tables of the runs."""
    points = fastest_rates(runs, column)
    return Frontier(points, fit_frontier(points, rng))
