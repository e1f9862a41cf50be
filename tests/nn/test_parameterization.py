"""Parameterizations: folded into the optimizer they train what their formulas say."""

import math

import numpy as np
import pytest

from minibutter.nn import reference
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import epoch
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.parameterization import (
    PARAMETERIZATIONS,
    Parameterization,
    Scales,
    make_parameterization,
    mup,
    ntk,
    standard,
)
from minibutter.nn.starts import Start, TrainingData
from minibutter.nn.training import Trainer
from tests.nn.test_groups import assert_group_has_the_bits_of_single_runs, draw_starts

DTYPES = ("float32", "float64")
WIDTHS, N_INPUTS, N_ROWS, SIGMA0, BETA = (7, 5, 2), 6, 23, 1.3, 0.4

# Name -> (our optimizer, the reference's)
RULES = {
    "sgd": (make_optimizer("sgd", 0.5), lambda: reference.SGD(0.5)),
    "momentum": (make_optimizer("sgd", 0.1, 0.9), lambda: reference.SGD(0.1, 0.9)),
    "nesterov": (
        make_optimizer("sgd", 0.1, 0.9, nesterov=True),
        lambda: reference.TorchSGD(0.1, 0.9, nesterov=True),
    ),
    "perturbed": (
        make_optimizer("sgd", 0.5, perturbation=3),
        lambda: reference.TorchSGD(0.5, k=3),
    ),
    # Epsilons that matter, or nothing would be seen of what the multipliers make of them.
    "adam": (
        make_optimizer("adam", 0.01)._replace(epsilon=1e-2),
        lambda: reference.Adam(0.01, epsilon=1e-2),
    ),
    "rmsprop": (
        make_optimizer("rmsprop", 0.01, 0.5)._replace(epsilon=1e-3),
        lambda: reference.RMSprop(0.01, 0.5, epsilon=1e-3),
    ),
}


def make_network(dtype="float64"):
    return Network(N_INPUTS, WIDTHS, "regression", "tanh", dtype=dtype)


def draw_data(seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N_ROWS, N_INPUTS))
    y = rng.uniform(size=(N_ROWS, WIDTHS[-1]))
    return TrainingData(x, y, x, y)


class NtkNetwork:
    """z = σ₀ / √fan_in (x V) + β c written out: three layers, tanh, and a sigmoid with MSE."""

    def __init__(self, make_rule, rng, l1, l2):
        shapes = list(zip((N_INPUTS, *WIDTHS[:-1]), WIDTHS, strict=True))
        self.m = [SIGMA0 / math.sqrt(fan_in) for fan_in, _ in shapes]
        self.v = [rng.standard_normal(shape) for shape in shapes]
        self.c = [np.zeros(fan_out) for _, fan_out in shapes]
        self.rules = [(make_rule(), make_rule()) for _ in shapes]
        self.penalty = l1, l2

    def forward(self, x):
        inputs, (m_0, m_1, m_2), (v_0, v_1, v_2), (c_0, c_1, c_2) = [x], self.m, self.v, self.c
        inputs.append(np.tanh(m_0 * (x @ v_0) + BETA * c_0))
        inputs.append(np.tanh(m_1 * (inputs[1] @ v_1) + BETA * c_1))
        z = m_2 * (inputs[2] @ v_2) + BETA * c_2
        return inputs, 1 / (1 + np.exp(-z))

    def step(self, x, y):
        inputs, p = self.forward(x)
        dz = 2 * (p - y) * p * (1 - p) / y.size
        gradients = []
        for layer in (2, 1, 0):
            dv, dc = self.m[layer] * (inputs[layer].T @ dz), BETA * dz.sum(axis=0)
            gradients.append((layer, dv, dc))
            dz = self.m[layer] * (dz @ self.v[layer].T) * (1 - inputs[layer] ** 2)
        l1, l2 = self.penalty
        for layer, dv, dc in gradients:
            dv = dv + l1 * np.sign(self.v[layer]) + 2 * l2 * self.v[layer]
            of_v, of_c = self.rules[layer]
            self.v[layer] = of_v.update(self.v[layer], dv)
            self.c[layer] = of_c.update(self.c[layer], dc)


def outputs_of(network, parameters, x, y, layers_of):
    *_, p, _ = reference.forward(
        layers_of(network, parameters), network.skip, "tanh", "regression", x, y
    )
    return p


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (1e-4, 1e-3)])
@pytest.mark.parametrize("rule", RULES)
def test_50_steps_equal_the_ntk_network_written_out(rule, l1, l2, layers_of):
    network, data = make_network(), draw_data()
    optimizer, make_rule = RULES[rule]
    scales = ntk(N_INPUTS, WIDTHS, SIGMA0, BETA)
    trainer = Trainer(
        network, scales.initial_parameters(network, np.random.default_rng(2)), optimizer, data,
        batch_size=N_ROWS, shuffle=np.random.default_rng(3), l1=l1, l2=l2, parameterization=scales,
    )  # fmt: skip
    written_out = NtkNetwork(make_rule, np.random.default_rng(2), l1, l2)
    x, y = data.x_train, data.y_train
    first = written_out.forward(x)[1]
    for _ in range(50):
        penalty = sum(l1 * np.abs(v).sum() + l2 * (v**2).sum() for v in written_out.v)
        row = trainer.run_epoch()
        assert row.train[epoch.PENALTY] == pytest.approx(penalty, rel=1e-12)
        written_out.step(x, y)
        p = outputs_of(network, trainer.parameters, x, y, layers_of)
        assert np.abs(p - written_out.forward(x)[1]).max() <= 1e-12
    assert np.abs(p - first).max() > 0.01


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_learning_rates_by_layer_make_a_standard_network_train_as_the_ntks(rule, layers_of):
    network, data = make_network(), draw_data()
    ntk_scales, fans_in = ntk(N_INPUTS, WIDTHS, SIGMA0, BETA), (N_INPUTS, *WIDTHS[:-1])
    scales = Parameterization(
        weights=tuple(Scales(SIGMA0 / math.sqrt(n), rate=SIGMA0**2 / n) for n in fans_in),
        biases=(Scales(0.0, rate=BETA**2),) * 3,
    )
    trainers = [
        Trainer(
            network, each.initial_parameters(network, np.random.default_rng(2)), RULES[rule][0],
            data, batch_size=8, shuffle=np.random.default_rng(3), parameterization=each,
        )
        for each in (scales, ntk_scales)
    ]  # fmt: skip
    for _ in range(20):
        for trainer in trainers:
            trainer.run_epoch()
        ours, others = (
            outputs_of(network, trainer.parameters, data.x_train, data.y_train, layers_of)
            for trainer in trainers
        )
        assert np.abs(ours - others).max() <= 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("rule", ["momentum", "nesterov", "adam", "rmsprop"])
def test_groups_have_the_bits_of_single_runs_in_every_parameterization(rule, name, dtype):
    network = Network(5, (7, 9, 3), "classification", "tanh", dtype=dtype)
    kind = "sgd" if rule in ("momentum", "nesterov") else rule
    scales = make_parameterization(name, network, kind, 1.2, 0.5, base_width=4)
    assert_group_has_the_bits_of_single_runs(
        network, draw_starts(network, 3), RULES[rule][0], l1=1e-4, l2=1e-3,
        parameterization=scales,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_every_part_has_its_own_rate_and_epsilon(rule, dtype, assert_within):
    rng = np.random.default_rng(5)
    stops, rates, epsilons = [3, 20, 21, 40], [0.5, 1.0, 3.0, 0.0], [1.0, 10.0, 0.1, 1.0]
    base, make_rule = RULES[rule]
    optimizer = base._replace(
        part_stop=np.array(stops), part_rate=np.array(rates), part_epsilon=np.array(epsilons)
    )
    parts = list(map(slice, [0, *stops[:-1]], stops))
    references = []
    for rate, epsilon in zip(rates, epsilons, strict=True):
        references.append(make_rule())
        references[-1].learning_rate *= rate
        if hasattr(references[-1], "epsilon"):
            references[-1].epsilon *= epsilon
    w, slots = rng.standard_normal(40).astype(dtype), np.zeros((2, 40), dtype)
    first, expected = w.copy(), w.copy()
    for step in range(1, 11):
        gradient = rng.standard_normal(40).astype(dtype)
        epoch.update(optimizer, w, slots, gradient, step)
        for part, each in zip(parts, references, strict=True):
            expected[part] = each.update(expected[part], gradient[part])
    assert_within(w, expected, 100 * np.finfo(dtype).eps * (1 + np.abs(w)))
    np.testing.assert_array_equal(w[parts[3]], first[parts[3]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_parts_with_factors_of_1_have_the_bits_of_the_whole(rule, dtype):
    rng = np.random.default_rng(6)
    whole = RULES[rule][0]
    parts = whole._replace(
        part_stop=np.array([5, 6, 41]), part_rate=np.ones(3), part_epsilon=np.ones(3)
    )
    start, gradients = rng.standard_normal(41).astype(dtype), rng.standard_normal((10, 41))
    ends = []
    for optimizer in (whole, parts):
        w, slots = start.copy(), np.zeros((2, 41), dtype)
        for step, gradient in enumerate(gradients.astype(dtype), start=1):
            epoch.update(optimizer, w, slots, gradient, step)
        ends.append(w.tobytes() + slots.tobytes())
    assert ends[0] == ends[1]


def test_the_standard_parameterization_leaves_the_optimizer_as_it_is():
    network = make_network()
    for optimizer, _ in RULES.values():
        assert standard(N_INPUTS, WIDTHS, 2.0).fold_into(optimizer, network) is optimizer
        assert ntk(N_INPUTS, WIDTHS).fold_into(optimizer, network) is not optimizer


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_first_weights_have_the_spread_of_their_formula(name):
    network = Network(100, (400, 200, 50), "classification", dtype="float64")
    scales = make_parameterization(name, network, "sgd", 1.5, base_width=100)
    parameters = scales.initial_parameters(network, np.random.default_rng(7))
    # mup: the outputs of a network four and two times as wide as the base.
    last = 1.5 / math.sqrt(200 * (2 if name == "mup" else 1))
    for layer, std in enumerate((1.5 / math.sqrt(100), 1.5 / math.sqrt(400), last)):
        w = network.weights(parameters, layer)
        assert w.std() == pytest.approx(std, rel=4 / math.sqrt(2 * w.size))
        assert abs(w.mean()) < 4 * std / math.sqrt(w.size)
        assert not network.biases(parameters, layer).any()
    single = scales.initial_parameters(
        Network(100, (400, 200, 50), "classification"), np.random.default_rng(7)
    )
    np.testing.assert_array_equal(single, parameters.astype(np.float32))


def test_biases_start_from_a_gaussian_if_they_have_a_std():
    network = Network(1, (2000, 1), "regression", dtype="float64")
    scales = Parameterization((Scales(1.0),) * 2, (Scales(0.5, 3.0), Scales(0.0)))
    parameters = scales.initial_parameters(network, np.random.default_rng(8))
    assert network.biases(parameters, 0).std() == pytest.approx(1.5, rel=0.1)


def test_mup_at_the_base_width_is_the_standard_parameterization():
    for is_sgd in (True, False):
        assert mup(10, (32, 32, 3), 32, is_sgd, 1.4) == standard(10, (32, 32, 3), 1.4)


def test_mup_has_the_scales_of_table_8():
    wide = mup(10, (64, 128, 3), 32, is_sgd=True)
    assert [scales.rate for scales in wide.weights] == [2.0, 4.0 / 2.0, 4.0]
    assert [scales.multiplier for scales in wide.weights] == [1.0, 1.0, 1 / 4]
    assert wide.weights[2].std == pytest.approx(1 / math.sqrt(32), rel=1e-15)
    assert [scales.rate for scales in wide.biases] == [2.0, 4.0, 1.0]
    adaptive = mup(10, (64, 128, 3), 32, is_sgd=False)
    assert [scales.rate for scales in adaptive.weights] == [1.0, 1 / 2, 1.0]
    assert [scales.rate for scales in adaptive.biases] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_steps_move_the_outputs_of_wide_networks_alike_in_mup_and_more_and_more_in_standard(rule):
    """The coordinate check of `mup`, for the outputs."""
    rng = np.random.default_rng(9)
    x = rng.standard_normal((16, 8))
    y = np.eye(4)[rng.integers(4, size=16)]
    data = TrainingData(x, y, x, y)
    rate = {"sgd": 0.1, "adam": 1e-3}[rule]

    def move(name, width):
        network = Network(8, (width, width, 4), "classification", "tanh", dtype="float64")
        scales = make_parameterization(name, network, rule, base_width=32)
        starts = [
            Start(scales.initial_parameters(network, np.random.default_rng(seed)), data, rng)
            for seed in range(4)
        ]
        group = TrainingGroup(
            network, starts, make_optimizer(rule, rate), batch_size=16, parameterization=scales
        )
        losses = np.array([[row.train[0] for row in group.run_epoch()] for _ in range(3)])
        return np.mean(losses[0] - losses[2])

    narrow, wide = (
        {name: move(name, width) for name in ("standard", "mup")} for width in (32, 512)
    )
    assert narrow["mup"] == pytest.approx(narrow["standard"], rel=1e-9)
    assert 0.5 < wide["mup"] / narrow["mup"] < 2
    assert not 0.5 < wide["standard"] / narrow["standard"] < 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scales(-1.0), "std is -1.0; it must be at least 0 and finite"),
        (lambda: Scales(1.0, math.inf), "multiplier is inf; it must be"),
        (lambda: Parameterization((Scales(1.0, 0.0),), (Scales(0.0),)), "of layer 0 is 0"),
        (lambda: Parameterization((Scales(1.0),), ()), "weights of 1 layers, and for .* of 0"),
        (lambda: make_parameterization("ntp", make_network(), "sgd"), "'ntp'; it must be one of s"),
        (lambda: make_parameterization("mup", make_network(), "sgd"), "mup needs base_width"),
        (lambda: mup(1, (2, 1), 0, is_sgd=True), "base_width is 0; it must be at least 1"),
        (
            lambda: standard(1, (1, 1)).fold_into(RULES["sgd"][0], make_network()),
            "for 2 layers; th",
        ),
    ],
)
def test_impossible_scales_are_refused_with_the_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()
