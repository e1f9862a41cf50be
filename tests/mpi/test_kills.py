"""Jobs that are killed, stopped or split at any moment end with the rows of an undisturbed one;
every test here starts processes."""

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from minibutter import store
from minibutter.energy.simulated import PowerModel, build
from minibutter.launch.stopping import SAME_S
from tests.mpi.conftest import Launcher
from tests.mpi.killing import kill_family

pytestmark = [pytest.mark.mpi, pytest.mark.long]

PART = ("--filter", "shape != exponential")
"""Of the sweep: two long runs and all short ones."""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Four runs that take some seconds each, and a dozen that take less than a tenth of one."""
    path = tmp_path_factory.mktemp("sweep") / "mixed.toml"
    path.write_text(
        'dataset = "digits"\n'
        "depth = 4\n"
        "learning_rate = 1e-3\n"
        "l2 = 1e-4\n"
        "label_noise = 0.1\n"
        "evaluate_train = true\n"
        "[[grid]]\n"
        'shape = ["rectangle_residual", "exponential"]\n'
        "size = 20000\n"
        "batch_size = 64\n"
        "epochs = 240\n"
        "repetitions = 2\n"
        "[[grid]]\n"
        'shape = "rectangle"\n'
        "size = [500, 700, 900]\n"
        "epochs = 8\n"
        "repetitions = 4\n"
    )
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, sweep):
    """Both tables as bits, of a job that nobody has disturbed."""
    launcher = Launcher(tmp_path_factory.mktemp("undisturbed"))
    out = launcher.folder / "out"
    done = launcher.run(2, launcher.mpi_run, sweep, "--lanes", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert not (out / "checkpoints").exists()
    return launcher.runs_as_bits(out), launcher.epochs_as_bits(out)


def assert_same(launcher, out, undisturbed, is_part=True):
    runs, epochs = undisturbed
    assert len(runs) == 4 + 12
    if is_part:
        runs = runs[runs["shape"] != "exponential"].reset_index(drop=True)
        epochs = epochs[epochs["run_id"].isin(runs["run_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(launcher.runs_as_bits(out), runs, check_exact=True)
    pd.testing.assert_frame_equal(launcher.epochs_as_bits(out), epochs, check_exact=True)


def finish(launcher, sweep, out, *arguments, n_ranks=None):
    """Start it once more, and let it end."""
    done = launcher.run(n_ranks, launcher.mpi_run, sweep, "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    assert not list((out / "checkpoints").glob("*"))
    return done


def wait_for(job, condition):
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s, "nothing has happened in two minutes"
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------
# Kills


def test_twenty_kills_at_random_moments_change_no_bit(launcher, sweep, undisturbed):
    """Fourteen of single processes, six of two or three ranks: of one of them, or of all.

    A kill that comes too late, as all is done already, does not count: another directory follows.
    """
    rng = random.Random(20261121)
    outs = [launcher.folder / "out-0"]

    def arguments():
        """How runs are packed may change from start to start, and so may what is to do."""
        part = rng.choice([(), (), ("--filter", "size < 1000")])
        return [
            str(sweep),
            "--out",
            str(outs[-1]),
            "--lanes",
            rng.choice(["1", "2", "4", "auto"]),
            *part,
        ]

    def begin_another():
        outs.append(launcher.folder / f"out-{len(outs)}")
        assert len(outs) < 20, "most kills come too late"

    starts, n_alone = launcher.folder / "starts.json", 0
    while n_alone < 14:
        moments = [(rng.uniform(0.05, 0.5), arguments()) for _ in range(14 - n_alone)]
        starts.write_text(json.dumps(moments))
        alone = launcher.run(None, launcher.scripts / "often_killed.py", starts)
        assert alone.returncode == 0, alone.stderr
        n_hit = int(alone.stdout)
        n_alone += n_hit
        if n_hit < len(moments):
            begin_another()
    n_together = 0
    while n_together < 6:
        n_ranks, seconds = rng.choice([2, 3]), rng.uniform(0.8, 1.7)
        command = (n_ranks, launcher.scripts / "frequent_writing.py", *arguments())
        if n_together % 2:
            victim = rng.randrange(n_ranks)
            died = launcher.run(*command, MINIBUTTER_TEST_DEATH=f"{victim} {seconds}")
            has_hit = died.returncode != 0
        else:
            job = launcher.start(*command)
            time.sleep(seconds + 0.5)
            kill_family(job.pid)
            job.communicate(timeout=30)
            has_hit = job.returncode == -signal.SIGKILL
        n_together += has_hit
        if not has_hit:
            begin_another()
    most_parts = 0
    for out in filter(Path.exists, outs):
        before = store.kept_epochs(out)
        finish(launcher, sweep, out)
        assert_same(launcher, out, undisturbed, is_part=False)
        parts = pd.read_parquet(out / "runs").set_index("run_id")["parts"]
        assert (parts[list(before)] > 1).all()
        most_parts = max(most_parts, parts.max())
    assert most_parts > 1


def test_damaged_and_foreign_files_are_reported_and_cost_only_time(launcher, sweep, undisturbed):
    out = launcher.folder / "out"
    script, small = launcher.scripts / "frequent_writing.py", ("--filter", "size < 1000")
    launcher.run(None, script, sweep, "--out", out, "--lanes", 1, *small)
    job = launcher.start(None, script, sweep, "--out", out, "--lanes", 2, *PART)
    wait_for(job, lambda: len(store.kept_epochs(out)) == 2)
    kill_family(job.pid)
    job.communicate(timeout=30)
    truncated, empty, unknown, *_ = sorted((out / "runs").glob("part-*"))
    truncated.write_bytes(truncated.read_bytes()[:-100])
    empty.write_bytes(b"")
    pd.DataFrame({"a": [1]}).to_parquet(unknown)
    (out / "epochs" / "notes.txt").write_text("of somebody else")
    (checkpoint, *_) = sorted((out / "checkpoints").glob("[!.]*.npz"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    again = finish(launcher, sweep, out, *PART)
    for damaged in (truncated, empty, unknown):
        assert f"{damaged} is " in again.stdout
    assert "notes.txt is not a shard" in again.stdout
    assert f"{checkpoint} is damaged" in again.stderr
    assert again.stderr.count("is not used, it starts anew") == 1
    assert_same(launcher, out, undisturbed)
    assert pd.read_parquet(out / "runs").set_index("run_id")["parts"][checkpoint.stem] == 1


def test_a_full_disk_costs_checkpoints_and_no_run(launcher):
    path = launcher.folder / "large.toml"
    path.write_text('dataset = "digits"\nwidths = [300, 300, 10]\nepochs = 3\nrepetitions = 2\n')
    for out, script in (("whole", launcher.mpi_run), ("full", launcher.scripts / "small_files.py")):
        done = launcher.run(None, script, path, "--lanes", 1, "--out", out)
        assert done.returncode == 0, done.stderr
    assert done.stderr.count("rank 0: a checkpoint cannot be written") == 2
    assert "File too large" in done.stderr
    assert not list((launcher.folder / "full" / "checkpoints").iterdir())
    pd.testing.assert_frame_equal(
        launcher.epochs_as_bits(launcher.folder / "full"),
        launcher.epochs_as_bits(launcher.folder / "whole"),
        check_exact=True,
    )


# ---------------------------------------------------------------------------------------------
# Signals and time limits


def rank_processes(job):
    """Process ids of the ranks of a job, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            of_this_job = f"MINIBUTTER_TEST_JOB={job}".encode() in variables
            ranks = [each for each in variables if each.startswith(b"PMI_RANK=")]
            if of_this_job and ranks:
                found[int(ranks[0].partition(b"=")[2])] = int(folder.name)
    return found


@pytest.mark.parametrize("n_ranks", [None, 2])
def test_a_signal_keeps_the_runs_in_progress_and_they_go_on(launcher, sweep, undisturbed, n_ranks):
    """Of two ranks only the second hears it, and the first follows."""
    out = launcher.folder / "out"
    script = launcher.scripts / "frequent_writing.py"
    command = (sweep, "--out", out, "--lanes", 1, *PART)
    job = launcher.start(n_ranks, script, *command, MINIBUTTER_TEST_JOB=str(out))
    wait_for(job, lambda: len(store.kept_epochs(out)) == (n_ranks or 1))
    number = signal.SIGUSR1 if n_ranks is None else signal.SIGTERM
    os.kill(job.pid if n_ranks is None else rank_processes(out)[1], number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 75, errors
    assert errors == ""
    kept = store.kept_epochs(out)
    assert len(kept) == (n_ranks or 1)
    assert not list((out / "runs").glob("*"))
    again = finish(launcher, sweep, out, *PART, n_ranks=2 if n_ranks is None else None)
    assert f"{len(kept)} go on from a checkpoint" in again.stdout
    assert_same(launcher, out, undisturbed)
    parts = pd.read_parquet(out / "runs").set_index("run_id")["parts"]
    assert (parts[list(kept)] == 2).all()


def test_a_second_signal_ends_all_ranks_at_once(launcher, sweep):
    out = launcher.folder / "out"
    job = launcher.start(2, launcher.scripts / "endless_epoch.py", sweep, "--out", out)
    wait_for(job, (launcher.folder / "endless-epoch").exists)
    begun_s = time.monotonic()
    for _ in range(2):
        job.send_signal(signal.SIGUSR1)
        time.sleep(2 * SAME_S)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 75, errors
    assert "SIGUSR1 came twice: left at once" in errors
    assert "Traceback" not in errors
    assert time.monotonic() - begun_s < 20


def test_runs_that_are_longer_than_a_job_end_after_some_jobs(launcher, sweep, undisturbed):
    out = launcher.folder / "out"
    codes, script = [], launcher.scripts / "slow_epochs.py"
    while not codes or codes[-1] == 75:
        limit = ("--lanes", 1, "--time-limit", f"{4 + 2 * len(codes)}s")
        done = launcher.run(None, script, sweep, "--out", out, *PART, *limit)
        codes.append(done.returncode)
        assert len(codes) < 20, done.stdout
    assert codes == [*[75] * (len(codes) - 1), 0]
    assert len(codes) >= 2
    assert_same(launcher, out, undisturbed)
    assert pd.read_parquet(out / "runs")["parts"].max() > 1


# ---------------------------------------------------------------------------------------------
# Shards


def test_four_shards_that_share_a_directory_at_the_same_time_are_the_sweep(
    launcher, sweep, undisturbed
):
    out = launcher.folder / "out"
    jobs = [
        launcher.start(None, launcher.mpi_run, sweep, "--out", out, *PART, "--shard", f"{part}/4")
        for part in (1, 2, 3, 4)
    ]
    for job in jobs:
        _, errors = job.communicate(timeout=120)
        assert (job.returncode, errors) == (0, "")
    assert_same(launcher, out, undisturbed)
    assert len(list((out / "runs").glob("*"))) == len(list((out / "epochs").glob("*"))) >= 4
    assert not (out / "quarantine").exists()
    # Whoever ended last has summarised all.
    assert pd.read_parquet(out / "summary" / "experiments.parquet")["num_runs"].sum() == 14


# ---------------------------------------------------------------------------------------------
# Energy


@pytest.mark.parametrize("mode", ["gang", "shared"])
def test_the_account_of_a_job_has_what_it_measured_and_not_what_a_killed_one_did(
    launcher, sweep, tmp_path, monkeypatch, mode
):
    # Whatever the speed of this machine, less than what such a package draws at most.
    machine = build(tmp_path / "machine", "intel_server2", PowerModel(joules_per_flop=1e-9))
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(machine.root))
    out = launcher.folder / "out"
    arguments = (sweep, "--filter", "shape = rectangle_residual", "--lanes", 1, "--out", out)
    arguments += ("--energy", mode, "--idle-seconds", 0.2)
    job = launcher.start(2, launcher.scripts / "frequent_writing.py", *arguments)
    wait_for(job, lambda: store.kept_epochs(out))
    kill_family(job.pid)
    job.communicate(timeout=30)
    done = launcher.run(2, launcher.mpi_run, *arguments)
    assert done.returncode == 0, done.stderr
    (account,) = map(json.loads, (out / "node_energy.jsonl").read_text().splitlines())
    runs = pd.read_parquet(out / "runs")
    resumed = runs["parts"] > 1
    assert resumed.any()
    assert (runs["energy_dynamic_j"] > 0).all()
    assert account["attributed_j"] < runs["energy_dynamic_j"].sum()
    assert account["attributed_j"] >= runs["energy_dynamic_j"][~resumed].sum()
    assert abs(account["imbalance_j"]) <= 1e-5 * account["total_j"]
    # Between runs nothing works; how much is read for it depends on ticks of the counters.
    assert abs(account["unattributed_j"]) <= 0.05 * account["total_j"]
    assert runs["begun_ns"].isna().tolist() == resumed.tolist()
    if mode == "gang":
        assert runs["finish_spread_s"].notna().all()
