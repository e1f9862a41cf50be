"""Gradient descent on whole data sets of real digits drives the sharpness to 2 over the step.

First a network for itself, as the literature has it (tanh, linear outputs, half the squared error,
no biases), whose Hessian is known by differences only; then one of ours. Source: Cohen et al. 2021,
arXiv:2103.00065.
"""

import numpy as np
import pytest

from minibutter.nn.curvature import Hessian
from minibutter.nn.gradients import BatchGradient
from minibutter.nn.lanczos import largest_eigenpairs
from minibutter.nn.network import Network
from minibutter.studies.instability.thresholds import largest_stable_step

N_ROWS = 1000


@pytest.fixture(scope="module")
def rows(pooled_digits):
    return tuple(array[:N_ROWS] for array in pooled_digits)


class TanhNetwork:
    """196-64-64-10, from N(0, 1 / fan_in), on pixels of mean 0 and variance 1."""

    def __init__(self, x, y):
        self.x, self.y = (x - x.mean()) / x.std(), y
        self.shapes = ((196, 64), (64, 64), (64, 10))
        rng = np.random.default_rng(0)
        self.start = np.concatenate(
            [rng.standard_normal(a * b) / np.sqrt(a) for a, b in self.shapes]
        )

    def gradient(self, vector):
        cuts = np.cumsum([a * b for a, b in self.shapes])[:-1]
        parts = zip(np.split(vector, cuts), self.shapes, strict=True)
        w1, w2, w3 = (part.reshape(shape) for part, shape in parts)
        a = np.tanh(self.x @ w1)
        b = np.tanh(a @ w2)
        error = (b @ w3 - self.y) / N_ROWS
        db = error @ w3.T * (1 - b * b)
        da = db @ w2.T * (1 - a * a)
        return np.concatenate([(self.x.T @ da).ravel(), (a.T @ db).ravel(), (b.T @ error).ravel()])

    def sharpness(self, vector, start, rng):
        def product(v):
            h = 1e-5 / np.linalg.norm(v)
            return (self.gradient(vector + h * v) - self.gradient(vector - h * v)) / (2 * h)

        return largest_eigenpairs(
            product, vector.size, rng=rng, start=start, tolerance=1e-4, max_steps=60
        )


def test_sharpness_moves_to_2_over_the_step_and_stays(rows):
    network, step, rng = TanhNetwork(*rows), 0.1, np.random.default_rng(1)
    vector, found = network.start, None
    sharpness = {}
    for t in range(1701):
        if t in (0, 1300, 1500, 1700):
            found = network.sharpness(vector, None if found is None else found.vectors, rng)
            assert found.is_converged
            sharpness[t] = found.values[0]
        vector = vector - step * network.gradient(vector)
    assert sharpness[0] == pytest.approx(43, rel=0.02)
    late = [value for t, value in sharpness.items() if t >= 1300]
    np.testing.assert_allclose(late, 20, rtol=0.02)
    assert min(largest_stable_step(value) for value in late) < step


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
def test_a_step_of_four_times_the_largest_stable_one_diverges(rows):
    network = TanhNetwork(*rows)
    found = network.sharpness(network.start, None, np.random.default_rng(1))
    assert 4 * largest_stable_step(found.values[0]) < 0.2
    vector = network.start
    for _ in range(300):
        vector = vector - 0.2 * network.gradient(vector)
    assert not np.linalg.norm(vector) < 100 * np.linalg.norm(network.start)


@pytest.mark.parametrize("step", [0.3, 0.6])
def test_classification_is_held_at_2_over_the_step_only_if_it_is_sharper_by_itself(rows, step):
    """At 0.3 the sharpness goes its own way to 4.4, below 6.7; at 0.6 it would be too sharp."""
    x, y = rows
    network = Network(196, (64, 64, 10), "classification", "tanh", dtype="float64")
    rng = np.random.default_rng(0)
    parameters = network.initial_parameters("glorot_uniform", rng)
    batch, start, shares = BatchGradient(network, N_ROWS), None, []
    for t in range(126):
        if t >= 50 and t % 25 == 0:
            hessian = Hessian(network, parameters, x, y)
            found = largest_eigenpairs(
                hessian.product, parameters.size, rng=rng, start=start, tolerance=1e-4
            )
            start = found.vectors
            shares.append(step / largest_stable_step(found.values[0]))
        parameters = parameters - step * batch.gradient(parameters, x, y)
    if step == 0.3:
        np.testing.assert_allclose(shares, 0.65, atol=0.03)
    else:
        np.testing.assert_allclose(shares, 1, atol=0.12)
