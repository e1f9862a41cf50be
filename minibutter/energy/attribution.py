"""A rank's part of the energy of packages that it shares with other ranks.

All ranks of a node read along on the board of one reader. Over a stretch of time in which their
packages have drawn E, of which they would have drawn I without any work, a rank gets

* in *shared* mode: the part of E - I that its processor time is of that of all ranks of the
  packages, and an equal part of I. A convention, not a measurement: processor time does not know
  which work draws more. Where no rank has used a processor, the parts are equal;
* in *gang* mode: an equal part of both. All ranks then train repetitions of one experiment, so that
  the part is what the experiment draws. A gang whose ranks do not end together, or are disturbed,
  is none, and its ranks get parts by processor time after all.

Whatever the mode, the parts of all ranks add up to E, and the parts of any cut of time to the
whole: `claimed_j` keeps account of it. I is known where the idle power was measured, while all
ranks slept. It is deep idle: cores that are awake draw more before they do any work, and that is
part of E - I.
"""

import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from minibutter.energy.board import UNREAD, Row
from minibutter.energy.follower import Follower
from minibutter.energy.quantity import Cost, Energy, unavailable_energy
from minibutter.energy.reader import PERIOD_S, NodeCounters, NodeReader
from minibutter.energy.regions import Region, along
from minibutter.energy.simulated import SimulatedMachine
from minibutter.energy.source import CounterUnavailable

GANG, SHARED = "gang", "shared"


def watch(counters: NodeCounters, package: int | None = None) -> "RankMeter":
    """A meter that gets all of the energy of a node, or of one of its packages; not a rank's."""
    watched = replace(counters, packages=(package,) * len(counters.packages))
    meter = RankMeter(watched, mode=GANG)
    meter.claim(0, 1.0)
    return meter


BY_TIME = None
"""The part of a rank that gets what its processor time says."""


class Claim(NamedTuple):
    """From a moment on, a rank gets this part."""

    since_ns: int
    part: float | None


class Stretch(NamedTuple):
    """A rank's runs were given so much of its part between two moments."""

    begin_ns: int
    end_ns: int
    weight: float


class RankMeter:
    """What a rank sees of the counters that are read for its node; see `regions.RegionMeter`.

    Parameters
    ----------
    counters : from the `NodeReader`; a sentence where there is none: why.
    position : this rank among those of the node.
    mode : `gang` or `shared`.
    clock : nanoseconds; that of the reader.
    machine : what drives the counters, if a model does.
    reader : of this process, if it is the one that reads.

    Attributes
    ----------
    mode : as given.
    package : whose energies these are; None: of all packages of the node.
    n_ranks : ranks among which they are shared out.
    idle_w : their idle power; None until `set_idle_between`.
    claimed_j : this rank's part of what was drawn above the idle power since `open_account`; None
        where a part of it is not known.
    spare_j : what of it no run was given, counted by itself; None likewise.
    """

    def __init__(
        self,
        counters: NodeCounters | str,
        position: int = 0,
        mode: str = SHARED,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        machine: SimulatedMachine | None = None,
        reader: NodeReader | None = None,
    ) -> None:
        self._clock, self._machine, self._reader, self.mode = clock, machine, reader, mode
        self._position = position
        self._unread = counters if isinstance(counters, str) else None
        self._counters = None if isinstance(counters, str) else counters
        self.package: int | None = None
        self._peers = [position]
        self.idle_w: float | None = None
        self.claimed_j: float | None = None
        self.spare_j: float | None = None
        self._settled_ns = 0
        self._opened: tuple[int, int] | None = None
        # Of every whole row: its stamp, and this rank's part by processor time so far.
        self._stamps_ns, self._shares_uj = array("q"), array("d")
        self._before: tuple[int, Sequence[int]] | None = None  # energy and times of the last one
        self._no_share: str | None = None
        self._follower: Follower | None = None
        if self._counters is not None:
            packages = self._counters.packages
            known = {domain.package for domain in self._counters.domains}
            # A rank that may run on several packages shares all of them with all.
            if None not in packages and set(packages) <= known:
                self.package = packages[position]
            self._peers = [i for i, p in enumerate(packages) if self.package in (None, p)]
            self._follower = Follower(self._counters, self.package, self._share_out)
        self.n_ranks = len(self._peers)
        self._usual = BY_TIME if mode == SHARED else 1 / self.n_ranks
        self._claims = [Claim(0, self._usual)]

    # -----------------------------------------------------------------------------------------
    # What is measured

    @property
    def unavailable(self) -> str | None:
        """Why no energy can be measured here any more, or None if it can."""
        return self._unread or self._follower.problem

    @property
    def reader_rank(self) -> int | None:
        """The rank that reads for this node; None if none does."""
        return None if self._counters is None else self._counters.reader_rank

    @property
    def cost(self) -> Cost:
        """What reading has taken in this process; in others than the reader's, following it."""
        if self._reader is not None:
            return self._reader.cost
        return Cost(0, self._follower.cpu_s if self._follower else 0.0)

    def __enter__(self) -> "RankMeter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back; what was seen can still be asked for."""
        if self._follower is not None:
            self._follower.close()

    def begin(self) -> int:
        """Have the counters read at the begin of a run."""
        return self.end()

    def end(self) -> int:
        """Have the counters read at the end of a run; the stamp of that reading.

        A moment between two readings would share out by time what was drawn before it only.
        """
        stamp_ns = self._clock()
        return self._follower.newest_ns if self._wait_for(stamp_ns) else stamp_ns

    def stamp(self) -> int:
        """The stamp of now; nothing is read for it."""
        if self._follower is not None:
            self._follower.follow()
        return self._clock()

    def _wait_for(self, stamp_ns: int) -> bool:
        return self._follower is not None and self._follower.wait_for(stamp_ns)

    def working(
        self,
        flops: float,
        bytes_by_level: Mapping[str, float] | None = None,
        expected_s: float | None = None,
    ) -> AbstractContextManager[None]:
        """Around work that is measured: tells simulated counters what it is; real ones know."""
        if self._machine is None:
            return nullcontext()
        return self._machine.working(
            flops, bytes_by_level, package=self.package or 0, expected_s=expected_s
        )

    # -----------------------------------------------------------------------------------------
    # The idle power

    def set_idle_between(self, begin_ns: int, end_ns: int) -> str | None:
        """Take the mean power of a time in which all ranks slept as the idle power, from now on.

        Returns
        -------
        Why it is not known; None if it is.
        """
        power_w = self.power_between(begin_ns, end_ns)
        if isinstance(power_w, str):
            return power_w
        self.idle_w = power_w
        return None

    def power_between(self, begin_ns: int, end_ns: int) -> float | str:
        """Mean power of the packages in watts; a sentence where it is not known."""
        package = self._package_between(begin_ns, end_ns)
        if package.energy_j is None:
            return package.reason
        return package.energy_j / ((end_ns - begin_ns) / 1e9)

    def _idle_j(self, begin_ns: int, end_ns: int) -> float:
        return (self.idle_w or 0.0) * (end_ns - begin_ns) / 1e9

    # -----------------------------------------------------------------------------------------
    # Who gets what

    def _share_out(self, row: Row) -> None:
        """Add what this rank gets of the energy since the last whole row, by processor time."""
        energy_uj = self._follower.energy_uj
        cpu_ns = [row.cpu_ns[i] for i in self._peers]
        if UNREAD in cpu_ns:
            rank = self._peers[cpu_ns.index(UNREAD)]
            self._no_share = (
                f"the processor time of rank {rank} of the node cannot be read: are all ranks in "
                "one container?"
            )
        share_uj = 0.0
        if self._before is not None:
            energy_before_uj, cpu_before_ns = self._before
            spent_ns = [b - a for a, b in zip(cpu_before_ns, cpu_ns, strict=True)]
            idle_uj = self._idle_j(self._stamps_ns[-1], row.stamp_ns) * 1e6
            own_ns, all_ns = spent_ns[self._peers.index(self._position)], sum(spent_ns)
            part = own_ns / all_ns if all_ns > 0 else 1 / self.n_ranks
            share_uj = self._shares_uj[-1] + part * (energy_uj - energy_before_uj - idle_uj)
        self._stamps_ns.append(row.stamp_ns)
        self._shares_uj.append(share_uj)
        self._before = (energy_uj, cpu_ns)

    def claim(self, since_ns: int, part: float | None) -> None:
        """In a gang: get this part of everything from a moment on; a later word replaces an earlier
        one of the same moment.

        The moment must be the same for all ranks of the packages, and their parts add up to 1, or
        all be `BY_TIME`.
        """
        if self._claims[-1].since_ns == since_ns:
            self._claims.pop()
        self._claims.append(Claim(since_ns, part))

    def claim_as_usual(self, since_ns: int) -> None:
        """In a gang: the ranks are between two blocks, and all get the same."""
        self.claim(since_ns, self._usual)

    def _claimed_parts(self, begin_ns: int, end_ns: int) -> list[tuple[int, int, float | None]]:
        """Stretches of constant part."""
        inside = [claim for claim in self._claims if begin_ns < claim.since_ns < end_ns]
        before = [claim for claim in self._claims if claim.since_ns <= begin_ns]
        cuts = [Claim(begin_ns, before[-1].part), *inside, Claim(end_ns, 0.0)]
        return [(a.since_ns, b.since_ns, a.part) for a, b in pairwise(cuts)]

    def _dynamic_j(self, begin_ns: int, end_ns: int) -> float:
        """This rank's part of what was drawn above the idle power.

        Raises
        ------
        CounterUnavailable
            If it is not known.
        """
        dynamic_j = 0.0
        for begin, end, part in self._claimed_parts(begin_ns, end_ns):
            drawn_j = self._follower.drawn_j(begin, end)
            if part is not BY_TIME:
                dynamic_j += part * (drawn_j - self._idle_j(begin, end))
                continue
            if self._no_share is not None:
                raise CounterUnavailable(self._no_share)
            dynamic_j += (self._shared_uj(end) - self._shared_uj(begin)) / 1e6
        return dynamic_j

    def _shared_uj(self, stamp_ns: int) -> float:
        stamps, shares = self._stamps_ns, self._shares_uj
        i = bisect_left(stamps, stamp_ns)
        if i < len(stamps) and stamps[i] == stamp_ns:
            return shares[i]
        if not 0 < i < len(stamps):
            raise CounterUnavailable("processor times were not read at that moment")
        way = (stamp_ns - stamps[i - 1]) / (stamps[i] - stamps[i - 1])
        return shares[i - 1] + way * (shares[i] - shares[i - 1])

    # -----------------------------------------------------------------------------------------
    # The account

    def open_account(self, stamp_ns: int) -> None:
        """Begin to count `claimed_j` at a moment."""
        self.claimed_j = self.spare_j = 0.0 if self._wait_for(stamp_ns) else None
        self._settled_ns = stamp_ns
        self._opened = self._follower.newest_look if self._follower else None

    def close_account(self, stamp_ns: int) -> None:
        """Count `claimed_j` up to a moment."""
        if self._wait_for(stamp_ns):
            self._settle_until(stamp_ns, ())
        else:
            self.claimed_j = self.spare_j = None

    def settle(self, stretches: Sequence[Stretch] = ()) -> None:
        """Count `claimed_j` and `spare_j` up to the newest row, and forget the rows before it.

        Parameters
        ----------
        stretches : what runs were given since the last time.
        """
        if self._follower is not None:
            self._follower.follow()
            self._settle_until(self._follower.newest_ns, stretches)

    def follow(self) -> None:
        """Look what is new, while this rank waits: the board keeps it for some minutes only."""
        if self._follower is not None:
            self._follower.follow()

    def _settle_until(self, stamp_ns: int, stretches: Sequence[Stretch]) -> None:
        if self.claimed_j is not None and stamp_ns > self._settled_ns:
            try:
                self.claimed_j += self._dynamic_j(self._settled_ns, stamp_ns)
                self.spare_j += self._spare_j(self._settled_ns, stamp_ns, stretches)
            except CounterUnavailable:
                self.claimed_j = self.spare_j = None
            self._settled_ns = stamp_ns
        self._follower.forget_before(stamp_ns)
        i = max(bisect_right(self._stamps_ns, stamp_ns) - 1, 0)
        del self._stamps_ns[:i], self._shares_uj[:i]
        j = max(bisect_right(self._claims, stamp_ns, key=lambda claim: claim.since_ns) - 1, 0)
        del self._claims[:j]

    def _spare_j(self, begin_ns: int, end_ns: int, stretches: Sequence[Stretch]) -> float:
        """This rank's part that no run was given, stretch by stretch."""
        cuts = {begin_ns, end_ns, *(s.begin_ns for s in stretches), *(s.end_ns for s in stretches)}
        spare_j = 0.0
        for begin, end in pairwise(sorted(cut for cut in cuts if begin_ns <= cut <= end_ns)):
            given = sum(s.weight for s in stretches if s.begin_ns <= begin and end <= s.end_ns)
            if abs(1.0 - given) > 1e-9:
                spare_j += (1.0 - given) * self._dynamic_j(begin, end)
        return spare_j

    @property
    def foreign_load_of_account(self) -> float | None:
        """What `foreign_load` says, since `open_account`."""
        if self._follower is None:
            return None
        return self._follower.load(self._opened, self._follower.newest_look)

    # -----------------------------------------------------------------------------------------
    # Asking

    def between(self, begin_ns: int, end_ns: int) -> Energy:
        """This rank's part of the energy from one stamp to a later one."""
        package = self._package_between(begin_ns, end_ns)
        if package.energy_j is None:
            return package
        try:
            dynamic_j = self._dynamic_j(begin_ns, end_ns)
        except CounterUnavailable as failure:
            return unavailable_energy(str(failure))
        parts = [
            (end - begin, 1 / self.n_ranks if part is BY_TIME else part)
            for begin, end, part in self._claimed_parts(begin_ns, end_ns)
        ]
        part = sum(length * each for length, each in parts) / (end_ns - begin_ns)
        idle_j = self._idle_j(begin_ns, end_ns) * part
        energy_j = dynamic_j + idle_j
        n_ranks = round(1 / part) if part else self.n_ranks
        return replace(
            package,
            energy_j=energy_j,
            quality=self._quality(package.quality, begin_ns, end_ns, n_ranks),
            resolution_j=package.resolution_j * abs(energy_j) / package.package_j,
            idle_j=None if self.idle_w is None else idle_j,
            n_ranks=n_ranks,
        )

    def package_j_between(self, begin_ns: int, end_ns: int) -> float | None:
        """All that the packages have drawn, in however short a time; None where it is not known."""
        if not self._wait_for(end_ns):
            return None
        try:
            return self._follower.drawn_j(begin_ns, end_ns)
        except CounterUnavailable:
            return None

    def _package_between(self, begin_ns: int, end_ns: int) -> Energy:
        if self._unread is not None:
            return unavailable_energy(self._unread)
        return self._follower.between(begin_ns, end_ns)

    def _quality(self, of_package: str, begin_ns: int, end_ns: int, n_ranks: int) -> str:
        """What a part is worth, if the whole is worth that."""
        if n_ranks == 1 or of_package not in ("measured", "interpolated"):
            return of_package
        if any(part is BY_TIME for *_, part in self._claimed_parts(begin_ns, end_ns)):
            return "measured_shared"
        return "measured_divided" if of_package == "measured" else of_package

    def along(self, regions: Sequence[Region]) -> list[Energy]:
        """This rank's part of each of the regions of a run, however short.

        Between samples energies are interpolated, so that a window of its own is twice as long.
        """
        if self._unread is not None:
            return [unavailable_energy(self._unread)] * len(regions)
        return along(regions, max(round(2e9 * PERIOD_S), self._follower.shortest_ns), self.between)

    def foreign_load(self, begin_ns: int, end_ns: int) -> float | None:
        """Part of the node's processor time that others than its ranks took, of 1; None where it is
        not known."""
        return self._follower.foreign_load(begin_ns, end_ns) if self._follower else None
