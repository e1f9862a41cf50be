"""Which rows of two columns differ, to the last bit."""

import numpy as np
import pyarrow as pa
import pytest

from minibutter.store.bits import differing_rows, is_same

NAN = float("nan")
ODD_NAN = np.array([0xFFC01234], np.uint32).view(np.float32)[0]


def column(values, type_=None):
    return pa.chunked_array([pa.array(values, type_)])


@pytest.mark.parametrize(
    ("one", "other", "type_", "differs"),
    [
        ([1.0, 2.0, None], [1.0, 2.0, None], pa.float64(), []),
        ([1.0, 2.0], [1.0, np.nextafter(2.0, 3.0)], pa.float64(), [1]),
        ([0.0, -0.0], [-0.0, -0.0], pa.float32(), [0]),
        ([None, 0.0, NAN], [0.0, None, None], pa.float32(), [0, 1, 2]),
        ([np.inf, NAN], [np.inf, NAN], pa.float32(), []),
        (["a", None, None], ["a", None, "a"], pa.string(), [2]),
        ([1, 2, None], [1, 3, 0], pa.int64(), [1, 2]),
        ([True, False], [True, True], pa.bool_(), [1]),
        ([[1, 2], None, [3]], [[1, 2], [1], [4]], pa.list_(pa.int32()), [1, 2]),
        ([], [], pa.float32(), []),
    ],
)
def test_rows_that_differ_are_found(one, other, type_, differs):
    for any_nan in (False, True):
        found = differing_rows(column(one, type_), column(other, type_), any_nan)
        assert found.tolist() == differs


def test_one_nan_is_as_good_as_another_only_if_asked():
    one, other = (column(np.array([1, nan], np.float32)) for nan in (NAN, ODD_NAN))
    assert differing_rows(one, other, any_nan=True).tolist() == []
    assert differing_rows(one, other, any_nan=False).tolist() == [1]


def test_tables_are_the_same_with_all_their_columns_and_rows():
    table = pa.table({"a": np.array([1, NAN], np.float32), "b": ["x", None]})
    assert is_same(table, pa.concat_tables([table.slice(0, 1), table.slice(1)]))
    assert not is_same(table, table.slice(1))
    assert not is_same(table, table.select(["a"]))
    assert not is_same(table, table.set_column(0, "a", pa.array([1, ODD_NAN], pa.float32())))
