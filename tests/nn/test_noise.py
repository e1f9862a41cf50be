"""What slices of a batch tell of the noise of gradients."""

import numpy as np
import pytest

from minibutter.nn.noise import SliceNorms, estimate_noise

G = np.array([0.5, -1.0, 2.0])
SIGMA_ROOT = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [0.0, -1.0, 0.5]])
TRACE = np.trace(SIGMA_ROOT @ SIGMA_ROOT.T)


def draw_norms(sizes, n_steps, seed=0):
    """Norms of slices of batches whose rows have gradients around G."""
    rng = np.random.default_rng(seed)
    rows = G + rng.standard_normal((n_steps, sum(sizes), 3)) @ SIGMA_ROOT.T
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    squares = [
        (part.mean(axis=1) ** 2).sum(axis=1) if part.shape[1] else np.full(n_steps, np.nan)
        for part in parts
    ]
    return SliceNorms(
        slice_rows=np.tile(sizes, (n_steps, 1)),
        slice_squares=np.transpose(squares),
        batch_rows=np.full(n_steps, sum(sizes)),
        batch_squares=(rows.mean(axis=1) ** 2).sum(axis=1),
    )


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (1, 1), (3, 4, 3, 4, 4), (0, 1, 0, 2, 5)])
def test_estimates_are_unbiased_for_slices_of_any_sizes(sizes):
    estimates = estimate_noise(draw_norms(sizes, 40_000))
    for values, expected in zip(estimates, (G @ G, TRACE), strict=True):
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - expected) < 4 * error
        assert error < 0.05 * expected


def test_equal_slices_give_the_estimators_of_the_paper():
    norms = draw_norms((4, 4, 4), 5)
    small, large = norms.slice_squares.mean(axis=1), norms.batch_squares
    gradient_squares, covariance_traces = estimate_noise(norms)
    np.testing.assert_allclose(gradient_squares, (12 * large - 4 * small) / (12 - 4), rtol=1e-12)
    np.testing.assert_allclose(covariance_traces, (small - large) / (1 / 4 - 1 / 12), rtol=1e-12)


def test_slices_of_single_rows_give_the_sample_variance():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((6, 3))
    norms = SliceNorms(
        np.ones((1, 6), int), (rows**2).sum(axis=1)[None], np.array([6]),
        np.array([(rows.mean(axis=0) ** 2).sum()]),
    )  # fmt: skip
    trace = rows.var(axis=0, ddof=1).sum()
    np.testing.assert_allclose(estimate_noise(norms).covariance_traces, trace, rtol=1e-12)


@pytest.mark.parametrize("sizes", [(7,), (0, 7, 0)])
def test_one_slice_with_rows_tells_nothing(sizes):
    estimates = estimate_noise(draw_norms(sizes, 2))
    assert np.isnan(estimates).all()
