"""How a repetition goes, epoch by epoch, and what its columns of the two tables are.

`runs` trains; a `Course` keeps what comes of it. A run that was interrupted goes on with the epochs
that it had: their metrics are those of an undisturbed run to the last bit, and what was measured of
them is what was measured then. Of the run, durations, energies and the cost of measuring are those
of its `parts`; whatever belongs to one execution alone (host, ranks, lanes, state of the machine)
is that of the last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minibutter.energy import Cost, Energy, RegionMeter, unavailable_energy
from minibutter.energy.attribution import GANG
from minibutter.energy.counters import EpochCounts
from minibutter.energy.regions import Region
from minibutter.epoch_columns import EpochColumns
from minibutter.nn.groups import EpochRow
from minibutter.parts import Part, columns_of_parts, energy_columns
from minibutter.sweeps.spec import RunSpec

INTERRUPTED = "interrupted"
"""Status of a run that was asked to stop: it is not over, and no table has it."""


@dataclass(frozen=True)
class Ending:
    """What was measured of a group of repetitions when some of them ended, or were kept.

    Attributes
    ----------
    duration_s : since the first epoch of this execution began, a repetition's share.
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

    def part(self, n_epochs: int) -> Part:
        """What it says of a repetition that has trained so many epochs."""
        shared = ("duration_s", "begun_ns", "ended_ns", "energy", "mode", "foreign_load", "cost")
        measured = {name: getattr(self, name) for name in shared}
        return Part(n_epochs, **measured, counters_reason=self.counts.reason())


class Course:
    """How one repetition goes, and how it ended.

    Parameters
    ----------
    run_id : of the run.
    epochs, record : what `keep` gave; both None for a run that begins.

    Attributes
    ----------
    columns : its epochs.
    outcome : columns of `runs`; None until it has ended, or was interrupted.
    part : what this execution measured of it; None until then, and where it has trained nothing.
    """

    def __init__(
        self,
        run_id: str,
        epochs: Mapping[str, Any] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.run_id = run_id
        self.columns = EpochColumns(epochs)
        self.outcome: dict[str, Any] | None = None
        self.part: Part | None = None
        self._regions: tuple[Region, ...] = ()
        self._before: list[Part] = []
        self._diverged_epoch: int | None = None
        if record is not None:
            self._before = [Part.from_values(values) for values in record["parts"]]
            # Of the last one, all is known that was kept at its very end only.
            self._before[-1] = replace(self._before[-1], is_cut=not record["is_at_end"])
            self._diverged_epoch = record["diverged_epoch"]

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
        is_complete = self.columns.epochs_completed == spec.epochs
        self._close("completed" if is_complete else "stopped", ending)

    def interrupt(self, ending: Ending) -> None:
        """Leave the run for another execution, which goes on from what was kept."""
        self._close(INTERRUPTED, ending)

    def keep(self, ending: Ending, is_at_end: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The epochs so far as columns, and a record of plain values: what a checkpoint needs.
        `is_at_end` says whether this execution trains nothing more.

        Nobody will tell whether a gang that was cut short would have ended together, and so its
        equal parts are worth no more than shares.
        """
        self._measure(ending)
        part = ending.part(self.columns.n_new)
        if part.mode == GANG and part.energy.quality == "measured_divided":
            part = replace(part, energy=replace(part.energy, quality="measured_shared"))
        record = {
            "parts": [each.values() for each in (*self._before, part)],
            "diverged_epoch": self._diverged_epoch,
            "is_at_end": is_at_end,
        }
        return self.columns.columns(), record

    def _close(self, status: str, ending: Ending) -> None:
        self._measure(ending)
        self._regions = ending.regions
        part = ending.part(self.columns.n_new)
        self.part = part if part.n_epochs else None
        self.outcome = {
            "status": status,
            "diverged": self._diverged_epoch is not None,
            "diverged_epoch": self._diverged_epoch,
            "epochs_completed": self.columns.epochs_completed,
            "error": None,
            **columns_of_parts((*self._before, part)),
            # Filled by who makes ranks a gang.
            "energy_tail_j": None,
            "finish_spread_s": None,
        }

    def measure_again(self, meter: RegionMeter, lanes: int) -> dict[str, Any]:
        """What the columns of `outcome` that were measured are now, from the energies that the
        meter tells anew."""
        begun_ns, ended_ns = self.part.begun_ns, self.part.ended_ns
        energy = meter.between(begun_ns, ended_ns).divided(lanes)
        self.part = replace(self.part, energy=energy, mode=meter.mode)
        self.columns.energies = [each.divided(lanes) for each in meter.along(self._regions)]
        return columns_of_parts((*self._before, self.part))

    def _measure(self, ending: Ending) -> None:
        self.columns.energies = ending.energies
        self.columns.counts = ending.counts.columns()


@dataclass(frozen=True)
class RunResult:
    """What the store keeps of one run, unless it was interrupted.

    Attributes
    ----------
    run : columns of the `runs` table, one value each.
    epochs : columns of the `epochs` table, one array each, one entry an epoch.
    course : of the run; None where it failed before its first epoch.
    """

    run: dict[str, Any]
    epochs: dict[str, Any]
    course: Course | None = None

    @property
    def part(self) -> Part | None:
        """What this execution has measured of the run; None where it has trained nothing."""
        return None if self.course is None else self.course.part

    @property
    def is_interrupted(self) -> bool:
        """Whether the run was asked to stop: it is neither done nor failed, and is not stored."""
        return self.run["status"] == INTERRUPTED

    def measure_again(self, meter: RegionMeter) -> None:
        """Ask the meter anew for the energies of the run and its epochs, whose ranks' parts are
        others than it said before.

        Parameters
        ----------
        meter : that it was trained beside.
        """
        if self.part is not None:
            self.run.update(self.course.measure_again(meter, self.run["lanes"]))
            self.epochs.update(self.course.columns.columns())


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
        **energy_columns(unavailable_energy("the run failed before its first epoch")),
        **dict.fromkeys(_UNMEASURED),
        "counters_reason": "the run failed before its first epoch",
    }


_UNMEASURED = (
    *("energy_idle_j", "energy_dynamic_j", "energy_package_j", "energy_ranks", "energy_mode"),
    *("energy_tail_j", "finish_spread_s", "foreign_load", "begun_ns", "ended_ns"),
    *("meter_reads", "meter_cpu_s", "parts", "parts_cut"),
)
"""Columns that say nothing where nothing was trained."""
