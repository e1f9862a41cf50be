"""Runs that measure the noise of their gradients: the same bits, and the right noise."""

import numba
import numpy as np
import pytest

from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import moments as kernels
from minibutter.nn.kernels.jit import kept
from minibutter.nn.measured import MeasuredGroup, compile_moment_kernels
from minibutter.nn.moments import ExampleMoments
from minibutter.nn.network import DTYPES, Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.parameterization import make_parameterization
from minibutter.nn.schedules import StepSchedule
from minibutter.nn.starts import Start, TrainingData
from minibutter.nn.training import compile_kernels
from tests.nn.test_gradients_of_batches import EVERY_DTYPE, draw_batch

N_ROWS, BATCH_SIZE = 45, 16


def make_start(dtype="float32", task="classification", shape="rectangle_residual"):
    network, parameters, x, y = draw_batch(task, "tanh", shape, dtype, n=N_ROWS)
    return network, Start(parameters, TrainingData(x, y, x[:20], y[:20]), np.random.default_rng(3))


def make_groups(dtype="float32", batch_size=BATCH_SIZE, learning_rate=0.01, **options):
    """The same run, measured and not."""
    groups = []
    for make in (
        MeasuredGroup,
        lambda network, start, *a, **o: TrainingGroup(network, [start], *a, **o),
    ):
        network, start = make_start(dtype)
        optimizer = make_optimizer("adam", learning_rate)
        groups.append(make(network, start, optimizer, batch_size=batch_size, **options))
    return groups


OPTIONS = {
    "usual": {},
    "penalties": {"l1": 0.001, "l2": 0.01},
    "evaluated": {"evaluate_train": True},
    "loss alone": {"records_metrics": False},
    "by lot": {"sampling": "replacement"},
    "schedule": {"schedule": StepSchedule(1, 0.1)},
}


@EVERY_DTYPE
@pytest.mark.parametrize("name", OPTIONS)
def test_a_measured_run_has_the_bits_of_one_that_is_not(name, dtype):
    measured, plain = make_groups(dtype, **OPTIONS[name])
    for _ in range(3):
        (row,), (expected,) = measured.run_epoch(), plain.run_epoch()
        assert row.train.tobytes() == expected.train.tobytes()
        assert row.test.tobytes() == expected.test.tobytes()
        if expected.trained is not None:
            assert row.trained.tobytes() == expected.trained.tobytes()
        assert measured.parameters(0).tobytes() == plain.parameters(0).tobytes()
        assert (row.batch_size, row.steps) == (expected.batch_size, expected.steps) == (16, 3)
        assert expected.noise is None


def test_rates_of_layers_change_neither_bits_nor_what_is_measured():
    """The noise is that of the effective parameters, whatever their rates."""
    network, _ = make_start()
    scales = make_parameterization("ntk", network, "adam", 1.0, 1.0, None)
    measured, plain = make_groups(parameterization=scales)
    without, _ = make_groups()
    first, (expected,) = measured.run_epoch()[0], plain.run_epoch()
    assert measured.parameters(0).tobytes() == plain.parameters(0).tobytes()
    assert first.train.tobytes() == expected.train.tobytes()
    assert first.noise.covariance_traces[0] == without.run_epoch()[0].noise.covariance_traces[0]


@EVERY_DTYPE
def test_noise_of_a_step_is_that_of_the_gradients_of_its_rows(dtype):
    measured, _ = make_groups(dtype)
    network, parameters = measured.network, measured.parameters(0).copy()
    _, start = make_start(dtype)
    rows = np.random.default_rng(3).permutation(N_ROWS)[:BATCH_SIZE]
    found = ExampleMoments(network).moments(
        parameters, start.data.x_train[rows], start.data.y_train[rows]
    )
    noise = measured.run_epoch()[0].noise
    mean_square, squared_mean = (
        found.squared_norms.sum(axis=1).mean(),
        found.mean_squared_norms.sum(),
    )
    trace = (mean_square - squared_mean) * BATCH_SIZE / (BATCH_SIZE - 1)
    assert noise.covariance_traces[0] == pytest.approx(trace, rel=1e-6)
    signal = squared_mean - trace * (1 / BATCH_SIZE - 1 / N_ROWS)
    assert noise.gradient_squares[0] == pytest.approx(signal, rel=1e-6)
    assert noise.weights.tolist() == [15, 15, 12]


def test_rows_by_lot_have_the_noise_of_a_source_without_end():
    by_lot, _ = make_groups(sampling="replacement")
    noise = by_lot.run_epoch()[0].noise
    squares = by_lot.moments.batch_squared_norms.sum(axis=1)
    expected = squares - noise.covariance_traces / by_lot.moments.batch_sizes
    np.testing.assert_allclose(noise.gradient_squares, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("batch_size", "sampling"), [(45, "shuffle"), (45, "replacement"), (44, "shuffle")]
)
def test_only_batches_of_all_rows_are_exact(batch_size, sampling):
    measured, _ = make_groups(batch_size=batch_size, sampling=sampling)
    noise = measured.run_epoch()[0].noise
    assert noise.is_exact == (batch_size == 45 and sampling == "shuffle")
    if batch_size == 44:
        assert noise.weights[-1] == 0
        assert np.isnan(noise.covariance_traces[-1])


@EVERY_DTYPE
def test_a_measured_run_goes_on_from_its_state_with_the_same_bits(dtype):
    undisturbed, _ = make_groups(dtype, l2=0.01)
    first, _ = make_groups(dtype, l2=0.01)
    rows = [undisturbed.run_epoch()[0] for _ in range(4)]
    for _ in range(2):
        first.run_epoch()
    network, start = make_start(dtype)
    second = MeasuredGroup(
        network, start.resumed(first.state(0)), make_optimizer("adam", 0.01),
        batch_size=BATCH_SIZE, l2=0.01,
    )  # fmt: skip
    for expected in rows[2:]:
        (row,) = second.run_epoch()
        assert row.train.tobytes() == expected.train.tobytes()
        for found, wanted in zip(row.noise[:3], expected.noise[:3], strict=True):
            assert found.tobytes() == wanted.tobytes()


# ---------------------------------------------------------------------------------------------
# Batch sizes that change


@EVERY_DTYPE
@pytest.mark.parametrize("which", [0, 1])
def test_smaller_batches_have_the_bits_of_a_group_that_was_made_for_them(dtype, which):
    wide, narrow = make_groups(dtype, batch_size=40)[which], make_groups(dtype, batch_size=7)[which]
    wide.batch_size = 7
    for _ in range(2):
        (row,), (expected,) = wide.run_epoch(), narrow.run_epoch()
        assert row.train.tobytes() == expected.train.tobytes()
        assert wide.parameters(0).tobytes() == narrow.parameters(0).tobytes()
        assert (row.batch_size, row.steps) == (7, 7)
    wide.batch_size = 40
    (row,) = wide.run_epoch()
    assert (row.batch_size, row.steps, wide.steps) == (40, 2, 16)


@pytest.mark.parametrize("rows", [0, 17])
def test_batches_that_there_is_no_memory_for_are_refused(rows):
    measured, _ = make_groups()
    with pytest.raises(ValueError, match=f"batch_size is {rows}; memory was taken for .* 1 to 16"):
        measured.batch_size = rows


# ---------------------------------------------------------------------------------------------
# Compilation


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled with NUMBA_DISABLE_JIT")
@pytest.mark.parametrize("kernel", ["tiled", "blocked"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_compiled_after_compile_moment_kernels(dtype, kernel):
    compile_kernels(dtype, kernel)
    compile_moment_kernels(dtype)
    signatures, written = len(kernels.train_epoch_with_moments.signatures), kept.n_kernels
    rng = np.random.default_rng(0)
    network = Network(3, (5, 5, 1), "binary", "gelu", "rectangle_residual", dtype, kernel)
    x, y = rng.random((30, 3)).astype(dtype), rng.integers(0, 2, (30, 1)).astype(dtype)
    parameters = network.initial_parameters("glorot_uniform", rng)
    start = Start(parameters, TrainingData(x, y, x, y), rng)
    optimizer = make_optimizer("rmsprop", 0.01, 0.9)
    MeasuredGroup(network, start, optimizer, batch_size=8, l1=0.1).run_epoch()
    assert len(kernels.train_epoch_with_moments.signatures) == signatures
    assert kept.n_kernels == written
