"""What a schedule will do, without doing it: requests in the order in which workers become free.

The `Schedule` is the one that gives out the tasks of a real sweep; only time passes faster. A heap
holds when each worker becomes free.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minibutter.sweeps.schedule import BUNDLE_S, Grant, Schedule

_SMALLEST_WAVE = 8
"""Fewer requests are answered as soon one by one."""


class Replay(NamedTuple):
    """How a sweep went.

    Attributes
    ----------
    makespan_s : from the first task's begin to the last one's end, over all jobs, without the
        pauses between them.
    lower_bound_s : what no schedule could be shorter than, in one job without a time limit.
    efficiency : part of the ranks' time, up to the makespan, that went into tasks that ended.
    n_jobs : with a time limit, jobs one after the other that this takes.
    n_grants : requests that were answered with something to do.
    n_unfinished : tasks that no job of this length can end.
    lost_s : rank-seconds that went into tasks that were cut off and had to be begun again.
    """

    makespan_s: float
    lower_bound_s: float
    efficiency: float
    n_jobs: int
    n_grants: int
    n_unfinished: int
    lost_s: float


def lower_bound_s(duration_s: np.ndarray, n_ranks: int, counts: np.ndarray | None = None) -> float:
    """No schedule of tasks of these durations ends earlier on so many ranks.

    All ranks together have the sum to do, one has the longest, and of the n_ranks + 1 longest two
    meet on a rank: max(Σp / m, p_1, p_m + p_{m+1}).

    Parameters
    ----------
    duration_s : array (n,).
    n_ranks : at least 1.
    counts : int array (n,): tasks of each duration; one when left out.
    """
    duration_s = np.asarray(duration_s, np.float64)
    counts = np.ones(len(duration_s), np.int64) if counts is None else counts
    if not counts.sum():
        return 0.0
    order = np.argsort(-duration_s)
    ends = np.cumsum(counts[order])
    bound_s = max(float(duration_s @ counts) / n_ranks, float(duration_s[order[0]]))
    if ends[-1] > n_ranks:
        meeting = np.searchsorted(ends, [n_ranks - 1, n_ranks], side="right")
        bound_s = max(bound_s, float(duration_s[order[meeting]].sum()))
    return bound_s


def misjudge(cost_s: np.ndarray, error: float, rng: np.random.Generator) -> np.ndarray:
    """Durations whose predictions were wrong: log-normal around the costs.

    Parameters
    ----------
    cost_s : array (n,), the predictions.
    error : standard deviation of log(duration / cost); 0.3 is about a third either way.
    rng : draws them.
    """
    return cost_s * np.exp(error * rng.standard_normal(len(cost_s)))


def replay(
    cost_s: np.ndarray,
    duration_s: np.ndarray,
    widths: Sequence[int],
    *,
    kinds: np.ndarray | None = None,
    time_limit_s: float = math.inf,
    bundle_s: float = BUNDLE_S,
    margin: float = 1.0,
) -> Replay:
    """Go through a sweep, job after job, until nothing is left that a job can end.

    A task that is not done when the time is up is lost, and begun again in the next job.

    Parameters
    ----------
    cost_s : array (n,), seconds that each task is predicted to take on one rank.
    duration_s : array (n,), seconds that it takes.
    widths, kinds, bundle_s, margin : as for `Schedule`.
    time_limit_s : of a job.
    """
    cost_s, duration_s = np.asarray(cost_s, np.float32), np.asarray(duration_s, np.float64)
    left = np.arange(len(cost_s))
    makespan_s = lost_s = 0.0
    n_jobs = n_grants = 0
    while len(left):
        schedule = Schedule(
            cost_s[left],
            widths,
            kinds=None if kinds is None else kinds[left],
            bundle_s=bundle_s,
            margin=margin,
        )
        job = _do_job(schedule, duration_s[left], widths, time_limit_s)
        if schedule.n_pending == len(left):
            break
        n_jobs += 1
        makespan_s += job.end_s
        n_grants += job.n_grants
        lost_s += job.lost_s
        left = left[schedule.pending]
    n_ranks = sum(widths)
    useful_s = float(duration_s.sum() - duration_s[left].sum())
    return Replay(
        makespan_s=makespan_s,
        lower_bound_s=lower_bound_s(duration_s, n_ranks),
        efficiency=useful_s / (n_ranks * makespan_s) if makespan_s else 1.0,
        n_jobs=n_jobs,
        n_grants=n_grants,
        n_unfinished=len(left),
        lost_s=lost_s,
    )


class _Job(NamedTuple):
    """When the last rank of a job ended, requests that were granted, and rank-seconds lost."""

    end_s: float
    n_grants: int
    lost_s: float


def _do_job(
    schedule: Schedule, duration_s: np.ndarray, widths: Sequence[int], time_limit_s: float
) -> _Job:
    """Let the workers ask until there is nothing more for any of them."""
    nothing = Grant(np.empty(0, np.int32), np.empty(0, np.int32), 0.0)
    # When a worker becomes free, which one, since when it has been busy, and what with: a heap.
    busy = [(0.0, worker, 0.0, nothing) for worker in range(len(widths))]
    end_s = lost_s = 0.0
    n_grants = n_before_waves = 0
    while busy:
        if n_grants >= n_before_waves:
            n_waves = _do_waves(schedule, duration_s, busy, time_limit_s)
            n_grants += n_waves
            n_before_waves = n_grants + len(busy)
        now_s, worker, begun_s, grant = busy[0]
        n_done = len(grant.tasks)
        if now_s > time_limit_s:
            n_done, used_s = _before(time_limit_s - begun_s, grant, duration_s)
            lost_s += widths[worker] * (time_limit_s - begun_s - used_s)
            now_s = time_limit_s
        schedule.finish(worker, n_done)
        end_s = now_s
        grant = nothing if now_s == time_limit_s else schedule.request(worker, time_limit_s - now_s)
        if len(grant.tasks):
            n_grants += 1
            heapq.heapreplace(busy, (now_s + _span_s(grant, duration_s), worker, now_s, grant))
        else:
            schedule.stop(worker)
            heapq.heappop(busy)
    return _Job(end_s, n_grants, lost_s)


def _do_waves(
    schedule: Schedule,
    duration_s: np.ndarray,
    busy: list[tuple[float, int, float, Grant]],
    time_limit_s: float,
) -> int:
    """Let many workers ask at once, while they do so before any of them is free again.

    The same as one after the other, but for the time that it takes. Returns the requests, and
    leaves `busy` a heap.
    """
    if len(busy) < _SMALLEST_WAVE:
        return 0
    free_s, workers, begun_s, grants = map(list, zip(*busy, strict=True))
    free_s, workers, begun_s = np.array(free_s), np.array(workers), np.array(begun_s)
    tasks = np.full(len(busy), _AS_BEFORE)
    n_requests, n = 0, _SMALLEST_WAVE
    while n >= _SMALLEST_WAVE:
        order = np.lexsort((workers, free_s))
        asking = order[: np.searchsorted(free_s[order], time_limit_s)]
        if not len(asking):
            break
        now_s = free_s[asking]

        def count(tasks: np.ndarray, now_s: np.ndarray = now_s) -> int:
            ends_s = now_s[: len(tasks)] + duration_s[tasks]
            is_late = now_s[1 : len(tasks)] >= np.minimum.accumulate(ends_s)[:-1]
            return int(np.argmax(is_late)) + 1 if is_late.any() else len(tasks)

        given = schedule.request_in_turn(workers[asking], time_limit_s - now_s, count)
        n = len(given)
        tasks[asking[:n]] = given
        begun_s[asking[:n]] = now_s[:n]
        free_s[asking[:n]] = now_s[:n] + duration_s[given]
        n_requests += n
    for place in np.flatnonzero(tasks != _AS_BEFORE).tolist():
        grants[place] = Grant(tasks[place : place + 1], _ONE, math.nan)
    busy[:] = zip(free_s.tolist(), workers.tolist(), begun_s.tolist(), grants, strict=True)
    heapq.heapify(busy)
    return n_requests


_AS_BEFORE = -1
_ONE = np.ones(1, np.int32)


def _span_s(grant: Grant, duration_s: np.ndarray) -> float:
    """Seconds of all blocks: a block lasts as long as the slowest of its tasks."""
    if len(grant.tasks) == 1:
        return duration_s.item(grant.tasks.item())
    return float(_block_s(grant, duration_s).sum())


def _block_s(grant: Grant, duration_s: np.ndarray) -> np.ndarray:
    starts = np.cumsum(grant.blocks) - grant.blocks
    return np.maximum.reduceat(duration_s[grant.tasks], starts)


def _before(seconds: float, grant: Grant, duration_s: np.ndarray) -> tuple[int, float]:
    """How many tasks of a grant are done after this long, in whole blocks, and what they took."""
    ends_s = np.cumsum(_block_s(grant, duration_s))
    n_blocks = int(np.searchsorted(ends_s, seconds, side="right"))
    used_s = float(ends_s[n_blocks - 1]) if n_blocks else 0.0
    return int(grant.blocks[:n_blocks].sum()), used_s
