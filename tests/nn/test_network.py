"""The description of a network, its parameter vector, and the first draw of it."""

import numpy as np
import pytest

from minibutter.nn.kernels import arena
from minibutter.nn.kernels.jit import in_python
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.kernels.tile import LINE_BYTES
from minibutter.nn.network import INITIALIZERS, Network

DTYPES = ("float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("initializer", "limit"),
    [
        ("glorot_uniform", np.sqrt(6 / (300 + 200))),
        ("he_uniform", np.sqrt(6 / 300)),
    ],
)
def test_first_weights_are_uniform_between_the_limits_of_the_initializer(initializer, limit, dtype):
    network = Network(300, (200, 1), "regression", dtype=dtype)
    parameters = network.initial_parameters(initializer, np.random.default_rng(1))
    w = network.weights(parameters, 0).astype(np.float64).ravel()
    assert np.abs(w).max() <= np.dtype(dtype).type(limit)
    # The largest of n uniform numbers falls short of the limit by about limit / n.
    assert np.abs(w).max() > limit * (1 - 20 / w.size)
    # Four standard errors of the mean, the variance, and the share beyond half the limit.
    assert abs(w.mean()) < 4 * limit / np.sqrt(3 * w.size)
    assert abs(w.var() / (limit**2 / 3) - 1) < 4 * np.sqrt(4 / 5 / w.size)
    assert abs(np.mean(np.abs(w) > limit / 2) - 0.5) < 4 * 0.5 / np.sqrt(w.size)


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_limits_are_those_of_each_layer_and_biases_start_at_zero(initializer):
    network = Network(5, (1000, 3, 400), "regression", dtype="float64")
    parameters = network.initial_parameters(initializer, np.random.default_rng(2))
    for layer, (fan_in, fan_out) in enumerate([(5, 1000), (1000, 3), (3, 400)]):
        limit = np.sqrt(6 / (fan_in if initializer == "he_uniform" else fan_in + fan_out))
        w = network.weights(parameters, layer)
        assert limit * (1 - 20 / w.size) < np.abs(w).max() <= limit
        np.testing.assert_array_equal(network.biases(parameters, layer), np.zeros(fan_out))


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_float32_and_float64_start_from_the_same_draw(initializer):
    draws = {}
    for dtype in DTYPES:
        rng = np.random.default_rng(3)
        network = Network(7, (11, 5), "classification", dtype=dtype)
        draws[dtype] = network.initial_parameters(initializer, rng), rng.random()
    (single, next_single), (double, next_double) = draws["float32"], draws["float64"]
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    np.testing.assert_array_equal(single, double.astype(np.float32))
    assert next_single == next_double


def test_weights_are_drawn_layer_by_layer_and_row_by_row():
    network = Network(2, (3, 2), "regression", dtype="float64")
    parameters = network.initial_parameters("glorot_uniform", np.random.default_rng(4))
    units = 2 * np.random.default_rng(4).random(12) - 1
    eps = np.finfo(np.float64).eps
    for layer, (draws, shape, fans) in enumerate([(units[:6], (2, 3), 5), (units[6:], (3, 2), 5)]):
        expected = np.sqrt(6 / fans) * draws.reshape(shape)
        np.testing.assert_allclose(network.weights(parameters, layer), expected, 0, 2 * eps)


def test_weights_and_biases_tile_the_vector_without_gap_or_overlap():
    network = Network(5, (3, 3, 7, 2), "classification")
    vector = np.zeros(network.num_parameters)
    number = 0
    for layer in range(network.depth):
        for view in (network.weights(vector, layer), network.biases(vector, layer)):
            assert np.shares_memory(view, vector)
            assert not view.any()
            view[...] = np.arange(number + 1, number + 1 + view.size).reshape(view.shape)
            number += view.size
    np.testing.assert_array_equal(vector, np.arange(1, network.num_parameters + 1))
    assert network.weights(vector, 2).shape == (3, 7)
    assert network.biases(vector, 2).shape == (7,)


def test_num_parameters_counts_every_weight_and_bias():
    assert Network(11, (18, 18, 18, 7), "classification").num_parameters == 1033


def test_depth_counts_the_output_layer():
    network = Network(11, (18, 18, 7), "classification")
    assert network.depth == 3
    assert network.n_outputs == 7


def test_residual_network_skips_around_its_inner_hidden_layers():
    network = Network(4, (6, 6, 6, 2), "classification", shape="rectangle_residual")
    assert network.skip == (False, True, True, False)
    np.testing.assert_array_equal(network.topology.skip, network.skip)
    assert Network(4, (6, 2), "classification", shape="rectangle_residual").skip == (False, False)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
def test_workspace_is_zeroed_and_aligned_but_for_the_units_that_are_always_1(
    shape, activation, dtype, repeats
):
    network = Network(4, (6, 6, 2), "classification", activation, shape, dtype)
    lanes = lanes_of(dtype)
    repetitions = lanes if repeats else 1
    work = network.workspace(10, repetitions)
    blocks = 10 if repeats else -(-10 // lanes)
    assert work.x.shape == (blocks, 5, lanes)
    assert (work.x[:, 4] == 1).all()
    for layer in range(2):
        units = in_python(arena.layer_output)(network.topology, work, layer, blocks)
        assert units.shape == (blocks, 7, lanes)
        assert (units[:, 6] == 1).all()
        units[:, 6] = 0
    work.x[:, 4] = 0
    entries = work._asdict().items()
    arrays = {name: entry for name, entry in entries if isinstance(entry, np.ndarray)}
    assert len(arrays) > 10
    types = {"penalties": np.float64, "gathered_rows": np.int64}
    for name, array in arrays.items():
        assert array.dtype == types.get(name, dtype), name
        assert array.flags.c_contiguous, name
        assert name in types or array.ctypes.data % LINE_BYTES == 0, name
        assert not array.any(), name
    assert work.dw.size == network.num_parameters * repetitions
    # Only what a network keeps takes memory.
    assert (work.a.size == 1) == (shape == "rectangle")
    assert (work.z.size == 1) == (activation == "relu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": "simd"}, "kernel is 'simd'; it must be one of naive, blocked, tiled, blas"),
        ({"widths": (2**20, 2**20, 3)}, r"1048576x2-3 has \d+ parameters; at most 1099511627776"),
    ],
)
def test_network_that_no_kernel_can_run_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Network(**{"n_inputs": 4, "widths": (5, 3), "task": "classification"} | change)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda array: array[:-1],
        lambda array: array.astype(np.float64),
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    ],
    ids=["shape", "type", "columns first", "strided"],
)
def test_array_that_the_kernels_cannot_take_is_refused(spoil):
    network, array = Network(4, (5, 3), "classification"), np.zeros((6, 4), np.float32)
    network.check_array("x", array, (6, 4))
    with pytest.raises(ValueError, match=r"x is a float.*needs a C-contiguous float32 array of sh"):
        network.check_array("x", spoil(array), (6, 4))


def test_equal_descriptions_are_equal_and_hash_alike():
    one, other = (Network(4, (6, 2), "classification") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Network(4, (6, 2), "regression")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "clustering"}, "task is 'clustering'; it must be one of regression, binary"),
        ({"activation": "mish"}, "activation is 'mish'; it must be one of relu, tanh"),
        ({"dtype": "float16"}, "dtype is 'float16'; it must be one of float32, float64"),
        ({"shape": "residual"}, "shape is 'residual'; it must be one of rectangle, trapez"),
        ({"widths": (3,)}, r"4 inputs and widths \(3,\) cannot be built: at least one hidden"),
        ({"widths": ()}, "at least one hidden and one output layer"),
        ({"widths": (5, 0, 3)}, r"widths \(5, 0, 3\) cannot be built.*every width at least 1"),
        ({"n_inputs": 0}, "a network of 0 inputs"),
        (
            {"widths": (5, 5, 6, 3), "shape": "rectangle_residual"},
            r"widths are \(5, 5, 6, 3\), but layer 2 of a residual network adds",
        ),
    ],
)
def test_impossible_description_is_refused_with_the_reason(change, message):
    description = {"n_inputs": 4, "widths": (5, 5, 3), "task": "classification"}
    with pytest.raises(ValueError, match=message):
        Network(**description | change)


def test_unknown_initializer_is_refused_with_the_known_ones():
    network = Network(4, (5, 3), "classification")
    with pytest.raises(ValueError, match="initializer is 'zeros'; it must be one of glorot_unif"):
        network.initial_parameters("zeros", np.random.default_rng(5))
