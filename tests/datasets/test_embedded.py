"""The table of scikit-learn's data sets, held against the data."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn import datasets as sklearn_datasets

from minibutter.datasets import describe, load
from minibutter.datasets.embedded import EMBEDDED


@pytest.mark.parametrize("name", EMBEDDED)
def test_table_agrees_with_the_data(name):
    dataset = load(name)
    assert dataset.info == describe(name)
    assert dataset.x.shape == (dataset.info.n_rows, dataset.info.n_inputs)
    assert dataset.y.shape == (dataset.info.n_rows, dataset.info.n_outputs)
    bunch = getattr(sklearn_datasets, f"load_{name}")()
    n_distinct = len(np.unique(bunch.target))
    task = "binary" if n_distinct == 2 else "classification"
    assert dataset.info.task == ("regression" if n_distinct > 20 else task)
    assert dataset.source == f"scikit-learn {sklearn.__version__}"
    assert dataset.sha256 is None
    assert not dataset.x.flags.writeable


def test_digits_are_grey_values_over_sixteen_with_white_pixels_kept():
    digits = sklearn_datasets.load_digits()
    dataset = load("digits")
    assert_array_equal(dataset.x, digits.data / 16)
    assert (digits.data[:, 0] == 0).all()
    assert_array_equal(dataset.y.argmax(axis=1), digits.target)


def test_columns_follow_the_rules_of_butter():
    diabetes = sklearn_datasets.load_diabetes()
    x = load("diabetes").x
    assert_array_equal(x[:, 1], diabetes.data[:, 1] == diabetes.data[0, 1])  # sex: two values
    low, high = diabetes.data.min(axis=0)[0], diabetes.data.max(axis=0)[0]
    assert_array_equal(x[:, 0], ((diabetes.data[:, 0] - low) / (high - low)).astype(np.float32))
