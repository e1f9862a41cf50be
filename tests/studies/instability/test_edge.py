"""The network of the edge of stability: its exact curvature, and where descent is held."""

import numpy as np
import pytest

from minibutter.studies.instability.edge import (
    TanhNetwork,
    descend,
    mean_sharpness,
    threshold,
)


@pytest.fixture
def small():
    rng = np.random.default_rng(0)
    return TanhNetwork(rng.standard_normal((30, 12)), np.eye(4)[rng.integers(4, size=30)], width=7)


def test_gradient_and_hessian_are_differences_of_the_loss(small):
    rng = np.random.default_rng(1)
    point = small.first_weights(rng)
    direction = rng.standard_normal(point.size)
    rows, h = np.arange(3, 20), 1e-5
    ahead, behind = (
        small.loss_and_gradient(point + sign * h * direction, rows) for sign in (1, -1)
    )
    loss, gradient = small.loss_and_gradient(point, rows)
    assert gradient @ direction == pytest.approx((ahead[0] - behind[0]) / (2 * h), rel=1e-8)
    expected = (ahead[1] - behind[1]) / (2 * h)
    found = small.hessian_product(point, direction, rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    outputs = np.tanh(
        np.tanh(small.x[rows] @ point[:84].reshape(12, 7)) @ point[84:133].reshape(7, 7)
    ) @ point[133:].reshape(7, 4)
    assert loss == pytest.approx(np.mean(np.sum((outputs - small.y[rows]) ** 2, axis=1)) / 2)


def test_batch_sharpness_is_the_curvature_along_each_batches_own_gradient(small):
    point = small.first_weights(np.random.default_rng(2))
    identity = np.eye(point.size)
    batches = np.array([[0, 1, 2], [5, 9, 14]])
    expected = []
    for rows in batches:
        matrix = np.array([small.hessian_product(point, e, rows) for e in identity])
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
        _, gradient = small.loss_and_gradient(point, rows)
        expected.append(gradient @ matrix @ gradient / (gradient @ gradient))
    gradients = [small.loss_and_gradient(point, rows)[1] for rows in batches]
    found = mean_sharpness(
        np.array(
            [small.along_gradient(point, *pair) for pair in zip(gradients, batches, strict=True)]
        )
    )
    assert found.value == pytest.approx(np.mean(expected))
    assert found.error == pytest.approx(np.abs(np.diff(expected))[0] / 2)
    squares = [np.sum(gradient**2) for gradient in gradients]
    assert found.of_means == pytest.approx(np.average(expected, weights=squares))


def test_sharpness_is_the_largest_eigenvalue(small):
    point = small.first_weights(np.random.default_rng(3))
    matrix = np.array([small.hessian_product(point, e) for e in np.eye(point.size)])
    found = small.sharpness(point, np.random.default_rng(4))
    assert found.values[0] == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-6)


def test_looks_change_nothing_and_a_diverging_descent_ends_early(small):
    def losses(every, rate):
        rng = np.random.default_rng(5)
        points = descend(small, rate, 40, every, rng, batch_size=8, n_batches=3)
        return {point.step: point.loss for point in points}

    often, seldom = losses(5, 0.05), losses(20, 0.05)
    assert {step: often[step] for step in seldom} == seldom
    assert seldom[40] < seldom[0]
    assert max(losses(5, 1e3)) < 40


def test_batches_are_those_that_were_stepped_on_and_the_rate_is_that_of_their_steps(small):
    """With as many batches as steps the mean is that of every step, from where it was made."""

    def points(rate, growth):
        rng = np.random.default_rng(6)
        return list(descend(small, rate, 6, 3, rng, batch_size=8, growth=growth))

    first, middle, last = points(0.05, 2.0)
    assert first.batches.value is None
    assert (first.learning_rate, middle.learning_rate, last.learning_rate) == (0.05, 0.05, 0.1)
    steady = points(0.05, 1.0)
    assert steady[1] == middle
    assert steady[2].loss != last.loss
    _, of_orders, _ = np.random.default_rng(6).spawn(3)
    vector = small.first_weights(np.random.default_rng(6).spawn(3)[0])
    order, ratios = of_orders.permutation(30), []
    for rows in (order[:8], order[8:16], order[16:24]):
        _, gradient = small.loss_and_gradient(vector, rows)
        along, square = small.along_gradient(vector, gradient, rows)
        ratios.append(along / square)
        vector = vector - 0.05 * gradient
    assert middle.batches.value == pytest.approx(np.mean(ratios))
    assert middle.loss == small.loss_and_gradient(vector)[0]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, 20),
        ({"decay": 0.5}, 19.5),
        ({"momentum": 0.9}, 38),
        ({"momentum": 0.9, "nesterov": True}, 13.57143),
    ],
)
def test_thresholds_of_rules_at_a_step_of_one_tenth(rule, expected):
    assert threshold(0.1, **rule) == pytest.approx(expected, abs=1e-5)
