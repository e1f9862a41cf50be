"""How noisy the gradients of batches are: what the slices of a batch tell of it, step by step.

A slice of b rows and its batch of B rows give two gradients of one point whose expected squared
norms differ by their noise alone: |G|² + tr(Σ) / b and |G|² + tr(Σ) / B, with G the gradient of the
loss and Σ the covariance of the gradients of single rows. Two equations, two unknowns.

Source: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1. They take the small batch from one
rank of a data-parallel run; here every slice counts.
"""

from typing import NamedTuple

import numpy as np


class StepNoise(NamedTuple):
    """Noise of gradients in the steps of an epoch, each from the parts of its batch: single rows,
    or slices. A batch of one part tells nothing: its estimates are NaN, and its weight is 0."""

    gradient_squares: np.ndarray  # float64 (steps,): |G|², unbiased; may be negative
    covariance_traces: np.ndarray  # float64 (steps,): tr(Σ), unbiased
    weights: np.ndarray  # float64 (steps,): rows times (1 - 1 / parts), what each is worth
    is_exact: bool  # every batch is the whole training set, row by row: nothing was drawn


class SliceNorms(NamedTuple):
    """Squared norms of gradients in the steps of an epoch, without the weight penalty."""

    slice_rows: np.ndarray  # int64 (steps, slices): rows of the slices
    slice_squares: np.ndarray  # float64 (steps, slices): of their mean gradients; NaN without rows
    batch_rows: np.ndarray  # int64 (steps,): rows of the batches
    batch_squares: np.ndarray  # float64 (steps,): of their mean gradients


class NoiseEstimates(NamedTuple):
    """Unbiased, each from one step alone, so that single ones may be negative.

    The ratio of the means over many steps estimates the noise scale B_simple = tr(Σ) / |G|². The
    mean of the ratios does not, and may be anything where |G|² is near zero.
    """

    gradient_squares: np.ndarray  # float64 (steps,): |G|²
    covariance_traces: np.ndarray  # float64 (steps,): tr(Σ)


def estimate_noise(norms: SliceNorms) -> NoiseEstimates:
    """|G|² and tr(Σ) of every step; NaN where fewer than two slices have rows.

    An epoch draws its rows without replacement from n. That leaves tr(Σ) as it is, with Σ that of
    the n rows divided by n - 1; |G|² of these rows is tr(Σ) / n more than is estimated here.

    Parameters
    ----------
    norms : from a `SlicedGroup`.
    """
    has_rows = norms.slice_rows > 0
    counts = has_rows.sum(axis=1)
    squares = np.where(has_rows, norms.slice_squares, 0.0).sum(axis=1) / counts
    # Slices of several sizes: the noise of each is one over its rows.
    noise_of_slices = np.where(has_rows, 1 / np.maximum(norms.slice_rows, 1), 0.0).sum(axis=1)
    apart = np.where(counts > 1, noise_of_slices / counts - 1 / norms.batch_rows, np.nan)
    traces = (squares - norms.batch_squares) / apart
    return NoiseEstimates(norms.batch_squares - traces / norms.batch_rows, traces)


def noise_of_slices(norms: SliceNorms, n_rows: int | None) -> StepNoise:
    """`estimate_noise`, for the mean loss of the rows that batches are drawn from.

    Parameters
    ----------
    norms : from a `SlicedGroup`.
    n_rows : D of the training set, from which an epoch draws without replacement; None where it
        draws every row anew.
    """
    parts = (norms.slice_rows > 0).sum(axis=1)
    squares, traces = estimate_noise(norms)
    return _of_training_set(squares, traces, norms.batch_rows, parts, n_rows)


def noise_of_rows(
    row_squares: np.ndarray, batch_squares: np.ndarray, batch_rows: np.ndarray, n_rows: int | None
) -> StepNoise:
    """The same from single rows beside their batches, which is as much as a batch can tell.

    Parameters
    ----------
    row_squares : (steps,), mean of |g_i|² over the rows of each batch.
    batch_squares : (steps,), |g|² of the batches' mean gradients.
    batch_rows : (steps,), rows of the batches.
    n_rows : as for `noise_of_slices`.
    """
    apart = np.where(batch_rows > 1, 1 - 1 / batch_rows, np.nan)
    traces = (row_squares - batch_squares) / apart
    squares = batch_squares - traces / batch_rows
    return _of_training_set(squares, traces, batch_rows, batch_rows, n_rows)


def _of_training_set(
    squares: np.ndarray,
    traces: np.ndarray,
    batch_rows: np.ndarray,
    parts: np.ndarray,
    n_rows: int | None,
) -> StepNoise:
    """Without replacement, a batch of B of D rows has the noise 1/B - 1/D and not 1/B."""
    if n_rows is not None:
        squares = squares + traces / n_rows
    is_exact = n_rows is not None and bool(np.all((batch_rows == n_rows) & (parts == n_rows)))
    return StepNoise(squares, traces, batch_rows * (1 - 1 / parts), is_exact)
