"""What the executions of a run have measured, and what it adds up to in the table `runs`.

A run that was interrupted has several parts, each measured by the execution that trained it. What
was spent between them, on epochs that a kill took back, on starting again, is in none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minibutter.energy import Cost, Energy, add_up


@dataclass(frozen=True)
class Part:
    """What one execution measured of a repetition: of all of it, unless it was interrupted.

    Attributes
    ----------
    n_epochs : that it trained.
    duration_s : from the begin of its first epoch, a repetition's share.
    begun_ns, ended_ns : stamps of the meter.
    energy : of the whole part, a repetition's share.
    mode, foreign_load : see `RegionMeter`.
    cost : of measuring.
    counters_reason : why counts of its epochs are missing; None where there are all.
    is_cut : whether it was not kept at its very end, because of a kill: what was spent after its
        last checkpoint is in no part.
    """

    n_epochs: int
    duration_s: float
    begun_ns: int
    ended_ns: int
    energy: Energy
    mode: str
    foreign_load: float | None
    cost: Cost
    counters_reason: str | None
    is_cut: bool = False

    def values(self) -> dict[str, Any]:
        """The fields as plain values, for a record."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Part":
        """The way back from `values`."""
        nested = {"energy": Energy(**values["energy"]), "cost": Cost(**values["cost"])}
        return cls(**values | nested)


def columns_of_parts(parts: Sequence[Part]) -> dict[str, Any]:
    """What was measured of a run, as columns of `runs`."""
    energy, last = add_up([part.energy for part in parts]), parts[-1]
    is_whole, modes = len(parts) == 1, {part.mode for part in parts}
    return {
        "duration_s": sum(part.duration_s for part in parts),
        **energy_columns(energy),
        "energy_idle_j": energy.idle_j,
        "energy_dynamic_j": energy.dynamic_j,
        "energy_package_j": energy.package_j,
        "energy_ranks": energy.n_ranks,
        "energy_mode": last.mode if energy.energy_j is not None and len(modes) == 1 else None,
        "foreign_load": _mean_load(parts),
        "begun_ns": last.begun_ns if is_whole else None,
        "ended_ns": last.ended_ns if is_whole else None,
        "counters_reason": _joined_reason(parts),
        "meter_reads": sum(part.cost.reads for part in parts),
        "meter_cpu_s": sum(part.cost.cpu_s for part in parts),
        "parts": len(parts),
        "parts_cut": sum(part.is_cut for part in parts),
    }


def _mean_load(parts: Sequence[Part]) -> float | None:
    """Mean over the time of all parts; None where that of one is not known."""
    loads = [part.foreign_load for part in parts]
    if len(parts) == 1 or None in loads:
        return None if None in loads else loads[0]
    return float(np.average(loads, weights=[part.ended_ns - part.begun_ns for part in parts]))


def _joined_reason(parts: Sequence[Part]) -> str | None:
    """Why counts are missing, and of which epochs where it is not the same for all."""
    reasons = [part.counters_reason for part in parts]
    if len(set(reasons)) == 1:
        return reasons[0]
    ends = np.cumsum([part.n_epochs for part in parts])
    return "; ".join(
        f"epochs {end - part.n_epochs + 1} to {end}: {part.counters_reason}"
        for part, end in zip(parts, ends, strict=True)
        if part.counters_reason is not None
    )


ENERGY_COLUMNS = {
    "energy_j": "energy_j",
    "energy_source": "source",
    "energy_quality": "quality",
    "energy_reason": "reason",
    "energy_resolution_j": "resolution_j",
}
"""Columns of both tables, and the fields of an `Energy` that they hold."""


def energy_columns(energy: Energy) -> dict[str, Any]:
    columns = {column: getattr(energy, field) for column, field in ENERGY_COLUMNS.items()}
    if energy.resolution_j is not None:
        # An uncertainty has no more digits than these eight bits, and takes less space without.
        mantissa, exponent = math.frexp(energy.resolution_j)
        columns["energy_resolution_j"] = math.ldexp(math.ceil(mantissa * 256) / 256, exponent)
    return columns
