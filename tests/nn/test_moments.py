"""What single examples contribute to a gradient, against the gradients of single examples."""

import numpy as np
import pytest

from minibutter.nn.gradients import BatchGradient
from minibutter.nn.kernels import moments as kernels
from minibutter.nn.moments import ExampleMoments, MomentTrainer
from minibutter.nn.network import ACTIVATIONS, LOSSES, Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import TrainingData
from minibutter.nn.training import Trainer
from tests.nn.test_gradients_of_batches import EVERY_DTYPE, draw_batch, eps_of


def layer_parts(network, vector):
    """A vector (P,) cut into the parts of the layers."""
    return np.split(vector, network.topology.weight_start[1:])


def example_gradients(network, parameters, x, y):
    """The gradient of every row by itself, (n, P) float64."""
    single = BatchGradient(network, 1)
    rows = [single.gradient(parameters, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return np.array(rows, np.float64)


@EVERY_DTYPE
def test_squared_norm_of_an_outer_product_is_the_product_of_squared_norms(dtype, assert_within):
    rng = np.random.default_rng(0)
    lanes = {"float32": 16, "float64": 8}[dtype]
    x, dz = rng.standard_normal((3, 7, lanes)), rng.standard_normal((3, 9, lanes))
    squares = np.empty((4, lanes))
    kernels.outer_squares(squares, x.astype(dtype), dz.astype(dtype), np.empty((4, lanes)))
    x, dz = x.astype(dtype).astype(np.float64), dz.astype(dtype).astype(np.float64)
    outer = np.einsum("qjl,qkl->qljk", x, dz)
    expected = (outer**2).sum(axis=(2, 3))
    assert_within(squares[:3], expected, 20 * np.finfo(np.float64).eps * expected)


@EVERY_DTYPE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("task", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_moments_of_every_layer_are_those_of_the_gradients_of_single_rows(
    activation, task, shape, dtype, assert_within
):
    network, parameters, x, y = draw_batch(task, activation, shape, dtype)
    found = ExampleMoments(network, chunk_size=8).moments(parameters, x, y)
    rows = example_gradients(network, parameters, x, y)
    bound = eps_of(network)
    expected = np.array([[part @ part for part in layer_parts(network, row)] for row in rows])
    # Squaring doubles the error; n times a rounded 1 / n adds two roundings.
    assert_within(found.squared_norms, expected, 2 * (bound + 2 * np.finfo(dtype).eps) * expected)
    mean = rows.mean(axis=0)
    size = np.abs(rows).mean(axis=0).max()
    assert_within(found.mean_gradient, mean, (bound + 8 * np.finfo(dtype).eps) * size)
    parts = layer_parts(network, found.mean_gradient)
    assert found.mean_squared_norms == pytest.approx([part @ part for part in parts], rel=1e-13)


@EVERY_DTYPE
@pytest.mark.parametrize("chunk_size", [1, 7, 16, 40])
def test_chunks_change_the_moments_by_rounding_only(chunk_size, dtype):
    network, parameters, x, y = draw_batch("classification", "gelu", dtype=dtype)
    whole = ExampleMoments(network, 19).moments(parameters, x, y)
    found = ExampleMoments(network, chunk_size).moments(parameters, x, y)
    rtol = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.squared_norms, whole.squared_norms, rtol=rtol)
    size = np.abs(whole.mean_gradient).max()
    np.testing.assert_allclose(
        found.mean_gradient, whole.mean_gradient, rtol=0, atol=10 * rtol * size
    )
    assert found.n == 19
    assert found.chunk_sizes.sum() == 19
    assert len(found.chunk_sizes) == len(found.chunk_squared_norms) == -(-19 // chunk_size)


@EVERY_DTYPE
def test_chunks_are_gradients_at_their_batch_size(dtype):
    network, parameters, x, y = draw_batch("binary", "relu", dtype=dtype)
    found = ExampleMoments(network, 8).moments(parameters, x, y)
    batch = BatchGradient(network, 8)
    for chunk, start in enumerate((0, 8, 16)):
        gradient = batch.gradient(parameters, x[start : start + 8], y[start : start + 8])
        parts = layer_parts(network, gradient.astype(np.float64))
        expected = [part @ part for part in parts]
        assert found.chunk_squared_norms[chunk] == pytest.approx(expected, rel=1e-13)
    np.testing.assert_array_equal(found.chunk_sizes, [8, 8, 3])


def test_chunks_of_one_row_are_the_rows():
    network, parameters, x, y = draw_batch("regression", "sigmoid")
    found = ExampleMoments(network, 1).moments(parameters, x, y)
    np.testing.assert_allclose(found.chunk_squared_norms, found.squared_norms, rtol=1e-13)


def test_moments_add_up_over_layers_and_their_ratios_do_not():
    network, parameters, x, y = draw_batch("classification")
    found = ExampleMoments(network).moments(parameters, x, y)
    squares, squared_mean = found.squared_norms.mean(axis=0), found.mean_squared_norms
    traces = squares - squared_mean
    rows = example_gradients(network, parameters, x, y)
    assert squared_mean.sum() == pytest.approx(np.sum(rows.mean(axis=0) ** 2), rel=1e-12)
    assert traces.sum() == pytest.approx(np.sum(rows.var(axis=0)), rel=1e-12)
    assert (traces / squared_mean).sum() > 2 * traces.sum() / squared_mean.sum()


@EVERY_DTYPE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_projections_are_inner_products_with_the_gradients_of_rows(
    activation, shape, dtype, assert_within
):
    network, parameters, x, y = draw_batch("classification", activation, shape, dtype)
    direction = np.random.default_rng(1).standard_normal(network.num_parameters).astype(dtype)
    found = ExampleMoments(network, 8).projections(parameters, x, y, direction)
    for i, row in enumerate(example_gradients(network, parameters, x, y)):
        pairs = zip(layer_parts(network, row), layer_parts(network, direction), strict=True)
        expected, sizes = zip(*((g @ v, np.abs(g) @ np.abs(v)) for g, v in pairs), strict=True)
        assert_within(found[i], np.array(expected), eps_of(network) * np.array(sizes))


@EVERY_DTYPE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
@pytest.mark.parametrize("task", LOSSES)
def test_gram_matrix_holds_the_inner_products_of_all_pairs(task, shape, dtype, assert_within):
    network, parameters, x, y = draw_batch(task, "tanh", shape, dtype)
    gram = ExampleMoments(network, 32).gram(parameters, x, y)
    rows = example_gradients(network, parameters, x, y)
    norms = np.linalg.norm(rows, axis=1)
    assert_within(gram, rows @ rows.T, 2 * eps_of(network) * np.outer(norms, norms))


def test_a_row_of_nan_has_a_squared_norm_of_nan_and_the_others_keep_theirs():
    network, parameters, x, y = draw_batch("classification", "relu")
    tool = ExampleMoments(network, 19)
    expected = tool.moments(parameters, x, y).squared_norms
    x[7, 2] = np.nan
    expected[7] = np.nan
    np.testing.assert_array_equal(tool.moments(parameters, x, y).squared_norms, expected)


def test_the_squared_norm_of_a_tiny_gradient_does_not_underflow():
    network = Network(1, (1, 1), "binary")
    parameters = np.array([1, 0, 1e-3, -60], dtype=np.float32)
    x, y = np.array([[1]], np.float32), np.array([[0]], np.float32)
    assert ExampleMoments(network, 1).moments(parameters, x, y).squared_norms[0, 1] > 0


def test_measuring_leaves_parameters_and_data_alone():
    network, parameters, x, y = draw_batch("classification")
    before = [array.copy() for array in (parameters, x, y)]
    tool = ExampleMoments(network, 32)
    tool.moments(parameters, x, y)
    tool.projections(parameters, x, y, parameters)
    tool.gram(parameters, x, y)
    for array, kept in zip((parameters, x, y), before, strict=True):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("images", [1000, 10_000])
def test_moments_of_softmax_regression_at_zero_are_a_formula_of_the_data(images, pooled_digits):
    """Its output layer at W = 0, behind a hidden layer that passes every pixel on."""
    x, y = (array[:images] for array in pooled_digits)
    n, n_inputs = x.shape
    network = Network(n_inputs, (n_inputs, 10), "classification", "relu", dtype="float64")
    parameters = np.zeros(network.num_parameters)
    network.weights(parameters, 0)[:] = np.eye(n_inputs)  # pixels are not negative
    found = ExampleMoments(network).moments(parameters, x, y)
    features = np.column_stack([x, np.ones(n)])  # the bias
    squares = (features**2).sum(axis=1)
    priors, class_means = y.mean(axis=0), (y.T @ features) / y.sum(axis=0)[:, None]
    of_classes = features.mean(axis=0) / 10 - priors[:, None] * class_means
    np.testing.assert_allclose(found.squared_norms[:, 1], (1 - 1 / 10) * squares, rtol=1e-12)
    assert found.mean_squared_norms[1] == pytest.approx(np.sum(of_classes**2), rel=1e-12)
    np.testing.assert_array_equal(found.squared_norms[:, 0], 0)


# ---------------------------------------------------------------------------------------------
# Training


def make_trainers(dtype, shape="rectangle_residual", n_rows=45, batch_size=16):
    network, parameters, x, y = draw_batch("classification", "tanh", shape, dtype, n=n_rows)
    optimizer, options = make_optimizer("adam", 0.01), {"l1": 0.001, "l2": 0.01}
    measured = MomentTrainer(
        network, parameters.copy(), optimizer, x, y,
        batch_size=batch_size, shuffle=np.random.default_rng(3), **options,
    )  # fmt: skip
    plain = Trainer(
        network, parameters.copy(), optimizer, TrainingData(x, y, x, y),
        batch_size=batch_size, shuffle=np.random.default_rng(3), **options,
    )  # fmt: skip
    return measured, plain, x, y


@EVERY_DTYPE
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
def test_training_that_measures_moments_has_the_bits_of_training(shape, dtype):
    measured, plain, _, _ = make_trainers(dtype, shape)
    for _ in range(3):
        steps, row = measured.run_epoch(), plain.run_epoch()
        np.testing.assert_array_equal(measured.parameters, plain.parameters)
        np.testing.assert_array_equal(steps.batch_sizes, [16, 16, 13])
        assert np.average(steps.loss, weights=steps.batch_sizes) == pytest.approx(row.train[0])
        assert np.average(steps.penalty, weights=steps.batch_sizes) == pytest.approx(row.train[-1])
    assert measured.steps == 9


def test_rows_may_be_given_and_are_checked():
    measured, plain, _, _ = make_trainers("float32")
    rows = np.random.default_rng(3).permutation(45)
    plain.run_epoch()
    first, second = measured.run(rows[:32]), measured.run(rows[32:])
    np.testing.assert_array_equal(measured.parameters, plain.parameters)
    np.testing.assert_array_equal([*first.batch_sizes, *second.batch_sizes], [16, 16, 13])
    with pytest.raises(ValueError, match="rows must be one axis of numbers from 0 to 44"):
        measured.run(np.array([45]))


@EVERY_DTYPE
def test_moments_of_a_step_are_those_of_its_batch_before_it(dtype):
    measured, _, x, y = make_trainers(dtype, n_rows=20, batch_size=20)
    tool = ExampleMoments(measured.network, 20)
    order = np.random.default_rng(3)
    for _ in range(2):
        before = measured.parameters.copy()
        steps, rows = measured.run_epoch(), order.permutation(20)
        expected = tool.moments(before, x[rows], y[rows])
        np.testing.assert_allclose(
            steps.example_squared_norms[0], expected.squared_norms.mean(axis=0), rtol=1e-12
        )
        np.testing.assert_allclose(
            steps.batch_squared_norms[0], expected.chunk_squared_norms[0], rtol=1e-12
        )


# ---------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize("method", ["moments", "projections", "gram"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, x, y: (p, x[:0], y[:0]), "there are 0 rows; moments need at least 1"),
        (lambda p, x, y: (p[1:], x, y), "parameters is a .*the network needs"),
        (lambda p, x, y: (p, x[:, 1:], y), "x is a .*the network needs"),
        (lambda p, x, y: (p, x, y[:8]), "y is a .*the network needs"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(spoil, message, method):
    network, parameters, x, y = draw_batch("classification")
    direction = [parameters] if method == "projections" else []
    with pytest.raises(ValueError, match=message):
        getattr(ExampleMoments(network, 32), method)(*spoil(parameters, x, y), *direction)


def test_a_direction_that_does_not_fit_is_refused():
    network, parameters, x, y = draw_batch("regression")
    with pytest.raises(ValueError, match="direction is a float64 array of shape"):
        ExampleMoments(network).projections(parameters, x, y, parameters[1:])


def test_a_gram_matrix_of_more_rows_than_a_chunk_is_refused():
    network, parameters, x, y = draw_batch("regression")
    with pytest.raises(ValueError, match="there are 19 rows; a Gram matrix holds one chunk, 18"):
        ExampleMoments(network, 18).gram(parameters, x, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be between 1 and the 19 training rows"),
        ({"batch_size": 20}, "batch_size is 20; it must be between 1 and the 19 training rows"),
        ({"l2": -1.0}, r"l2 is -1\.0; a penalty factor"),
        ({"x": np.zeros((19, 5))}, "x is a .*the network needs"),
        ({"y": np.zeros((18, 4))}, "y is a .*the network needs"),
        ({"parameters": np.zeros(3)}, "parameters is a .*the network needs"),
    ],
)
def test_a_run_that_does_not_fit_its_network_is_refused(changes, message):
    network, parameters, x, y = draw_batch("classification")
    arguments = {"parameters": parameters, "x": x, "y": y, "batch_size": 4} | changes
    with pytest.raises(ValueError, match=message):
        MomentTrainer(
            network,
            optimizer=make_optimizer("adam", 0.01),
            shuffle=np.random.default_rng(0),
            **arguments,
        )


def test_chunks_without_rows_are_refused():
    with pytest.raises(ValueError, match="chunk_size is 0; it must be at least 1"):
        ExampleMoments(Network(3, (4, 2), "classification"), 0)
