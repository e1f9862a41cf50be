"""The largest stable learning rate, its definitions and 2 / λ0."""

import math

import numpy as np
import pytest

from minibutter.studies.width.data import DIRECTION, stream
from minibutter.studies.width.networks import make_fixed_starts, rates
from minibutter.studies.width.stability import (
    descend,
    initial_sharpness,
    largest_true,
    measure_stability,
    never_rises,
    summarise_stability,
    trains,
)

SMALL = {"hidden_layers": 1, "sigma0": 1.0, "base_width": 8}


def starts_of(parameterization, width=8, **other):
    return make_fixed_starts(
        *("digits", None),
        n_rows=64,
        n_repetitions=3,
        seed=0,
        parameterization=parameterization,
        width=width,
        **{**SMALL, **other},
    )


@pytest.mark.parametrize("guess", [-15, 0, 17, 18, 50])
def test_bisection_finds_the_last_index_that_holds(guess):
    assert largest_true(lambda index: index <= 17, guess) == 17


def test_a_dead_network_that_guesses_frequencies_does_not_train():
    assert not trains(np.array([2.4, 2.29, 2.29, 2.29]), 10)
    assert never_rises(np.array([2.4, 2.29, 2.29, 2.29]))


@pytest.mark.parametrize("guess", [0, 9, 10, 14, 17, 40])
def test_a_statement_that_fails_far_below_as_well_has_an_upper_border(guess):
    assert largest_true(lambda index: 10 <= index <= 17, guess) == 17


@pytest.mark.parametrize("always", [True, False])
def test_a_statement_that_never_changes_has_no_border(always):
    assert largest_true(lambda index: always, 0) is None


def test_a_leap_with_a_return_trains_but_rises():
    leap = np.array([2.3, 9.0, 4.0, 2.0, 1.0, 0.9, 0.8, 0.7])
    assert trains(leap, 10)
    assert not never_rises(leap)
    assert trains(leap[::-1], 10) is False
    assert never_rises(np.minimum(leap, 2.3))
    leap[2] = math.nan
    assert not trains(leap, 10)
    assert not never_rises(leap)


def test_sharpness_is_that_of_the_optimizers_coordinates():
    model, starts = starts_of("ntk")
    sharpness = initial_sharpness(model, starts[0], stream(0, 0, DIRECTION))
    standard, same = starts_of("standard")
    assert rates(standard).tolist() == [1.0] * standard.network.num_parameters
    scale = rates(model)
    assert set(np.round(scale, 12)) == {round(1 / 64, 12), round(1 / 8, 12), 1.0}
    plain = initial_sharpness(standard, same[0], stream(0, 0, DIRECTION))
    assert plain > sharpness
    assert plain < sharpness * 64


def test_a_small_step_of_gradient_descent_falls_as_the_gradient_says():
    model, starts = starts_of("standard")
    losses = descend(model, starts, 1e-3, 3)
    assert losses.shape == (3, 3)
    assert (np.diff(losses, axis=0) < 0).all()
    # A single start is what a group would train in place.
    np.testing.assert_array_equal(descend(model, starts[:1], 1e-3, 3), losses[:, :1])
    again = descend(model, starts, 1e-3, 3)
    np.testing.assert_array_equal(losses, again)


def test_the_largest_rate_without_a_rise_is_near_two_over_the_sharpness():
    table = measure_stability(
        None, dataset="digits", parameterization="standard", width=16, n_steps=24, n_rows=64,
        n_repetitions=3, seed=0, **SMALL,
    )  # fmt: skip
    linear = 2 / table["sharpness"]
    ratio = table["largest_learning_rate"] / linear
    assert ((ratio > 0.5) & (ratio < 16)).all()
    assert (table["largest_learning_rate_that_trains"] > linear).all()
    table = table.assign(parameterization="standard", width=16)
    summary = summarise_stability(table, np.zeros((5, 3), int))
    assert summary.loc[0, "linear_rate_low"] == pytest.approx(linear[0])
    assert summary.loc[0, "linear_rate"] == pytest.approx(np.exp(np.log(linear).mean()))
