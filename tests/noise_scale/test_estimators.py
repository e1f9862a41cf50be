"""Signal and noise of gradients on problems whose |G|² and tr Σ are known."""

from itertools import combinations

import numpy as np
import pytest

from minibutter.nn.moments import ExampleMoments
from minibutter.nn.network import Network
from minibutter.noise_scale.estimators import (
    noise_of_a_batch,
    noise_of_examples,
    noise_of_two_batches,
)


def mean_estimation(rng, shape, d=20, s=2.0):
    """Gradients θ - x at θ = 0 of the loss |θ - x|²/2, x ~ N(1, s²): G = -1, Σ = s² I."""
    return -(1 + s * rng.standard_normal((*shape, d)))


def squared(vectors):
    return np.sum(vectors**2, axis=-1)


def test_two_batches_find_the_noise_scale_of_the_estimation_of_a_mean():
    """d = 20, s = 2: |G|² = 20, tr Σ = 80, B_simple = B_noise = d s² / |θ - μ|² = 4."""
    gradients = mean_estimation(np.random.default_rng(0), (4000, 64))
    small = squared(gradients.reshape(4000, 16, 4, 20).mean(axis=2)).mean(axis=1)
    noise = noise_of_two_batches(small, squared(gradients.mean(axis=1)), 4, 64)
    # Standard errors of the means: √(5.167 / 4000) and √(42.67 / 4000).
    assert np.mean(noise.squared_gradient) == pytest.approx(20, abs=4 * 0.036)
    assert np.mean(noise.trace) == pytest.approx(80, abs=4 * 0.104)
    whole = noise_of_two_batches(np.mean(small), np.mean(squared(gradients.mean(axis=1))), 4, 64)
    assert whole.simple_noise_scale == pytest.approx(4, abs=0.03)
    # The mean of ratios is not the ratio of means.
    assert np.mean(noise.simple_noise_scale) > whole.simple_noise_scale + 0.02


def test_a_batch_of_one_beside_all_is_the_sample_variance():
    gradients = mean_estimation(np.random.default_rng(1), (64,))
    mean = gradients.mean(axis=0)
    two = noise_of_two_batches(squared(gradients).mean(), squared(mean), 1, 64)
    one = noise_of_examples(squared(gradients).mean(), squared(mean), 64, "population")
    assert two.trace == pytest.approx(gradients.var(axis=0, ddof=1).sum(), rel=1e-12)
    assert one.trace == pytest.approx(two.trace, rel=1e-12)
    assert one.squared_gradient == pytest.approx(two.squared_gradient, rel=1e-12)


def test_conventions_differ_by_what_the_noise_of_n_examples_adds():
    gradients = mean_estimation(np.random.default_rng(1), (50,))
    mean_square, squared_mean = squared(gradients).mean(), squared(gradients.mean(axis=0))
    empirical = noise_of_examples(mean_square, squared_mean, 50, "empirical")
    population = noise_of_examples(mean_square, squared_mean, 50, "population")
    assert empirical.trace == pytest.approx(gradients.var(axis=0).sum(), rel=1e-12)
    assert empirical.squared_gradient == squared_mean
    assert population.trace == pytest.approx(empirical.trace * 50 / 49, rel=1e-12)
    assert population.squared_gradient == pytest.approx(squared_mean - population.trace / 50)


def test_a_negative_signal_is_kept_and_has_no_noise_scale():
    noise = noise_of_examples(np.array([10.0, 10.0]), np.array([0.1, 5.0]), 20, "population")
    assert noise.squared_gradient[0] < 0
    assert np.isnan(noise.simple_noise_scale[0])
    assert noise.simple_noise_scale[1] > 0
    single = noise_of_examples(10.0, 0.1, 20, "population")
    assert np.isnan(single.simple_noise_scale)


def test_layers_add_up_in_signal_and_noise_but_not_in_noise_scale():
    mean_squares, squared_means = np.array([4.0, 9.0]), np.array([1.0, 6.0])
    layers = noise_of_examples(mean_squares, squared_means, 30, "population")
    whole = noise_of_examples(mean_squares.sum(), squared_means.sum(), 30, "population")
    assert layers.trace.sum() == pytest.approx(whole.trace)
    assert layers.squared_gradient.sum() == pytest.approx(whole.squared_gradient)
    assert layers.simple_noise_scale.sum() > 2 * whole.simple_noise_scale


def test_noise_of_batches_without_replacement_is_exact_for_every_size():
    """All batches of a data set of 6: the variance of their means, and |G|² of the data set."""
    gradients = mean_estimation(np.random.default_rng(2), (6,), d=3)
    mean = gradients.mean(axis=0)
    trace = gradients.var(axis=0, ddof=1).sum()
    squares = {}
    for size in range(1, 7):
        means = np.array(
            [gradients[list(rows)].mean(axis=0) for rows in combinations(range(6), size)]
        )
        expected = noise_of_a_batch(trace, size, 6)
        assert squared(means - mean).mean() == pytest.approx(expected, rel=1e-12, abs=1e-14)
        squares[size] = squared(means).mean()
    assert noise_of_a_batch(trace, 6, 6) == 0
    for small, big in ((1, 2), (2, 5), (3, 6)):
        noise = noise_of_two_batches(squares[small], squares[big], small, big, dataset_size=6)
        assert noise.trace == pytest.approx(trace, rel=1e-12)
        assert noise.squared_gradient == pytest.approx(squared(mean), rel=1e-12)
        endless = noise_of_two_batches(squares[small], squares[big], small, big)
        assert endless.squared_gradient == pytest.approx(squared(mean) - trace / 6, rel=1e-12)


def test_noise_scale_of_linear_regression_grows_as_the_error_shrinks():
    """x ~ N(0, I), y = w·x + ν: B_simple = (d + 1) + d s² / |e|²; d = 10, s = 0.7: 58.18 here."""
    rng = np.random.default_rng(3)
    d, s, n = 10, 0.7, 400_000
    e = np.full(d, np.sqrt(d * s**2 / (58.18 - 11) / d))
    x, nu = rng.standard_normal((n, d)), s * rng.standard_normal(n)
    gradients = (x @ e - nu)[:, None] * x
    noise = noise_of_examples(
        squared(gradients).mean(), squared(gradients.mean(axis=0)), n, "population"
    )
    assert noise.trace == pytest.approx((d + 1) * e @ e + d * s**2, rel=0.01)
    assert noise.squared_gradient == pytest.approx(e @ e, rel=0.05)
    assert noise.simple_noise_scale == pytest.approx(58.18, rel=0.05)


def test_noise_scale_of_softmax_regression_at_zero_is_a_formula_of_the_data(pooled_digits):
    """Balanced classes: B_simple = K (K - 1) E|x|² / Σ_k |μ_k - x̄|² - 1, on real digits."""
    images, labels = pooled_digits
    per_class = 800
    rows = np.concatenate([np.flatnonzero(labels[:, k])[:per_class] for k in range(10)])
    x, y = np.ascontiguousarray(images[rows]), np.ascontiguousarray(labels[rows])
    n_inputs = x.shape[1]
    network = Network(n_inputs, (n_inputs, 10), "classification", "relu", dtype="float64")
    parameters = np.zeros(network.num_parameters)
    network.weights(parameters, 0)[:] = np.eye(n_inputs)
    moments = ExampleMoments(network).moments(parameters, x, y)
    noise = noise_of_examples(
        moments.squared_norms.mean(axis=0), moments.mean_squared_norms, moments.n, "empirical"
    )
    features = np.column_stack([x, np.ones(len(x))])
    class_means = features.reshape(10, per_class, -1).mean(axis=1)
    between = squared(class_means - features.mean(axis=0)).sum()
    expected = 10 * 9 * squared(features).mean() / between - 1
    assert noise.simple_noise_scale[1] == pytest.approx(expected, rel=1e-10)
    assert np.isnan(noise.simple_noise_scale[0])  # the layer below gets no gradient


def test_noise_scale_in_equilibrium_is_that_of_the_stationary_chain():
    """θ ← θ - ε (h θ + noise): Var θ = ε s² / (B h (2 - ε h)), B_simple = B (2 - ε h) / (ε h)."""
    h, s2, batch_size, step = 3.0, 2.0, 8, 0.1
    rng = np.random.default_rng(4)
    theta, total, steps = np.zeros(2000), 0.0, 1500
    for i in range(steps + 100):
        noise = np.sqrt(s2 / batch_size) * rng.standard_normal(theta.size)
        theta -= step * (h * theta + noise)
        total += np.mean(theta**2) if i >= 100 else 0.0
    variance = total / steps
    assert variance == pytest.approx(0.00490196, rel=0.005)
    # What two batch sizes see there: E|g_B|² = h² Var θ + s² / B.
    signal = h**2 * variance
    noise = noise_of_two_batches(signal + s2 / 8, signal + s2 / 64, 8, 64)
    assert noise.simple_noise_scale == pytest.approx(45.333, rel=0.005)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_of_examples(1, 1, 5, "bayes"), "convention is 'bayes'"),
        (lambda: noise_of_examples(1, 1, 1, "population"), "needs at least 2 examples"),
        (lambda: noise_of_examples(1, 1, 0, "empirical"), "needs at least 1 examples"),
        (lambda: noise_of_two_batches(1, 1, 8, 8), "batch sizes are 8 and 8"),
        (lambda: noise_of_two_batches(1, 1, 0, 8), "batch sizes are 0 and 8"),
        (
            lambda: noise_of_two_batches(1, 1, 4, 8, 7),
            "batch size is 8; .* at most the data set, 7",
        ),
        (lambda: noise_of_a_batch(1.0, 0), "batch size is 0; it must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
