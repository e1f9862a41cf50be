"""The temperature of a run: how the noise scale answers when the learning rate falls for a while.

Plain descent has the temperature ε / B, and in equilibrium the noise scale is proportional to its
inverse (C.1, C.2): gradients are small where the noise of the steps no longer pushes the parameters
up the steep walls of the loss.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.moments import ExampleMoments
from minibutter.nn.steps import Evaluation, StepTrainer
from minibutter.noise_scale.estimators import noise_of_examples
from minibutter.studies.noise_scale.problem import begin_run, descent, load_problem


def measure_temperature_response(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    batch_size: int,
    learning_rate: float,
    factor: float,
    begin: int,
    end: int,
    last: int,
    interval: int,
) -> pd.DataFrame:
    """B_simple along a run whose temperature is lower from one step to another.

    Parameters
    ----------
    data_dir, problem, seed, batch_size, learning_rate : of the run, see `along`.
    factor : by which the learning rate is divided between the steps `begin` and `end`.
    last : step at which the run ends.
    interval : steps between two measurements.

    Returns
    -------
    One row a measurement: `step`, `learning_rate`, `loss`, `error`, `squared_gradient` and `trace`
    of the mean loss over all training rows.
    """
    loaded = load_problem(problem, data_dir)
    run = begin_run(loaded, seed)
    trainer = StepTrainer(
        *(loaded.network, run.parameters, descent(), loaded.x, loaded.y), largest_batch=batch_size
    )
    tool = ExampleMoments(loaded.network)
    evaluation = Evaluation(loaded.network, loaded.x, loaded.y)
    stops = sorted({*range(interval, last + 1, interval), begin, end, last})
    found = []
    for stop in stops:
        rate = learning_rate / factor if begin <= trainer.steps < end else learning_rate
        trainer.run(run.rows.take((stop - trainer.steps) * batch_size), batch_size, rate)
        means = evaluation.measure(run.parameters)
        moments = tool.moments(run.parameters, loaded.x, loaded.y)
        noise = noise_of_examples(
            moments.squared_norms.mean(axis=0), moments.mean_squared_norms, moments.n, "empirical"
        ).total
        found.append(
            {
                "step": stop,
                "learning_rate": rate,
                "loss": means.loss,
                "error": means.error,
                "squared_gradient": float(noise.squared_gradient),
                "trace": float(noise.trace),
            }
        )
    return pd.DataFrame(found)


def temperature_responses(table: pd.DataFrame, begin: int, end: int) -> pd.DataFrame:
    """By how much the noise scale rose in the window, and what is left of it afterwards.

    Before and after are each as long as half of the window, and of the window the second half
    counts: the gradient falls within some ten steps, and rises as fast, but the walls of the valley
    that are less steep take longer. In each part |G|² and tr Σ are averaged before they are
    divided.

    Parameters
    ----------
    table : of `measure_temperature_response`, with its argument `seed`.
    begin, end : of the window.

    Returns
    -------
    One row a seed: `before`, `within`, `after`, the noise scales; `rise` and `rest`, those of the
    window and of afterwards over the one before.
    """
    half = (end - begin) // 2
    parts = {
        "before": (begin - half, begin),
        "within": (end - half, end),
        "after": (end, end + half),
    }
    found = []
    for seed, run in table.groupby("seed"):
        row: dict[str, Any] = {"seed": seed}
        for name, (low, high) in parts.items():
            part = run[(run["step"] > low) & (run["step"] <= high)]
            signal = part["squared_gradient"].mean()
            row[name] = part["trace"].mean() / signal if len(part) else np.nan
        found.append(row)
    responses = pd.DataFrame(found)
    return responses.assign(
        rise=responses["within"] / responses["before"],
        rest=responses["after"] / responses["before"],
    )
