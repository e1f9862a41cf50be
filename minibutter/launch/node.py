"""The energy of a node while its ranks train: one reads, all sleep before and after, gangs meet.

Three ways to a run's joules, from the packages' (`energy.attribution` says what they are worth):

* *alone*: one rank on the node reads the counters around each epoch;
* *shared*: several do what they would do anyway; each gets a part by processor time;
* *gang*: the ranks of a package train repetitions of one experiment, between two meetings.

Where shared or gang is asked for by name, all ranks sleep for a while before and after, so that the
idle power is known, and ranks of a gang that no launcher has bound get a core each. What became of
all joules of a node is accounted for at the end.
"""

import os
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace

from minibutter.energy import open_meter, open_rank_meter, open_reader
from minibutter.energy.account import NodeAccount, RankShare, balance
from minibutter.energy.attribution import GANG, SHARED, RankMeter, Stretch, watch
from minibutter.energy.environment import read_boot_id
from minibutter.energy.meter import Meter
from minibutter.energy.opening import find_root
from minibutter.energy.placement import (
    choose_cpus,
    claim_core,
    find_placement,
    gang_problem,
)
from minibutter.energy.reader import NodeCounters, NodeReader, process_name
from minibutter.energy.topology import read_topology
from minibutter.launch.gang import Gang, Training
from minibutter.launch.ranks import Alone, Circle, LaunchRefused, Team
from minibutter.runs import RunResult

AUTO = "auto"
ENERGY_MODES = (AUTO, SHARED, GANG)

IDLE_S = 10.0
"""Seconds of sleep that tell the idle power, before and after."""


class Node(AbstractContextManager):
    """What this rank and the others of its node do about energy; closed at the end.

    Parameters
    ----------
    ranks : of the job.
    mode : `auto`, `shared` or `gang`; `auto` is alone, or shared without sleep.
    idle_s : seconds of sleep before and after; in `auto` none.

    Attributes
    ----------
    meter : to train beside.
    gang : the ranks that train repetitions of the same experiment at the same time; this rank
        alone but in gang mode.
    notes : what people should know, on every rank.
    """

    def __init__(self, ranks: Alone | Team, mode: str = AUTO, idle_s: float = IDLE_S) -> None:
        _check(ranks, mode, idle_s)
        self._circle, self._rank = ranks.node, ranks.rank
        self._is_asked_for = mode != AUTO
        self._idle_s = idle_s if self._is_asked_for else 0.0
        self.gang, self.notes = Gang(Circle()), []
        self._reader: NodeReader | None = None
        self._watchers: list[RankMeter] = []
        self._attributed_j, self._n_unknown = 0.0, 0
        self._begun_ns = 0
        self._ranks: list[int] = [self._rank]
        self._resources = ExitStack()
        self.meter: Meter | RankMeter
        if mode == AUTO and self._circle.size == 1:
            self.meter = self._resources.enter_context(open_meter())
        else:
            self._mode = SHARED if mode == AUTO else mode
            try:
                self._open()
            except BaseException:
                self._resources.close()
                raise

    def _open(self) -> None:
        if self._mode == GANG:
            self._bind()
        self._ranks = self._circle.meet(self._rank)
        root = find_root()
        affinity = os.sched_getaffinity(0)
        placements = self._circle.meet(find_placement(read_topology(root, affinity)))
        # Cores are the machine's own, also where a simulated one stands for its counters.
        problem = gang_problem(self._circle.meet(find_placement(read_topology())))
        packages = [placement.package for placement in placements]
        names = self._circle.meet(process_name())
        counters: NodeCounters | str | None = None
        if self._circle.rank == 0:
            # Of another namespace than the reader's, a number means another process.
            processes = [number if space == names[0][1] else None for number, space in names]
            reader = open_reader(packages, processes, self._rank)
            counters = reader if isinstance(reader, str) else reader.counters
            if isinstance(reader, NodeReader):
                self._reader = reader
                self._resources.callback(reader.close)
        counters = self._circle.meet(counters)[0]
        # The same on all ranks of the node, so that all go to the same meetings.
        self._is_read = not isinstance(counters, str)
        meter = open_rank_meter(counters, self._circle.rank, self._mode, self._reader)
        self.meter = self._resources.enter_context(meter)
        if self._reader is not None:
            used = {meter.package} if meter.package is None else set(packages)
            spare = {domain.package for domain in counters.domains} - used
            watched = [None, *(spare if None not in used else ())]
            self._watchers = [
                self._resources.enter_context(watch(counters, package)) for package in watched
            ]
        self._circle.meet()
        if self._reader is not None:
            self._reader.hide()
        if self._mode == GANG:
            self.gang = Gang(self._circle.split(meter.package), meter, problem)
            if problem is not None and self._circle.size > 1:
                self.notes.append(f"energy: no true gang: {problem}")

    def _bind(self) -> None:
        """A core for each rank of the node, unless the launcher has bound them, or another job has
        the core: two jobs that bind alike would share one and leave the next one idle."""
        mask = frozenset(os.sched_getaffinity(0))
        if len(set(self._circle.meet(mask))) > 1:
            return
        cpus = choose_cpus(read_topology(), self._circle.size)
        if cpus is None:
            return
        cpu = cpus[self._circle.rank]
        lock = self._resources.enter_context(claim_core(cpu))
        if not all(self._circle.meet(lock)):
            self.notes.append("energy: ranks have no core of their own: another job has bound some")
            return
        os.sched_setaffinity(0, {cpu})
        self._resources.callback(os.sched_setaffinity, 0, mask)

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    # -----------------------------------------------------------------------------------------
    # Before, between and after the runs

    def begin(self) -> None:
        """Measure the idle power while all ranks sleep, and open the account."""
        if not isinstance(self.meter, RankMeter):
            return
        if self._idle_s and self._is_read:
            begin_ns, end_ns = self._sleep()
            for meter in (self.meter, *self._watchers):
                problem = meter.set_idle_between(begin_ns, end_ns)
                if problem is not None and meter is self.meter:
                    self.notes.append(f"energy: the idle power is not known: {problem}")
        self._begun_ns = max(self._circle.meet(time.monotonic_ns()))
        for meter in (self.meter, *self._watchers):
            meter.open_account(self._begun_ns)

    def train(self, train: Training | None, meanwhile: Callable[[], None]) -> list[RunResult]:
        """Train this rank's part of a block of its gang, and keep account of the energy.

        Parameters
        ----------
        train, meanwhile : as for `Gang.train`.
        """

        def wait() -> None:
            self.follow()
            meanwhile()

        results = self.gang.train(train, wait)
        if isinstance(self.meter, RankMeter):
            self.meter.settle(self._book(results))
            self.follow()
        return results

    def follow(self) -> None:
        """To be called now and then while this rank does something else, or waits: what is read
        for the node is kept for some minutes only."""
        if isinstance(self.meter, RankMeter):
            self.meter.follow()
            if self._mode == SHARED:
                self.meter.settle()  # In a gang, what a block is worth shows at its end.
            for watcher in self._watchers:
                watcher.settle()

    def _book(self, results: list[RunResult]) -> list[Stretch]:
        """Note what runs were given, and of which stretches of time: what was measured before this
        job belongs to the account of another."""
        stretches = []
        for result in results:
            if (part := result.part) is None:
                continue
            energy = part.energy
            known_j = energy.energy_j if energy.dynamic_j is None else energy.dynamic_j
            if known_j is None:
                self._n_unknown += 1
                continue
            self._attributed_j += known_j
            stretches.append(Stretch(part.begun_ns, part.ended_ns, 1 / result.run["lanes"]))
        return stretches

    def end(self) -> NodeAccount | None:
        """Close the account, and measure the idle power again; the account on the reading rank.

        None on the other ranks, and where nothing was asked for or nothing can be read.
        """
        if not self._begun_ns or not self._is_read:
            return None

        def wait() -> None:
            for meter in (self.meter, *self._watchers):
                meter.settle()

        self._circle.meet(None, wait)
        # All have come, so that nobody has counted beyond the latest of these moments.
        ended_ns = max(self._circle.meet(time.monotonic_ns()))
        for meter in (self.meter, *self._watchers):
            meter.close_account(ended_ns)
        share = RankShare(self._attributed_j, self.meter.spare_j, self._n_unknown)
        shares = self._circle.meet(share)
        load = self._watchers[0].foreign_load_of_account if self._watchers else None
        after = self._sleep() if self._idle_s else None
        if self._reader is None:
            return None
        return self._account(shares, ended_ns, load, after)

    def _sleep(self) -> tuple[int, int]:
        """Sleep at the same time as all ranks of the node; begin and end of it."""
        # A reading: between two, work of before would be shared out over the sleep.
        begin_ns = max(self._circle.meet(self.meter.end()))
        end_ns = begin_ns + round(self._idle_s * 1e9)
        while (left_ns := end_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / 1e9)
        return begin_ns, end_ns

    def _account(
        self,
        shares: list[RankShare],
        ended_ns: int,
        foreign_load: float | None,
        after: tuple[int, int] | None,
    ) -> NodeAccount:
        whole, *spare = self._watchers
        counters = self._reader.counters
        cost = self._reader.cost
        account = NodeAccount(
            hostname=platform.node(),
            boot_id=read_boot_id(),
            source=counters.source,
            mode=self._mode,
            ranks=tuple(self._ranks),
            reader_rank=counters.reader_rank,
            begun_ns=self._begun_ns,
            ended_ns=ended_ns,
            idle_before_w=whole.idle_w,
            idle_after_w=_number(whole.power_between(*after)) if after else None,
            foreign_load=foreign_load,
            meter_reads=cost.reads,
            meter_cpu_s=cost.cpu_s,
        )
        unknown = [watcher for watcher in self._watchers if watcher.claimed_j is None]
        if unknown:
            return replace(account, reason="the counters could not be read all the time")
        seconds = (ended_ns - self._begun_ns) / 1e9
        total_j = whole.claimed_j + (whole.idle_w or 0.0) * seconds
        spare_j = sum(watcher.claimed_j for watcher in spare)
        joules = balance(total_j, shares, spare_j, whole.idle_w, seconds)
        if isinstance(joules, str):
            return replace(account, total_j=total_j, reason=joules)
        return replace(account, total_j=total_j, **asdict(joules))


def _check(ranks: Alone | Team, mode: str, idle_s: float) -> None:
    """Refuse what has no meaning, on all ranks.

    Raises
    ------
    LaunchRefused
        With a message on rank 0.
    """
    problem = ""
    if mode not in ENERGY_MODES:
        problem = f"energy = {mode!r}: must be one of {', '.join(ENERGY_MODES)}"
    elif not 0 <= idle_s < 86400:
        problem = f"idle_s = {idle_s!r}: must be a number of seconds, from 0"
    if problem:
        raise LaunchRefused(problem if ranks.rank == 0 else "")


def _number(value: float | str) -> float | None:
    return None if isinstance(value, str) else value
