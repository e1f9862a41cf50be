import os
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minibutter.store import (
    EPOCHS_SCHEMA,
    RUNS_SCHEMA,
    ShardWriter,
    StoreError,
    finished_runs,
    read_epochs,
    read_runs,
    tables,
)
from minibutter.store.parquet import read_shard, write_table
from minibutter.store.schema import COUNTERS


def test_rows_come_in_one_order_however_they_were_written(tmp_path, make_run, make_epochs):
    rng = np.random.default_rng(0)
    run_ids = [f"r{i:02}" for i in range(20)]
    rows = {run_id: make_epochs(4, seed=i) for i, run_id in enumerate(run_ids)}
    frames = []
    for directory in (tmp_path / "one", tmp_path / "other"):
        for part in np.split(rng.permutation(run_ids), [3, 11]):
            with ShardWriter(directory, "rank0") as writer:
                for run_id in part:
                    writer.add(make_run(str(run_id), epochs=4), rows[run_id])
        frames.append((read_runs(directory), read_epochs(directory)))
    for one, other in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert frames[0][0]["run_id"].tolist() == run_ids
    assert frames[0][1]["run_id"].tolist() == np.repeat(run_ids, 4).tolist()
    assert frames[0][1]["epoch"].tolist() == [1, 2, 3, 4] * 20
    assert frames[0][1].columns.tolist() == EPOCHS_SCHEMA.names
    np.testing.assert_array_equal(frames[0][1]["test_loss"][4:8], rows["r01"]["test_loss"])


@pytest.mark.parametrize("max_slices", [0, 1, 10**6])
def test_rows_are_put_in_order_by_slices_and_one_by_one_alike(max_slices, monkeypatch):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"run_id": np.repeat(["c", "a", "b"], 4), "epoch": [1, 2, 4, 3] * 3})
    rows["test_loss"] = rng.random(12).astype(np.float32)
    monkeypatch.setattr(tables, "_MAX_SLICES", max_slices)
    ordered = tables.in_order(pa.Table.from_pandas(rows)).to_pandas()
    expected = rows.sort_values(["run_id", "epoch"], ignore_index=True)
    pd.testing.assert_frame_equal(ordered, expected)


def test_frame_has_the_types_of_the_schema(tmp_path, store_runs):
    store_runs(tmp_path, "r0", size=None)
    runs = read_runs(tmp_path)
    assert runs.columns.tolist() == RUNS_SCHEMA.names
    assert runs["size"].dtype == pd.Int64Dtype()
    assert runs["size"].isna().all()
    assert runs["num_parameters"].tolist() == [489]
    assert runs["diverged"].dtype == pd.BooleanDtype()
    assert runs["batch_size"].dtype == np.int32
    assert runs["widths"][0].tolist() == [18, 18, 3]
    assert runs["started_at"][0] == pd.Timestamp("2026-01-02T03:04:05.000678Z")
    assert read_epochs(tmp_path)["test_loss"].dtype == np.float32


def test_frame_agrees_with_plain_pandas(tmp_path, store_runs):
    store_runs(tmp_path, "r0", "r1")
    # Counts that may be null are floating-point numbers for plain pandas.
    plain = pd.read_parquet(tmp_path / "epochs").astype(dict.fromkeys(COUNTERS, "Int64"))
    pd.testing.assert_frame_equal(read_epochs(tmp_path), plain)


def test_columns_and_runs_can_be_chosen(tmp_path, store_runs):
    store_runs(tmp_path, "r0", "r1", "r2")
    assert read_runs(tmp_path, columns=["size"]).columns.tolist() == ["size"]
    some = read_epochs(tmp_path, columns=["test_loss"], run_ids=["r2", "r0", "unheard of"])
    whole = read_epochs(tmp_path)
    assert some.columns.tolist() == ["test_loss"]
    expected = whole.loc[whole["run_id"] != "r1", "test_loss"]
    np.testing.assert_array_equal(some["test_loss"], expected)
    none = read_epochs(tmp_path, run_ids=[])
    assert len(none) == 0
    assert none.columns.tolist() == EPOCHS_SCHEMA.names
    with pytest.raises(ValueError, match="no column 'test_los'; did you mean 'test_loss'"):
        read_epochs(tmp_path, columns=["test_los"])


def test_parts_of_a_file_without_the_wanted_runs_are_not_read(tmp_path, store_runs):
    store_runs(tmp_path, "r0", "r1", "r2", "r3")
    (path,) = (tmp_path / "epochs").glob("*.parquet")
    write_table(pq.read_table(path), path, group_rows=3)
    assert pq.ParquetFile(path).metadata.num_row_groups == 4
    for wanted in ({"r1"}, {"r3", "r0"}, {"r00", "s"}, set()):
        found = read_shard(path, "epochs", ["run_id"], sorted(wanted))
        assert set(found["run_id"].to_pylist()) == wanted & {"r0", "r1", "r2", "r3"}
        assert set(read_epochs(tmp_path, run_ids=wanted)["run_id"]) == set(
            found["run_id"].to_pylist()
        )


def test_run_done_twice_appears_once(tmp_path, store_runs):
    store_runs(tmp_path, "r0", "r1")
    store_runs(tmp_path, "r1", "r2")
    assert len(pd.read_parquet(tmp_path / "runs")) == 4
    assert read_runs(tmp_path)["run_id"].tolist() == ["r0", "r1", "r2"]
    epochs = read_epochs(tmp_path)
    assert epochs["run_id"].tolist() == np.repeat(["r0", "r1", "r2"], 3).tolist()
    assert epochs["epoch"].tolist() == [1, 2, 3] * 3


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_run_that_failed_and_was_repeated_the_result_counts(
    tmp_path, make_run, make_epochs, order
):
    failed = make_run(
        status="failed",
        error="out of memory",
        epochs_completed=0,
        started_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    for run, epochs in [(failed, None), (make_run(), make_epochs())][::order]:
        with ShardWriter(tmp_path, "rank0") as writer:
            writer.add(run, epochs)
    assert finished_runs(tmp_path)[0] == {"r0": "completed"}
    assert read_runs(tmp_path)["error"].isna().all()
    assert len(read_epochs(tmp_path)) == 3


def test_epochs_without_their_run_are_not_returned(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    (orphan,) = (tmp_path / "runs").glob("*.parquet")
    orphan.unlink()
    store_runs(tmp_path, "r1")
    assert read_epochs(tmp_path)["run_id"].unique().tolist() == ["r1"]


def test_damage_inside_the_pages_is_found_by_their_checksums(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    (path,) = (tmp_path / "epochs").glob("*.parquet")
    store_runs(tmp_path, "r1")
    content = bytearray(path.read_bytes())
    content[300] ^= 0x01
    path.write_bytes(content)
    epochs = read_epochs(tmp_path)
    assert epochs["run_id"].unique().tolist() == ["r1"]
    (problem,) = epochs.attrs["problems"]
    assert path.name in problem
    assert "to run its runs again" in problem


def test_nothing_stored_says_what_to_do(tmp_path, store_runs):
    with pytest.raises(StoreError, match="does not exist; give the directory of a sweep"):
        read_runs(tmp_path / "absent")
    with pytest.raises(StoreError, match="is empty and holds no finished run yet; start a sweep"):
        read_epochs(tmp_path)
    assert finished_runs(tmp_path / "absent") == ({}, [])
    store_runs(tmp_path, "r0")
    (path,) = (tmp_path / "runs").glob("*.parquet")
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged"):
        read_runs(tmp_path)


def test_what_is_no_directory_of_results_is_named(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"holds no results: .* but thesis.tex; give the dir"):
        read_runs(tmp_path)
    with pytest.raises(StoreError, match=r"thesis.tex is a file; give the directory"):
        read_epochs(tmp_path / "thesis.tex")


@pytest.mark.parametrize("folder", ["", "epochs"])
def test_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path, store_runs, monkeypatch, folder
):
    """Injected, because the tests may run as root, whom no mode bit stops."""
    store_runs(tmp_path, "r0")

    def refusing(real):
        def look(path):
            if path == tmp_path / folder:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        return look

    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    with pytest.raises(StoreError, match=r"cannot be read \(Permission denied\)"):
        read_runs(tmp_path)


def test_diverged_epochs_keep_their_nan(tmp_path, make_run, make_epochs):
    loss = np.array([1.0, np.inf, np.nan], np.float32)
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(
            make_run(diverged=True, diverged_epoch=2),
            make_epochs(test_loss=loss, trained_loss=pa.array([1.0, None, np.nan], pa.float32())),
        )
    epochs = read_epochs(tmp_path)
    np.testing.assert_array_equal(epochs["test_loss"], loss)
    np.testing.assert_array_equal(epochs["trained_loss"], [1.0, np.nan, np.nan])
    assert read_runs(tmp_path)["diverged_epoch"].tolist() == [2]
