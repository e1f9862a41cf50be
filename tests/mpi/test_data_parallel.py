"""One network over many ranks; every test here starts mpirun."""

import os
import time

import pandas as pd
import pytest

from minibutter.energy.simulated import PowerModel, build
from tests.mpi.conftest import Launcher

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def sliced_sweep(tmp_path_factory):
    """Two runs with slices, of other rules and types, and one without; the last batch is small."""
    path = tmp_path_factory.mktemp("sweep") / "sliced.toml"
    path.write_text(
        'dataset = "digits"\n'
        "depth = 4\n"
        "size = 1800\n"
        "learning_rate = 1e-2\n"
        "batch_size = 70\n"
        "epochs = 3\n"
        "l2 = 1e-4\n"
        "evaluate_train = true\n"
        "[[grid]]\n"
        'shape = "rectangle_residual"\n'
        "slices = [1, 5]\n"
        "[[grid]]\n"
        'optimizer = "rmsprop"\n'
        "momentum = 0.9\n"
        'dtype = "float64"\n'
        "slices = 2\n"
    )
    return path


@pytest.fixture(scope="module")
def done_without_mpi(tmp_path_factory, sliced_sweep):
    """Where a process without mpirun has put the tables of that sweep; not to be written to."""
    launcher = Launcher(tmp_path_factory.mktemp("alone"))
    done = launcher.run(None, launcher.mpi_run, sliced_sweep, "--out", "out")
    assert done.returncode == 0, done.stderr
    return launcher.folder / "out"


def test_one_two_three_ranks_and_no_mpi_train_sliced_runs_to_the_same_bits(
    launcher, sliced_sweep, done_without_mpi
):
    tables = {}
    for n_ranks in (None, 1, 2, 3):
        out = done_without_mpi
        if n_ranks is not None:
            out = launcher.folder / f"ranks-{n_ranks}"
            done = launcher.run(n_ranks, launcher.mpi_run, sliced_sweep, "--out", out)
            assert done.returncode == 0, done.stderr
        tables[n_ranks] = launcher.epochs_as_bits(out)
        runs = pd.read_parquet(out / "runs").set_index("slices")
        present = n_ranks or 1
        # The third rank has no part in a run of two slices.
        expected = {1: 1, 2: min(2, present), 5: present}
        assert runs["ranks_together"].to_dict() == expected
        assert (runs.loc[[2, 5], "rank"] == 0).all()
        assert (runs["status"] == "completed").all()
    assert len(tables[None]) == 3 * 3
    for n_ranks in (1, 2, 3):
        pd.testing.assert_frame_equal(tables[n_ranks], tables[None], check_exact=True)


def test_train_shares_out_a_network_and_says_what_it_does(launcher, call):
    network = ("--dataset", "digits", "--widths", "32,10", "--epochs", 2, "--batch-size", 256)
    arguments = ("train", *network, "--data-parallel", "--out")
    done = launcher.run(3, "-m", "minibutter", *arguments, "out")
    assert done.returncode == 0, done.stderr
    assert "1 run is trained by all ranks together" in done.stdout
    assert "1 rank sleeps in runs of 2 slices" in done.stdout
    assert "take longer on many ranks than on one" in done.stdout
    (run,) = pd.read_parquet(launcher.folder / "out" / "runs").to_dict("records")
    assert (run["slices"], run["ranks_together"], run["n_ranks"]) == (2, 2, 3)
    code, screen, errors = call(*arguments, launcher.folder / "alone")
    assert code == 0, errors
    assert "together" not in screen
    pd.testing.assert_frame_equal(
        launcher.epochs_as_bits(launcher.folder / "out"),
        launcher.epochs_as_bits(launcher.folder / "alone"),
        check_exact=True,
    )


def test_a_rank_that_raises_within_a_step_ends_the_job_with_its_traceback(launcher, sliced_sweep):
    script = launcher.scripts / "raising_slice.py"
    started_s = time.monotonic()
    done = launcher.run(2, script, sliced_sweep, "--out", "out")
    assert done.returncode != 0
    assert "rank 1 of 2 failed" in done.stderr
    assert "ZeroDivisionError: the planted bug" in done.stderr
    assert time.monotonic() - started_s < 120


def test_a_signal_to_one_rank_ends_all_after_the_run_and_the_same_command_goes_on(
    launcher, sliced_sweep, done_without_mpi
):
    stopped = launcher.folder / "stopped"
    script = launcher.scripts / "signalled_slice.py"
    done = launcher.run(2, script, "SIGUSR1", sliced_sweep, "--out", stopped)
    assert done.returncode == 75, done.stderr
    (run,) = pd.read_parquet(stopped / "runs").to_dict("records")
    assert run["slices"] > 1
    again = launcher.run(3, launcher.mpi_run, sliced_sweep, "--out", stopped)
    assert again.returncode == 0, again.stderr
    pd.testing.assert_frame_equal(
        launcher.epochs_as_bits(stopped),
        launcher.epochs_as_bits(done_without_mpi),
        check_exact=True,
    )


def test_an_interrupt_within_a_step_of_one_rank_ends_all(launcher, sliced_sweep):
    started_s = time.monotonic()
    script = launcher.scripts / "signalled_slice.py"
    done = launcher.run(2, script, "SIGINT", sliced_sweep, "--out", "out")
    assert done.returncode not in (0, 75)
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started_s < 120


def test_a_run_for_which_time_is_too_short_is_left_for_shorter_ones(launcher, sliced_sweep):
    """Not begun by any rank: the others would wait for it."""
    arguments = ("--set", "epochs=3,10000000", "--filter", "slices > 1")
    arguments += ("--time-limit", "60s", "--out", "out")
    started_s = time.monotonic()
    done = launcher.run(2, launcher.mpi_run, sliced_sweep, *arguments)
    assert done.returncode == 75, done.stderr
    assert time.monotonic() - started_s < 50
    runs = pd.read_parquet(launcher.folder / "out" / "runs")
    assert sorted(runs["slices"]) == [2, 5]
    assert (runs["epochs"] == 3).all()


def test_a_run_that_one_rank_cannot_prepare_is_a_stored_result(launcher, sliced_sweep):
    script = launcher.scripts / "unprepared_rank.py"
    done = launcher.run(2, script, sliced_sweep, "--out", "out")
    assert done.returncode == 3, done.stderr
    runs = pd.read_parquet(launcher.folder / "out" / "runs").set_index("slices")
    assert runs["status"].to_dict() == {1: "completed", 2: "failed", 5: "failed"}
    assert set(runs.loc[[2, 5], "error"].str.contains("rank 1 has no room")) == {True}


def test_ranks_on_processors_of_several_kinds_are_refused(launcher, sliced_sweep):
    done = launcher.run(2, launcher.scripts / "two_processors.py", sliced_sweep, "--out", "out")
    assert done.returncode == 2
    assert done.stderr.count("rank 0 has processor 0 and rank 1 processor 1") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", ["auto", "shared", "gang"])
def test_joules_of_a_run_are_those_of_all_its_ranks(launcher, sliced_sweep, monkeypatch, mode):
    joules_per_flop = 1e-7
    model = PowerModel(
        joules_per_flop=joules_per_flop,
        joules_per_byte={"l1": 0.0, "l2": 0.0, "l3": 0.0, "dram": 0.0},
    )
    machine = build(launcher.folder / "machine", "intel_server2", model)
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(machine.root))
    # Long enough for ranks that begin and end a little apart on a busy machine.
    arguments = ("--out", "out", "--energy", mode, "--idle-seconds", 0.3, "--set", "epochs=60")
    done = launcher.run(2, launcher.mpi_run, sliced_sweep, *arguments)
    assert done.returncode == 0, done.stderr
    runs = pd.read_parquet(launcher.folder / "out" / "runs")
    together = runs[runs["slices"] > 1]
    assert len(together) == 2
    # Both ranks of the package have worked on the run: it has all of the package's joules.
    assert together["energy_j"].to_numpy() == pytest.approx(
        together["energy_package_j"].to_numpy(), rel=0.1
    )
    assert (together["energy_ranks"] == 2).all()
    if mode == "auto":
        return
    worked_j = together["flops_per_epoch"] * together["epochs_completed"] * joules_per_flop
    assert together["energy_dynamic_j"].to_numpy() == pytest.approx(worked_j, rel=0.1)


def test_ranks_may_share_a_core(launcher, sliced_sweep):
    """A rank that spins gives the core to the one that it waits for."""
    core = min(os.sched_getaffinity(0))
    started_s = time.monotonic()
    script = launcher.scripts / "on_one_core.py"
    done = launcher.run(3, script, core, sliced_sweep, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started_s < 120
