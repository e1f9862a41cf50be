"""Intervals of noise scales: their formulas, how often they hold, and when there is none."""

import math
from itertools import permutations

import numpy as np
import pytest

from minibutter.estimate import Estimate
from minibutter.noise_scale.estimators import noise_of_examples, noise_of_two_batches
from minibutter.noise_scale.intervals import (
    NoiseCovariance,
    jackknife_noise_scale,
    noise_scale_of_examples,
    normal_covariance,
    ratio_estimate,
    trace_of_squared_covariance,
)

D, S, N = 20, 2.0, 64
TRACE_OF_SQUARE, ALONG = D * S**4, D * S**2  # with G = 1: Gᵀ Σ G = s² |G|²


def draw(rng, repeats, n=N, shift=1.0):
    return shift + S * rng.standard_normal((repeats, n, D))


def squared(vectors):
    return np.sum(vectors**2, axis=-1)


EXPECTED = {
    # block: Var tr Σ, Var |G|², covariance
    1: (10.16, 5.159, -0.159),
    4: (42.67, 5.167, -0.667),
    16: (213.3, 5.208, -3.33),
    32: (640, 5.3125, -10),
}


@pytest.mark.parametrize("block", EXPECTED)
def test_errors_of_two_batch_estimates_are_those_of_the_formula(block):
    found = normal_covariance(TRACE_OF_SQUARE, ALONG, N, block)
    np.testing.assert_allclose(found, EXPECTED[block], rtol=2e-3)


@pytest.mark.parametrize("block", EXPECTED)
def test_errors_of_two_batch_estimates_are_those_of_a_simulation(block):
    gradients = draw(np.random.default_rng(block), 4000)
    small = squared(gradients.reshape(4000, N // block, block, D).mean(axis=2)).mean(axis=1)
    noise = noise_of_two_batches(small, squared(gradients.mean(axis=1)), block, N)
    found = np.cov(noise.trace, noise.squared_gradient)
    expected = normal_covariance(TRACE_OF_SQUARE, ALONG, N, block)
    assert found[0, 0] == pytest.approx(expected.variance_of_trace, rel=0.1)
    assert found[1, 1] == pytest.approx(expected.variance_of_signal, rel=0.1)
    error = math.sqrt(found[0, 0] * found[1, 1] / 4000)
    assert found[0, 1] == pytest.approx(expected.covariance, abs=4 * error)


def test_trace_of_the_squared_covariance_has_no_bias_with_more_parameters_than_examples():
    gradients = draw(np.random.default_rng(0), 4000, n=6, shift=3.0)
    found = [trace_of_squared_covariance(g @ g.T) for g in gradients]
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(TRACE_OF_SQUARE, abs=4 * error)
    assert error < 0.02 * TRACE_OF_SQUARE
    naive = [np.sum(np.cov(g, rowvar=False) ** 2) for g in gradients]
    assert np.mean(naive) > 4 * TRACE_OF_SQUARE


def test_trace_of_the_squared_covariance_is_the_sum_over_different_examples():
    g = np.random.default_rng(1).standard_normal((6, 3)) + 2
    gram = g @ g.T
    pairs = np.mean([gram[i, j] ** 2 for i, j in permutations(range(6), 2)])
    triples = np.mean([gram[i, j] * gram[j, k] for i, j, k in permutations(range(6), 3)])
    quadruples = np.mean([gram[i, j] * gram[k, m] for i, j, k, m in permutations(range(6), 4)])
    expected = pairs - 2 * triples + quadruples
    assert trace_of_squared_covariance(gram) == pytest.approx(expected, rel=1e-10)


def intervals_of_examples(gradients):
    mean = gradients.mean(axis=0)
    return noise_scale_of_examples(
        squared(gradients),
        gradients @ mean,
        trace_of_squared_covariance(gradients @ gradients.T),
    )


def intervals_of_blocks(gradients, block):
    blocks = gradients.reshape(-1, block, D)
    means = blocks.mean(axis=1)
    return jackknife_noise_scale(
        np.full(len(blocks), block),
        squared(blocks).mean(axis=1),
        squared(means),
        means @ gradients.mean(axis=0),
    )


@pytest.mark.parametrize(
    "method",
    [
        intervals_of_examples,
        lambda gradients: intervals_of_blocks(gradients, 1),
        lambda gradients: intervals_of_blocks(gradients, 4),
    ],
    ids=["normal", "jackknife of examples", "jackknife of blocks of 4"],
)
def test_intervals_hold_the_noise_scale_as_often_as_they_say(method):
    """B_simple is 4; 95 % of 600 intervals should hold it, give or take 1.8 %."""
    estimates = [method(g) for g in draw(np.random.default_rng(2), 600)]
    assert all(estimate.state == "resolved" for estimate in estimates)
    held = np.mean([estimate.low < 4 < estimate.high for estimate in estimates])
    assert 0.92 < held < 0.98
    widths = [estimate.high / estimate.low for estimate in estimates]
    assert 1.3 < np.median(widths) < 1.8
    assert np.mean([estimate.value for estimate in estimates]) == pytest.approx(4, rel=0.01)


def test_the_value_is_corrected_for_the_bias_of_a_ratio():
    gradients = draw(np.random.default_rng(3), 3000, n=16)
    noise = noise_of_examples(
        squared(gradients).mean(axis=1), squared(gradients.mean(axis=1)), 16, "population"
    )
    covariance = normal_covariance(TRACE_OF_SQUARE, ALONG, 16)
    values = [
        ratio_estimate(trace, signal, covariance).value
        for trace, signal in zip(noise.trace, noise.squared_gradient, strict=True)
        if signal > 2 * math.sqrt(covariance.variance_of_signal)
    ]
    plain = np.mean(noise.simple_noise_scale)
    assert plain > 4.2
    assert abs(np.mean(values) - 4) < 0.4 * (plain - 4)


def test_leaving_out_a_block_is_done_exactly():
    """Against means of what is left, with blocks of different sizes."""
    gradients = draw(np.random.default_rng(4), 1, n=20)[0]
    sizes = np.array([5, 7, 8])
    blocks = np.split(gradients, np.cumsum(sizes)[:-1])
    pairs = []
    for left in range(3):
        rest = np.concatenate([block for i, block in enumerate(blocks) if i != left])
        noise = noise_of_examples(
            squared(rest).mean(), squared(rest.mean(axis=0)), len(rest), "population"
        )
        pairs.append((noise.trace, noise.squared_gradient))
    scatter = np.cov(np.array(pairs).T, ddof=0) * 2
    whole = noise_of_examples(
        squared(gradients).mean(), squared(gradients.mean(axis=0)), 20, "population"
    )
    covariance = NoiseCovariance(scatter[0, 0], scatter[1, 1], scatter[0, 1])
    expected = ratio_estimate(whole.trace, whole.squared_gradient, covariance)
    found = jackknife_noise_scale(
        sizes,
        np.array([squared(block).mean() for block in blocks]),
        np.array([squared(block.mean(axis=0)) for block in blocks]),
        np.array([block.mean(axis=0) @ gradients.mean(axis=0) for block in blocks]),
    )
    assert found.state == expected.state
    assert found.low == pytest.approx(expected.low, rel=1e-10)


def test_without_a_signal_there_is_a_lower_bound_and_no_value():
    estimates = [intervals_of_examples(g) for g in draw(np.random.default_rng(5), 200, shift=0.0)]
    states = {estimate.state for estimate in estimates}
    assert states <= {"lower bound", "unresolved", "resolved"}
    bounded = [estimate for estimate in estimates if estimate.state == "lower bound"]
    assert len(bounded) > 150
    for estimate in bounded:
        assert estimate.value is None
        assert estimate.high is None
        assert estimate.low > 0
        assert "cannot be told from 0" in estimate.reason
    # A resolved one needs a signal that is not there: within the confidence.
    assert sum(estimate.state == "resolved" for estimate in estimates) < 15


@pytest.mark.parametrize(
    ("trace", "signal", "covariance", "state", "reason"),
    [
        (80.0, 20.0, (1.0, 1.0, 0.0), "resolved", ""),
        (80.0, -20.0, (1.0, 1.0, 0.0), "unresolved", "|G|² is -20 ± 1.96"),
        (80.0, -1.0, (1.0, 1.0, 0.0), "lower bound", "|G|² is -1 ± 1.96"),
        (1.0, 1.0, (1.0, 1.0, 0.0), "unresolved", "|G|² is 1 ± 1.96"),
        (1.0, 20.0, (1.0, 1.0, 0.0), "upper bound", "tr Σ is 1 ± 1.96"),
        (-9.0, -20.0, (1.0, 1.0, 0.0), "unresolved", "|G|² is -20 ± 1.96"),
        (-9.0, 20.0, (1.0, 1.0, 0.0), "unresolved", "tr Σ is -9 ± 1.96"),
        (np.nan, 20.0, (1.0, 1.0, 0.0), "unresolved", "tr Σ is nan, |G|² is 20.0"),
        (80.0, 20.0, (np.nan, 1.0, 0.0), "unresolved", "their errors are not finite"),
    ],
)
def test_what_the_data_leave_open_is_said(trace, signal, covariance, state, reason):
    found = ratio_estimate(trace, signal, NoiseCovariance(*covariance))
    assert found.state == state
    assert reason in found.reason
    assert (found.value is None) == (state != "resolved")
    assert (found.low is None) == (state not in ("resolved", "lower bound"))
    assert (found.high is None) == (state not in ("resolved", "upper bound"))


def test_bounds_hold_the_ratios_that_the_errors_allow():
    found = ratio_estimate(80.0, -1.0, NoiseCovariance(1.0, 1.0, 0.0))
    assert found.low == pytest.approx((80 - 1.959964) / (-1 + 1.959964), rel=1e-6)
    found = ratio_estimate(1.0, 20.0, NoiseCovariance(1.0, 1.0, 0.0))
    assert found.high == pytest.approx((1 + 1.959964) / (20 - 1.959964), rel=1e-6)
    assert Estimate.at_least(math.inf, "why").state == "unresolved"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normal_covariance(1, 1, 10, 4), "10 examples in blocks of 4"),
        (lambda: normal_covariance(1, 1, 4, 4), "at least two whole blocks"),
        (lambda: trace_of_squared_covariance(np.eye(3)), r"shape \(3, 3\)"),
        (lambda: trace_of_squared_covariance(np.ones((4, 5))), r"shape \(4, 5\)"),
        (lambda: jackknife_noise_scale([1, 1], [1, 1], [1, 1], [1, 1]), "there are 2 blocks"),
        (lambda: ratio_estimate(1, 1, NoiseCovariance(0, 0, 0), 1.0), "confidence is 1.0"),
    ],
)
def test_too_few_examples_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
