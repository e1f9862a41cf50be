"""Runs that are stopped or killed go on where they were, with the bits of undisturbed ones."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest

from minibutter import runs, saving, store
from minibutter.courses import Course
from minibutter.energy import open_meter
from minibutter.energy.counters import open_counters
from minibutter.energy.simulated import PowerModel, build
from minibutter.provenance import read_provenance
from minibutter.saving import CHECKPOINT_S, LEAST_PROGRESS_S, Saver
from minibutter.store.schema import COUNTERS
from tests.counters import STEP, FakePackage
from tests.executions import bits, execute, execute_group, ticking_meter

EPOCHS = 5


def after(n_epochs):
    """A `should_stop` that says so when it is asked before the epoch behind these."""
    asked = iter(range(10**9))
    return lambda epoch_s: next(asked) >= n_epochs


class Notes(list):
    """What `on_note` was told."""

    def __call__(self, note):
        self.append(note)


def interrupted(experiment, repetitions, folder, n_epochs, meter=None, **options):
    """Train some epochs of repetitions and stop, keeping what was done."""
    results = execute_group(
        experiment, repetitions, meter,
        checkpoint_dir=folder, checkpoint_s=0.0, should_stop=after(n_epochs), **options,
    )  # fmt: skip
    assert all(result.is_interrupted for result in results)
    return results


def finished(experiment, repetitions, folder, meter=None, **options):
    """Train repetitions to their ends, from where they were."""
    notes = Notes()
    results = execute_group(
        experiment, repetitions, meter, checkpoint_dir=folder, on_note=notes, **options
    )
    assert notes == []
    return results


def kept(folder):
    return sorted(path.stem for path in (folder / "checkpoints").glob("*"))


# ---------------------------------------------------------------------------------------------
# The same bits


CHANGES = {
    "usual": {},
    "float64": {"dtype": "float64"},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9},
    "rmsprop": {"optimizer": "rmsprop", "learning_rate": 0.01, "momentum": 0.5},
    "residual": {"shape": "rectangle_residual", "depth": 4},
    "everything": {"label_noise": 0.2, "l1": 1e-3, "l2": 1e-3, "evaluate_train": True},
    "cold": {"cache_state": "cold"},
    # Are never packed:
    "slices": {"slices": 3},
    "blas": {"kernel": "blas"},
}


@pytest.mark.parametrize(
    ("name", "repetitions"),
    [(name, [2]) for name in CHANGES] + [(name, [2, 0, 5]) for name in [*CHANGES][:-2]],
)
def test_stopped_repetitions_go_on_with_the_same_bits(plan, tmp_path, name, repetitions):
    experiment = plan(epochs=EPOCHS, **CHANGES[name])
    first = interrupted(experiment, repetitions, tmp_path, 2)
    assert len(kept(tmp_path)) == len(repetitions)
    second = finished(experiment, repetitions, tmp_path)
    for result, before, undisturbed in zip(
        second, first, execute_group(experiment, repetitions), strict=True
    ):
        assert bits(result) == bits(undisturbed)
        assert (result.run["status"], result.run["parts"]) == ("completed", 2)
        assert undisturbed.run["parts"] == 1
        # What was measured before stays as it was measured.
        assert result.epochs["duration_s"][:2].tolist() == before.epochs["duration_s"].tolist()
        assert (before.part.n_epochs, result.part.n_epochs) == (2, 3)


def test_run_may_be_stopped_after_every_epoch(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    for _ in range(EPOCHS - 1):
        interrupted(experiment, [0], tmp_path, 1)
    (result,) = finished(experiment, [0], tmp_path)
    assert bits(result) == bits(execute(experiment))
    assert result.run["parts"] == EPOCHS


def test_repetitions_go_on_alone_or_in_another_packing(plan, tmp_path):
    """Those that have done equally many epochs are trained together."""
    experiment = plan(epochs=EPOCHS)
    interrupted(experiment, [0, 1, 2, 3], tmp_path, 3)
    interrupted(experiment, [3], tmp_path, 1)
    interrupted(experiment, [4, 5, 6], tmp_path, 1)
    results = finished(experiment, range(8), tmp_path)
    assert [result.run["lanes"] for result in results] == [3, 3, 3, 1, 3, 3, 3, 1]
    assert [result.run["parts"] for result in results] == [2, 2, 2, 3, 2, 2, 2, 1]
    for repetition, result in enumerate(results):
        assert bits(result) == bits(execute(experiment, repetition))


def test_run_that_ends_without_a_warning_goes_on_from_its_last_checkpoint(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)

    def die(epoch, row):
        if epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_group(experiment, [0, 1], checkpoint_dir=tmp_path, checkpoint_s=0.0, on_epoch=die)
    seen = []
    results = finished(experiment, [0, 1], tmp_path, on_epoch=lambda e, row: seen.append(e))
    assert seen == [4, 5]
    assert [bits(result) for result in results] == [
        bits(result) for result in execute_group(experiment, [0, 1])
    ]
    assert [(result.run["parts"], result.run["parts_cut"]) for result in results] == [(2, 1)] * 2


def test_parts_that_ended_in_order_are_not_cut(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    interrupted(experiment, [0], tmp_path, 2)
    interrupted(experiment, [0], tmp_path, 1)
    (result,) = finished(experiment, [0], tmp_path)
    assert (result.run["parts"], result.run["parts_cut"]) == (3, 0)


def test_diverged_run_keeps_the_epoch_of_its_divergence(plan, tmp_path):
    experiment = plan(optimizer="sgd", learning_rate=1e19, l2=1.0, epochs=6)
    (before,) = interrupted(experiment, [0], tmp_path, 4)
    assert before.run["diverged"]
    (result,) = finished(experiment, [0], tmp_path)
    assert bits(result) == bits(execute(experiment))
    assert result.run["diverged_epoch"] == before.run["diverged_epoch"] < 4


def test_repetition_that_has_ended_is_no_part_of_an_interruption(plan, tmp_path, monkeypatch):
    """The penalty multiplies weights by -3 in every step: the larger the first, the sooner inf."""
    prepare = runs.prepare

    def enlarge(experiment, repetition, dataset):
        start = prepare(experiment, repetition, dataset)
        start.parameters[:] *= 10 ** (10 * repetition)
        return start

    monkeypatch.setattr(runs, "prepare", enlarge)
    wild = {"optimizer": "sgd", "learning_rate": 1e-20, "l2": 2e20, "batch_size": 120}
    experiment = plan(**wild, epochs=20, on_divergence="stop")
    undisturbed = execute_group(experiment, [0, 1])
    assert undisturbed[1].run["epochs_completed"] < 18
    going, ended = execute_group(
        experiment, [0, 1], checkpoint_dir=tmp_path, checkpoint_s=0.0, should_stop=after(18)
    )
    assert (going.is_interrupted, ended.run["status"]) == (True, "stopped")
    assert bits(ended) == bits(undisturbed[1])
    # After a kill it would diverge again, from its last checkpoint.
    again = finished(experiment, [0, 1], tmp_path)
    assert [bits(result) for result in again] == [bits(result) for result in undisturbed]
    assert [result.run["lanes"] for result in again] == [1, 1]


# ---------------------------------------------------------------------------------------------
# When checkpoints are written


def test_run_that_is_asked_to_stop_at_once_trains_nothing(plan, tmp_path):
    notes, seen = Notes(), []
    results = execute_group(
        plan(epochs=1, kernel="blocked"), range(3), checkpoint_dir=tmp_path, checkpoint_s=0.0,
        should_stop=lambda epoch_s: True, on_note=notes, on_epoch=lambda *_: seen.append(1),
    )  # fmt: skip
    assert seen == notes == []
    assert [result.run["status"] for result in results] == ["interrupted"] * 3
    assert [result.part for result in results] == [None] * 3
    assert not (tmp_path / "checkpoints").exists()


def test_little_progress_is_trained_again(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    (result,) = execute_group(experiment, [0], checkpoint_dir=tmp_path, should_stop=after(3))
    assert (result.run["status"], result.run["epochs_completed"]) == ("interrupted", 3)
    assert not (tmp_path / "checkpoints").exists()
    (result,) = finished(experiment, [0], tmp_path)
    assert result.run["parts"] == 1


def test_run_that_does_not_last_writes_nothing(plan, tmp_path):
    (result,) = finished(plan(), [0], tmp_path)
    assert result.run["status"] == "completed"
    assert list(tmp_path.iterdir()) == []


def test_run_that_is_asked_to_stop_is_kept_before_its_next_checkpoint_is_due(
    plan, tmp_path, monkeypatch
):
    monkeypatch.setattr(saving, "LEAST_PROGRESS_S", 0.0)
    experiment = plan(epochs=EPOCHS)
    (result,) = execute_group(experiment, [0], checkpoint_dir=tmp_path, should_stop=after(3))
    assert kept(tmp_path) == [result.run["run_id"]]
    (result,) = finished(experiment, [0], tmp_path)
    assert (result.part.n_epochs, result.run["parts"]) == (2, 2)


def test_without_a_directory_nothing_is_kept(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (result,) = execute_group(plan(), [0], checkpoint_s=0.0, should_stop=after(2))
    assert result.is_interrupted
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_due_after_the_interval_and_sooner_when_training_stops(tmp_path):
    now_s = 100.0
    saver = Saver(
        tmp_path, CHECKPOINT_S, read_provenance(), Notes(), clock=lambda: now_s
    )  # fmt: skip
    now_s = 1000.0
    saver.begin()
    assert LEAST_PROGRESS_S < CHECKPOINT_S
    for passed_s, is_due, is_due_at_last in (
        (0.0, False, False),
        (LEAST_PROGRESS_S / 2, False, False),
        (LEAST_PROGRESS_S, False, True),
        (CHECKPOINT_S - 1, False, True),
        (CHECKPOINT_S, True, True),
    ):
        now_s = 1000.0 + passed_s
        assert saver.is_due(is_last=False) is is_due
        assert saver.is_due(is_last=True) is is_due_at_last
    saver.save(None, [], None, is_last=False)
    assert not saver.is_due(is_last=True)


# ---------------------------------------------------------------------------------------------
# What was measured


def test_run_in_parts_adds_up_what_was_measured(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    with ticking_meter(tmp_path / "machine") as meter:
        (first,) = interrupted(experiment, [0], tmp_path, 2, meter)
    with ticking_meter(tmp_path / "other") as meter:
        (result,) = finished(experiment, [0], tmp_path, meter)
    parts = first.part, result.part
    assert result.epochs["energy_j"] == [10.0] * EPOCHS
    assert result.run["energy_j"] == sum(part.energy.energy_j for part in parts)
    assert result.run["energy_package_j"] == result.run["energy_j"]
    assert result.run["energy_quality"] == "measured"
    assert (result.run["energy_mode"], result.run["energy_ranks"]) == ("alone", 1)
    assert result.run["duration_s"] == sum(part.duration_s for part in parts)
    assert result.run["meter_reads"] == sum(part.cost.reads for part in parts)
    assert result.run["meter_cpu_s"] == sum(part.cost.cpu_s for part in parts)
    # There is no interval that the run took, and no boot that a second one belongs to.
    assert (result.run["begun_ns"], result.run["ended_ns"]) == (None, None)
    assert result.part.ended_ns > result.part.begun_ns


def test_energy_of_a_run_is_null_where_a_part_was_not_measured(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    (tmp_path / "bare").mkdir()
    with open_meter(tmp_path / "bare") as meter:
        interrupted(experiment, [0], tmp_path, 2, meter)
    with ticking_meter(tmp_path / "machine") as meter:
        (result,) = finished(experiment, [0], tmp_path, meter)
    assert result.run["energy_j"] is result.run["energy_mode"] is None
    assert result.run["energy_reason"].startswith("of part 1 of 2: ")
    assert result.part.energy.energy_j > 0
    assert result.epochs["energy_j"] == [None, None, 10.0, 10.0, 10.0]
    assert all(result.epochs["energy_reason"][:2])
    with store.ShardWriter(tmp_path, "rank0") as writer:
        writer.add(result.run, result.epochs)


def test_energies_of_a_simulated_machine_are_those_of_the_work(plan, tmp_path):
    """A stretch that the process did not train is in no part."""
    machine = build(tmp_path / "machine", "intel_server2", PowerModel(joules_per_flop=1e-6))
    experiment = plan(epochs=120)
    interrupted(experiment, [0], tmp_path, 60, open_meter(machine.root))
    (result,) = finished(experiment, [0], tmp_path, open_meter(machine.root))
    worked_j = 120 * experiment.flops_per_epoch * 1e-6
    static_j = 88.0 * result.run["duration_s"]
    assert result.run["energy_j"] == pytest.approx(static_j + worked_j, rel=0.05, abs=0.5)
    assert sum(result.epochs["energy_j"]) <= result.run["energy_j"]


def test_shares_of_a_group_stay_what_they_were(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    with ticking_meter(tmp_path / "machine") as meter:
        interrupted(experiment, range(4), tmp_path, 2, meter)
    with ticking_meter(tmp_path / "other") as meter:
        (result,) = finished(experiment, [1], tmp_path, meter)
    assert result.epochs["energy_j"] == [2.5, 2.5, 10.0, 10.0, 10.0]
    assert result.epochs["energy_quality"] == ["measured_divided"] * 2 + ["measured"] * 3
    assert result.run["energy_quality"] == "measured_divided"


def test_counts_are_null_in_the_epochs_that_were_not_counted(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    counted, refused = FakePackage(), FakePackage()
    refused.refused = {"cycles": errno.ENOENT}
    interrupted(experiment, [0], tmp_path, 2, counters=open_counters(importer=refused))
    (result,) = finished(experiment, [0], tmp_path, counters=open_counters(importer=counted))
    assert result.epochs["cycles"] == [None] * 2 + [STEP["cycles"]] * 3
    for name in set(COUNTERS) - {"cycles"}:
        assert list(result.epochs[name]) == [STEP[name]] * EPOCHS
    assert result.run["counters_reason"].startswith("epochs 1 to 2: cycles: ENOENT")
    assert "epochs 3" not in result.run["counters_reason"]
    with store.ShardWriter(tmp_path, "rank0") as writer:
        writer.add(result.run, result.epochs)


def test_same_reason_of_all_parts_is_told_once(plan, tmp_path):
    def nothing():
        raise ImportError("No module named 'py_perf_event'")

    experiment = plan(epochs=EPOCHS)
    interrupted(experiment, [0], tmp_path, 2, counters=open_counters(importer=nothing))
    (result,) = finished(experiment, [0], tmp_path, counters=open_counters(importer=nothing))
    assert result.run["counters_reason"].count("not installed") == 1
    assert result.epochs["cycles"] == [None] * EPOCHS


def test_load_of_others_is_the_mean_over_the_parts(plan, tmp_path, monkeypatch):
    experiment = plan(epochs=EPOCHS)
    spans_ns = []
    for load, n_epochs in ((0.25, 3), (0.75, None)):
        with ticking_meter(tmp_path / str(load)) as meter:
            monkeypatch.setattr(meter, "foreign_load", lambda begin, end, load=load: load)
            if n_epochs:
                (result,) = interrupted(experiment, [0], tmp_path, n_epochs, meter)
            else:
                (result,) = finished(experiment, [0], tmp_path, meter)
        spans_ns.append(result.part.ended_ns - result.part.begun_ns)
    expected = (0.25 * spans_ns[0] + 0.75 * spans_ns[1]) / sum(spans_ns)
    assert result.run["foreign_load"] == pytest.approx(expected, rel=1e-12)


def test_gang_that_was_cut_short_is_worth_no_more_than_shares(plan, tmp_path):
    """Nobody saw whether its ranks would have ended together."""
    experiment = plan(epochs=EPOCHS)
    with ticking_meter(tmp_path / "machine") as meter:
        meter.mode = "gang"
        (first, _) = interrupted(experiment, [0, 1], tmp_path, 2, meter)
    assert first.run["energy_quality"] == "measured_divided"
    with ticking_meter(tmp_path / "other") as meter:
        meter.mode = "gang"
        results = finished(experiment, [0, 1], tmp_path, meter)
    assert {result.part.energy.quality for result in results} == {"measured_divided"}
    assert {result.run["energy_quality"] for result in results} == {"measured_shared"}
    assert {result.run["energy_mode"] for result in results} == {"gang"}


# ---------------------------------------------------------------------------------------------
# The store


def test_result_in_parts_is_stored_and_its_checkpoint_goes(plan, tmp_path):
    experiment = plan(epochs=EPOCHS)
    interrupted(experiment, [0, 1], tmp_path, 2)
    (result,) = finished(experiment, [0], tmp_path)
    with store.ShardWriter(tmp_path, "rank0") as writer:
        writer.add(result.run, result.epochs)
        assert len(kept(tmp_path)) == 2
    assert kept(tmp_path) == [f"{experiment.experiment_id}-0001"]
    assert store.read_runs(tmp_path)["parts"].tolist() == [2]
    assert store.read_epochs(tmp_path)["epoch"].tolist() == [1, 2, 3, 4, 5]


def test_interrupted_result_cannot_be_stored(plan, tmp_path):
    (result,) = interrupted(plan(epochs=EPOCHS), [0], tmp_path, 2)
    writer = store.ShardWriter(tmp_path, "rank0")
    writer.add(result.run, result.epochs)
    with pytest.raises(ValueError, match="status is 'interrupted'"):
        writer.flush()


# ---------------------------------------------------------------------------------------------
# Checkpoints that cannot be used, and disks that are full


def change_record(folder, **values):
    """Let all checkpoints say something else."""
    for run_id in kept(folder):
        checkpoint = store.read_checkpoint(folder, run_id)
        record = json.loads(json.dumps(checkpoint.record))
        record["origin"] |= values
        store.write_checkpoint(folder, replace(checkpoint, record=record))


def change_arrays(folder, **arrays):
    for run_id in kept(folder):
        checkpoint = store.read_checkpoint(folder, run_id)
        store.write_checkpoint(folder, replace(checkpoint, arrays=checkpoint.arrays | arrays))


def drop_parts(folder):
    for run_id in kept(folder):
        checkpoint = store.read_checkpoint(folder, run_id)
        record = {key: value for key, value in checkpoint.record.items() if key != "parts"}
        store.write_checkpoint(folder, replace(checkpoint, record=record))


def damage(folder):
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "npz is damaged"),
        (lambda folder: change_record(folder, cpu_model="another"), "cpu_model was another, here"),
        (lambda folder: change_record(folder, minibutter_version="9"), "minibutter_version was 9"),
        (lambda folder: change_record(folder, kernels="0123"), "kernels was 0123, here it is"),
        (lambda folder: change_record(folder, blas=None), "blas was None, here it is"),
        (
            lambda folder: change_arrays(folder, data=np.zeros(16, np.uint8)),
            "the state is that of a run with other data",
        ),
        (
            lambda folder: change_arrays(folder, slots=np.zeros((2, 3), np.float32)),
            "slots of the state is a float32 array of shape",
        ),
        (
            lambda folder: change_arrays(folder, epochs=np.asarray(1)),
            "the state is that after 1 epochs, and there are rows of 2",
        ),
        (drop_parts, "'parts'"),
    ],
)
def test_run_whose_checkpoint_cannot_be_used_starts_anew_with_a_note(
    plan, tmp_path, change, message
):
    experiment, notes = plan(epochs=EPOCHS), Notes()
    interrupted(experiment, [0, 1], tmp_path, 2)
    change(tmp_path)
    results = execute_group(experiment, [0, 1], checkpoint_dir=tmp_path, on_note=notes)
    assert [result.run["parts"] for result in results] == [1, 1]
    assert [bits(result) for result in results] == [
        bits(result) for result in execute_group(experiment, [0, 1])
    ]
    assert len(notes) == 2
    for repetition, note in enumerate(notes):
        run_id = f"{experiment.experiment_id}-{repetition:04d}"
        assert note.startswith(f"the checkpoint of run {run_id} is not used, it starts anew: ")
        assert message in note


def test_checkpoint_of_one_repetition_does_not_stop_the_others_from_going_on(plan, tmp_path):
    experiment, notes = plan(epochs=EPOCHS), Notes()
    interrupted(experiment, [0, 1, 2], tmp_path, 2)
    path = tmp_path / "checkpoints" / f"{experiment.experiment_id}-0001.npz"
    path.write_bytes(b"")
    results = execute_group(experiment, [0, 1, 2], checkpoint_dir=tmp_path, on_note=notes)
    assert [result.run["parts"] for result in results] == [2, 1, 2]
    assert [result.run["lanes"] for result in results] == [2, 1, 2]
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_checkpoint_that_cannot_be_written_is_noted_once_and_the_run_goes_on(
    plan, tmp_path, monkeypatch, error, told
):
    experiment, notes, tried = plan(epochs=EPOCHS), Notes(), []

    def refuse(directory, checkpoint):
        tried.append(checkpoint.run_id)
        raise error

    monkeypatch.setattr(saving.store, "write_checkpoint", refuse)
    results = execute_group(
        experiment, [0, 1], checkpoint_dir=tmp_path, checkpoint_s=0.0, on_note=notes
    )
    assert len(tried) == 2 * (EPOCHS - 1)
    (note,) = notes
    assert "a checkpoint cannot be written" in note
    assert told in note
    assert [bits(result) for result in results] == [
        bits(result) for result in execute_group(experiment, [0, 1])
    ]


def test_want_of_memory_while_a_checkpoint_is_read_fails_the_run_and_keeps_it(
    plan, tmp_path, monkeypatch
):
    experiment = plan(epochs=EPOCHS)
    interrupted(experiment, [0], tmp_path, 2)

    def exhaust(*_):
        raise MemoryError

    with monkeypatch.context() as poor:
        poor.setattr(saving.store, "read_checkpoint", exhaust)
        (result,) = finished(experiment, [0], tmp_path)
    assert result.run["status"] == "failed"
    with store.ShardWriter(tmp_path, "rank0") as writer:
        writer.add(result.run, result.epochs)
    (result,) = finished(experiment, [0], tmp_path)
    assert result.run["parts"] == 2


def test_record_of_a_course_is_plain_json(plan, tmp_path):
    (result,) = interrupted(plan(epochs=EPOCHS), [0], tmp_path, 2)
    checkpoint = store.read_checkpoint(tmp_path, result.run["run_id"])
    course = Course(checkpoint.run_id, checkpoint.epochs, checkpoint.record)
    assert course.columns.epochs_completed == 2
    (part,) = checkpoint.record["parts"]
    assert part["n_epochs"] == 2
    assert part["duration_s"] > 0
