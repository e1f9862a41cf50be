"""The split of a data set that studies measure on."""

import numpy as np
import pytest

from minibutter.studies.catalogue import StudyError
from minibutter.studies.data import (
    describe_data,
    load_split,
    pool_images,
    scale_globally,
    split_sizes,
)


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


@pytest.mark.parametrize(
    ("n_rows", "wanted", "expected"),
    [
        (10_000, (2000, 8000), (2000, 8000)),
        (70_000, (2000, 8000), (2000, 8000)),
        (5000, (2000, 8000), (2000, 3000)),
        (1797, (2000, 8000), (1438, 359)),
        (1797, (1700, 97), (1700, 97)),
        (2, (1000, 100), (1, 1)),
    ],
)
def test_of_too_few_rows_no_more_than_wanted_and_four_fifths_train(n_rows, wanted, expected):
    assert split_sizes(n_rows, *wanted) == expected


def test_images_are_pooled_and_other_rows_left_alone():
    images = np.arange(2 * 28 * 28, dtype=float).reshape(2, -1)
    pooled = pool_images(images)
    assert pooled.shape == (2, 196)
    assert pooled[0, :2].tolist() == [np.mean([0, 1, 28, 29]), np.mean([2, 3, 30, 31])]
    for n_inputs in (64, 30, 29 * 29):
        rows = np.ones((3, n_inputs))
        assert pool_images(rows) is rows


def test_inputs_that_are_all_equal_cannot_be_scaled():
    with pytest.raises(StudyError, match="all inputs of the data set are equal"):
        scale_globally(np.ones((4, 3)), np.full((4, 3), 7.0))


def test_a_regression_is_refused():
    with pytest.raises(StudyError, match=r"diabetes is for regression; a study .* classes"):
        load_split("diabetes", None, 100, 50, 0)


def test_two_classes_in_one_output_are_refused_by_their_name():
    with pytest.raises(StudyError, match="breast_cancer is for two classes in one output"):
        load_split("breast_cancer", None, 100, 50, 0)


def test_a_table_whose_target_is_not_known_is_refused_before_it_is_opened():
    with pytest.raises(StudyError, match=r"no/such/file\.csv is a table, and a study cannot"):
        describe_data("no/such/file.csv", None)
    assert describe_data("digits", None).n_outputs == 10
