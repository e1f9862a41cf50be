"""Runs to a goal, branches, best steps and the temperature, on planted numbers."""

import numpy as np
import pandas as pd
import pytest

from minibutter.studies.noise_scale.along import stream_ratios
from minibutter.studies.noise_scale.best_steps import lowest_point
from minibutter.studies.noise_scale.branching import (
    best_branches,
    largest_recovering_batch,
)
from minibutter.studies.noise_scale.conclusion import fit_step_laws
from minibutter.studies.noise_scale.following import adaptive_gains, predicted_gamma
from minibutter.studies.noise_scale.goals import SmoothedError, note
from minibutter.studies.noise_scale.problem import checkpoints, usual_rate
from minibutter.studies.noise_scale.temperature import temperature_responses


def test_goals_are_reached_once_and_several_at_a_time():
    reached = np.full(3, np.nan)
    for step, error in ((5, 0.4), (6, 0.15), (7, 0.5), (8, 0.15), (9, np.nan)):
        note(reached, [0.3, 0.2, 0.1], error, step)
    np.testing.assert_array_equal(reached, [6, 6, np.nan])


def test_the_moving_average_lags_by_its_window():
    """Of an error that falls steadily it is what the error was one window ago."""
    average = SmoothedError(2000)
    for examples in range(0, 20_000, 10):
        average.update(1 - examples / 20_000, 10)
    assert average.value == pytest.approx(2000 / 20_000, rel=0.02)


def test_the_moving_average_is_corrected_for_its_start():
    average = SmoothedError(2000)
    average.update(0.7, 3)
    assert average.value == pytest.approx(0.7)


def test_checkpoints_lie_at_growing_steps():
    assert checkpoints(10, 2.0) == [0, 1, 2, 4, 8, 10]
    assert checkpoints(8, 2.0) == [0, 1, 2, 4, 8]
    assert checkpoints(3, 1.1) == [0, 1, 2, 3]


def test_the_usual_rate_is_half_of_the_largest_at_64():
    assert usual_rate(64) == pytest.approx(0.25)
    assert usual_rate(1e9) == pytest.approx(0.5)


def plant_branches(critical=100.0, seeds=(0, 1)):
    sizes = np.array([4, 16, 64, 256, 1024])
    rows = [
        {
            "step": 7,
            "seed": seed,
            "batch_size": size,
            "multiplier": multiplier,
            "loss_before": 1.0,
            "loss_after": 1 - factor * 0.4 / (1 + size / critical),
        }
        for seed in seeds
        for size in sizes
        for multiplier, factor in ((0.5, 0.7), (1.0, 1.0), (2.0, -1.0))
    ]
    return pd.DataFrame(rows)


def test_branches_of_the_best_rate_show_which_batches_gain_nearly_all():
    best = best_branches(plant_branches())
    assert (best["multiplier"] == 1).all()
    assert best["share"].max() == 1
    # Of the gain at B = 4, B = 16 has 0.897 and B = 64 has 0.634.
    assert largest_recovering_batch(best, 0.2) == 16
    assert largest_recovering_batch(best, 0.1) == 4
    assert largest_recovering_batch(best, 0.5) == 64


def test_a_branch_that_diverged_counts_at_no_rate():
    branches = plant_branches()
    branches.loc[branches["multiplier"] == 1.0, "loss_after"] = np.inf
    assert (best_branches(branches)["multiplier"] == 0.5).all()


def test_the_lowest_point_of_a_parabola_is_found_between_the_lengths():
    lengths = np.array([0.1, 0.3, 0.6, 1.0])
    at, gain = lowest_point(lengths, lengths - lengths**2)
    assert (at, gain) == (pytest.approx(0.5), pytest.approx(0.25))
    assert np.isnan(lowest_point(lengths, lengths)[0])
    assert np.isnan(lowest_point(lengths, -lengths)[0])
    assert np.isnan(lowest_point(lengths, np.full(4, np.nan))[0])


def test_planted_best_steps_return_their_law():
    sizes = np.array([4.0, 16, 64, 256])
    table = pd.DataFrame(
        {
            "seed": 0,
            "step": 9,
            "batch_size": sizes,
            "best_step": 0.3 / (1 + 50 / sizes),
            "error": 0.2,
            "largest_step": 0.25,
            "noise_scale": 40.0,
        }
    )
    (law,) = fit_step_laws(table, np.random.default_rng(0)).itertuples()
    assert law.fitted_step == pytest.approx(0.3, rel=1e-6)
    assert law.fitted_scale == pytest.approx(50, rel=1e-6)
    table.loc[0, "best_step"] = np.nan
    assert fit_step_laws(table, np.random.default_rng(0)).empty


def test_the_rise_of_a_planted_noise_scale_is_found():
    steps = np.arange(10, 161, 10)
    signal = np.select(
        [steps <= 30, steps <= 50, steps <= 70, steps <= 90, steps <= 110],
        [9.0, 1.6, 0.5, 0.1, 0.8],
        default=9.0,
    )
    table = pd.DataFrame({"seed": 3, "step": steps, "trace": 2.0, "squared_gradient": signal})
    # The window is 50 to 90, and settled from 70.
    (row,) = temperature_responses(table, 50, 90).itertuples()
    assert row.rise == pytest.approx(16)
    assert row.rest == pytest.approx(2)


def test_moving_averages_are_compared_with_what_is_averaged_like_them():
    """|G|² halves every 20 steps, which an average over 50 steps cannot follow."""
    steps, decay = np.arange(101), 0.98
    signal = 0.5 ** (steps / 20)
    weights = [decay ** np.arange(step)[::-1] for step in steps[1:]]
    averages = [w @ signal[: w.size] / w.sum() for w in weights]
    along = pd.DataFrame(
        {
            "seed": 3,
            "step": steps,
            "trace": 10.0,
            "squared_gradient": signal,
            "stream_value": [np.nan, *(10 / np.array(averages))],
            "stream_state": ["unresolved", *["resolved"] * 100],
        }
    )
    np.testing.assert_allclose(stream_ratios(along, decay), [1.0], rtol=1e-12)
    twice = along.assign(stream_value=2 * along["stream_value"])
    np.testing.assert_allclose(stream_ratios(twice, decay), [2.0], rtol=1e-12)
    some = along[along["step"] % 10 == 0].assign(seed=4)
    assert stream_ratios(pd.concat([twice, some]), decay)[1] == pytest.approx(1, rel=0.02)
    unresolved = along.assign(stream_state="lower bound")
    assert stream_ratios(unresolved, decay).size == 0


def plant_run(power, batch_size=128, goal=0.05):
    """Checkpoints of a run whose noise scale is 100 s^power of its progress s."""
    s = np.linspace(0.01, 1, 400)
    scales = 100 * s**power
    between = (scales[1:] + scales[:-1]) / 2
    steps = np.append(0, np.cumsum(np.diff(s) * (1 + between / batch_size)))
    return pd.DataFrame(
        {
            "seed": 0,
            "step": steps,
            "trace": 3 * scales,
            "squared_gradient": 1.0,
            "error": np.where(s < 1, 0.5, goal),
        }
    )


@pytest.mark.parametrize(("power", "gamma"), [(0.0, 1.0), (0.5, 24 / 25), (1.0, 8 / 9)])
def test_gamma_of_planted_noise_scales_is_that_of_the_paper(power, gamma):
    assert predicted_gamma(plant_run(power), 128, 3.0, 0.05) == pytest.approx(gamma, abs=0.01)
    assert np.isnan(predicted_gamma(plant_run(power), 128, 3.0, 0.01))


def test_a_run_on_the_frontier_has_a_gamma_of_one():
    fits = pd.DataFrame(
        {
            "goal": [0.05],
            "least_steps": 100.0,
            "least_examples": 5000.0,
            "critical_batch_size_state": "resolved",
        }
    )
    runs = pd.DataFrame(
        {
            "seed": [0, 0],
            "goal": 0.05,
            "exchange_rate": 50.0,
            "multiplier": [1.0, 2.0],
            "steps": [200.0, 300.0],
            "examples": [10_000.0, 20_000.0],
        }
    )
    (gain,) = adaptive_gains(runs, fits, plant_run(1.0), 128, 3.0).itertuples()
    assert (gain.multiplier, gain.measured_gamma) == (1.0, pytest.approx(1.0))
    assert gain.predicted_gamma == pytest.approx(8 / 9, abs=0.01)
