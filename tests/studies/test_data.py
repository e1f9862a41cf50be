"""Rows of a study: drawn by a seed, scaled, and not to be written to."""

import numpy as np
import pytest

from minibutter.datasets import DatasetError
from minibutter.studies.data import load_split


def test_rows_are_drawn_by_the_seed_without_overlap():
    data, info = load_split("digits", None, 1000, 300, 0)
    again, _ = load_split("digits", None, 1000, 300, 0)
    other, _ = load_split("digits", None, 1000, 300, 1)
    assert data.x_train.shape == (1000, 64)
    assert data.y_test.shape == (300, 10)
    assert info.task == "classification"
    np.testing.assert_array_equal(data.x_train, again.x_train)
    assert not np.array_equal(data.x_train, other.x_train)
    seen = {row.tobytes() for row in data.x_train}
    assert not any(row.tobytes() in seen for row in data.x_test)
    assert not data.x_train.flags.writeable


def test_a_smaller_data_set_is_divided_80_to_20():
    data, _ = load_split("digits", None, 8000, 2000, 0)
    assert (len(data.x_train), len(data.x_test)) == (1437, 360)


def test_the_scale_is_one_number_and_that_of_the_training_rows():
    plain, _ = load_split("digits", None, 500, 100, 0, dtype="float64")
    data, _ = load_split("digits", None, 500, 100, 0, dtype="float64", scaling="standard")
    assert data.x_train.mean() == pytest.approx(0, abs=1e-12)
    assert data.x_train.std() == pytest.approx(1)
    mean, deviation = plain.x_train.mean(), plain.x_train.std()
    np.testing.assert_allclose(data.x_test, (plain.x_test - mean) / deviation)


def test_a_data_set_that_does_not_exist_is_the_callers_error():
    with pytest.raises(DatasetError):
        load_split("no_such_set", None, 10, 10, 0)
