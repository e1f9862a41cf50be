"""Measurements on the disk: whole, or measured again."""

import numpy as np
import pandas as pd
import pytest

from minibutter.store import (
    StoreError,
    claim_study_folder,
    read_measurement,
    write_measurement,
    write_study_table,
)

TABLE = pd.DataFrame({"number": [1.0, np.nan], "name": ["one", "none"]})
ABOUT = {"arguments": {"seed": 3, "goals": [0.3, 0.1]}, "duration_s": 1.5}


def test_a_measurement_comes_back_with_what_it_is_about(tmp_path):
    write_measurement(tmp_path / "stage" / "piece.parquet", TABLE, ABOUT)
    table, about = read_measurement(tmp_path / "stage" / "piece.parquet")
    pd.testing.assert_frame_equal(table, TABLE)
    assert about == ABOUT


def test_no_damaged_byte_of_a_measurement_is_more_than_a_missing_piece(tmp_path):
    path = tmp_path / "piece.parquet"
    write_measurement(path, TABLE, ABOUT)
    whole = path.read_bytes()
    n_refused = 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        n_refused += read_measurement(path) is None
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert read_measurement(path) is None
    assert n_refused > 20
    assert read_measurement(tmp_path / "nothing.parquet") is None


def test_a_parquet_file_of_somebody_else_is_no_measurement(tmp_path):
    TABLE.to_parquet(tmp_path / "piece.parquet")
    assert read_measurement(tmp_path / "piece.parquet") is None


def test_a_folder_is_claimed_once_and_for_the_same_again(tmp_path):
    folder = tmp_path / "new" / "folder"
    claim_study_folder(folder, {"study": "width", "seed": 0})
    claim_study_folder(folder, {"study": "width", "seed": 0})
    with pytest.raises(StoreError, match="holds study width, seed 0, and this is study width, se"):
        claim_study_folder(folder, {"study": "width", "seed": 1})


def test_a_damaged_claim_is_told_with_what_to_do(tmp_path):
    (tmp_path / "study.json").write_text('{"study": "wid')
    with pytest.raises(StoreError, match=r"study\.json is damaged.*remove the file"):
        claim_study_folder(tmp_path, {"study": "width"})


def test_a_table_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "tables").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write .*tables.*choose another directory"):
        write_study_table(tmp_path / "tables", "squares", TABLE)
