"""Summaries on the disk: what is unchanged is not read again, and all rows are as from scratch."""

import os
import shutil
import threading

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from minibutter.store import (
    ShardWriter,
    StoreError,
    compact,
    forget,
    merge,
    open_directory,
    parquet,
    recover,
    summaries,
    write_summary,
)
from tests.store.test_compaction import FAILED, flip_a_page, names

NAMES = ("experiments", "epochs", "by_epoch")


@pytest.fixture
def add(tmp_path, make_run, make_epochs):
    """A function: one shard with runs, given as "experiment-repetition" or (that, columns)."""

    def write(*runs):
        with ShardWriter(tmp_path, "rank0", interval_s=1e9) as writer:
            for run in runs:
                run_id, columns = (run, {}) if isinstance(run, str) else run
                experiment_id, _, repetition = run_id.partition("-")
                made = make_run(run_id, experiment_id, int(repetition), **columns)
                epochs = make_epochs(3, seed=sum(run_id.encode()))
                writer.add(made, epochs if made["epochs_completed"] else None)

    return write


@pytest.fixture
def opened(monkeypatch):
    """Names of tables and files whose rows were read since the list was cleared."""
    read = []

    class Watched(pq.ParquetFile):
        def __init__(self, path, **options):
            super().__init__(path, **options)
            self.path = path

        def read(self, columns=None):
            if columns != []:
                read.append((self.path.parent.name, self.path.name))
            return super().read(columns=columns)

        def read_row_groups(self, groups, columns):
            read.append((self.path.parent.name, self.path.name))
            return super().read_row_groups(groups, columns)

    monkeypatch.setattr(parquet.pq, "ParquetFile", Watched)
    return read


def contents(directory):
    return {name: pq.read_table(directory / "summary" / f"{name}.parquet") for name in NAMES}


def assert_as_from_scratch(directory):
    frames, files = write_summary(directory), contents(directory)
    (directory / ".summary.parquet").unlink()
    for frame, expected in zip(frames, write_summary(directory), strict=True):
        pd.testing.assert_frame_equal(frame, expected, check_exact=True)
    for name, expected in contents(directory).items():
        assert files[name].schema.equals(expected.schema), name
        pd.testing.assert_frame_equal(files[name].to_pandas(), expected.to_pandas())


def test_unchanged_directory_is_not_read_again(tmp_path, add, opened):
    add("a-0", "a-1", "b-0", ("b-1", FAILED))
    add("a-2")
    first = write_summary(tmp_path)
    assert {table for table, _ in opened} == {"runs", "epochs"}
    opened.clear()
    written = (tmp_path / "summary" / "epochs.parquet").stat().st_ino
    for frame, expected in zip(write_summary(tmp_path), first, strict=True):
        pd.testing.assert_frame_equal(frame, expected, check_exact=True)
    assert opened == []
    assert (tmp_path / "summary" / "epochs.parquet").stat().st_ino == written


def test_of_a_new_shard_only_its_experiments_are_summarised(tmp_path, add, opened):
    add("a-0", "a-1")
    (of_a,) = names(tmp_path)
    add("b-0")
    write_summary(tmp_path)
    opened.clear()
    add("b-1", "c-0")
    remembered = pd.read_parquet(tmp_path / ".summary.parquet", columns=["shard"])["shard"]
    (new,) = set(names(tmp_path)) - {f"{name}.parquet" for name in remembered}
    experiments, _ = write_summary(tmp_path)
    assert [path for table, path in opened if table == "runs"] == [new]
    assert ("epochs", of_a) not in opened
    assert experiments["num_runs"].tolist() == [2, 2, 1]
    assert_as_from_scratch(tmp_path)


def test_after_a_compaction_no_epoch_is_read(tmp_path, add, opened):
    for run_id in ("a-0", "b-0", "a-1"):
        add(run_id)
    first = write_summary(tmp_path)
    compact(tmp_path)
    opened.clear()
    for frame, expected in zip(write_summary(tmp_path), first, strict=True):
        pd.testing.assert_frame_equal(frame, expected, check_exact=True)
    assert {table for table, _ in opened} == {"runs"}
    opened.clear()
    write_summary(tmp_path)
    assert opened == []


def test_forgotten_and_repeated_runs_leave_nothing_behind(tmp_path, add):
    add("a-0", ("a-1", FAILED), ("b-0", FAILED))
    write_summary(tmp_path)
    forget(tmp_path, lambda runs: runs["status"] == "failed")
    experiments, _ = write_summary(tmp_path)
    assert experiments["experiment_id"].tolist() == ["a"]
    assert experiments["num_failed"].tolist() == [0]
    add("a-1")
    assert write_summary(tmp_path)[0]["num_runs"].tolist() == [2]
    assert_as_from_scratch(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_summaries_are_those_of_a_directory_read_from_scratch_whatever_happens(tmp_path, add, seed):
    rng = np.random.default_rng(seed)
    for _ in range(6):
        wanted = {f"{rng.choice(list('abc'))}-{rng.integers(4)}" for _ in range(3)}
        add(*((run_id, FAILED if rng.random() < 0.3 else {}) for run_id in sorted(wanted)))
        if rng.random() < 0.3:
            compact(tmp_path)
        if rng.random() < 0.3 and len(names(tmp_path)) > 1:
            gone = rng.choice(list("abc"))
            forget(tmp_path, lambda runs, gone=gone: runs["run_id"].str.startswith(f"{gone}-1"))
        if rng.random() < 0.7:
            write_summary(tmp_path)
    assert_as_from_scratch(tmp_path)


def test_damaged_epochs_are_said_every_time_until_they_are_there(tmp_path, add):
    add("a-0", "a-1")
    (name,) = names(tmp_path)
    add("b-0")
    path = tmp_path / "epochs" / name
    sound = path.read_bytes()
    flip_a_page(path)
    for _ in range(2):
        experiments, epochs = write_summary(tmp_path)
        for frame in (experiments, epochs):
            (problem,) = frame.attrs["problems"]
            assert name in problem
        assert set(epochs["experiment_id"]) == {"b"}
    path.write_bytes(sound)
    experiments, epochs = write_summary(tmp_path)
    assert experiments.attrs["problems"] == []
    assert set(epochs["experiment_id"]) == {"a", "b"}


@pytest.mark.parametrize("table", ["runs", "epochs"])
def test_shard_that_was_cut_since_is_said_every_time_until_it_is_set_aside(tmp_path, add, table):
    add("a-0", "a-1")
    (name,) = names(tmp_path)
    add("b-0", "a-2")
    assert write_summary(tmp_path)[0]["num_runs"].tolist() == [3, 1]
    path = tmp_path / table / name
    path.write_bytes(path.read_bytes()[:-20])
    for _ in range(2):
        experiments, epochs = write_summary(tmp_path)
        (problem,) = experiments.attrs["problems"]
        assert name in problem
        assert experiments["num_runs"].tolist() == [1, 1]
        assert set(epochs["num_runs"]) == {1}
    assert len(recover(tmp_path)) == 1
    experiments, _ = write_summary(tmp_path)
    assert experiments.attrs["problems"] == []
    assert experiments["num_runs"].tolist() == [1, 1]
    assert_as_from_scratch(tmp_path)


def test_page_that_was_spoilt_since_is_said_every_time(tmp_path, add):
    add("a-0", "a-1")
    (name,) = names(tmp_path)
    add("b-0")
    write_summary(tmp_path)
    path = tmp_path / "epochs" / name
    flip_a_page(path)
    os.utime(path, ns=(0, 0))  # In case that the clock of the files is coarse.
    for _ in range(2):
        experiments, epochs = write_summary(tmp_path)
        (problem,) = experiments.attrs["problems"]
        assert name in problem
        assert set(epochs["experiment_id"]) == {"b"}


def test_damaged_shards_of_which_all_are_known_leave_nothing_to_summarise(tmp_path, add):
    add("a-0")
    (name,) = names(tmp_path)
    write_summary(tmp_path)
    (tmp_path / "epochs" / name).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StoreError, match=name):
            write_summary(tmp_path)


@pytest.mark.parametrize("tables", [("runs",), ("epochs",), ("runs", "epochs")])
def test_deleted_shard_takes_its_runs_along(tmp_path, add, tables):
    add("a-0", "b-0")
    (name,) = names(tmp_path)
    add("a-1", "c-0")
    write_summary(tmp_path)
    for table in tables:
        (tmp_path / table / name).unlink()
    experiments, epochs = write_summary(tmp_path)
    assert experiments["experiment_id"].tolist() == ["a", "c"]
    assert experiments["num_runs"].tolist() == [1, 1]
    assert len(experiments.attrs["problems"]) == (len(tables) == 1)
    assert set(epochs["experiment_id"]) == {"a", "c"}
    assert_as_from_scratch(tmp_path)


def test_run_that_is_done_again_counts_with_its_new_numbers(tmp_path, add, make_run):
    add("a-0", ("a-1", FAILED), "b-0")
    write_summary(tmp_path)
    forget(tmp_path, lambda runs: runs["status"] == "failed")
    later = make_run("a-1", "a", 1)["started_at"] + pd.Timedelta(hours=1)
    add(("a-1", {"started_at": later}))
    experiments, _ = write_summary(tmp_path)
    assert experiments["num_runs"].tolist() == [2, 1]
    assert experiments["num_failed"].tolist() == [0, 0]
    assert_as_from_scratch(tmp_path)


def test_runs_that_were_merged_into_a_directory_count(tmp_path, make_run, make_epochs):
    def write(directory, run_id, seed, **columns):
        with ShardWriter(directory, "rank0", interval_s=1e9) as writer:
            run = make_run(run_id, run_id[0], int(run_id[-1]), **columns)
            writer.add(run, make_epochs(3, seed=seed))

    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        open_directory(directory, "two halves", {"a": 1, "b": 2}, {})
    later = make_run("a-0")["started_at"] + pd.Timedelta(hours=1)
    write(one, "a-0", 0)
    write(one, "b-0", 1)
    write(other, "a-0", 2, started_at=later)
    write(other, "b-1", 3)
    _, before = write_summary(one)
    assert merge(one, [other]).is_refused
    merge(one, [other], prefer=other)
    experiments, after = write_summary(one)
    assert experiments["num_runs"].tolist() == [1, 2]
    assert not np.array_equal(before["test_loss_median"][:3], after["test_loss_median"][:3])
    assert_as_from_scratch(one)


def test_copy_of_a_directory_is_summarised_as_the_directory(tmp_path, add):
    add("a-0", "a-1")
    first = write_summary(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, copy_function=shutil.copyfile)
    for frame, expected in zip(write_summary(copy), first, strict=True):
        pd.testing.assert_frame_equal(frame, expected, check_exact=True)


def test_shard_that_is_replaced_while_it_is_read_is_looked_for_again(tmp_path, add, monkeypatch):
    add("a-0")
    add("a-1", "b-0")
    left = iter(range(2))

    def read(directory, shards, columns, real=summaries.all_runs):
        shards = list(shards)
        if next(left, None) is not None:
            compact(directory)
            add("b-1")  # So that the next compaction has something to do.
        return real(directory, shards, columns)

    monkeypatch.setattr(summaries, "all_runs", read)
    experiments, _ = write_summary(tmp_path)
    assert next(left, None) is None
    assert experiments.attrs["problems"] == []
    assert_as_from_scratch(tmp_path)


def lose_a_summary(directory):
    (directory / "summary" / "by_epoch.parquet").unlink()


def cut_a_summary(directory):
    path = directory / "summary" / "epochs.parquet"
    path.write_bytes(path.read_bytes()[:-9])


def cut_the_memory(directory):
    path = directory / ".summary.parquet"
    path.write_bytes(path.read_bytes()[:-9])


def spoil_the_memory(directory):
    (directory / ".summary.parquet").write_bytes(b"")


@pytest.mark.parametrize("spoil", [lose_a_summary, cut_a_summary, cut_the_memory, spoil_the_memory])
def test_what_is_lost_is_made_again(tmp_path, add, spoil):
    add("a-0", "b-0")
    first = write_summary(tmp_path)
    files = contents(tmp_path)
    spoil(tmp_path)
    for frame, expected in zip(write_summary(tmp_path), first, strict=True):
        pd.testing.assert_frame_equal(frame, expected, check_exact=True)
    assert contents(tmp_path)["by_epoch"].equals(files["by_epoch"])


def test_summaries_of_another_version_are_made_again(tmp_path, add, opened, monkeypatch):
    add("a-0")
    write_summary(tmp_path)
    opened.clear()
    monkeypatch.setattr(summaries, "_VERSION", summaries._VERSION + 1)
    write_summary(tmp_path)
    assert {table for table, _ in opened} == {"runs", "epochs"}


@pytest.mark.parametrize("n_written", range(4))
def test_interrupt_between_the_files_is_made_good(tmp_path, add, monkeypatch, n_written):
    add("a-0", "b-0")
    write_summary(tmp_path)
    add("a-1", "c-0")
    left = iter(range(n_written))

    def replace(path, table, real=summaries._replace):
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(path, table)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(summaries, "_replace", replace)
        with pytest.raises(KeyboardInterrupt):
            write_summary(tmp_path)
    assert write_summary(tmp_path)[0]["num_runs"].tolist() == [2, 1, 1]
    assert_as_from_scratch(tmp_path)


def test_many_epochs_are_summarised_in_parts(tmp_path, add, monkeypatch):
    add("a-0", "a-1", "b-0", "c-0", "c-1")
    expected = write_summary(tmp_path)
    (tmp_path / ".summary.parquet").unlink()
    monkeypatch.setattr(summaries, "_MAX_EPOCHS", 4)
    for frame, whole in zip(write_summary(tmp_path), expected, strict=True):
        pd.testing.assert_frame_equal(frame, whole, check_exact=True)


def test_summaries_that_are_made_at_the_same_time_are_made_one_after_the_other(
    tmp_path, add, monkeypatch
):
    """A job that ends while another summarises waits, and then has the shards of both."""
    add("e0-0")
    write, ended = summaries._write, []

    def end_another_job(directory, tables, rows):
        monkeypatch.setattr(summaries, "_write", write)
        add("e1-0")
        other = threading.Thread(target=lambda: ended.append(write_summary(tmp_path)))
        other.start()
        other.join(0.2)
        assert not ended
        write(directory, tables, rows)
        threads.append(other)

    threads = []
    monkeypatch.setattr(summaries, "_write", end_another_job)
    experiments, _ = write_summary(tmp_path)
    assert len(experiments) == 1
    threads[0].join(20)
    stored = pd.read_parquet(tmp_path / "summary" / "experiments.parquet")
    assert stored["experiment_id"].tolist() == ["e0", "e1"]
