"""Runs in progress: kept as a whole or not at all, and never taken for what they are not."""

import errno
import json
import os
import pickle
import resource
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from minibutter.store import (
    EPOCHS_SCHEMA,
    Checkpoint,
    ShardWriter,
    StoreError,
    kept_epochs,
    read_checkpoint,
    read_epochs,
    recover,
    write_checkpoint,
)
from minibutter.store import checkpoints as module
from minibutter.store.checkpoints import checkpoint_path

PARAMETERS = np.array([1.5, -0.0, np.nan, np.inf, 5e-324])


@pytest.fixture
def make_checkpoint(make_epochs):
    """A function: a run after some epochs."""

    def make(run_id="r0", n_epochs=3, **fields):
        fields = {
            "arrays": {"parameters": PARAMETERS, "steps": np.asarray(7)},
            "epochs": make_epochs(n_epochs, seed=1),
            "record": {"parts": [{"energy_j": 0.1 + 0.2, "reason": None}]},
        } | fields
        return Checkpoint(run_id, **fields)

    return make


def test_what_is_kept_is_found_again_bit_for_bit(tmp_path, make_checkpoint, make_run):
    kept = make_checkpoint()
    write_checkpoint(tmp_path, kept)
    found = read_checkpoint(tmp_path, "r0")
    assert (found.run_id, found.record) == (kept.run_id, kept.record)
    assert set(found.arrays) == set(kept.arrays)
    for name, array in kept.arrays.items():
        assert found.arrays[name].tobytes() == array.tobytes()
        assert found.arrays[name].dtype == array.dtype
    # Rows that were kept are rows of the table like any others.
    for name, epochs in (("at once", kept.epochs), ("kept", found.epochs)):
        with ShardWriter(tmp_path / name, "rank0") as writer:
            writer.add(make_run("r0"), epochs)
    pd.testing.assert_frame_equal(
        read_epochs(tmp_path / "kept"), read_epochs(tmp_path / "at once"), check_exact=True
    )


def test_columns_with_and_without_nulls_and_nan_are_kept(tmp_path, make_checkpoint, make_epochs):
    epochs = make_epochs(3) | {
        "energy_j": [0.5, None, 1.5],
        "energy_quality": ["measured", "unavailable", "measured"],
        "energy_reason": [None, "no counters", None],
        "energy_resolution_j": None,
        "test_loss": np.array([1, np.nan, np.inf], np.float32),
        "cycles": np.array([1, 2, 2**62]),
    }
    write_checkpoint(tmp_path, make_checkpoint(epochs=epochs))
    found = read_checkpoint(tmp_path, "r0").epochs
    assert list(found) == EPOCHS_SCHEMA.names[1:]
    assert found["energy_j"] == [0.5, None, 1.5]
    assert found["energy_reason"] == [None, "no counters", None]
    assert found["energy_resolution_j"] == [None] * 3
    assert found["test_loss"].tobytes() == epochs["test_loss"].tobytes()
    assert found["cycles"].tolist() == [1, 2, 2**62]


def test_run_without_a_checkpoint_has_none(tmp_path, make_checkpoint):
    assert read_checkpoint(tmp_path / "absent", "r0") is None
    write_checkpoint(tmp_path, make_checkpoint("r1"))
    assert read_checkpoint(tmp_path, "r0") is None


def test_newer_checkpoint_takes_the_place_of_the_older(tmp_path, make_checkpoint):
    for n_epochs in (3, 5):
        write_checkpoint(tmp_path, make_checkpoint(n_epochs=n_epochs))
    assert len(read_checkpoint(tmp_path, "r0").epochs["epoch"]) == 5
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["r0.npz"]


def test_columns_that_are_not_those_of_the_table_are_refused(tmp_path, make_checkpoint):
    epochs = make_checkpoint().epochs
    with pytest.raises(ValueError, match="columns missing: \\['test_loss'\\]"):
        write_checkpoint(
            tmp_path,
            make_checkpoint(epochs={k: v for k, v in epochs.items() if k != "test_loss"}),
        )


# ---------------------------------------------------------------------------------------------
# Damage, and other versions


def rewrite(path, change):
    """Change the members and make the checksum right again, as another program would."""
    with path.open("rb") as file:
        file.readline()
        with np.load(file) as members:
            members = change(dict(members))
    with path.open("w+b") as file:
        placeholder = module._heading("0" * 32, 3)
        file.write(placeholder)
        np.savez(file, **members)
        file.seek(len(placeholder))
        digest = module._digest_rest(file, b"3")
        file.seek(0)
        file.write(module._heading(digest, 3))


def say(path, **values):
    def change(members):
        about = json.loads(members["about"].tobytes()) | values
        return members | {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}

    rewrite(path, change)


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path, make_checkpoint):
    write_checkpoint(tmp_path, make_checkpoint())
    path = checkpoint_path(tmp_path, "r0")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(60), *rng.integers(len(content), size=200), len(content) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"r0\.npz (is damaged|has format version)"):
            read_checkpoint(tmp_path, "r0")
    for end in [0, 1, 30, 57, 58, *rng.integers(len(content), size=50), len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(StoreError, match="is damaged"):
            read_checkpoint(tmp_path, "r0")
    path.write_bytes(content + b"\0")
    with pytest.raises(StoreError, match="its checksum is another"):
        read_checkpoint(tmp_path, "r0")
    path.write_bytes(content)
    assert read_checkpoint(tmp_path, "r0") is not None


def test_epochs_that_were_kept_are_told_without_reading_the_files(tmp_path, make_checkpoint):
    assert kept_epochs(tmp_path) == {}
    first = make_checkpoint()
    write_checkpoint(tmp_path, first)
    write_checkpoint(tmp_path, replace(first, run_id="r1"))
    n_epochs = len(first.epochs["epoch"])
    assert kept_epochs(tmp_path) == {"r0": n_epochs, "r1": n_epochs}
    folder = tmp_path / "checkpoints"
    (folder / "r2.npz").write_bytes(b"")
    (folder / "r3.npz").write_bytes(b"minibutter checkpoint 1 0123 many\n")
    (folder / "r4.npz").write_bytes(b"minibutter checkpoint 2 0123 7\n")
    (folder / "r5.npz").mkdir()
    (folder / ".r6.npz.host.1.tmp").write_bytes((folder / "r0.npz").read_bytes())
    assert set(kept_epochs(tmp_path)) == {"r0", "r1"}


def test_checkpoint_of_a_newer_format_is_refused_whatever_follows(tmp_path):
    path = checkpoint_path(tmp_path, "r0")
    path.parent.mkdir()
    path.write_bytes(b"minibutter checkpoint 2 sha3:0123 and more\nelse")
    with pytest.raises(StoreError, match="has format version 2, this minibutter reads version 1"):
        read_checkpoint(tmp_path, "r0")


def without_epochs(members):
    return {name: array for name, array in members.items() if name != "epochs"}


def with_other_columns(members):
    table = module.typed_table({"a": [1]}, module.pa.schema([("a", "int64")]), 1)
    return members | {"epochs": module._as_array(module._pack_table(table))}


def with_torn_epochs(members):
    return members | {"epochs": members["epochs"][:100]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: say(path, run_id="r9"), "is the checkpoint of another run, r9"),
        (lambda path: say(path, schema_version=99), "has schema version 99, this minibutter"),
        (lambda path: rewrite(path, with_other_columns), "has epochs with other columns"),
        (lambda path: rewrite(path, without_epochs), "is no checkpoint of minibutter"),
        (lambda path: rewrite(path, with_torn_epochs), "is no checkpoint|cannot be read"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b"PK\3\4 some other file"), "is damaged"),
    ],
)
def test_foreign_file_is_refused_with_the_reason(tmp_path, make_checkpoint, change, message):
    write_checkpoint(tmp_path, make_checkpoint())
    path = checkpoint_path(tmp_path, "r0")
    change(path)
    with pytest.raises(StoreError, match=message) as error:
        read_checkpoint(tmp_path, "r0")
    assert str(path) in str(error.value)


def test_checkpoint_that_the_system_does_not_let_us_read_is_named(tmp_path, make_checkpoint):
    path = checkpoint_path(tmp_path, "r0")
    path.mkdir(parents=True)  # no mode bit stops the superuser
    with pytest.raises(StoreError, match=r"r0\.npz cannot be read \(Is a directory\)"):
        read_checkpoint(tmp_path, "r0")


# ---------------------------------------------------------------------------------------------
# Full disks and kills


def test_full_disk_leaves_the_checkpoint_of_before_and_nothing_else(tmp_path, make_checkpoint):
    """The system itself refuses, at every size from nothing to almost all."""
    write_checkpoint(tmp_path, make_checkpoint())
    path = checkpoint_path(tmp_path, "r0")
    before = path.read_bytes()
    larger = make_checkpoint(arrays={"parameters": np.random.default_rng(0).random(20_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 20, 1000, 100_000, 160_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError, match="too large") as error:
                write_checkpoint(tmp_path, larger)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error.value.errno == errno.EFBIG
        assert list(path.parent.iterdir()) == [path]
        assert path.read_bytes() == before
    write_checkpoint(tmp_path, larger)
    assert read_checkpoint(tmp_path, "r0").arrays["parameters"].size == 20_000


KILLED_WRITER = """
import os, pathlib, pickle, signal, sys
import numpy as np
from minibutter.store import write_checkpoint

directory = pathlib.Path(sys.argv[1])
first, second = pickle.loads(sys.stdin.buffer.read())
originals = (os.replace, os.fsync, os.unlink, np.savez)


def step():
    global steps_left
    steps_left -= 1
    if steps_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def stepped(function):
    def call(*arguments, **keywords):
        step()
        result = function(*arguments, **keywords)
        step()
        return result

    return call


n = 0
while True:
    n += 1
    child = os.fork()
    if child == 0:
        steps_left = 10**9
        write_checkpoint(directory / str(n), first)
        os.replace, os.fsync, os.unlink, np.savez = map(stepped, originals)
        steps_left = n
        write_checkpoint(directory / str(n), second)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(n)
"""


def test_killed_writer_leaves_the_old_checkpoint_or_the_new_one(tmp_path, make_checkpoint):
    pair = make_checkpoint(n_epochs=3), make_checkpoint(n_epochs=5)
    child = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, tmp_path],
        input=pickle.dumps(pair),
        capture_output=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr.decode()
    n_cuts = int(child.stdout)
    # Before and after savez, a fsync and replace, an unlink that finds nothing, and a fsync.
    assert n_cuts - 1 == 2 + 2 + 2 + 1 + 2
    found = []
    for n in range(1, n_cuts):
        recover(tmp_path / str(n))
        found.append(len(read_checkpoint(tmp_path / str(n), "r0").epochs["epoch"]))
        assert len(list((tmp_path / str(n) / "checkpoints").iterdir())) == 1
    assert found == sorted(found)
    assert set(found) == {3, 5}


# ---------------------------------------------------------------------------------------------
# When they go


def names(directory):
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def test_checkpoint_goes_when_its_run_stands_in_a_closed_shard(
    tmp_path, make_checkpoint, make_run, make_epochs
):
    for run_id in ("r0", "r1", "r2"):
        write_checkpoint(tmp_path, make_checkpoint(run_id))
    with ShardWriter(tmp_path, "rank0", interval_s=1e9) as writer:
        writer.add(make_run("r0"), make_epochs(3))
        writer.add(make_run("r1", epochs=0, status="failed", error="no memory"), None)
        assert names(tmp_path) == ["r0.npz", "r1.npz", "r2.npz"]
    # A run that failed for want of memory goes on from where it was.
    assert names(tmp_path) == ["r1.npz", "r2.npz"]


def test_checkpoint_stays_when_the_shard_cannot_be_closed(
    tmp_path, make_checkpoint, make_run, make_epochs, monkeypatch
):
    write_checkpoint(tmp_path, make_checkpoint())

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = ShardWriter(tmp_path, "rank0", interval_s=1e9)
    writer.add(make_run("r0"), make_epochs(3))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError, match="No space"):
            writer.flush()
    assert names(tmp_path) == ["r0.npz"]


def test_checkpoints_of_runs_that_are_done_are_removed_by_recovery(
    tmp_path, make_checkpoint, make_run, store_runs
):
    store_runs(tmp_path, "r0", "r1")
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("r2", epochs=0, status="failed", error="no memory"), None)
    for run_id in ("r0", "r2", "r3"):
        write_checkpoint(tmp_path, make_checkpoint(run_id))
    (message,) = recover(tmp_path)
    assert message.endswith("r0.npz: its run is done")
    assert names(tmp_path) == ["r2.npz", "r3.npz"]
    assert recover(tmp_path) == []


def test_only_unfinished_checkpoints_of_ended_processes_of_this_machine_are_removed(
    tmp_path, make_checkpoint
):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_checkpoint(tmp_path, make_checkpoint("r3"))
    host, mine = socket.gethostname(), f".r0.npz.{socket.gethostname()}.{ended.pid}.tmp"
    others = [
        f".r0.npz.{host}.{os.getpid()}.tmp",
        f".r0.npz.elsewhere.{ended.pid}.tmp",
        ".nfs000001",
    ]
    for name in (mine, *others):
        (tmp_path / "checkpoints" / name).write_text("half of a fi")
    (message,) = recover(tmp_path)
    assert f"left unfinished by process {ended.pid}" in message
    assert names(tmp_path) == sorted([*others, "r3.npz"])
