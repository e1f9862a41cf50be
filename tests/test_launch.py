"""Deciding what is to do, and saying how far it is; what needs ranks is tested under mpirun."""

import itertools
import math

import pytest

from minibutter import launch, report
from minibutter.sweeps.spec import parse_sweep

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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"),
     (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations_are_written_as_people_say_them(seconds, text):
    assert report.duration_text(seconds) == text
