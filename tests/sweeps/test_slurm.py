"""The batch script: that bash and Slurm read it as meant, tried with an srun and a scontrol of our
own."""

import os
import shlex
import shutil
import subprocess

import pytest

from minibutter.sweeps.slurm import choose_pmi, make_script
from minibutter.sweeps.spec import SweepError
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP

ODD = "my sweeps/it's $HOME; `rm`.toml"


@pytest.fixture
def play(tmp_path):
    """Run a script where `srun` ends as asked and writes its arguments down, as `scontrol` does."""

    def run(script, srun_ends_with, **variables):
        for name, code in (("srun", srun_ends_with), ("scontrol", 0)):
            program = tmp_path / name
            program.write_text(
                f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/{name}.called\n'
                f'printf "%s\\n" "$OMP_NUM_THREADS" > {tmp_path}/{name}.threads\nexit {code}\n'
            )
            program.chmod(0o755)
            (tmp_path / f"{name}.called").unlink(missing_ok=True)
        (tmp_path / "job.sh").write_text(script)
        done = subprocess.run(
            ["bash", tmp_path / "job.sh"],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        called = {
            name: (tmp_path / f"{name}.called").read_text().splitlines()
            for name in ("srun", "scontrol")
            if (tmp_path / f"{name}.called").exists()
        }
        return done, called

    return run


SCRIPTS = [
    make_script("primary", python="/opt/python", library="Open MPI v5.0.10"),
    make_script(
        ODD,
        python="/opt/my env/bin/python",
        time_limit="90m",
        nodes=4,
        ranks_per_node=128,
        partition="long,short",
        options=("--out", "results of $USER", "--lanes", "8"),
        library="Intel(R) MPI Library 2021.12",
    ),
    make_script("-n.toml", python="python3", library=None, time_limit="2-12:00:00"),
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_finds_nothing_wrong(script):
    checked = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing_wrong(script):
    # Of what it notes for information: a $ in the name of a file is one.
    command = ["shellcheck", "--shell=bash", "--severity=warning", "-"]
    checked = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_slurm_reads_every_line_that_is_for_it(script):
    """It stops reading at the first command, and takes blanks in an option for the next one."""
    lines = script.splitlines()
    first_command = next(
        number for number, line in enumerate(lines) if line and not line.startswith("#")
    )
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert max(options) < first_command
    assert all(len(lines[number].split()) == 2 for number in options)
    asked = {lines[number].split()[1].partition("=")[0] for number in options}
    assert asked >= {
        "--time", "--nodes", "--ntasks-per-node", "--job-name", "--output", "--open-mode",
        "--requeue", "--signal", "--exclusive",
    }  # fmt: skip
    assert "#SBATCH --open-mode=append" in lines
    assert "#SBATCH --signal=USR1@300" in lines


def test_sizes_and_times_are_written_as_slurm_reads_them():
    assert "#SBATCH --time=1-00:00:00\n" in SCRIPTS[0]
    assert "#SBATCH --time=0-01:30:00\n" in SCRIPTS[1]
    assert "#SBATCH --time=2-12:00:00\n" in SCRIPTS[2]
    assert "#SBATCH --nodes=4\n#SBATCH --ntasks-per-node=128\n" in SCRIPTS[1]


def test_partition_and_account_are_set_or_left_to_be_filled_in():
    assert "\n##SBATCH --partition=PARTITION\n##SBATCH --account=ACCOUNT\n" in SCRIPTS[0]
    assert "\n#SBATCH --partition=long,short\n##SBATCH --account=ACCOUNT\n" in SCRIPTS[1]
    both = make_script("primary", python="python3", partition="cpu", account="abc-12")
    assert "\n#SBATCH --partition=cpu\n#SBATCH --account=abc-12\n" in both
    assert "Remove one #" not in both


def test_srun_gets_the_command_whatever_is_in_a_name(play):
    done, called = play(SCRIPTS[1], 0)
    assert done.returncode == 0, done.stderr
    assert called == {
        "srun": [
            "--mpi=pmi2", "--cpu-bind=cores", "--distribution=block:block",
            "/opt/my env/bin/python", "-m", "minibutter", "sweep", "run", ODD,
            "--out", "results of $USER", "--lanes", "8", "--time-limit", "auto",
        ]
    }  # fmt: skip


def test_names_of_jobs_hold_nothing_that_slurm_would_read_differently():
    names = [
        line.split("=")[1]
        for script in SCRIPTS
        for line in script.splitlines()
        if line.startswith("#SBATCH --job-name")
    ]
    assert names == ["minibutter-primary", "minibutter-it_s__HOME___rm_", "minibutter-n"]
    assert all(shlex.quote(name) == name for name in names)


def test_ranks_start_no_threads(play, tmp_path):
    play(SCRIPTS[0], 0)
    assert (tmp_path / "srun.threads").read_text() == "1\n"


def test_a_job_whose_time_is_up_queues_itself_again(play):
    done, called = play(SCRIPTS[0], EXIT_TIME_IS_UP)
    assert called["scontrol"] == ["requeue", "7"]
    assert done.returncode == EXIT_TIME_IS_UP == 75


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130, 137])
def test_a_job_that_ended_otherwise_does_not(play, code):
    done, called = play(SCRIPTS[0], code)
    assert "scontrol" not in called
    assert done.returncode == code


def test_a_job_does_not_queue_itself_for_ever(play):
    script = make_script("primary", python="python3", max_restarts=3)
    assert "scontrol" in play(script, EXIT_TIME_IS_UP, SLURM_RESTART_COUNT="2")[1]
    done, called = play(script, EXIT_TIME_IS_UP, SLURM_RESTART_COUNT="3")
    assert "scontrol" not in called
    assert "sbatch this file to go on" in done.stderr
    assert done.returncode == EXIT_TIME_IS_UP


@pytest.mark.parametrize(
    ("library", "pmi"),
    [
        ("Open MPI v5.0.10, package: Open MPI", "pmix"),
        ("MPICH Version: 5.0.2", "pmi2"),
        ("MVAPICH Version: 4.0", "pmi2"),
        ("Intel(R) MPI Library 2021.12 for Linux* OS", "pmi2"),
        ("MPI VERSION : CRAY MPICH version 8.1.25.17 (ANL base 3.4a2)", "cray_shasta"),
        ("HP-MPI 2.3", "pmix"),
        (None, "pmix"),
    ],
)
def test_ranks_of_every_mpi_find_each_other(library, pmi):
    assert choose_pmi(library)[0] == pmi
    script = make_script("primary", python="python3", library=library)
    assert f"srun --mpi={pmi} " in script


def test_a_guess_says_that_it_is_one():
    assert choose_pmi("HP-MPI 2.3")[1] == "HP-MPI 2.3 is not known here: PMIx is a guess."
    assert "no MPI was found where this was written: PMIx is a guess." in SCRIPTS[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_limit": "5m"}, r"time limit = '5m': 300 s of it are for ending in good order"),
        ({"time_limit": "tomorrow"}, "must be written as in 2h"),
        ({"nodes": 0}, "nodes = 0, ranks per node = 32: must be at least 1 each"),
        ({"ranks_per_node": -1}, "ranks per node = -1"),
        ({"partition": "a b"}, "partition = 'a b': a name in Slurm has no blanks"),
        ({"account": ""}, "account = '': a name in Slurm"),
    ],
)
def test_a_job_that_cannot_be_is_refused(change, message):
    with pytest.raises(SweepError, match=message):
        make_script("primary", python="python3", **change)
