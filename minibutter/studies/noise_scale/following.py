"""Runs whose batch follows the noise scale: B = √(r B_simple), measured again as they go (D.6)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.moments import ExampleMoments
from minibutter.nn.steps import Evaluation, StepTrainer
from minibutter.noise_scale.adaptive import adaptive_batch_size, adaptive_frontier
from minibutter.noise_scale.estimators import noise_of_examples
from minibutter.noise_scale.streaming import StreamingNoise
from minibutter.studies.noise_scale.problem import (
    begin_run,
    descent,
    load_problem,
    usual_rate,
)

_DECAY = 0.7  # of the averages over measurements: a single one scatters by a factor of 2 or 3


def measure_adaptive_run(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    exchange_rate: float,
    multiplier: float,
    goals: list[float],
    evaluated_rows: int,
    measured_rows: int,
    spacing: float,
    smallest_batch: int,
    largest_batch: int,
    most_examples: int,
) -> pd.DataFrame:
    """One run from the start, until the last goal.

    Parameters
    ----------
    data_dir, problem, seed : see `problem`.
    exchange_rate : r, how many examples a step is worth.
    multiplier : of `usual_rate`, which the learning rate follows as the batch changes.
    goals, evaluated_rows, spacing : as for `measure_steps_to_goals`; the noise scale is measured
        at every second evaluation.
    measured_rows : training rows from which it is measured, exactly.
    smallest_batch, largest_batch : limits of B.
    most_examples : after which a run ends.

    Returns
    -------
    One row a goal: `goal`, `steps` and `examples` at the first evaluation that reached it, NaN if
    none did, and there `batch_size`, `simple_noise_scale`, and `measured_examples`, rows whose
    gradients were looked at for the noise scale.
    """
    loaded = load_problem(problem, data_dir)
    run = begin_run(loaded, seed)
    trainer = StepTrainer(
        *(loaded.network, run.parameters, descent(), loaded.x, loaded.y),
        largest_batch=largest_batch,
    )
    evaluation = Evaluation(loaded.network, loaded.x[:evaluated_rows], loaded.y[:evaluated_rows])
    tool = ExampleMoments(loaded.network)
    x, y = loaded.x[-measured_rows:], loaded.y[-measured_rows:]
    stream = StreamingNoise(_DECAY)
    found: list[dict[str, Any]] = []
    examples = measured = evaluations = 0
    batch_size = smallest_batch
    while examples < most_examples and len(found) < len(goals):
        if evaluations % 2 == 0:
            moments = tool.moments(run.parameters, x, y)
            noise = noise_of_examples(
                *(moments.squared_norms.mean(axis=0), moments.mean_squared_norms),
                *(moments.n, "empirical"),
            ).total
            if not np.isfinite(noise.trace):
                break
            stream.update(noise)
            measured += moments.n
            scale = stream.trace / stream.squared_gradient
            wanted = round(float(adaptive_batch_size(scale, exchange_rate)))
            batch_size = min(max(wanted, smallest_batch), largest_batch)
        n_steps = max(1, round((spacing - 1) * trainer.steps))
        rate = multiplier * usual_rate(batch_size)
        trainer.run(run.rows.take(n_steps * batch_size), batch_size, rate)
        examples += n_steps * batch_size
        means, evaluations = evaluation.measure(run.parameters), evaluations + 1
        if not np.isfinite(means.loss):
            break
        for goal in goals[len(found) :]:
            if means.error > goal:
                break
            found.append(
                {
                    "goal": goal,
                    "steps": float(trainer.steps),
                    "examples": float(examples),
                    "batch_size": float(batch_size),
                    "simple_noise_scale": scale,
                    "measured_examples": float(measured),
                }
            )
    missing = {name: np.nan for name in ("steps", "examples", "batch_size", "simple_noise_scale")}
    found += [
        {"goal": goal, **missing, "measured_examples": float(measured)}
        for goal in goals[len(found) :]
    ]
    return pd.DataFrame(found)


# ---------------------------------------------------------------------------------------------
# What it gains


def adaptive_gains(
    runs: pd.DataFrame, fits: pd.DataFrame, along: pd.DataFrame, trunk_batch: int, bias: float
) -> pd.DataFrame:
    """γ = (S / S_min - 1) (E / E_min - 1) of runs whose batch followed the noise scale.

    On the frontier of fixed batches it is 1 by the definition of S_min and E_min (2.11).

    Parameters
    ----------
    runs : of `measure_adaptive_run` with its arguments; of several multipliers the one counts that
        is the fastest in the mean over seeds, by steps and examples alike.
    fits : of `fit_frontier`.
    along : checkpoints of runs at one batch size, for the prediction.
    trunk_batch : their batch size.
    bias : B_simple over B_noise; what is weighted is the latter.

    Returns
    -------
    One row a seed, goal and exchange rate: `steps`, `examples`, both over their minima,
    `measured_gamma` and `predicted_gamma`.
    """
    known = fits[fits["critical_batch_size_state"] == "resolved"]
    table = runs.merge(known[["goal", "least_steps", "least_examples"]], on="goal").dropna(
        subset=["steps"]
    )
    table["steps_ratio"] = table["steps"] / table["least_steps"]
    table["examples_ratio"] = table["examples"] / table["least_examples"]
    table["log_cost"] = np.log(table["steps"]) + np.log(table["examples"])
    keys = ["goal", "exchange_rate"]
    means = table.groupby([*keys, "multiplier"])["log_cost"].agg(["mean", "size"]).reset_index()
    means = means[means["size"] == means.groupby(keys)["size"].transform("max")]
    best = means.loc[means.groupby(keys)["mean"].idxmin(), [*keys, "multiplier"]]
    table = table.merge(best, on=[*keys, "multiplier"])
    table["measured_gamma"] = (table["steps_ratio"] - 1) * (table["examples_ratio"] - 1)
    predicted = {
        goal: predicted_gamma(along, trunk_batch, bias, goal) for goal in table["goal"].unique()
    }
    table["predicted_gamma"] = table["goal"].map(predicted)
    names = ["goal", "exchange_rate", "seed", "multiplier", "steps", "examples", "steps_ratio"]
    names += ["examples_ratio", "measured_gamma", "predicted_gamma"]
    return table[names].sort_values(names[:3], ascending=[False, True, True]).reset_index(drop=True)


def predicted_gamma(along: pd.DataFrame, batch_size: int, bias: float, goal: float) -> float:
    """γ of (D.5) for B_noise along runs with one batch size, until a goal; the mean over seeds.

    NaN where no run has two checkpoints before the goal.
    """
    found = []
    for _, run in along.sort_values("step").groupby("seed"):
        reached = np.flatnonzero(run["error"].to_numpy() <= goal)
        if not reached.size or reached[0] < 2:
            continue
        averages = run[["trace", "squared_gradient"]].rolling(5, center=True, min_periods=1).mean()
        scales = (averages["trace"] / averages["squared_gradient"]).to_numpy() / bias
        scales, steps = scales[: reached[0] + 1], run["step"].to_numpy()[: reached[0] + 1]
        between = (scales[1:] + scales[:-1]) / 2
        progress = np.cumsum(np.diff(steps) / (1 + between / batch_size))
        found.append(adaptive_frontier(np.append(0.0, progress), scales).gamma)
    return float(np.mean(found)) if found else np.nan
