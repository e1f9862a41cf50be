"""How a repetition goes, epoch by epoch, and what its columns of the two tables are.

`runs` trains; a `Course` keeps what comes of it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibutter.energy import Cost, Energy, RegionMeter, unavailable_energy
from minibutter.energy.counters import COUNTERS, EpochCounts
from minibutter.energy.regions import Region
from minibutter.nn.kernels.metrics import METRICS
from minibutter.nn.training import EpochRow
from minibutter.sweeps.spec import RunSpec


@dataclass(frozen=True)
class RunResult:
    """What the store keeps of one run.

    Attributes
    ----------
    run : columns of the `runs` table, one value each.
    epochs : columns of the `epochs` table, one array each, one entry an epoch.
    regions : stamps of begin and end of every epoch; not stored.
    """

    run: dict[str, Any]
    epochs: dict[str, Any]
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Ending:
    """What was measured of a group of repetitions when some of them ended.

    Attributes
    ----------
    duration_s : since the first epoch began, a repetition's share.
    begun_ns, ended_ns : stamps of the meter.
    energy : a repetition's share of the whole; energies : of every epoch.
    mode : how energy follows from that of the packages, see `RegionMeter`.
    foreign_load : see `RegionMeter`.
    cost : of measuring.
    counts : of the processor.
    regions : stamps of begin and end of every epoch.
    """

    duration_s: float
    begun_ns: int
    ended_ns: int
    energy: Energy
    energies: list[Energy]
    mode: str
    foreign_load: float | None
    cost: Cost
    counts: EpochCounts
    regions: tuple[Region, ...]


class Course:
    """How one repetition goes, and how it ended.

    Attributes
    ----------
    columns : its epochs.
    outcome : columns of `runs`; None until it has ended.
    regions : stamps of begin and end of its epochs.
    """

    def __init__(self) -> None:
        self.columns = EpochColumns()
        self.outcome: dict[str, Any] | None = None
        self.regions: tuple[Region, ...] = ()
        self._diverged_epoch: int | None = None

    def add(self, epoch: int, row: EpochRow, duration_s: float) -> None:
        self.columns.add(epoch, row, duration_s)
        if not row.is_finite and self._diverged_epoch is None:
            self._diverged_epoch = epoch

    def is_over(self, spec: RunSpec) -> bool:
        """Whether the last epoch is done, or the run is to stop because it has diverged."""
        stops = self._diverged_epoch is not None and spec.on_divergence == "stop"
        return stops or self.columns.epochs_completed == spec.epochs

    def end(self, spec: RunSpec, ending: Ending) -> None:
        """Close the run with what was measured of all of it and of every epoch."""
        completed = self.columns.epochs_completed
        self.regions = ending.regions
        self.columns.energies = ending.energies
        self.columns.counts = ending.counts.columns()
        self.outcome = {
            "status": "completed" if completed == spec.epochs else "stopped",
            "diverged": self._diverged_epoch is not None,
            "diverged_epoch": self._diverged_epoch,
            "epochs_completed": completed,
            "error": None,
            "duration_s": ending.duration_s,
            **_run_energy_columns(ending.energy),
            "energy_mode": None if ending.energy.energy_j is None else ending.mode,
            # Filled by who makes ranks a gang.
            "energy_tail_j": None,
            "finish_spread_s": None,
            "foreign_load": ending.foreign_load,
            "begun_ns": ending.begun_ns,
            "ended_ns": ending.ended_ns,
            "counters_reason": ending.counts.reason(),
            "meter_reads": ending.cost.reads,
            "meter_cpu_s": ending.cost.cpu_s,
        }


class EpochColumns:
    """The epochs of a run as they come in, column by column."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, EpochRow, float]] = []
        self.energies: list[Energy] = []
        self.counts: dict[str, list[int | None] | None] = dict.fromkeys(COUNTERS)

    def add(self, epoch: int, row: EpochRow, duration_s: float) -> None:
        self._rows.append((epoch, row, duration_s))

    @property
    def epochs_completed(self) -> int:
        return len(self._rows)

    def columns(self) -> dict[str, Any]:
        """The `epochs` table's columns; metrics in float32, as BUTTER published them."""
        rows = self._rows
        columns: dict[str, Any] = {"epoch": np.array([row[0] for row in rows], dtype=np.int32)}
        for part in ("train", "test", "trained"):
            vectors = [getattr(row[1], part) for row in rows]
            is_measured = bool(vectors) and vectors[0] is not None
            # Where float64 diverges, float32 has long been infinite.
            with np.errstate(over="ignore"):
                values = np.array(vectors).astype(np.float32) if is_measured else None
            # The penalty at the end of the epoch is the same for both sets: test_penalty.
            names = METRICS if part == "trained" else (*METRICS, "penalty")
            for position, name in enumerate(names):
                column = values[:, position] if is_measured else [None] * len(rows)
                columns[f"{part}_{name}"] = column
        columns["duration_s"] = np.array([row[2] for row in rows], dtype=np.float64)
        return columns | _epoch_energy_columns(self.energies) | self.counts


_ENERGY_COLUMNS = {
    "energy_j": "energy_j",
    "energy_source": "source",
    "energy_quality": "quality",
    "energy_reason": "reason",
    "energy_resolution_j": "resolution_j",
}
"""Columns of both tables, and the fields of an `Energy` that they hold."""


def _energy_columns(energy: Energy) -> dict[str, Any]:
    columns = {column: getattr(energy, field) for column, field in _ENERGY_COLUMNS.items()}
    if energy.resolution_j is not None:
        # An uncertainty has no more digits than these eight bits, and takes less space without.
        mantissa, exponent = math.frexp(energy.resolution_j)
        columns["energy_resolution_j"] = math.ldexp(math.ceil(mantissa * 256) / 256, exponent)
    return columns


def _run_energy_columns(energy: Energy) -> dict[str, Any]:
    return _energy_columns(energy) | {
        "energy_idle_j": energy.idle_j,
        "energy_dynamic_j": energy.dynamic_j,
        "energy_package_j": energy.package_j,
        "energy_ranks": energy.n_ranks,
    }


def _epoch_energy_columns(energies: list[Energy]) -> dict[str, Any]:
    columns = [_energy_columns(energy) for energy in energies]
    by_name = {name: [each[name] for each in columns] for name in _ENERGY_COLUMNS}
    return by_name | {"energy_window_s": [energy.window_s for energy in energies]}


def measure_again(result: RunResult, meter: RegionMeter) -> None:
    """Ask the meter anew for the energies of a run and its epochs, whose ranks' parts are others
    than it said before.

    Parameters
    ----------
    result : of a run that was trained.
    meter : that it was trained beside.
    """
    run, lanes = result.run, result.run["lanes"]
    run |= _run_energy_columns(meter.between(run["begun_ns"], run["ended_ns"]).divided(lanes))
    run["energy_mode"] = None if run["energy_j"] is None else meter.mode
    energies = [each.divided(lanes) for each in meter.along(result.regions)]
    result.epochs.update(_epoch_energy_columns(energies))


def failed_outcome(error: Exception) -> dict[str, Any]:
    """The columns of `runs` that a run has which failed before its first epoch."""
    message = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        message = f"out of memory: {message}; run fewer ranks on this host, or a smaller network"
    return {
        "status": "failed",
        "diverged": None,
        "diverged_epoch": None,
        "epochs_completed": 0,
        "error": message,
        "duration_s": None,
        **_energy_columns(unavailable_energy("the run failed before its first epoch")),
        **dict.fromkeys(_UNMEASURED),
        "counters_reason": "the run failed before its first epoch",
    }


_UNMEASURED = (
    *("energy_idle_j", "energy_dynamic_j", "energy_package_j", "energy_ranks", "energy_mode"),
    *("energy_tail_j", "finish_spread_s", "foreign_load", "begun_ns", "ended_ns"),
    *("meter_reads", "meter_cpu_s"),
)
"""Columns that say nothing where nothing was trained."""
