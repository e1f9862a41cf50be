"""Runs that are taken out of a directory, as if they had not been done yet."""

import subprocess
import sys

import pandas as pd
import pytest

from minibutter.store import ShardWriter, StoreError, finished_runs, forget, read_epochs, read_runs
from tests.store.test_compaction import FAILED, flip_a_page, names


def is_failed(runs):
    return runs["status"] == "failed"


@pytest.fixture
def write_failures(make_run, make_epochs):
    """A function: three shards; r1 and r3 failed, r4 failed and was repeated."""

    def write(directory):
        for of_shard in (
            [make_run("r0"), make_run("r1", **FAILED), make_run("r2")],
            [make_run("r3", **FAILED), make_run("r4", **FAILED)],
            [make_run("r4")],
        ):
            with ShardWriter(directory, "rank0") as writer:
                for run in of_shard:
                    epochs = make_epochs(seed=sum(run["run_id"].encode()))
                    writer.add(run, epochs if run["status"] == "completed" else None)

    return write


def test_failed_runs_are_forgotten_and_the_others_stay_as_they_are(tmp_path, write_failures):
    write_failures(tmp_path)
    runs, epochs = read_runs(tmp_path), read_epochs(tmp_path)
    untouched = [
        name for name in names(tmp_path) if len(pd.read_parquet(tmp_path / "runs" / name)) == 1
    ]
    gone = forget(tmp_path, is_failed)
    assert sorted(gone["run_id"]) == ["r1", "r3", "r4"]
    assert set(gone["error"]) == {"out of memory"}
    assert gone.attrs["problems"] == []
    assert finished_runs(tmp_path)[0] == dict.fromkeys(["r0", "r2", "r4"], "completed")
    expected = runs[runs["status"] == "completed"].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_runs(tmp_path), expected)
    pd.testing.assert_frame_equal(read_epochs(tmp_path), epochs)
    assert pd.read_parquet(tmp_path / "runs")["run_id"].is_unique
    assert set(untouched) < set(names(tmp_path))
    assert len(forget(tmp_path, is_failed)) == 0


def test_what_is_forgotten_is_kept_in_quarantine(tmp_path, write_failures):
    write_failures(tmp_path)
    forget(tmp_path, lambda runs: runs["run_id"].isin(["r0", "r3"]))
    kept = pd.read_parquet(tmp_path / "quarantine" / "runs")
    assert sorted(kept["run_id"]) == ["r0", "r3"]
    assert set(pd.read_parquet(tmp_path / "quarantine" / "epochs")["run_id"]) == {"r0"}
    assert set(read_epochs(tmp_path)["run_id"]) == {"r2", "r4"}


def test_nothing_to_forget_leaves_everything(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    before = names(tmp_path)
    assert len(forget(tmp_path, is_failed)) == 0
    assert names(tmp_path) == before
    assert not (tmp_path / "quarantine").exists()


def test_damaged_shard_is_left_and_said(tmp_path, make_run, make_epochs):
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("r0", **FAILED))
        writer.add(make_run("r1"), make_epochs())
    (damaged,) = names(tmp_path)
    flip_a_page(tmp_path / "epochs" / damaged)
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("r2", **FAILED))
    gone = forget(tmp_path, is_failed)
    assert gone["run_id"].tolist() == ["r2"]
    (problem,) = gone.attrs["problems"]
    assert damaged.removesuffix(".parquet") in problem
    assert names(tmp_path) == [damaged]


def test_directory_that_holds_no_results_is_refused(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        forget(tmp_path / "absent", is_failed)


KILLED = """
import os, pathlib, pickle, shutil, signal, sys
from minibutter.store import forget

folder, os.fsync = pathlib.Path(sys.argv[1]), lambda descriptor: None
real, n = {name: getattr(os, name) for name in ("rename", "replace", "unlink", "mkdir")}, 0
while True:
    n += 1
    directory = folder / str(n)
    shutil.copytree(folder / "whole", directory)
    child = os.fork()
    if child == 0:
        left = n

        def stepped(name):
            def function(*arguments, **keywords):
                global left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*arguments, **keywords)

            return function

        for name in real:
            setattr(os, name, stepped(name))
        forget(directory, lambda runs: runs["status"] == "failed")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(n)
"""


def test_killed_at_any_moment_all_failures_are_there_or_gone(tmp_path, write_failures):
    write_failures(tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    n_cuts, outcomes = int(done.stdout), []
    assert n_cuts > 20
    for n in range(1, n_cuts):
        statuses = finished_runs(tmp_path / str(n))[0]
        assert {key for key, status in statuses.items() if status == "completed"} == {
            "r0", "r2", "r4",
        }  # fmt: skip
        outcomes.append(len(statuses))
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {5, 3}
