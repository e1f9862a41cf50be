"""Least squares of relative errors, without knowing what the columns mean."""

import numpy as np
import pytest

from minibutter.energy.model.regression import (
    examine,
    fit_left_out,
    fit_relative,
    folds,
    refit,
    resample,
    spread,
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_an_exact_combination_is_found(rng):
    matrix = rng.uniform(0, 1, (30, 3))
    assert fit_relative(matrix, matrix @ [2.0, 0.0, 5.0]) == pytest.approx([2, 0, 5], abs=1e-9)


def test_no_coefficient_is_negative(rng):
    matrix = rng.uniform(0.5, 1, (40, 3))
    target = matrix @ [3.0, -1.0, 1.0]
    assert np.linalg.lstsq(matrix, target)[0][1] < -0.9
    assert (fit_relative(matrix, target) >= 0).all()


def test_units_of_columns_and_target_scale_their_coefficients_and_nothing_else(rng):
    matrix = 10 ** rng.uniform(-3, 3, (50, 3))
    target = matrix @ [1.0, 2.0, 3.0] * rng.lognormal(0, 0.1, 50)
    coefficients = fit_relative(matrix, target)
    scales = np.array([1e-12, 1.0, 1e9])
    scaled = fit_relative(matrix * scales, target * 1e6)
    assert scaled * scales / 1e6 == pytest.approx(coefficients, rel=1e-6)


def test_scaling_a_row_changes_nothing_because_errors_are_relative(rng):
    matrix = rng.uniform(0, 1, (50, 3))
    target = matrix @ [1.0, 2.0, 3.0] * rng.lognormal(0, 0.1, 50)
    factors = 10 ** rng.uniform(-6, 6, 50)
    scaled = fit_relative(matrix * factors[:, None], target * factors)
    assert scaled == pytest.approx(fit_relative(matrix, target), rel=1e-6)


def test_noise_of_a_fifth_does_not_bias_the_fit_low(rng):
    # Rows divided by their measurements would favour those measured too low: 4 % too little here.
    column = 10 ** rng.uniform(-3, 3, (20000, 1))
    target = column[:, 0] * rng.normal(1, 0.2, 20000)
    assert fit_relative(column, target) == pytest.approx([1.0], rel=0.006)


def test_a_row_that_counts_twice_is_two_rows(rng):
    matrix = rng.uniform(0, 1, (20, 2))
    target = matrix @ [1.0, 2.0] * rng.lognormal(0, 0.2, 20)
    counts = rng.integers(1, 4, 20)
    repeated = fit_relative(np.repeat(matrix, counts, 0), np.repeat(target, counts))
    assert fit_relative(matrix, target, counts.astype(float)) == pytest.approx(repeated, rel=1e-6)


def test_a_column_of_zeros_gets_nothing(rng):
    matrix = np.column_stack([rng.uniform(1, 2, 9), np.zeros(9)])
    assert fit_relative(matrix, 3 * matrix[:, 0]) == pytest.approx([3, 0])


def test_independent_columns_are_all_kept(rng):
    kept, merged, dependences, condition = examine(rng.uniform(0, 1, (30, 3)), "abc")
    assert (kept, merged, dependences) == ([0, 1, 2], (), ())
    assert 1 < condition < 30


@pytest.mark.parametrize(("deviation", "is_stated"), [(0.01, True), (1.0, False)])
def test_columns_that_nearly_agree_are_named(rng, deviation, is_stated):
    a, c = rng.uniform(1, 2, (2, 100))
    b = 7e-9 * a * (1 + deviation * rng.uniform(-1, 1, 100))
    kept, merged, dependences, _ = examine(np.column_stack([a, b, c]), ["a", "b", "c"])
    assert (kept, merged) == ([0, 1, 2], ())
    assert [each.terms for each in dependences] == ([("a", "b")] if is_stated else [])


@pytest.mark.parametrize(("deviation", "is_merged"), [(0.01, False), (0.001, True)])
def test_columns_that_agree_to_a_thousandth_are_not_kept_apart(rng, deviation, is_merged):
    a = rng.uniform(1, 2, 100)
    b = a * (1 + deviation * rng.uniform(-1, 1, 100))
    kept, merged, _, _ = examine(np.column_stack([a, b]), ["a", "b"])
    assert (kept, len(merged)) == (([0], 1) if is_merged else ([0, 1], 0))
    assert all(each.condition_index > 1000 for each in merged)


def test_the_last_of_columns_that_agree_is_merged_into_the_others(rng):
    a, b, d = rng.uniform(1, 2, (3, 50))
    matrix = np.column_stack([a, b, 2e-9 * a + 3e-9 * b, d])
    kept, (merged,), _, _ = examine(matrix, ["a", "b", "sum", "d"])
    assert kept == [0, 1, 3]
    assert (merged.term, merged.into, merged.condition_index) == ("sum", ("a", "b"), None)


def test_of_fewer_rows_than_columns_no_more_columns_are_kept_than_rows(rng):
    kept, merged, _, _ = examine(rng.uniform(1, 2, (2, 5)), "abcde")
    assert len(kept) == 2
    assert len(merged) == 3
    assert examine(rng.uniform(1, 2, (1, 3)), "abc")[0] == [0]


def test_a_bootstrap_draws_groups_whole():
    groups = np.array([0, 0, 1, 2, 2, 2])
    counts = resample(groups, 200, seed=1)
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 3:5] == counts[:, [5]]).all()
    assert (counts[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(counts, axis=0)) == 10  # All ways to draw 3 of 3.


def test_folds_hold_whole_groups_of_nearly_the_same_number():
    groups = np.repeat(np.arange(50), 3)
    fold = folds(groups, seed=1)
    assert all(len(set(fold[groups == group])) == 1 for group in range(50))
    assert set(np.bincount(fold) // 3) == {2, 3}
    assert len(set(folds(np.arange(7), seed=1))) == 7


def test_rows_left_out_do_not_touch_their_coefficients(rng):
    matrix = rng.uniform(1, 2, (12, 2))
    target = matrix @ [1.0, 2.0]
    fold = np.arange(12) // 3
    spoilt = np.where(fold == 2, 100 * target, target)
    coefficients = fit_left_out(matrix, spoilt, fold)
    assert coefficients[fold == 2] == pytest.approx(np.tile([1.0, 2.0], (3, 1)), rel=1e-6)
    assert (coefficients[fold != 2].sum(axis=1) > 3.1).all()


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say(rng):
    truth = np.array([1.0, 2.0, 4.0])
    n_trials, n = 100, 40
    covered = np.zeros(3)
    for trial in range(n_trials):
        matrix = 10 ** rng.uniform(-1, 1, (n, 3))
        target = matrix @ truth * rng.lognormal(0, 0.1, n)
        coefficients = fit_relative(matrix, target)
        counts = resample(np.arange(n), 60, seed=trial)
        replicates = spread(coefficients, refit(matrix, target, counts, coefficients), n)
        low, high = np.quantile(replicates, [0.05, 0.95], axis=0)
        covered += (low <= truth) & (truth <= high)
    # 300 intervals: one standard deviation is 1.7 %, and 60 replicates lose about 2 %.
    assert 0.83 <= covered.mean() / n_trials <= 0.95
