"""Local tables: three formats, one result; and the ways in which a file can be wrong."""

import gzip

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from minibutter.datasets import DatasetError, describe, load

FRAME = pd.DataFrame(
    {
        "height_m": np.linspace(1.5, 1.9, 25),
        "kind": ["pine", "oak", "ash", "oak", "pine"] * 5,
        "always": "x",
        "alive": [True, False, True, True, True] * 5,
        "growth_mm": np.arange(25) ** 2,
    }
)


def write(folder, name, frame=FRAME):
    path = folder / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if ".tsv" in name else ",", index=False)
    return str(path)


def write_text(folder, content, name="data.csv"):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return str(path)


def refusal(*arguments, **options):
    with pytest.raises(DatasetError) as caught:
        load(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz", "t.parquet"])
def test_every_format_gives_the_same_arrays_and_digest(tmp_path, name):
    reference = write(tmp_path, name)
    dataset = load(reference, target="growth_mm")
    x = np.zeros((25, 5), dtype=np.float32)
    x[:, 0] = np.arange(25) / 24
    for column, kind in enumerate(["ash", "oak", "pine"], start=1):
        x[:, column] = FRAME["kind"] == kind
    x[:, 4] = FRAME["alive"]
    np.testing.assert_allclose(dataset.x, x, rtol=0, atol=np.finfo(np.float32).eps)
    assert_array_equal(dataset.y[:, 0], (np.arange(25) ** 2 / 576).astype(np.float32))
    assert (dataset.info.name, dataset.info.task) == (name, "regression")
    assert dataset.info.digest == load(write(tmp_path, "again.csv"), target="growth_mm").info.digest
    assert dataset.source == reference
    assert len(dataset.sha256) == 64
    assert dataset.info == describe(reference, target="growth_mm")


def test_digest_follows_content_and_not_the_path(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    info = describe(write(tmp_path, "t.csv"), target="growth_mm")
    moved = describe(write(tmp_path / "elsewhere", "t.csv"), target="growth_mm")
    assert info == moved
    for column in ("growth_mm", "height_m"):
        changed = FRAME.assign(**{column: FRAME[column].to_numpy()[::-1]})
        other = describe(write(tmp_path / "elsewhere", "t.csv", changed), target="growth_mm")
        assert other.digest != info.digest


def test_digest_depends_on_the_task(tmp_path):
    reference = write(tmp_path, "t.csv")
    binary = describe(reference, target="alive")
    regression = describe(reference, target="alive", task="regression")
    assert (binary.task, regression.task) == ("binary", "regression")
    assert binary.digest != regression.digest


def test_any_column_can_be_the_target(tmp_path):
    reference = write(tmp_path, "t.csv")
    for target, task, n_outputs in [
        ("kind", "classification", 3),
        ("alive", "binary", 1),
        ("height_m", "regression", 1),
    ]:
        info = describe(reference, target=target)
        assert (info.task, info.n_outputs) == (task, n_outputs)
    assert describe(reference, target="growth_mm", task="classification").n_outputs == 25


def test_relative_path_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path, "t.csv")
    monkeypatch.chdir(tmp_path)
    assert load("t.csv", target="alive").source == str(tmp_path / "t.csv")
    assert load("./t.csv", target="alive").source == str(tmp_path / "t.csv")


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    write(tmp_path, "t.csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/t.csv", target="alive").info.n_rows == 25


def test_columns_with_the_same_name_are_kept(tmp_path):
    reference = write_text(tmp_path, "a,a,y\n1,5,0\n2,5,1\n3,6,1\n")
    expected = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]]
    assert_array_equal(load(reference, target="y").x, expected)


def test_file_of_a_spreadsheet_with_byte_order_mark_and_spaces_is_read(tmp_path):
    reference = write_text(tmp_path, "\ufeffy, kind\n0, a\n1, b\n1, a\n")
    assert_array_equal(load(reference, target="y").x, [[1], [0], [1]])
    assert_array_equal(load(reference, target="kind").x, [[1], [0], [0]])


def test_number_columns_of_long_files_keep_one_type(tmp_path):
    # pandas would read the first chunk as numbers and a later one as text.
    lines = [f"{i % 30},{i % 2}" for i in range(300_000)] + ["x,1"]
    reference = write_text(tmp_path, "a,y\n" + "\n".join(lines) + "\n")
    assert "first 'x' in data row 300001" in refusal(reference, target="y")


# What is wrong with the request


def test_missing_target_lists_the_columns(tmp_path):
    message = refusal(write(tmp_path, "t.csv"))
    assert "needs a target" in message
    assert "'height_m', 'kind', 'always', 'alive', 'growth_mm'" in message


def test_misspelt_target_gets_a_suggestion(tmp_path):
    message = refusal(write(tmp_path, "t.csv"), target="growth")
    assert "no column 'growth'; did you mean 'growth_mm'?" in message
    assert "'height_m', 'kind'" in message


def test_list_of_many_columns_is_cut(tmp_path):
    frame = pd.DataFrame(np.zeros((2, 50)), columns=[f"c{i}" for i in range(50)])
    assert "'c19' and 30 more" in refusal(write(tmp_path, "t.csv", frame), target="y")


def test_target_that_two_columns_bear_is_ambiguous(tmp_path):
    reference = write_text(tmp_path, "y,a,y\n0,1,0\n1,2,1\n")
    assert "2 columns of" in refusal(reference, target="y")


def test_unknown_task_is_refused(tmp_path):
    message = refusal(write(tmp_path, "t.csv"), target="alive", task="binary")
    assert "task is 'binary'" in message
    assert '"regression" or "classification"' in message


# What is wrong with the file


def test_missing_file_is_named_with_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"there is no file {tmp_path / 'no.csv'}" in refusal("no.csv", target="y")


def test_unknown_format_is_refused(tmp_path):
    reference = write_text(tmp_path, "x", "t.xlsx")
    message = refusal(reference, target="y")
    assert f"the format of {reference} is not known" in message
    assert ".parquet" in message


def test_missing_value_names_file_column_count_and_row(tmp_path):
    reference = write_text(tmp_path, "a,b,y\n1,2,0\n3,,1\n5,,1\n")
    message = refusal(reference, target="y")
    assert f"column 'b' of {reference} has no value in 2 of 3 rows, first in data row 2" in message
    assert "column 'b'" in refusal(reference, target="b")


def test_empty_column_is_named(tmp_path):
    reference = write_text(tmp_path, "a,b,y\n1,,0\n3,,1\n")
    assert f"column 'b' of {reference} is empty" in refusal(reference, target="y")


def test_infinite_value_is_named(tmp_path):
    reference = write_text(tmp_path, "a,y\n1,0\ninf,1\n")
    assert f"column 'a' of {reference} is infinite in 1 of 2 rows" in refusal(reference, target="y")


def test_header_without_rows_is_refused(tmp_path):
    assert "no rows" in refusal(write_text(tmp_path, "a,y\n"), target="y")


def test_target_as_only_column_is_refused(tmp_path):
    assert "as its only column" in refusal(write_text(tmp_path, "y\n1\n2\n"), target="y")


def test_empty_file_is_refused(tmp_path):
    assert "can not be read as a table" in refusal(write_text(tmp_path, ""), target="y")


def test_semicolons_are_recognised(tmp_path):
    reference = write_text(tmp_path, "a;y\n1;0\n2;1\n")
    assert "separate columns by commas" in refusal(reference, target="y")


@pytest.mark.parametrize("rows", ["1,2,3\n4,5,6\n", "1,2,3\n4,5\n"])
def test_rows_longer_than_the_header_are_refused(tmp_path, rows):
    message = refusal(write_text(tmp_path, f"a,y\n{rows}"), target="y")
    assert "more values than its header has names" in message


def test_ragged_rows_are_refused_with_their_line(tmp_path):
    message = refusal(write_text(tmp_path, "a,y\n1,2\n3,4,5\n"), target="y")
    assert "can not be read as a table" in message
    assert "line 3" in message


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("größe,y\n1,0\n".encode("latin-1"))
    assert "not UTF-8" in refusal(str(tmp_path / "t.csv"), target="y")


def test_truncated_gzip_is_refused(tmp_path):
    content = gzip.compress(b"a,y\n" + b"1,0\n2,1\n" * 1000)
    (tmp_path / "t.csv.gz").write_bytes(content[:-20])
    assert "truncated gzip" in refusal(str(tmp_path / "t.csv.gz"), target="y")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet"])
def test_file_of_another_format_than_its_name_says_is_refused(tmp_path, name):
    reference = write_text(tmp_path, "a,y\n1,0\n2,1\n", name)
    message = refusal(reference, target="y")
    assert f"{reference} can not be read as" in message
    assert "right ending" in message
