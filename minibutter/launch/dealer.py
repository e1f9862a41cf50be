"""Who does what next: rank 0 deals out groups on request, from a thread, while it trains itself.

Every worker, a rank or the ranks of a gang, asks for more a moment before it has nothing left to
do, and says what it has done since it asked last: the answer is there when it needs it. Rank 0
answers from a thread of its own: its kernels run without the interpreter's lock, so that nobody
waits for its epochs. (One-sided counters would need no thread, but make progress only while rank 0
is inside MPI: with the MPICH of PyPI they stall for as long as it trains.) The thread sleeps
between two looks; nobody spins.

The order in which groups are done changes no number: only which rank does them, and when.
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minibutter.launch.estimates import Estimates
from minibutter.launch.job import Group, Job
from minibutter.launch.ranks import Alone, Progress, Team
from minibutter.launch.stopping import Stopping
from minibutter.saving import LEAST_PROGRESS_S
from minibutter.sweeps.schedule import Schedule

POLL_S = 0.01
"""Between two looks of the thread into the mailbox: what a question waits for, half of it on
average. A look takes 50 us from the run that rank 0 trains, what it pushes out of the caches
included."""

SOON_S = 0.001
"""Whoever looks into the mailbox so often answers soon enough without the thread."""

_LONGEST_REST_S = 0.05
"""Of the thread, should rank 0 not look again as soon as it said."""

MARGIN = 1.3
"""By how much a group may take longer than predicted before the end of the time that a job has, as
long as no run has told."""

CORRECTION_S = 30.0
"""Between two corrections of the predictions, at least."""

_NEWS = 1.2
"""A correction waits until so many times as many groups have ended as for the last one."""

_OVERDUE = 0.05
"""Of its prediction, what a group that should have ended is expected to take yet."""

_UPDATE_S = 0.25
_SWITCH_S = 0.0001


class Deal(NamedTuple):
    """What a worker is to do next: blocks of groups, one a rank; none when all is dealt."""

    blocks: tuple[tuple[Group, ...], ...]


class Dealer:
    """On rank 0: the schedule, the mailbox, and what is shown meanwhile.

    Parameters
    ----------
    job : what is to do.
    widths : ranks of every worker.
    ranks : of the launch.
    stopping : when to end early.
    show : called a few times a second with the newest progress of all ranks, and `left_s`.
    clock : seconds.

    Attributes
    ----------
    newest : progress of every rank.
    is_stopping : whether nothing is dealt any more, and all ranks end at the next epoch.
    """

    def __init__(
        self,
        job: Job,
        widths: tuple[int, ...],
        ranks: Alone | Team,
        stopping: Stopping,
        show: Callable[[list[Progress], float | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        kinds = [_kind(job, group) for group in job.groups]
        numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
        epoch_s = np.array([job.epoch_us(group) for group in job.groups]) / 1e6
        self._job, self._ranks, self._show = job, ranks, show
        self._stopping = stopping
        self._clock = clock
        self._widths = widths
        self._estimates = Estimates(job)
        self._estimates.add_stored()
        correction = self._estimates.correct()
        # Groups whose durations are known, and how many of them the predictions know.
        self._n_ended = self._n_known = correction.n_runs
        self._corrected_s = clock()
        # Of every worker: the groups that the first of its ranks holds, when all of what the worker
        # holds shall be done, and how long that takes from its last question on.
        self._holds: list[list[int]] = [[] for _ in widths]
        self._end_s = [-math.inf] * len(widths)
        self._held_s = [0.0] * len(widths)
        # Of groups that nobody holds and that were begun in another job, what part is done.
        kept = ((task, job.part_kept(group)) for task, group in enumerate(job.groups))
        self._begun = {task: part for task, part in kept if part}
        self._schedule = Schedule(
            self._estimates.cost_s,
            widths,
            kinds=np.array([numbers[kind] for kind in kinds], np.int32),
            margin=correction.margin if correction.n_runs else MARGIN,
            # Whatever is stopped goes on in the next job, if an epoch of it was done.
            least_s=np.maximum(epoch_s, LEAST_PROGRESS_S),
        )
        self.newest = [Progress(rank) for rank in range(ranks.size)]
        self._lock = threading.Lock()
        self._is_over, self._is_needed = threading.Event(), threading.Event()
        self._serving = threading.Lock()
        self.is_stopping = False
        self._shown_s = 0.0
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> "Dealer":
        if self._ranks.size > 1 and self._ranks.has_threads:
            # The interpreter's lock changes hands often enough for those who wait.
            sys.setswitchinterval(_SWITCH_S)
            self._is_needed.set()
            self._thread = threading.Thread(target=self._serve_on, name="dealer", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._is_needed.set()
        if self._thread is not None:
            self._thread.join()
            sys.setswitchinterval(self._switch_s)

    def deal(self, worker: int, n_done: int, measured_s: Sequence[float] = ()) -> Deal:
        """Take note of what a worker has done, and give it its next groups.

        Parameters
        ----------
        worker : number of the worker.
        n_done : groups that it has done since it asked last, all ranks together; it may still hold
            others.
        measured_s : what each of those took that its first rank did, see `estimates.measured_s`.
        """
        with self._lock:
            holds = self._holds[worker]
            for task, seconds in zip(holds, measured_s, strict=False):
                self._estimates.add(task, seconds)
            self._n_ended += len(measured_s)
            self._schedule.finish(worker, n_done)
            del holds[: len(measured_s)]
            now_s = self._clock()
            left_s = max(self._end_s[worker] - now_s, 0.0) if holds else 0.0
            self._end_s[worker], self._held_s[worker] = now_s + left_s, left_s
            if self.is_stopping:
                return Deal(())
            grant = self._schedule.request(worker, self._stopping.seconds_left - left_s)
            ends = np.cumsum(grant.blocks)
            firsts = grant.tasks[ends - grant.blocks].tolist()
            if len(grant.tasks):
                parts = {task: self._begun.pop(task, 0.0) for task in grant.tasks.tolist()}
                cost_s = self._estimates.cost_s
                granted_s = grant.cost_s - sum(parts[task] * cost_s[task] for task in firsts)
                self._held_s[worker] += granted_s
                self._end_s[worker] += granted_s
            holds += firsts
        return Deal(
            tuple(
                tuple(self._job.groups[task] for task in grant.tasks[end - size : end])
                for size, end in zip(grant.blocks, ends, strict=True)
            )
        )

    def left_s(self) -> float | None:
        """Seconds until all is done, by predictions that runs have corrected; None before that.

        All ranks together have the rest to do, and none of them is done before what it holds, nor
        before the longest group that nobody has begun.
        """
        if not self._n_known:
            return None
        with self._lock:
            now_s = self._clock()
            held_s = [
                max(end_s - now_s, _OVERDUE * total_s) if total_s else 0.0
                for end_s, total_s in zip(self._end_s, self._held_s, strict=True)
            ]
            cost_s = self._estimates.cost_s
            kept_s = sum(part * cost_s[task] for task, part in self._begun.items())
            pending_s = max(self._schedule.pending_s - kept_s, 0.0)
            work_s = pending_s + float(np.dot(held_s, self._widths))
            longest_s = min(self._schedule.longest_s, pending_s)
            return max(work_s / sum(self._widths), *held_s, longest_s)

    def correct(self) -> None:
        """Deal by new predictions if enough runs have ended since the last ones, and some time has
        passed: what is not begun is put in another order."""
        is_soon = self._clock() - self._corrected_s < CORRECTION_S
        if is_soon or self._n_ended < _NEWS * self._n_known or not self._n_ended:
            return
        with self._lock:
            correction = self._estimates.correct()
            self._n_known = self._n_ended
            if correction.n_runs:
                self._schedule.predict_again(self._estimates.cost_s, correction.margin)
            self._corrected_s = self._clock()

    def stop(self) -> None:
        """Deal nothing more, and let all ranks end what they do at the next epoch."""
        with self._lock:
            was_stopping, self.is_stopping = self.is_stopping, True
        if not was_stopping:
            self._ranks.tell_to_stop()

    def update(self, progress: Progress) -> None:
        """Rank 0 says how far it is."""
        self.newest[0] = progress
        self.look()

    def look(self, again_s: float = math.inf) -> None:
        """What rank 0 does now and then: fail if its thread has, end if it is to, and serve where
        there is no thread, or no need of it.

        Parameters
        ----------
        again_s : in how many seconds it looks again. If that is as soon as the thread would, the
            thread rests: it would only take the interpreter's lock from rank 0, a tenth of the time
            of short runs.
        """
        if self._problem is not None:
            raise self._problem
        if self._stopping.is_due:
            self.stop()
        is_soon = again_s <= SOON_S
        if self._thread is None or is_soon:
            self._serve()
        if is_soon:
            self._is_needed.clear()
        else:
            self._is_needed.set()

    def _serve_on(self) -> None:
        try:
            while not self._is_over.is_set():
                self._is_needed.wait(_LONGEST_REST_S)
                if not self._serve():
                    time.sleep(POLL_S)
        except BaseException as problem:
            self._problem = problem

    def _serve(self) -> bool:
        """Read the mail; whether there was any. One at a time: two that see the same message would
        wait for a second one."""
        if not self._serving.acquire(blocking=False):
            return False
        try:
            return self._read_mail()
        finally:
            self._serving.release()

    def _read_mail(self) -> bool:
        has_mail = False
        for rank, message in self._ranks.receive_mail():
            has_mail = True
            if isinstance(message, Progress):
                self.newest[message.rank] = message
                if message.is_asked_to_stop:
                    self.stop()
            else:
                self._ranks.answer(rank, self.deal(*message))
        if self._stopping.is_due:
            self.stop()
        self.correct()
        now_s = time.monotonic()
        if now_s - self._shown_s > _UPDATE_S:
            self._shown_s = now_s
            self._show(self.newest, self.left_s())
        return has_mail


def _kind(job: Job, group: Group) -> Any:
    """Groups of one kind take the same time, so that a gang may do them side by side."""
    return group.experiment_id, len(group.repetitions), job.epochs_kept(group)
