"""Packed repetitions: each has the bits of a run of its own, whatever happens to the others."""

from dataclasses import replace

import numpy as np
import pytest

from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.network import ACTIVATIONS, LOSSES, Network
from minibutter.nn.optimizers import OPTIMIZERS, make_optimizer
from minibutter.nn.training import Trainer
from tests.nn.repetitions import (
    BATCH_SIZE,
    EVERY_DTYPE,
    N_TRAIN,
    assert_same_bits,
    copy_start,
    draw_starts,
    make_network,
)


def assert_group_has_the_bits_of_single_runs(network, starts, optimizer, epochs=3, **options):
    """Trains both; returns the rows of the last epoch."""
    options = {"batch_size": BATCH_SIZE, "evaluate_train": True} | options
    singles = [
        Trainer(network, start.parameters, optimizer, start.data, shuffle=start.shuffle, **options)
        for start in map(copy_start, starts)
    ]
    group = TrainingGroup(network, [copy_start(start) for start in starts], optimizer, **options)
    for number in range(epochs):
        rows = group.run_epoch()
        assert len(rows) == len(starts)
        for repetition, (single, row) in enumerate(zip(singles, rows, strict=True)):
            where = f"repetition {repetition}, epoch {number}"
            expected = single.run_epoch()
            for name in ("train", "test", "trained"):
                if getattr(expected, name) is None:
                    assert getattr(row, name) is None
                else:
                    assert_same_bits(getattr(row, name), getattr(expected, name), f"{where} {name}")
            assert row.is_finite is expected.is_finite, where
            assert_same_bits(group.parameters(repetition), single.parameters, where)
    return rows


@EVERY_DTYPE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_group_has_the_bits_of_single_runs(activation, task, shape, dtype):
    network = make_network(task, activation, shape, dtype)
    starts = draw_starts(network, 5)
    rows = assert_group_has_the_bits_of_single_runs(
        network, starts, make_optimizer("adam", 0.01), l1=0.002, l2=0.003
    )
    # What is compared is different, and alive.
    assert len({row.train[0] for row in rows}) == 5
    assert all(row.is_finite for row in rows)


@EVERY_DTYPE
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.02)])
@pytest.mark.parametrize(
    ("rule", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("rmsprop", 0.9), ("adam", 0.0)]
)
def test_every_optimizer_and_penalty_keeps_the_repetitions_apart(rule, momentum, l1, l2, dtype):
    assert rule in OPTIMIZERS
    network = make_network("classification", "tanh", dtype=dtype)
    assert_group_has_the_bits_of_single_runs(
        network, draw_starts(network, 3), make_optimizer(rule, 0.02, momentum), l1=l1, l2=l2
    )


@EVERY_DTYPE
@pytest.mark.parametrize("perturbation", [1, 3])
@pytest.mark.parametrize("options", [{"nesterov": True}, {"momentum_form": "torch"}])
def test_a_perturbed_group_has_the_bits_of_single_runs(options, perturbation, dtype):
    network = make_network("classification", "tanh", dtype=dtype)
    optimizer = make_optimizer("sgd", 0.02, 0.9, perturbation=perturbation, **options)
    assert_group_has_the_bits_of_single_runs(network, draw_starts(network, 3), optimizer, l2=0.01)


def bits_after_training(starts, network, optimizer, epochs=8):
    """Parameters and last metrics of repetitions that were trained together, as bytes."""
    group = TrainingGroup(
        network, [copy_start(start) for start in starts], optimizer, batch_size=BATCH_SIZE, l2=1e-3
    )
    for _ in range(epochs):
        rows = group.run_epoch()
    assert all(row.is_finite for row in rows)
    return [
        group.parameters(number).tobytes() + row.train.tobytes() + row.test.tobytes()
        for number, row in enumerate(rows)
    ]


@EVERY_DTYPE
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(
    ("momentum", "options"),
    [(0.0, {}), (0.9, {"momentum_form": "torch"}), (0.9, {"nesterov": True})],
)
def test_a_perturbation_changes_the_bits_of_whole_runs_unless_it_is_a_power_of_two(
    momentum, options, n, dtype
):
    network = make_network("classification", "tanh", dtype=dtype)
    starts = draw_starts(network, n)

    def train(k):
        optimizer = make_optimizer("sgd", 0.05, momentum, perturbation=k, **options)
        return bits_after_training(starts, network, optimizer)

    usual = train(1)
    assert train(1) == usual
    for k in (2, 4, 8):
        assert train(k) == usual, k
    for k in (3, 5):
        assert not any(map(bytes.__eq__, train(k), usual)), k


@EVERY_DTYPE
@pytest.mark.parametrize("count", ["1", "2", "all but one", "all"])
def test_groups_of_all_sizes_have_the_bits_of_single_runs(count, dtype):
    lanes = lanes_of(dtype)
    n = {"1": 1, "2": 2, "all but one": lanes - 1, "all": lanes}[count]
    network = make_network("regression", "gelu", "rectangle_residual", dtype)
    assert_group_has_the_bits_of_single_runs(
        network, draw_starts(network, n), make_optimizer("rmsprop", 0.005)
    )


@EVERY_DTYPE
@pytest.mark.parametrize("width", range(1, 21))
def test_groups_of_all_widths_have_the_bits_of_single_runs(width, dtype):
    network = Network(1 + width % 7, (width, 21 - width, 2), "classification", dtype=dtype)
    assert_group_has_the_bits_of_single_runs(
        network, draw_starts(network, 2), make_optimizer("sgd", 0.05), epochs=2
    )


@EVERY_DTYPE
@pytest.mark.parametrize("batch_size", [1, 7, 8, 17, N_TRAIN])
def test_batches_of_all_sizes_have_the_bits_of_single_runs(batch_size, dtype):
    network = make_network("binary", "sigmoid", dtype=dtype)
    assert_group_has_the_bits_of_single_runs(
        network, draw_starts(network, 2), make_optimizer("adam", 0.01), epochs=2,
        batch_size=batch_size,
    )  # fmt: skip


@EVERY_DTYPE
def test_group_that_measures_little_has_the_bits_of_single_runs_that_do(dtype):
    network = make_network("classification", dtype=dtype)
    rows = assert_group_has_the_bits_of_single_runs(
        network, draw_starts(network, 4), make_optimizer("adam", 0.01), l2=0.01,
        evaluate_train=False, records_metrics=False,
    )  # fmt: skip
    for row in rows:
        assert row.trained is None
        assert np.isnan(row.train[1:-1]).all()  # not measured
        assert row.train[0] > 0
        assert row.train[-1] > 0


@EVERY_DTYPE
def test_wide_layers_have_the_bits_of_single_runs_whose_products_go_through_cache_blocks(dtype):
    network = Network(70, (90, 33, 3), "classification", "relu", dtype=dtype)
    small = replace(network.tiling, block_rows=11, block_depth=24, block_columns=16)
    assert_group_has_the_bits_of_single_runs(
        replace(network, tiling=small), draw_starts(network, 2), make_optimizer("adam", 0.01),
        epochs=1, batch_size=N_TRAIN,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------
# Divergence


def spoil_row(start):
    """A row of NaN among the training data."""
    x = start.data.x_train.copy()
    x[3] = np.nan
    return replace(start, data=replace(start.data, x_train=x))


def spoil_parameters(start):
    """Weights so large that their products overflow at once."""
    huge = np.sqrt(np.finfo(start.parameters.dtype).max)
    return replace(start, parameters=huge * start.parameters)


@EVERY_DTYPE
@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("spoil", [spoil_row, spoil_parameters])
def test_repetition_that_diverges_is_flagged_and_leaves_the_others_alone(
    spoil, activation, task, dtype
):
    network = make_network(task, activation, "rectangle_residual", dtype)
    starts = draw_starts(network, 4)
    starts[1] = spoil(starts[1])
    rows = assert_group_has_the_bits_of_single_runs(
        network, starts, make_optimizer("sgd", 0.01), l2=0.01
    )
    assert [row.is_finite for row in rows] == [True, False, True, True]


@EVERY_DTYPE
def test_first_repetition_that_diverges_leaves_the_others_alone(dtype):
    """Lanes that nobody asked for repeat the first: then they diverge, too."""
    network = make_network("classification", "tanh", dtype=dtype)
    starts = draw_starts(network, 3)
    starts[0] = spoil_row(starts[0])
    rows = assert_group_has_the_bits_of_single_runs(network, starts, make_optimizer("adam", 0.01))
    assert [row.is_finite for row in rows] == [False, True, True]


@EVERY_DTYPE
def test_all_repetitions_may_diverge_by_a_rate_that_is_too_large(dtype):
    network = make_network("regression", dtype=dtype)
    huge = float(np.sqrt(np.finfo(dtype).max))
    rows = assert_group_has_the_bits_of_single_runs(
        network, draw_starts(network, 3), make_optimizer("sgd", huge), l2=1
    )
    assert [row.is_finite for row in rows] == [False] * 3


# ---------------------------------------------------------------------------------------------
# Who owns what, and what is refused


def test_only_a_group_of_one_trains_the_parameters_that_it_was_given_in_place():
    network = make_network("classification")
    for n in (1, 2):
        starts = draw_starts(network, n)
        first = [start.parameters.copy() for start in starts]
        group = TrainingGroup(network, starts, make_optimizer("adam", 0.01), batch_size=16)
        group.run_epoch()
        for repetition, start in enumerate(starts):
            assert np.array_equal(start.parameters, first[repetition]) == (n > 1)
            assert not np.array_equal(group.parameters(repetition), first[repetition])
            assert group.parameters(repetition).shape == (network.num_parameters,)


def test_every_repetition_draws_one_order_an_epoch_from_its_own_stream():
    network = make_network("classification")
    starts = draw_starts(network, 2)
    streams = [copy_start(start).shuffle for start in starts]
    group = TrainingGroup(network, starts, make_optimizer("adam", 0.01), batch_size=16)
    group.run_epoch()
    for start, stream in zip(starts, streams, strict=True):
        stream.permutation(N_TRAIN)
        assert start.shuffle.bit_generator.state == stream.bit_generator.state


def make_group(network, starts, **options):
    options = {"batch_size": BATCH_SIZE} | options
    return TrainingGroup(network, starts, make_optimizer("sgd", 0.1), **options)


@EVERY_DTYPE
def test_group_larger_than_a_line_or_empty_is_refused(dtype):
    network, lanes = make_network("regression", dtype=dtype), lanes_of(dtype)
    starts = draw_starts(network, lanes + 1)
    for wrong in (starts, []):
        message = f"{len(wrong)} repetitions; a group of {dtype} holds 1 to {lanes}"
        with pytest.raises(ValueError, match=message):
            make_group(network, wrong)


@pytest.mark.parametrize("kernel", ["naive", "blocked", "blas"])
def test_packing_with_a_rung_that_rounds_otherwise_is_refused(kernel):
    network = replace(make_network("regression"), kernel=kernel)
    make_group(network, draw_starts(network, 1)).run_epoch()
    with pytest.raises(ValueError, match=f"kernel is '{kernel}', but repetitions are packed"):
        make_group(network, draw_starts(network, 2))


@pytest.mark.parametrize("part", ["train", "test"])
def test_repetitions_with_other_numbers_of_rows_are_refused(part):
    network = make_network("regression")
    starts = draw_starts(network, 3)
    data = starts[2].data
    fewer = {f"{name}_{part}": getattr(data, f"{name}_{part}")[:-1] for name in "xy"}
    starts[2] = replace(starts[2], data=replace(data, **fewer))
    with pytest.raises(ValueError, match="packed together must have equally many rows"):
        make_group(network, starts)


@pytest.mark.parametrize("name", ["y_train", "y_test"])
def test_repetitions_of_which_only_some_have_binary_targets_are_refused(name):
    network = make_network("regression")
    starts = draw_starts(network, 3)
    data = starts[1].data
    starts[1] = replace(starts[1], data=replace(data, **{name: np.round(getattr(data, name))}))
    with pytest.raises(ValueError, match=f"{name} of some repetitions is only 0 and 1"):
        make_group(network, starts)
    make_group(network, starts[1:2]).run_epoch()


@pytest.mark.parametrize("repetition", [0, 1, 2])
def test_arrays_of_every_repetition_are_checked_before_a_kernel_reads_them(repetition):
    network = make_network("regression")
    starts = draw_starts(network, 3)
    wrong = starts.copy()
    wrong[repetition] = replace(starts[repetition], parameters=starts[repetition].parameters[1:])
    with pytest.raises(ValueError, match=r"parameters is a .*the network needs"):
        make_group(network, wrong)
    data = starts[repetition].data
    wrong[repetition] = replace(starts[repetition], data=replace(data, x_test=data.x_test[:, 1:]))
    with pytest.raises(ValueError, match=r"x_test is a .*the network needs"):
        make_group(network, wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be between 1 and the 41 training rows"),
        ({"batch_size": 42}, "batch_size is 42; it must be between 1 and the 41 training rows"),
        ({"l1": np.inf}, "l1 is inf; a penalty factor is at least 0 and finite"),
        ({"l2": -1.0}, "l2 is -1.0; a penalty factor is at least 0 and finite"),
    ],
)
def test_impossible_option_of_a_group_is_refused_with_the_reason(options, message):
    network = make_network("regression")
    with pytest.raises(ValueError, match=message):
        make_group(network, draw_starts(network, 2), **options)
