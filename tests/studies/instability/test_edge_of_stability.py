"""Gradient descent on whole data sets of real digits drives the sharpness to 2 over the step.

First the network of the literature (tanh, linear outputs, half the squared error, no biases), with
every rule of momentum; then one of ours. Source: Cohen et al. 2021,
arXiv:2103.00065.
"""

from itertools import pairwise

import numpy as np
import pytest

from minibutter.nn.curvature import Hessian
from minibutter.nn.gradients import BatchGradient
from minibutter.nn.lanczos import largest_eigenpairs
from minibutter.nn.network import Network
from minibutter.studies.instability.edge import TanhNetwork, descend, threshold
from minibutter.studies.instability.thresholds import largest_stable_step

N_ROWS = 1000


@pytest.fixture(scope="module")
def rows(pooled_digits):
    return tuple(array[:N_ROWS] for array in pooled_digits)


@pytest.fixture(scope="module")
def network(rows):
    x, y = rows
    return TanhNetwork((x - x.mean()) / x.std(), y)


class DrawsAtOnce(np.random.Generator):
    """Draws the first weights itself, where others leave it to a child of theirs."""

    def spawn(self, n_children):
        return [self, *super().spawn(n_children)[1:]]


def follow(network, step, steps, looks, rng=None, **rule):
    """Sharpness at some steps, from the weights of seed 0 on."""
    rng = np.random.default_rng(0) if rng is None else rng
    points = descend(network, step, steps, looks, rng, **rule)
    return {point.step: point.sharpness for point in points}


def test_sharpness_moves_to_2_over_the_step_and_stays(network):
    sharpness = follow(network, 0.1, 1800, 300)
    assert sharpness[0] == pytest.approx(43, rel=0.15)
    late = [value for t, value in sharpness.items() if t >= 1300]
    np.testing.assert_allclose(late, threshold(0.1), rtol=0.02)
    assert min(largest_stable_step(value) for value in late) < 0.1


@pytest.mark.long
def test_half_the_step_lets_it_rise_to_twice_the_sharpness(network):
    """From a start as sharp as that of the pilot, 43; a flatter one, 39, takes twice as long."""
    rng = DrawsAtOnce(np.random.PCG64(0))
    sharpness = follow(network, 0.05, 5500, 500, rng)
    assert sharpness[0] == pytest.approx(43.2, abs=0.05)
    assert sharpness[500] < 35
    assert all(b > a for a, b in pairwise(list(sharpness.values())[1:]))
    np.testing.assert_allclose(
        [sharpness[step] for step in (4500, 5000, 5500)], threshold(0.05), rtol=0.02
    )


@pytest.mark.long
def test_heavy_ball_of_nine_tenths_is_far_from_its_threshold_after_2000_steps(network):
    sharpness = follow(network, 0.05, 2000, 200, momentum=0.9)
    assert threshold(0.05, 0.9) == pytest.approx(76)
    # 23.5 from this start, 28.7 from another.
    assert threshold(0.1) < sharpness[2000] < 0.5 * threshold(0.05, 0.9)


@pytest.mark.long
@pytest.mark.parametrize(
    ("step", "is_nesterov", "limit", "steps"), [(0.1, False, 30, 3000), (0.075, True, 20, 1500)]
)
def test_momentum_holds_the_sharpness_at_a_threshold_of_its_own(
    network, step, is_nesterov, limit, steps
):
    sharpness = follow(network, step, steps, steps // 10, momentum=0.5, nesterov=is_nesterov)
    assert threshold(step, 0.5, nesterov=is_nesterov) == pytest.approx(limit)
    late = [value for t, value in sharpness.items() if t >= 0.8 * steps]
    np.testing.assert_allclose(late, limit, rtol=0.05)
    assert np.mean(late) == pytest.approx(limit, rel=0.02)


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [16, 64])
def test_batch_sharpness_is_at_2_over_a_step_that_has_grown_to_the_edge(network, batch_size):
    """At a step that stays at 0.1 no edge is near, and the batch sharpness tells so."""

    def late(growth):
        rng = np.random.default_rng(0)
        points = descend(*(network, 0.1, 11000, 1000, rng), batch_size=batch_size, growth=growth)
        return [p.batches.value / threshold(p.learning_rate) for p in points if p.step >= 9000]

    assert np.mean(late(1.1)) == pytest.approx(1, abs=0.1)
    assert max(late(1.0)) < 0.8


def test_a_step_of_four_times_the_largest_stable_one_diverges(network):
    sharpness = follow(network, 0.25, 300, 50)
    assert 4 * largest_stable_step(sharpness[0]) < 0.25
    assert max(sharpness) < 300


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
