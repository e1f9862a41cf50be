"""Training counted in steps."""

import numpy as np
import pytest

from minibutter.nn.network import Network
from minibutter.nn.starts import Start, TrainingData
from minibutter.nn.stepping import SteppedGroup
from minibutter.nn.training import TrainingGroup, make_optimizer

NETWORK = Network(5, (7, 3), "classification")


def starts(n=3, n_train=40):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_train + 100, 5)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[x[:, :3].argmax(axis=1)]
    data = TrainingData(x[:n_train], y[:n_train], x[n_train:], y[n_train:])
    return [
        Start(
            NETWORK.initial_parameters("he_uniform", np.random.default_rng([1, number])),
            data,
            np.random.default_rng([2, number]),
        )
        for number in range(n)
    ]


def group_of(n=3, batch_size=8):
    return SteppedGroup(NETWORK, starts(n), make_optimizer("sgd", 0.1), batch_size=batch_size)


@pytest.mark.parametrize("n", [1, 3])
def test_steps_in_two_parts_are_the_steps_in_one(n):
    whole, parts = group_of(n), group_of(n)
    whole.run_steps(11)
    parts.run_steps(4)
    parts.evaluate_test()
    parts.run_steps(7)
    assert whole.steps == parts.steps == 11
    for number in range(n):
        np.testing.assert_array_equal(whole.parameters(number), parts.parameters(number))


def test_an_epoch_of_whole_batches_is_as_many_steps():
    options = {"batch_size": 8, "sampling": "replacement"}
    by_epoch = TrainingGroup(NETWORK, starts(), make_optimizer("sgd", 0.1), **options)
    row = by_epoch.run_epoch()[1]
    by_steps = group_of()
    losses = by_steps.run_steps(5)
    np.testing.assert_array_equal(by_steps.parameters(1), by_epoch.parameters(1))
    assert losses[1] == row.train[0]
    np.testing.assert_allclose(by_steps.evaluate_test()[1], row.test[:2], rtol=1e-12)


def test_looking_at_training_rows_tells_their_accuracy():
    group = group_of(batch_size=40)
    group.run_steps(400)
    accuracies = group.evaluate_train()
    assert accuracies.shape == (3, 2)
    assert (accuracies[:, 1] > 0.9).all()
    assert (accuracies[:, 0] < 0.5).all()
