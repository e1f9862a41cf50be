"""Epochs: what their metrics mean, that they repeat, and what happens when a run diverges."""

import math

import numba
import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.metrics import METRICS
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.schedules import StepSchedule
from minibutter.nn.starts import Start, TrainingData, is_binary
from minibutter.nn.training import Trainer, compile_kernels

DTYPES = ("float32", "float64")
EPS = np.finfo(np.float64).eps

METRIC_BOUND = 51 * EPS  # of a mean over 51 rows of numbers of order 1


def draw_data(rng, task, n_outputs, dtype="float64", n_train=51, n_test=13):
    """Rows of five features; targets depend on them, so that there is something to learn."""
    x = rng.uniform(-1, 1, (n_train + n_test, 5))
    scores = x @ rng.standard_normal((5, n_outputs))
    if task == "regression":
        y = 1 / (1 + np.exp(-scores))
    elif task == "binary":
        y = (scores > 0).astype(np.float64)
    else:
        y = np.eye(n_outputs)[scores.argmax(axis=1)]
    x, y = x.astype(dtype), y.astype(dtype)
    return TrainingData(x[:n_train], y[:n_train], x[n_train:], y[n_train:])


def make_trainer(
    seed=0, *, dtype="float64", task="classification", n_outputs=3, activation="tanh",
    shape="rectangle", rule="adam", learning_rate=0.01, momentum=0.0, data=None, **options,
):  # fmt: skip
    """A trainer of a small network; the same arguments give the same run."""
    rng = np.random.default_rng(seed)
    if data is None:
        data = draw_data(rng, task, n_outputs, dtype)
    network = Network(5, (8, 8, n_outputs), task, activation, shape, dtype)
    options = {"batch_size": 16, "evaluate_train": True} | options
    return Trainer(
        network,
        network.initial_parameters("glorot_uniform", rng),
        make_optimizer(rule, learning_rate, momentum),
        data,
        shuffle=np.random.default_rng([seed, 1]),
        **options,
    )


class ReferenceRun:
    """The run of a `make_trainer`, one NumPy batch at a time."""

    def __init__(self, trainer, seed, make_rule, l1, l2, layers_of):
        self.network, self.data = trainer.network, trainer.data
        self.layers = [(w.copy(), b.copy()) for w, b in layers_of(self.network, trainer.parameters)]
        self.rules = [(make_rule(), make_rule()) for _ in self.layers]
        self.shuffle = np.random.default_rng([seed, 1])
        self.penalty = l1, l2

    def measure(self, x, y, targets_are_binary):
        """The ten metrics and the penalty of these rows, as an array."""
        network = self.network
        *_, p, losses = reference.forward(
            self.layers, network.skip, network.activation, network.task, x, y
        )
        metrics = reference.metrics(p, y, losses, targets_are_binary)
        penalty = sum(reference.penalty(w, *self.penalty) for w, _ in self.layers)
        return np.array([*metrics.values(), penalty])

    def run_epoch(self):
        """Train on batches of 16 rows; the means of their metrics, weighted by rows."""
        network, data = self.network, self.data
        order = self.shuffle.permutation(len(data.x_train))
        targets_are_binary = is_binary(data.y_train)
        sums = np.zeros(len(METRICS) + 1)
        for start in range(0, len(order), 16):
            rows = order[start : start + 16]
            x, y = data.x_train[rows], data.y_train[rows]
            sums += len(rows) * self.measure(x, y, targets_are_binary)
            gradients = reference.backward(
                self.layers, network.skip, network.activation, network.task, x, y, *self.penalty
            )
            self.layers = [
                (w_rule.update(w, dw), b_rule.update(b, db))
                for (w, b), (dw, db), (w_rule, b_rule) in zip(
                    self.layers, gradients, self.rules, strict=True
                )
            ]
        means = sums / len(order)
        # The exception among the metrics: the root of the mean, not the mean of the roots.
        mse, rmse = METRICS.index("mean_squared_error"), METRICS.index("root_mean_squared_error")
        means[rmse] = math.sqrt(means[mse])
        return means


@pytest.mark.parametrize(
    ("task", "n_outputs", "shape", "rule", "momentum", "make_rule", "l1", "l2"),
    [
        ("classification", 3, "rectangle_residual", "adam", 0.0,
         lambda: reference.Adam(0.01), 0.0, 0.01),
        ("binary", 1, "rectangle", "rmsprop", 0.9,
         lambda: reference.RMSprop(0.01, momentum=0.9), 0.01, 0.0),
        ("regression", 2, "rectangle", "sgd", 0.9,
         lambda: reference.SGD(0.01, momentum=0.9), 0.0, 0.0),
    ],
)  # fmt: skip
def test_three_epochs_equal_the_reference_run_batch_by_batch(
    task, n_outputs, shape, rule, momentum, make_rule, l1, l2, layers_of, assert_within
):
    trainer = make_trainer(
        7, task=task, n_outputs=n_outputs, shape=shape, rule=rule, momentum=momentum, l1=l1, l2=l2
    )
    ref_run = ReferenceRun(trainer, 7, make_rule, l1, l2, layers_of)
    data = trainer.data
    for _ in range(3):
        row, ref_train = trainer.run_epoch(), ref_run.run_epoch()
        # The rounding of at most twelve steps before is less than that of the sums over rows.
        assert_within(row.train, ref_train, METRIC_BOUND, "train")
        for measured, x, y in (
            (row.test, data.x_test, data.y_test),
            (row.trained, data.x_train, data.y_train),
        ):
            expected = ref_run.measure(x, y, is_binary(y))
            assert_within(measured, expected, METRIC_BOUND, "test or trained")
        assert row.is_finite
    for (w, b), (ref_w, ref_b) in zip(
        layers_of(trainer.network, trainer.parameters), ref_run.layers, strict=True
    ):
        # Twelve steps, each with a rounding of the parameter and one of its way.
        assert_within(w, ref_w, 2 * 12 * EPS, "w")
        assert_within(b, ref_b, 2 * 12 * EPS, "b")


# Train and test loss of ten epochs, as first recorded with NumPy 2.4 and numba 0.68. They move when
# the arithmetic, the draw of the first weights or the use of the shuffle stream does.
TRAJECTORY = [
    (1.0414858335383546, 0.9327520671877773),
    (0.9186110614362692, 0.8658008937381368),
    (0.8300656220393814, 0.7987049438984527),
    (0.7462010790414199, 0.7387727557019824),
    (0.6765577125688994, 0.6870293066751626),
    (0.6129271705478874, 0.6393363432512327),
    (0.5509739941790198, 0.5938752192470439),
    (0.49551552346502276, 0.5555708479555255),
    (0.4432350953443591, 0.5224824455323334),
    (0.3968324919346044, 0.49996480532928317),
]


def test_ten_epochs_follow_the_recorded_trajectory(assert_within):
    trainer = make_trainer(11, activation="gelu", shape="rectangle_residual", l2=0.001)
    rows = [trainer.run_epoch() for _ in range(10)]
    losses = np.array([(row.train[0], row.test[0]) for row in rows])
    # Forty steps carry the rounding of other libraries' exp and erf along.
    assert_within(losses, np.array(TRAJECTORY), 40 * METRIC_BOUND)


@pytest.mark.parametrize("batch_size", [16, 17, 50, 51, 1])
def test_last_partial_batch_is_trained_on(batch_size, assert_within):
    """With a gradient that is all penalty, every step shrinks the weights by the same factor."""
    shrink, steps = 0.01, math.ceil(51 / batch_size)
    trainer = make_trainer(batch_size=batch_size, rule="sgd", learning_rate=shrink, l2=0.5)
    for part in ("x_train", "y_train"):
        getattr(trainer.data, part)[:] = 0  # no input, no target: the first layer has no gradient
    w = trainer.network.weights(trainer.parameters, 0)
    first = w.copy()
    for epochs in (1, 2):
        trainer.run_epoch()
        expected = first * (1 - shrink) ** (epochs * steps)
        assert_within(w, expected, 2 * epochs * steps * EPS * np.abs(first))


@pytest.mark.parametrize("dtype", DTYPES)
def test_epoch_of_one_batch_measures_what_the_epoch_before_left(dtype, assert_within):
    trainer = make_trainer(dtype=dtype, batch_size=51, l2=0.01)
    before = trainer.run_epoch()
    for _ in range(3):
        after = trainer.run_epoch()
        # Each row gives the same numbers; only the order in which rows are added differs.
        assert_within(after.train, before.trained, METRIC_BOUND)
        before = after


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_too_small_to_move_leave_the_first_evaluation_standing(dtype, assert_within):
    trainer = make_trainer(dtype=dtype, rule="sgd", learning_rate=1e-30, l1=0.01)
    # Zeros, and only they, move by such a step: the biases must not start there.
    first = trainer.parameters
    first[first == 0] = 0.1
    first = first.copy()
    row = trainer.run_epoch()
    np.testing.assert_array_equal(trainer.parameters, first)
    assert_within(row.train, row.trained, METRIC_BOUND)


@pytest.mark.parametrize("dtype", DTYPES)
def test_trained_metrics_are_those_of_evaluating_the_training_set(dtype):
    data = draw_data(np.random.default_rng(1), "classification", 3, dtype)
    data = TrainingData(data.x_train, data.y_train, data.x_train, data.y_train)
    row = make_trainer(dtype=dtype, data=data).run_epoch()
    np.testing.assert_array_equal(row.trained, row.test)
    assert not np.array_equal(row.trained, row.train)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_seed_twice_gives_the_same_bits(dtype):
    runs = [make_trainer(3, dtype=dtype, l1=0.001, l2=0.001) for _ in range(2)]
    for _ in range(3):
        one, other = (trainer.run_epoch() for trainer in runs)
        for name in ("train", "test", "trained"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert runs[0].parameters.tobytes() == runs[1].parameters.tobytes()


def test_evaluations_and_the_test_set_do_not_touch_the_training():
    data = draw_data(np.random.default_rng(2), "classification", 3)
    other_test = TrainingData(data.x_train, data.y_train, -data.x_test[:5], data.y_test[:5])
    runs = [
        make_trainer(data=data, evaluate_train=True),
        make_trainer(data=other_test, evaluate_train=False),
    ]
    for _ in range(2):
        one, other = (trainer.run_epoch() for trainer in runs)
        np.testing.assert_array_equal(one.train, other.train)
    assert other.trained is None
    np.testing.assert_array_equal(runs[0].parameters, runs[1].parameters)


@pytest.mark.parametrize("dtype", DTYPES)
def test_divergence_is_recorded_and_the_run_goes_on(dtype):
    # With l2 = 1 every step multiplies the weights by twice the learning rate, whatever the data.
    huge = float(np.sqrt(np.finfo(dtype).max))
    trainer = make_trainer(dtype=dtype, activation="relu", rule="sgd", learning_rate=huge, l2=1)
    rows = [trainer.run_epoch() for _ in range(3)]
    for row in rows:
        assert not row.is_finite
        assert not np.isfinite(row.train[0])
    # What is not a number stays visible in every metric, and is never accurate.
    accuracy = METRICS.index("accuracy")
    for last in (rows[-1].train, rows[-1].test, rows[-1].trained):
        assert last[accuracy] == 0
        assert np.isnan(np.delete(last[: len(METRICS)], accuracy)).all()


def test_non_finite_parameter_is_noticed_behind_finite_losses():
    trainer = make_trainer(activation="relu")
    assert trainer.run_epoch().is_finite
    # An infinitely negative bias shuts its unit: no row, and so no loss, sees it.
    trainer.network.biases(trainer.parameters, 0)[0] = -math.inf
    row = trainer.run_epoch()
    assert np.isfinite([row.train, row.test, row.trained]).all()
    assert not row.is_finite


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "swish"])
def test_small_network_learns_a_linear_rule(activation, dtype):
    trainer = make_trainer(dtype=dtype, activation=activation, learning_rate=0.03)
    rows = [trainer.run_epoch() for _ in range(100)]
    assert rows[-1].trained[0] < 0.2 * rows[0].train[0]
    assert rows[-1].trained[METRICS.index("accuracy")] > 0.95


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled with NUMBA_DISABLE_JIT")
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_compiled_after_compile_kernels(dtype):
    compile_kernels(dtype)
    compiled = len(epoch.train_epoch.signatures), len(epoch.evaluate.signatures)
    trainer = make_trainer(
        dtype=dtype, task="binary", n_outputs=1, shape="rectangle_residual", rule="rmsprop",
        momentum=0.9, l1=0.1,
    )  # fmt: skip
    trainer.run_epoch()
    assert (len(epoch.train_epoch.signatures), len(epoch.evaluate.signatures)) == compiled


def test_targets_are_binary_when_all_are_0_or_1():
    assert is_binary(np.array([[0.0], [1.0], [1.0]]))
    assert is_binary(np.eye(3, dtype=np.float32))
    assert not is_binary(np.array([[0.0], [0.5]]))
    assert not is_binary(np.array([[-1.0], [1.0]]))


def test_optimizers_have_keras_constants():
    optimizer = make_optimizer("rmsprop", 1e-4, momentum=0.9)
    assert optimizer.rule == epoch.RMSPROP
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.rho) == (1e-4, 0.9, 0.9)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-7)
    assert make_optimizer("sgd", 1).momentum == 0


@pytest.mark.parametrize(
    ("rule", "learning_rate", "momentum", "message"),
    [
        ("adagrad", 0.1, 0.0, "optimizer is 'adagrad'; it must be one of adam, rmsprop, sgd"),
        ("sgd", 0.0, 0.0, "learning_rate is 0.0; it must be positive"),
        ("sgd", math.nan, 0.0, "learning_rate is nan; it must be positive"),
        ("sgd", math.inf, 0.0, "learning_rate is inf; it must be positive and finite"),
        ("sgd", 0.1, 1.0, r"momentum is 1.0; it must be in \[0, 1\)"),
        ("sgd", 0.1, -0.1, r"momentum is -0.1; it must be in \[0, 1\)"),
        ("adam", 0.1, 0.9, "momentum is 0.9, but adam has its own"),
    ],
)
def test_impossible_optimizer_is_refused_with_the_reason(rule, learning_rate, momentum, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(rule, learning_rate, momentum)


@pytest.mark.parametrize(
    ("rule", "momentum", "options", "message"),
    [
        ("adam", 0.0, {"perturbation": 3}, "perturbation is 3, but adam has none; .*or use sgd"),
        ("rmsprop", 0.9, {"nesterov": True}, "nesterov is True, but rmsprop has none"),
        ("rmsprop", 0.9, {"momentum_form": "torch"}, "momentum_form is 'torch', but rmsprop has"),
        ("sgd", 0.9, {"momentum_form": "jax"}, "momentum_form is 'jax'; it must be one of keras, "),
        ("sgd", 0.0, {"nesterov": True}, "nesterov without momentum is plain descent"),
        ("sgd", 0.0, {"perturbation": 0}, "perturbation is 0; it must be a whole number from 1 to"),
        ("sgd", 0.0, {"perturbation": 1.5}, "perturbation is 1.5; it must be a whole number"),
        ("sgd", 0.9, {"perturbation": 3}, "perturbation is 3, but in Keras' form of momentum"),
    ],
)
def test_what_only_sgd_has_is_refused_elsewhere(rule, momentum, options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(rule, 0.1, momentum, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be between 1 and the 51 training rows"),
        ({"batch_size": 52}, "batch_size is 52; it must be between 1 and the 51 training rows"),
        ({"l1": -0.1}, "l1 is -0.1; a penalty factor is at least 0 and finite"),
        ({"l2": math.nan}, "l2 is nan; a penalty factor is at least 0 and finite"),
    ],
)
def test_impossible_option_is_refused_with_the_reason(options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("x_train", lambda rows: rows[:, :4].copy()),
        ("y_train", lambda rows: rows[:-1]),
        ("y_train", lambda rows: rows[:, 0].copy()),
        ("x_test", lambda rows: rows.astype(np.float32)),
        ("y_test", np.asfortranarray),
    ],
)
def test_array_that_does_not_fit_the_network_is_refused_before_a_kernel_reads_it(name, spoil):
    data = draw_data(np.random.default_rng(4), "classification", 3)
    arrays = {field: getattr(data, field) for field in data.__dataclass_fields__}
    arrays[name] = spoil(arrays[name])
    with pytest.raises(ValueError, match=rf"{name} is a float.*C-contiguous float64 array"):
        make_trainer(data=TrainingData(**arrays))


def test_parameters_of_another_network_are_refused():
    trainer = make_trainer()
    with pytest.raises(ValueError, match=r"parameters is a .*the network needs"):
        Trainer(
            Network(5, (8, 3), "classification", dtype="float64"),
            trainer.parameters,
            make_optimizer("adam", 0.01),
            trainer.data,
            batch_size=16,
            shuffle=np.random.default_rng(0),
        )


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_a_schedule_multiplies_the_learning_rate_by_gamma_after_every_so_many_epochs(rule):
    scheduled = make_trainer(rule=rule, learning_rate=0.1, schedule=StepSchedule(2, 0.25))
    by_hand = make_trainer(rule=rule, learning_rate=0.1)
    group = by_hand._group
    first = group.optimizer
    for rate in (0.1, 0.1, 0.025, 0.025, 0.00625):
        group.optimizer = first._replace(learning_rate=rate)
        row, expected = scheduled.run_epoch(), by_hand.run_epoch()
        np.testing.assert_array_equal(row.train, expected.train)
        np.testing.assert_array_equal(scheduled.parameters, by_hand.parameters)


def test_a_run_that_goes_on_from_a_state_goes_on_with_its_schedule():
    network = Network(5, (8, 3), "classification", dtype="float64")
    data = draw_data(np.random.default_rng(3), "classification", 3)
    rng = np.random.default_rng(4)
    start = Start(network.initial_parameters("glorot_uniform", rng), data, rng)

    def make_group(start):
        return TrainingGroup(
            network, [start], make_optimizer("adam", 0.1), batch_size=16,
            schedule=StepSchedule(2, 0.25),
        )  # fmt: skip

    group = make_group(start)
    for epoch_number in range(6):
        if epoch_number == 3:
            resumed = make_group(start.resumed(group.state(0)))
        group.run_epoch()
    for _ in range(3):
        resumed.run_epoch()
    assert resumed.parameters(0).tobytes() == group.parameters(0).tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "step_epochs is 0; it must be at least 1"),
        ((3, 0.0), "gamma is 0.0; it must be positive and finite"),
        ((3, math.nan), "gamma is nan; it must be positive"),
    ],
)
def test_impossible_schedule_is_refused_with_the_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        StepSchedule(*arguments)


def test_rows_by_lot_come_with_their_targets_and_some_of_them_twice(layers_of):
    """Full batches whose gradients are those of the drawn rows, with the same stream."""
    data = draw_data(np.random.default_rng(5), "classification", 3)
    trainer = make_trainer(
        data=data, rule="sgd", learning_rate=0.1, batch_size=51, sampling="replacement"
    )
    network, shuffle = trainer.network, np.random.default_rng([0, 1])
    layers = [(w.copy(), b.copy()) for w, b in layers_of(network, trainer.parameters)]
    for _ in range(3):
        rows = shuffle.integers(51, size=51)
        assert 20 < len(set(rows.tolist())) < 45
        gradients = reference.backward(
            layers, network.skip, "tanh", "classification", data.x_train[rows], data.y_train[rows]
        )
        layers = [
            (w - 0.1 * dw, b - 0.1 * db) for (w, b), (dw, db) in zip(layers, gradients, strict=True)
        ]
        trainer.run_epoch()
    expected = np.concatenate([part.ravel() for pair in layers for part in pair])
    np.testing.assert_allclose(trainer.parameters, expected, rtol=0, atol=1e-13)


def test_a_sampling_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="sampling is 'bootstrap'; it must be one of shuffle, rep"):
        make_trainer(sampling="bootstrap")
