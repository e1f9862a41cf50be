"""Gradients in float64 against central differences of the loss, along directions and everywhere.

A central difference of step h errs by h² L'''/6 and by the rounding eps L/h of the loss; at
h = cbrt(eps) both are about eps^(2/3), 3.7e-11, which sets the tolerance.
"""

import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.gradients import BatchGradient
from minibutter.nn.network import ACTIVATIONS, LOSSES, Network

STEP = np.cbrt(np.finfo(np.float64).eps)
TOLERANCE = 4 * STEP**2

PENALTIES = {"none": (0.0, 0.0), "l1": (0.01, 0.0), "l2": (0.0, 0.02)}


class Objective:
    """Mean loss plus penalty of one batch as a function of the parameter vector."""

    def __init__(self, network, x, y, layers_of, l1=0.0, l2=0.0):
        self.network, self.x, self.y, self.layers_of = network, x, y, layers_of
        self.batch = BatchGradient(network, len(x), l1=l1, l2=l2)

    def __call__(self, parameters):
        return self.batch.loss(parameters, self.x, self.y)

    def gradient(self, parameters):
        return self.batch.gradient(parameters, self.x, self.y)

    def signs(self, parameters):
        """Signs of all weights and of all hidden pre-activations: what a kink would change."""
        network, layers = self.network, self.layers_of(self.network, parameters)
        _, z, *_ = reference.forward(
            layers, network.skip, network.activation, network.task, self.x, self.y
        )
        return np.sign(
            np.concatenate([part.ravel() for part in (*z[:-1], *[w for w, _ in layers])])
        )


def draw_objective(seed, activation, task, shape, l1, l2, layers_of, widths=(6, 6, 6)):
    """A small network away from symmetry: nonzero biases, targets as the task wants them."""
    rng = np.random.default_rng(seed)
    n, n_outputs = 9, 1 if task == "binary" else 3
    network = Network(4, (*widths, n_outputs), task, activation, shape, "float64")
    parameters = network.initial_parameters("glorot_uniform", rng)
    for layer in range(network.depth):
        network.biases(parameters, layer)[:] = rng.uniform(-0.3, 0.3, network.widths[layer])
    x = rng.standard_normal((n, 4))
    if task == "regression":
        y = rng.uniform(size=(n, n_outputs))
    elif task == "binary":
        y = rng.integers(2, size=(n, 1)).astype(np.float64)
    else:
        y = np.eye(n_outputs)[rng.integers(n_outputs, size=n)]
    return Objective(network, x, y, layers_of, l1, l2), parameters, rng


def assert_derivatives_agree(gradient, difference, loss, what):
    # Both errors scale with the loss and its derivatives, which are of order 1 here.
    bound = TOLERANCE * max(1, abs(loss), abs(gradient))
    assert abs(gradient - difference) <= bound, (
        f"{what}: gradient {gradient!r}, central difference {difference!r}, "
        f"ratio {gradient / difference if difference else np.inf:.12g}, "
        f"{abs(gradient - difference) / bound:.3g} times the bound"
    )


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_along_random_directions_equals_central_difference(
    activation, task, shape, penalty, layers_of
):
    checked, seed = 0, 0
    while checked < 3:
        seed += 1
        assert seed < 50, "too many draws lie beside a kink"
        objective, parameters, rng = draw_objective(
            seed, activation, task, shape, *PENALTIES[penalty], layers_of
        )
        direction = rng.standard_normal(parameters.size)
        direction /= np.linalg.norm(direction)
        ahead, behind = parameters + STEP * direction, parameters - STEP * direction
        if not np.array_equal(objective.signs(ahead), objective.signs(behind)):
            continue  # A relu or an L1 kink lies within the step: the next seed.
        checked += 1
        difference = (objective(ahead) - objective(behind)) / (2 * STEP)
        along = direction @ objective.gradient(parameters)
        assert_derivatives_agree(along, difference, objective(parameters), f"seed {seed}")


@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_entry_of_the_gradient_equals_central_difference(activation, shape, layers_of):
    # Four layers; the widths differ where a residual network lets them.
    widths = (5, 5, 5) if shape == "rectangle_residual" else (5, 2, 7)
    for seed in range(50):
        objective, parameters, _ = draw_objective(
            seed, activation, "classification", shape, 0.01, 0.02, layers_of, widths
        )
        gradient = objective.gradient(parameters)
        steps = STEP * np.eye(parameters.size)
        pairs = [(parameters + step, parameters - step) for step in steps]
        if all(np.array_equal(objective.signs(a), objective.signs(b)) for a, b in pairs):
            break
    else:
        pytest.fail("all draws lie beside a kink")
    loss = objective(parameters)
    for j, (ahead, behind) in enumerate(pairs):
        difference = (objective(ahead) - objective(behind)) / (2 * STEP)
        assert_derivatives_agree(gradient[j], difference, loss, f"parameter {j}")
    # Every parameter of a smooth network matters to its loss; under relu, those of live units.
    assert activation == "relu" or np.all(gradient != 0)
