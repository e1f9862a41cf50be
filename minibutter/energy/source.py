"""What the meter reads: a source of energy counters, and the counters that it has.

A source knows one interface of the kernel (`powercap`; performance events are another) and nothing
of time. The meter knows time and nothing of files.
"""

import re
from dataclasses import dataclass
from typing import Protocol

MAX_POWER_W = 1000.0
"""No package or memory draws more: the bound where the machine states none."""

MAX_PLATFORM_W = 10_000.0
"""The same of a platform (`psys`), which has accelerators, too."""

SMALLEST_MODULUS_UJ = 65532611002
"""Where a wrap may be if a counter does not say: 2^32 units of 2^-16 J, as the kernel rounds it."""


class CounterUnavailable(Exception):
    """A counter cannot be read; the message says which, why, and what would help."""


@dataclass(frozen=True)
class Domain:
    """One energy counter of the machine."""

    name: str
    """`package-0`, `package-0/dram`, `psys`, `intel-rapl-mmio/package-0`: what it counts, never
    where the kernel lists it."""

    modulus_uj: int | None
    """What one wrap is worth, in microjoules; None where the counter does not say."""

    is_summed: bool
    """Whether it is part of the total: packages and memory, each once."""

    max_power_w: float = MAX_POWER_W
    """What it cannot exceed, in watts: tells a wrap from a reset."""

    note: str | None = None
    """What is odd about it, for people."""

    @property
    def package(self) -> int | None:
        """Number of the package that it belongs to; None where its name does not say."""
        found = re.match(r"package-(\d+)", self.name)
        return int(found[1]) if found else None

    @property
    def wrap_s(self) -> float:
        """Seconds that a wrap takes at least."""
        return (self.modulus_uj or SMALLEST_MODULUS_UJ) / 1e6 / self.max_power_w


class Source(Protocol):
    """Counters of one machine.

    Attributes
    ----------
    name : `powercap`, `perf`; the first word of `energy_source`.
    domains : all counters, those of the total first. They do not change while the source is open.
    notes : what was found and left out, or is odd, for people.
    is_simulated : whether a model drives the counters.
    is_virtual : whether a hypervisor stands between the counters and the processor: they are then
        an estimate of the host.
    """

    name: str
    domains: tuple[Domain, ...]
    notes: tuple[str, ...]
    is_simulated: bool
    is_virtual: bool

    def read_uj(self, n_domains: int) -> list[int | CounterUnavailable]:
        """The first counters in microjoules, one after the other; a failure in place of its number.

        Raises nothing: a failed counter must not keep the others from being read.
        """

    def check(self) -> str | None:
        """Why the domains are no longer those of the machine; None if they are. Called rarely."""

    def close(self) -> None:
        """Give files back."""


class Kind(Protocol):
    """Where counters come from: a `Source`, or what is known of one elsewhere."""

    is_simulated: bool
    is_virtual: bool


def quality_of(counters: Kind, measured: str) -> str:
    """What an energy is worth: as `measured` says, unless a model or a host made it up."""
    if counters.is_simulated:
        return "simulated"
    return "modelled" if counters.is_virtual else measured
