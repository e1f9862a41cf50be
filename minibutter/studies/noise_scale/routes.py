"""Three routes to tr Σ and |G|² of the same point: exact, from two batch sizes, and by ranks.

The parameters stand still, so that all three mean the same numbers: Σ of these rows, divided by
n - 1, and |G|² of the mean loss over them. The last two see batches that are drawn without
replacement, and |G|² of these rows is tr Σ / n more than that of their source.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.moments import ExampleMoments, MomentTrainer
from minibutter.nn.noise import estimate_noise
from minibutter.nn.slices import SlicedGroup
from minibutter.nn.starts import Start, TrainingData
from minibutter.nn.training import make_optimizer
from minibutter.noise_scale.estimators import noise_of_examples
from minibutter.studies.noise_scale.measure import noise_of_steps
from minibutter.studies.noise_scale.problem import Problem, load_problem, run_to, sampler

STANDSTILL = 1e-30
"""A learning rate at which no step changes a bit of the parameters."""

_PURPOSE_TWO_BATCHES, _PURPOSE_RANKS = 10, 11


def measure_routes(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    batch_size: int,
    learning_rate: float,
    step: int,
    epochs: int,
    slices: int,
) -> pd.DataFrame:
    """tr Σ and |G|² at a checkpoint of a run, by all three routes.

    Parameters
    ----------
    data_dir, problem, seed, batch_size, learning_rate : of the run, see `along`.
    step : of the checkpoint.
    epochs : over which the two estimates are averaged, at least 2.
    slices : of every batch, as ranks would have them.

    Returns
    -------
    One row a route: `route`, `trace`, `squared_gradient`, and their standard errors `trace_error`
    and `squared_gradient_error`, from the scatter of epochs; 0 for the exact route. `epochs` says
    how many: batches of one epoch depend on each other, epochs do not.
    """
    loaded = load_problem(problem, data_dir)
    parameters = run_to(loaded, seed, step, batch_size, learning_rate)
    kept = parameters.copy()
    moments = ExampleMoments(loaded.network).moments(parameters, loaded.x, loaded.y)
    whole = noise_of_examples(
        moments.squared_norms.mean(axis=0), moments.mean_squared_norms, moments.n, "population"
    ).total
    exact = (float(whole.trace), float(moments.mean_squared_norms.sum()))
    found = {
        "two batches": _two_batches(loaded, parameters, seed, batch_size, step, epochs),
        "by rank": _by_rank(loaded, parameters, seed, batch_size, step, epochs, slices),
    }
    if not np.array_equal(parameters, kept):
        raise RuntimeError("the parameters moved while they were looked at")
    rows = [{"route": "exact", "trace": exact[0], "squared_gradient": exact[1]}]
    rows[0] |= {"trace_error": 0.0, "squared_gradient_error": 0.0}
    for route, pairs in found.items():
        mean, error = pairs.mean(axis=0), pairs.std(axis=0, ddof=1) / np.sqrt(epochs)
        names = ("trace", "squared_gradient", "trace_error", "squared_gradient_error")
        rows.append({"route": route, **dict(zip(names, [*mean, *error], strict=True))})
    return pd.DataFrame(rows)


def _two_batches(
    problem: Problem, parameters: np.ndarray, seed: int, batch_size: int, step: int, epochs: int
) -> np.ndarray:
    """Means of tr Σ and |G|² of every epoch, (epochs, 2): single examples beside their batch."""
    trainer = MomentTrainer(
        *(problem.network, parameters, make_optimizer("sgd", STANDSTILL), problem.x, problem.y),
        batch_size=batch_size,
        shuffle=sampler(seed, _PURPOSE_TWO_BATCHES, step),
    )
    pairs = []
    for _ in range(epochs):
        noises = [noise.total for noise in noise_of_steps(trainer.run_epoch(), problem.n)]
        pairs.append(np.mean([(noise.trace, noise.squared_gradient) for noise in noises], axis=0))
    return np.array(pairs)


def _by_rank(
    problem: Problem,
    parameters: np.ndarray,
    seed: int,
    batch_size: int,
    step: int,
    epochs: int,
    slices: int,
) -> np.ndarray:
    """The same from the gradients of the slices of every batch beside that of the batch."""
    x, y = problem.x, problem.y
    start = Start(parameters, TrainingData(x, y, x[:1], y[:1]), sampler(seed, _PURPOSE_RANKS, step))
    group = SlicedGroup(
        *(problem.network, start, make_optimizer("sgd", STANDSTILL)),
        batch_size=batch_size,
        slices=slices,
        records_norms=True,
        records_metrics=False,
    )
    pairs = []
    for _ in range(epochs):
        group.run_epoch()
        estimates = estimate_noise(group.norms)
        trace = np.nanmean(estimates.covariance_traces)
        squares = np.nanmean(estimates.gradient_squares)
        pairs.append((trace, squares + trace / problem.n))
    return np.array(pairs)


def route_deviations(routes: pd.DataFrame) -> pd.DataFrame:
    """Deviations from the exact route in standard errors, one row a route and quantity.

    Parameters
    ----------
    routes : of `measure_routes`, with its arguments `seed`, `step` and `epochs`; may be empty.
    """
    if routes.empty:
        return pd.DataFrame()
    found = []
    keys = ["seed", "step"]
    exact = routes[routes["route"] == "exact"].set_index(keys)
    for row in routes[routes["route"] != "exact"].to_dict("records"):
        truth = exact.loc[tuple(row[key] for key in keys)]
        for quantity in ("trace", "squared_gradient"):
            found.append(
                {
                    **{key: row[key] for key in (*keys, "route", "epochs")},
                    "quantity": quantity,
                    "exact": truth[quantity],
                    "estimate": row[quantity],
                    "error": row[f"{quantity}_error"],
                    "deviation": (row[quantity] - truth[quantity]) / row[f"{quantity}_error"],
                }
            )
    return pd.DataFrame(found)
