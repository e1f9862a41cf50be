"""Joules between two moments, or the reason why they are not known.

An `Energy` is never zero, estimated or constant because a counter failed: it is then None and says
why. Energy of an interval is the difference of cumulative counters; it is never turned into power
and back, so that the parts of a run add up to the run.

The counters are those of whole packages. What else runs there, another rank or another user, is
inside the number; `shared` marks it, and attribution is not done here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from minibutter.energy.powercap import Counter, RaplUnavailable, find_zones, open_read_only

MAX_POWER_W = 1000.0
"""No package or memory draws more; bounds how soon a counter can wrap a second time."""

MIN_INTERVAL_S = 0.010
"""Counters tick about every millisecond, so that a shorter interval is uncertain by over 10 %."""


@dataclass(frozen=True)
class Energy:
    """Energy of an interval and what the number is worth."""

    energy_j: float | None
    """Joules of all packages and their memory; None where they are not known."""

    source: str | None
    """The counters read, for example `powercap:package+dram`; None where energy_j is."""

    quality: str
    """`measured`, `measured_divided` (an equal share of a measured group), `measured_shared` (other
    ranks use the packages, too) or `unavailable`."""

    reason: str | None
    """Why energy_j is None; None where it is not."""

    def divided(self, parts: int) -> "Energy":
        """An equal share: of one of several repetitions that were trained together.

        The shares add up to what was measured, but no counter has told them apart.
        """
        if parts == 1 or self.energy_j is None:
            return self
        quality = "measured_divided" if self.quality == "measured" else self.quality
        return replace(self, energy_j=self.energy_j / parts, quality=quality)


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    time_s: float
    """Of the meter's clock, just before the first counter was read."""

    counters_uj: tuple[int, ...]
    """One value a zone; empty if the reading failed."""

    failure: str | None
    """Why the reading failed."""


class Meter:
    """Reads all zones of this machine; made by `open_meter`.

    Parameters
    ----------
    counters : one for every zone; empty if there is nothing to read.
    unavailable : why there is nothing to read.
    shared : whether other ranks run on the same packages.
    clock : returns seconds; monotonic.
    """

    def __init__(
        self,
        counters: Sequence[Counter],
        unavailable: str | None,
        shared: bool,
        clock: Callable[[], float],
    ) -> None:
        self._counters = tuple(counters)
        self._unavailable = unavailable
        self._shared = shared
        self._clock = clock
        self._is_closed = False

    @property
    def source(self) -> str | None:
        """Which counters are summed, or None if there are none."""
        if not self._counters:
            return None
        has_dram = any(counter.zone.name.endswith("/dram") for counter in self._counters)
        return "powercap:package+dram" if has_dram else "powercap:package"

    @property
    def unavailable(self) -> str | None:
        """Why no energy can be measured here, or None if it can."""
        return self._unavailable

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the files of the counters back."""
        for counter in self._counters:
            counter.close()
        self._is_closed = True

    def read(self) -> Reading:
        """Read all counters; a failure is part of the reading and never raised."""
        time_s = self._clock()
        if self._unavailable is not None:
            return Reading(time_s, (), self._unavailable)
        if self._is_closed:
            return Reading(time_s, (), "the meter is closed")
        try:
            return Reading(time_s, tuple(counter.read_uj() for counter in self._counters), None)
        except RaplUnavailable as failure:
            return Reading(time_s, (), str(failure))

    def between(self, start: Reading, end: Reading) -> Energy:
        """Energy from one reading to a later one.

        Parameters
        ----------
        start, end : readings of this meter, at least 10 ms apart, and not so far that a counter
            could wrap twice at 1000 W (66 s with AMD processors or server memory, else 262 s).
        """
        return self.along([start, end])

    def along(self, readings: Sequence[Reading]) -> Energy:
        """Energy from the first of several readings to the last.

        The readings between them keep count of wraps, so that the whole may take any time as long
        as no gap is ambiguous. Where one of them failed, its neighbours are used.

        Parameters
        ----------
        readings : at least two readings of this meter, in the order of time.
        """
        for reading in (readings[0], readings[-1]):
            if reading.failure is not None:
                return _unavailable(reading.failure)
        duration_s = readings[-1].time_s - readings[0].time_s
        if duration_s < MIN_INTERVAL_S:
            return _unavailable(
                f"{duration_s * 1e3:.3f} ms is too short: the counters tick every millisecond, and "
                f"{MIN_INTERVAL_S * 1e3:.0f} ms are needed for 10 %"
            )
        total_uj = [0] * len(self._counters)
        for start, end in pairwise(reading for reading in readings if reading.failure is None):
            gap_s = end.time_s - start.time_s
            for i, counter in enumerate(self._counters):
                name, modulus_uj = counter.zone.name, counter.zone.modulus_uj
                wrap_s = modulus_uj / 1e6 / MAX_POWER_W
                if gap_s >= wrap_s:
                    return _unavailable(
                        f"{gap_s:.0f} s between two readings is too long: {name} can wrap every "
                        f"{wrap_s:.0f} s at {MAX_POWER_W:.0f} W; read more often"
                    )
                energy_uj = (end.counters_uj[i] - start.counters_uj[i]) % modulus_uj
                # A gap may hold one tick more than its length; a reset holds far more.
                if energy_uj / 1e6 > MAX_POWER_W * (gap_s + MIN_INTERVAL_S):
                    return _unavailable(
                        f"{name} would have drawn over {MAX_POWER_W:.0f} W for {gap_s:.3f} s: the "
                        "counter was reset, not wrapped"
                    )
                total_uj[i] += energy_uj

        for counter, energy_uj in zip(self._counters, total_uj, strict=True):
            if energy_uj == 0:
                return _unavailable(f"{counter.zone.name} stood still for {duration_s:.3f} s")
        quality = "measured_shared" if self._shared else "measured"
        return Energy(sum(total_uj) / 1e6, self.source, quality, None)


def open_meter(
    root: Path = Path("/sys/class/powercap"),
    shared: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    opener: Callable[[Path], int] = open_read_only,
) -> Meter:
    """A meter of this machine, which says why if it cannot measure; never raises for that.

    Either all packages and their memories can be read, or nothing is: part of the counters would
    pass for the whole.

    Parameters
    ----------
    root : directory of the powercap links.
    shared : whether other ranks run on the same packages.
    clock : returns seconds; monotonic.
    opener : opens a counter's file and returns a file descriptor.

    Examples
    --------
    >>> with open_meter() as meter:
    ...     start = meter.read()
    ...     energy = meter.between(start, meter.read())
    """
    counters: list[Counter] = []
    try:
        for zone in find_zones(root):
            counters.append(Counter(zone, opener))
    except (RaplUnavailable, OSError) as failure:
        for counter in counters:
            counter.close()
        return Meter((), str(failure), shared, clock)
    return Meter(counters, None, shared, clock)


def _unavailable(reason: str) -> Energy:
    return Energy(None, None, "unavailable", reason)
