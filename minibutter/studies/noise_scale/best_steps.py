"""The best step of a batch: where the expected loss after one step is lowest, measured.

Many batches are drawn at one point, a step is made along each of their gradients, and the loss over
all rows is evaluated at several lengths. The prediction only says where to look: the lowest point
is that of measured losses, and a prediction that is far off shows as one at the end of the grid.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.curvature import Hessian
from minibutter.nn.gradients import BatchGradient
from minibutter.nn.steps import Evaluation
from minibutter.studies.noise_scale.curvature import measure_curvature_of_noise_by_signs
from minibutter.studies.noise_scale.problem import load_problem, run_to, sampler
from minibutter.studies.noise_scale.steps import LocalModel

GRID = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Step lengths over the predicted best one."""

_PURPOSE_BATCHES, _PURPOSE_SIGNS, _PURPOSE_BOOTSTRAP = 20, 21, 22
_RESAMPLES = 400
_MEASURED = ("best_step", "best_gain", "best_step_low", "best_step_high")
_PREDICTED = ("predicted_step", "predicted_gain")


def measure_best_steps(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    step: int,
    trunk_batch: int,
    trunk_rate: float,
    batch_sizes: list[int],
    batches: int,
    evaluated_rows: int,
    probes: int,
) -> pd.DataFrame:
    """Best step and best gain of several batch sizes at a checkpoint, beside their prediction.

    The first `evaluated_rows` rows are the whole problem here: batches are drawn from them, with
    replacement, and gradient, Hessian and loss are theirs.

    Parameters
    ----------
    data_dir, problem : see `problem`.
    seed, trunk_batch, trunk_rate, step : of the run, and of its checkpoint.
    batch_sizes : B.
    batches : drawn of every size.
    evaluated_rows : at most all training rows.
    probes : directions for tr(HΣ).

    Returns
    -------
    One row a batch size: `best_step` with `best_step_low` and `best_step_high`, 95 % of resamples
    of the batches, and `best_gain`; `predicted_step`, `predicted_gain`; and of the checkpoint
    `largest_step` ε_max, `noise_scale` B_noise, `squared_gradient`, `curvature`,
    `curvature_of_noise`, `loss`, `error`. NaN where the lowest loss is at the end of the grid, or
    where the loss does not curve up along its gradient, which leaves no step to look around.
    """
    loaded = load_problem(problem, data_dir)
    network, x, y = loaded.network, loaded.x[:evaluated_rows], loaded.y[:evaluated_rows]
    parameters = run_to(loaded, seed, step, trunk_batch, trunk_rate)
    measured = measure_curvature_of_noise_by_signs(
        Hessian(network, parameters, x, y), sampler(seed, _PURPOSE_SIGNS, step), probes
    )
    evaluation = Evaluation(network, x, y)
    before = evaluation.measure(parameters)
    columns = {"loss": before.loss, "error": before.error, **measured._asdict()}
    if measured.curvature <= 0:
        return pd.DataFrame({"batch_size": batch_sizes}).assign(
            **dict.fromkeys((*_MEASURED, *_PREDICTED, "largest_step", "noise_scale"), np.nan),
            **columns,
        )
    model = LocalModel(measured.squared_gradient, measured.curvature, measured.curvature_of_noise)
    found = []
    for batch_size in batch_sizes:
        if model.noise_scale <= -batch_size:
            # The noise curves the mean loss down by more than the gradient curves it up.
            found.append(
                {"batch_size": batch_size, **dict.fromkeys((*_MEASURED, *_PREDICTED), np.nan)}
            )
            continue
        gains = np.empty((batches, len(GRID)))
        lengths = np.array(GRID) * model.optimal_step(batch_size)
        rng = sampler(seed, _PURPOSE_BATCHES, step, batch_size)
        tool = BatchGradient(network, batch_size)
        for of_batch in gains:
            rows = rng.integers(0, len(x), batch_size)
            gradient = tool.gradient(parameters, x[rows], y[rows])
            for i, length in enumerate(lengths):
                moved = evaluation.measure(parameters - np.float32(length) * gradient)
                of_batch[i] = before.loss - moved.loss
        resampler = sampler(seed, _PURPOSE_BOOTSTRAP, step, batch_size)
        measured_step = dict(zip(_MEASURED, _lowest(lengths, gains, resampler), strict=True))
        predicted = (model.optimal_step(batch_size), model.optimal_gain(batch_size))
        found.append(
            {
                "batch_size": batch_size,
                **measured_step,
                **dict(zip(_PREDICTED, predicted, strict=True)),
            }
        )
    return pd.DataFrame(found).assign(
        largest_step=model.largest_optimal_step, noise_scale=model.noise_scale, **columns
    )


def _lowest(
    lengths: np.ndarray, gains: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """`lowest_point` of the mean over batches, gains (batches, k), and the ends of its interval."""
    best, gain = lowest_point(lengths, gains.mean(axis=0))
    n = len(gains)
    resampled = [
        lowest_point(lengths, gains[rng.integers(0, n, n)].mean(axis=0))[0]
        for _ in range(_RESAMPLES)
    ]
    low, high = np.nan, np.nan
    if np.isfinite(resampled).mean() > 0.95:
        low, high = np.nanquantile(resampled, [0.025, 0.975])
    return best, gain, float(low), float(high)


def lowest_point(lengths: np.ndarray, gains: np.ndarray) -> tuple[float, float]:
    """Where the gain is largest, and how large, by the parabola through the best of the grid and
    its neighbours; NaN where the best is at the end.

    Parameters
    ----------
    lengths : (k,), increasing.
    gains : (k,), of the loss; without a step there is none.
    """
    lengths, gains = np.append(0.0, lengths), np.append(0.0, gains)
    if not np.isfinite(gains).any():
        return np.nan, np.nan
    best = int(np.nanargmax(gains))
    if best in (0, len(gains) - 1) or not np.isfinite(gains[best - 1 : best + 2]).all():
        return np.nan, np.nan
    curve = np.polyfit(lengths[best - 1 : best + 2], gains[best - 1 : best + 2], 2)
    at = -curve[1] / (2 * curve[0])
    return float(at), float(np.polyval(curve, at))
