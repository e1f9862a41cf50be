"""What slices of a batch tell of the noise of gradients."""

import numpy as np
import pytest

from minibutter.nn.noise import SliceNorms, estimate_noise, noise_of_rows, noise_of_slices

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


# ---------------------------------------------------------------------------------------------
# For the rows of a training set


def batches_of(rows, batch_size, n_batches, rng, replace):
    """Gradients (n_batches, batch_size, d) of batches that are drawn from rows (D, d)."""
    draws = [rng.choice(len(rows), batch_size, replace) for _ in range(n_batches)]
    return rows[np.array(draws)]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("sizes", [(1,) * 8, (4, 4)])
def test_noise_of_a_training_set_is_unbiased_however_its_rows_are_drawn(sizes, replace):
    rng = np.random.default_rng(5)
    rows = G + rng.standard_normal((12, 3)) @ SIGMA_ROOT.T
    drawn = batches_of(rows, 8, 30_000, rng, replace)
    batch_squares = (drawn.mean(axis=1) ** 2).sum(axis=1)
    n_rows = None if replace else 12
    if sizes[0] == 1:
        row_squares = (drawn**2).sum(axis=2).mean(axis=1)
        noise = noise_of_rows(row_squares, batch_squares, np.full(len(drawn), 8), n_rows)
    else:
        parts = np.split(drawn, np.cumsum(sizes)[:-1], axis=1)
        squares = np.transpose([(part.mean(axis=1) ** 2).sum(axis=1) for part in parts])
        counts = np.tile(sizes, (len(drawn), 1))
        norms = SliceNorms(counts, squares, np.full(len(drawn), 8), batch_squares)
        noise = noise_of_slices(norms, n_rows)
    # Σ of rows that come again is that of all of them; of rows that do not, D - 1 divides.
    trace = rows.var(axis=0, ddof=0 if replace else 1).sum()
    signal = (rows.mean(axis=0) ** 2).sum()
    for values, expected in ((noise.gradient_squares, signal), (noise.covariance_traces, trace)):
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - expected) < 4 * error
        assert error < 0.05 * expected
    assert set(noise.weights) == {8 * (1 - 1 / len(sizes))}
    assert not noise.is_exact


def test_one_batch_of_all_rows_is_exact_row_by_row_and_not_by_slices():
    rows = np.random.default_rng(6).standard_normal((10, 3))
    row_squares, batch_square = (rows**2).sum(axis=1).mean(), (rows.mean(axis=0) ** 2).sum()
    ones = np.ones(1)
    noise = noise_of_rows(row_squares * ones, batch_square * ones, np.array([10]), 10)
    assert noise.is_exact
    assert noise.gradient_squares[0] == pytest.approx(batch_square, rel=1e-12)
    assert noise.covariance_traces[0] == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=1e-12)
    assert not noise_of_rows(row_squares * ones, batch_square * ones, np.array([10]), None).is_exact
    assert not noise_of_slices(draw_norms((5, 5), 1), 10).is_exact


def test_a_batch_of_one_part_weighs_nothing():
    noise = noise_of_rows(np.ones(2), np.ones(2), np.array([4, 1]), 5)
    assert noise.weights.tolist() == [3, 0]
    assert np.isnan(noise.covariance_traces).tolist() == [False, True]
    assert noise_of_slices(draw_norms((0, 7, 0), 2), None).weights.tolist() == [0, 0]
