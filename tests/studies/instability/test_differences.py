"""Measures of how far two trainings are apart."""

import numpy as np
import pytest

from minibutter.studies.instability.differences import (
    disagreement,
    fit_growth,
    relative_l1,
    relative_l2,
)


def test_relative_l1_is_2_for_opposite_signs_and_leaves_pairs_of_zeros_out():
    a = np.array([[1.0, 2.0], [1.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    b = np.array([[-1.0, -2.0], [1.0, 0.0], [1.0, -0.0], [0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(relative_l1(a, b), [2, 0, 1, 0, 1])
    assert np.isnan(relative_l1(np.array([np.nan, 1.0]), np.ones(2)))


def test_weights_near_zero_saturate_the_first_measure_and_not_the_second():
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.standard_normal(100), np.full(900, 1e-30)])
    b = a * np.concatenate([np.full(100, 1 + 1e-6), np.full(900, -1.0)])
    assert relative_l1(a, b) == pytest.approx(1.8, rel=1e-3)
    assert relative_l2(a, b) == pytest.approx(1e-6, rel=1e-3)


def test_relative_l2_of_float32_is_measured_in_float64():
    a = np.ones(10, np.float32)
    b = np.nextafter(a, np.float32(2))
    assert relative_l2(a, b) == pytest.approx(2**-23, rel=1e-6)
    assert relative_l2(a, np.zeros(10)) == pytest.approx(np.sqrt(2))
    assert relative_l2(np.zeros(3), np.zeros(3)) == 0


def test_disagreement_counts_rows_of_another_class():
    first = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]])
    second = np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [0.1, 0.9]])
    assert disagreement(first, second) == 0.25


def test_growth_is_found_again_and_ends_where_two_networks_have_parted():
    rng = np.random.default_rng(1)
    time = np.linspace(0.1, 40, 60)
    planted = 1e-8 * np.exp(0.7 * time + 0.05 * rng.standard_normal(60))
    difference = np.minimum(planted, 0.8)
    difference[0] = 0
    found = fit_growth(time, difference)
    assert found.rate == pytest.approx(0.7, abs=4 * found.standard_error)
    assert found.standard_error < 0.01
    assert found.start == pytest.approx(np.log(1e-8), abs=0.1)
    last = np.flatnonzero(planted <= 0.02)[-1]
    assert found.n_points == last  # the point at 0 is left out
    assert found.steepest == pytest.approx(0.7, rel=0.2)
    assert found.steepest >= found.rate
    assert fit_growth(time, np.zeros(60)) is None
    assert fit_growth(time[:4], difference[:4]) is None


def test_roundings_that_add_up_are_no_burst():
    time = np.geomspace(0.5, 100, 20)
    for power in (0.5, 1.0, 1.5):
        assert np.isnan(fit_growth(time, 1e-7 * time**power).steepest)


def test_a_burst_of_growth_is_found_where_it_is():
    time = np.arange(1.0, 30.0)
    found = fit_growth(time, 1e-7 * np.exp(0.5 * np.clip(time - 10, 0, 8)))
    assert found.steepest == pytest.approx(0.5)
    assert 10 <= found.steepest_from < found.steepest_to <= 18
    assert found.rate < 0.3


def test_a_difference_that_stays_has_no_growth():
    time = np.linspace(1, 100, 30)
    found = fit_growth(time, np.full(30, 1e-7) * (1 + 0.01 * np.cos(time)))
    assert abs(found.rate) < 1e-3
