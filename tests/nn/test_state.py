"""A training that was interrupted goes on with the bits that it would have had."""

import io
from dataclasses import replace

import numpy as np
import pytest

from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.network import Network
from minibutter.nn.optimizers import OPTIMIZERS, make_optimizer
from minibutter.nn.state import TrainingState, pack_generator, unpack_generator
from tests.nn.repetitions import (
    BATCH_SIZE,
    EVERY_DTYPE,
    assert_same_bits,
    copy_start,
    draw_starts,
    make_network,
)

EPOCHS, INTERRUPTED_AFTER = 5, 2
EVERY_RULE = pytest.mark.parametrize(
    ("rule", "momentum"),
    [("sgd", 0.0), ("sgd", 0.9), ("rmsprop", 0.0), ("rmsprop", 0.9), ("adam", 0.0)],
)
OPTIONS = {"batch_size": BATCH_SIZE, "l1": 0.001, "l2": 0.002, "evaluate_train": True}


def begin(network, starts, optimizer):
    return TrainingGroup(network, [copy_start(start) for start in starts], optimizer, **OPTIONS)


def train(group, n_epochs):
    """Rows of every repetition."""
    return list(zip(*(group.run_epoch() for _ in range(n_epochs)), strict=True))


def keep(group, repetition):
    """A state that has been to a file and back."""
    file = io.BytesIO()
    np.savez(file, **group.state(repetition).arrays())
    file.seek(0)
    with np.load(file) as arrays:
        return TrainingState.from_arrays(dict(arrays))


def assert_same_rows(actual, expected, where):
    for number, (row, other) in enumerate(zip(actual, expected, strict=True)):
        for name in ("train", "test", "trained"):
            assert_same_bits(getattr(row, name), getattr(other, name), f"{where} {number} {name}")
        assert row.is_finite == other.is_finite


def assert_goes_on_with_the_same_bits(network, starts, optimizer, packings):
    """Trains straight, and from states of the same group in every packing."""
    straight = begin(network, starts, optimizer)
    rows = train(straight, EPOCHS)
    interrupted = begin(network, starts, optimizer)
    rows_before = train(interrupted, INTERRUPTED_AFTER)
    states = [keep(interrupted, repetition) for repetition in range(len(starts))]
    for members in packings:
        group = TrainingGroup(
            network, [starts[i].resumed(states[i]) for i in members], optimizer, **OPTIONS
        )
        assert group.epochs == INTERRUPTED_AFTER
        rows_after = train(group, EPOCHS - INTERRUPTED_AFTER)
        for place, i in enumerate(members):
            where = f"repetition {i} of {members}"
            assert_same_rows([*rows_before[i], *rows_after[place]], rows[i], where)
            assert_same_bits(group.parameters(place), straight.parameters(i), where)
            for name, array in group.state(place).arrays().items():
                assert_same_bits(array, straight.state(i).arrays()[name], f"{where} {name}")
    return rows


@EVERY_DTYPE
@EVERY_RULE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
def test_run_alone_goes_on_with_the_same_bits(shape, rule, momentum, dtype):
    assert rule in OPTIMIZERS
    network = make_network("classification", "gelu", shape, dtype)
    starts = draw_starts(network, 1)
    rows = assert_goes_on_with_the_same_bits(
        network, starts, make_optimizer(rule, 0.02, momentum), [[0]]
    )
    assert len({row.train[0] for row in rows[0]}) == EPOCHS


@EVERY_DTYPE
@EVERY_RULE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
def test_packed_repetitions_go_on_in_any_packing(shape, rule, momentum, dtype):
    network = make_network("binary", "relu", shape, dtype)
    assert_goes_on_with_the_same_bits(
        network,
        draw_starts(network, 5),
        make_optimizer(rule, 0.02, momentum),
        [[0], [4], [3, 1], [4, 3, 2, 1, 0]],
    )


@EVERY_DTYPE
def test_repetitions_that_were_alone_go_on_in_full_lanes(dtype):
    network, optimizer = make_network("regression", dtype=dtype), make_optimizer("adam", 0.01)
    starts = draw_starts(network, lanes_of(dtype))
    straight = begin(network, starts, optimizer)
    rows = train(straight, EPOCHS)
    states = []
    for start in starts:
        alone = begin(network, [start], optimizer)
        train(alone, INTERRUPTED_AFTER)
        states.append(keep(alone, 0))
    resumed = [start.resumed(state) for start, state in zip(starts, states, strict=True)]
    packed = TrainingGroup(network, resumed, optimizer, **OPTIONS)
    rows_after = train(packed, EPOCHS - INTERRUPTED_AFTER)
    for repetition in range(len(starts)):
        where = f"repetition {repetition}"
        assert_same_rows(rows_after[repetition], rows[repetition][INTERRUPTED_AFTER:], where)
        assert_same_bits(packed.parameters(repetition), straight.parameters(repetition), where)


@pytest.mark.parametrize("kernel", ["naive", "blocked", "blas"])
def test_every_rung_goes_on_with_the_same_bits(kernel):
    network = replace(make_network("classification"), kernel=kernel)
    assert_goes_on_with_the_same_bits(
        network, draw_starts(network, 1), make_optimizer("adam", 0.01), [[0]]
    )


@EVERY_DTYPE
@EVERY_RULE
def test_diverged_run_goes_on_with_the_same_bits(rule, momentum, dtype):
    """What overflowed once stays in the optimizer's memory, also where it is multiplied by 0."""
    network = make_network("regression", dtype=dtype)
    starts = draw_starts(network, 2)
    starts[1] = replace(starts[1], parameters=starts[1].parameters * np.finfo(dtype).max ** 0.5)
    rows = assert_goes_on_with_the_same_bits(
        network, starts, make_optimizer(rule, 0.02, momentum), [[1], [1, 0]]
    )
    assert not rows[1][INTERRUPTED_AFTER].is_finite


# ---------------------------------------------------------------------------------------------
# What is kept, and what is refused


@pytest.mark.parametrize("n_drawn", [0, 1, 2, 7])
def test_generator_goes_on_where_it_was_packed(n_drawn):
    """An odd number of halves leaves one over, which is drawn next."""
    generator = np.random.default_rng(5)
    generator.integers(10, size=n_drawn, dtype=np.uint32)
    words = pack_generator(generator)
    assert (words.dtype, words.shape) == (np.uint64, (6,))
    again = unpack_generator(words)
    for draw in (
        lambda rng: rng.integers(10, size=5, dtype=np.uint32),
        lambda rng: rng.permutation(41),
        lambda rng: rng.standard_normal(3),
    ):
        np.testing.assert_array_equal(draw(again), draw(generator))


def test_generator_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="the generator is a Philox; only a PCG64 can be kept"):
        pack_generator(np.random.Generator(np.random.Philox(0)))


def make_state(network, starts, n_epochs=1):
    group = begin(network, starts, make_optimizer("adam", 0.01))
    train(group, n_epochs)
    return group.state(0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("parameters", lambda a: a[1:], r"parameters of the state .* must be a float32 array"),
        ("parameters", lambda a: a.astype(float), r"parameters of the state is a float64 array"),
        ("slots", lambda a: a[:1], r"slots of the state is a float32 array of shape \(1, "),
        ("steps", lambda a: a.astype(float), "steps of the state is a float64 array"),
        ("shuffle", lambda a: a[:4], r"shuffle of the state .* array of shape \(4,\)"),
        ("data", lambda a: a + np.uint8(1), "the state is that of a run with other data"),
        ("slots", None, "a state needs arrays called slots, too"),
    ],
)
def test_state_that_does_not_fit_is_refused_before_a_kernel_reads_it(name, change, message):
    network = make_network("regression")
    starts = draw_starts(network, 1)
    arrays = make_state(network, starts).arrays()
    starts[0].resumed(TrainingState.from_arrays(arrays))
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    with pytest.raises(ValueError, match=message):
        starts[0].resumed(TrainingState.from_arrays(arrays))


def test_state_of_other_data_is_refused():
    network = make_network("regression")
    starts = draw_starts(network, 2)
    state = make_state(network, starts[:1])
    with pytest.raises(ValueError, match="a run with other data"):
        starts[1].resumed(state)
    assert make_state(network, starts).data.tolist() == state.data.tolist()


def test_repetitions_after_different_numbers_of_epochs_are_not_packed():
    network = make_network("regression")
    starts = draw_starts(network, 2)
    starts[0] = starts[0].resumed(make_state(network, starts))
    with pytest.raises(ValueError, match="some repetitions have done 0 epochs, others 1"):
        begin(network, starts, make_optimizer("adam", 0.01))


@pytest.mark.parametrize("n", [1, 2])
def test_state_stays_what_it_was_when_training_goes_on(n):
    network = make_network("regression")
    group = begin(network, draw_starts(network, n), make_optimizer("adam", 0.01))
    train(group, 1)
    arrays = group.state(0).arrays()
    before = {name: array.copy() for name, array in arrays.items()}
    train(group, 1)
    for name, array in arrays.items():
        assert_same_bits(array, before[name], name)


def test_slots_are_checked_before_a_kernel_reads_them():
    network = Network(3, (4, 2), "classification")
    starts = draw_starts(network, 1)
    wrong = replace(starts[0], slots=np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"slots is a .*the network needs"):
        begin(network, [wrong], make_optimizer("adam", 0.01))
