"""The largest learning rate at which gradient descent is stable, beside 2 / λ0.

There is no one definition of stable, and the answer depends on it (cross entropy stays finite far
beyond 2 / λ0, because its curvature falls where the logits grow). Two are measured on the same
steps of gradient descent over fixed rows, from the first weights on:

* `never_rises`, the study's: no loss is above the first one. That is nearest to the theory, which
  speaks of steps so small that the network is linear in them.
* `trains`: every loss is finite, and the mean of the last quarter of the steps is clearly below
  chance, 0.8 log K for K classes. A first leap and a return, a catapult, are allowed. "Below the
  first loss" would not do: networks whose units have all died guess the frequencies of the
  classes, which is better than first weights do.

λ0 is the sharpness at the first weights: the largest eigenvalue of the loss's Hessian in the
coordinates that the optimizer sees, D^½ H D^½ with D the learning rates of the effective parameters
over the optimizer's. For NTK these are the Hessian of the trained V, and while predictions are
nearly uniform its top is that of the tangent kernel, weighted by p (1 - p).
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.curvature import Hessian
from minibutter.nn.lanczos import largest_eigenpairs
from minibutter.nn.starts import Start
from minibutter.studies.width.data import DIRECTION, stream
from minibutter.studies.width.networks import Model, descent, make_fixed_starts, rates

STEPS_PER_OCTAVE = 4
"""Learning rates that are tried lie on a grid: a factor of 2^(1/4) from one to the next."""

BELOW_CHANCE = 0.8
"""Of log K, under which the loss of a network that trains must be."""

_MAX_OCTAVES = 10
_TOLERANCE = 1e-3


def measure_stability(
    data_dir: Path | None, n_steps: int, seed: int, n_repetitions: int, **start: Any
) -> pd.DataFrame:
    """Find the largest stable learning rate of some repetitions, by both definitions.

    Parameters
    ----------
    n_steps : of gradient descent.
    seed, n_repetitions, start : of `make_fixed_starts`, and so is `dataset`.

    Returns
    -------
    One row a repetition: `sharpness` (λ0), `largest_learning_rate` (by `never_rises`)
    and `largest_learning_rate_that_trains`, each the largest of the grid that is stable; NaN where
    none is, say because the steps are too few to train at any rate.
    """
    model, starts = make_fixed_starts(
        data_dir=data_dir, n_repetitions=n_repetitions, seed=seed, **start
    )
    sharpness = [
        initial_sharpness(model, start, stream(seed, number, DIRECTION))
        for number, start in enumerate(starts)
    ]
    known: dict[int, np.ndarray] = {}

    def losses(index: int) -> np.ndarray:
        if index not in known:
            known[index] = descend(model, starts, 2 ** (index / STEPS_PER_OCTAVE), n_steps)
        return known[index]

    table: dict[str, list] = {"repetition": list(range(n_repetitions)), "sharpness": sharpness}
    guess = round(STEPS_PER_OCTAVE * math.log2(2 / float(np.median(sharpness))))
    for name, is_stable in (
        ("largest_learning_rate", never_rises),
        (
            "largest_learning_rate_that_trains",
            partial(trains, n_classes=model.network.n_outputs),
        ),
    ):
        found = [
            largest_true(lambda i, r=r, f=is_stable: f(losses(i)[:, r]), guess)
            for r in range(n_repetitions)
        ]
        table[name] = [math.nan if i is None else 2 ** (i / STEPS_PER_OCTAVE) for i in found]
    return pd.DataFrame(table)


def descend(model: Model, starts: list[Start], learning_rate: float, n_steps: int) -> np.ndarray:
    """Losses (n_steps, R) of gradient descent over all training rows, each before its step."""
    # The order of rows of a full batch moves nothing but the last bits; these are to be the same.
    fresh = [
        Start(start.parameters.copy(), start.data, np.random.default_rng(0)) for start in starts
    ]
    group = descent(model, fresh, learning_rate)
    with np.errstate(all="ignore"):
        return np.array([[row.train[0] for row in group.run_epoch()] for _ in range(n_steps)])


def trains(losses: np.ndarray, n_classes: int) -> bool:
    """Whether all losses (n_steps,) are finite, and those of the last quarter below chance."""
    late = losses[-max(len(losses) // 4, 1) :]
    chance = BELOW_CHANCE * math.log(n_classes)
    return bool(np.isfinite(losses).all() and late.mean() < chance)


def never_rises(losses: np.ndarray) -> bool:
    """Whether no loss (n_steps,) is above the first."""
    return bool(np.isfinite(losses).all() and losses.max() <= losses[0])


def largest_true(is_true: Callable[[int], bool], guess: int) -> int | None:
    """The largest index at which a statement holds that fails from some index on, by bisection.

    Where it holds again beyond a failure, one of the borders is found. It may fail far below, too,
    as networks do not train in a few small steps; so where it does, the search begins above the
    guess. None if it fails on both sides, or holds on the upper one, as far as ten octaves.
    """
    step, farthest = STEPS_PER_OCTAVE, _MAX_OCTAVES * STEPS_PER_OCTAVE
    below = range(guess, guess - farthest - 1, -step)
    above = range(guess + step, guess + farthest + 1, step)
    low = next((index for index in (*below, *above) if is_true(index)), None)
    if low is None:
        return None
    high = low + step if low < guess else low + 1
    while is_true(high):
        low, high = high, high + step
        if high - guess > farthest:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_true(middle) else (low, middle)
    return low


def initial_sharpness(model: Model, start: Start, rng: np.random.Generator) -> float:
    """λ0 of the training rows: largest eigenvalue of the Hessian as the optimizer sees it."""
    hessian = Hessian(model.network, start.parameters, start.data.x_train, start.data.y_train)
    root = np.sqrt(rates(model))
    found = largest_eigenpairs(
        lambda direction: root * hessian.product(root * direction),
        model.network.num_parameters,
        rng=rng,
        tolerance=_TOLERANCE,
    )
    return float(found.values[0])


def summarise_stability(stability: pd.DataFrame, draws: np.ndarray) -> pd.DataFrame:
    """Geometric means over repetitions of what `measure_stability` found, with 95 % intervals.

    Parameters
    ----------
    stability : its rows, of all parameterizations and widths.
    draws : (n_draws, repetitions) of a bootstrap.

    Returns
    -------
    A row a parameterization and width: `linear_rate`, 2 / λ0, and both largest rates, each with
    `_low` and `_high`.
    """
    rows = []
    for (name, width), some in stability.groupby(["parameterization", "width"]):
        row = {"parameterization": name, "width": width}
        for column, values in (
            ("linear_rate", 2 / some["sharpness"]),
            ("largest_rate", some["largest_learning_rate"]),
            ("largest_rate_that_trains", some["largest_learning_rate_that_trains"]),
        ):
            logs = np.log(values.to_numpy(np.float64))
            low, high = np.quantile(logs[draws].mean(axis=1), (0.025, 0.975))
            row[column] = math.exp(logs.mean())
            row[f"{column}_low"], row[f"{column}_high"] = math.exp(low), math.exp(high)
        rows.append(row)
    return pd.DataFrame(rows)
