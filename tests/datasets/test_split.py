"""Splits have scikit-learn's sizes and rows; noise changes exactly what it says."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minibutter.datasets import DatasetError, add_label_noise, split_dataset, split_sizes
from minibutter.datasets.encoding import one_hot
from minibutter.datasets.registry import BUTTER


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n_rows", [2, 5, 10, 100, *(info.n_rows for info in BUTTER.values())])
@pytest.mark.parametrize("test_fraction", [0.05, 0.07, 0.15, 0.2, 0.3, 0.5, 0.9])
def test_sizes_are_those_of_scikit_learn(n_rows, test_fraction):
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(np.arange(n_rows), test_size=test_fraction)
    except ValueError:
        with pytest.raises(DatasetError, match="and 0 training rows"):
            split_sizes(n_rows, test_fraction, "shuffled")
    else:
        assert split_sizes(n_rows, test_fraction, "shuffled") == (len(train), len(test))


@pytest.mark.parametrize("n_rows", [5, 90, 100, *(info.n_rows for info in BUTTER.values())])
@pytest.mark.parametrize("test_fraction", [0.05, 0.07, 0.15, 0.2, 0.3, 0.5])
def test_sizes_of_the_last_split_are_those_of_keras(n_rows, test_fraction):
    n_train = int(n_rows * (1.0 - test_fraction))
    assert split_sizes(n_rows, test_fraction, "last") == (n_train, n_rows - n_train)


def test_both_methods_agree_on_the_sizes_of_butter():
    for info in BUTTER.values():
        assert split_sizes(info.n_rows, 0.2, "last") == split_sizes(info.n_rows, 0.2, "shuffled")


def test_rows_are_those_of_scikit_learn_for_the_same_permutation():
    from sklearn.model_selection import train_test_split

    expected = train_test_split(np.arange(4898), test_size=0.2, random_state=3)
    # scikit-learn draws its permutation from the older generator, which has the same method.
    actual = split_dataset(4898, 0.2, "shuffled", np.random.RandomState(3))
    for rows, expected_rows in zip(actual, expected, strict=True):
        assert_array_equal(rows, expected_rows)


@pytest.mark.parametrize("method", ["shuffled", "last"])
def test_every_row_is_in_one_part(method):
    train, test = split_dataset(107, 0.2, method, rng())
    assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(107))
    assert (len(train), len(test)) == (85, 22)
    assert train.dtype == test.dtype == np.int64


def test_shuffled_split_depends_on_the_seed_alone():
    first, again, other = (split_dataset(50, 0.2, "shuffled", rng(s))[1] for s in (1, 1, 2))
    assert_array_equal(first, again)
    assert set(first) != set(other)


def test_last_split_keeps_the_order_and_draws_nothing():
    train, test = split_dataset(11, 0.2, "last", None)
    assert_array_equal(train, np.arange(8))
    assert_array_equal(test, [8, 9, 10])


@pytest.mark.parametrize("test_fraction", [0, 1, -0.2, 1.5, float("nan")])
def test_fraction_outside_zero_to_one_is_refused(test_fraction):
    with pytest.raises(DatasetError, match=f"test_split is {test_fraction}"):
        split_dataset(10, test_fraction, "shuffled", rng())


def test_split_without_training_rows_is_refused():
    with pytest.raises(DatasetError, match="of 3 rows makes 3 test and 0 training rows"):
        split_dataset(3, 0.9, "shuffled", rng())


def test_unknown_split_method_is_refused():
    with pytest.raises(DatasetError, match="'stratified'"):
        split_dataset(10, 0.2, "stratified", rng())


# Label noise


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.15, 0.2, 1.0])
def test_noise_flips_an_exact_number_of_binary_labels(noise):
    y = rng(1).integers(0, 2, size=(997, 1)).astype(np.float32)
    noisy = add_label_noise(y, "binary", noise, rng())
    assert (noisy != y).sum() == int(noise * 997)
    assert set(np.unique(noisy)) <= {0, 1}
    assert noisy.dtype == np.float32


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.15, 0.2, 1.0])
@pytest.mark.parametrize("n_classes", [3, 5, 11])
def test_noise_moves_an_exact_number_of_rows_to_another_class(n_classes, noise):
    y = one_hot(rng(1).integers(0, n_classes, size=997), n_classes)
    noisy = add_label_noise(y, "classification", noise, rng())
    assert (noisy != y).any(axis=1).sum() == int(noise * 997)
    assert_array_equal(np.sort(noisy, axis=1)[:, -1], 1)
    assert_array_equal(noisy.sum(axis=1), 1)
    assert noisy.dtype == np.float32


@pytest.mark.parametrize("n_classes", [3, 4, 10])
def test_noisy_rows_reach_each_other_class_equally_often(n_classes):
    y = one_hot(np.full(20_000, 1), n_classes)
    noisy = add_label_noise(y, "classification", 0.5, rng())
    counts = noisy[noisy[:, 1] == 0].sum(axis=0)
    assert counts[1] == 0
    expected = 10_000 / (n_classes - 1)
    chi_square = ((np.delete(counts, 1) - expected) ** 2 / expected).sum()
    # Mean k and variance 2k for k = n_classes - 2 degrees of freedom: five standard deviations.
    assert chi_square < n_classes - 2 + 5 * np.sqrt(2 * (n_classes - 2))


def test_noisy_rows_are_drawn_from_all_rows():
    y = one_hot(np.zeros(1000, dtype=int), 3)
    hits = sum(
        (add_label_noise(y, "classification", 0.2, rng(s)) != y).any(axis=1) for s in range(99)
    )
    # Each row is hit 99 × 0.2 = 20 times, give or take 4; six standard deviations.
    assert hits.sum() == 99 * 200
    assert hits.min() > 0
    assert hits.max() < 44


def test_noise_of_a_regression_has_the_standard_deviation_of_each_output():
    y = rng(1).normal(size=(40_000, 2)).astype(np.float32) * np.float32([1, 5]) + 3
    difference = add_label_noise(y, "regression", 0.2, rng()) - y
    np.testing.assert_allclose(difference.std(axis=0), 0.2 * y.std(axis=0), rtol=0.02, atol=0)
    np.testing.assert_allclose(difference.mean(axis=0), 0, rtol=0, atol=0.03)
    assert abs(np.corrcoef(difference.T)[0, 1]) < 0.03
    assert difference.dtype == np.float32


@pytest.mark.parametrize("task", ["regression", "binary", "classification"])
def test_no_noise_is_a_copy_and_draws_nothing(task):
    y = one_hot(np.array([0, 2, 1]), 3)[:, : 3 if task == "classification" else 1]
    y.setflags(write=False)
    generator = rng()
    noisy = add_label_noise(y, task, 0.0, generator)
    assert_array_equal(noisy, y)
    noisy[0] = 9
    assert y[0, 0] != 9
    assert generator.random() == rng().random()


@pytest.mark.parametrize("task", ["regression", "binary", "classification"])
def test_noise_leaves_its_input_alone_and_depends_on_the_seed_alone(task):
    labels = rng(1).integers(0, 3, size=200)
    y = one_hot(labels, 3)[:, : 3 if task == "classification" else 1]
    before = y.copy()
    first, again, other = (add_label_noise(y, task, 0.3, rng(seed)) for seed in (4, 4, 5))
    assert_array_equal(y, before)
    assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("task", "noise"),
    [("binary", 1.1), ("classification", -0.1), ("regression", -1), ("binary", float("nan"))],
)
def test_noise_out_of_range_is_refused(task, noise):
    with pytest.raises(DatasetError, match=f"label noise is {noise} for a {task}"):
        add_label_noise(np.ones((4, 1), np.float32), task, noise, rng())


def test_unknown_task_is_refused():
    with pytest.raises(DatasetError, match="'ranking'"):
        add_label_noise(np.ones((4, 1), np.float32), "ranking", 0.1, rng())
