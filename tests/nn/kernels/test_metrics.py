"""The ten metrics against the reference, their identities for one-hot targets, and NaN."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibutter.nn import reference
from minibutter.nn.kernels.metrics import (
    LOSS,
    METRICS,
    add_row_losses,
    add_rows,
    finish_metrics,
    row_metrics,
)

DTYPES = ("float32", "float64")
EPS = np.finfo(np.float64).eps

NAN, INF = math.nan, math.inf


def draw_softmax(rng, n, width, dtype):
    """Moderate outputs, one-hot targets and the cross-entropies of the rows."""
    z = rng.standard_normal((n, width)).astype(dtype)
    y = np.eye(width, dtype=dtype)[rng.integers(width, size=n)]
    p, losses = reference.softmax_cross_entropy(z, y)
    return p, y, losses


def measure_rows(p, y, losses, is_binary, blocks=1):
    """Row metrics (10, n) of outputs and targets (n, width), through the layout of lanes."""
    n, width = p.shape

    def to_lanes(rows):
        split = rows.reshape(blocks, n // blocks, width)
        return np.ascontiguousarray(split.transpose(0, 2, 1))

    rows = np.full((len(METRICS), blocks, n // blocks), NAN, p.dtype)
    rows[LOSS] = losses.reshape(blocks, n // blocks)
    scratch = np.full((4, n // blocks), NAN, p.dtype)
    row_metrics(rows, to_lanes(p), to_lanes(y), is_binary, scratch)
    return rows.reshape(len(METRICS), n)


def measure(p, y, losses, is_binary):
    """The kernels' metrics by name."""
    sums = np.zeros((1, len(METRICS)))
    add_rows(sums, measure_rows(p, y, losses, is_binary)[:, :, np.newaxis])
    finish_metrics(sums, len(p))
    return dict(zip(METRICS, sums[0], strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (13, 3), (64, 10), (251, 1), (31, 47)])
def test_metrics_equal_reference(shape, is_binary, dtype, assert_within):
    n, width = shape
    rng = np.random.default_rng([1, n, width, is_binary])
    p = rng.uniform(size=shape).astype(dtype)
    y = (rng.integers(2, size=shape) if is_binary else rng.uniform(size=shape)).astype(dtype)
    losses = rng.exponential(size=n).astype(dtype)
    expected = reference.metrics(p, y, losses, is_binary)
    actual = measure(p, y, losses, is_binary)
    assert tuple(expected) == METRICS
    # Each metric is a mean over n rows, added in float64, of sums over the width in `dtype`; their
    # terms are of order 1, each rounded a few times, but logarithms of 1e-7 are about -16.
    for name in METRICS:
        terms = 16 * width if name == "kullback_leibler_divergence" else width + 4
        bound = (n * EPS + terms * np.finfo(dtype).eps) * max(1, abs(expected[name]))
        assert_within(actual[name], expected[name], bound, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("width", [1, 2, 10])
def test_bits_of_a_row_do_not_depend_on_the_layout(width, is_binary, dtype):
    n = 60
    rng = np.random.default_rng([6, width])
    p = rng.uniform(size=(n, width)).astype(dtype)
    p[7], p[11, 0], p[13, 0] = 0, NAN, INF
    y = (rng.integers(2, size=p.shape) if is_binary else rng.uniform(size=p.shape)).astype(dtype)
    losses = rng.uniform(size=n).astype(dtype)
    rows = measure_rows(p, y, losses, is_binary)
    for blocks in (3, 4, 60):
        np.testing.assert_array_equal(measure_rows(p, y, losses, is_binary, blocks), rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("repetitions", [1, 3, 16])
def test_rows_of_each_repetition_are_added_one_by_one_in_their_order(repetitions, dtype):
    rng = np.random.default_rng([7, repetitions])
    n = 37
    rows = rng.standard_normal((len(METRICS), n, repetitions)).astype(dtype)
    rows[METRICS.index("root_mean_squared_error")] = 0
    sums = rng.standard_normal((repetitions, len(METRICS)))
    expected = sums.copy()
    for i in range(n):
        expected += rows[:, i].T.astype(np.float64)
    add_rows(sums, rows)
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("repetitions", [1, 3, 16])
def test_losses_alone_have_the_bits_that_they_have_among_all_metrics(repetitions, dtype):
    rng = np.random.default_rng([9, repetitions])
    rows = rng.standard_normal((len(METRICS), 37, repetitions)).astype(dtype)
    rows[LOSS, 5, 0] = NAN
    of_all, of_loss = np.tile(rng.standard_normal((repetitions, 1)), (2, 1, len(METRICS)))
    before = of_loss.copy()
    add_rows(of_all, rows)
    add_row_losses(of_loss, rows[LOSS])
    np.testing.assert_array_equal(of_loss[:, LOSS], of_all[:, LOSS])
    np.testing.assert_array_equal(of_loss[:, 1:], before[:, 1:])
    assert np.isnan(of_loss[0, LOSS])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_two_batches_are_those_of_one_of_all_rows(dtype):
    p, y, losses = draw_softmax(np.random.default_rng(2), 23, 5, dtype)
    sums = np.zeros((1, len(METRICS)))
    for part in (slice(0, 16), slice(16, 23)):
        rows = measure_rows(p[part], y[part], losses[part], True)
        add_rows(sums, rows[:, :, np.newaxis])
    finish_metrics(sums, 23)
    np.testing.assert_array_equal(sums[0], list(measure(p, y, losses, True).values()))


def test_sums_of_one_repetition_can_be_finished_alone():
    sums = np.random.default_rng(8).uniform(size=(3, len(METRICS)))
    together = sums.copy()
    finish_metrics(together, 9)
    for one in sums:
        finish_metrics(one, 9)
    np.testing.assert_array_equal(together, sums)


def test_root_mean_squared_error_is_the_root_of_the_mean_not_the_mean_of_roots():
    p, y = np.array([[0.0], [1.0]]), np.array([[0.0], [0.0]])
    metrics = measure(p, y, np.zeros(2), False)
    assert metrics["root_mean_squared_error"] == math.sqrt(0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [2, 7, 10])
def test_hinge_losses_of_one_hot_targets_follow_from_mae_and_mse(n_classes, dtype, assert_within):
    n = 101
    metrics = measure(*draw_softmax(np.random.default_rng(3), n, n_classes, dtype), True)
    mae, mse = metrics["mean_absolute_error"], metrics["mean_squared_error"]
    # The identity needs Σ p = 1, which K outputs meet up to K eps; it is a mean over the K.
    bound = np.finfo(dtype).eps + n * EPS
    assert_within(metrics["hinge"], mae + 1 - 1 / n_classes, bound)
    assert_within(metrics["squared_hinge"], mse + mae + 1 - 1 / n_classes, 2 * bound)


def test_cross_entropy_exceeds_the_divergence_by_what_the_clip_of_zeros_adds(assert_within):
    # With K = 7 classes and moderate outputs BUTTER's own records show about 8.0e-6.
    n, n_classes = 200, 7
    p, y, losses = draw_softmax(np.random.default_rng(4), n, n_classes, "float64")
    metrics = measure(p, y, losses, True)
    difference = metrics["loss"] - metrics["kullback_leibler_divergence"]
    assert 7.2e-6 < difference < 8.7e-6
    from_the_zeros = 1e-7 * np.log(p / 1e-7)[y == 0].sum() / n
    assert_within(difference, from_the_zeros, n * EPS * metrics["loss"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("width", [1, 4])
def test_nan_output_makes_every_metric_nan_and_is_never_accurate(width, is_binary, dtype):
    for column in range(width):
        p = np.full((3, width), 0.25, dtype)
        p[1, column] = NAN
        for target in np.eye(width, dtype=dtype) if width > 1 else np.array([[0], [1]], dtype):
            y = np.tile(target, (3, 1))
            metrics = measure(p, y, np.array([0, NAN, 0], dtype), is_binary)
            # Equal outputs: the first entry is the largest, and 0.25 is rounded to 0.
            others_are_right = target[0] == (0 if width == 1 else 1)
            assert metrics.pop("accuracy") == (2 / 3 if others_are_right else 0)
            assert np.isnan(list(metrics.values())).all(), metrics


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_binary", [False, True])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("width", [1, 4])
def test_impossible_outputs_are_measured_as_by_reference(width, value, is_binary, dtype):
    y = np.eye(4, width, dtype=dtype)
    rtol = 8 * width * np.finfo(dtype).eps
    for column in range(width):
        p = np.full((4, width), 0.25, dtype)
        p[:, column] = value
        losses = np.full(4, value, dtype)
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = reference.metrics(p, y, losses, is_binary)
        actual = measure(p, y, losses, is_binary)
        for name in METRICS:
            np.testing.assert_allclose(actual[name], expected[name], rtol, 0, err_msg=name)


def test_accuracy_of_one_output_needs_more_than_one_half():
    p = np.array([[0.5], [np.nextafter(0.5, 1)], [0.9]])
    y = np.array([[0.0], [1.0], [0.3]])
    # Right, right; and a target that is neither 0 nor 1 is never met.
    assert measure(p, y, np.zeros(3), False)["accuracy"] == 2 / 3


def test_accuracy_of_tied_outputs_takes_the_first():
    p = np.tile([0.4, 0.4, 0.2], (3, 1))
    y = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert measure(p, y, np.zeros(3), True)["accuracy"] == 2 / 3
    # A tie of the targets, too: 0 and 1 are equal, so the first is meant.
    assert measure(y, p, np.zeros(3), False)["accuracy"] == 2 / 3


def test_hinge_reads_zeros_as_minus_one_only_when_told_that_targets_are_binary():
    p, y = np.array([[0.25]]), np.array([[0.0]])
    assert measure(p, y, np.zeros(1), True)["hinge"] == 1.25
    assert measure(p, y, np.zeros(1), False)["hinge"] == 1
    assert measure(p, y, np.zeros(1), True)["squared_hinge"] == 1.25**2


sixty_fourths = st.integers(0, 64).map(lambda i: i / 64)
unit_arrays = st.tuples(st.integers(1, 9), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(
        *[hnp.arrays(np.float64, shape, elements=sixty_fourths) for _ in range(2)]
    )
)


@settings(derandomize=True, deadline=None, database=None)
@given(p_and_y=unit_arrays)
def test_perfect_outputs_have_no_error_and_full_accuracy(p_and_y):
    _, y = p_and_y
    if y.shape[1] == 1:
        y = np.round(y)
    metrics = measure(y, y, np.zeros(len(y)), False)
    assert metrics["accuracy"] == 1
    for name in METRICS[2:6]:
        assert metrics[name] == 0, name
    assert metrics["kullback_leibler_divergence"] == 0


@settings(derandomize=True, deadline=None, database=None)
@given(p_and_y=unit_arrays, is_binary=st.booleans())
def test_metrics_of_numbers_between_0_and_1_keep_their_order_and_ranges(p_and_y, is_binary):
    p, y = p_and_y
    if is_binary:
        y = np.round(y)
    metrics = measure(p, y, np.zeros(len(y)), is_binary)
    tolerance = 1 + p.size * EPS
    mse, mae = metrics["mean_squared_error"], metrics["mean_absolute_error"]
    assert 0 <= mse <= mae * tolerance <= metrics["root_mean_squared_error"] * tolerance**2
    assert metrics["mean_squared_logarithmic_error"] <= mse * tolerance
    assert 0 <= metrics["cosine_similarity"] <= tolerance
    assert 0 <= metrics["accuracy"] <= 1
    assert metrics["hinge"] ** 2 <= metrics["squared_hinge"] * tolerance


@settings(derandomize=True, deadline=None, database=None)
@given(p_and_y=unit_arrays)
def test_metrics_do_not_depend_on_the_order_of_the_rows(p_and_y):
    p, y = p_and_y
    losses = np.abs(p - y).sum(axis=1)
    forwards, backwards = measure(p, y, losses, False), measure(p[::-1], y[::-1], losses, False)
    for name in METRICS:
        scale = max(16, abs(forwards[name]))
        assert abs(forwards[name] - backwards[name]) <= len(p) * EPS * scale, name
