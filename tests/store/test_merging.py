"""The union of directories: every run once, and no number chosen behind anybody's back."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from minibutter.store import (
    ShardWriter,
    StoreError,
    compact,
    merge,
    merging,
    open_directory,
    read_epochs,
    read_runs,
    recover,
)
from tests.store.test_compaction import FAILED, flip_a_page, names
from tests.store.test_recovery import DAMAGES


@pytest.fixture
def put(tmp_path, make_run, make_epochs):
    """A function: store runs in `tmp_path / name`, and a manifest that asks for them."""

    def write(name, *runs):
        directory = tmp_path / name
        requested = {}
        with ShardWriter(directory, "rank0", interval_s=1e9) as writer:
            for run in runs:
                run_id, columns, changed = (run, {}, {}) if isinstance(run, str) else run
                experiment_id, _, repetition = run_id.partition("-")
                made = make_run(run_id, experiment_id, int(repetition), **columns)
                epochs = make_epochs(3, seed=sum(run_id.encode())) | changed
                writer.add(made, epochs if made["epochs_completed"] else None)
                count = requested.get(experiment_id, 0)
                requested[experiment_id] = max(count, int(repetition) + 1)
        (directory / "sweep.json").unlink(missing_ok=True)
        document = {"sweep": {"name": name}, "minibutter_version": "0.1.0"}
        (directory / "sweep.json").write_text(
            json.dumps(
                {"format_version": 2, "name": name, "requested": requested, "document": document}
            )
        )
        return directory

    return write


def other(run_id, **columns):
    """The same run with another last bit in the second epoch's test loss."""
    values = np.array([1.0, 2.0, 3.0], np.float32)
    changed = values.copy()
    changed[1] = np.nextafter(changed[1], np.float32(9))
    return (run_id, columns, {"test_loss": values}), (run_id, columns, {"test_loss": changed})


def test_union_has_every_run_once_and_the_sources_stay(tmp_path, put):
    one = put("one", "a-0", "a-1", "b-0")
    two = put("two", "a-1", "b-1", ("c-0", FAILED, {}))
    before = {place: names(place) for place in (one, two)}
    union = merge(tmp_path / "out", [one, two])
    assert union.n_new == {one: 3, two: 2}
    assert (union.n_runs, union.conflicts, union.messages) == (5, [], [])
    runs = read_runs(tmp_path / "out")
    assert runs["run_id"].tolist() == ["a-0", "a-1", "b-0", "b-1", "c-0"]
    assert pd.read_parquet(tmp_path / "out" / "runs")["run_id"].is_unique
    parts = pd.concat([read_epochs(one), read_epochs(two, run_ids=["b-1"])], ignore_index=True)
    pd.testing.assert_frame_equal(read_epochs(tmp_path / "out"), parts)
    assert before == {place: names(place) for place in (one, two)}


def test_merging_twice_is_merging_once(tmp_path, put):
    one, two = put("one", "a-0"), put("two", "a-0", "b-0")
    merge(tmp_path / "out", [one, two])
    before = names(tmp_path / "out")
    union = merge(tmp_path / "out", [two, one, two])
    assert union.n_new == {one: 0, two: 0}
    assert names(tmp_path / "out") == before


def test_directory_of_results_grows_by_those_of_another(tmp_path, put):
    one, two = put("one", "a-0"), put("two", "a-0", "a-1")
    assert merge(one, [two]).n_new == {two: 1}
    assert read_runs(one)["run_id"].tolist() == ["a-0", "a-1"]
    assert recover(one) == []


def test_union_asks_for_what_its_parts_ask_for(tmp_path, put):
    one, two, three = put("one", "a-2"), put("two", "a-0", "b-0"), put("three", "c-4")
    (three / "sweep.json").unlink()
    merge(tmp_path / "out", [one, two, three])
    manifest = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert manifest["name"] == "one"
    assert manifest["requested"] == {"a": 3, "b": 1, "c": 5}
    documents = [part.get("sweep", {}).get("name") for part in manifest["document"]["merged"]]
    assert documents == ["one", "two", None]
    again = merge(tmp_path / "out", [two])
    assert again.n_new == {two: 0}
    assert json.loads((tmp_path / "out" / "sweep.json").read_text()) == manifest
    (message,) = open_directory(tmp_path / "out", "one", {"a": 3, "b": 1, "c": 5}, {})
    assert "continues" in message


def test_parts_of_one_sweep_keep_its_document(tmp_path, put):
    one, two = put("one", "a-0"), put("two", "a-1")
    (two / "sweep.json").write_text((one / "sweep.json").read_text())
    merge(tmp_path / "out", [one, two])
    manifest = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert manifest["document"]["sweep"] == {"name": "one"}


def test_better_outcome_is_taken_whoever_has_it(tmp_path, put):
    failed, done = put("failed", ("a-0", FAILED, {}), "b-0"), put("done", "a-0")
    for directories in ([failed, done], [done, failed]):
        out = tmp_path / f"of {directories[0].name}"
        assert merge(out, directories).conflicts == []
        assert read_runs(out)["status"].tolist() == ["completed"] * 2
    assert merge(failed, [done]).n_new == {done: 1}
    assert read_runs(failed)["status"].tolist() == ["completed"] * 2


def test_durations_energies_and_provenance_are_no_conflict(tmp_path, put):
    elsewhere = {
        "duration_s": 9.0, "hostname": "elsewhere", "started_at": datetime(2030, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    one = put("one", ("a-0", {}, {"duration_s": [1.0] * 3}))
    two = put("two", ("a-0", elsewhere, {"duration_s": [2.0] * 3}))
    union = merge(tmp_path / "out", [one, two])
    assert (union.conflicts, union.n_new) == ([], {one: 1, two: 0})


def test_other_numbers_are_shown_and_refused(tmp_path, put):
    first, second = other("a-1")
    one, two = put("one", "a-0", first), put("two", "a-0", second, "b-0")
    union = merge(tmp_path / "out", [one, two])
    assert union.is_refused
    (conflict,) = union.conflicts
    assert (conflict.first, conflict.second) == (one, two)
    assert conflict.difference.run_id == "a-1"
    assert conflict.difference.columns == ("test_loss",)
    assert conflict.difference.first_epoch == 2
    assert not (tmp_path / "out").exists()


def test_run_of_another_length_is_a_conflict_of_runs(tmp_path, put, make_epochs):
    stopped = ("a-0", {"status": "stopped", "epochs_completed": 2}, make_epochs(2))
    one, two = put("one", "a-0"), put("two", stopped)
    (conflict,) = merge(tmp_path / "out", [one, two]).conflicts
    assert conflict.difference.columns == ("status", "epochs_completed")
    assert conflict.difference.first_epoch is None


@pytest.mark.parametrize("winner", ["out", "one", "two"])
def test_directory_that_is_preferred_wins(tmp_path, put, winner):
    first, second = other("a-0")
    out, one, two = put("out", first, "z-0"), put("one", second), put("two", second, "b-0")
    assert merge(out, [one, two]).is_refused
    union = merge(out, [one, two], prefer=tmp_path / winner)
    assert not union.is_refused
    assert len(union.conflicts) == 2
    expected = (first if winner == "out" else second)[2]["test_loss"]
    epochs = read_epochs(out, run_ids=["a-0"])
    np.testing.assert_array_equal(epochs["test_loss"], expected)
    assert read_runs(out)["run_id"].tolist() == ["a-0", "b-0", "z-0"]
    kept = pd.read_parquet(out / "quarantine" / "runs") if winner != "out" else pd.DataFrame()
    assert len(kept) == (winner != "out")
    if winner != "out":
        assert merge(out, [tmp_path / winner]).conflicts == []


def test_merging_twice_with_a_preference_is_merging_once(tmp_path, put):
    first, second = other("a-0")
    out, one, two = tmp_path / "out", put("one", first), put("two", second)
    assert merge(out, [one, two], prefer=two).n_new == {one: 0, two: 1}
    before = names(out)
    again = merge(out, [one, two], prefer=two)
    assert again.n_new == {one: 0, two: 0}
    assert len(again.conflicts) == 1
    assert names(out) == before
    assert not (out / "quarantine").exists()


def test_preferred_directory_that_not_have_the_run_decides_nothing(tmp_path, put):
    first, second = other("a-0")
    one, two = put("one", first), put("two", second)
    three = put("three", "b-0", ("a-0", FAILED, {}))
    assert merge(tmp_path / "out", [one, two, three], prefer=three).is_refused
    with pytest.raises(StoreError, match=r"elsewhere is none of the directories; prefer one of .*"):
        merge(tmp_path / "out", [one, two], prefer=tmp_path / "elsewhere")


def test_other_versions_are_refused_before_anything_is_written(tmp_path, put):
    one, two = put("one", "a-0"), put("two", "b-0")
    (name,) = names(two)
    path = two / "epochs" / name
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"minibutter_schema_version": "99"}), path)
    put("two", "c-0")
    with pytest.raises(StoreError, match="schema version 99"):
        merge(tmp_path / "out", [one, two])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_faulty_shard_is_said_and_the_others_are_merged(tmp_path, put, damage):
    one, two = put("one", "a-0"), put("two", "b-0")
    (name,) = names(two)
    put("two", "b-1")
    damage(two / "runs" / name)
    union = merge(tmp_path / "out", [one, two])
    (message,) = union.messages
    assert name.removesuffix(".parquet") in message
    assert read_runs(tmp_path / "out")["run_id"].tolist() == ["a-0", "b-1"]


def test_of_a_run_with_damaged_epochs_another_version_is_taken(tmp_path, put):
    one, two = put("one", "a-0", "b-0"), put("two", "a-0", "c-0")
    (name,) = names(one)
    flip_a_page(one / "epochs" / name)
    union = merge(tmp_path / "out", [one, put("one", "d-0"), two])
    assert any(name in message for message in union.messages)
    assert set(read_epochs(tmp_path / "out")["run_id"]) == {"a-0", "c-0", "d-0"}


def test_what_is_no_source_is_refused(tmp_path, put):
    one = put("one", "a-0")
    (tmp_path / "empty").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    for place, message in [
        ("absent", "does not exist"),
        ("empty", "holds no finished run yet"),
        ("thesis", "holds no results"),
        ("one", "is the directory to merge into"),
    ]:
        out = one if place == "one" else tmp_path / "out"
        with pytest.raises(StoreError, match=message):
            merge(out, [one, tmp_path / place])
    with pytest.raises(StoreError, match="holds no results"):
        merge(tmp_path / "thesis", [one])
    assert not (tmp_path / "out").exists()


def test_source_may_be_compacted_meanwhile(tmp_path, put, monkeypatch):
    put("one", "a-0")
    put("one", "a-1")
    one, two = put("one", "b-0"), put("two", "a-0", "a-1")
    epochs_of = merging.epochs_of

    def epochs_of_late(*arguments):
        monkeypatch.setattr(merging, "epochs_of", epochs_of)
        compact(one)
        return epochs_of(*arguments)

    monkeypatch.setattr(merging, "epochs_of", epochs_of_late)
    union = merge(tmp_path / "out", [one, two])
    assert (union.messages, union.n_runs) == ([], 3)
    assert len(read_epochs(tmp_path / "out")) == 9


def test_many_runs_are_compared_and_copied_in_parts(tmp_path, put, monkeypatch):
    monkeypatch.setattr(merging, "_MAX_EPOCHS", 4)
    first, second = other("d-0")
    one, two = put("one", "a-0", "b-0", "c-0", first), put("two", "c-0", "b-0", second)
    (conflict,) = merge(tmp_path / "out", [one, two]).conflicts
    assert conflict.difference.run_id == "d-0"
    merge(tmp_path / "out", [one])
    assert len(names(tmp_path / "out")) == 3
    pd.testing.assert_frame_equal(read_epochs(tmp_path / "out"), read_epochs(one))


KILLED = """
import os, pathlib, shutil, signal, sys
from minibutter.store import merge, merging

folder, os.fsync = pathlib.Path(sys.argv[1]), lambda descriptor: None
merging._MAX_EPOCHS = 4
real, n = {name: getattr(os, name) for name in ("rename", "replace", "unlink", "mkdir")}, 0
while True:
    n += 1
    shutil.copytree(folder / "out", folder / str(n))
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
        merge(folder / str(n), [folder / "one", folder / "two"], prefer=folder / "two")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(n)
"""


def test_merge_that_is_killed_anywhere_is_finished_by_the_next(tmp_path, put):
    first, second = other("a-0")
    out, one, two = put("out", first, "z-0"), put("one", "b-0", "c-0"), put("two", second)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
    for n in range(1, int(done.stdout)):
        directory = tmp_path / str(n)
        merge(directory, [one, two], prefer=two)
        assert recover(directory) == []
        for table, n_rows in (("runs", 4), ("epochs", 12)):
            assert len(pd.read_parquet(directory / table)) == n_rows
        loss = read_epochs(directory, run_ids=["a-0"])["test_loss"]
        np.testing.assert_array_equal(loss, second[2]["test_loss"])
    assert len(read_runs(out)) == 2
