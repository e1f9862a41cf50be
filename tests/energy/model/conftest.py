"""Tables of a machine whose joules follow known coefficients, read through counters that tick."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from minibutter.energy.model import EPOCH_COLUMNS

CACHES = {"l1": 32 * 2**10, "l2": 512 * 2**10, "l3": 8 * 2**20}

PLANTED = {
    "static_power_w": 35.0,
    "energy_per_flop_j": 4e-10,
    "energy_per_l1_byte_j": 5e-11,
    "energy_per_l2_byte_j": 2e-10,
    "energy_per_l3_byte_j": 8e-10,
    "energy_per_dram_byte_j": 3e-9,
}


@dataclass(frozen=True)
class Tables:
    """`runs` and `epochs` as the store hands them out."""

    runs: pd.DataFrame
    epochs: pd.DataFrame


def make_runs(n_experiments: int, rng: np.random.Generator, repetitions: int = 2) -> pd.DataFrame:
    """Runs of random networks: what is known of each before it starts, and its true seconds."""
    n = n_experiments
    num_parameters = 2 ** rng.uniform(8, 22, n)
    n_train = rng.choice([1000.0, 4000.0, 16000.0], n)
    batch_size = rng.choice([32.0, 64.0, 256.0], n)
    depth = rng.integers(2, 9, n).astype(float)
    flops = 6 * num_parameters * n_train
    l1 = flops * 2 ** rng.uniform(-1, 3, n)
    l2 = l1 * 2 ** rng.uniform(-5, -1, n)
    working_set = 8 * num_parameters + 4 * batch_size * num_parameters**0.5 * depth
    l3 = np.where(working_set > CACHES["l2"], l2 * 2 ** rng.uniform(-3, 0, n), 0.0)
    dram = np.where(working_set > CACHES["l3"], l3 * 2 ** rng.uniform(-3, 0, n), 0.0)
    n_steps = np.ceil(n_train / batch_size)
    seconds = n_steps * 5e-6 + flops / 40e9 + l2 / 60e9 + dram / 10e9
    seconds *= rng.lognormal(0, 0.3, n)
    experiments = pd.DataFrame(
        {
            "experiment_id": [f"e{i:04d}" for i in range(n)],
            "status": "completed",
            "cpu_model": "a processor",
            "kernel": "tiled",
            "dtype": "float32",
            "lanes": 1,
            "n_train": n_train,
            "batch_size": batch_size,
            "depth": depth,
            "flops_per_epoch": flops,
            "traffic_l1_bytes": l1,
            "traffic_l2_bytes": l2,
            "traffic_l3_bytes": l3,
            "traffic_dram_bytes": dram,
            "working_set_bwd_layer_bytes": 4 * batch_size * num_parameters**0.5,
            "working_set_parameter_bytes": working_set - 4 * num_parameters,
            "working_set_parameter2x_bytes": working_set,
            "working_set_parameter2x_dataset_bytes": working_set + 4 * 64 * n_train,
            "true_seconds": seconds,
        }
    )
    runs = experiments.loc[experiments.index.repeat(repetitions)].reset_index(drop=True)
    runs["run_id"] = [f"r{i:05d}" for i in range(len(runs))]
    return runs


def true_energy_j(runs: pd.DataFrame, planted: dict[str, float] = PLANTED) -> np.ndarray:
    """Joules of an epoch by the planted coefficients."""
    columns = ["true_seconds", "flops_per_epoch"]
    columns += [f"traffic_{level}_bytes" for level in ("l1", "l2", "l3", "dram")]
    return runs[columns].to_numpy(float) @ np.array(list(planted.values()))


def measure(
    runs: pd.DataFrame,
    energy_j: np.ndarray,
    rng: np.random.Generator,
    run_s: float = 2.0,
    tick_s: float = 1e-3,
    source: str = "powercap:package",
) -> Tables:
    """Train each run for about `run_s` and read a counter that advances every `tick_s`.

    Epochs under 10 ms have no energy of their own, as with the meter.
    """
    parts = []
    totals = []
    for run, joules in zip(runs.itertuples(), energy_j, strict=True):
        n_epochs = int(np.clip(run_s / run.true_seconds, 1, 200))
        duration_s = run.true_seconds * rng.lognormal(0, 0.003, n_epochs)
        power_w = joules / run.true_seconds
        moments_s = rng.uniform(0, tick_s) + np.concatenate([[0.0], np.cumsum(duration_s)])
        counter_j = np.floor(moments_s / tick_s) * tick_s * power_w
        energies = np.where(duration_s >= 0.010, np.diff(counter_j), np.nan)
        quality = np.where(np.isnan(energies), "unavailable", "measured")
        parts.append(
            pd.DataFrame(
                {
                    "run_id": run.run_id,
                    "duration_s": duration_s,
                    "energy_j": energies,
                    "energy_source": np.where(np.isnan(energies), None, source),
                    "energy_quality": quality,
                }
            )
        )
        totals.append((n_epochs, duration_s.sum(), counter_j[-1] - counter_j[0]))
    n_epochs, duration_s, total_j = map(np.array, zip(*totals, strict=True))
    is_long = duration_s >= 0.010
    runs = runs.assign(
        epochs_completed=n_epochs,
        duration_s=duration_s,
        energy_j=np.where(is_long, total_j, np.nan),
        energy_source=np.where(is_long, source, None),
        energy_quality=np.where(is_long, "measured", "unavailable"),
        energy_reason=np.where(is_long, None, "too short"),
    )
    return Tables(runs, pd.concat(parts, ignore_index=True))


def fabricate(
    n_experiments: int = 60,
    seed: int = 1,
    repetitions: int = 2,
    spread: float = 0.0,
    planted: dict[str, float] = PLANTED,
    **options,
) -> Tables:
    """Tables of random networks on the planted machine.

    `spread` is the relative deviation of an experiment's joules from the model; `options` are those
    of `measure`.
    """
    rng = np.random.default_rng(seed)
    runs = make_runs(n_experiments, rng, repetitions)
    deviation = rng.lognormal(0, spread, n_experiments).repeat(repetitions)
    return measure(runs, true_energy_j(runs, planted) * deviation, rng, **options)


def share_packages(
    n_experiments: int = 40,
    repetitions: int = 3,
    seed: int = 1,
    n_boots: int = 1,
    n_packages: int = 2,
    n_ranks: int = 4,
    is_gang: bool = False,
    lanes: int = 1,
    spread: float = 0.0,
    planted: dict[str, float] = PLANTED,
) -> Tables:
    """Runs beside each other on packages, whose energies are exact.

    Every package has `n_ranks` ranks, each with one run after the other; the repetitions of a gang
    begin together and end when they end. `energy_j` is the rank's share by processor time.
    """
    rng = np.random.default_rng(seed)
    runs = make_runs(n_experiments, rng, repetitions)
    deviation = rng.lognormal(0, spread, n_experiments).repeat(repetitions)
    completed = np.clip(2.0 / runs["true_seconds"], 1, 200).astype(int)
    completed = (completed * rng.uniform(0.5, 1.0, len(runs))).astype(int).clip(1)
    pace = rng.lognormal(0, 0.05, len(runs))
    runs = runs.assign(epochs_completed=completed, lanes=lanes, energy_ranks=n_ranks)
    busy_ns = (runs["true_seconds"] * completed * pace * lanes * 1e9).to_numpy().astype(np.int64)
    together = n_ranks if is_gang else lanes
    blocks = np.arange(len(runs)).reshape(-1, together)
    if lanes > 1:
        busy_ns = busy_ns[blocks[:, 0]].repeat(lanes)
    free_ns = rng.integers(10**9, 2**55, (n_boots, 1)) + np.zeros((1, n_packages * n_ranks), int)
    begun_ns = np.empty(len(runs), np.int64)
    for block in rng.permutation(blocks):
        boot = rng.integers(n_boots)
        if is_gang:
            package = rng.integers(n_packages)
            ranks = package * n_ranks + np.arange(n_ranks)
        else:
            ranks = np.array([free_ns[boot].argmin()])
            package = ranks[0] // n_ranks
        begun_ns[block] = free_ns[boot, ranks].max() + rng.integers(10**7)
        free_ns[boot, ranks] = (begun_ns[block] + busy_ns[block]).max()
        runs.loc[block, ["boot_id", "package"]] = [f"boot {boot}", package]
    runs = runs.assign(
        begun_ns=begun_ns,
        ended_ns=begun_ns + busy_ns,
        duration_s=busy_ns / 1e9 / lanes,
        energy_mode="gang" if is_gang else "shared",
        energy_source="powercap:package",
        energy_quality="measured_divided" if is_gang else "measured_shared",
        energy_reason=None,
        foreign_load=0.001,
        cache_state="warm",
    )
    static_w = planted["static_power_w"]
    alone_j = true_energy_j(runs, planted)
    work_j = alone_j * deviation - static_w * runs["true_seconds"].to_numpy()
    package_j, share_j = package_energies(runs, work_j * completed, static_w)
    runs = runs.assign(energy_package_j=package_j, energy_j=share_j)
    return Tables(runs, pd.DataFrame(columns=list(EPOCH_COLUMNS)))


def package_energies(
    runs: pd.DataFrame, work_j: np.ndarray, static_w: float
) -> tuple[np.ndarray, np.ndarray]:
    """Energy of each run's package during the run, and the run's share by processor time.

    Power is added up over the stretches between which no run begins or ends. `work_j` are the
    joules of each run without static power.
    """
    package_j, share_j = np.zeros(len(runs)), np.zeros(len(runs))
    begun_ns, ended_ns = runs["begun_ns"].to_numpy(), runs["ended_ns"].to_numpy()
    work_w = work_j / ((ended_ns - begun_ns) / 1e9)
    for members in runs.groupby(["boot_id", "package"]).indices.values():
        stamps = np.unique([begun_ns[members], ended_ns[members]])
        is_running = (begun_ns[members] <= stamps[:-1, None]) & (
            ended_ns[members] > stamps[:-1, None]
        )
        joules = (static_w + is_running @ work_w[members]) * np.diff(stamps) / 1e9
        package_j[members] = joules @ is_running
        share_j[members] = joules / np.maximum(is_running.sum(axis=1), 1) @ is_running
    return package_j, share_j


@pytest.fixture(scope="session", name="fabricate")
def _fabricate():
    """The function that makes tables."""
    return fabricate


@pytest.fixture(scope="session", name="share_packages")
def _share_packages():
    """The function that makes tables of runs beside each other."""
    return share_packages


@pytest.fixture(scope="session", name="package_energies")
def _package_energies():
    """The function that adds up what packages took."""
    return package_energies


@pytest.fixture(scope="session", name="true_energy_j")
def _true_energy_j():
    """The function that knows the truth."""
    return true_energy_j


@pytest.fixture(scope="session", name="make_runs")
def _make_runs():
    """The function that makes runs not yet measured."""
    return make_runs


@pytest.fixture(scope="session")
def planted() -> dict[str, float]:
    """Coefficients of the machine."""
    return PLANTED


@pytest.fixture(scope="session")
def caches() -> dict[str, int]:
    """Its caches."""
    return CACHES


@pytest.fixture(scope="session")
def tables() -> Tables:
    """60 experiments, two repetitions each; not to be changed."""
    return fabricate()
