"""Largest stable steps, against the recurrences themselves."""

import numpy as np
import pytest

from minibutter.studies.instability.thresholds import largest_stable_step


def spectral_radius(step, curvature, momentum, nesterov, decay):
    """Of (θ, v) ← one step on (λ + α) θ² / 2."""
    total = curvature + decay
    v = np.array([total, momentum])  # v = μ v + g
    moved = total * np.array([1.0, 0.0]) + momentum * v if nesterov else v
    matrix = np.array([np.array([1.0, 0.0]) - step * moved, v])
    return np.abs(np.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize(
    ("momentum", "heavy_ball", "nesterov"), [(0, 2, 2), (0.5, 3, 1.5), (0.9, 3.8, 1.357143)]
)
def test_thresholds_of_momentum(momentum, heavy_ball, nesterov):
    assert largest_stable_step(1.0, momentum) == pytest.approx(heavy_ball)
    assert largest_stable_step(1.0, momentum, nesterov=True) == pytest.approx(nesterov, abs=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("curvature", [0.1, 1.0, 70.0])
def test_recurrence_grows_from_the_threshold_on(curvature, momentum, nesterov, decay):
    step = largest_stable_step(curvature, momentum, nesterov=nesterov, decay=decay)
    rule = curvature, momentum, nesterov, decay
    assert spectral_radius(0.999 * step, *rule) < 1
    assert spectral_radius(step, *rule) == pytest.approx(1)
    assert spectral_radius(1.001 * step, *rule) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature": 1.0, "momentum": 1.0}, "momentum is 1.0"),
        ({"curvature": 1.0, "decay": -1.0}, "decay is -1.0"),
        ({"curvature": -0.5, "decay": 0.5}, "any step lets the direction grow"),
        ({"curvature": float("nan")}, "any step lets the direction grow"),
    ],
)
def test_recurrences_without_a_threshold_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        largest_stable_step(**options)
