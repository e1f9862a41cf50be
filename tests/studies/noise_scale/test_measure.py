"""The noise scale of a network on real digits, at one point and while it trains."""

import numpy as np
import pytest

from minibutter.nn.gradients import BatchGradient
from minibutter.nn.moments import ExampleMoments, MomentTrainer, StepMoments
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.noise_scale.streaming import StreamingNoise
from minibutter.studies.noise_scale.measure import measure_noise, noise_of_steps


@pytest.fixture
def problem(pooled_digits):
    """A network that has not learnt anything yet, and 3000 digits."""
    network = Network(196, (32, 10), "classification", "relu")
    parameters = network.initial_parameters("he_uniform", np.random.default_rng(0))
    x, y = (array[:3000].astype(np.float32) for array in pooled_digits)
    return network, parameters, x, y


def test_noise_at_a_point_is_the_covariance_of_the_gradients_of_its_examples(problem):
    network, parameters, x, y = problem
    x, y = x[:40], y[:40]
    measured = measure_noise(ExampleMoments(network, 16), parameters, x, y)
    single = BatchGradient(network, 1)
    rows = np.array(
        [single.gradient(parameters, x[i : i + 1], y[i : i + 1]) for i in range(40)], np.float64
    )
    mean = rows.mean(axis=0)
    empirical, population = measured.empirical.total, measured.population.total
    assert empirical.squared_gradient == pytest.approx(mean @ mean, rel=1e-4)
    assert empirical.trace == pytest.approx(rows.var(axis=0).sum(), rel=1e-4)
    assert population.trace == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=1e-4)
    assert population.squared_gradient == pytest.approx(
        mean @ mean - population.trace / 40, rel=1e-4
    )
    assert measured.empirical.trace.shape == (2,)
    ratio = population.simple_noise_scale
    estimate = measured.simple_noise_scale
    assert estimate.low * estimate.high == pytest.approx(ratio**2, rel=1e-4)


def test_intervals_of_samples_hold_the_noise_scale_of_all_digits(problem):
    """600 digits at a time, of 3000; the noise scale of an untrained network is some tens."""
    network, parameters, x, y = problem
    tool = ExampleMoments(network)
    whole = measure_noise(tool, parameters, x, y).empirical.total.simple_noise_scale
    assert 10 < whole < 100
    found = [
        measure_noise(tool, parameters, x[i : i + 600], y[i : i + 600]).simple_noise_scale
        for i in range(0, 3000, 600)
    ]
    assert sum(estimate.low < whole < estimate.high for estimate in found) >= 4
    assert all(estimate.high / estimate.low < 2 for estimate in found)


def test_steps_that_hardly_move_stream_the_noise_of_their_data_set(problem):
    network, parameters, x, y = problem
    x, y = x[:300], y[:300]  # of which 64 are a large part
    exact = measure_noise(ExampleMoments(network), parameters, x, y)
    trainer = MomentTrainer(
        *(network, parameters, make_optimizer("sgd", 1e-9), x, y),
        batch_size=64,
        shuffle=np.random.default_rng(1),
    )
    stream = StreamingNoise(0.99)
    for _ in range(40):
        for noise in noise_of_steps(trainer.run_epoch(), dataset_size=300):
            stream.update(noise.total)
    assert stream.updates == 40 * 5
    # tr Σ divided by 299, and |G|² of the mean loss of all 300.
    assert stream.trace == pytest.approx(exact.population.total.trace, rel=0.01)
    assert stream.squared_gradient == pytest.approx(
        exact.empirical.total.squared_gradient, rel=0.03
    )
    estimate = stream.estimate()
    assert estimate.low < exact.empirical.total.simple_noise_scale < estimate.high


def test_a_batch_of_one_row_has_nothing_to_compare_with():
    squares = np.array([[4.0, 2.0], [3.0, 1.0], [9.0, 9.0]])
    steps = StepMoments(
        np.array([5, 5, 1]), np.zeros(3), np.zeros(3), squares, np.array([[1.0, 1.0]] * 3)
    )
    first, second = noise_of_steps(steps)
    np.testing.assert_allclose(first.trace, [3.75, 1.25])
    np.testing.assert_allclose(first.squared_gradient, [0.25, 0.75])
    assert first.total.simple_noise_scale == 5
    assert second.total.trace == pytest.approx(2.5)


def test_too_few_rows_for_an_interval_are_refused(problem):
    network, parameters, x, y = problem
    with pytest.raises(ValueError, match="there are 2 rows; noise with an interval takes at least"):
        measure_noise(ExampleMoments(network), parameters, x[:2], y[:2])
