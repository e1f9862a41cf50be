"""Non-negative least squares of relative errors, and what its coefficients are worth.

Energies of an epoch span six decades. An error of a tenth shall count as much in a small network as
in a large one, so that every row is divided by its own prediction; dividing by the measurement
instead would favour whatever was measured too low. Nothing here knows what the columns mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

CONDITION_STATED = 30.0
"""Condition index from which columns are named as hard to tell apart (Belsley, Kuh & Welsch 1980,
Regression Diagnostics, section 3.2)."""

CONDITION_MERGED = 1000.0
"""Beyond it two terms differ by less than a thousandth of what they have in common. Counters that
tick every millisecond do not resolve that, and what stands in one coefficient is arbitrary."""

_INVOLVED = 0.1
_MAX_ROUNDS = 50
_MAX_RATIO = 3.0

_REPLICATE_TOLERANCE = 1e-3
"""Replicates differ by far more."""


@dataclass(frozen=True)
class Dependence:
    """Columns that nearly add up to each other.

    Attributes
    ----------
    terms : their names.
    condition_index : largest singular value of the scaled design over the one that belongs to
        them; None where it is infinite.
    """

    terms: tuple[str, ...]
    condition_index: float | None


@dataclass(frozen=True)
class Merged:
    """A term that was left out because others cannot be told from it, and now contain it."""

    term: str
    into: tuple[str, ...]
    condition_index: float | None


def fit_relative(
    matrix: np.ndarray,
    target: np.ndarray,
    counts: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tolerance: float = 1e-7,
) -> np.ndarray:
    """Coefficients, none of them negative, with the least sum of squared relative errors.

    Parameters
    ----------
    matrix : float64, shape (n, k); no entry negative.
    target : float64, shape (n,), positive.
    counts : float64, shape (n,): how often each row counts; once by default.
    start : float64, shape (n,): a first guess of the predictions; `target` by default.
    tolerance : relative change of the predictions below which they are final.

    Returns
    -------
    float64, shape (k,). A column of zeros gets 0. Columns and target may have any units: scaling
    one scales its coefficient and nothing else.
    """
    repeats = np.ones(len(target)) if counts is None else counts
    predicted = target if start is None else start
    for _ in range(_MAX_ROUNDS):
        # A row that no column reaches yet must not get an infinite weight.
        predicted = np.clip(predicted, target / _MAX_RATIO, target * _MAX_RATIO)
        weights = np.sqrt(repeats) / predicted
        coefficients = _nonnegative(matrix * weights[:, None], target * weights)
        before, predicted = predicted, matrix @ coefficients
        if (np.abs(predicted - before) <= tolerance * before).all():
            break
    return coefficients


def _nonnegative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Non-negative least squares of columns of any scale."""
    norms = np.linalg.norm(matrix, axis=0)
    norms[norms == 0] = 1.0
    scaled = matrix / norms
    if len(scaled) > scaled.shape[1]:
        # The same problem in k rows: the solver's time grows with them.
        basis, scaled = np.linalg.qr(scaled)
        target = basis.T @ target
    solution, _ = nnls(scaled, target, maxiter=100 * scaled.shape[1])
    return solution / norms


def examine(
    matrix: np.ndarray, names: Sequence[str]
) -> tuple[list[int], tuple[Merged, ...], tuple[Dependence, ...], float | None]:
    """Which columns can be told apart.

    Parameters
    ----------
    matrix : float64, shape (n, k): rows as they are weighted in the fit, one a configuration.
    names : of the columns, the most wanted first: the last of dependent columns is left out.

    Returns
    -------
    kept : columns to fit. merged : those left out, because others contain them.
    dependences : among those kept, with a condition index over `CONDITION_STATED`.
    condition_index : of the columns kept.
    """
    kept = list(range(len(names)))
    merged: list[Merged] = []
    while True:
        indices, directions = _condition(matrix[:, kept])
        if np.isfinite(indices[-1]) and indices[-1] <= CONDITION_MERGED:
            break
        involved = [kept[place] for place in _involved(directions[-1])]
        last = involved[-1]
        into = tuple(names[place] for place in involved[:-1])
        merged.append(Merged(names[last], into, _finite(indices[-1])))
        kept.remove(last)
    dependences = tuple(
        Dependence(tuple(names[kept[place]] for place in _involved(direction)), _finite(index))
        for index, direction in zip(indices, directions, strict=True)
        if index > CONDITION_STATED
    )
    return kept, tuple(merged), dependences, _finite(indices[-1])


def _condition(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Condition indices of the columns scaled to length 1, ascending, and their directions."""
    scaled = matrix / np.linalg.norm(matrix, axis=0)
    _, values, directions = np.linalg.svd(scaled, full_matrices=True)
    # Rounding leaves of an exact dependence a value of this size.
    least = values[0] * max(matrix.shape) * np.finfo(float).eps
    padded = np.zeros(matrix.shape[1])
    padded[: len(values)] = np.where(values > least, values, 0.0)
    with np.errstate(divide="ignore"):
        return values[0] / padded, directions


def _involved(direction: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.abs(direction) >= _INVOLVED * np.abs(direction).max())


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def resample(groups: np.ndarray, n_replicates: int, seed: int) -> np.ndarray:
    """How often each row counts in every bootstrap replicate; a group's rows stay together.

    Parameters
    ----------
    groups : int, shape (n,): number of the group of each row, from 0.

    Returns
    -------
    float64, shape (n_replicates, n).
    """
    n_groups = int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_replicates)
    return drawn[:, groups].astype(np.float64)


def refit(
    matrix: np.ndarray, target: np.ndarray, counts: np.ndarray, coefficients: np.ndarray
) -> np.ndarray:
    """Coefficients of every bootstrap replicate.

    Parameters
    ----------
    matrix, target : as in `fit_relative`.
    counts : float64, shape (b, n), from `resample`.
    coefficients : float64, shape (k,), of the whole fit.

    Returns
    -------
    float64, shape (b, k).
    """
    start = matrix @ coefficients
    return np.array(
        [
            fit_relative(
                matrix[row > 0], target[row > 0], row[row > 0], start[row > 0], _REPLICATE_TOLERANCE
            )
            for row in counts
        ]
    )


def spread(
    coefficients: np.ndarray, replicates: np.ndarray, n_groups: int, n_mixed: float = 1.0
) -> np.ndarray:
    """Replicates moved away from the estimate for the degrees of freedom that the fit has used, and
    for what rows of different groups have in common.

    A bootstrap of few groups is too narrow by about sqrt(n / (n - k)). Where the deviations of m
    groups are in each row, and those of each group in the rows of m groups, it takes for m times
    as much as there is what has been seen once, and is too narrow by sqrt(m).

    Parameters
    ----------
    coefficients : shape (k,). replicates : shape (b, k).
    n_mixed : m, the mean over all rows.

    Returns
    -------
    float64, shape (b, k); none is negative.
    """
    n_active = int((coefficients > 0).sum())
    factor = np.sqrt(n_mixed * n_groups / max(n_groups - n_active, 1))
    return np.maximum(coefficients + (replicates - coefficients) * factor, 0.0)


def folds(groups: np.ndarray, seed: int, max_folds: int = 20) -> np.ndarray:
    """Fold of each row: whole groups, one each while there are no more than `max_folds`.

    Parameters
    ----------
    groups : int, shape (n,), from 0.

    Returns
    -------
    int, shape (n,).
    """
    n_groups = int(groups.max()) + 1
    order = np.random.default_rng(seed).permutation(n_groups)
    return (order % min(n_groups, max_folds))[groups]


def fit_left_out(matrix: np.ndarray, target: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """For every row the coefficients of a fit that has not seen its fold.

    Returns
    -------
    float64, shape (n, k).
    """
    coefficients = np.empty(matrix.shape)
    for left_out in np.unique(fold):
        out = fold == left_out
        coefficients[out] = fit_relative(matrix[~out], target[~out])
    return coefficients
