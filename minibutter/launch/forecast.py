"""How long a sweep will take on so many ranks: its groups, dealt out by the real schedule.

Groups are packed and dealt as a job would do it, only that every one takes exactly as long as
predicted, and what is longer than a job takes whole jobs of a rank and a rest. Left out is what no
prediction knows: compiling, reading data, waiting in a queue.
"""

import math
from dataclasses import dataclass

import numpy as np

from minibutter.experiments import Plan
from minibutter.experiments.resolved import Resolved, predict_epoch_us
from minibutter.launch.dealer import MARGIN
from minibutter.launch.job import AUTO, group_size, read_lanes
from minibutter.launch.stopping import seconds_for_work
from minibutter.sweeps.replay import Replay, lower_bound_s, replay
from minibutter.sweeps.schedule import BUNDLE_S

_MANY_TASKS = 500_000
"""More than these are replayed with short groups of an experiment tied together."""

_FINE = 400
"""Groups that are tied together are at most this part of what a rank has to do, or of a job."""

_BUNDLES = 2000
"""Bundles that a rank has to do, at least: fewer requests, and nobody waits longer at the end."""

_MANY_JOBS = 40
"""More jobs than these are replayed with a sample of the groups, in proportion."""


@dataclass(frozen=True)
class Forecast:
    """A sweep on so many ranks.

    Attributes
    ----------
    n_ranks : that do it.
    core_h : hours of one core for all groups that can be done: packed repetitions count once.
    makespan_s : seconds until the last group is done, over all jobs, without pauses between them.
    lower_bound_s : what no schedule could be shorter than, in one job without a time limit.
    efficiency : part of the ranks' time, up to the makespan, in which they train.
    n_groups : groups of repetitions that are trained together, or single runs.
    time_limit_s : of a job; None for none.
    n_jobs : how often the sweep is started, one after the other.
    is_sampled : whether `n_jobs` and `makespan_s` follow from a sample, and are wrong by some per
        cent.
    too_long : runs that no job of this length begins, because not one epoch fits, int64 of shape
        (n_experiments,).
    longest_s : seconds that the longest group is predicted to take.
    needed_s : time limit in which an epoch of every group fits; 0 where there is none.
    """

    n_ranks: int
    core_h: float
    makespan_s: float
    lower_bound_s: float
    efficiency: float
    n_groups: int
    time_limit_s: float | None
    n_jobs: int
    is_sampled: bool
    too_long: np.ndarray
    longest_s: float
    needed_s: float


def forecast(
    plan: Plan, n_ranks: int, lanes: int | str = AUTO, time_limit_s: float | None = None
) -> Forecast:
    """Go through a whole sweep that nothing is done of.

    Parameters
    ----------
    plan : what is to be done; experiments that cannot be run are passed over.
    n_ranks : at least 1.
    lanes : repetitions to train together, as for a job.
    time_limit_s : of a job; None for one job that takes as long as it takes.

    Raises
    ------
    SweepError
        If `lanes` mean nothing.
    """
    owners, cost_s, counts, sizes = _groups(plan, n_ranks, read_lanes(lanes))
    work_s = math.inf if time_limit_s is None else seconds_for_work(time_limit_s)
    epoch_s = cost_s / plan.epochs[owners]
    fits = epoch_s * MARGIN <= work_s
    too_long = np.zeros(len(plan), np.int64)
    np.add.at(too_long, owners[~fits], (counts * sizes)[~fits])
    # The schedule keeps costs in float32, in which a piece must not be longer than its job.
    piece_s = float(np.nextafter(np.float32(work_s), np.float32(0)))
    n_whole, rest_s = np.divmod(cost_s[fits], piece_s)
    n_whole = n_whole.astype(np.int64)
    pieces_s = np.concatenate([np.full(len(n_whole), piece_s)[n_whole > 0], rest_s])
    n_pieces = np.concatenate([(n_whole * counts[fits])[n_whole > 0], counts[fits]])
    result, stride = _replay(pieces_s, n_pieces, n_ranks, work_s)
    total_s = float(cost_s[fits] @ counts[fits])
    longest_s = float(cost_s.max(initial=0.0))
    # Pieces of one group are not trained at the same time.
    makespan_s = max(stride * result.makespan_s, float(cost_s[fits].max(initial=0.0)))
    n_jobs = max(stride * result.n_jobs, int(n_whole.max(initial=-1)) + 1)
    return Forecast(
        n_ranks=n_ranks,
        core_h=total_s / 3600,
        makespan_s=makespan_s,
        lower_bound_s=lower_bound_s(cost_s, n_ranks, counts),
        efficiency=min(total_s / (n_ranks * makespan_s), 1.0) if makespan_s else 1.0,
        n_groups=int(counts.sum()),
        time_limit_s=time_limit_s,
        n_jobs=n_jobs,
        is_sampled=stride > 1,
        too_long=too_long,
        longest_s=longest_s,
        needed_s=seconds_of_job(float(epoch_s.max(initial=0.0)) * MARGIN),
    )


def seconds_of_job(work_s: float) -> float:
    """The time limit that leaves so many seconds for work; see `stopping.seconds_for_work`."""
    limit_s = work_s / 0.9
    return limit_s if seconds_for_work(limit_s) <= work_s * (1 + 1e-9) else work_s + 60.0


def _groups(
    plan: Plan, n_ranks: int, lanes: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Equal groups in one row: number of the experiment, seconds, how many, and repetitions."""
    runnable = np.flatnonzero(~plan.has_problem)
    work_us, codes = plan.work_us[runnable], plan.codes[runnable]
    batch_sizes = plan.sweep_cells.numbers_of("batch_size")[plan.cells[runnable]].astype(np.int64)
    # Only as many ranks as an experiment's part of the work is worth, as for a job.
    parts = n_ranks * work_us / max(work_us.sum(), 1e-9)
    worth = np.maximum(np.ceil(parts - 1e-9), 1).astype(np.int64)
    # Many experiments of a large sweep have all that in common.
    alike = np.stack([codes, plan.repetitions[runnable], worth])
    order = np.lexsort(alike)
    is_new = (np.diff(alike[:, order], axis=1) != 0).any(axis=0)
    number = np.empty(len(order), np.int64)
    number[order] = np.concatenate([[0], np.cumsum(is_new)]) if len(order) else 0
    firsts = order[np.flatnonzero(np.concatenate([[True], is_new]))] if len(order) else order
    rows = [
        _packed(plan.distinct[code], batch_size, repetitions, ranks, lanes)
        for (code, repetitions, ranks), batch_size in zip(
            alike[:, firsts].T.tolist(), batch_sizes[firsts].tolist(), strict=True
        )
    ]
    whole_us, n_whole, size, rest_us, rest = np.array(rows).reshape(-1, 5)[number].T
    epochs_s = plan.epochs[runnable] / 1e6
    owners = np.concatenate([runnable, runnable])
    cost_s = np.concatenate([epochs_s * whole_us, epochs_s * rest_us])
    counts = np.concatenate([n_whole, rest > 0]).astype(np.int64)
    sizes = np.concatenate([size, rest]).astype(np.int64)
    there = counts > 0
    return owners[there], cost_s[there], counts[there], sizes[there]


def _packed(
    planned: Resolved, batch_size: int, repetitions: int, n_ranks: int, lanes: int | None
) -> tuple[float, int, int, float, int]:
    """Microseconds of an epoch of a whole group, how many there are, and its repetitions; and
    microseconds and repetitions of what is left over."""
    size = group_size(planned, batch_size, repetitions, n_ranks, lanes)
    n_whole, rest = divmod(repetitions, size)

    def epoch_us(members: int) -> float:
        if members <= 1:
            return members * planned.epoch_us
        network, n_train, n_test = planned.network, planned.n_train, planned.n_test
        model = planned.cost_model
        return predict_epoch_us(network, n_train, n_test, batch_size, members, model)

    return epoch_us(size), n_whole, size, epoch_us(rest), rest


def _replay(
    cost_s: np.ndarray, counts: np.ndarray, n_ranks: int, work_s: float
) -> tuple[Replay, int]:
    """What the schedule makes of it, or of every so-manieth task, and how many that is."""
    share_s = float(cost_s @ counts) / n_ranks
    if counts.sum() > _MANY_TASKS:
        most = np.maximum(min(share_s, work_s) / _FINE / np.maximum(cost_s, 1e-9), 1)
        tied = np.minimum(counts, most.astype(np.int64))
        whole, rest = divmod(counts, tied)
        cost_s = np.concatenate([cost_s * tied, cost_s * rest])
        counts = np.concatenate([whole, (rest > 0).astype(np.int64)])
    tasks_s = np.repeat(cost_s, counts)
    stride = 1
    if share_s > _MANY_JOBS * work_s:
        stride = math.ceil(share_s / (_MANY_JOBS * work_s))
        tasks_s = np.sort(tasks_s)[stride // 2 :: stride]
    result = replay(
        tasks_s,
        tasks_s,
        [1] * n_ranks,
        time_limit_s=work_s,
        bundle_s=max(BUNDLE_S, min(share_s, work_s) / _BUNDLES),
    )
    return result, stride
