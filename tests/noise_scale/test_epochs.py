"""The noise scale of an epoch from its steps, and how often its interval holds the truth."""

import numpy as np
import pytest

from minibutter.noise_scale.epochs import noise_of_epoch

G = np.array([0.5, -1.0, 2.0, 0.3])
SCALES = np.array([3.0, 1.0, 2.0, 0.5])
SCALE = (SCALES**2).sum() / (G @ G)


def draw_steps(n_steps, batch_size, rng, last=None, drift=0.0):
    """Estimates of every step's |G|² and tr Σ, and weights; the last batch may be smaller, and G
    grows by a part of itself from the first step to the last."""
    sizes = [batch_size] * (n_steps - 1) + [last or batch_size]
    estimates = []
    for step, size in enumerate(sizes):
        grown = G * (1 + drift * step / n_steps)
        rows = grown + rng.standard_normal((size, len(G))) * SCALES
        trace = rows.var(axis=0, ddof=1).sum()
        estimates.append(((rows.mean(axis=0) ** 2).sum() - trace / size, trace))
    signals, traces = np.transpose(estimates)
    return signals, traces, np.array(sizes) - 1.0


@pytest.mark.parametrize(
    ("n_steps", "batch_size", "last"), [(3, 64, None), (8, 32, 5), (100, 8, 2)]
)
def test_intervals_hold_the_scale_as_often_as_they_say(n_steps, batch_size, last):
    rng = np.random.default_rng(n_steps)
    hits = []
    for _ in range(600):
        _, scale = noise_of_epoch(*draw_steps(n_steps, batch_size, rng, last))
        low, high = scale.low or 0.0, np.inf if scale.high is None else scale.high
        hits.append(low <= SCALE <= high)
    # 95 % of 600, three standard errors below; three steps have wide tails.
    assert np.mean(hits) > (0.92 if n_steps > 3 else 0.9)
    assert np.mean(hits) < 1


def test_averages_weigh_steps_by_what_they_are_worth():
    signals, traces = np.array([1.0, 4.0, np.nan]), np.array([2.0, 8.0, np.nan])
    noise, scale = noise_of_epoch(signals, traces, np.array([3.0, 1.0, 0.0]))
    assert (noise.squared_gradient, noise.trace) == (1.75, 3.5)
    assert noise.simple_noise_scale == 2.0
    assert (scale.state, scale.reason) == (
        "unresolved", "there are 2 steps; an interval takes three"
    )  # fmt: skip


def test_what_changes_from_the_first_step_to_the_last_is_no_error():
    rng = np.random.default_rng(1)
    widths = {}
    for drift in (0.0, 2.0):
        _, scale = noise_of_epoch(*draw_steps(400, 256, rng, drift=drift))
        widths[drift] = np.log(scale.high / scale.low)
    # |G|² grows nine times: its scatter alone would make an interval of 10 %.
    assert widths[2.0] < widths[0.0]


def test_a_scale_is_the_plain_ratio_in_the_middle_of_its_interval():
    noise, scale = noise_of_epoch(*draw_steps(50, 32, np.random.default_rng(2)))
    assert scale.state == "resolved"
    assert noise.simple_noise_scale == pytest.approx(np.sqrt(scale.low * scale.high))


def test_nothing_that_was_drawn_is_nothing_that_errs():
    noise, scale = noise_of_epoch(np.array([2.0]), np.array([6.0]), np.array([9.0]), is_exact=True)
    assert noise.simple_noise_scale == 3.0
    assert (scale.low, scale.high, scale.state) == (3.0, 3.0, "resolved")


def test_a_gradient_that_cannot_be_told_from_0_has_a_lower_bound_and_is_not_clipped():
    rng = np.random.default_rng(3)
    signals, traces, weights = draw_steps(200, 8, rng)
    noise, scale = noise_of_epoch(signals - signals.mean() - 0.01, traces, weights)
    assert noise.squared_gradient == pytest.approx(-0.01)
    assert np.isnan(noise.simple_noise_scale)
    assert (scale.state, scale.value, scale.high) == ("lower bound", None, None)
    assert scale.low > 0


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_steps_that_are_not_finite_leave_the_scale_open(spoiled):
    signals, traces, weights = draw_steps(20, 8, np.random.default_rng(4))
    traces[7] = spoiled
    noise, scale = noise_of_epoch(signals, traces, weights)
    assert not np.isfinite(noise.trace)
    assert (scale.state, scale.low, scale.high) == ("unresolved", None, None)


def test_an_epoch_of_single_rows_says_nothing():
    noise, scale = noise_of_epoch(np.full(4, np.nan), np.full(4, np.nan), np.zeros(4))
    assert np.isnan([noise.trace, noise.squared_gradient]).all()
    assert "no batch has two parts" in scale.reason
