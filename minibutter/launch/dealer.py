"""Who does what next: rank 0 deals out groups on request, from a thread, while it trains itself.

Every worker, a rank or the ranks of a gang, asks when it has nothing left to do, and says what it
has done. Rank 0 answers from a thread of its own: its kernels run without the interpreter's lock,
so that nobody waits for its epochs. (One-sided counters would need no thread, but make progress
only while rank 0 is inside MPI: with the MPICH of PyPI they stall for as long as it trains.) The
thread sleeps between two looks; nobody spins.

The order in which groups are done changes no number: only which rank does them, and when.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minibutter.launch.job import Group, Job
from minibutter.launch.ranks import Alone, Progress, Team
from minibutter.launch.stopping import Stopping
from minibutter.sweeps.schedule import Schedule

POLL_S = 0.0005
"""Between two looks of the thread into the mailbox: what a request waits for, half of it on
average, and one per cent of a core."""

MARGIN = 1.3
"""By how much a group may take longer than predicted before the end of the time that a job has."""

_UPDATE_S = 0.25
_SWITCH_S = 0.0005


class Deal(NamedTuple):
    """What a worker is to do next: blocks of groups, one a rank; none when all is dealt."""

    blocks: tuple[tuple[Group, ...], ...]

    @property
    def n_groups(self) -> int:
        """In all blocks together."""
        return sum(map(len, self.blocks))


class Dealer:
    """On rank 0: the schedule, the mailbox, and what is shown meanwhile.

    Parameters
    ----------
    job : what is to do.
    widths : ranks of every worker.
    ranks : of the launch.
    stopping : when to end early.
    show : called a few times a second with the newest progress of all ranks.
    """

    def __init__(
        self,
        job: Job,
        widths: tuple[int, ...],
        ranks: Alone | Team,
        stopping: Stopping,
        show: Callable[[list[Progress]], None],
    ) -> None:
        kinds = {kind: number for number, kind in enumerate(dict.fromkeys(map(_kind, job.groups)))}
        self._job, self._ranks, self._show = job, ranks, show
        self._stopping = stopping
        self._schedule = Schedule(
            np.array([job.work(group) / 1e6 for group in job.groups]),
            widths,
            kinds=np.array([kinds[_kind(group)] for group in job.groups], np.int32),
            margin=MARGIN,
        )
        self.newest = [Progress(rank) for rank in range(ranks.size)]
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._has_stopped = False
        self._shown_s = 0.0
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._switch_s = sys.getswitchinterval()

    @property
    def n_pending(self) -> int:
        """Groups that nobody holds and nobody has done."""
        return self._schedule.n_pending

    def __enter__(self) -> "Dealer":
        if self._ranks.size > 1 and self._ranks.has_threads:
            # The interpreter's lock changes hands often enough for those who wait.
            sys.setswitchinterval(_SWITCH_S)
            self._thread = threading.Thread(target=self._serve_on, name="dealer", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
            sys.setswitchinterval(self._switch_s)

    def deal(self, worker: int, n_done: int) -> Deal:
        """Take note of what a worker has done, and give it its next groups."""
        with self._lock:
            self._schedule.finish(worker, n_done)
            if self._has_stopped:
                return Deal(())
            grant = self._schedule.request(worker, self._stopping.seconds_left)
        ends = np.cumsum(grant.blocks)
        return Deal(
            tuple(
                tuple(self._job.groups[task] for task in grant.tasks[end - size : end])
                for size, end in zip(grant.blocks, ends, strict=True)
            )
        )

    def stop(self) -> None:
        """Deal nothing more, and let all ranks end what they do at the next epoch."""
        if not self._has_stopped:
            self._has_stopped = True
            self._ranks.tell_to_stop()

    def update(self, progress: Progress) -> None:
        """Rank 0 says how far it is."""
        self.newest[0] = progress
        self.look()

    def look(self) -> None:
        """What rank 0 does now and then: fail if its thread has, and serve where there is none."""
        if self._problem is not None:
            raise self._problem
        if self._thread is None:
            self._serve()

    def _serve_on(self) -> None:
        try:
            while not self._is_over.is_set():
                if not self._serve():
                    time.sleep(POLL_S)
        except BaseException as problem:
            self._problem = problem

    def _serve(self) -> bool:
        """Read the mail; whether there was any."""
        has_mail = False
        for rank, message in self._ranks.receive_mail():
            has_mail = True
            if isinstance(message, Progress):
                self.newest[message.rank] = message
                if message.is_asked_to_stop:
                    self.stop()
            else:
                self._ranks.answer(rank, self.deal(*message))
        if self._stopping.seconds_left <= 0:
            self.stop()
        now_s = time.monotonic()
        if now_s - self._shown_s > _UPDATE_S:
            self._shown_s = now_s
            self._show(self.newest)
        return has_mail


def _kind(group: Group) -> Any:
    """Groups of one kind take the same time, so that a gang may do them side by side."""
    return group.experiment_id, len(group.repetitions)
