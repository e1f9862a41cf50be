"""Compaction: the same rows in fewer files, whoever writes, reads or is killed meanwhile."""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minibutter.store import (
    ShardWriter,
    StoreError,
    compact,
    compaction,
    generations,
    read_epochs,
    read_runs,
    recover,
    shards,
    tables,
)
from minibutter.store.bits import is_same
from minibutter.store.schema import EPOCHS_SCHEMA, RUNS_SCHEMA
from minibutter.store.tables import epoch_rows
from tests.store.test_recovery import DAMAGES

FAILED = {
    "status": "failed",
    "error": "out of memory",
    "epochs_completed": 0,
    "diverged": None,
    "duration_s": None,
    "energy_j": None,
    "energy_source": None,
    "energy_quality": None,
    "energy_resolution_j": None,
}


def names(directory, table="runs"):
    return sorted(path.name for path in (directory / table).glob("*.parquet"))


def rows_of(directory):
    """Both tables as Arrow has them: what a comparison bit by bit needs."""
    runs = read_runs(directory)
    tables = [pq.read_table(directory / "runs" / name) for name in names(directory)]
    return (
        runs,
        pa.concat_tables(tables).sort_by("run_id"),
        epoch_rows(directory, EPOCHS_SCHEMA.names)[0],
    )


def write_odd_rows(directory, make_run, make_epochs, n=5):
    """Every kind of run and value, each in a shard of its own, in no order."""
    odd_nan = np.array([0xFFC01234], np.uint32).view(np.float32)[0]
    loss = np.array([odd_nan, -0.0, np.inf], np.float32)
    with ShardWriter(directory, "rank0", interval_s=0.0) as writer:
        writer.add(make_run("r9", **FAILED))
        writer.add(make_run("r7", diverged=True, diverged_epoch=1), make_epochs(test_loss=loss))
        writer.add(make_run("r8"), make_epochs(trained_loss=[float("nan"), None, 1.5]))
        for i in reversed(range(n)):
            writer.add(make_run(f"r{i}"), make_epochs(seed=i))


def test_rows_are_the_same_to_the_last_bit_and_files_are_two(tmp_path, make_run, make_epochs):
    write_odd_rows(tmp_path, make_run, make_epochs)
    runs, raw_runs, epochs = rows_of(tmp_path)
    before = compact(tmp_path)
    assert (before.files_before, before.files_after) == (16, 2)
    assert (before.n_runs, before.n_epochs, before.n_dropped) == (8, 21, 0)
    assert before.messages == []
    runs_after, raw_runs_after, epochs_after = rows_of(tmp_path)
    pd.testing.assert_frame_equal(runs_after, runs)
    assert is_same(raw_runs_after, raw_runs)
    assert is_same(epochs_after, epochs)
    assert raw_runs_after.schema.equals(RUNS_SCHEMA, check_metadata=True)
    stored = pd.read_parquet(tmp_path / "epochs")
    assert stored["run_id"].is_monotonic_increasing
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == [".lock"]
    assert not list(tmp_path.glob("*/.*"))


def test_what_is_compact_is_not_written_again(tmp_path, make_run, make_epochs):
    write_odd_rows(tmp_path, make_run, make_epochs)
    compact(tmp_path)
    before = names(tmp_path)
    again = compact(tmp_path)
    assert names(tmp_path) == before
    assert (again.files_before, again.files_after) == (2, 2)


def test_full_files_stay_and_new_shards_join_one_another(
    tmp_path, make_run, make_epochs, monkeypatch
):
    monkeypatch.setattr(compaction, "MAX_EPOCHS", 12)
    write_odd_rows(tmp_path, make_run, make_epochs)  # 21 epochs: files of 12 and 9
    compact(tmp_path)
    first = set(names(tmp_path))
    assert len(first) == 2
    inodes = {name: (tmp_path / "epochs" / name).stat().st_ino for name in first}
    with ShardWriter(tmp_path, "rank1", interval_s=0.0) as writer:
        writer.add(make_run("s0", epochs=1), make_epochs(1))
        writer.add(make_run("s1", epochs=1), make_epochs(1))
    assert compact(tmp_path).files_after == 6
    assert first < set(names(tmp_path))
    assert inodes == {name: (tmp_path / "epochs" / name).stat().st_ino for name in first}
    assert len(pd.read_parquet(tmp_path / "epochs")) == 23


def test_runs_done_twice_and_failures_repeated_are_kept_once(tmp_path, make_run, make_epochs):
    later = datetime(2030, 1, 1, tzinfo=UTC)
    for run, epochs in [
        (make_run("r0", **FAILED, started_at=later), None),
        (make_run("r0"), make_epochs()),
        (make_run("r1", duration_s=1.0), make_epochs()),
        (make_run("r1", duration_s=2.0, started_at=later), make_epochs()),
    ]:
        with ShardWriter(tmp_path, "rank0") as writer:
            writer.add(run, epochs)
    expected = read_runs(tmp_path)
    assert compact(tmp_path).n_dropped == 2
    pd.testing.assert_frame_equal(read_runs(tmp_path), expected)
    stored = pd.read_parquet(tmp_path / "runs")
    assert stored["run_id"].tolist() == ["r0", "r1"]
    assert stored["duration_s"].tolist() == [0.5, 2.0]
    assert len(pd.read_parquet(tmp_path / "epochs")) == 6


def flip_a_page(path):
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 2] ^= 0x01
    path.write_bytes(content)


def test_row_is_not_dropped_for_one_that_cannot_be_read(tmp_path, make_run, make_epochs):
    """Of a run done twice, the later start counts; but its epochs are damaged."""
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("r0"), make_epochs(seed=0))
    (good,) = names(tmp_path)
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("r0", started_at=datetime(2030, 1, 1, tzinfo=UTC)), make_epochs(seed=0))
        writer.add(make_run("r1"), make_epochs(seed=1))
    (bad,) = set(names(tmp_path)) - {good}
    expected = make_epochs(seed=0)["test_loss"]
    flip_a_page(tmp_path / "epochs" / bad)
    for name in ("a", "b"):
        with ShardWriter(tmp_path, "rank0") as writer:
            writer.add(make_run(name), make_epochs())
    (message,) = compact(tmp_path).messages
    assert f"left {bad.removesuffix('.parquet')} as it is" in message
    assert bad in names(tmp_path)
    for table in ("runs", "epochs"):
        (tmp_path / table / bad).unlink()
    epochs = read_epochs(tmp_path, run_ids=["r0"])
    np.testing.assert_array_equal(epochs["test_loss"], expected)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_faulty_shard_is_said_and_set_aside(tmp_path, store_runs, damage):
    store_runs(tmp_path, "r0", "r1")
    (faulty,) = names(tmp_path)
    store_runs(tmp_path, "r2")
    store_runs(tmp_path, "r3")
    damage(tmp_path / "epochs" / faulty)
    (message,) = compact(tmp_path).messages
    assert faulty in message
    assert pd.read_parquet(tmp_path / "runs")["run_id"].tolist() == ["r2", "r3"]
    assert len(names(tmp_path)) == 1


def test_shards_of_another_version_are_refused_and_stay(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    (name,) = names(tmp_path)
    path = tmp_path / "runs" / name
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"minibutter_schema_version": "99"}), path)
    store_runs(tmp_path, "r1")
    before = names(tmp_path)
    with pytest.raises(StoreError, match="schema version 99"):
        compact(tmp_path)
    assert names(tmp_path) == before


def test_file_that_does_not_read_back_changes_nothing(tmp_path, store_runs, monkeypatch):
    store_runs(tmp_path, "r0")
    store_runs(tmp_path, "r1")
    before = names(tmp_path)

    def write_other_bits(table, path, *options, real=compaction.write_table):
        if "test_loss" in table.column_names:
            place = table.column_names.index("test_loss")
            table = table.set_column(place, table.field(place), pa.array([-0.0] * 6, pa.float32()))
        real(table, path, *options)

    monkeypatch.setattr(compaction, "write_table", write_other_bits)
    with pytest.raises(StoreError, match="does not read back as it was written; nothing was ch"):
        compact(tmp_path)
    assert names(tmp_path) == before
    assert not list(tmp_path.glob(".staging*"))


def test_quickstart_of_ten_thousand_runs_leaves_fewer_than_50_files(
    tmp_path, make_run, make_epochs, monkeypatch
):
    """A tenth of the rows with a tenth of the limit, from a thousand shards."""
    monkeypatch.setattr(compaction, "MAX_EPOCHS", compaction.MAX_EPOCHS // 10)
    epochs = make_epochs(60)
    with ShardWriter(tmp_path, "rank0", interval_s=1e9) as writer:
        for i in range(1000):
            writer.add(make_run(f"{i:032x}-0000", epochs=60), epochs)
            if i % 10 == 9:
                writer.flush()
    assert len(names(tmp_path)) == 100
    done = compact(tmp_path)
    assert (done.n_runs, done.n_epochs) == (1000, 60_000)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) < 50


# ---------------------------------------------------------------------------------------------
# Others at the same time


def test_what_a_sweep_commits_during_a_compaction_stays(
    tmp_path, make_run, make_epochs, monkeypatch
):
    write_odd_rows(tmp_path, make_run, make_epochs)
    writer = ShardWriter(tmp_path, "rank1", interval_s=1e9)
    publish = generations.Stage.publish

    def publish_late(stage, replaced):
        writer.add(make_run("late"), make_epochs())
        writer.flush()
        publish(stage, replaced)
        writer.add(make_run("later"), make_epochs())

    monkeypatch.setattr(generations.Stage, "publish", publish_late)
    assert compact(tmp_path).files_after == 4
    writer.flush()
    assert {"late", "later"} < set(read_runs(tmp_path)["run_id"])
    assert pd.read_parquet(tmp_path / "runs")["run_id"].is_unique
    assert len(pd.read_parquet(tmp_path / "epochs")) == 27
    assert recover(tmp_path) == []


def test_commit_keeps_exchanges_waiting(tmp_path, store_runs, monkeypatch):
    held = []

    def look(shard, runs, epochs, real=shards.commit):
        descriptor = os.open(tmp_path / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        held.append(shard)
        real(shard, runs, epochs)

    monkeypatch.setattr(shards, "commit", look)
    store_runs(tmp_path, "r0")
    assert len(held) == 1


def test_exchange_gives_up_where_commits_never_pause(tmp_path, store_runs, monkeypatch):
    """After a minute of its clock."""
    store_runs(tmp_path, "r0")
    store_runs(tmp_path, "r1")
    before = names(tmp_path)
    now_s = iter(range(10**6)).__next__
    lock = generations._exclusive_lock
    monkeypatch.setattr(
        generations, "_exclusive_lock", lambda folder: lock(folder, now_s, lambda pause_s: None)
    )
    with (
        generations.shared_lock(tmp_path),
        pytest.raises(StoreError, match=r"others write to .* without a pause; nothing was changed"),
    ):
        compact(tmp_path)
    assert now_s() > 60
    assert names(tmp_path) == before
    assert compact(tmp_path).files_after == 2


def test_two_compactions_at_a_time_lose_nothing(tmp_path, make_run, make_epochs, monkeypatch):
    write_odd_rows(tmp_path, make_run, make_epochs)
    _, _, epochs = rows_of(tmp_path)
    publish = generations.Stage.publish

    def publish_after_another(stage, replaced):
        monkeypatch.setattr(generations.Stage, "publish", publish)
        compact(tmp_path)
        publish(stage, replaced)

    monkeypatch.setattr(generations.Stage, "publish", publish_after_another)
    with pytest.raises(StoreError, match=r"somebody else has replaced .* nothing was changed"):
        compact(tmp_path)
    assert is_same(rows_of(tmp_path)[2], epochs)
    assert not list(tmp_path.glob(".staging*"))


@pytest.mark.parametrize("reader", [read_runs, read_epochs])
def test_reader_that_has_listed_the_old_files_reads_the_new_ones(
    tmp_path, make_run, make_epochs, monkeypatch, reader
):
    write_odd_rows(tmp_path, make_run, make_epochs)
    expected = reader(tmp_path)
    for moment, real in (("read_pair", tables.read_pair), ("read_shard", tables.read_shard)):

        def read_late(*arguments, real=real):
            monkeypatch.undo()
            compact(tmp_path)
            return real(*arguments)

        monkeypatch.setattr(tables, moment, read_late)
        found = reader(tmp_path)
        monkeypatch.undo()
        assert found.attrs["problems"] == []
        pd.testing.assert_frame_equal(found, expected)
        with ShardWriter(tmp_path, "rank0", interval_s=0.0) as writer:
            writer.add(make_run("r7", diverged=True, diverged_epoch=1), make_epochs())
            writer.add(make_run("z"), make_epochs())
        expected = reader(tmp_path)


def test_directory_without_locks_is_refused(tmp_path, store_runs, monkeypatch):
    store_runs(tmp_path, "r0")
    store_runs(tmp_path, "r1")

    def refuse(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(generations.fcntl, "flock", refuse)
    store_runs(tmp_path, "r2")  # A sweep needs no lock.
    with pytest.raises(StoreError, match=r"cannot be locked: .* work on a copy"):
        compact(tmp_path)
    assert len(names(tmp_path)) == 3


def test_directory_that_cannot_be_written_is_refused_with_a_remedy(
    tmp_path, store_runs, monkeypatch
):
    store_runs(tmp_path, "r0")
    store_runs(tmp_path, "r1")

    def refuse(self, *arguments, real=Path.mkdir, **options):
        if ".staging" in str(self):
            raise PermissionError(13, "Permission denied")
        real(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"cannot take other files \(Permission denied\); make it"):
        compact(tmp_path)


# ---------------------------------------------------------------------------------------------
# SIGKILL

KILLED_COMPACTION = """
import os, pathlib, pickle, shutil, signal, sys
import pyarrow.parquet as pq
from minibutter.store import ShardWriter, compact, generations

folder, has_exchange = pathlib.Path(sys.argv[1]), sys.argv[2] == "exchange"
late = pickle.loads(sys.stdin.buffer.read())


def count_down(steps_left, function):
    def step():
        steps_left[0] -= 1
        if steps_left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepped(*arguments, **keywords):
        step()
        result = function(*arguments, **keywords)
        if function is write_table and steps_left[0] == 1:
            file = arguments[1]
            file.flush()
            file.truncate(file.tell() // 2)
        step()
        return result

    return stepped


os.fsync = lambda descriptor: None  # Takes time, and a kill does not need it.
write_table, publish, n = pq.write_table, generations.Stage.publish, 0
while True:
    n += 1
    directory = folder / str(n)
    shutil.copytree(folder / "whole", directory)
    child = os.fork()
    if child == 0:
        steps_left = [n]

        def publish_after_a_commit(stage, replaced):
            left, steps_left[0] = steps_left[0], 10**9
            with ShardWriter(directory, "rank1") as writer:
                writer.add(*late)
            (directory / "a commit came between").touch()
            steps_left[0] = left
            publish(stage, replaced)

        generations.Stage.publish = publish_after_a_commit
        pq.write_table = count_down(steps_left, pq.write_table)
        if not has_exchange:
            generations._rename_exchange = lambda one, other: False
        generations._rename_exchange = count_down(steps_left, generations._rename_exchange)
        for name in ("rename", "link", "mkdir", "unlink", "rmdir"):
            setattr(os, name, count_down(steps_left, getattr(os, name)))
        compact(directory)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(n)
"""


@pytest.mark.parametrize("system", ["exchange", "no exchange"])
def test_compaction_killed_at_any_moment_loses_and_duplicates_nothing(
    tmp_path, make_run, make_epochs, monkeypatch, system
):
    """For our readers and for pandas, before anything is mended; and after."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    whole = tmp_path / "whole"
    write_odd_rows(whole, make_run, make_epochs, n=1)
    (whole / "runs" / "notes.txt").write_text("")  # Foreign files are set aside, not lost.
    recover(whole)
    late = make_run("s0"), make_epochs(seed=77)
    shutil.copytree(whole, tmp_path / "later")
    with ShardWriter(tmp_path / "later", "rank1") as writer:
        writer.add(*late)
    expected = {
        came_late: (read_runs(directory), epoch_rows(directory, EPOCHS_SCHEMA.names)[0])
        for came_late, directory in ((False, whole), (True, tmp_path / "later"))
    }
    child = subprocess.run(
        [sys.executable, "-c", KILLED_COMPACTION, tmp_path, system],
        input=pickle.dumps(late),
        capture_output=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr.decode()
    n_cuts = int(child.stdout)
    assert n_cuts > 40
    file_counts, n_gaps = [], 0
    for n in range(1, n_cuts):
        directory = tmp_path / str(n)
        runs, epochs = expected[(directory / "a commit came between").exists()]
        pd.testing.assert_frame_equal(read_runs(directory), runs)
        assert is_same(epoch_rows(directory, EPOCHS_SCHEMA.names)[0], epochs)
        for table, n_rows in (("runs", len(runs)), ("epochs", len(epochs))):
            try:
                stored = pd.read_parquet(directory / table, columns=["run_id"])
            except FileNotFoundError:
                n_gaps += 1  # Said, and not wrong.
            else:
                assert len(stored) == n_rows
        file_counts.append(len(names(directory)))
        assert compact(directory).files_after == 2
        assert pd.read_parquet(directory / "runs")["run_id"].tolist() == runs["run_id"].tolist()
        assert len(pd.read_parquet(directory / "epochs")) == len(epochs)
        assert not list(directory.glob(".staging*")) + list(directory.glob(".exchange"))
    assert set(file_counts) - {0} == {4, 5, 2}
    assert (n_gaps == 0) == (system == "exchange")
