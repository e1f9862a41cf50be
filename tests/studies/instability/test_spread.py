"""Spreads of accuracies that are planted, and what a finite test set makes of errors."""

import numpy as np
import pandas as pd
import pytest

from minibutter.studies.instability.spread import analyse_spread

N_TEST = 500


def table_of(right):
    """Runs of an array (orders, ks, n_test) of right rows."""
    return pd.DataFrame(
        {
            "order": order,
            "k": 2 * k + 1,
            "accuracy": right[order, k].mean(),
            "right": np.packbits(right[order, k]).tobytes().hex(),
            "n_test": right.shape[2],
        }
        for order in range(right.shape[0])
        for k in range(right.shape[1])
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_independent_errors_make_both_spreads_and_that_of_a_finite_test_set(rng):
    chance = rng.beta(9, 1, N_TEST)
    spread = analyse_spread(table_of(rng.random((40, 30, N_TEST)) < chance), rng, 300)
    expected = 100 * np.sqrt(np.sum(chance * (1 - chance))) / N_TEST
    assert spread.finite_test_set == pytest.approx(expected, rel=0.02)
    assert spread.over_k_unbiased == pytest.approx(expected, rel=0.1)
    assert spread.over_orders_unbiased == pytest.approx(expected, rel=0.1)
    assert spread.ratio == pytest.approx(1, abs=0.1)
    assert spread.low < spread.ratio < spread.high
    assert spread.over_k_unbiased_low < spread.over_k_unbiased < spread.over_k_unbiased_high
    assert expected < spread.binomial
    assert spread.mean_accuracy == pytest.approx(100 * chance.mean(), abs=0.2)


def test_orders_that_decide_leave_no_spread_to_perturbations(rng):
    right = rng.random((8, 1, N_TEST)) < rng.uniform(0.7, 0.95, (8, 1, 1))
    spread = analyse_spread(table_of(np.repeat(right, 5, axis=1)), rng, 300)
    assert spread.over_k == 0
    assert spread.over_orders > 3
    assert (spread.ratio, spread.low, spread.high) == (0, 0, 0)


def test_the_official_deviation_and_the_unbiased_one_differ_by_their_denominator(rng):
    right = rng.random((2, 6, N_TEST)) < 0.9
    spread = analyse_spread(table_of(right), rng, 50)
    table = 100 * right.mean(axis=2)
    assert spread.over_k == pytest.approx(np.mean([row.std() for row in table]))
    assert spread.over_orders == pytest.approx(np.mean([column.std() for column in table.T]))
    assert spread.over_k_unbiased == pytest.approx(np.sqrt(table.var(axis=1, ddof=1).mean()))


def test_identical_runs_have_no_ratio(rng):
    right = np.repeat(rng.random((1, 1, N_TEST)) < 0.9, 6, axis=0).repeat(3, axis=1)
    spread = analyse_spread(table_of(right), rng, 50)
    assert spread.over_k == spread.over_orders == spread.finite_test_set == 0
    assert np.isnan(spread.ratio)


def test_the_interval_holds_the_planted_ratio_most_of_the_time():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(40):
        # Accuracies of 12 orders whose variance is as large as that of rounding.
        table = rng.standard_normal((12, 1)) + rng.standard_normal((12, 6))
        right = np.arange(N_TEST) < (400 + 8 * table)[..., None]
        spread = analyse_spread(table_of(right), rng, 400)
        hits += spread.low <= np.sqrt(1 / 2) <= spread.high
    assert hits >= 30
