"""The critical batch size seen directly: branches of one run at several batch sizes.

From one checkpoint the run goes on with each batch size over equally many examples, at the best of
a few rates. Small batches learn equally much per example; the largest that still does so is the
critical one, without any model of noise. Source of the idea: Merrill et al. 2025, arXiv:2505.23971.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.steps import Evaluation, StepTrainer
from minibutter.studies.noise_scale.problem import (
    begin_run,
    descent,
    load_problem,
    run_to,
    usual_rate,
)


def measure_branches(
    data_dir: Path | None,
    problem: Mapping[str, Any],
    seed: int,
    step: int,
    trunk_batch: int,
    trunk_rate: float,
    batch_size: int,
    multipliers: list[float],
    examples: int,
) -> pd.DataFrame:
    """A branch at one batch size, over some examples, at several rates.

    Parameters
    ----------
    data_dir, problem : see `problem`.
    seed, trunk_batch, trunk_rate : of the run that is branched.
    step : where.
    batch_size : of the branch.
    multipliers : of `usual_rate(batch_size)`.
    examples : that the branch sees, a multiple of the batch size.

    Returns
    -------
    One row a rate: `multiplier`, `learning_rate`, `loss_before` and `loss_after`, `error_before`
    and `error_after`, over all training rows.
    """
    loaded = load_problem(problem, data_dir)
    trunk = run_to(loaded, seed, step, trunk_batch, trunk_rate)
    evaluation = Evaluation(loaded.network, loaded.x, loaded.y)
    before = evaluation.measure(trunk)
    found = []
    for multiplier in multipliers:
        parameters = trunk.copy()
        rate = multiplier * usual_rate(batch_size)
        trainer = StepTrainer(
            *(loaded.network, parameters, descent(), loaded.x, loaded.y), largest_batch=batch_size
        )
        # The same rows in the same order at every batch size and rate.
        rows = begin_run(loaded, seed, branch=1 + step).rows
        trainer.run(rows.take(examples // batch_size * batch_size), batch_size, rate)
        after = evaluation.measure(parameters)
        found.append(
            {
                "multiplier": multiplier,
                "learning_rate": rate,
                "loss_before": before.loss,
                "loss_after": after.loss,
                "error_before": before.error,
                "error_after": after.error,
            }
        )
    return pd.DataFrame(found)


def best_branches(branches: pd.DataFrame) -> pd.DataFrame:
    """Of every checkpoint, seed and batch size the rate that ends lowest, and what it gained.

    Parameters
    ----------
    branches : with the columns of `measure_branches` and its arguments; may be empty.

    Returns
    -------
    Those rows, with `gain`, the fall of the loss, and `share`, of the largest gain at this
    checkpoint and seed.
    """
    if branches.empty:
        return branches
    finite = branches[np.isfinite(branches["loss_after"])]
    keys = ["step", "seed", "batch_size"]
    best = finite.loc[finite.groupby(keys)["loss_after"].idxmin()].reset_index(drop=True)
    best["gain"] = best["loss_before"] - best["loss_after"]
    best["share"] = best["gain"] / best.groupby(["step", "seed"])["gain"].transform("max")
    return best


def largest_recovering_batch(best: pd.DataFrame, tolerance: float) -> int | None:
    """The largest batch size of one checkpoint up to which all learn nearly as much per example.

    Parameters
    ----------
    best : rows of `best_branches` of one checkpoint.
    tolerance : by how much the mean gain over seeds may fall short of the largest, as a share.

    Returns
    -------
    None where already the smallest falls short: it lies below all that were tried.
    """
    gains = best.groupby("batch_size")["gain"].mean().sort_index()
    # A small batch may fall short as well, by its noise: what is asked for is where large ones do.
    enough = gains[gains >= (1 - tolerance) * gains.max()]
    return int(enough.index.max()) if len(enough) else None
