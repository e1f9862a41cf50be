"""Training by steps: the same steps as by epochs, and exact means of any rows."""

import numpy as np
import pytest

from minibutter.nn.steps import Evaluation, RowStream, StepTrainer
from minibutter.nn.training import Trainer, TrainingData, make_optimizer
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
        ([1], 9, 0.1, "batch_size is 9; there is memory for 1 to 8"),
        ([1], 0, 0.1, "batch_size is 0; there is memory for 1 to 8"),
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
    with pytest.raises(ValueError, match=r"x is a .*the network needs"):
        StepTrainer(network, trainer.parameters, optimizer, x[:, 1:], y, largest_batch=4)
    with pytest.raises(ValueError, match="largest_batch is 0"):
        StepTrainer(network, trainer.parameters, optimizer, x, y, largest_batch=0)
    with pytest.raises(ValueError, match=r"y is a .*the network needs"):
        Evaluation(network, x, y[1:])
    with pytest.raises(ValueError, match=r"parameters is a .*the network needs"):
        Evaluation(network, x, y).measure(trainer.parameters[1:])
