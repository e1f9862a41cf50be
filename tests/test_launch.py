"""Deciding what is to do, and saying how far it is; what needs ranks is tested under mpirun."""

import itertools
import math

import numpy as np
import pytest
import threadpoolctl

from minibutter import launch, report, runs, store
from minibutter.energy import open_meter
from minibutter.launch import ranks as ranks_module
from minibutter.launch import sweep as sweep_module
from minibutter.nn.training import EpochRow
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
    assert job.work(job.pending[0][0]) > job.work(job.pending[-1][0])


def test_what_is_done_is_not_pending(sweep, tmp_path, capsys):
    launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path / "out")
    more = parse_sweep(SMALL | {"repetitions": 3}, "small.toml")
    job = launch.prepare_job(more, tmp_path / "out", None)
    assert (job.n_done, len(job.pending)) == (4, 2)
    assert {repetition for _, repetition in job.pending} == {2}


def test_no_launcher_means_one_rank_without_mpi(monkeypatch):
    for variable in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(variable, raising=False)
    assert isinstance(launch.find_ranks(), launch.Alone)


def test_plain_progress_counts_work_over_all_ranks_and_pauses_grow(sweep, tmp_path, capsys):
    job = launch.prepare_job(sweep, tmp_path / "out", None)
    total = sum(job.work(key) for key, _ in job.pending)
    reporter = launch.PlainReporter()
    reporter.begin(job, 2)
    capsys.readouterr()
    halves = [
        launch.Progress(0, n_runs=1, work=total / 4, current="iris rectangle 100"),
        launch.Progress(1, n_runs=2, work=total / 4),
    ]
    said = []
    for elapsed_s in range(1, 400):
        reporter.update(halves, float(elapsed_s))
        if line := capsys.readouterr().out:
            said.append((elapsed_s, line))
    assert "3/4 runs   50%" in said[0][1]
    assert "2.0 s left" in said[0][1]
    assert "iris rectangle 100" in said[0][1]
    pauses = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(said)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 2
    assert pauses[-1] > 20


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
    prepare = runs._prepare

    def exhaust(experiment, repetition, dataset):
        if repetition == 1:
            raise MemoryError("Unable to allocate 3.00 TiB")
        return prepare(experiment, repetition, dataset)

    monkeypatch.setattr(runs, "_prepare", exhaust)
    failed = launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out)
    assert (failed.n_failed, failed.exit_code) == (2, 3)
    monkeypatch.setattr(runs, "_prepare", prepare)
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
    (first, _), (second, _) = job.pending
    seen = []
    with store.ShardWriter(out, "rank0", clock=clock) as writer:
        tracker = sweep_module._Tracker(
            job, 0, writer, lambda progress: seen.append(len(list((out / "runs").iterdir())))
        )
        tracker._last_s = -1e9
        meter = open_meter()
        result = runs.execute(
            job.experiments[first], 0, meter=meter, provenance=read_provenance(), sweep="s"
        )
        writer._clock = lambda: 0.0
        writer._last_flush_s = 0.0
        writer.add(result.run, result.epochs)
        assert not list((out / "runs").iterdir())
        writer._clock = clock
        tracker.on_epoch(second, 0, 1, EpochRow(np.zeros(11), np.zeros(11), None, True))
    assert seen == [1]


def test_a_rank_trains_on_one_thread_whatever_blas_would_take(tmp_path, monkeypatch, capsys):
    """BLAS threads of several ranks would fight for cores and enter each other's energy."""
    n_threads = []
    execute = runs.execute

    def watch(*arguments, **options):
        n_threads.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        return execute(*arguments, **options)

    monkeypatch.setattr(runs, "execute", watch)
    sweep = parse_sweep(SMALL | {"kernel": "blas", "repetitions": 1}, "s.toml")
    with threadpoolctl.threadpool_limits(2):
        launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path / "out")
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {2}
    assert set(n_threads) == {1}


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
