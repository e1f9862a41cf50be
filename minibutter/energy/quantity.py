"""An energy and what it is worth.

An `Energy` is never zero, estimated or constant because a counter failed: it is then None and says
why. It says where the number comes from (`source`), what it is worth (`quality`) and how far off it
may be (`resolution_j`), and keeps apart what the machine would have drawn without any work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

QUALITIES = (
    "unavailable",
    "simulated",
    "modelled",
    "interpolated",
    "measured_shared",
    "measured_divided",
    "measured",
)
"""What an energy may be worth, the weakest first."""


@dataclass(frozen=True)
class Energy:
    """Energy of an interval and what the number is worth."""

    energy_j: float | None
    """Joules of packages and their memory, or the part of them that is a rank's; None where they
    are not known."""

    source: str | None
    """The counters read, for example `powercap:package+dram`; None where energy_j is."""

    quality: str
    """`measured`; `measured_divided`, an equal share of a measured group; `measured_shared`, a
    share by processor time of packages that other ranks use, too; `interpolated`, shared out by
    time over a longer measurement; `modelled`, estimated by the host of a virtual machine;
    `simulated`; `unavailable`."""

    reason: str | None = None
    """Why energy_j is None; None where it is not."""

    resolution_j: float | None = None
    """How far off energy_j may be for what the counters resolve: at each end mean power times one
    update and half the time that the reading took, or what interpolation may have misplaced."""

    window_s: float | None = None
    """Seconds of the measurement that energy_j is a share of; None where it is a whole one."""

    idle_j: float | None = None
    """The part of energy_j that would have been drawn without any work; None where the idle power
    was not measured."""

    package_j: float | None = None
    """Joules of the packages and their memory, whoever worked there; None where energy_j is."""

    n_ranks: int | None = None
    """Ranks that package_j was shared out among; None where energy_j is, or where parts differ."""

    @property
    def dynamic_j(self) -> float | None:
        """What the work has added to the idle power; None where that was not measured."""
        return None if self.idle_j is None else self.energy_j - self.idle_j

    def scaled(self, share: float) -> "Energy":
        """A share of it by time, of the package's energy, too; nothing of what is not known."""
        if self.energy_j is None:
            return self
        return replace(
            self,
            energy_j=self.energy_j * share,
            resolution_j=self.resolution_j * share,
            idle_j=None if self.idle_j is None else self.idle_j * share,
            package_j=self.package_j * share,
        )

    def divided(self, parts: int) -> "Energy":
        """An equal share: of one of several repetitions that were trained together.

        The shares add up to what was measured, but no counter has told them apart. The package's
        energy is not divided: it is what the package has drawn meanwhile.
        """
        if parts == 1 or self.energy_j is None:
            return self
        quality = "measured_divided" if self.quality == "measured" else self.quality
        return replace(self.scaled(1 / parts), quality=quality, package_j=self.package_j)


@dataclass(frozen=True)
class Cost:
    """What measuring has taken so far.

    Attributes
    ----------
    reads : sweeps over the counters, those of the heartbeat included.
    cpu_s : processor time of these sweeps.
    """

    reads: int
    cpu_s: float

    def __sub__(self, before: "Cost") -> "Cost":
        return Cost(self.reads - before.reads, self.cpu_s - before.cpu_s)


def add_up(parts: Sequence[Energy]) -> Energy:
    """Energy of what was done in several parts, each measured for itself.

    It is worth no more than the weakest of them, and not known where one of them is not: what the
    others have drawn is then no energy of the whole. How far off they may be adds up, too.
    """
    if len(parts) == 1:
        return parts[0]
    for number, part in enumerate(parts, start=1):
        if part.energy_j is None:
            return unavailable_energy(f"of part {number} of {len(parts)}: {part.reason}")
    idle_j, n_ranks = [part.idle_j for part in parts], {part.n_ranks for part in parts}
    return Energy(
        energy_j=sum(part.energy_j for part in parts),
        source=", ".join(dict.fromkeys(part.source for part in parts)),
        quality=min((part.quality for part in parts), key=QUALITIES.index),
        resolution_j=sum(part.resolution_j for part in parts),
        idle_j=None if None in idle_j else sum(idle_j),
        package_j=sum(part.package_j for part in parts),
        n_ranks=n_ranks.pop() if len(n_ranks) == 1 else None,
    )


def unavailable_energy(reason: str) -> Energy:
    """No energy, and why."""
    return Energy(None, None, "unavailable", reason)
