"""Batches that follow the noise scale, against integrals that are known."""

import numpy as np
import pytest

from minibutter.noise_scale.adaptive import (
    AdaptiveBatch,
    adaptive_batch_size,
    adaptive_frontier,
)

PROGRESS = np.linspace(0, 1, 200_001)


@pytest.mark.parametrize(
    ("noise_scales", "gamma"),
    [
        (np.full_like(PROGRESS, 30.0), 1.0),
        (10 * np.sqrt(PROGRESS), 24 / 25),
        (7 * PROGRESS, 8 / 9),
    ],
    ids=["constant", "root", "line"],
)
def test_gain_of_adaptive_batches_over_a_fixed_one(noise_scales, gamma):
    frontier = adaptive_frontier(PROGRESS, noise_scales)
    assert frontier.gamma == pytest.approx(gamma, abs=1e-6)
    rate = frontier.average_noise_scale
    steps, examples = frontier.adaptive_cost(rate)
    assert steps / frontier.least_steps == pytest.approx(1 + np.sqrt(gamma), abs=1e-6)
    assert examples / frontier.least_examples == pytest.approx(1 + np.sqrt(gamma), abs=1e-6)


@pytest.mark.parametrize("rate", [0.1, 3.0, 500.0])
def test_costs_lie_on_their_frontiers(rate):
    frontier = adaptive_frontier(PROGRESS, 10 * np.sqrt(PROGRESS))

    def product(cost):
        steps, examples = cost
        return (steps / frontier.least_steps - 1) * (examples / frontier.least_examples - 1)

    assert product(frontier.adaptive_cost(rate)) == pytest.approx(frontier.gamma)
    assert product(frontier.fixed_cost(rate)) == pytest.approx(1)


def test_no_other_schedule_spends_less_at_its_exchange_rate():
    noise_scales, rate = 10 * np.sqrt(PROGRESS) + 1, 12.0

    def cost(batch_sizes):
        steps = np.trapezoid(1 + noise_scales / batch_sizes, PROGRESS)
        return rate * steps + np.trapezoid(noise_scales + batch_sizes, PROGRESS)

    best = adaptive_batch_size(noise_scales, rate)
    steps, examples = adaptive_frontier(PROGRESS, noise_scales).adaptive_cost(rate)
    assert cost(best) == pytest.approx(rate * steps + examples, rel=1e-9)
    wave = np.sin(9 * PROGRESS)
    for size in (-0.05, 0.05):
        assert cost(best * (1 + size)) > cost(best)
        assert cost(best * (1 + size * wave)) > cost(best)


def test_batch_is_the_root_of_rate_times_noise_scale():
    assert adaptive_batch_size(100.0, 4.0) == 20
    np.testing.assert_array_equal(adaptive_batch_size(np.array([0.0, 9.0]), 1.0), [0, 3])


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_exchange_rate_is_refused(rate):
    with pytest.raises(ValueError, match="exchange_rate is"):
        adaptive_batch_size(1.0, rate)


@pytest.mark.parametrize("noise_scale", [-1.0, np.nan, np.array([1.0, np.nan])])
def test_a_noise_scale_that_is_not_resolved_is_refused(noise_scale):
    with pytest.raises(ValueError, match="negative or NaN"):
        adaptive_batch_size(noise_scale, 1.0)


@pytest.mark.parametrize(
    ("progress", "noise_scales", "message"),
    [
        ([0, 1], [1, 2, 3], "shapes are"),
        ([0], [1], "at least 2 numbers"),
        ([0, 1, 1], [1, 2, 3], "progress does not increase"),
        ([0, 1, 2], [1, -2, 3], "must not be negative"),
        ([0, 1, 2], [0, 0, 0], "nor all 0"),
        ([0, 1, 2], [0, np.nan, 0], "must not be negative"),
    ],
)
def test_measurements_that_make_no_frontier_are_refused(progress, noise_scales, message):
    with pytest.raises(ValueError, match=message):
        adaptive_frontier(progress, noise_scales)


# ---------------------------------------------------------------------------------------------
# From epoch to epoch


def test_batch_size_follows_the_averages_of_signal_and_noise():
    batch = AdaptiveBatch(exchange_rate=100.0, least=16, most=300)
    assert batch.size == 16
    epochs = [(400.0, 4.0)]
    batch.follow(epochs)
    assert batch.size == 100  # √(100 · 400 / 4)
    epochs.append((100.0, 0.0))
    batch.follow(epochs)
    # Corrected averages with decay 1/2: (400 + 2 · 100) / 3 and (4 + 0) / 3.
    assert batch.size == round(np.sqrt(100 * 600 / 4))
    batch.follow(epochs)  # nothing new
    assert batch.size == round(np.sqrt(100 * 600 / 4))
    batch.follow([*epochs, (1e9, 1e-3)])
    assert batch.size == 300
    batch.follow([*epochs, (1e9, 1e-3), *[(0.0, 1e12)] * 9])
    assert batch.size == 16


def test_a_run_that_goes_on_finds_its_batch_size_again():
    rng = np.random.default_rng(0)
    epochs = [(float(t), float(g)) for t, g in rng.lognormal(0, 1, (9, 2))]
    undisturbed = AdaptiveBatch(1000.0, 2, 4096)
    for n in range(1, 10):
        undisturbed.follow(epochs[:n])
        again = AdaptiveBatch(1000.0, 2, 4096)
        again.follow(epochs[:n])
        assert again.size == undisturbed.size > 2


@pytest.mark.parametrize("epoch", [(5.0, -1e3), (np.nan, 1.0), (5.0, np.inf)])
def test_an_epoch_that_says_nothing_leaves_the_batch_size(epoch):
    batch = AdaptiveBatch(100.0, 16, 300)
    batch.follow([(400.0, 4.0), epoch])
    assert batch.size == 100


def test_a_trace_below_0_asks_for_the_least_batch():
    batch = AdaptiveBatch(100.0, 16, 300)
    batch.follow([(400.0, 4.0), (-500.0, 4.0)])
    assert batch.size == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100.0, 16, 15), "batches from 16 to 15 rows: there are none"),
        ((100.0, 0, 15), "batches from 0 to 15 rows"),
        ((0.0, 1, 2), "exchange_rate is 0.0"),
        ((np.nan, 1, 2), "exchange_rate is nan"),
    ],
)
def test_rules_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveBatch(*arguments)
