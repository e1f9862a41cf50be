import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minibutter.store import (
    ShardWriter,
    StoreError,
    finished_runs,
    read_epochs,
    read_runs,
    recover,
)

KILLED_WRITER = """
import json, os, pathlib, pickle, signal, sys
import pyarrow.parquet as pq
from minibutter.store import ShardWriter

directory, rows, start = pathlib.Path(sys.argv[1]), pickle.loads(sys.stdin.buffer.read()), 1


def count_down(steps_left, function):
    # A call is three steps: before it, after it, and for a file also half of its bytes.
    def step():
        steps_left[0] -= 1
        if steps_left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepped(*arguments, **keywords):
        step()
        result = function(*arguments, **keywords)
        if function is write_table:
            file = arguments[1]
            file.flush()
            n_bytes = file.tell()
            steps_left[0] == 1 and file.truncate(n_bytes // 2)
            step()
        step()
        return result

    return stepped


write_table, n = pq.write_table, 0
while True:
    n += 1
    child = os.fork()
    if child == 0:
        steps_left = [n]
        pq.write_table = count_down(steps_left, pq.write_table)
        for name in ("replace", "fsync", "unlink"):
            setattr(os, name, count_down(steps_left, getattr(os, name)))
        with ShardWriter(directory / str(n), "rank0", interval_s=0.0) as writer:
            for run, epochs in rows:
                writer.add(run, epochs)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(n)
"""


def test_killed_writer_leaves_each_run_in_both_tables_or_in_neither(
    tmp_path, make_run, make_epochs
):
    """SIGKILL before, within and after every step of two commits; then recovery and a resume."""
    rows = [(make_run(f"r{i}"), make_epochs(3, seed=i)) for i in range(2)]
    with ShardWriter(tmp_path / "whole", "rank0") as writer:
        for run, epochs in rows:
            writer.add(run, epochs)
    expected = read_epochs(tmp_path / "whole")

    child = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, tmp_path],
        input=pickle.dumps(rows),
        capture_output=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr.decode()
    n_cuts = int(child.stdout)
    # Two commits of two writes (3 steps each), four fsyncs and two renames (2), and an unlink that
    # finds nothing (1).
    assert n_cuts - 1 == 2 * (2 * 3 + 4 * 2 + 2 * 2 + 1)

    outcomes = []
    for n in range(1, n_cuts):
        directory = tmp_path / str(n)
        pd.read_parquet(directory / "epochs")  # Works before the recovery, too.
        recover(directory)
        done = set(finished_runs(directory)[0])
        outcomes.append(len(done))
        for table in ("runs", "epochs"):
            assert not list((directory / table).glob(".*"))
            stored = pd.read_parquet(directory / table)
            assert (set(stored["run_id"]) if done else set()) == done
            assert len(stored) == len(done) * (1 if table == "runs" else 3)
        with ShardWriter(directory, "rank0") as writer:
            for run, epochs in rows:
                if run["run_id"] not in done:
                    writer.add(run, epochs)
        pd.testing.assert_frame_equal(read_epochs(directory), expected)
        assert recover(directory) == []
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1, 2}


def shard_of(directory, name_of="runs"):
    (path,) = (directory / name_of).glob("*.parquet")
    return path.stem


def cut_between_the_renames(directory):
    """The state after step (3): epochs are visible, runs are not."""
    name = shard_of(directory)
    (directory / f"runs/{name}.parquet").rename(directory / f"runs/.{name}.tmp")
    return name


def test_commit_cut_between_the_renames_is_finished(tmp_path, store_runs):
    store_runs(tmp_path, "r0", "r1")
    cut_between_the_renames(tmp_path)
    assert finished_runs(tmp_path)[0] == {}
    (message,) = recover(tmp_path)
    assert "finished the interrupted commit" in message
    assert finished_runs(tmp_path) == ({"r0": "completed", "r1": "completed"}, [])
    assert len(read_epochs(tmp_path)) == 6


def test_commit_cut_on_another_machine_is_finished_too(tmp_path, store_runs, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(socket, "gethostname", lambda: "elsewhere")
        store_runs(tmp_path, "r0")
    cut_between_the_renames(tmp_path)
    recover(tmp_path)
    assert set(finished_runs(tmp_path)[0]) == {"r0"}


def test_damaged_half_of_a_cut_commit_is_set_aside_with_its_epochs(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    name = cut_between_the_renames(tmp_path)
    temporary = tmp_path / f"runs/.{name}.tmp"
    temporary.write_bytes(temporary.read_bytes()[:500])
    (message,) = recover(tmp_path)
    assert "its runs will be run again" in message
    assert (tmp_path / f"quarantine/epochs/{name}.parquet").exists()
    assert (tmp_path / f"quarantine/runs/.{name}.tmp").exists()
    assert recover(tmp_path) == []


def ended_process_id():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_files_of_ended_processes_of_this_machine_are_removed(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    host, ended = socket.gethostname(), ended_process_id()
    mine = f".part-rank0-{host}-{ended}-00000-0123abcd.tmp"
    others = [
        f".part-rank0-{host}-{os.getpid()}-00000-0123abcd.tmp",
        f".part-rank0-other-{host}-{ended}-00000-0123abcd.tmp",
        f".part-rank0-elsewhere-{ended}-00000-0123abcd.tmp",
        ".nfs000001",
    ]
    for table in ("runs", "epochs"):
        for name in [mine, *others]:
            (tmp_path / table / name).write_text("half of a fi")
    messages = recover(tmp_path)
    assert len(messages) == 2
    assert all(f"process {ended}" in message for message in messages)
    for table in ("runs", "epochs"):
        assert not (tmp_path / table / mine).exists()
        assert all((tmp_path / table / name).exists() for name in others)
    assert len(pd.read_parquet(tmp_path / "epochs")) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip_the_footer(path):
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)


def other_columns(path):
    pq.write_table(pa.table({"a": [1, 2]}), path)


def column_too_few(path):
    table = pq.read_table(path)
    pq.write_table(table.select(table.column_names[:-1]), path)


def remove(path):
    path.unlink()


def lose_rows(path):
    pq.write_table(pq.read_table(path).slice(1), path)


DAMAGES = [truncate, empty, flip_the_footer, other_columns, column_too_few, remove, lose_rows]


@pytest.mark.parametrize("table", ["runs", "epochs"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_faulty_shard_is_set_aside_with_its_partner_and_costs_its_own_runs_only(
    tmp_path, store_runs, table, damage
):
    store_runs(tmp_path, "r0", "r1")
    name = shard_of(tmp_path)
    store_runs(tmp_path, "r2")
    damage(tmp_path / table / f"{name}.parquet")

    statuses, problems = finished_runs(tmp_path)
    assert set(statuses) == {"r2"}
    assert len(problems) == 1
    assert read_epochs(tmp_path)["run_id"].unique().tolist() == ["r2"]

    (message,) = recover(tmp_path)
    assert name in message
    assert "its runs will be run again" in message
    n_files_left = 1 if damage is remove else 2
    assert len(list((tmp_path / "quarantine").rglob("*.parquet"))) == n_files_left
    assert finished_runs(tmp_path) == ({"r2": "completed"}, [])
    assert pd.read_parquet(tmp_path / "runs")["run_id"].tolist() == ["r2"]
    assert pd.read_parquet(tmp_path / "epochs")["run_id"].unique().tolist() == ["r2"]
    assert recover(tmp_path) == []


@pytest.mark.parametrize("table", ["runs", "epochs"])
def test_foreign_file_is_set_aside_and_hidden_ones_stay(tmp_path, store_runs, table):
    store_runs(tmp_path, "r0")
    (tmp_path / table / "notes.txt").write_text("to do")
    (tmp_path / table / ".DS_Store").write_text("")
    with pytest.raises(pa.ArrowInvalid):
        pd.read_parquet(tmp_path / table)
    (message,) = recover(tmp_path)
    assert "notes.txt" in message
    assert (tmp_path / "quarantine" / table / "notes.txt").read_text() == "to do"
    assert (tmp_path / table / ".DS_Store").exists()
    assert pd.read_parquet(tmp_path / table)["run_id"].unique().tolist() == ["r0"]


def test_quarantine_never_overwrites(tmp_path):
    (tmp_path / "runs").mkdir()
    for text in ("first", "second", "third"):
        (tmp_path / "runs" / "notes.txt").write_text(text)
        recover(tmp_path)
    kept = sorted(path.read_text() for path in (tmp_path / "quarantine" / "runs").iterdir())
    assert kept == ["first", "second", "third"]


def test_shard_of_another_schema_version_is_never_moved(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    path = tmp_path / "epochs" / f"{shard_of(tmp_path)}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"minibutter_schema_version": "99"}), path)
    with pytest.raises(StoreError, match="schema version 99"):
        recover(tmp_path)
    assert path.exists()
    with pytest.raises(StoreError, match="schema version 99"):
        finished_runs(tmp_path)


def test_jobs_that_begin_at_the_same_moment_put_a_directory_in_order_together(tmp_path, store_runs):
    for i in range(40):
        store_runs(tmp_path, f"r{i}")
    for path in (tmp_path / "epochs").glob("*.parquet"):
        path.write_bytes(b"cut")
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: recover(tmp_path), range(4)))
    assert len({line for lines in said for line in lines}) >= 40
    assert recover(tmp_path) == []
    assert len(list((tmp_path / "quarantine" / "runs").iterdir())) == 40


def test_recovery_of_nothing_does_nothing(tmp_path, store_runs):
    assert recover(tmp_path / "absent") == []
    assert not (tmp_path / "absent").exists()
    store_runs(tmp_path, "r0")
    assert recover(tmp_path) == []


def test_live_commit_is_left_alone(tmp_path, store_runs):
    """What `recover` may see of a process that is between its renames: it finishes them for it."""
    store_runs(tmp_path, "r0")
    name = cut_between_the_renames(tmp_path)
    assert f"-{os.getpid()}-" in name
    recover(tmp_path)
    assert not (tmp_path / "quarantine").exists()
    assert read_runs(tmp_path)["run_id"].tolist() == ["r0"]
