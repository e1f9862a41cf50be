"""The update rules against the reference over many steps, and their formulas at single steps."""

import math

import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.kernels import optimizers

DTYPES = ("float32", "float64")
RULES = ("sgd", "sgd_momentum", "rmsprop", "rmsprop_momentum", "adam")
RATE = 0.01


def make_update(rule, size, dtype):
    """update(w, dw, step) by the kernel of that rule, with slots of its own."""
    slots = np.zeros((2, size), dtype)
    momentum = 0.9 if rule.endswith("momentum") else 0.0

    def update(w, dw, step):
        if rule.startswith("sgd"):
            optimizers.sgd_update(w, slots[0], dw, RATE, momentum)
        elif rule.startswith("rmsprop"):
            optimizers.rmsprop_update(w, slots[0], slots[1], dw, RATE, momentum, 0.9, 1e-7)
        else:
            optimizers.adam_update(w, slots[0], slots[1], dw, step, RATE, 0.9, 0.999, 1e-7)

    return update


def make_reference(rule):
    return {
        "sgd": reference.SGD(RATE),
        "sgd_momentum": reference.SGD(RATE, momentum=0.9),
        "rmsprop": reference.RMSprop(RATE),
        "rmsprop_momentum": reference.RMSprop(RATE, momentum=0.9),
        "adam": reference.Adam(RATE),
    }[rule]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 17, 64])
@pytest.mark.parametrize("rule", RULES)
def test_50_steps_equal_reference(rule, size, dtype, assert_within):
    rng = np.random.default_rng([1, size])
    w = rng.standard_normal(size).astype(dtype)
    expected = w.copy()
    update, rule_of_reference = make_update(rule, size, dtype), make_reference(rule)
    moved = np.zeros(size)
    for step in range(1, 51):
        dw = (10.0 ** rng.uniform(-3, 1, size) * rng.standard_normal(size)).astype(dtype)
        before = w.copy()
        update(w, dw, step)
        expected = rule_of_reference.update(expected, dw)
        moved += np.abs(w - before)
        assert expected.dtype == dtype
        # Every step rounds the parameter once on each side, by eps/2 of its size, and its own
        # length by a few eps.
        bound = np.finfo(dtype).eps * (step * np.abs(w).max() + 4 * moved)
        assert_within(w, expected, bound, f"step {step}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_zero_gradient_moves_nothing(rule, dtype):
    w = np.linspace(-1, 1, 5, dtype=dtype)
    before = w.copy()
    make_update(rule, 5, dtype)(w, np.zeros(5, dtype), 1)
    np.testing.assert_array_equal(w, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradient_that_is_not_finite_spoils_its_own_parameter_only(value, rule, dtype):
    w, dw = np.ones(3, dtype), np.array([0.1, value, 0.1], dtype)
    make_update(rule, 3, dtype)(w, dw, 1)
    np.testing.assert_array_equal(np.isfinite(w), [True, False, True])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sgd_without_momentum_is_plain_descent(dtype):
    rng = np.random.default_rng(2)
    w, dw = rng.standard_normal((2, 33)).astype(dtype)
    before = w.copy()
    make_update("sgd", 33, dtype)(w, dw, 1)
    np.testing.assert_array_equal(w, before - np.dtype(dtype).type(RATE) * dw)


def test_sgd_momentum_keeps_moving_without_a_gradient():
    w = np.zeros(1)
    update = make_update("sgd_momentum", 1, "float64")
    update(w, np.ones(1), 1)
    update(w, np.zeros(1), 2)
    assert w[0] == pytest.approx(-RATE * (1 + 0.9), rel=4 * np.finfo(np.float64).eps, abs=0)


@pytest.mark.parametrize("g", [1e-6, 1e-3, 1.0])
def test_epsilon_of_rmsprop_stands_inside_the_root(g):
    w = np.zeros(1)
    make_update("rmsprop", 1, "float64")(w, np.array([g]), 1)
    expected = -RATE * g / math.sqrt(0.1 * g * g + 1e-7)
    assert w[0] == pytest.approx(expected, rel=4 * np.finfo(np.float64).eps, abs=0)


@pytest.mark.parametrize("g", [1e-9, 1e-6, 1.0])
def test_epsilon_of_adam_is_added_before_the_bias_correction(g):
    w = np.zeros(1)
    make_update("adam", 1, "float64")(w, np.array([g]), 1)
    # At t = 1: m = 0.1 g, √v = √0.001 g.
    expected = -RATE * math.sqrt(0.001) * g / (math.sqrt(0.001) * g + 1e-7)
    # 1 - 0.999 has lost three digits to cancellation.
    assert w[0] == pytest.approx(expected, rel=1000 * np.finfo(np.float64).eps, abs=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_step_of_adam_is_the_learning_rate_whatever_the_gradient(dtype, assert_within):
    w = np.zeros(4, dtype)
    make_update("adam", 4, dtype)(w, np.array([1, -1, 1e3, -1e6], dtype), 1)
    # Epsilon, 1e-7 / √0.001 of the gradient, shortens the step of the smallest ones.
    bound = RATE * (1e-7 / math.sqrt(0.001) + 4 * np.finfo(dtype).eps)
    assert_within(w, np.array([-RATE, RATE, -RATE, RATE]), bound)
