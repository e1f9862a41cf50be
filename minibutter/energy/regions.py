"""Energy of the regions of a run: what a meter must answer, and how short epochs are put together.

Counters tick every millisecond, and many epochs are shorter. `along` puts them together until a
window is long enough, and shares its energy out by time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from minibutter.energy.quantity import Cost, Energy
from minibutter.energy.series import Series, Stretch
from minibutter.energy.source import CounterUnavailable

MIN_TICKS = 10
"""A region of fewer updates is not measured alone: each end may be off by one of them."""

Region = tuple[int, int]
"""Stamps of begin and end."""


class RegionMeter(Protocol):
    """What a run asks of the meter that it is trained beside: `Meter`, or a rank's `RankMeter`."""

    @property
    def mode(self) -> str:
        """`alone`, or how energy is shared out among ranks: `shared` or `gang`."""

    @property
    def package(self) -> int | None:
        """The package whose energies these are; None: of all packages of the machine."""

    @property
    def reader_rank(self) -> int | None:
        """The rank that reads the counters; None where each reads for itself."""

    @property
    def cost(self) -> Cost:
        """What measuring has taken so far, in this process."""

    def begin(self) -> int:
        """The stamp at which a run begins; what lies before it may be forgotten."""

    def stamp(self) -> int:
        """The stamp of now: nanoseconds of the meter's clock."""

    def end(self) -> int:
        """The stamp at which a run ends, no earlier than now."""

    def between(self, begin_ns: int, end_ns: int) -> Energy:
        """Energy from one stamp to a later one."""

    def along(self, regions: Sequence[Region]) -> list[Energy]:
        """Energy of each of the regions of a run, however short."""

    def foreign_load(self, begin_ns: int, end_ns: int) -> float | None:
        """Part of the machine's processor time that others took; None where it is not known."""

    def working(
        self,
        flops: float,
        bytes_by_level: Mapping[str, float] | None = None,
        expected_s: float | None = None,
    ) -> AbstractContextManager[None]:
        """Around work that is measured: tells simulated counters what it is; real ones know."""


def along(
    regions: Sequence[Region], shortest_ns: int, between: Callable[[int, int], Energy]
) -> list[Energy]:
    """Energy of each of the regions of a run, however short.

    Regions that are too short are put together with those that follow, until the window is long
    enough; its energy, pauses included, is shared out by time, and marked `interpolated`. What is
    left at the end joins the window before.

    Parameters
    ----------
    regions : begin and end of each, in the order of time, without overlap.
    shortest_ns : a window of its own must be so long.
    between : asks for the energy from one stamp to a later one.
    """
    energies = []
    for window in _windows(regions, shortest_ns):
        begin_ns, end_ns = window[0][0], window[-1][1]
        whole = between(begin_ns, end_ns)
        if len(window) == 1 or whole.energy_j is None:
            energies += [whole] * len(window)
            continue
        quality = "interpolated" if whole.quality == "measured" else whole.quality
        for region in window:
            share = (region[1] - region[0]) / (end_ns - begin_ns)
            part = whole.scaled(share)
            window_s = (end_ns - begin_ns) / 1e9
            # The window may be misplaced as a whole, and a part of it as far.
            resolution_j = whole.resolution_j
            energies.append(
                replace(part, quality=quality, window_s=window_s, resolution_j=resolution_j)
            )
    return energies


def _windows(regions: Sequence[Region], shortest_ns: int) -> Iterator[list[Region]]:
    ready: list[Region] = []
    window: list[Region] = []
    for region in regions:
        window.append(region)
        if window[-1][1] - window[0][0] >= shortest_ns:
            if ready:
                yield ready
            ready, window = window, []
    if ready or window:
        yield ready + window


def too_short(duration_ns: int, shortest_ns: int) -> str | None:
    """Why no energy can be told of so short a time; None if one can."""
    if duration_ns >= shortest_ns:
        return None
    return (
        f"{duration_ns / 1e6:.3f} ms is too short: the counters tick every "
        f"{shortest_ns / MIN_TICKS / 1e6:.0f} ms, and {shortest_ns / 1e6:.0f} ms are needed "
        "for 10 % at each end"
    )


def moving(series: Series, begin_ns: int, end_ns: int) -> Stretch:
    """What a counter has counted; one that stands still for many updates is stuck, not at rest.

    Raises
    ------
    CounterUnavailable
        If that is not known.
    """
    stretch = series.between(begin_ns, end_ns)
    if stretch.energy_uj == 0:
        duration_s = (end_ns - begin_ns) / 1e9
        raise CounterUnavailable(f"{series.domain.name} stood still for {duration_s:.3f} s")
    return stretch
