"""Moving averages of signal and noise."""

import math

import numpy as np
import pytest

from minibutter.noise_scale.estimators import GradientNoise, noise_of_two_batches
from minibutter.noise_scale.streaming import StreamingNoise


def noise(trace, signal):
    return GradientNoise(signal, trace, "population")


def test_averages_are_weighted_means_from_the_first_update_on():
    stream, decay = StreamingNoise(0.9), 0.9
    pairs = np.random.default_rng(0).uniform(1, 2, (7, 2))
    for t, (trace, signal) in enumerate(pairs, start=1):
        stream.update(noise(trace, signal))
        weights = decay ** np.arange(t)[::-1]
        assert stream.trace == pytest.approx(np.average(pairs[:t, 0], weights=weights), rel=1e-12)
        assert stream.squared_gradient == pytest.approx(
            np.average(pairs[:t, 1], weights=weights), rel=1e-12
        )


def test_averages_are_divided_and_not_ratios_averaged():
    """Half of the steps have a negative |G|²: none of them alone has a noise scale."""
    stream = StreamingNoise(0.99)
    for step in range(400):
        stream.update(noise(8.0, 5.0 if step % 2 else -1.0))
    assert stream.trace / stream.squared_gradient == pytest.approx(4, rel=0.02)
    assert stream.estimate().state == "resolved"


def test_intervals_of_independent_steps_hold_the_noise_scale():
    """Mean estimation, d = 20 and s = 2, 8 and 64 examples a step: B_simple is 4."""
    rng, held, sizes = np.random.default_rng(1), [], []
    for _ in range(300):
        stream = StreamingNoise(0.98)
        gradients = 1 + 2 / math.sqrt(8) * rng.standard_normal((120, 8, 20))
        small = np.mean(np.sum(gradients**2, axis=2), axis=1)
        big = np.sum(gradients.mean(axis=1) ** 2, axis=1)
        found = noise_of_two_batches(small, big, 8, 64)
        for trace, signal in zip(found.trace, found.squared_gradient, strict=True):
            stream.update(noise(trace, signal))
        estimate = stream.estimate()
        held.append(estimate.low < 4 < estimate.high)
        sizes.append(estimate.high / estimate.low)
    assert 0.90 < np.mean(held) < 0.98
    assert np.median(sizes) < 1.3


def test_without_a_signal_the_average_has_no_value():
    rng, stream = np.random.default_rng(2), StreamingNoise(0.98)
    for _ in range(200):
        stream.update(noise(80 + rng.standard_normal(), 5 * rng.standard_normal()))
    estimate = stream.estimate()
    assert estimate.state == "lower bound"
    assert estimate.value is None
    assert estimate.low > 10


def test_a_single_update_has_no_scatter():
    stream = StreamingNoise(0.5)
    with pytest.raises(ValueError, match="no average before the first update"):
        _ = stream.trace
    stream.update(noise(8.0, 2.0))
    assert stream.trace == pytest.approx(8.0)
    assert stream.estimate().reason == "there are 1 updates; a scatter takes two"


def test_the_same_update_again_and_again_has_no_error():
    stream = StreamingNoise(0.9)
    for _ in range(50):
        stream.update(noise(8.0, 2.0))
    estimate = stream.estimate()
    assert estimate.value == pytest.approx(4, rel=1e-6)
    assert estimate.high - estimate.low < 1e-5


def test_without_memory_the_average_is_the_last_update_and_has_no_error_to_show():
    stream = StreamingNoise(0.0)
    stream.update(noise(8.0, 2.0))
    stream.update(noise(6.0, 2.0))
    assert stream.trace == 6.0
    assert stream.estimate().state == "unresolved"


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_decay_that_never_forgets_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay is .*; it must be in \[0, 1\)"):
        StreamingNoise(decay)


@pytest.mark.parametrize("pair", [(math.nan, 1.0), (1.0, math.inf)])
def test_a_step_that_diverged_is_refused_and_spoils_nothing(pair):
    stream = StreamingNoise(0.9)
    stream.update(noise(8.0, 2.0))
    with pytest.raises(ValueError, match="an average takes two finite numbers"):
        stream.update(noise(*pair))
    assert stream.trace == pytest.approx(8.0)
    assert stream.updates == 1
