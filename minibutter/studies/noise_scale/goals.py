"""How many steps a batch size takes to a goal: the runs of the sweep for the critical batch size.

Goals are levels of the training error, evaluated exactly on fixed rows at steps that grow by a few
per cent. Beside that every run keeps a moving average of the error of its own batches, which is
what many look at instead: it lags behind, by more the faster the error falls.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.steps import Evaluation, RowStream, StepTrainer
from minibutter.studies.noise_scale.problem import (
    Problem,
    begin_run,
    descent,
    load_problem,
    usual_rate,
)

SMOOTHED_EXAMPLES = 2000
"""How many examples the moving average of the error reaches back."""

_CHUNK_EXAMPLES = 250  # after which the moving average is looked at, or after a step
_PATIENCE = 1.25  # in steps of the fastest run so far, to the last goal


def measure_steps_to_goals(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    batch_size: int,
    multipliers: list[float],
    goals: list[float],
    evaluated_rows: int,
    spacing: float,
    most_steps: int,
) -> pd.DataFrame:
    """Runs of one seed and batch size at several rates, until the last goal.

    A run ends as well when it has taken `most_steps`, is not finite any more, or is slower than
    another rate was to the last goal: it cannot be the fastest to any goal that it has not reached.

    Parameters
    ----------
    data_dir, problem : see `problem`.
    seed : of first parameters and order.
    batch_size : B.
    multipliers : of `usual_rate(batch_size)`, in the order in which they are tried.
    goals : levels of the training error, decreasing.
    evaluated_rows : how many training rows the error is measured on.
    spacing : factor between the steps of two evaluations.
    most_steps : of a run.

    Returns
    -------
    One row a rate and goal: `multiplier`, `learning_rate`, `goal`; `steps`, of the first evaluation
    that reached it, and `smoothed_steps`, when the moving average did; NaN if not reached.
    """
    loaded = load_problem(problem, data_dir)
    evaluation = Evaluation(loaded.network, loaded.x[:evaluated_rows], loaded.y[:evaluated_rows])
    found, limit = [], float(most_steps)
    for multiplier in multipliers:
        rate = multiplier * usual_rate(batch_size)
        steps, smoothed = _run_to_goals(
            loaded, evaluation, seed, batch_size, rate, goals, spacing, limit
        )
        if np.isfinite(steps[-1]):
            limit = min(limit, _PATIENCE * steps[-1])
        found += [
            {
                "multiplier": multiplier,
                "learning_rate": rate,
                "goal": goal,
                "steps": exact,
                "smoothed_steps": lagging,
            }
            for goal, exact, lagging in zip(goals, steps, smoothed, strict=True)
        ]
    return pd.DataFrame(found)


def _run_to_goals(
    problem: Problem,
    evaluation: Evaluation,
    seed: int,
    batch_size: int,
    learning_rate: float,
    goals: list[float],
    spacing: float,
    limit: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Steps to every goal by the exact error, and by the moving average; NaN if not reached."""
    run = begin_run(problem, seed)
    trainer = StepTrainer(
        *(problem.network, run.parameters, descent(), problem.x, problem.y),
        largest_batch=batch_size,
    )
    average = SmoothedError(SMOOTHED_EXAMPLES)
    steps, smoothed = (np.full(len(goals), np.nan) for _ in range(2))
    # What the moving average has not reached yet, it reaches soon, or nobody looks at it.
    extra = 2 * SMOOTHED_EXAMPLES / batch_size
    while trainer.steps < limit + extra:
        target = max(trainer.steps + 1, round(spacing * trainer.steps))
        _train_to(target, trainer, run.rows, batch_size, learning_rate, average, goals, smoothed)
        means = evaluation.measure(run.parameters)
        if not np.isfinite(means.loss):
            break
        if trainer.steps <= limit:
            note(steps, goals, means.error, trainer.steps)
        if np.isfinite(steps[-1]):
            limit = min(limit, trainer.steps)
            if np.isfinite(smoothed[-1]):
                break
    return steps, smoothed


def _train_to(
    target: int,
    trainer: StepTrainer,
    rows: RowStream,
    batch_size: int,
    learning_rate: float,
    average: "SmoothedError",
    goals: list[float],
    smoothed: np.ndarray,
) -> None:
    """Go on to a step, and look at the moving average every few hundred examples."""
    chunk = max(1, _CHUNK_EXAMPLES // batch_size)
    while trainer.steps < target:
        n_steps = min(chunk, target - trainer.steps)
        means = trainer.run(rows.take(n_steps * batch_size), batch_size, learning_rate)
        average.update(means.error, n_steps * batch_size)
        note(smoothed, goals, average.value, trainer.steps)


def note(reached: np.ndarray, goals: list[float], error: float, step: int) -> None:
    """Write the step (float) for every goal that is reached for the first time."""
    reached[np.isnan(reached) & (error <= np.asarray(goals))] = step


class SmoothedError:
    """Exponential moving average of the error of batches, with a window in examples.

    Parameters
    ----------
    window : examples after which 1 / e of the old average is left.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._weighted, self._weight = 0.0, 0.0

    @property
    def value(self) -> float:
        """The average, corrected for its start."""
        return self._weighted / self._weight

    def update(self, error: float, examples: int) -> None:
        """Take in the mean error of some examples."""
        kept = np.exp(-examples / self._window)
        self._weighted = kept * self._weighted + (1 - kept) * error
        self._weight = kept * self._weight + (1 - kept)
