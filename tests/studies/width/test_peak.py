"""Optima, slopes and their intervals on planted curves."""

import math

import numpy as np
import pytest

from minibutter.studies.width.peak import (
    Curve,
    bounds,
    difference,
    draw_repetitions,
    find_peak,
    fit_slope,
    largest_ratio,
    vertex,
)

GRID = np.arange(2, 18) / 2


def draws_of(n=16, n_draws=300):
    return draw_repetitions(n, n_draws, np.random.default_rng(3))


def planted(peak, noise=0.0, common=0.0, seed=0, n=16):
    rng = np.random.default_rng(seed)
    accuracy = 0.93 - 0.004 * (GRID - peak) ** 2
    accuracy = accuracy + noise * rng.standard_normal((n, len(GRID)))
    return Curve(GRID, accuracy + common * rng.standard_normal((n, 1)))


def test_a_parabola_peaks_where_it_was_planted():
    place, height = vertex(GRID, planted(4.3).accuracy[0])
    assert place == pytest.approx(4.3)
    assert height == pytest.approx(0.93)


def test_a_lopsided_curve_peaks_near_its_top():
    curve = 0.9 - np.where(GRID < 5, 0.02 * (GRID - 5) ** 2, 0.005 * (GRID - 5) ** 2)
    place, _ = vertex(GRID, curve)
    assert 5 < place < 5.6


@pytest.mark.parametrize(("slope", "expected"), [(-1, -math.inf), (1, math.inf)])
def test_a_curve_without_a_top_is_best_beyond_the_grid(slope, expected):
    assert vertex(GRID, slope * GRID)[0] == expected


def test_a_spike_in_a_valley_is_no_peak():
    away = np.minimum(np.abs(GRID - 4.5), 1.5)
    place, _ = vertex(GRID, np.where(away == 0, 0.2, 0.13 * away))
    assert math.isnan(place)


def test_no_peak_is_extrapolated_beyond_the_points_that_it_was_fitted_to():
    rng = np.random.default_rng(0)
    found = [vertex(GRID, rng.random(len(GRID))) for _ in range(1000)]
    heights = [height for place, height in found if math.isfinite(place)]
    assert len(heights) > 400
    assert max(heights) < 1.2


def test_what_all_batch_sizes_share_does_not_widen_the_interval():
    quiet = find_peak(planted(4.3, noise=1e-3), draws_of())
    shaken = find_peak(planted(4.3, noise=1e-3, common=0.02), draws_of())
    assert shaken.batch.value == pytest.approx(quiet.batch.value)
    assert shaken.batch.high / shaken.batch.low == pytest.approx(quiet.batch.high / quiet.batch.low)
    assert shaken.accuracy.high - shaken.accuracy.low > quiet.accuracy.high - quiet.accuracy.low


def test_intervals_hold_the_planted_peak_about_as_often_as_they_say():
    draws = draws_of(n_draws=100)
    held = 0
    for seed in range(60):
        peak = find_peak(planted(4.3, noise=4e-3, seed=seed), draws).batch
        held += peak.low <= 2**4.3 <= peak.high
    assert held >= 51


def test_batch_sizes_at_which_a_repetition_fails_are_left_out():
    curve = planted(4.3)
    curve.accuracy[5, :4] = 0.1
    assert curve.trained().log2_batch[0] == GRID[4]
    assert find_peak(curve, draws_of()).batch.value == pytest.approx(2**4.3)


def test_an_optimum_at_the_end_of_the_grid_is_a_bound():
    peak = find_peak(Curve(GRID, np.tile(0.9 - GRID / 100, (16, 1))), draws_of())
    assert peak.batch.state == "upper bound"
    assert peak.batch.high == 2 ** GRID[0]
    few = find_peak(Curve(GRID[:3], np.ones((16, 3))), draws_of())
    assert few.batch.state == "unresolved"


def test_an_optimum_that_the_draws_do_not_share_is_unresolved():
    rng = np.random.default_rng(1)
    flat = [Curve(GRID, 0.9 + 1e-3 * rng.standard_normal((16, len(GRID)))) for _ in range(10)]
    found = [find_peak(curve, draws_of(n_draws=100)).batch for curve in flat]
    assert any("of the draws have no single peak" in batch.reason for batch in found)
    for batch in found:
        assert batch.state == "unresolved" or (batch.low, batch.high) != (None, None)


def test_infinite_draws_open_an_interval_and_many_without_answer_close_it():
    draws = np.linspace(0, 1, 101)
    assert bounds(draws, 0.9) == pytest.approx((0.05, 0.95))
    draws[-20:] = math.inf
    assert bounds(draws, 0.9) == (pytest.approx(0.05), None)
    draws[-20:] = math.nan
    assert bounds(draws, 0.9) == (None, None)


def test_slopes_are_those_planted_with_an_intercept_for_every_group():
    widths = [8, 16, 32, 16, 32, 64]
    groups = [1, 1, 1, 2, 2, 2]
    offsets = np.where(np.array(groups) == 1, 5.0, 9.0)
    logs = offsets - 0.8 * np.log2(widths)
    noise = 0.1 * np.random.default_rng(0).standard_normal((500, 6))
    slope = fit_slope(widths, logs, logs + noise, groups)
    assert slope.value == pytest.approx(-0.8)
    assert -1 < slope.low < -0.8 < slope.high < -0.6
    # Without the groups the second intercept would be taken for a slope.
    assert fit_slope(widths, logs, logs + noise).value > 0


def test_a_slope_of_draws_beyond_the_grid_has_no_interval():
    logs = np.array([3.0, 2.0, 1.0])
    draws = np.tile(logs, (100, 1))
    draws[:30, 0] = -math.inf
    slope = fit_slope([8, 16, 32], logs, draws)
    assert (slope.value, slope.low, slope.high) == (pytest.approx(-1), None, None)
    assert "30%" in slope.reason
    assert fit_slope([8], [3.0], np.zeros((10, 1))).value is None


def test_differences_of_slopes_keep_their_draws_together():
    logs = np.array([3.0, 2.0, 1.0])
    noise = np.random.default_rng(1).standard_normal((300, 3))
    first = fit_slope([8, 16, 32], logs, logs + noise)
    second = fit_slope([8, 16, 32], 0 * logs, noise)
    apart = difference(first, second)
    assert (apart.value, apart.low, apart.high) == pytest.approx((-1, -1, -1))


def test_the_largest_ratio_is_that_of_the_worst_pair():
    logs = {8: (3.0, 3.1), 16: (2.0, 1.5)}
    draws = {8: (np.full(50, 3.0), np.full(50, 3.1)), 16: (np.full(50, 2.0), np.full(50, 1.5))}
    factor, interval = largest_ratio(logs, draws)
    assert factor == pytest.approx(2**0.5)
    assert interval == pytest.approx((2**0.5, 2**0.5))
    assert largest_ratio({}, {}) == (None, (None, None))
