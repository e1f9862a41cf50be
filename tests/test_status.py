# ruff: noqa: F811
"""How far a sweep is, from its directory; nothing is trained here but where it is said."""

import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from minibutter import launch, store
from minibutter.experiments import plan_experiments
from minibutter.launch.job import Group
from minibutter.launch.status import read_status
from minibutter.sweeps import identity
from minibutter.sweeps.spec import parse_sweep
from tests.store.conftest import make_epochs, make_run  # noqa: F401

DOCUMENT = {"name": "small", "dataset": "iris", "size": [100, 400], "depth": 3, "epochs": 2,
            "batch_size": 16, "repetitions": 4}  # fmt: skip
FAILED = {"status": "failed", "epochs_completed": 0, "diverged": None, "duration_s": None,
          "energy_j": None, "energy_source": None, "energy_quality": "unavailable",
          "energy_reason": "it failed", "energy_resolution_j": None}  # fmt: skip


@pytest.fixture
def directory(tmp_path):
    """An empty directory of the sweep `DOCUMENT`."""
    return begin(tmp_path / "out", DOCUMENT)


def begin(directory, document):
    sweep = parse_sweep(document, "s.toml")
    requested = {each.experiment_id: each.repetitions for each in plan_experiments(sweep)}
    written = {"sweep": document, "minibutter_version": "0"}
    store.open_directory(directory, sweep.name, requested, written)
    return directory


def ids(document=DOCUMENT):
    """Experiment ids by size."""
    planned = plan_experiments(parse_sweep(document, "s.toml"))
    return {each.spec.size: each.experiment_id for each in planned}


@pytest.fixture
def put(make_run, make_epochs, directory):
    """A function: store one run of an experiment, given by its size."""

    def write(size, repetition, **columns):
        experiment_id = ids()[size]
        run_id = identity.run_id(experiment_id, repetition)
        run = make_run(run_id, experiment_id, repetition, epochs=2, **columns)
        with store.ShardWriter(directory, "rank0") as writer:
            writer.add(run, make_epochs(2) if run["epochs_completed"] else None)

    return write


def test_runs_are_counted_by_state_and_the_states_are_all_that_was_asked_for(directory, put):
    put(100, 0)
    put(100, 1, diverged=True, diverged_epoch=1)
    put(100, 2, **FAILED, error="out of memory")
    put(400, 0, **FAILED, error="out of memory")
    put(400, 1, **FAILED, error="size 32 is unreachable")
    status = read_status(directory)
    assert (status.name, status.n_experiments) == ("small", 2)
    assert (status.done, status.diverged, status.failed, status.pending) == (1, 1, 3, 3)
    assert status.failures == {"out of memory": 2, "size 32 is unreachable": 1}
    assert list(status.failures) == ["out of memory", "size 32 is unreachable"]
    assert (status.not_asked_for, status.problems) == (0, [])


def test_what_is_left_takes_as_long_as_what_was_measured(directory, put):
    put(100, 0, duration_s=1.0, n_ranks=2, started_at=datetime(2026, 1, 1, tzinfo=UTC))
    put(100, 1, duration_s=3.0, n_ranks=8, started_at=datetime(2025, 1, 1, tzinfo=UTC))
    for repetition in range(3):
        put(400, repetition, duration_s=10.0, started_at=datetime(2024, 1, 1, tzinfo=UTC))
    status = read_status(directory)
    assert status.core_s_done == 34.0
    assert status.core_s_left == 2 * 2.0 + 10.0
    assert status.n_ranks == 2  # Those of the newest run.
    assert status.left_s == 10.0  # No rank is faster than its longest run.
    assert read_status(directory, n_ranks=1).left_s == 14.0


def test_experiment_of_which_none_is_measured_takes_as_long_as_its_work_says(directory, put):
    put(100, 0, duration_s=1.0)
    put(100, 1, duration_s=3.0)
    job = launch.prepare_job(parse_sweep(DOCUMENT, "s.toml"), directory, None)
    work = {size: job.work(Group(key, (0,))) for size, key in ids().items()}
    status = read_status(directory)
    assert status.core_s_left == pytest.approx(2 * 2.0 + 4 * 2.0 * work[400] / work[100])
    assert status.left_s == status.core_s_left


def test_failed_runs_that_are_tried_again_are_left_to_do(directory, put):
    put(100, 0, duration_s=1.0)
    for repetition in range(1, 4):
        put(100, repetition, **FAILED, error="out of memory")
    for repetition in range(4):
        put(400, repetition, duration_s=5.0)
    status = read_status(directory)
    assert (status.failed, status.failed_again, status.pending) == (3, 3, 0)
    assert status.core_s_left == 3.0


def test_failed_runs_that_can_never_succeed_are_not_left_to_do(tmp_path, make_run):
    document = DOCUMENT | {"dataset": "digits", "size": 32, "repetitions": 1}
    directory = begin(tmp_path / "out", document)
    with store.ShardWriter(directory, "rank0") as writer:
        experiment_id = ids(document)[32]
        run_id = identity.run_id(experiment_id, 0)
        writer.add(make_run(run_id, experiment_id, **FAILED, error="unreachable"))
    status = read_status(directory)
    assert (status.failed, status.failed_again) == (1, 0)
    assert (status.core_s_left, status.left_s) == (0.0, 0.0)


def test_before_the_first_run_all_is_pending_and_nothing_is_known(directory):
    status = read_status(directory)
    assert (status.done, status.pending) == (0, 8)
    assert (status.core_s_done, status.core_s_left, status.left_s) == (0.0, None, None)
    assert status.left_reason == "no run has been measured yet"
    assert status.n_ranks == 1


def test_what_is_done_is_done(directory, put):
    for size in (100, 400):
        for repetition in range(4):
            put(size, repetition)
    status = read_status(directory)
    assert (status.done, status.pending, status.core_s_left) == (8, 0, 0.0)


def test_experiment_that_cannot_be_planned_is_said_to_be_unknown(tmp_path, make_run, make_epochs):
    path = tmp_path / "data.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i * 2},{i % 2}\n" for i in range(40)))
    document = DOCUMENT | {"dataset": str(path), "target": "y"}
    directory = begin(tmp_path / "out", document)
    measured = ids(document)[100]
    with store.ShardWriter(directory, "rank0") as writer:
        run_id = identity.run_id(measured, 0)
        writer.add(make_run(run_id, measured, epochs=2, duration_s=2.0), make_epochs(2))
    assert read_status(directory).core_s_left > 0
    manifest = json.loads((directory / "sweep.json").read_text())
    manifest["document"]["sweep"]["dataset"] = str(tmp_path / "moved.csv")
    (directory / "sweep.json").write_text(json.dumps(manifest))
    status = read_status(directory)
    assert (status.pending, status.core_s_left, status.left_s) == (7, None, None)
    assert "no run has been measured of 1 experiments" in status.left_reason
    assert "moved.csv" in status.left_reason
    # An experiment that is measured needs no plan.
    manifest["requested"] = {measured: 4}
    (directory / "sweep.json").write_text(json.dumps(manifest))
    assert read_status(directory).core_s_left == 6.0


def test_directory_without_manifest_knows_only_what_stands_there(directory, put):
    put(100, 0)
    (directory / "sweep.json").unlink()
    status = read_status(directory)
    assert (status.name, status.done, status.pending) == ("out", 1, None)
    assert (status.core_s_left, status.left_s) == (None, None)
    assert "no sweep.json" in status.left_reason


def test_runs_that_nobody_asks_for_are_counted_apart(directory, put):
    put(100, 0)
    put(100, 7)
    status = read_status(directory)
    assert (status.done, status.pending, status.not_asked_for) == (1, 7, 1)


def test_parts_of_a_union_are_all_asked_for(tmp_path, directory, put, make_run, make_epochs):
    put(100, 0, duration_s=1.0)
    other = DOCUMENT | {"size": 900, "name": "other"}
    second = begin(tmp_path / "second", other)
    experiment_id = ids(other)[900]
    with store.ShardWriter(second, "rank0") as writer:
        run_id = identity.run_id(experiment_id, 0)
        writer.add(make_run(run_id, experiment_id, epochs=2, duration_s=4.0), make_epochs(2))
    store.merge(tmp_path / "both", [directory, second])
    status = read_status(tmp_path / "both")
    assert (status.n_experiments, status.done, status.pending) == (3, 2, 10)
    assert status.core_s_left > 3 * 1.0 + 3 * 4.0


def test_damaged_shards_are_said(directory, put):
    put(100, 0)
    (path,) = (directory / "runs").glob("*.parquet")
    put(100, 1)
    path.write_bytes(b"")
    status = read_status(directory)
    assert (status.done, status.pending) == (1, 7)
    (problem,) = status.problems
    assert path.stem in problem


def test_shards_of_another_version_are_not_counted_as_pending(directory, put):
    put(100, 0)
    (path,) = (directory / "runs").glob("*.parquet")
    table = pq.ParquetFile(path).read()
    pq.write_table(table.replace_schema_metadata({"minibutter_schema_version": "99"}), path)
    with pytest.raises(store.StoreError, match="schema version 99"):
        read_status(directory)


@pytest.mark.parametrize("names", [[], ["runs"], ["thesis.tex"]])
def test_directory_without_a_sweep_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(store.StoreError, match=r"give .*directory"):
        read_status(tmp_path)


def test_sweep_that_was_run_is_done(tmp_path, capsys):
    """Trained: names, ids and counts are those of the sweep."""
    sweep = parse_sweep(DOCUMENT, "small.toml")
    out = tmp_path / "out"
    launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out)
    status = read_status(out)
    assert (status.done, status.failed, status.pending) == (8, 0, 0)
    assert status.core_s_done > 0
