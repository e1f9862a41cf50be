"""B_noise from products with the Hessian, against all of it."""

import numpy as np
import pytest

from minibutter.nn.curvature import Hessian
from minibutter.nn.gradients import BatchGradient
from minibutter.nn.network import Network
from minibutter.studies.noise_scale.curvature import (
    CurvatureOfNoise,
    curvature_noise_scale,
    measure_curvature_of_noise,
    measure_curvature_of_noise_by_signs,
)


@pytest.fixture(scope="module")
def problem():
    """A small network, its Hessian, and the gradients (n, P) of its rows."""
    rng = np.random.default_rng(0)
    network = Network(5, (6, 3), "classification", "tanh", dtype="float64")
    parameters = network.initial_parameters("glorot_uniform", rng)
    x = rng.standard_normal((60, 5))
    y = np.eye(3)[rng.integers(3, size=60)]
    single = BatchGradient(network, 1)
    rows = [single.gradient(parameters, x[i : i + 1], y[i : i + 1]) for i in range(60)]
    return Hessian(network, parameters, x, y), np.array(rows)


def test_slope_and_curvatures_of_all_examples_are_exact(problem):
    hessian, rows = problem
    columns = np.array([hessian.product(unit) for unit in np.eye(rows.shape[1])])
    mean, covariance = rows.mean(axis=0), np.cov(rows.T, ddof=0)
    found = measure_curvature_of_noise(hessian, np.random.default_rng(1), examples=60)
    assert found.squared_gradient == pytest.approx(mean @ mean, rel=1e-10)
    assert found.curvature == pytest.approx(mean @ columns @ mean, rel=1e-10)
    assert found.curvature_of_noise == pytest.approx(np.trace(columns @ covariance), rel=1e-10)
    assert found.standard_error == 0
    estimate = curvature_noise_scale(found)
    expected = found.curvature_of_noise / found.curvature
    assert estimate.low == estimate.value == estimate.high == pytest.approx(expected)


def test_some_examples_stand_for_all_within_their_error(problem):
    hessian, _ = problem
    exact = measure_curvature_of_noise(hessian, np.random.default_rng(1), examples=60)
    found = [
        measure_curvature_of_noise(hessian, np.random.default_rng(seed), examples=30)
        for seed in range(60)
    ]
    errors = [
        (some.curvature_of_noise - exact.curvature_of_noise) / some.standard_error for some in found
    ]
    assert 0.7 < np.std(errors) < 1.4
    scatter = np.std([some.curvature_of_noise for some in found])
    assert scatter == pytest.approx(np.mean([some.standard_error for some in found]), rel=0.3)
    estimate = curvature_noise_scale(found[0])
    assert estimate.low < exact.curvature_of_noise / exact.curvature < estimate.high


def test_random_signs_of_all_examples_find_the_same_within_their_error(problem):
    hessian, _ = problem
    exact = measure_curvature_of_noise(hessian, np.random.default_rng(1), examples=60)
    found = [
        measure_curvature_of_noise_by_signs(hessian, np.random.default_rng(seed), probes=30)
        for seed in range(60)
    ]
    traces = np.array([some.curvature_of_noise for some in found])
    errors = np.array([some.standard_error for some in found])
    assert 0.7 < np.std((traces - exact.curvature_of_noise) / errors) < 1.4
    assert traces.mean() == pytest.approx(exact.curvature_of_noise, abs=3 * traces.std() / 60**0.5)
    assert found[0].curvature == pytest.approx(exact.curvature, rel=1e-12)
    assert found[0].squared_gradient == pytest.approx(exact.squared_gradient, rel=1e-12)


def test_one_direction_has_no_error(problem):
    with pytest.raises(ValueError, match="probes is 1; an error takes at least 2"):
        measure_curvature_of_noise_by_signs(problem[0], np.random.default_rng(0), 1)


def test_a_gradient_along_negative_curvature_has_no_noise_scale():
    estimate = curvature_noise_scale(CurvatureOfNoise(1.0, -2.0, 3.0, 0.1))
    assert estimate.state == "unresolved"
    assert "GᵀHG is -2: the loss does not curve up" in estimate.reason


def test_curvature_of_noise_that_may_be_zero_leaves_an_upper_bound():
    estimate = curvature_noise_scale(CurvatureOfNoise(1.0, 2.0, 0.1, 0.1))
    assert estimate.state == "upper bound"
    assert "tr(HΣ) is 0.1 ± 0.196" in estimate.reason


@pytest.mark.parametrize("examples", [1, 61])
def test_more_examples_than_there_are_are_refused(problem, examples):
    with pytest.raises(ValueError, match=f"examples is {examples}; it must be between 2 and the"):
        measure_curvature_of_noise(problem[0], np.random.default_rng(0), examples)
