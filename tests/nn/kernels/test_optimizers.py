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


def take_torch_steps(w, gradients, k=1, momentum=0.0, is_nesterov=False):
    """The parameters after one step for every row of gradients, from zero memory."""
    w, slot = w.copy(), np.zeros_like(w)
    for dw in gradients:
        optimizers.torch_sgd_update(w, slot, dw, RATE, momentum, is_nesterov, float(k))
    return w


TORCH_FORMS = pytest.mark.parametrize(
    ("momentum", "is_nesterov"), [(0.0, False), (0.9, False), (0.9, True)]
)


@TORCH_FORMS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 11])
def test_torch_sgd_has_the_bits_of_its_formula_written_out(k, dtype, momentum, is_nesterov):
    """NumPy rounds after every operation: nothing was folded, and nothing fused."""
    rng = np.random.default_rng(7)
    w, gradients = rng.standard_normal(97).astype(dtype), rng.standard_normal((20, 97))
    gradients = gradients.astype(dtype)
    rule, expected = reference.TorchSGD(RATE, momentum, is_nesterov, k), w
    for dw in gradients:
        expected = rule.update(expected, dw)
    actual = take_torch_steps(w, gradients, k, momentum, is_nesterov)
    assert actual.tobytes() == expected.tobytes()


@TORCH_FORMS
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_perturbation_that_is_a_power_of_two_changes_no_bit(dtype, momentum, is_nesterov):
    rng = np.random.default_rng(8)
    w, gradients = rng.standard_normal(997).astype(dtype), rng.standard_normal((30, 997))
    gradients = gradients.astype(dtype)
    usual = take_torch_steps(w, gradients, 1, momentum, is_nesterov).tobytes()
    for k in (1, 2, 4, 8):
        assert take_torch_steps(w, gradients, k, momentum, is_nesterov).tobytes() == usual, k
    for k in (3, 5, 7, 9, 11):
        assert take_torch_steps(w, gradients, k, momentum, is_nesterov).tobytes() != usual, k


@pytest.mark.parametrize("k", [3, 5, 7, 9, 11])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_perturbation_changes_last_bits_of_many_steps_and_of_fewer_weights(dtype, k):
    rng, rate = np.random.default_rng(9), 0.1

    def after_a_step(k, w, gradient):
        w = w.copy()
        optimizers.torch_sgd_update(w, np.zeros_like(w), gradient, rate, 0.0, False, float(k))
        return w

    gradient, weights = rng.standard_normal((2, 100_000)).astype(dtype)
    weights *= 0.05
    steps, perturbed = (after_a_step(each, np.zeros_like(weights), gradient) for each in (1, k))
    share = np.mean(steps != perturbed)
    # How many depends on k, and on how k η happens to round.
    assert 0.2 <= share <= 0.65
    assert np.max(np.abs(perturbed / steps - 1)) <= 1.2 * np.finfo(dtype).eps
    usual, other = (after_a_step(each, weights, gradient) for each in (1, k))
    assert 0.15 <= np.mean(usual != other) <= 0.45


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_momentum_both_forms_of_sgd_have_the_same_bits(dtype):
    rng = np.random.default_rng(10)
    w, gradients = rng.standard_normal(65).astype(dtype), rng.standard_normal((20, 65))
    gradients, keras = gradients.astype(dtype), w.copy()
    update = make_update("sgd", 65, dtype)
    for step, dw in enumerate(gradients, start=1):
        update(keras, dw, step)
    assert take_torch_steps(w, gradients).tobytes() == keras.tobytes()
