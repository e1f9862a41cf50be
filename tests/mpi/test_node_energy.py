"""Energy of ranks that share a node, on a machine whose energy is known; every test starts mpirun.

Two ranks on CPUs of the first of two packages: 40 W each, 4 W for each memory, and joules a FLOP.
"""

import json

import pandas as pd
import pytest

from minibutter.energy.simulated import PowerModel, build

pytestmark = [pytest.mark.mpi, pytest.mark.long]

MODEL = PowerModel(
    joules_per_flop=1e-8, joules_per_byte={"l1": 0.0, "l2": 0.0, "l3": 0.0, "dram": 0.0}
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    machine = build(tmp_path / "machine", "intel_server2", MODEL)
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(machine.root))
    return machine


def sweep(launcher, out, *options, n_ranks=2, script=None, file=None):
    done = launcher.run(
        n_ranks, script or launcher.mpi_run, file or launcher.folder / "small.toml",
        "--out", out, "--lanes", 1, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def read(out):
    accounts = [json.loads(line) for line in (out / "node_energy.jsonl").read_text().splitlines()]
    return pd.read_parquet(out / "runs"), accounts


@pytest.mark.parametrize("mode", ["gang", "shared"])
def test_joules_of_a_node_are_attributed_idle_or_unattributed_and_none_is_lost(
    launcher, sweep_file, machine, mode
):
    out = launcher.folder / mode
    screen = sweep(launcher, out, "--energy", mode, "--idle-seconds", 0.4)
    runs, (account,) = read(out)
    assert account["mode"] == mode
    assert account["ranks"] == [0, 1]
    total_j = account["total_j"]
    parts_j = account["attributed_j"] + account["idle_j"] + account["unattributed_j"]
    assert parts_j == pytest.approx(total_j, rel=1e-6)
    assert abs(account["imbalance_j"]) <= 1e-6 * total_j
    assert runs["energy_dynamic_j"].sum() == pytest.approx(account["attributed_j"], rel=1e-9)
    # Against what was put in: idle power, and the work of all epochs.
    assert account["idle_before_w"] == pytest.approx(88.0, rel=0.02)
    assert account["idle_after_w"] == pytest.approx(88.0, rel=0.02)
    worked_j = (runs["flops_per_epoch"] * runs["epochs_completed"]).sum() * MODEL.joules_per_flop
    dynamic_j = account["attributed_j"] + account["unattributed_j"]
    # A tick at each end of the sleep is half a per cent of the idle power.
    assert dynamic_j == pytest.approx(worked_j, rel=0.02, abs=0.5 + 0.005 * account["idle_j"])
    assert set(runs["package"]) == {0}
    assert set(runs["energy_quality"]) == {"simulated"}
    assert set(runs["energy_mode"]) == {mode}
    assert set(runs["energy_reader_rank"]) == {0}
    is_sum = runs["energy_idle_j"] + runs["energy_dynamic_j"] - runs["energy_j"]
    assert is_sum.abs().max() < 1e-9
    assert f"energy of {account['hostname']}: {total_j:.1f} J = " in screen


@pytest.mark.parametrize("mode", ["gang", "shared"])
def test_what_is_read_after_the_end_of_a_job_is_not_counted(launcher, sweep_file, machine, mode):
    out = launcher.folder / mode
    script = launcher.scripts / "nosy_rank.py"
    sweep(launcher, out, "--energy", mode, "--idle-seconds", 0.2, script=script)
    _, (account,) = read(out)
    assert abs(account["imbalance_j"]) <= 1e-6 * account["total_j"]


def test_gangs_train_repetitions_of_one_experiment_at_the_same_time(launcher, sweep_file, machine):
    out = launcher.folder / "out"
    sweep(launcher, out, "--energy", "gang", "--idle-seconds", 0.2)
    runs, _ = read(out)
    pairs = 0
    for _, experiment in runs.groupby("experiment_id"):
        # Three repetitions on two ranks: a pair, and one that has the package for itself.
        assert sorted(experiment["energy_ranks"]) == [1, 2, 2]
        pair = experiment[experiment["energy_ranks"] == 2]
        assert set(pair["rank"]) == {0, 1}
        assert pair["begun_ns"].max() < pair["ended_ns"].min()
        spread_s = (pair["ended_ns"].max() - pair["ended_ns"].min()) / 1e9
        assert pair["finish_spread_s"].tolist() == pytest.approx([spread_s] * 2)
        if spread_s > 0.01:
            assert (pair["energy_tail_j"] > 40.0 * spread_s).all()
        alone = experiment[experiment["energy_ranks"] == 1]
        assert alone["finish_spread_s"].tolist() == [0.0]
        assert alone["energy_tail_j"].tolist() == [0.0]
        pairs += 1
    assert pairs == 4


def test_modes_of_energy_change_no_bit_of_the_metrics(launcher, sweep_file, machine):
    tables = {}
    for mode in ("auto", "shared", "gang"):
        sweep(launcher, launcher.folder / mode, "--energy", mode, "--idle-seconds", 0)
        tables[mode] = launcher.epochs_as_bits(launcher.folder / mode)
    for mode in ("shared", "gang"):
        pd.testing.assert_frame_equal(tables[mode], tables["auto"], check_exact=True)
    runs, (account,) = read(launcher.folder / "auto")
    assert set(runs["energy_mode"]) == {"shared"}
    assert runs["energy_idle_j"].isna().all()
    assert account["idle_j"] is None
    assert abs(account["imbalance_j"]) <= 1e-6 * account["total_j"]


@pytest.mark.parametrize("mode", ["gang", "shared"])
def test_one_rank_may_ask_for_the_idle_power_too(launcher, sweep_file, machine, mode):
    out = launcher.folder / "out"
    sweep(launcher, out, "--energy", mode, "--idle-seconds", 0.3, n_ranks=None)
    runs, (account,) = read(out)
    assert abs(account["imbalance_j"]) <= 1e-6 * account["total_j"]
    assert (runs["energy_ranks"] == 1).all()
    # Nothing but the runs works: what they were given is what they have declared.
    worked_j = (runs["flops_per_epoch"] * runs["epochs_completed"]).sum() * MODEL.joules_per_flop
    tolerance_j = 0.5 + 0.007 * account["idle_j"]
    assert account["attributed_j"] == pytest.approx(worked_j, rel=0.03, abs=tolerance_j)


@pytest.mark.parametrize("mode", ["gang", "shared"])
def test_without_counters_all_modes_work_and_say_why_there_are_no_joules(
    launcher, sweep_file, tmp_path, monkeypatch, mode
):
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(tmp_path / "nothing"))
    out = launcher.folder / "out"
    screen = sweep(launcher, out, "--energy", mode, "--idle-seconds", 5)
    runs = pd.read_parquet(out / "runs")
    assert (runs["status"] == "completed").all()
    assert runs["energy_j"].isna().all()
    assert runs["energy_mode"].isna().all()
    assert "energy: not measured: " in screen
    assert not (out / "node_energy.jsonl").exists()
    assert " 0.0 J" not in screen


def test_fault_29_kernels_are_told_apart_by_their_boot_ids(launcher, sweep_file, machine):
    """Four ranks on two kernels: two readers, two accounts, and gangs of two."""
    out = launcher.folder / "out"
    script = launcher.scripts / "two_boots.py"
    sweep(launcher, out, "--energy", "gang", "--idle-seconds", 0, n_ranks=4, script=script)
    runs, accounts = read(out)
    assert sorted(account["ranks"] for account in accounts) == [[0, 2], [1, 3]]
    assert {account["reader_rank"] for account in accounts} == {0, 1}
    readers = runs.groupby("rank")["energy_reader_rank"].unique().map(list).to_dict()
    assert all(reader == [rank % 2] for rank, reader in readers.items())
    assert runs["energy_ranks"].max() == 2


def test_what_has_no_meaning_is_refused_on_all_ranks(launcher, sweep_file):
    done = launcher.run(2, launcher.mpi_run, sweep_file, "--energy", "gang", "--idle-seconds", -1)
    assert done.returncode == 2
    assert done.stderr.count("idle_s = -1.0: must be a number of seconds, from 0") == 1
    done = launcher.run(None, launcher.mpi_run, sweep_file, "--energy", "most")
    assert done.returncode == 2
    assert "'most'" in done.stderr
