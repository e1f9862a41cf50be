"""Repetitions to train: networks, data, first weights and orders, and what it means to be equal."""

from dataclasses import replace

import numpy as np
import pytest

from minibutter.nn.network import Network
from minibutter.nn.starts import Start, TrainingData

DTYPES = ("float32", "float64")
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
N_TRAIN, N_TEST, BATCH_SIZE = 41, 19, 16  # the last batch of an epoch has 9 rows


def draw_starts(network, n, seed=0):
    """Repetitions with weights, biases, splits and orders of their own."""
    rng = np.random.default_rng([seed, n, *network.widths])
    return [
        Start(
            draw_parameters(network, rng), draw_data(network, rng), np.random.default_rng([seed, i])
        )
        for i in range(n)
    ]


def draw_parameters(network, rng):
    parameters = network.initial_parameters("glorot_uniform", rng)
    for layer in range(network.depth):
        network.biases(parameters, layer)[:] = rng.uniform(-0.3, 0.3, network.widths[layer])
    return parameters


def draw_data(network, rng):
    x = rng.standard_normal((N_TRAIN + N_TEST, network.n_inputs)).astype(network.dtype)
    shape = len(x), network.n_outputs
    if network.task == "regression":
        y = rng.uniform(size=shape)
    elif network.task == "binary":
        y = rng.integers(2, size=shape)
    else:
        y = np.eye(network.n_outputs)[rng.integers(network.n_outputs, size=len(x))]
    y = y.astype(network.dtype)
    return TrainingData(x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:])


def copy_start(start):
    """The same start, with memory and a stream of its own."""
    shuffle = np.random.default_rng()
    shuffle.bit_generator.state = start.shuffle.bit_generator.state
    return replace(start, parameters=start.parameters.copy(), shuffle=shuffle)


def assert_same_bits(actual, expected, what):
    """NaN included, whose sign and payload nobody promises."""
    np.testing.assert_array_equal(actual, expected, err_msg=what)
    assert actual.dtype == expected.dtype, what


def make_network(task, activation="relu", shape="rectangle", dtype="float32", width=7, n_inputs=5):
    n_outputs = {"regression": 2, "binary": 1, "classification": 3}[task]
    return Network(n_inputs, (width, width, width, n_outputs), task, activation, shape, dtype)
