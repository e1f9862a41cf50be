"""Doing a sweep: every rank trains its share, rank 0 watches, sums up and says how it ended."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from minibutter import datasets, store
from minibutter.datasets import DatasetError
from minibutter.energy.account import NodeAccount
from minibutter.launch import working
from minibutter.launch.dealer import Dealer
from minibutter.launch.desk import Desk, find_workers
from minibutter.launch.job import AUTO, Job, prepare_job
from minibutter.launch.node import IDLE_S, Node
from minibutter.launch.ranks import (
    NAP_S,
    Alone,
    LaunchRefused,
    Progress,
    Team,
    find_ranks,
    refuse_lonely_tasks,
)
from minibutter.launch.stopping import Stopping, read_limit
from minibutter.launch.together import Together
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.measured import compile_moment_kernels
from minibutter.nn.slices import compile_sliced_kernels
from minibutter.nn.training import compile_kernels
from minibutter.sweeps.spec import Sweep, SweepError
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP

EXIT_DONE, EXIT_FAILED_RUNS = 0, 3


@dataclass
class Outcome:
    """How a sweep ended.

    Attributes
    ----------
    job : what was to do.
    n_runs, n_failed, n_diverged : of this call, over all ranks.
    duration_s : wall-clock time of this call.
    experiments, runs : the summary and the `runs` table of the whole directory; None where no run
        of it has ended yet, and where this call was cut short.
    accounts : what became of the energy of every node, where ranks shared it.
    notes : what people should know about that.
    is_cut_short : whether time was up, or a signal came, before all was done.
    """

    job: Job
    n_runs: int
    n_failed: int
    n_diverged: int
    duration_s: float
    experiments: pd.DataFrame | None = field(repr=False)
    runs: pd.DataFrame | None = field(repr=False)
    accounts: list[NodeAccount]
    notes: list[str]
    is_cut_short: bool

    @property
    def exit_code(self) -> int:
        """75 when it is to be started again, 3 when a run of the directory has failed, or 0."""
        if self.is_cut_short:
            return EXIT_TIME_IS_UP
        has_failed = self.runs is not None and (self.runs["status"] == "failed").any()
        return EXIT_FAILED_RUNS if has_failed else EXIT_DONE


class Reporter(Protocol):
    """What shows a sweep to a person; called on rank 0 only."""

    def begin(self, job: Job, n_ranks: int) -> None:
        """Before the first run."""

    def update(self, ranks: list[Progress], elapsed_s: float, left_s: float | None) -> None:
        """Now and then, with the newest progress of every rank, the time since compilation, and
        what is left by predictions that runs have corrected, if there are any."""

    def end(self, outcome: Outcome) -> None:
        """After the summary is written."""

    def close(self) -> None:
        """When the sweep is over, well or not."""


def run_sweep(
    read_sweep: Callable[[], Sweep],
    *,
    reporter: Reporter,
    out: Path | None = None,
    data_dir: Path | None = None,
    lanes: int | str = AUTO,
    energy: str = AUTO,
    idle_s: float = IDLE_S,
    time_limit: str | None = None,
    shard: str | None = None,
) -> Outcome | int:
    """Do what is missing of a sweep, on all ranks of this launch.

    Parameters
    ----------
    read_sweep : called on rank 0 only.
    reporter : called on rank 0 only.
    out : directory of the results; `results/NAME` by default.
    data_dir : where local data sets lie.
    lanes : repetitions to train together, see `prepare_job`; cannot change a number.
    energy : how joules are found where ranks share a node, see `node`; cannot change a number
        either, but joules and seconds.
    idle_s : seconds of sleep before and after, for the idle power.
    time_limit : end in good order before: a duration such as 2h, or auto; see `sweeps.timelimit`.
    shard : only a part of the runs, such as 2/4; see `sweeps.sharding`.

    Returns
    -------
    The outcome on rank 0, the exit code on the others.

    Raises
    ------
    LaunchRefused
        On all ranks, if the sweep, its data or its directory cannot be used.
    """
    ranks = find_ranks()
    if isinstance(ranks, Alone) and shard is None:
        refuse_lonely_tasks()
    n_frozen = gc.get_freeze_count()
    try:
        limit = read_limit(time_limit)
    except SweepError as error:
        raise LaunchRefused(str(error) if ranks.rank == 0 else "") from None
    try:
        with Stopping(limit) as stopping, Node(ranks, energy, idle_s) as node:
            is_as_asked = time_limit is None or limit.seconds_left is not None
            on_limit = [] if is_as_asked else [limit.source]
            return _run_sweep(
                ranks, node, stopping, read_sweep, reporter, out, data_dir, lanes, shard, on_limit
            )
    except LaunchRefused:
        raise
    except BaseException as cause:
        ranks.abort(cause)
        raise
    finally:
        if gc.get_freeze_count() > n_frozen:
            gc.unfreeze()


def _run_sweep(
    ranks: Alone | Team,
    node: Node,
    stopping: Stopping,
    read_sweep: Callable[[], Sweep],
    reporter: Reporter,
    out: Path | None,
    data_dir: Path | None,
    lanes: int | str,
    shard: str | None,
    on_limit: Sequence[str],
) -> Outcome | int:
    started_s = time.perf_counter()
    worker, widths = find_workers(ranks, node)
    decision: Job | LaunchRefused | None = None
    if ranks.rank == 0:
        try:
            decision = prepare_job(
                read_sweep(), out, data_dir, ranks.size, lanes, min(widths), shard
            )
        except (SweepError, DatasetError, store.StoreError) as error:
            decision = LaunchRefused(str(error))
        if isinstance(decision, Job):
            decision = replace(decision, notes=(*decision.notes, *on_limit))
    job = ranks.broadcast(decision)
    if isinstance(job, LaunchRefused):
        raise job if ranks.rank == 0 else LaunchRefused()
    together = Together(job, ranks, node)

    if ranks.rank == 0:
        reporter.begin(job, ranks.size)
    for dtype, kernel, tiling, is_measured in _what_to_compile(job):
        compile_kernels(dtype, kernel, tiling)
        if job.together:
            compile_sliced_kernels(dtype)
        if is_measured:
            compile_moment_kernels(dtype)
    pending = {group.experiment_id for group in (*job.together, *job.groups)}
    datasets.prepare_reading({job.experiments[each].spec.dataset for each in pending})
    # What is there by now stays to the end. The collector would look through it again and again,
    # and through hundreds of thousands of groups it takes long enough to keep askers waiting.
    gc.collect()
    gc.freeze()
    training_since_s = time.perf_counter()
    if job.groups or job.together:
        node.begin()
    if ranks.rank != 0:
        desk = Desk(worker, ranks, stopping)
        working.work_through(desk, job, ranks, node, together, data_dir)
        ranks.everybody.meet((node.end(), node.notes))
        code = ranks.everybody.meet()[0]
        ranks.part()
        return code

    def show(newest: list[Progress], left_s: float | None) -> None:
        reporter.update(newest, time.perf_counter() - training_since_s, left_s)

    with Dealer(job, widths, ranks, stopping, show) as dealer:
        desk = Desk(worker, ranks, stopping, dealer)
        working.work_through(desk, job, ranks, node, together, data_dir)
        while not all(progress.is_done for progress in dealer.newest):
            time.sleep(NAP_S)
            dealer.look()
            node.follow()
    newest = dealer.newest
    told = ranks.everybody.meet((node.end(), node.notes))
    accounts = [account for account, _ in told if account is not None]
    notes = list(dict.fromkeys(note for _, notes in told for note in notes))
    store.write_accounts(job.out, [account.columns() for account in accounts])
    is_cut_short = sum(progress.n_runs for progress in newest) < len(job.pending)
    # Of a large directory a summary takes minutes, which a job whose time is up may not have.
    has_results = not is_cut_short and bool(store.finished_runs(job.out)[0])
    experiments = store.write_summary(job.out)[0] if has_results else None
    outcome = Outcome(
        job=job,
        n_runs=sum(progress.n_runs for progress in newest),
        n_failed=sum(progress.n_failed for progress in newest),
        n_diverged=sum(progress.n_diverged for progress in newest),
        duration_s=time.perf_counter() - started_s,
        experiments=experiments,
        runs=store.read_runs(job.out) if has_results else None,
        accounts=accounts,
        notes=notes,
        is_cut_short=is_cut_short,
    )
    reporter.end(outcome)
    ranks.everybody.meet(outcome.exit_code)
    ranks.part()
    return outcome


def _what_to_compile(job: Job) -> list[tuple[str, str, Tiling, bool]]:
    """Type, rung and tiling of all pending runs, and whether moments are measured; each once, in an
    order that all ranks share."""
    groups = (*job.together, *job.groups)
    experiments = [job.experiments[group.experiment_id] for group in groups]
    asked = {
        (net.dtype, net.kernel, net.tiling, bool(each.spec.measure) and each.spec.slices == 1): None
        for each in experiments
        if (net := each.network) is not None
    }
    return list(asked)
