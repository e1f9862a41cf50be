"""The split of a data set that studies measure on."""

import numpy as np
import pytest

from minibutter.studies.catalogue import StudyError
from minibutter.studies.data import load_split


def test_rows_are_drawn_with_the_seed_and_none_is_in_both_parts():
    data = load_split("digits", None, 1000, 300, 0)
    assert data.x_train.shape == (1000, 64)
    assert data.y_test.shape == (300, 10)
    again = load_split("digits", None, 1000, 300, 0)
    assert again is data
    other = load_split("digits", None, 1000, 300, 1)
    assert not np.array_equal(other.x_train, data.x_train)
    images = np.concatenate([data.x_train, data.x_test])
    whole = np.concatenate([other.x_train, other.x_test])
    for rows in (images, whole):
        assert len(np.unique(rows, axis=0)) > 1290  # digits has hardly any equal images
    assert data.x_train.dtype == np.float32
    assert data.x_train.flags.c_contiguous


def test_of_few_rows_four_fifths_are_for_training():
    data = load_split("digits", None, 8000, 2000, 0)
    assert (len(data.x_train), len(data.x_test)) == (1438, 359)


def test_global_scaling_is_that_of_the_training_rows():
    data = load_split("digits", None, 1000, 300, 3, "float64", "global")
    assert data.x_train.dtype == np.float64
    assert data.x_train.mean() == pytest.approx(0, abs=1e-12)
    assert data.x_train.std() == pytest.approx(1, rel=1e-12)
    assert data.x_test.mean() != pytest.approx(0, abs=1e-6)
    plain = load_split("digits", None, 1000, 300, 3, "float64")
    ratio = (plain.x_test - plain.x_train.mean()) / plain.x_train.std()
    np.testing.assert_allclose(data.x_test, ratio, atol=1e-6)


def test_a_regression_is_refused():
    with pytest.raises(StudyError, match="diabetes is for regression; a study of this kind needs"):
        load_split("diabetes", None, 100, 50, 0)
