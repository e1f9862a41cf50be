"""The column rules, on columns small enough to check by eye and against scikit-learn's encoders."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from minibutter.datasets import DatasetError
from minibutter.datasets.encoding import (
    MAX_CATEGORIES,
    encode_inputs,
    encode_pixels,
    encode_target,
)


def encode_column(values):
    """Encode one column beside a column of two values, and take that one off again."""
    frame = pd.DataFrame({"column": values})
    frame["anchor"] = np.arange(len(frame)) % 2
    return encode_inputs(frame, "data.csv")[:, :-1]


def test_constant_column_is_dropped():
    assert encode_column([7.5, 7.5, 7.5]).shape == (3, 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 9, 3], [1, 0, 1]),
        ([9, 3, 9], [1, 0, 1]),
        (["b", "a", "b"], [1, 0, 1]),
        ([True, False, False], [1, 0, 0]),
    ],
)
def test_two_values_become_one_where_the_first_row_has_them(values, expected):
    assert_array_equal(encode_column(values), np.array(expected, np.float32)[:, None])


def test_few_numbers_become_one_hot_in_numeric_order():
    expected = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert_array_equal(encode_column([10.0, -1.0, 2.0]), expected)


def test_text_becomes_one_hot_in_sorted_order_however_many_values_it_has():
    words = [f"word{i:02}" for i in range(30)]
    expected = np.eye(30)[::-1]
    assert_array_equal(encode_column(words[::-1]), expected)


def test_twenty_numbers_are_categories_and_twenty_one_are_scaled():
    assert encode_column(np.arange(20)).shape == (20, 20)
    assert_array_equal(encode_column(np.arange(21)), (np.arange(21) / 20)[:, None].astype("f4"))


def test_min_max_is_computed_in_float64():
    # In float32 the neighbours of 1e9 are 64 apart, and all values would collapse.
    column = encode_column(1e9 + np.arange(25))
    assert_array_equal(column[:, 0], (np.arange(25) / 24).astype(np.float32))


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category"])
def test_every_kind_of_text_column_encodes_alike(dtype):
    words = ["pear", "apple", "fig", "apple"]
    expected = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert_array_equal(encode_column(pd.Series(words, dtype=dtype)), expected)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "Int64", "Float64", "category"])
def test_every_kind_of_number_column_encodes_alike(dtype):
    values = pd.Series([0, 3, 3, 1], dtype="int64").astype(dtype)
    expected = [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert_array_equal(encode_column(values), expected)


def test_order_of_a_stored_category_type_does_not_matter():
    stored = pd.Categorical(["b", "c", "a"], categories=["c", "b", "unused", "a"])
    assert_array_equal(encode_column(stored), [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_columns_with_the_same_name_are_all_encoded():
    frame = pd.DataFrame([[0, 5], [1, 5], [1, 6]], columns=["same", "same"])
    assert_array_equal(encode_inputs(frame, "data.csv"), [[1, 1], [0, 1], [0, 0]])


def test_inputs_are_contiguous_float32():
    x = encode_inputs(pd.DataFrame(np.random.default_rng(0).random((30, 4))), "data.csv")
    assert x.dtype == np.float32
    assert x.flags.c_contiguous


@pytest.mark.parametrize("name", ["nursery", "adult", "201_pol", "537_houses"])
def test_real_columns_equal_those_of_scikit_learns_encoders(data_dir, name):
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

    frame = pd.read_csv(data_dir / f"{name}.tsv.gz", sep="\t").drop(columns="target")
    blocks = []
    for column in frame.columns:
        values = frame[[column]].to_numpy(dtype=np.float64)
        n_distinct = len(np.unique(values))
        if n_distinct == 2:
            blocks.append(values == values[0])
        elif n_distinct > 20:
            blocks.append(MinMaxScaler().fit_transform(values))
        elif n_distinct > 2:
            blocks.append(OneHotEncoder(sparse_output=False).fit_transform(values))
    x = encode_inputs(frame, name)
    # scikit-learn multiplies by the reciprocal range: a few roundings of float64 apart at most.
    np.testing.assert_allclose(x, np.hstack(blocks), rtol=0, atol=np.finfo(np.float32).eps)


def test_pixels_are_divided_by_white_and_none_is_dropped():
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    pixels[:, 0] = 0
    expected = (pixels.astype(np.float64) / 255).astype(np.float32)
    assert_array_equal(encode_pixels(pixels, white=255), expected)


# Targets


def test_target_of_many_numbers_is_a_regression_scaled_to_zero_one():
    y, task = encode_target(pd.Series(np.arange(-10, 11)), None, "target")
    assert task == "regression"
    assert_array_equal(y, (np.arange(21) / 20).astype(np.float32)[:, None])


def test_target_of_few_numbers_is_a_classification_unless_told_otherwise():
    column = pd.Series([4, 0, 8, 4])
    y, task = encode_target(column, None, "target")
    assert task == "classification"
    assert_array_equal(y, [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    y, task = encode_target(column, "regression", "target")
    assert task == "regression"
    assert_array_equal(y, [[0.5], [0], [1], [0.5]])


def test_target_of_many_numbers_is_a_classification_when_told_so():
    y, task = encode_target(pd.Series(np.arange(25)), "classification", "target")
    assert task == "classification"
    assert_array_equal(y, np.eye(25))


@pytest.mark.parametrize("values", [["no", "yes", "no"], [-1, 1, -1], [True, False, True]])
def test_target_of_two_values_is_binary(values):
    y, task = encode_target(pd.Series(values), None, "target")
    assert task == "binary"
    assert_array_equal(y, [[1], [0], [1]])


def test_regression_on_two_values_has_targets_zero_and_one():
    y, task = encode_target(pd.Series([-1.0, 1.0, 1.0]), "regression", "target")
    assert task == "regression"
    assert_array_equal(y, [[1], [0], [0]])


def test_target_of_text_with_many_values_is_a_classification():
    y, task = encode_target(pd.Series([f"class {i}" for i in range(40)]), None, "target")
    assert (task, y.shape) == ("classification", (40, 40))


# What is refused


def refusal(function, *arguments):
    with pytest.raises(DatasetError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, np.nan, 2.0, np.nan],
        ["a", None, "b", None],
        ["a", "", "b", "  "],
        pd.array([1, None, 2, None], dtype="Int64"),
        pd.Categorical(["a", None, "b", None]),
    ],
)
def test_missing_values_are_refused_with_column_count_and_row(values):
    message = refusal(encode_column, values)
    assert "column 'column' of data.csv" in message
    assert "2 of 4 rows, first in data row 2" in message
    assert "remove the rows" in message


@pytest.mark.parametrize("values", [[np.nan, np.nan], [None, None], ["", " "]])
def test_empty_column_is_refused_as_empty(values):
    assert "column 'column' of data.csv is empty in all 2 rows" in refusal(encode_column, values)


def test_infinite_values_are_refused_with_row():
    message = refusal(encode_column, [0.0, 1.0, -np.inf])
    assert "'column' of data.csv is infinite in 1 of 3 rows, first in data row 3" in message


def test_range_beyond_float64_is_refused():
    assert "-1e+308 to 1e+308" in refusal(encode_column, np.linspace(-1, 1, 30) * 1e308)


def test_number_column_with_a_question_mark_is_refused_instead_of_one_hot():
    message = refusal(encode_column, [*map(str, range(40)), "?", "?"])
    assert "2 of 42 rows hold something else, first '?' in data row 41" in message


def test_numbers_stored_as_text_are_refused():
    assert "numbers that are stored as text" in refusal(encode_column, [str(i) for i in range(30)])


def test_text_with_too_many_values_is_refused():
    names = [f"name {i}" for i in range(MAX_CATEGORIES + 1)]
    assert f"{MAX_CATEGORIES + 1} different texts" in refusal(encode_column, names)
    assert encode_column(names[:-1]).shape == (MAX_CATEGORIES, MAX_CATEGORIES)


def test_nested_values_are_refused():
    assert "holds list values" in refusal(encode_column, [[1, 2], [3], [4]])


def test_table_without_an_input_that_varies_is_refused():
    frame = pd.DataFrame({"a": [1, 1], "b": ["x", "x"]})
    assert "data.csv has no input that varies" in refusal(encode_inputs, frame, "data.csv")


@pytest.mark.parametrize("task", [None, "classification", "regression"])
def test_target_of_one_value_is_refused(task):
    message = refusal(encode_target, pd.Series([5, 5, 5]), task, "column 'y'")
    assert "column 'y' is the target, and all its values are equal" in message


def test_regression_on_text_is_refused():
    message = refusal(encode_target, pd.Series(["a", "b"]), "regression", "column 'y'")
    assert "column 'y' holds text" in message
    assert "classification" in message


def test_misspelt_number_in_a_target_is_shown():
    column = pd.Series([*map(str, range(40)), "4O"])
    assert "first '4O' in data row 41" in refusal(encode_target, column, "regression", "column 'y'")


def test_classification_with_too_many_classes_is_refused():
    column = pd.Series(np.arange(MAX_CATEGORIES + 1))
    message = refusal(encode_target, column, "classification", "column 'y'")
    assert f"{MAX_CATEGORIES + 1} classes" in message
    assert 'task = "regression"' in message
