"""The energy of a node while its ranks train: one reads, all sleep before and after, gangs meet.

Three ways to a run's joules, from the packages' (`energy.attribution` says what they are worth):

* *alone*: one rank on the node reads the counters around each epoch;
* *shared*: several do what they would do anyway; each gets a part by processor time;
* *gang*: the ranks of a package train repetitions of one experiment, between two meetings.

Where shared or gang is asked for by name, all ranks sleep for a while before and after, so that the
idle power is known; ranks that no launcher has bound get a core each; and what became of all joules
is accounted for at the end.
"""

import os
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from typing import Any

from minibutter.energy import open_meter, open_rank_meter, open_reader
from minibutter.energy.account import NodeAccount, RankShare, balance
from minibutter.energy.attribution import GANG, SHARED, RankMeter, watch
from minibutter.energy.environment import read_boot_id
from minibutter.energy.meter import Meter
from minibutter.energy.opening import find_root
from minibutter.energy.placement import choose_cpus, find_placement, gang_problem
from minibutter.energy.reader import NodeReader
from minibutter.energy.topology import read_topology
from minibutter.launch.ranks import Alone, Circle, LaunchRefused, Team
from minibutter.runs import RunResult

AUTO = "auto"
ENERGY_MODES = (AUTO, SHARED, GANG)

IDLE_S = 10.0
"""Seconds of sleep that tell the idle power, before and after."""

MAX_SPREAD = 0.05
"""A gang whose ranks end further apart, as a part of the run, is none: its equal parts are off."""


class Node(AbstractContextManager):
    """What this rank and the others of its node do about energy; closed at the end.

    Parameters
    ----------
    ranks : of the job.
    mode : `auto`, `shared` or `gang`; `auto` is alone, or shared without sleep or account.
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
        self.gang, self.notes = Circle(), []
        self._reader: NodeReader | None = None
        self._watchers: list[RankMeter] = []
        self._attributed_j: float | None = 0.0
        self._begun_ns = 0
        self._problem: str | None = None
        self._ranks: list[int] = [self._rank]
        self._resources = ExitStack()
        self.meter: Meter | RankMeter
        if mode == AUTO and self._circle.size == 1:
            self.meter = self._resources.enter_context(open_meter())
        else:
            self._mode = SHARED if mode == AUTO else mode
            self._open()

    def _open(self) -> None:
        if self._is_asked_for:
            self._bind()
        self._ranks = self._circle.meet(self._rank)
        root = find_root()
        affinity = os.sched_getaffinity(0)
        placements = self._circle.meet(find_placement(read_topology(root, affinity)))
        # Cores are the machine's own, also where a simulated one stands for its counters.
        self._problem = gang_problem(self._circle.meet(find_placement(read_topology())))
        packages = [placement.package for placement in placements]
        if self._circle.rank == 0:
            processes = self._circle.meet(os.getpid())
            reader = open_reader(packages, processes, self._rank)
            counters = reader if isinstance(reader, str) else reader.counters
            if isinstance(reader, NodeReader):
                self._reader = reader
                self._resources.callback(reader.close)
        else:
            self._circle.meet(os.getpid())
            counters = None
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
            self.gang = self._circle.split(meter.package)
            if self._problem is not None and self._circle.size > 1:
                self.notes.append(f"energy: no true gang: {self._problem}")

    def _bind(self) -> None:
        """A core for each rank of the node, unless the launcher has bound them."""
        masks = self._circle.meet(frozenset(os.sched_getaffinity(0)))
        if len(set(masks)) > 1:
            return
        cpus = choose_cpus(read_topology(), self._circle.size)
        if cpus is not None:
            os.sched_setaffinity(0, {cpus[self._circle.rank]})

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

    def train_together(
        self,
        train: Callable[[Callable[[], None]], list[RunResult]] | None,
        n_members: int,
        meanwhile: Callable[[], None],
    ) -> list[RunResult]:
        """Train this rank's part of a block between two meetings of its gang.

        Parameters
        ----------
        train : trains it, and calls what it is given when it is about to; None where the block has
            no part for this rank.
        n_members : ranks that have a part.
        meanwhile : called now and then while this rank waits for the others.
        """
        for watcher in self._watchers:
            watcher.settle()
        if self.gang.size == 1 and n_members == 1:
            results = train(lambda: None)
            self._book(results)
            return results
        has_begun = False

        def begin() -> None:
            """Meet once: not again where repetitions are trained one by one, and also where all
            have failed before they were trained."""
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                begun_ns = max(self.gang.meet(time.monotonic_ns(), meanwhile))
                self.meter.claim(begun_ns, 0.0 if train is None else 1 / n_members)

        results = [] if train is None else train(begin)
        begin()
        own = [result.run["ended_ns"] or time.monotonic_ns() for result in results]
        finishes = [f for f in self.gang.meet(max(own, default=None), meanwhile) if f is not None]
        first_ns, last_ns = min(finishes), max(finishes)
        # The same moment on every rank, and later than any of its work.
        ended_ns = max(self.gang.meet(time.monotonic_ns(), meanwhile))
        self.meter.claim(ended_ns, 1 / self.gang.size)
        tail_j = self.meter.package_j_between(first_ns, last_ns) if last_ns > first_ns else 0.0
        for result in results:
            self._judge(result.run, (last_ns - first_ns) / 1e9, tail_j)
        self._book(results)
        return results

    def _judge(self, run: dict[str, Any], spread_s: float, tail_j: float | None) -> None:
        """What the ends of a gang say about the energies of its runs."""
        if run["energy_j"] is None:
            return
        run["finish_spread_s"], run["energy_tail_j"] = spread_s, tail_j
        duration_s = (run["ended_ns"] - run["begun_ns"]) / 1e9
        is_gang = self._problem is None and spread_s <= MAX_SPREAD * duration_s
        if run["energy_quality"] == "measured_divided" and not is_gang:
            run["energy_quality"] = "measured_shared"

    def _book(self, results: list[RunResult]) -> None:
        for result in results:
            run = result.run
            if run["status"] == "failed":
                continue
            dynamic_j = run["energy_dynamic_j"]
            known_j = run["energy_j"] if dynamic_j is None else dynamic_j
            if known_j is None or self._attributed_j is None:
                self._attributed_j = None
            else:
                self._attributed_j += known_j

    def end(self) -> NodeAccount | None:
        """Close the account, and measure the idle power again; the account on the reading rank.

        None on the other ranks, and where nothing was asked for or nothing can be read.
        """
        if not isinstance(self.meter, RankMeter) or not self._is_read:
            return None
        ended_ns = max(self._circle.meet(time.monotonic_ns()))
        for meter in (self.meter, *self._watchers):
            meter.close_account(ended_ns)
        share = RankShare(
            self.meter.claimed_j, self._attributed_j, self.meter.package, self.meter.idle_w
        )
        shares = self._circle.meet(share)
        load = self._watchers[0].foreign_load_of_account if self._watchers else None
        after = self._sleep() if self._idle_s else None
        if self._reader is None:
            return None
        return self._account(shares, ended_ns, load, after)

    def _sleep(self) -> tuple[int, int]:
        """Sleep at the same time as all ranks of the node; begin and end of it."""
        begin_ns = max(self._circle.meet(time.monotonic_ns()))
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
