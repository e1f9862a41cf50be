"""The same rows from any number of ranks, after any end; every test here starts mpirun."""

import shutil
import signal
import time

import pandas as pd
import pytest

from minibutter import store

pytestmark = pytest.mark.mpi


def test_one_two_three_ranks_and_no_mpi_give_the_same_bits(launcher, sweep_file, done_by_two):
    tables = {2: launcher.epochs_as_bits(done_by_two)}
    for n_ranks in (None, 1, 3):
        out = launcher.folder / f"ranks-{n_ranks}"
        done = launcher.run(n_ranks, launcher.mpi_run, sweep_file, "--out", out)
        assert done.returncode == 0, done.stderr
        tables[n_ranks] = launcher.epochs_as_bits(out)
    assert len(tables[None]) == 12 * 12
    for n_ranks in (1, 2, 3):
        pd.testing.assert_frame_equal(tables[n_ranks], tables[None], check_exact=True)


def test_lanes_change_no_bit_on_any_number_of_ranks(launcher, sweep_file):
    tables = {}
    for lanes, n_ranks, n_packed in ((1, 2, {1}), (2, 3, {1, 2}), (16, None, {3})):
        out = launcher.folder / f"lanes-{lanes}"
        arguments = (launcher.mpi_run, sweep_file, "--out", out, "--lanes", lanes)
        done = launcher.run(n_ranks, *arguments)
        assert done.returncode == 0, done.stderr
        assert set(pd.read_parquet(out / "runs")["lanes"]) == n_packed
        tables[lanes] = launcher.epochs_as_bits(out)
    for lanes in (2, 16):
        pd.testing.assert_frame_equal(tables[lanes], tables[1], check_exact=True)


def test_every_rank_does_its_share_and_says_so_in_the_runs_table(done_by_two):
    runs = pd.read_parquet(done_by_two / "runs")
    done = runs["rank"].value_counts()
    assert set(done.index) == {0, 1}
    assert done.sum() == 12
    assert (runs["n_ranks"] == 2).all()


def test_a_rank_that_raises_ends_the_whole_job_with_its_traceback(launcher, sweep_file):
    script = launcher.scripts / "raising_rank.py"
    started_s = time.monotonic()
    done = launcher.run(2, script, sweep_file, "--out", "out")
    assert done.returncode != 0
    assert "rank 1 of 2 failed" in done.stderr
    assert "ZeroDivisionError: the planted bug" in done.stderr
    assert "execute_with_a_bug" in done.stderr
    assert time.monotonic() - started_s < 120


@pytest.mark.parametrize("n_ranks", [None, 2])
def test_a_full_disk_ends_the_job_with_one_line_and_code_2(launcher, sweep_file, n_ranks):
    script = launcher.scripts / "full_disk.py"
    done = launcher.run(n_ranks, script, sweep_file, "--out", launcher.folder / "out")
    assert done.returncode == 2
    assert "No space left on device): free some space" in done.stderr
    assert "the same command then goes on from here" in done.stderr
    assert "Traceback" not in done.stderr
    again = launcher.run(n_ranks, launcher.mpi_run, sweep_file, "--out", launcher.folder / "out")
    assert again.returncode == 0, again.stderr


def test_a_job_that_is_compacted_and_read_while_it_runs_ends_with_the_same_rows(
    launcher, sweep_file, done_by_two
):
    out = launcher.folder / "out"
    script = launcher.scripts / "prompt_shards.py"
    job = launcher.start(2, script, sweep_file, "--lanes", 1, "--out", out)
    seen, n_compactions = [0], 0
    while job.poll() is None:
        if len(list(out.glob("runs/*.parquet"))) < 2:
            time.sleep(0.02)
            continue
        n_compactions += store.compact(out).files_after == 2
        epochs = store.read_epochs(out)
        assert epochs.attrs["problems"] == []
        counts = epochs.groupby("run_id").size()
        assert set(counts) == {12}
        seen.append(len(counts))
    assert job.returncode == 0, job.stderr.read()
    job.stderr.close()
    assert n_compactions > 1
    assert seen == sorted(seen)
    pd.testing.assert_frame_equal(
        launcher.epochs_as_bits(out), launcher.epochs_as_bits(done_by_two), check_exact=True
    )
    assert pd.read_parquet(out / "runs")["run_id"].is_unique


def test_ctrl_c_ends_all_ranks_with_one_line_and_the_job_goes_on_later(launcher, sweep_file):
    script = launcher.scripts / "prompt_shards.py"
    job = launcher.start(2, script, sweep_file, "--out", "out")
    runs_folder = launcher.folder / "out" / "runs"
    deadline_s = time.monotonic() + 120
    while not list(runs_folder.glob("*.parquet")):
        assert time.monotonic() < deadline_s, "the job closed no shard in two minutes"
        time.sleep(0.02)
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    assert "Traceback" not in errors
    again = launcher.run(2, launcher.mpi_run, sweep_file, "--out", "out")
    assert again.returncode == 0, again.stderr
    assert pd.read_parquet(runs_folder)["run_id"].is_unique


def test_a_finished_sweep_started_again_trains_nothing(launcher, sweep_file, done_by_two):
    shutil.copytree(done_by_two, launcher.folder / "out")
    before = sorted((launcher.folder / "out" / "epochs").iterdir())
    again = launcher.run(2, launcher.mpi_run, sweep_file, "--out", "out")
    assert again.returncode == 0
    assert "0 runs of 4 experiments to do, 12 already done" in again.stdout
    assert sorted((launcher.folder / "out" / "epochs").iterdir()) == before


def test_a_mistake_is_printed_once_and_ends_all_ranks_with_2(launcher):
    (launcher.folder / "typo.toml").write_text('dataset = "digits"\nsize = 700\ndept = 3\n')
    done = launcher.run(3, launcher.mpi_run, "typo.toml")
    assert done.returncode == 2
    assert done.stderr.count("did you mean depth?") == 1
    assert "Traceback" not in done.stderr


def test_the_command_minibutter_runs_under_mpirun_too(launcher, sweep_file):
    done = launcher.run(2, "-m", "minibutter", "sweep", "run", sweep_file, "--out", "out")
    assert done.returncode == 0, done.stderr
    runs = pd.read_parquet(launcher.folder / "out" / "runs")
    assert set(runs["rank"]) == {0, 1}


def test_a_time_limit_ends_in_good_order_with_code_75_on_all_ranks(launcher, sweep_file):
    out = launcher.folder / "out"
    script = launcher.scripts / "slow_runs.py"
    done = launcher.run(2, script, sweep_file, "--out", out, "--lanes", 1, "--time-limit", "4s")
    assert done.returncode == 75, done.stderr
    assert len(pd.read_parquet(out / "runs")) < 12


def test_a_time_limit_that_is_none_is_refused_once(launcher, sweep_file):
    done = launcher.run(2, launcher.mpi_run, sweep_file, "--time-limit", "soon")
    assert done.returncode == 2
    assert done.stderr.count("time limit = 'soon'") == 1


def test_who_is_free_gets_the_next_run(launcher, sweep_file):
    """Rank 1 takes a second longer for every run: rank 0 does more of them."""
    out = launcher.folder / "out"
    script = launcher.scripts / "slow_rank.py"
    done = launcher.run(2, script, sweep_file, "--out", out, "--lanes", 1)
    assert done.returncode == 0, done.stderr
    counts = pd.read_parquet(out / "runs")["rank"].value_counts()
    assert counts[0] >= 2 * counts[1]
