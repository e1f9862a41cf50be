"""Noise scales along one run: all that is exact at its checkpoints, and what its steps tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.estimate import Estimate
from minibutter.nn.curvature import Hessian
from minibutter.nn.moments import ExampleMoments, MomentTrainer
from minibutter.nn.steps import Evaluation
from minibutter.nn.training import make_optimizer
from minibutter.noise_scale.estimators import noise_of_examples
from minibutter.noise_scale.intervals import (
    jackknife_noise_scale,
    noise_scale_of_examples,
    trace_of_squared_covariance,
)
from minibutter.noise_scale.streaming import StreamingNoise
from minibutter.studies.noise_scale.curvature import (
    curvature_noise_scale,
    measure_curvature_of_noise_by_signs,
)
from minibutter.studies.noise_scale.measure import noise_of_steps
from minibutter.studies.noise_scale.problem import (
    Problem,
    begin_run,
    load_problem,
    run_to,
    sampler,
)

BLOCKS = 32  # of the jackknife
GRAM_ROWS = 512  # from which tr Σ² is estimated
_PURPOSE_GRAM, _PURPOSE_SIGNS = range(2)


def measure_along_training(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    batch_size: int,
    learning_rate: float,
    steps: list[int],
    decay: float,
) -> pd.DataFrame:
    """Signal and noise over all training rows at checkpoints of a run, and its moving averages.

    Parameters
    ----------
    data_dir, problem : see `problem`.
    seed, batch_size, learning_rate : of the run.
    steps : of the checkpoints, increasing.
    decay : of the moving averages over steps.

    Returns
    -------
    One row a checkpoint, up to where the run diverges if it does: `step`, `loss`, `error`;
    `squared_gradient`, `trace` of the mean loss over these rows (empirical), whole and by layers;
    `population_...` of their source; two intervals of its B_simple, `jackknife_...` and
    `normal_...`; and `stream_...`, what the moving averages of single examples beside their batch
    say until then, of the mean loss over these rows.
    """
    loaded = load_problem(problem, data_dir)
    run = begin_run(loaded, seed)
    trainer = MomentTrainer(
        *(loaded.network, run.parameters, make_optimizer("sgd", learning_rate)),
        *(loaded.x, loaded.y),
        batch_size=batch_size,
        shuffle=sampler(seed),
    )
    evaluation = Evaluation(loaded.network, loaded.x, loaded.y)
    tool = ExampleMoments(loaded.network, -(-loaded.n // BLOCKS))
    gram_tool = ExampleMoments(loaded.network, min(GRAM_ROWS, loaded.n))
    stream = StreamingNoise(decay)
    gram_rows = sampler(seed, _PURPOSE_GRAM).permutation(loaded.n)[:GRAM_ROWS]
    found = []
    for step in steps:
        if step > trainer.steps:
            moved = trainer.run(run.rows.take((step - trainer.steps) * batch_size))
            if not np.isfinite(moved.example_squared_norms).all():
                break
            for noise in noise_of_steps(moved, dataset_size=loaded.n):
                stream.update(noise.total)
        means = evaluation.measure(run.parameters)
        gram = gram_tool.gram(run.parameters, loaded.x[gram_rows], loaded.y[gram_rows])
        found.append(
            {
                "step": step,
                "loss": means.loss,
                "error": means.error,
                **_exact_columns(tool, loaded, run.parameters, gram),
                **_stream_columns(stream),
            }
        )
    return pd.DataFrame(found)


def _exact_columns(
    tool: ExampleMoments, problem: Problem, parameters: np.ndarray, gram: np.ndarray
) -> dict[str, Any]:
    moments = tool.moments(parameters, problem.x, problem.y)
    along = tool.projections(parameters, problem.x, problem.y, moments.mean_gradient).sum(axis=1)
    squares = moments.squared_norms.sum(axis=1)
    columns: dict[str, Any] = {}
    for convention, prefix in (("empirical", ""), ("population", "population_")):
        layers = noise_of_examples(
            moments.squared_norms.mean(axis=0), moments.mean_squared_norms, moments.n, convention
        )
        columns[f"{prefix}squared_gradient"] = float(layers.total.squared_gradient)
        columns[f"{prefix}trace"] = float(layers.total.trace)
        if convention == "empirical":
            for layer, (signal, trace) in enumerate(
                zip(layers.squared_gradient, layers.trace, strict=True)
            ):
                columns[f"layer_{layer}_squared_gradient"] = float(signal)
                columns[f"layer_{layer}_trace"] = float(trace)
    starts = np.cumsum(moments.chunk_sizes) - moments.chunk_sizes
    jackknife = jackknife_noise_scale(
        moments.chunk_sizes,
        np.add.reduceat(squares, starts) / moments.chunk_sizes,
        moments.chunk_squared_norms.sum(axis=1),
        np.add.reduceat(along, starts) / moments.chunk_sizes,
    )
    normal = noise_scale_of_examples(squares, along, trace_of_squared_covariance(gram))
    return columns | estimate_columns("jackknife", jackknife) | estimate_columns("normal", normal)


def _stream_columns(stream: StreamingNoise) -> dict[str, Any]:
    if stream.updates == 0:
        nothing = Estimate.unresolved("there was no step yet")
        return {"stream_trace": np.nan, "stream_squared_gradient": np.nan} | estimate_columns(
            "stream", nothing
        )
    return {
        "stream_trace": stream.trace,
        "stream_squared_gradient": stream.squared_gradient,
        **estimate_columns("stream", stream.estimate()),
    }


def measure_noise_curvature(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    batch_size: int,
    learning_rate: float,
    step: int,
    probes: int,
) -> pd.DataFrame:
    """B_noise at one checkpoint of the same run, from products with the Hessian of all rows.

    Parameters
    ----------
    data_dir, problem, seed, batch_size, learning_rate : as for `measure_along_training`.
    step : of the checkpoint.
    probes : directions of the noise that are looked at.

    Returns
    -------
    One row: `loss`, `error`, `squared_gradient`, `curvature` GᵀHG, `curvature_of_noise` tr(HΣ) with
    its standard error, and `noise_...`, B_noise with its interval.
    """
    loaded = load_problem(problem, data_dir)
    parameters = run_to(loaded, seed, step, batch_size, learning_rate)
    hessian = Hessian(loaded.network, parameters, loaded.x, loaded.y)
    found = measure_curvature_of_noise_by_signs(
        hessian, sampler(seed, _PURPOSE_SIGNS, step), probes
    )
    means = Evaluation(loaded.network, loaded.x, loaded.y).measure(parameters)
    row = {"loss": means.loss, "error": means.error, **found._asdict()}
    return pd.DataFrame([row | estimate_columns("noise", curvature_noise_scale(found))])


def estimate_columns(prefix: str, estimate: Estimate) -> dict[str, Any]:
    """An estimate as columns `PREFIX_value`, `_low`, `_high`, NaN where open, and `_state`."""
    numbers = {
        f"{prefix}_{name}": np.nan if getattr(estimate, name) is None else getattr(estimate, name)
        for name in ("value", "low", "high")
    }
    return numbers | {f"{prefix}_state": estimate.state}


def layer_table(along: pd.DataFrame) -> pd.DataFrame:
    """B_simple by layers from the table of `measure_along_training`: one row a checkpoint and
    layer; the whole network is layer -1, for noise scales of layers do not add up."""
    parts = []
    n_layers = sum(name.startswith("layer_") and name.endswith("_trace") for name in along)
    for layer in range(-1, n_layers):
        prefix = "" if layer < 0 else f"layer_{layer}_"
        part = along[["seed", "step", "error"]].assign(
            layer=layer,
            squared_gradient=along[f"{prefix}squared_gradient"],
            trace=along[f"{prefix}trace"],
        )
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(simple_noise_scale=table["trace"] / table["squared_gradient"])


def stream_ratios(along: pd.DataFrame, decay: float) -> np.ndarray:
    """B_simple of the moving averages over the exact one, averaged over the same steps.

    A moving average lags behind what it follows, and |G|² falls by orders of magnitude. So the
    exact values are averaged in the same way, with straight lines between the checkpoints.

    Returns
    -------
    For every seed the geometric mean over the checkpoints at which the average is resolved.
    """
    found = []
    for _, run in along.sort_values("step").groupby("seed"):
        steps = run["step"].to_numpy()
        averages = [
            _moving_average(np.interp(np.arange(steps[-1]), steps, run[name]), decay)
            for name in ("trace", "squared_gradient")
        ]
        is_known = (run["stream_state"] == "resolved").to_numpy() & (steps > 0)
        # After so many steps the last that counts was measured before the last of them.
        trace, signal = (average[steps[is_known] - 1] for average in averages)
        ratios = run["stream_value"].to_numpy()[is_known] * signal / trace
        if ratios.size:
            found.append(float(np.exp(np.log(ratios).mean())))
    return np.array(found)


def _moving_average(values: np.ndarray, decay: float) -> np.ndarray:
    """Exponential moving averages up to each of the values; of two, the start cancels."""
    averages, total = np.empty(len(values)), 0.0
    for i, value in enumerate(values):
        total = decay * total + (1 - decay) * value
        averages[i] = total
    return averages
