"""Fits of steps against batch size."""

import numpy as np
import pytest

from minibutter.studies.noise_scale.pareto import fit_pareto, fit_step_law

BATCH_SIZES = 2.0 ** np.arange(1, 12)


def steps_of(critical, least=70.0, batch_sizes=BATCH_SIZES):
    return least * (1 + critical / batch_sizes)


def fit(batch_sizes, steps, **options):
    return fit_pareto(batch_sizes, steps, np.random.default_rng(0), **options)


@pytest.mark.parametrize("critical", [3.0, 20.0, 200.0, 1500.0])
def test_a_hyperbola_gives_its_numbers_back(critical):
    found = fit(BATCH_SIZES, steps_of(critical))
    assert found.critical_batch_size.value == pytest.approx(critical, rel=1e-10)
    assert found.least_steps.value == pytest.approx(70, rel=1e-10)
    assert found.least_examples.value == pytest.approx(70 * critical, rel=1e-10)
    assert found.rms_log_residual < 1e-12
    assert found.critical_batch_size.low == pytest.approx(critical, rel=1e-9)


def test_steps_and_examples_lie_on_the_frontier():
    found = fit(BATCH_SIZES, steps_of(100.0))
    steps = steps_of(100.0) / found.least_steps.value
    examples = BATCH_SIZES * steps_of(100.0) / found.least_examples.value
    np.testing.assert_allclose((steps - 1) * (examples - 1), 1, rtol=1e-8)


def test_intervals_hold_the_critical_batch_size_as_often_as_they_say():
    """Three seeds at each size with an error of 10 %, as good sweeps have."""
    rng, sizes, held, fits = np.random.default_rng(1), np.repeat(BATCH_SIZES, 3), [], []
    for _ in range(150):
        steps = steps_of(60.0, batch_sizes=sizes) * np.exp(0.1 * rng.standard_normal(sizes.size))
        found = fit_pareto(sizes, steps, rng, resamples=200)
        estimate = found.critical_batch_size
        held.append(estimate.low < 60 < estimate.high)
        fits.append(found)
    assert 0.90 < np.mean(held) < 0.99
    values = [found.critical_batch_size.value for found in fits]
    assert np.median(values) == pytest.approx(60, rel=0.03)
    assert np.mean([found.rms_log_residual for found in fits]) == pytest.approx(0.1, rel=0.1)


def test_no_other_hyperbola_fits_better():
    rng = np.random.default_rng(2)
    steps = steps_of(60.0) * np.exp(0.2 * rng.standard_normal(BATCH_SIZES.size))
    found = fit(BATCH_SIZES, steps)

    def misfit(critical, least):
        return np.sum((np.log(steps) - np.log(steps_of(critical, least))) ** 2)

    best = misfit(found.critical_batch_size.value, found.least_steps.value)
    assert best == pytest.approx(len(steps) * found.rms_log_residual**2)
    for change in (0.999, 1.001):
        assert misfit(found.critical_batch_size.value * change, found.least_steps.value) > best
        assert misfit(found.critical_batch_size.value, found.least_steps.value * change) > best


def test_batches_that_are_all_too_large_give_an_upper_bound():
    rng = np.random.default_rng(3)
    steps = steps_of(0.01) * np.exp(0.05 * rng.standard_normal(BATCH_SIZES.size))
    found = fit(BATCH_SIZES, steps)
    assert found.critical_batch_size.state == "upper bound"
    assert 0.01 < found.critical_batch_size.high < 2
    assert found.critical_batch_size.value is None
    assert found.least_examples.state == "unresolved"
    assert "no batch is small enough" in found.critical_batch_size.reason


def test_batches_that_are_all_too_small_give_a_lower_bound():
    rng = np.random.default_rng(3)
    steps = steps_of(1e7) * np.exp(0.05 * rng.standard_normal(BATCH_SIZES.size))
    found = fit(BATCH_SIZES, steps)
    assert found.critical_batch_size.state == "lower bound"
    assert 1000 < found.critical_batch_size.low < 1e7
    assert found.least_steps.state == "unresolved"
    assert "fall as 1 / B at the largest batch, 2048" in found.critical_batch_size.reason


def test_the_same_draws_give_the_same_intervals():
    steps = steps_of(60.0) * np.exp(0.1 * np.random.default_rng(4).standard_normal(11))
    assert fit(BATCH_SIZES, steps) == fit(BATCH_SIZES, steps)


def test_law_of_best_steps_gives_its_numbers_back():
    best = 0.27 / (1 + 96 / BATCH_SIZES)
    found = fit_step_law(BATCH_SIZES, best, np.random.default_rng(0))
    assert found.noise_scale.value == pytest.approx(96, rel=1e-10)
    assert found.largest_step.value == pytest.approx(0.27, rel=1e-10)
    assert found.rms_log_residual < 1e-12


@pytest.mark.parametrize(
    ("sizes", "steps", "message"),
    [
        ([1, 2, 2, 1], [1, 2, 3, 4], "fewer than 3 different batch sizes"),
        ([1, 2, 3], [1, 2], r"shapes are \(3,\) and \(2,\)"),
        ([1, 2, 4], [1, np.inf, 2], "a value is not positive and finite"),
        ([1, 2, 4], [1, 0, 2], "a value is not positive and finite"),
        ([0, 2, 4], [1, 2, 3], "a batch size is not positive and finite"),
    ],
)
def test_runs_without_a_result_are_refused(sizes, steps, message):
    with pytest.raises(ValueError, match=message):
        fit(sizes, steps)
