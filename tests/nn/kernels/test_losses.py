"""Output units with their losses and the weight penalty, against the reference and at extremes."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibutter.nn import reference
from minibutter.nn.kernels import losses

DTYPES = ("float32", "float64")
SHAPES = [(1, 1), (1, 7), (5, 1), (13, 3), (17, 16), (64, 10), (31, 47)]

KERNELS = {
    "regression": (losses.sigmoid_mse_forward, losses.sigmoid_mse_backward),
    "binary": (
        losses.sigmoid_binary_cross_entropy_forward,
        losses.sigmoid_binary_cross_entropy_backward,
    ),
    "classification": (losses.softmax_cross_entropy_forward, losses.softmax_cross_entropy_backward),
}


def to_lanes(rows, blocks):
    """(n, width) -> (blocks, width, n / blocks): the layout of lanes; row i is (block, lane)."""
    n, width = rows.shape
    split = rows.reshape(blocks, n // blocks, width)
    return np.ascontiguousarray(split.transpose(0, 2, 1))


def to_rows(lanes):
    """The inverse of `to_lanes`."""
    return lanes.transpose(0, 2, 1).reshape(-1, lanes.shape[1])


def forward(task, z, y, blocks=1):
    """Outputs (n, width) and losses (n,) of rows of logits, through the layout of lanes."""
    z_lanes, y_lanes = to_lanes(z, blocks), to_lanes(y, blocks)
    p, row_losses = np.full_like(z_lanes, NAN), np.full_like(z_lanes[:, 0], NAN)
    arguments = [p, row_losses, z_lanes, y_lanes]
    if task == "classification":
        arguments.append(np.full((3, z_lanes.shape[2]), NAN, z.dtype))
    KERNELS[task][0](*arguments)
    return to_rows(p), row_losses.reshape(-1)


def backward(task, p, y, blocks=1):
    """Gradient (n, width) of the mean over these rows, through the layout of lanes."""
    dz = np.full_like(to_lanes(p, blocks), NAN)
    KERNELS[task][1](dz, to_lanes(p, blocks), to_lanes(y, blocks), len(p))
    return to_rows(dz)


NAN, INF = math.nan, math.inf


def draw_targets(rng, task, n, width, dtype):
    """What a data set of this task holds: numbers in [0, 1], zeros and ones, one-hot rows."""
    if task == "regression":
        return rng.uniform(size=(n, width)).astype(dtype)
    if task == "binary":
        return rng.integers(2, size=(n, width)).astype(dtype)
    return np.eye(width, dtype=dtype)[rng.integers(width, size=n)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", KERNELS)
def test_loss_equals_reference(task, shape, dtype, assert_within):
    n, width = shape
    rng = np.random.default_rng([1, n, width])
    z = (3 * rng.standard_normal(shape)).astype(dtype)
    y = draw_targets(rng, task, n, width, dtype)
    loss, loss_gradient = reference.LOSSES[task]
    p, row_losses = forward(task, z, y)
    dz = backward(task, p, y)
    expected_p, expected_losses = loss(z, y)
    eps = np.finfo(dtype).eps
    # Softmax: exponents of size |z|, and a normaliser of `width` terms.
    terms = width + np.abs(z).max() if task == "classification" else 2
    assert_within(p, expected_p, terms * eps * np.maximum(expected_p, 0.5), "p")
    # Both sides round the loss of a row to `dtype`, `width` terms long; logits enter with their
    # size.
    bound = eps * (width + {"regression": 4}.get(task, terms + np.abs(z).max()))
    assert_within(row_losses, expected_losses, bound, "loss")
    # Given the same p, the two gradients differ by a few roundings of one product.
    expected_dz = loss_gradient(p, y)
    assert_within(dz, expected_dz, 3 * eps * np.abs(expected_dz), "dz")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 10])
@pytest.mark.parametrize("task", KERNELS)
def test_bits_of_a_row_do_not_depend_on_the_layout(task, width, dtype):
    n = 60
    rng = np.random.default_rng([2, width])
    z = (5 * rng.standard_normal((n, width))).astype(dtype)
    z[7], z[11, 0], z[13, 0] = 1e4, NAN, INF
    y = draw_targets(rng, task, n, width, dtype)
    p, row_losses = forward(task, z, y)
    dz = backward(task, p, y)
    for blocks in (3, 4, 60):
        packed_p, packed_losses = forward(task, z, y, blocks)
        np.testing.assert_array_equal(packed_p, p)
        np.testing.assert_array_equal(packed_losses, row_losses)
        np.testing.assert_array_equal(backward(task, p, y, blocks), dz)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("z", [-1e4, 1e4])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_binary_cross_entropy_of_extreme_logits_is_finite_and_exact(z, y, dtype):
    targets = np.array([[y]], dtype)
    p, loss = forward("binary", np.array([[z]], dtype), targets)
    dz = backward("binary", p, targets)
    right = (z > 0) == (y == 1)
    assert loss == (0 if right else 1e4)
    assert p[0, 0] == (z > 0)
    assert dz[0, 0] == (z > 0) - y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("true_class", "expected"), [(0, 0), (1, 2e4), (2, 1e4)])
def test_cross_entropy_of_extreme_logits_is_finite_and_exact(true_class, expected, dtype):
    z = np.array([[1e4, -1e4, 0]], dtype)
    y = np.eye(3, dtype=dtype)[[true_class]]
    p, loss = forward("classification", z, y)
    dz = backward("classification", p, y)
    assert loss == expected
    np.testing.assert_array_equal(p, [[1, 0, 0]])
    np.testing.assert_array_equal(dz, p - y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_squared_error_of_extreme_logits_is_finite_and_exact(dtype):
    z = np.array([[1e4, -1e4]], dtype)
    y = np.array([[0, 0.5]], dtype)
    p, loss = forward("regression", z, y)
    assert loss == (1 + 0.25) / 2
    np.testing.assert_array_equal(backward("regression", p, y), [[0, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_cross_entropy_stays_accurate_where_the_output_rounds_to_1(dtype, assert_within):
    z, y = np.array([[40]], dtype), np.ones((1, 1), dtype)
    p, loss = forward("binary", z, y)
    assert p[0, 0] == 1
    exact = math.log1p(math.exp(-40))
    assert_within(loss, np.array([exact]), 4 * np.finfo(dtype).eps * exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("task", KERNELS)
def test_nan_logit_makes_output_loss_and_gradient_nan(task, width, dtype):
    for column in range(width):
        z = np.linspace(-1, 1, 3 * width, dtype=dtype).reshape(3, width)
        z[1, column] = NAN
        y = np.zeros((3, width), dtype)
        y[:, 0] = 1
        p, row_losses = forward(task, z, y)
        dz = backward(task, p, y)
        np.testing.assert_array_equal(np.isnan(row_losses), [False, True, False])
        # One NaN spoils the whole row of a softmax, and only its own entry elsewhere.
        spoilt = np.zeros((3, width), bool)
        spoilt[1, slice(None) if task == "classification" else column] = True
        np.testing.assert_array_equal(np.isnan(p), spoilt)
        np.testing.assert_array_equal(np.isnan(dz), spoilt)


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_logits_never_look_like_a_finite_cross_entropy(dtype):
    for z in (-INF, INF):
        for y in (0, 1):
            _, loss = forward("binary", np.array([[z]], dtype), np.array([[y]], dtype))
            assert not np.isfinite(loss), (z, y, loss)
    for z, true_class in (([INF, 0], 0), ([INF, 0], 1), ([-INF, 0], 0), ([-INF, -INF], 0)):
        y = np.eye(2, dtype=dtype)[[true_class]]
        _, loss = forward("classification", np.array([z], dtype), y)
        assert not np.isfinite(loss), (z, true_class, loss)


@pytest.mark.parametrize("dtype", DTYPES)
def test_class_that_is_infinitely_unlikely_and_not_the_target_costs_nothing(dtype):
    z, y = np.array([[0, -INF]], dtype), np.array([[1, 0]], dtype)
    p, loss = forward("classification", z, y)
    assert loss == 0
    np.testing.assert_array_equal(p, [[1, 0]])


# Multiples of 1/8 add without rounding, so laws about sums of them hold exactly.
eighths = st.integers(-800, 800).map(lambda i: i / 8)
logits = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=eighths)


@settings(derandomize=True, deadline=None, database=None)
@given(z=logits)
def test_softmax_rows_sum_to_1(z):
    for dtype in DTYPES:
        p, _ = forward("classification", z.astype(dtype), np.zeros(z.shape, dtype))
        # Each quotient errs by eps/2 of itself, the normaliser by eps/2 a term.
        errors = np.abs(p.sum(axis=1, dtype=np.float64) - 1)
        assert errors.max() <= z.shape[1] * np.finfo(dtype).eps, errors
        assert p.min() >= 0


@settings(derandomize=True, deadline=None, database=None)
@given(z=logits, shift=eighths)
def test_softmax_and_its_loss_ignore_a_shift_of_all_logits(z, shift):
    for dtype in DTYPES:
        y = np.zeros(z.shape, dtype)
        y[:, 0] = 1
        p, row_losses = forward("classification", z.astype(dtype), y)
        shifted_p, shifted_losses = forward("classification", (z + shift).astype(dtype), y)
        np.testing.assert_array_equal(shifted_losses, row_losses)
        np.testing.assert_array_equal(shifted_p, p)


@settings(derandomize=True, deadline=None, database=None)
@given(z=logits)
def test_binary_cross_entropy_of_a_logit_is_that_of_its_mirror_image(z):
    for dtype in DTYPES:
        zeros, ones = np.zeros(z.shape, dtype), np.ones(z.shape, dtype)
        p, row_losses = forward("binary", z.astype(dtype), ones)
        mirror_p, mirror_losses = forward("binary", -z.astype(dtype), zeros)
        np.testing.assert_array_equal(mirror_losses, row_losses)
        assert np.abs(p + mirror_p - 1).max() <= np.finfo(dtype).eps


def total_penalty(w, l1, l2):
    """The penalty of the weights (size,) of a single run."""
    total = np.zeros(1)
    losses.penalty_forward(total, w[:, np.newaxis], l1, l2)
    return float(total[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 16, 257])
@pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.0, 0.32), (0.005, 0.04)])
def test_penalty_equals_reference(l1, l2, size, dtype, assert_within):
    rng = np.random.default_rng([2, size])
    w, dw = rng.standard_normal((2, size)).astype(dtype)
    w[size // 2] = 0
    through_the_loss = dw.copy()
    total = total_penalty(w, l1, l2)
    losses.penalty_backward(dw, w, l1, l2)
    eps = np.finfo(dtype).eps
    expected = reference.penalty(w, l1, l2)
    assert_within(total, expected, size * eps * expected, "penalty")
    gradient = reference.penalty_gradient(w, l1, l2)
    bound = eps * (np.abs(through_the_loss) + np.abs(gradient))
    assert_within(dw, through_the_loss + gradient, bound, "gradient")
    assert dw[size // 2] == through_the_loss[size // 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.0, 0.01)])
def test_nan_weight_makes_penalty_and_gradient_nan(l1, l2, dtype):
    w, dw = np.array([1, NAN, -1], dtype), np.zeros(3, dtype)
    assert math.isnan(total_penalty(w, l1, l2))
    losses.penalty_backward(dw, w, l1, l2)
    np.testing.assert_array_equal(np.isnan(dw), [False, True, False])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.0, 0.01)])
def test_infinite_weight_makes_the_penalty_infinite_or_nan(l1, l2, dtype):
    w = np.array([1, -INF], dtype)
    assert not math.isfinite(total_penalty(w, l1, l2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.005, 0.04)])
def test_penalty_of_each_repetition_is_added_to_its_own_total_with_the_bits_of_a_single_run(
    l1, l2, dtype
):
    w = np.random.default_rng(3).standard_normal((37, 5)).astype(dtype)
    w[3, 2] = NAN
    totals = np.arange(5.0)
    losses.penalty_forward(totals, w, l1, l2)
    alone = [total_penalty(np.ascontiguousarray(w[:, r]), l1, l2) for r in range(5)]
    np.testing.assert_array_equal(totals, np.arange(5.0) + alone)
    np.testing.assert_array_equal(np.isnan(totals), np.arange(5) == 2)
