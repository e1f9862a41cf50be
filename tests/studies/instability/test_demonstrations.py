"""Three systems whose every kind of behaviour is known."""

import numpy as np
import pytest

from minibutter.studies.instability.demonstrations import (
    OneLayerNetwork,
    classify,
    heat_steps,
    linear_amplification,
    train_two_scalars,
)
from minibutter.studies.instability.differences import relative_l1

# ---------------------------------------------------------------------------------------------
# The heat equation


@pytest.fixture
def temperatures():
    """31 points, ends fixed at 0."""
    u = np.random.default_rng(0).standard_normal(31)
    u[[0, -1]] = 0
    return u


@pytest.mark.parametrize("dt", [0.1, 0.4, 0.5])
def test_heat_spreads_at_steps_up_to_one_half(dt, temperatures):
    largest = heat_steps(dt, 3000, temperatures)
    assert np.all(np.diff(largest) <= 1e-15)
    assert largest[-1] < 0.01


@pytest.mark.parametrize("dt", [0.51, 0.8])
def test_heat_blows_up_beyond(dt, temperatures):
    largest = heat_steps(dt, 3000, temperatures)
    assert classify(largest) == "blown up"
    assert len(largest) < 1500
    sawtooth = 4 * np.sin(29 / 60 * np.pi) ** 2  # of 29 free points, the fastest mode
    assert largest[-1] / largest[-2] == pytest.approx(dt * sawtooth - 1, rel=2e-3)


def test_ends_keep_their_temperature_and_the_line_between_them_stays():
    line = np.linspace(3.0, -5.0, 31)
    np.testing.assert_allclose(heat_steps(0.5, 100, line), 5)


# ---------------------------------------------------------------------------------------------
# Two scalar weights


@pytest.mark.parametrize(
    ("start", "step", "sharpness"),
    [
        ((1.2, 0.9), 0.6, 2.0964),
        ((1.2, 0.9), 0.95, 2.0754),
        ((3, 0.4), 0.2, 9.023),
        ((3, 0.4), 0.3, 3.273),  # 9.16 at the start is more than 2 / ε: it is catapulted
    ],
)
def test_two_weights_settle_where_the_curvature_allows_the_step(start, step, sharpness):
    run = train_two_scalars(*start, step, 4000)
    assert classify(run.output[-200:]) == "settled"
    assert run.output[-1] == pytest.approx(1, abs=1e-9)
    assert run.sharpness[-1] == pytest.approx(sharpness, abs=5e-4)
    assert 2 <= run.sharpness[-1] < 2 / step


def test_two_weights_never_settle_at_steps_beyond_one_over_the_target():
    run = train_two_scalars(1.2, 0.9, 1.02, 4000)
    assert classify(run.output[-200:]) == "restrained"
    assert np.abs(run.output[-200:]).max() < 2
    assert np.abs(np.diff(run.output[-200:])).min() > 0.1


def test_two_weights_blow_up_where_the_catapult_is_too_strong():
    run = train_two_scalars(3.0, 0.4, 0.9, 4000)
    assert classify(run.output[-200:]) == "blown up"
    assert len(run.u) < 100


# ---------------------------------------------------------------------------------------------
# A convolution of one layer


@pytest.fixture
def network():
    return OneLayerNetwork()


@pytest.fixture
def first_kernel():
    """32 x 32 normal numbers: their part along the chessboard, and the length of the rest."""
    kernel = np.random.default_rng(7).standard_normal((32, 32))
    along = np.sum(kernel * (1 - 2 * (np.indices((32, 32)).sum(axis=0) % 2))) / 32
    return np.array([along, np.sqrt(np.sum(kernel**2) - along**2)])


def test_one_number_stands_for_the_convolution(network, first_kernel):
    """Loss and gradient of the image itself, at a tenth of its size."""
    size, width = 26, 8
    image = 1.0 - 2 * (np.indices((size, size)).sum(axis=0) % 2)
    windows = np.lib.stride_tricks.sliding_window_view(image, (width, width))
    patches = windows.reshape(-1, width**2)
    v = patches[0]
    share = np.mean(patches @ v > 0)
    small = OneLayerNetwork(squared_patch=width**2, share=float(share), decay=2.0)
    kernel = np.random.default_rng(0).standard_normal(width**2)

    def loss(kernel):
        z = patches @ kernel
        logit = np.mean(z / (1 + np.exp(-z)))
        return np.log1p(np.exp(-logit)) + kernel @ kernel

    along = kernel @ v / width
    rest = kernel - along * v / width
    collapsed = np.array([along, np.linalg.norm(rest)])
    assert small.loss(collapsed) == pytest.approx(loss(kernel), rel=1e-12)
    h = 1e-6
    gradient = [(loss(kernel + h * e) - loss(kernel - h * e)) / (2 * h) for e in np.eye(width**2)]
    moved = kernel - 0.1 * np.array(gradient)
    along = moved @ v / width
    expected = [along, np.linalg.norm(moved - along * v / width)]
    found = small.train(collapsed, 0.1, 1)[1]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_fixed_points_and_their_stiffness(network):
    u = network.fixed_point()
    assert u == pytest.approx(3.8652, abs=5e-5)
    assert u / 32 == pytest.approx(0.1208, abs=5e-5)
    assert network.stiffness(u) == pytest.approx(61.998, abs=2e-3)
    assert network.stiffness(0.0) == pytest.approx(-236, abs=1e-3)
    assert network.loss(np.array([-u / 32, 0])) == pytest.approx(0.291495, abs=1e-6)
    assert network.loss(np.array([u / 32, 0])) == pytest.approx(0.291485, abs=1e-6)
    np.testing.assert_allclose(network.restrained_band(), (0.03226, 0.1), atol=5e-6)


CLASSES = {
    "settled": (0.005, 0.01, 0.02, 0.03),
    "restrained": (0.05, 0.07, 0.09, 0.099),
    "blown up": (0.101, 0.11, 0.13),
}
EVERY_STEP = pytest.mark.parametrize(
    ("behaviour", "step"), [(name, step) for name, steps in CLASSES.items() for step in steps]
)


@EVERY_STEP
def test_steps_within_the_band_neither_settle_nor_blow_up(network, first_kernel, behaviour, step):
    losses = network.loss(network.train(first_kernel, step, 1000))
    assert classify(losses[-200:]) == behaviour
    low, high = network.restrained_band()
    assert (low < step < high) == (behaviour == "restrained")
    if behaviour == "settled":
        assert losses[-1] == pytest.approx(0.29149, abs=1e-5)
    if behaviour == "restrained":
        assert losses[-200:].min() > 0.2914
        assert losses[-200:].max() < 5


def test_loss_at_the_end_of_the_band_is_stuck_in_the_decay(network, first_kernel):
    losses = network.loss(network.train(first_kernel, 0.1, 1000))
    assert np.all(np.abs(losses / losses[0] - 1) < 0.01)


@EVERY_STEP
def test_rounding_errors_grow_to_the_size_of_the_weights_within_the_band_only(
    network, first_kernel, behaviour, step
):
    """k = 1 against k = 3. A linear explosion keeps relative errors: it is not this instability."""
    paths = [network.train(first_kernel, step, 1000, k)[:, :1] for k in (1, 3)]
    steps = min(map(len, paths))
    difference = relative_l1(*(path[:steps] for path in paths))
    if behaviour == "restrained":
        assert difference.max() > 0.1
        assert difference[:3].max() < 1e-13
    else:
        assert difference.max() < 1e-11


def test_powers_of_two_change_no_bit_and_three_does(network, first_kernel):
    path = network.train(first_kernel, 0.05, 200)
    for k in (1, 2, 4, 8):
        np.testing.assert_array_equal(network.train(first_kernel, 0.05, 200, k), path)
    assert not np.array_equal(network.train(first_kernel, 0.05, 200, 3), path)


def test_a_decay_that_wins_leaves_no_fixed_point_but_zero():
    with pytest.raises(ValueError, match="the only fixed point is 0"):
        OneLayerNetwork(decay=300.0).fixed_point()


@pytest.mark.parametrize(
    ("decay", "top", "null"),
    [
        (1.1e7, 1.0196, 0.89),
        (1.2e7, 1.0096, 0.88),
        (1.3e7, 0.9996, 0.87),
        (1.9e8, -0.7704, -0.9),
        (2.0e8, -0.8704, -1.0),
        (2.1e8, -0.9704, -1.1),
        (2.2e8, -1.0704, -1.2),
    ],
)
def test_decay_of_the_linear_network_has_a_lower_and_an_upper_bound(decay, top, null):
    """dt = 1e-8, a β = -1/2, and the one eigenvalue 225² 1024 of PᵀP."""
    found = linear_amplification(1e-8, decay, -0.5, np.array([225**2 * 1024, 0]))
    np.testing.assert_allclose(found, [top, null], atol=1e-9)


# ---------------------------------------------------------------------------------------------
# Measures


@pytest.mark.parametrize(
    ("tail", "behaviour"),
    [
        ([1.0, 1.0 + 1e-9], "settled"),
        ([0.0, 0.0], "settled"),
        ([1.0, 1.1], "restrained"),
        ([1.0, 1e13], "blown up"),
        ([1.0, np.nan], "blown up"),
        ([np.inf, 1.0], "blown up"),
    ],
)
def test_ends_of_runs_are_told_apart(tail, behaviour):
    assert classify(np.array(tail)) == behaviour
