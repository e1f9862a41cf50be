"""When a job ends: as asked for, as Slurm and PBS say, and what to write when nobody knows."""

import subprocess

import pytest

from minibutter.sweeps.spec import SweepError
from minibutter.sweeps.timelimit import TimeLimit, ask, find_time_limit, read_duration_s

NOW_S = 1_700_000_000.0
IN_SLURM = {"SLURM_JOB_ID": "7"}


def silent(command):
    raise AssertionError(f"nobody was to be asked, but {command} was")


def answering(text):
    def answer(command):
        assert command == ["squeue", "-h", "-j", "7", "-o", "%L"]
        return text

    return answer


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200), ("90m", 5400), ("45s", 45), ("1d", 86400), ("1h30m", 5400), ("1.5h", 5400),
        ("1d2h3m4s", 93784), (" 2H ", 7200), ("02:00:00", 7200), ("0:00:30", 30),
        ("100:00:00", 360_000), ("1-12:00:00", 129_600), ("00:59:59", 3599),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_and_batch_systems_write_them(text, seconds):
    assert read_duration_s(text) == seconds
    assert find_time_limit(text, IN_SLURM, NOW_S, silent) == TimeLimit(seconds, "--time-limit")


@pytest.mark.parametrize(
    "text",
    ["", "90", "2 hours", "h", "30:00", "1:60:00", "0:00:60", "-1h", "1h-", "30m1h", "1e3s", "inf"],
)
def test_what_is_no_duration_is_refused_with_one_that_is(text):
    with pytest.raises(SweepError, match=r"time limit = .*: must be written as in 2h, 90m, .*auto"):
        find_time_limit(text, {}, NOW_S, silent)


@pytest.mark.parametrize("text", ["0h", "0:00:00", "0d0s"])
def test_no_time_at_all_is_refused(text):
    with pytest.raises(SweepError, match="must be longer than nothing"):
        read_duration_s(text)


def test_without_a_wish_there_is_no_limit_even_in_a_job():
    limit = find_time_limit(None, IN_SLURM | {"SLURM_JOB_END_TIME": "1"}, NOW_S, silent)
    assert limit.seconds_left is None


def test_slurms_variable_is_the_time_when_the_job_ends():
    variables = IN_SLURM | {"SLURM_JOB_END_TIME": str(int(NOW_S) + 600)}
    assert find_time_limit("auto", variables, NOW_S, silent) == TimeLimit(600, "SLURM_JOB_END_TIME")
    assert find_time_limit("auto", variables, NOW_S + 700, silent).seconds_left == 0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("1-02:03:04\n", 93784), ("23:59:59\n", 86399), ("5:30\n", 330), ("0:00\n", 0),
        ("10-00:00:00\n", 864_000),
    ],
)  # fmt: skip
def test_an_older_slurm_is_asked_what_is_left(said, seconds):
    assert find_time_limit("auto", IN_SLURM, NOW_S, answering(said)) == TimeLimit(seconds, "squeue")


def test_a_variable_that_holds_no_time_is_passed_over():
    variables = IN_SLURM | {"SLURM_JOB_END_TIME": "Unknown"}
    assert find_time_limit("auto", variables, NOW_S, answering("2:00")).seconds_left == 120


def test_a_job_without_a_limit_has_none():
    limit = find_time_limit("auto", IN_SLURM, NOW_S, answering("UNLIMITED\n"))
    assert limit == TimeLimit(None, "Slurm says that job 7 has no time limit")


@pytest.mark.parametrize("said", ["", "INVALID\n", "NOT_SET\n", "slurm_load_jobs error"])
def test_an_answer_that_is_no_time_is_shown_with_what_to_write(said):
    limit = find_time_limit("auto", IN_SLURM, NOW_S, answering(said))
    assert limit.seconds_left is None
    assert repr(said.strip()) in limit.source
    assert "--time-limit 2h sets one" in limit.source


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("squeue"), subprocess.TimeoutExpired("squeue", 20),
     subprocess.CalledProcessError(1, "squeue")],
)  # fmt: skip
def test_a_squeue_that_fails_stops_no_sweep(error):
    def fail(command):
        raise error

    limit = find_time_limit("auto", IN_SLURM, NOW_S, fail)
    assert limit.seconds_left is None
    assert "squeue failed" in limit.source
    assert "--time-limit 2h sets one" in limit.source


def test_pbs_tells_the_seconds_that_were_asked_for():
    limit = find_time_limit("auto", {"PBS_WALLTIME": "3600"}, NOW_S, silent)
    assert limit == TimeLimit(3600, "PBS_WALLTIME, counted from the start of minibutter")


@pytest.mark.parametrize(
    "variables", [{}, {"PBS_WALLTIME": ""}, {"SLURM_JOB_END_TIME": "9999999999"}]
)
def test_outside_of_a_job_there_is_no_limit_and_a_word_on_how_to_set_one(variables):
    limit = find_time_limit("AUTO", variables, NOW_S, silent)
    assert limit.seconds_left is None
    assert "--time-limit 2h sets one" in limit.source


def test_a_program_is_asked_and_a_failing_one_is_an_error():
    assert ask(["echo", "2:00"]) == "2:00\n"
    with pytest.raises(subprocess.CalledProcessError):
        ask(["false"])
