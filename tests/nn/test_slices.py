"""One network on many ranks: the bits of one rank, and the numbers of an ordinary run."""

import math

import numba
import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import epoch, slices
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.network import ACTIVATIONS, LOSSES, Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.partners import ALONE
from minibutter.nn.slices import SlicedGroup, compile_sliced_kernels, default_slices
from minibutter.nn.starts import Start, TrainingData, is_binary
from minibutter.nn.summation import cut
from minibutter.nn.training import compile_kernels
from tests.partners import on_ranks

DTYPES = ("float32", "float64")
N_TRAIN, N_TEST, BATCH_SIZE = 51, 13, 16  # the last batch has 3 rows
PARTS = ("train", "test", "trained")


def make_network(task="classification", activation="relu", dtype="float32", **options):
    n_outputs = 1 if task == "binary" else 3
    return Network(5, (9, 9, 9, n_outputs), task, activation, dtype=dtype, **options)


def draw_start(network, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (N_TRAIN + N_TEST, 5)).astype(network.dtype)
    scores = x @ rng.standard_normal((5, network.n_outputs))
    if network.task == "regression":
        y = 1 / (1 + np.exp(-scores))
    elif network.task == "binary":
        y = scores > 0
    else:
        y = np.eye(network.n_outputs)[scores.argmax(axis=1)]
    y = y.astype(network.dtype)
    data = TrainingData(x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:])
    parameters = network.initial_parameters("glorot_uniform", rng)
    return Start(parameters, data, np.random.default_rng([seed, 1]))


def make_group(network, n_slices, partners=ALONE, optimizer=("adam", 0.01), **options):
    options = {"batch_size": BATCH_SIZE, "evaluate_train": True} | options
    return SlicedGroup(
        network,
        draw_start(network),
        make_optimizer(*optimizer),
        slices=n_slices,
        partners=partners,
        **options,
    )


def train(group, epochs=3):
    """All that a run leaves behind, as bytes, by names."""
    left = {}
    for number in range(epochs):
        (row,) = group.run_epoch()
        for part in PARTS:
            left[f"{part} of epoch {number}"] = getattr(row, part).tobytes()
    left["parameters"] = group.parameters(0).tobytes()
    if group.norms is not None:
        left["norms"] = b"".join(array.tobytes() for array in group.norms)
    return left


def assert_ranks_change_nothing(network, n_slices, ranks=(2, 3, 5), **options):
    expected = train(make_group(network, n_slices, **options))
    for n_ranks in ranks:
        for left in on_ranks(
            n_ranks, lambda partners: train(make_group(network, n_slices, partners, **options))
        ):
            assert left == expected, f"{n_ranks} ranks"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (("adam", 0.01), {"l2": 0.01}),
        (("rmsprop", 0.01, 0.9), {"l1": 0.01, "records_norms": True}),
        (("sgd", 0.1, 0.9), {"records_metrics": False}),
        (("sgd", 0.1), {"batch_size": N_TRAIN}),
    ],
)
def test_one_rank_and_many_end_with_the_same_bits(optimizer, options, dtype):
    assert_ranks_change_nothing(make_network(dtype=dtype), 8, optimizer=optimizer, **options)


@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_task_activation_or_skip_makes_ranks_differ(activation, task, shape):
    assert_ranks_change_nothing(make_network(task, activation, shape=shape), 5, ranks=(3,))


@pytest.mark.parametrize("kernel", ["naive", "blocked", "tiled"])
def test_no_rung_or_tiling_makes_ranks_differ(kernel):
    lanes = lanes_of("float32")
    small = Tiling(tile_rows=2, tile_columns=lanes, block_rows=4, block_depth=4,
                   block_columns=lanes)  # fmt: skip
    for tiling in (Tiling(), small):
        network = make_network(kernel=kernel, tiling=tiling)
        assert_ranks_change_nothing(network, 3, ranks=(2, 3))


@pytest.mark.parametrize("n_slices", [2, 7, BATCH_SIZE])
def test_ranks_without_slices_have_the_bits_of_the_others(n_slices):
    assert_ranks_change_nothing(make_network(), n_slices, ranks=(n_slices + 2,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_slice_is_an_ordinary_run_to_the_last_bit(dtype):
    network = make_network(shape="rectangle_residual", dtype=dtype)
    options = {"batch_size": BATCH_SIZE, "evaluate_train": True, "l2": 0.01}
    ordinary = TrainingGroup(
        network, [draw_start(network)], make_optimizer("adam", 0.01), **options
    )
    sliced = make_group(network, 1, l2=0.01)
    for _ in range(3):
        (expected,), (row,) = ordinary.run_epoch(), sliced.run_epoch()
        for part in PARTS:
            np.testing.assert_array_equal(getattr(row, part), getattr(expected, part))
    np.testing.assert_array_equal(sliced.parameters(0), ordinary.parameters(0))


def test_slices_change_the_last_digits_alone(assert_within):
    network = make_network(dtype="float64", activation="tanh")
    one, many = make_group(network, 1), make_group(network, 7)
    for _ in range(3):
        (expected,), (row,) = one.run_epoch(), many.run_epoch()
        for part in PARTS:
            assert_within(getattr(row, part), getattr(expected, part), 1e-13)
    # A moment of Adam near zero lets the rounding through, times the rate.
    assert_within(many.parameters(0), one.parameters(0), 1e-12)
    assert not np.array_equal(many.parameters(0), one.parameters(0))


class ReferenceRun:
    """The run of a `make_group` in NumPy, by plain gradient descent, slice by slice."""

    def __init__(self, network, n_slices, learning_rate, l2, layers_of):
        start = draw_start(network)
        self.network, self.data, self.shuffle = network, start.data, start.shuffle
        self.n_slices, self.learning_rate, self.l2 = n_slices, learning_rate, l2
        self.layers = [(w.copy(), b.copy()) for w, b in layers_of(network, start.parameters)]
        self.slice_squares, self.batch_squares = [], []

    def gradient(self, rows):
        network = self.network
        parts = reference.backward(
            self.layers, network.skip, network.activation, network.task,
            self.data.x_train[rows], self.data.y_train[rows],
        )  # fmt: skip
        return [part for pair in parts for part in pair]

    def run_epoch(self):
        order = self.shuffle.permutation(N_TRAIN)
        for begin in range(0, N_TRAIN, BATCH_SIZE):
            batch = order[begin : begin + BATCH_SIZE]
            total = None
            self.slice_squares.append([])
            for part in cut(len(batch), self.n_slices):
                rows = batch[slice(*part)]
                if len(rows) == 0:
                    self.slice_squares[-1].append(np.nan)
                    continue
                own = self.gradient(rows)
                self.slice_squares[-1].append(sum((g**2).sum() for g in own))
                scaled = [g * len(rows) / len(batch) for g in own]
                total = (
                    scaled if total is None else [a + b for a, b in zip(total, scaled, strict=True)]
                )
            self.batch_squares.append(sum((g**2).sum() for g in total))
            self.layers = [
                (
                    w - self.learning_rate * (dw + 2 * self.l2 * w),
                    b - self.learning_rate * db,
                )
                for (w, b), dw, db in zip(self.layers, total[::2], total[1::2], strict=True)
            ]

    def measure(self, x, y):
        network = self.network
        *_, p, losses = reference.forward(
            self.layers, network.skip, network.activation, network.task, x, y
        )
        metrics = reference.metrics(p, y, losses, is_binary(y))
        penalty = sum(reference.penalty(w, 0.0, self.l2) for w, _ in self.layers)
        return np.array([*metrics.values(), penalty])


@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize("n_slices", [2, 7])
@pytest.mark.parametrize("task", LOSSES)
def test_steps_metrics_and_norms_are_those_of_numpy(
    task, n_slices, n_ranks, layers_of, assert_within
):
    network = make_network(task, "tanh", "float64", shape="rectangle_residual")
    ref_run = ReferenceRun(network, n_slices, 0.1, 0.01, layers_of)
    ref_run.run_epoch()

    def train_epoch(partners):
        group = make_group(network, n_slices, partners, ("sgd", 0.1), l2=0.01, records_norms=True)
        return group, group.run_epoch()[0]

    for group, row in on_ranks(n_ranks, train_epoch):
        for (w, b), (ref_w, ref_b) in zip(
            layers_of(network, group.parameters(0)), ref_run.layers, strict=True
        ):
            assert_within(w, ref_w, 1e-14)
            assert_within(b, ref_b, 1e-14)
        data = ref_run.data
        for measured, x, y in (
            (row.test, data.x_test, data.y_test),
            (row.trained, data.x_train, data.y_train),
        ):
            assert_within(measured, ref_run.measure(x, y), 1e-13)
        norms = group.norms
        squares = np.array(ref_run.slice_squares)
        assert_within(norms.slice_squares, squares, 1e-13 * np.nan_to_num(squares))
        assert_within(norms.batch_squares, np.array(ref_run.batch_squares), 1e-13)
        assert norms.batch_rows.tolist() == [16, 16, 16, 3]
        assert norms.slice_rows.sum(axis=1).tolist() == [16, 16, 16, 3]
        # Three rows are not enough for seven slices.
        assert np.isnan(norms.slice_squares).sum() == max(n_slices - 3, 0)


def test_norms_are_kept_only_where_asked_for():
    group = make_group(make_network(), 2)
    group.run_epoch()
    assert group.norms is None


def test_a_run_that_diverges_does_so_on_every_rank():
    network = make_network()
    wild = {"optimizer": ("sgd", 1e19), "l2": 1.0}
    rows = on_ranks(2, lambda partners: [make_group(network, 4, partners, **wild).run_epoch()[0]])
    for (row,) in rows:
        assert not row.is_finite
        assert not math.isfinite(row.train[0])


def test_ranks_whose_parameters_have_come_apart_are_found_out():
    network = make_network()

    def train_apart(partners):
        group = make_group(network, 4, partners)
        group.run_epoch()
        if partners.rank == 1:
            group.parameters(0)[3] += 1e-3
        with pytest.raises(RuntimeError, match="the ranks hold different parameters"):
            group.run_epoch()
        return True

    assert on_ranks(2, train_apart) == [True, True]


def test_shares_of_the_work_are_those_of_the_slices():
    network = make_network()
    for n_ranks, expected in ((1, [1.0]), (2, [0.4, 0.6]), (6, [0, 0.2, 0.2, 0.2, 0.2, 0.2])):
        shares = on_ranks(n_ranks, lambda partners: make_group(network, 5, partners).share)
        assert shares == expected


@pytest.mark.parametrize(
    ("n_slices", "options", "message"),
    [
        (0, {}, "slices is 0; a batch of 16 rows can be cut into 1 to 16"),
        (17, {}, "slices is 17; a batch of 16 rows can be cut into 1 to 16"),
        (2, {"batch_size": 52}, "batch_size is 52; it must be between 1 and the 51 training rows"),
        (2, {"l2": -1.0}, "l2 is -1.0; a penalty factor"),
    ],
)
def test_impossible_slices_and_options_are_refused(n_slices, options, message):
    with pytest.raises(ValueError, match=message):
        make_group(make_network(), n_slices, **options)


def test_blas_is_refused_because_its_sums_may_depend_on_the_rows_of_a_rank():
    with pytest.raises(ValueError, match="kernel is 'blas', whose order of summation"):
        make_group(make_network(kernel="blas"), 2)
    make_group(make_network(kernel="blas"), 1)


def test_slices_suit_the_batch_where_nothing_is_asked_for():
    assert [default_slices(n) for n in (16, 256, 512, 1024, 4096)] == [2, 2, 4, 8, 8]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled with NUMBA_DISABLE_JIT")
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_compiled_after_compile_sliced_kernels(dtype):
    compile_kernels(dtype)
    compile_sliced_kernels(dtype)
    kernels = (slices.train_slices, slices.add_pairs, slices.squared_norm, epoch.measure,
               epoch.update, epoch.penalty, epoch.add_penalty_gradient)  # fmt: skip

    def count():
        return [len(kernel.signatures) for kernel in kernels]

    before = count()
    network = make_network("binary", "gelu", dtype)
    on_ranks(2, lambda partners: train(make_group(network, 3, partners, l2=0.1)))
    assert count() == before
