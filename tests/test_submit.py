"""`minibutter submit`: what is asked for stands in the script, and what cannot be is refused."""

import shutil
import subprocess

import pytest

from minibutter import launch


@pytest.fixture(autouse=True)
def no_mpi_is_asked(monkeypatch):
    monkeypatch.setattr(launch, "find_mpi_library", lambda: "MPICH Version: 5.0.2")


def test_a_script_has_all_that_was_asked_for_and_bash_reads_it(call):
    code, out, err = call(
        "submit", "--slurm", "--print", "primary", "--nodes", 4, "--ntasks-per-node", 128,
        "--time", "12h", "--partition", "cpu", "--account", "p123", "--out", "results/my runs",
        "--filter", "dataset=mnist and depth<=5", "--set", "epochs=300", "--set", "seed=1,2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    for option in ("nodes=4", "ntasks-per-node=128", "time=0-12:00:00", "partition=cpu",
                   "account=p123", "requeue"):  # fmt: skip
        assert f"\n#SBATCH --{option}\n" in out
    assert (
        "-m minibutter sweep run primary --set epochs=300 --set seed=1,2 --out 'results/my runs' "
        "--filter 'dataset=mnist and depth<=5' --time-limit auto || status=$?\n"
    ) in out
    assert '[ "$status" -eq 75 ]' in out
    checked = subprocess.run(["bash", "-n"], input=out, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")
    if shutil.which("shellcheck"):
        command = ["shellcheck", "--shell=bash", "--severity=warning", "-"]
        subprocess.run(command, input=out, text=True, timeout=60, check=True)


def test_options_that_are_not_given_are_not_in_the_script(call):
    code, out, _ = call("submit", "--slurm", "--print", "primary")
    assert code == 0
    assert "sweep run primary --time-limit auto" in out
    assert "##SBATCH --partition=PARTITION" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["primary"], "nothing is submitted from here: --slurm --print prints a script"),
        (["--slurm", "primary"], "nothing is submitted from here"),
        (["--slurm", "--print", "primray"], "primray"),
        (["--slurm", "--print", "primary", "--time", "5m"], "must be longer than that"),
        (["--slurm", "--print", "primary", "--nodes", "0"], "must be at least 1 each"),
        (["--slurm", "--print", "primary", "--partition", "a b"], "has no blanks"),
        (["--slurm", "--print", "primary", "--filter", "depht>3"], "did you mean depth?"),
        (["--slurm", "--print", "primary", "--lanes", "99"], "lanes = '99': must be auto"),
        (["--slurm", "--print", "primary", "--energy", "all"], "--energy all: must be one of"),
    ],
)
def test_a_job_that_would_fail_is_refused_before_it_waits_in_a_queue(call, arguments, message):
    code, out, err = call("submit", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
