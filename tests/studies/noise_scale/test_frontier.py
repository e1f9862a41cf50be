"""From planted runs of a sweep to the critical batch sizes that they were made with."""

import numpy as np
import pandas as pd
import pytest

from minibutter.studies.noise_scale.frontier import (
    fastest_rates,
    fit_frontier,
    make_frontier,
    rates_to_add,
)

BATCH_SIZES = (4, 16, 64, 256, 1024)
GOALS = {0.3: (20.0, 15.0), 0.01: (300.0, 150.0)}
"""S_min and B_crit of every goal."""


def plant(slower=(2.0, 1.0, 1.5), multipliers=(0.5, 1.0, 2.0), seeds=(0, 1), scatter=0.0):
    """Runs whose steps lie on the hyperbolas at the best rate, and some factor higher at others."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "seed": seed,
                "batch_size": size,
                "multiplier": multiplier,
                "learning_rate": 0.1 * multiplier,
                "goal": goal,
                "steps": least
                * (1 + critical / size)
                * factor
                * np.exp(scatter * rng.standard_normal()),
                "smoothed_steps": least * (1 + critical / size) * factor + 2000 / size,
            }
            for seed in seeds
            for size in BATCH_SIZES
            for multiplier, factor in zip(multipliers, slower, strict=True)
            for goal, (least, critical) in GOALS.items()
        ]
    )


def test_planted_critical_batch_sizes_come_back():
    points, fits = make_frontier(plant(), np.random.default_rng(0))
    assert (points["multiplier"] == 1).all()
    assert not points["is_on_edge"].any()
    assert fits["goal"].tolist() == [0.3, 0.01]
    for fit, (least, critical) in zip(fits.itertuples(), GOALS.values(), strict=True):
        assert fit.critical_batch_size == pytest.approx(critical, rel=1e-6)
        assert fit.least_steps == pytest.approx(least, rel=1e-6)
        assert fit.least_examples == pytest.approx(least * critical, rel=1e-6)
        assert fit.rms_log_residual < 1e-6


def test_scattered_runs_have_the_truth_in_their_intervals():
    fits = fit_frontier(fastest_rates(plant(scatter=0.05)), np.random.default_rng(0))
    for fit, (_, critical) in zip(fits.itertuples(), GOALS.values(), strict=True):
        assert fit.critical_batch_size_low < critical < fit.critical_batch_size_high
        assert fit.critical_batch_size_high < 2 * fit.critical_batch_size_low


def test_a_lagging_average_of_the_error_turns_the_trend_round():
    """2000 examples later at every goal: at small batches a lot of steps, of an easy goal most."""
    lagging = make_frontier(plant(), np.random.default_rng(0), "smoothed_steps").fits
    easy, hard = lagging["critical_batch_size"]
    assert easy > 5 * GOALS[0.3][1]
    assert hard / easy < 0.2 * GOALS[0.01][1] / GOALS[0.3][1]


def test_one_rate_is_chosen_for_all_seeds():
    runs = plant()
    # Each seed is fastest at another rate; in the mean, both are slower there.
    runs.loc[(runs["seed"] == 0) & (runs["multiplier"] == 2.0), "steps"] *= 0.5
    runs.loc[(runs["seed"] == 1) & (runs["multiplier"] == 2.0), "steps"] *= 3
    points = fastest_rates(runs)
    assert (points["multiplier"] == 1).all()
    assert (points["n_seeds"] == 2).all()


def test_a_rate_at_which_a_seed_never_arrived_is_not_chosen():
    runs = plant()
    runs.loc[(runs["seed"] == 1) & (runs["multiplier"] == 1.0), "steps"] = np.nan
    assert (fastest_rates(runs)["multiplier"] == 2.0).all()
    runs["steps"] = np.nan
    assert fastest_rates(runs).empty
    assert fit_frontier(fastest_rates(runs), np.random.default_rng(0)).empty


def test_the_grid_grows_where_its_end_is_best():
    assert rates_to_add(plant()) == {}
    assert rates_to_add(plant(slower=(2.0, 1.5, 1.0))) == {size: [4.0] for size in BATCH_SIZES}
    both = plant(slower=(2.0, 1.5, 1.0))
    is_hard = (both["goal"] == 0.01) & (both["batch_size"] == 16)
    both.loc[is_hard & (both["multiplier"] == 0.5), "steps"] *= 0.1
    assert rates_to_add(both)[16] == [0.25, 4.0]


def test_a_goal_with_three_batch_sizes_has_no_fit():
    runs = plant()
    runs = runs[(runs["goal"] == 0.3) | (runs["batch_size"] < 256)]
    assert fit_frontier(fastest_rates(runs), np.random.default_rng(0))["goal"].tolist() == [0.3]
