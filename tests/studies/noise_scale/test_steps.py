"""What a step gains on a quadratic loss, and where gradient descent settles on one."""

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov

from minibutter.studies.noise_scale.steps import (
    LocalModel,
    equilibrium_noise_scales,
    stationary_noise_scales,
)

H, G, SIGMA = np.diag([1.0, 4, 9]), np.array([1, -2, 0.5]), np.diag([2, 0.5, 1])


def local_model():
    return LocalModel(float(G @ G), float(G @ H @ G), float(np.trace(H @ SIGMA)))


def test_noise_scale_and_best_step_of_a_quadratic_loss():
    model = local_model()
    assert model.noise_scale == pytest.approx(13 / 19.25)
    assert model.largest_optimal_step == pytest.approx(0.272727, abs=1e-6)
    assert model.largest_gain == pytest.approx(0.715909, abs=1e-6)
    assert np.trace(SIGMA) / model.squared_gradient == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("batch_size", "step", "gain"),
    [(1, 0.162791, 0.427326), (10, 0.255474, 0.670620), (100, 0.270898, 0.711107)],
)
def test_best_step_and_gain_of_a_batch(batch_size, step, gain):
    model = local_model()
    assert model.optimal_step(batch_size) == pytest.approx(step, abs=1e-6)
    assert model.optimal_gain(batch_size) == pytest.approx(gain, abs=1e-6)
    best = model.optimal_step(batch_size)
    assert model.gain(best, batch_size) == pytest.approx(model.optimal_gain(batch_size))
    assert model.gain(1.01 * best, batch_size) < model.gain(best, batch_size)
    assert model.gain(0.99 * best, batch_size) < model.gain(best, batch_size)
    assert model.gain(2 * best, batch_size) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_gain_is_what_noisy_steps_gain(batch_size):
    model, step = local_model(), 0.2
    noise = np.random.default_rng(0).multivariate_normal(np.zeros(3), SIGMA / batch_size, 200_000)
    moves = -step * (G + noise)
    gains = -(moves @ G) - np.sum(moves @ H * moves, axis=1) / 2
    error = np.std(gains) / np.sqrt(len(gains))
    assert model.gain(step, batch_size) == pytest.approx(np.mean(gains), abs=4 * error)


@pytest.mark.parametrize("numbers", [(0.0, 1.0), (1.0, 0.0), (1.0, -2.0), (np.nan, 1.0)])
def test_a_point_without_a_best_step_is_refused(numbers):
    with pytest.raises(ValueError, match="best step only where both are positive"):
        LocalModel(*numbers, 1.0)


# ---------------------------------------------------------------------------------------------
# Equilibrium


def draw_quadratic(seed=0, d=3):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, d, d))
    return a @ a.T + np.eye(d), b @ b.T


def test_equilibrium_follows_from_the_stationary_covariance_of_small_steps():
    hessian, covariance = draw_quadratic()
    batch_size, step = 16, 0.01
    m = solve_continuous_lyapunov(hessian, step / batch_size * covariance)
    simple = np.trace(covariance) / np.trace(hessian @ hessian @ m)
    noise = np.trace(hessian @ covariance) / np.trace(hessian @ hessian @ hessian @ m)
    found = equilibrium_noise_scales(hessian, covariance, batch_size, step)
    assert found.simple == pytest.approx(simple, rel=1e-10)
    assert found.noise == pytest.approx(noise, rel=1e-10)


def test_printed_formulas_of_the_paper_are_others():
    hessian, covariance = draw_quadratic()
    found = equilibrium_noise_scales(hessian, covariance, 16, 0.01)
    square = hessian @ hessian
    simple = 16 / 0.01 * np.trace(covariance) / np.trace(square @ covariance)
    noise = 16 / 0.01 * np.trace(hessian @ covariance) / np.trace(square @ hessian @ covariance)
    assert found.simple > 2 * simple
    assert found.noise > 2 * noise


def test_units_of_the_loss_cancel_in_the_noise_scales():
    """A loss in other units, with the step that makes the same moves: no batch size changes."""
    hessian, covariance = draw_quadratic()
    found = equilibrium_noise_scales(hessian, covariance, 16, 0.01)
    scaled = equilibrium_noise_scales(10 * hessian, 100 * covariance, 16, 0.001)
    np.testing.assert_allclose(scaled, found, rtol=1e-12)


def test_equilibrium_in_one_dimension_is_exact():
    """h = 3, s² = 2, B = 8, ε = 0.1: B (2 - ε h) / (ε h), in place of 2 B / (ε h)."""
    h, s2 = np.array([[3.0]]), np.array([[2.0]])
    exact = stationary_noise_scales(h, s2, 8, 0.1)
    assert exact.simple == pytest.approx(45.333333, abs=1e-5)
    assert exact.noise == pytest.approx(exact.simple)
    assert equilibrium_noise_scales(h, s2, 8, 0.1).simple == pytest.approx(53.333333, abs=1e-5)


def test_stationary_noise_scales_are_those_of_a_chain():
    hessian, covariance = draw_quadratic()
    batch_size, step, rng = 16, 0.1 / np.linalg.eigvalsh(hessian)[-1], np.random.default_rng(1)
    factor = np.linalg.cholesky(covariance / batch_size)
    theta, m = np.zeros((4000, 3)), 0.0
    for i in range(600):
        gradient = theta @ hessian + rng.standard_normal(theta.shape) @ factor.T
        theta = theta - step * gradient
        m = m + theta.T @ theta / len(theta) / 300 if i >= 300 else m
    found = stationary_noise_scales(hessian, covariance, batch_size, step)
    simple = np.trace(covariance) / np.trace(hessian @ m @ hessian)
    noise = np.trace(hessian @ covariance) / np.trace(hessian @ m @ hessian @ hessian)
    assert found.simple == pytest.approx(simple, rel=0.02)
    assert found.noise == pytest.approx(noise, rel=0.02)


def test_long_and_short_steps_agree_where_steps_are_short():
    hessian, covariance = draw_quadratic()
    exact = stationary_noise_scales(hessian, covariance, 16, 1e-5)
    np.testing.assert_allclose(
        exact, equilibrium_noise_scales(hessian, covariance, 16, 1e-5), rtol=1e-3
    )


@pytest.mark.parametrize("step", [0.0, 2 / 3, 1.0])
def test_steps_that_never_settle_are_refused(step):
    with pytest.raises(ValueError, match=r"below 0\.666667, 2 over the curvature"):
        stationary_noise_scales(np.array([[3.0]]), np.array([[2.0]]), 8, step)
