"""What a process sees on the board of its node: energy of packages, and the load of others.

A `Follower` turns the rows that the node's reader writes into the same series as if it had read the
counters itself: wraps, gaps, failures and changes of the machine are seen by all ranks alike.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping

from minibutter.energy.board import UNREAD, BoardGone, BoardReader, Row
from minibutter.energy.quantity import Energy, unavailable_energy
from minibutter.energy.reader import NodeCounters
from minibutter.energy.regions import MIN_TICKS, moving, too_short
from minibutter.energy.series import LONGEST_TICK_NS, TICK_NS, Series
from minibutter.energy.source import CounterUnavailable, quality_of

PATIENCE_S = 10.0
"""So long a rank waits for a reading before it says that nobody reads."""

_NAP_S = 0.0002
_TOO_SHORT_TO_TELL_NS = 500_000_000


class Follower:
    """Reads along what is read for a node.

    Parameters
    ----------
    counters : from the `NodeReader`.
    package : whose counters to follow; None: those of all packages.
    on_row : called with every row whose counters of the package could all be read.

    Attributes
    ----------
    newest_ns : stamp of the newest row.
    problem : why nothing more can be read, until it can; None while all is well.
    cpu_s : processor time that following has taken.
    """

    def __init__(
        self,
        counters: NodeCounters,
        package: int | None = None,
        on_row: Callable[[Row], None] = lambda row: None,
    ) -> None:
        self._counters, self._on_row = counters, on_row
        domains = counters.domains
        self._domains = [i for i, d in enumerate(domains) if package in (None, d.package)]
        self._series = [Series(domains[i]) for i in self._domains]
        self._failures: dict[int, str] = {}
        self._change: tuple[str | None, int] = (None, 0)
        self._foreign: list[tuple[int, int]] = []
        self.newest_ns = self._given_up_ns = 0
        self.cpu_s = 0.0
        self._board: BoardReader | None = None
        self.problem: str | None = None
        try:
            self._board = BoardReader(counters.folder, len(domains), len(counters.packages))
        except BoardGone as error:
            self.problem = str(error)

    @property
    def energy_uj(self) -> int:
        """Of the package, from the first row to the newest."""
        return sum(series.newest_uj for series in self._series)

    @property
    def shortest_ns(self) -> int:
        """The shortest time whose energy can be told."""
        return MIN_TICKS * max((series.tick_ns for series in self._series), default=TICK_NS)

    def close(self) -> None:
        """Give the files back; what was seen can still be asked for."""
        if self._board is not None:
            self._board.close()
            self._board = None

    # -----------------------------------------------------------------------------------------
    # Following

    def follow(self) -> None:
        """Look what is new."""
        if self._board is None:
            return
        begun_s = time.thread_time()
        for item in self._board.news():
            if isinstance(item, Row):
                self._append(item)
            else:
                self._hear(item)
        self.cpu_s += time.thread_time() - begun_s

    def wait_for(self, stamp_ns: int) -> bool:
        """Whether the counters were read at a moment or later; asks for it, and waits, if not."""
        self.follow()
        if self.newest_ns >= stamp_ns:
            return True
        if self._board is None or (
            self.problem is not None and self.newest_ns <= self._given_up_ns
        ):
            return False
        self.problem = None
        deadline_s = time.monotonic() + PATIENCE_S
        try:
            self._board.ring()
            while self.newest_ns < stamp_ns:
                is_late = time.monotonic() > deadline_s
                time.sleep(_NAP_S)
                self.follow()
                # It may be this rank that was suspended: there was one more look.
                if is_late and self.newest_ns < stamp_ns:
                    raise BoardGone(
                        f"rank {self._counters.reader_rank}, which reads the counters, has not "
                        f"answered for {PATIENCE_S:.0f} s"
                    )
        except BoardGone as error:
            self.problem, self._given_up_ns = str(error), self.newest_ns
            return False
        return True

    def _hear(self, event: Mapping[str, object]) -> None:
        if "failures" in event:
            self._failures = {int(i): reason for i, reason in event["failures"].items()}
        elif "change" in event:
            self._change = (event["change"], event["checked_ns"])
        else:
            for series in self._series:
                series.add_break(event["begin_ns"], event["end_ns"], event["reason"])

    def _append(self, row: Row) -> None:
        self.newest_ns = row.stamp_ns
        is_whole = True
        for domain, series in zip(self._domains, self._series, strict=True):
            value = row.values_uj[domain]
            if value == UNREAD:
                is_whole = False
                value = CounterUnavailable(self._failures.get(domain, "could not be read"))
            series.append(row.stamp_ns, row.width_ns, value)
        if not self._foreign or self._foreign[-1][0] < row.foreign_stamp_ns:
            self._foreign.append((row.foreign_stamp_ns, row.foreign_ns))
        if is_whole:
            self._on_row(row)

    def forget_before(self, stamp_ns: int) -> None:
        """Give the memory back that is only needed for regions that begin before this."""
        for series in self._series:
            series.forget_before(stamp_ns)
        i = max(bisect_right(self._foreign, stamp_ns, key=lambda point: point[0]) - 1, 0)
        del self._foreign[:i]

    # -----------------------------------------------------------------------------------------
    # Asking

    def between(self, begin_ns: int, end_ns: int) -> Energy:
        """All that the packages have drawn between two moments of the reader's clock, or why that
        is not known; as if one rank had it all."""
        problem = too_short(end_ns - begin_ns, self.shortest_ns)
        if problem is not None:
            return unavailable_energy(problem)
        # What was read before the reader ended can still be told.
        if not self.wait_for(end_ns):
            return unavailable_energy(self.problem or "the meter is closed")
        change, checked_ns = self._change
        if change is not None and end_ns > checked_ns:
            return unavailable_energy(change)
        try:
            stretches = [moving(series, begin_ns, end_ns) for series in self._series]
        except CounterUnavailable as failure:
            return unavailable_energy(str(failure))
        energy_j = sum(stretch.energy_uj for stretch in stretches) / 1e6
        is_sampled = all(stretch.is_sampled for stretch in stretches)
        return Energy(
            energy_j=energy_j,
            source=self._counters.source,
            quality=quality_of(self._counters, "measured" if is_sampled else "interpolated"),
            resolution_j=sum(stretch.uncertainty_uj for stretch in stretches) / 1e6,
            package_j=energy_j,
            n_ranks=1,
        )

    def drawn_j(self, begin_ns: int, end_ns: int) -> float:
        """The same number, of any time that was seen, however short.

        Raises
        ------
        CounterUnavailable
            If it is not known.
        """
        # A counter may stand still for a tick, and not for longer.
        ask = moving if end_ns - begin_ns > LONGEST_TICK_NS else Series.between
        return sum(ask(series, begin_ns, end_ns).energy_uj for series in self._series) / 1e6

    def foreign_load(self, begin_ns: int, end_ns: int) -> float | None:
        """Part of the node's processor time that others than its ranks took, of 1.

        Others are looked at once a second; it is the part in the whole seconds around. None where
        it is not known, or the time is too short to tell.
        """
        self.follow()
        points = self._foreign
        if not points:
            return None
        first = points[max(bisect_right(points, begin_ns, key=lambda p: p[0]) - 1, 0)]
        last = points[min(bisect_left(points, end_ns, key=lambda p: p[0]), len(points) - 1)]
        return self.load(first, last)

    @property
    def newest_look(self) -> tuple[int, int] | None:
        """When others were last looked at, and their processor time until then, for `load`."""
        return self._foreign[-1] if self._foreign else None

    def load(self, first: tuple[int, int] | None, last: tuple[int, int] | None) -> float | None:
        """The part of others between two looks."""
        if first is None or last is None or not self._counters.n_cpus:
            return None
        elapsed_ns = last[0] - first[0]
        if first[0] == 0 or elapsed_ns < _TOO_SHORT_TO_TELL_NS:
            return None
        return max((last[1] - first[1]) / (elapsed_ns * self._counters.n_cpus), 0.0)
