"""Training by steps: the same steps as by epochs, and exact means of any rows."""

import numpy as np
import pytest

from minibutter.nn.network import Network
from minibutter.nn.starts import Start
from minibutter.nn.steps import Evaluation, RowStream, StepGroup, StepTrainer
from minibutter.nn.training import Trainer, TrainingData, TrainingGroup, make_optimizer
from tests.nn.test_gradients_of_batches import EVERY_DTYPE, draw_batch


def make_trainer(largest_batch=8, dtype="float32", rule="sgd"):
    network, parameters, x, y = draw_batch("classification", "relu", dtype=dtype, n=40)
    trainer = StepTrainer(
        network, parameters, make_optimizer(rule, 0.1), x, y, largest_batch=largest_batch
    )
    return trainer, network, x, y


@EVERY_DTYPE
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_steps_over_the_rows_of_an_epoch_have_the_bits_of_an_epoch(rule, dtype):
    trainer, network, x, y = make_trainer(dtype=dtype, rule=rule)
    plain = Trainer(
        network, trainer.parameters.copy(), make_optimizer(rule, 0.1), TrainingData(x, y, x, y),
        batch_size=8, shuffle=np.random.default_rng(3),
    )  # fmt: skip
    rows = np.random.default_rng(3).permutation(40)
    halves = [trainer.run(part, 8, 0.1) for part in (rows[:16], rows[16:])]
    row = plain.run_epoch()
    np.testing.assert_array_equal(trainer.parameters, plain.parameters)
    assert trainer.steps == 5
    assert 0.4 * halves[0].loss + 0.6 * halves[1].loss == pytest.approx(row.train[0])
    assert 0.4 * halves[0].error + 0.6 * halves[1].error == pytest.approx(1 - row.train[1])


SMALL = Network(5, (7, 3), "classification")


def starts_of(n=3, n_train=40):
    """Repetitions with data of their own."""
    found = []
    for number in range(n):
        rng = np.random.default_rng([1, number])
        x = rng.standard_normal((n_train + 10, 5)).astype(np.float32)
        y = np.eye(3, dtype=np.float32)[x[:, :3].argmax(axis=1)]
        data = TrainingData(x[:n_train], y[:n_train], x[n_train:], y[n_train:])
        found.append(Start(SMALL.initial_parameters("he_uniform", rng), data, rng))
    return found


def make_group(n=3, **options):
    options = {"largest_batch": 8, **options}
    return StepGroup(SMALL, starts_of(n), make_optimizer("sgd", 1.0), **options)


def draw_rows(n, size, seed=4):
    return np.random.default_rng(seed).integers(40, size=(n, size))


def test_every_repetition_of_a_group_goes_as_it_would_alone():
    group, rows = make_group(), draw_rows(3, 80)
    together = group.run(rows, 8, 0.3)
    for number, start in enumerate(starts_of()):
        trainer = StepTrainer(
            *(SMALL, start.parameters, make_optimizer("sgd", 1.0)),
            *(start.data.x_train, start.data.y_train),
            largest_batch=8,
        )
        alone = trainer.run(rows[number], 8, 0.3)
        np.testing.assert_array_equal(group.parameters(number), trainer.parameters)
        assert (together.loss[number], together.accuracy[number]) == alone
        assert together.error[number] == alone.error


@pytest.mark.parametrize("n", [1, 3])
def test_steps_in_two_parts_are_the_steps_in_one(n):
    rows = draw_rows(n, 88)
    whole, parts = make_group(n), make_group(n)
    whole.run(rows, 8, 0.3)
    parts.run(rows[:, :32], 8, 0.3)
    parts.run(rows[:, 32:], 8, 0.3)
    assert whole.steps == parts.steps == 11
    for number in range(n):
        np.testing.assert_array_equal(whole.parameters(number), parts.parameters(number))


def test_steps_over_rows_drawn_by_lot_have_the_bits_of_such_an_epoch():
    by_epoch = TrainingGroup(
        SMALL, starts_of(), make_optimizer("sgd", 0.3), batch_size=8, sampling="replacement"
    )
    row = by_epoch.run_epoch()[1]
    by_steps = make_group(records_metrics=False)
    means = by_steps.run([start.shuffle.integers(40, size=40) for start in starts_of()], 8, 0.3)
    np.testing.assert_array_equal(by_steps.parameters(1), by_epoch.parameters(1))
    assert means.loss[1] == row.train[0]
    assert np.isnan(means.accuracy).all()
    data = starts_of()[1].data
    parameters = np.ascontiguousarray(by_steps.parameters(1))
    assert Evaluation(SMALL, data.x_test, data.y_test).measure(parameters) == tuple(row.test[:2])


def test_a_group_wants_rows_for_every_repetition():
    with pytest.raises(ValueError, match="rows of 2 repetitions; the group has 3"):
        make_group().run(draw_rows(2, 8), 8, 0.3)


def test_a_batch_may_be_larger_than_the_training_set():
    trainer, *_ = make_trainer(largest_batch=100)
    means = trainer.run(np.arange(100) % 40, 100, 0.1)
    assert trainer.steps == 1
    assert means.loss > 0


def test_batch_and_rate_may_change_from_call_to_call():
    trainer, network, x, y = make_trainer(largest_batch=20)
    other = StepTrainer(
        network, trainer.parameters.copy(), make_optimizer("sgd", 9.0), x, y, largest_batch=3
    )
    trainer.run(np.arange(6), 3, 0.2)
    other.run(np.arange(6), 3, 0.2)
    np.testing.assert_array_equal(trainer.parameters, other.parameters)
    trainer.run(np.arange(20), 20, 0.4)
    assert trainer.steps == 3


def test_an_evaluation_is_the_mean_over_its_rows_in_chunks_of_any_size():
    trainer, network, x, y = make_trainer()
    found = [Evaluation(network, x, y, chunk).measure(trainer.parameters) for chunk in (7, 40, 256)]
    for means in found[1:]:
        assert means.loss == pytest.approx(found[0].loss, rel=1e-6)
        assert means.error == found[0].error
    single = [
        Evaluation(network, x[i : i + 1], y[i : i + 1]).measure(trainer.parameters)
        for i in range(40)
    ]
    assert np.mean([means.loss for means in single]) == pytest.approx(found[0].loss, rel=1e-6)
    assert np.mean([means.error for means in single]) == pytest.approx(found[0].error)


def test_a_stream_of_rows_goes_through_all_of_them_again_and_again():
    stream = RowStream(10, np.random.default_rng(0))
    rows = np.concatenate([stream.take(count) for count in (3, 4, 25, 0, 8)])
    assert rows.dtype == np.int64
    for start in range(0, 40, 10):
        assert sorted(rows[start : start + 10]) == [*range(10)]
    whole = RowStream(10, np.random.default_rng(0)).take(40)
    np.testing.assert_array_equal(rows, whole)


@pytest.mark.parametrize(
    ("rows", "batch_size", "rate", "message"),
    [
        ([], 4, 0.1, "rows must be one axis of numbers from 0 to 39"),
        ([40], 4, 0.1, "rows must be one axis of numbers from 0 to 39"),
        ([-1], 4, 0.1, "rows must be one axis of numbers from 0 to 39"),
        ([[1]], 4, 0.1, "rows must be one axis of numbers from 0 to 39"),
        ([1], 9, 0.1, "batch_size is 9; memory was taken for batches of 1 to 8 rows"),
        ([1], 0, 0.1, "batch_size is 0; memory was taken for batches of 1 to 8 rows"),
        ([1], 4, 0.0, r"learning_rate is 0\.0; it must be positive and finite"),
        ([1], 4, np.nan, "learning_rate is nan; it must be positive and finite"),
    ],
)
def test_steps_that_cannot_be_are_refused(rows, batch_size, rate, message):
    trainer, *_ = make_trainer()
    with pytest.raises(ValueError, match=message):
        trainer.run(np.array(rows, np.int64), batch_size, rate)


def test_arrays_that_do_not_fit_the_network_are_refused():
    trainer, network, x, y = make_trainer()
    optimizer = make_optimizer("sgd", 0.1)
    with pytest.raises(ValueError, match=r"x_train is a .*the network needs"):
        StepTrainer(network, trainer.parameters, optimizer, x[:, 1:], y, largest_batch=4)
    with pytest.raises(ValueError, match="largest_batch is 0"):
        StepTrainer(network, trainer.parameters, optimizer, x, y, largest_batch=0)
    with pytest.raises(ValueError, match=r"y is a .*the network needs"):
        Evaluation(network, x, y[1:])
    with pytest.raises(ValueError, match=r"parameters is a .*the network needs"):
        Evaluation(network, x, y).measure(trainer.parameters[1:])
