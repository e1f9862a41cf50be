"""Deciding what is to do, and saying how far it is; what needs ranks is tested under mpirun."""

import gc
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from minibutter import launch, report, runs, store
from minibutter.energy import open_meter
from minibutter.launch import job as job_module
from minibutter.launch import ranks as ranks_module
from minibutter.launch import together as together_module
from minibutter.launch import tracking, working
from minibutter.launch.together import explain
from minibutter.nn.groups import EpochRow, TrainingGroup
from minibutter.provenance import read_provenance
from minibutter.sweeps.spec import SweepError, parse_sweep

SMALL = {
    "name": "small",
    "dataset": "iris",
    "size": [100, 400],
    "depth": 3,
    "epochs": 2,
    "batch_size": 16,
    "repetitions": 2,
}


@pytest.fixture
def sweep():
    return parse_sweep(SMALL, "small.toml")


def test_the_largest_runs_come_first_and_repetitions_stay_in_order(sweep, tmp_path):
    job = launch.prepare_job(sweep, tmp_path / "out", None)
    sizes = [job.experiments[key].spec.size for key, _ in job.pending]
    assert sizes == [400, 400, 100, 100]
    assert [repetition for _, repetition in job.pending] == [0, 1, 0, 1]
    assert job.work(job.groups[0]) > job.work(job.groups[-1])


def test_what_is_done_is_not_pending(sweep, tmp_path, capsys):
    launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path / "out")
    more = parse_sweep(SMALL | {"repetitions": 3}, "small.toml")
    job = launch.prepare_job(more, tmp_path / "out", None)
    assert (job.n_done, len(job.pending)) == (4, 2)
    assert {repetition for _, repetition in job.pending} == {2}


def test_a_shard_is_a_part_of_what_is_to_do(sweep, tmp_path, capsys):
    parts = [launch.prepare_job(sweep, tmp_path, None, shard=f"{i}/3") for i in (1, 2, 3)]
    assert sorted(sum((job.pending for job in parts), ())) == sorted(
        launch.prepare_job(sweep, tmp_path, None).pending
    )
    assert all("of 4 runs" in job.notes[-1] for job in parts)
    done = launch.run_sweep(
        lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path, shard="1/2"
    )
    assert (done.n_runs, done.exit_code) == (2, 0)
    again = launch.prepare_job(sweep, tmp_path, None, shard="1/2")
    assert (again.n_done, again.pending) == (2, ())
    with pytest.raises(SweepError, match="shard = '3/2'"):
        launch.prepare_job(sweep, tmp_path, None, shard="3/2")


def test_a_shard_that_has_no_run_is_done(sweep, tmp_path, capsys):
    asked = launch.prepare_job(sweep, tmp_path, None).pending
    used = {(int(key, 16) + repetition) % 1000 for key, repetition in asked}
    empty = next(number for number in range(1000) if number not in used)
    done = launch.run_sweep(
        lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path, shard=f"{empty}/1000"
    )
    assert (done.n_runs, done.runs, done.exit_code) == (0, None, 0)
    assert "0 runs in" in capsys.readouterr().out


def test_what_was_begun_goes_on_before_its_equals_and_with_those_that_are_as_far(tmp_path):
    sweep = parse_sweep(NARROW | {"epochs": 6}, "s.toml")
    job = launch.prepare_job(sweep, tmp_path, None, lanes=16)
    experiment = job.experiments[job.groups[0].experiment_id]
    assert [group.repetitions for group in job.groups] == [(0, 1, 2, 3, 4)] * 2
    for repetitions, n_epochs in (([1, 3], 2), ([3], 1)):
        with open_meter() as meter:
            asked = iter(range(100))
            runs.execute_group(
                experiment,
                repetitions,
                meter=meter,
                provenance=read_provenance(),
                sweep="narrow",
                checkpoint_dir=tmp_path,
                checkpoint_s=0.0,
                should_stop=lambda _, n=n_epochs, asked=asked: next(asked) >= n,
            )
    again = launch.prepare_job(sweep, tmp_path, None, lanes=16)
    mine = [group for group in again.groups if group.experiment_id == experiment.experiment_id]
    assert [group.repetitions for group in mine] == [(0, 2, 4), (3,), (1,)]
    assert {group.repetitions: again.epochs_kept(group) for group in mine} == {
        (3,): 3,
        (1,): 2,
        (0, 2, 4): 0,
    }
    furthest = next(group for group in mine if group.repetitions == (3,))
    assert again.work(furthest) == pytest.approx(again.length(furthest) * 3 / 6)
    assert again.work(furthest, 4) == pytest.approx(again.length(furthest) / 6)
    assert again.work(furthest, 1) == 0.0  # a checkpoint that could not be used


def test_the_collector_leaves_the_plan_alone_while_a_sweep_is_trained(tmp_path, monkeypatch):
    """It would look through hundreds of thousands of groups again and again."""
    frozen, work_through = [], working.work_through

    def look(*arguments):
        frozen.append(gc.get_freeze_count())
        work_through(*arguments)

    monkeypatch.setattr(working, "work_through", look)
    before = gc.get_freeze_count()
    run_in_lanes({"dataset": "iris", "size": 64, "depth": 3, "epochs": 1}, tmp_path / "out", 1)
    assert frozen[0] > before + 1000
    assert gc.get_freeze_count() == 0  # what was frozen before was thawed with it


def test_no_launcher_means_one_rank_without_mpi(monkeypatch):
    for variable in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(variable, raising=False)
    assert isinstance(launch.find_ranks(), launch.Alone)


def test_plain_progress_counts_work_over_all_ranks_and_pauses_grow(sweep, tmp_path, capsys):
    job = launch.prepare_job(sweep, tmp_path / "out", None)
    total = job.total_work
    reporter = launch.PlainReporter()
    reporter.begin(job, 2)
    capsys.readouterr()
    halves = [
        launch.Progress(0, n_runs=1, work=total / 4, current="iris rectangle 100"),
        launch.Progress(1, n_runs=2, work=total / 4),
    ]
    said = []
    for elapsed_s in range(1, 400):
        reporter.update(halves, float(elapsed_s), None)
        if line := capsys.readouterr().out:
            said.append((elapsed_s, line))
    assert "3/4 runs   50%" in said[0][1]
    assert "2.0 s left" in said[0][1]
    assert "iris rectangle 100" in said[0][1]
    pauses = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(said)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 2
    assert pauses[-1] > 20


# ---------------------------------------------------------------------------------------------
# Lanes


NARROW = {
    "name": "narrow", "dataset": "iris", "widths": [[4, 4, 4, 3], [5, 3]], "epochs": 3,
    "batch_size": 16, "repetitions": 5, "label_noise": 0.1,
}  # fmt: skip


def sizes_of(job):
    return [len(group.repetitions) for group in job.groups]


def run_in_lanes(document, out, lanes):
    """The epochs table of a sweep without what was measured, and its runs."""
    sweep = parse_sweep(document, "s.toml")
    outcome = launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out, lanes=lanes)
    epochs = store.read_epochs(out).drop(columns=list(store.MEASURED_EPOCH_COLUMNS))
    return epochs, outcome.runs


def test_lanes_change_no_number_of_a_sweep(tmp_path, capsys):
    alone, runs_alone = run_in_lanes(NARROW, tmp_path / "1", 1)
    assert set(runs_alone["lanes"]) == {1}
    for lanes, expected in (("auto", {5}), (16, {5}), (2, {1, 2})):
        packed, runs_packed = run_in_lanes(NARROW, tmp_path / str(lanes), lanes)
        assert set(runs_packed["lanes"]) == expected
        pd.testing.assert_frame_equal(packed, alone, check_exact=True)
    assert len(alone) == 2 * 5 * 3


def test_groups_are_repetitions_of_one_experiment_that_are_missing(tmp_path, capsys):
    run_in_lanes(NARROW | {"repetitions": 2}, tmp_path, 1)
    job = launch.prepare_job(parse_sweep(NARROW, "s.toml"), tmp_path, None, lanes=16)
    assert [group.repetitions for group in job.groups] == [(2, 3, 4)] * 2
    assert len({group.experiment_id for group in job.groups}) == 2
    assert job.n_done == 4


def test_a_sweep_that_was_interrupted_within_a_group_goes_on(tmp_path, monkeypatch, capsys):
    undisturbed, _ = run_in_lanes(NARROW, tmp_path / "undisturbed", 1)
    run_epoch = TrainingGroup.run_epoch
    epochs = iter(range(1, 100))

    def interrupt(group):
        if next(epochs) == 5:  # the second epoch of the second group
            raise KeyboardInterrupt
        return run_epoch(group)

    monkeypatch.setattr(TrainingGroup, "run_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_in_lanes(NARROW, tmp_path / "out", 3)
    monkeypatch.setattr(TrainingGroup, "run_epoch", run_epoch)
    assert set(store.read_runs(tmp_path / "out")["repetition"]) == {0, 1, 2}
    again, runs_again = run_in_lanes(NARROW, tmp_path / "out", 16)
    pd.testing.assert_frame_equal(again, undisturbed, check_exact=True)
    assert sorted(runs_again["lanes"]) == [2] * 2 + [3] * 3 + [5] * 5


def test_one_experiment_alone_is_spread_over_the_ranks_before_it_is_packed(tmp_path):
    one = parse_sweep(NARROW | {"widths": [4, 4, 4, 3], "repetitions": 16}, "s.toml")
    n_groups = [
        len(launch.prepare_job(one, tmp_path, None, n_ranks=n_ranks).groups)
        for n_ranks in (1, 2, 3, 16)
    ]
    assert n_groups[0] == 1
    assert n_groups == sorted(n_groups)
    assert n_groups[-1] == 16


def test_many_experiments_are_packed_although_there_are_many_ranks(tmp_path):
    many = parse_sweep(NARROW | {"widths": [4, 4, 4, 3], "seed": list(range(16))}, "s.toml")
    assert sizes_of(launch.prepare_job(many, tmp_path, None, n_ranks=16)) == [5] * 16


def test_what_cannot_be_packed_is_trained_one_by_one(tmp_path):
    for change in ({"kernel": "blas"}, {"widths": [7, 7]}):
        sweep = parse_sweep(NARROW | change, "s.toml")
        job = launch.prepare_job(sweep, tmp_path / str(change), None, lanes=16)
        assert set(sizes_of(job)) == {1}


def test_wide_networks_and_large_data_are_not_packed_unasked(tmp_path, monkeypatch):
    wide = parse_sweep(NARROW | {"widths": [200, 200, 3], "batch_size": 120}, "s.toml")
    assert sizes_of(launch.prepare_job(wide, tmp_path / "wide", None)) == [1] * 5
    assert sizes_of(launch.prepare_job(wide, tmp_path / "wide", None, lanes=4)) == [4, 1]
    monkeypatch.setattr(job_module, "MAX_STACKED_BYTES", 3 * 150 * (4 + 3) * 4)
    narrow = parse_sweep(NARROW, "s.toml")
    assert max(sizes_of(launch.prepare_job(narrow, tmp_path / "narrow", None))) == 3


def test_a_group_of_float64_has_half_as_many_lanes(tmp_path):
    sweep = parse_sweep(
        NARROW | {"widths": [5, 3], "dtype": "float64", "repetitions": 20}, "s.toml"
    )
    assert sizes_of(launch.prepare_job(sweep, tmp_path, None, lanes=16)) == [8, 8, 4]


@pytest.mark.parametrize("lanes", ["many", "0", 17, -1, "1.5", ""])
def test_lanes_that_no_register_has_are_refused(sweep, tmp_path, lanes):
    with pytest.raises(SweepError, match=r"lanes = .*: must be auto or a whole number from 1, "):
        launch.prepare_job(sweep, tmp_path / "out", None, lanes=lanes)
    assert not (tmp_path / "out").exists()


def test_progress_of_a_group_counts_all_its_runs_and_names_them(tmp_path):
    job = launch.prepare_job(parse_sweep(NARROW, "s.toml"), tmp_path, None, lanes=16)
    first, second = job.groups
    with store.ShardWriter(tmp_path, "rank0") as writer:
        tracker = tracking.Tracker(job, 0, writer, lambda progress: None)
        tracker._last_s = -1e9
        tracker.on_epoch(first, 2, EpochRow(np.zeros(11), np.zeros(11), None, True, 8, 1))
        assert "#0-4 epoch 2/3 test loss 0.0000" in tracker.progress.current
        assert tracker.progress.work == job.work(first, 2) == pytest.approx(job.work(first) * 2 / 3)
        with open_meter() as meter:
            results = runs.execute_group(
                job.experiments[first.experiment_id],
                first.repetitions,
                meter=meter,
                provenance=read_provenance(),
                sweep="s",
            )
        tracker.on_group(first, results)
    assert tracker.progress.n_runs == 5
    assert tracker.progress.work == job.work(first) == job.total_work - job.work(second)


@pytest.mark.parametrize(
    ("repetitions", "text"), [((4,), "4"), ((0, 1, 2), "0-2"), ((0, 3, 7), "0,3,7")]
)
def test_repetitions_of_a_group_are_named_in_short(repetitions, text):
    assert tracking._span(repetitions) == text


def test_the_time_left_is_not_known_before_anything_is_done():
    assert report.duration_text(launch.remaining_s(0.0, 10.0, 3.0)) == "?"
    assert launch.remaining_s(5.0, 10.0, 3.0) == 3.0
    assert math.isfinite(launch.remaining_s(10.0, 10.0, 3.0))


def test_a_thousand_problems_are_a_few_lines():
    lines = report.shorten_list(f"size {size} is unreachable" for size in range(1000))
    assert len(lines) == report.MAX_LINES + 1
    assert lines[-1] == "... and 995 more like these"


def test_a_run_that_failed_for_want_of_memory_is_tried_again(sweep, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    prepare = runs.prepare

    def exhaust(experiment, repetition, dataset):
        if repetition == 1:
            raise MemoryError("Unable to allocate 3.00 TiB")
        return prepare(experiment, repetition, dataset)

    monkeypatch.setattr(runs, "prepare", exhaust)
    failed = launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out)
    assert (failed.n_failed, failed.exit_code) == (2, 3)
    monkeypatch.setattr(runs, "prepare", prepare)
    again = launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out)
    assert (again.n_runs, again.n_failed, again.exit_code) == (2, 0, 0)


def test_a_run_that_can_never_succeed_is_not_tried_again(tmp_path, capsys):
    sweep = parse_sweep(SMALL | {"dataset": "digits", "size": 32}, "small.toml")
    for n_runs in (2, 0):
        outcome = launch.run_sweep(
            lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path / "out"
        )
        assert (outcome.n_runs, outcome.exit_code) == (n_runs, 3)


def test_data_that_cannot_be_read_stop_a_sweep_before_it_starts(tmp_path):
    path = tmp_path / "holes.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i * 2},{i % 2}\n" for i in range(30)) + "1,,0\n")
    sweep = parse_sweep(SMALL | {"dataset": ["iris", str(path)]}, "small.toml")
    with pytest.raises(SweepError, match="target"):
        launch.prepare_job(sweep, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_finished_runs_reach_the_disk_while_a_long_one_is_trained(tmp_path):
    """Two runs: the second looks, during its epochs, for the first one's shard."""
    clock = iter(range(0, 10**9, 3)).__next__  # three seconds pass between any two looks
    out = tmp_path / "out"
    job = launch.prepare_job(parse_sweep(SMALL | {"repetitions": 1}, "s.toml"), out, None)
    first, second = job.groups
    seen = []
    with store.ShardWriter(out, "rank0", clock=clock) as writer:
        tracker = tracking.Tracker(
            job, 0, writer, lambda progress: seen.append(len(list((out / "runs").iterdir())))
        )
        tracker._last_s = -1e9
        meter = open_meter()
        result = runs.execute(
            job.experiments[first.experiment_id],
            0,
            meter=meter,
            provenance=read_provenance(),
            sweep="s",
        )
        writer._clock = lambda: 0.0
        writer._last_flush_s = 0.0
        writer.add(result.run, result.epochs)
        assert not list((out / "runs").iterdir())
        writer._clock = clock
        tracker.on_epoch(second, 1, EpochRow(np.zeros(11), np.zeros(11), None, True, 8, 1))
    assert seen == [1]


def test_a_rank_trains_on_one_thread_whatever_blas_would_take(tmp_path):
    """BLAS threads of several ranks would fight for cores and enter each other's energy.

    In a process of its own: a BLAS that another test has loaded would hide one that comes too late.
    """
    script = tmp_path / "script.py"
    script.write_text(
        "import threadpoolctl\n"
        "from minibutter import launch, runs\n"
        "from minibutter.sweeps.spec import parse_sweep\n"
        "execute_group, n_threads = runs.execute_group, []\n"
        "def watch(*arguments, **options):\n"
        "    results = execute_group(*arguments, **options)\n"
        "    pools = threadpoolctl.threadpool_info()\n"
        "    n_threads.extend(p['num_threads'] for p in pools if p['user_api'] == 'blas')\n"
        "    return results\n"
        "runs.execute_group = watch\n"
        f"sweep = parse_sweep({SMALL | {'kernel': 'blas', 'repetitions': 1}!r}, 's.toml')\n"
        "launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(),\n"
        f"                 out=__import__('pathlib').Path({str(tmp_path / 'out')!r}))\n"
        "assert len(n_threads) > 2 and set(n_threads) == {1}, n_threads\n"
    )
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_mpirun_of_another_mpi_is_refused(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.delenv("PMI_SIZE", raising=False)
    with pytest.raises(launch.LaunchRefused, match=r"started 4 processes, .* there are 1"):
        ranks_module._refuse_another_mpi(1, "MPICH")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    with pytest.raises(launch.LaunchRefused, match=r"^$"):
        ranks_module._refuse_another_mpi(1, "MPICH")
    ranks_module._refuse_another_mpi(4, "Open MPI")


def test_where_no_batch_system_tells_the_end_people_hear_of_it(tmp_path, capsys):
    sweep = parse_sweep({"name": "s", "dataset": "iris", "size": 40, "depth": 2, "epochs": 1}, "s")
    options = {"reporter": launch.PlainReporter(), "out": tmp_path, "time_limit": "auto"}
    assert launch.run_sweep(lambda: sweep, **options).exit_code == 0
    assert "no batch system says when this job ends" in capsys.readouterr().out


def test_tasks_of_srun_that_do_not_know_each_other_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    options = {"reporter": launch.PlainReporter(), "out": tmp_path}
    with pytest.raises(launch.LaunchRefused, match=r"srun started 4 tasks, .* --mpi=pmi2"):
        launch.run_sweep(lambda: None, **options)
    monkeypatch.setenv("SLURM_PROCID", "3")
    with pytest.raises(launch.LaunchRefused, match=r"^$"):
        launch.run_sweep(lambda: None, **options)
    ranks_module.refuse_lonely_tasks({"SLURM_STEP_NUM_TASKS": "1"})
    ranks_module.refuse_lonely_tasks({})


def test_experiments_that_differ_can_be_told_apart_in_the_tables(tmp_path, capsys):
    document = SMALL | {"size": 100, "optimizer": "sgd", "momentum": [0.0, 0.9], "seed": [1, 2]}
    sweep = parse_sweep(document, "s.toml")
    outcome = launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path / "o")
    table = report.results_table(outcome.experiments)
    assert table[["momentum", "seed"]].to_numpy().tolist() == [
        ["0", "1"], ["0", "2"], ["0.9", "1"], ["0.9", "2"],
    ]  # fmt: skip
    assert "activation" not in table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"),
     (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations_are_written_as_people_say_them(seconds, text):
    assert report.duration_text(seconds) == text


# ---------------------------------------------------------------------------------------------
# Slices


SLICED = SMALL | {"slices": [1, 4]}


def test_runs_with_slices_are_neither_packed_nor_given_to_a_rank(tmp_path):
    sweep = parse_sweep(SLICED, "s.toml")
    for lanes, gang_size in ((16, 1), ("auto", 2)):
        job = launch.prepare_job(
            sweep, tmp_path / "out", None, n_ranks=2, lanes=lanes, gang_size=gang_size
        )
        assert [group.repetitions for group in job.together] == [(0,), (1,), (0,), (1,)]
        sizes = [job.experiments[group.experiment_id].spec.size for group in job.together]
        assert sizes == [400, 400, 100, 100]
        others = {job.experiments[group.experiment_id].spec.slices for group in job.groups}
        assert others == {1}
        assert len(job.pending) == 8
        alone_us = sum(job.work(group) for group in (*job.together, *job.groups))
        assert job.total_work == pytest.approx(alone_us)


def test_people_are_told_who_trains_together_and_whether_it_pays(tmp_path, monkeypatch):
    job = launch.prepare_job(parse_sweep(SLICED, "s.toml"), tmp_path / "out", None, n_ranks=6)
    assert explain(job, 1) == []
    together, sleep, short = explain(job, 6)
    assert together == "4 runs are trained by all ranks together, before the others"
    assert sleep == "2 ranks sleep in runs of 4 slices, which are too few for 6 ranks"
    assert "ms are too short to be shared out" in short
    monkeypatch.setattr(together_module.cost, "step_us", lambda *_: 1e4)
    assert explain(job, 4) == [together]


def test_a_sweep_of_slices_without_ranks_is_done_by_one(tmp_path, capsys):
    sweep = parse_sweep(SLICED, "s.toml")
    outcome = launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path / "out")
    assert (outcome.n_runs, outcome.n_failed) == (8, 0)
    assert "together" not in capsys.readouterr().out
    assert (outcome.runs["ranks_together"] == 1).all()
