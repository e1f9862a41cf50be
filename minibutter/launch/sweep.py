"""Doing a sweep: every rank trains its share, rank 0 watches, sums up and says how it ended."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import pandas as pd
from threadpoolctl import threadpool_limits

from minibutter import report, runs, store
from minibutter.datasets import DatasetError
from minibutter.energy.account import NodeAccount
from minibutter.launch.dealer import MARGIN, Deal, Dealer
from minibutter.launch.estimates import measured_s
from minibutter.launch.job import AUTO, Group, Job, prepare_job
from minibutter.launch.node import IDLE_S, Node
from minibutter.launch.ranks import (
    NAP_S,
    Alone,
    Circle,
    LaunchRefused,
    Progress,
    Team,
    find_ranks,
    refuse_lonely_tasks,
)
from minibutter.launch.stopping import Stopping, read_limit
from minibutter.launch.together import Together
from minibutter.nn.groups import EpochRow
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.slices import compile_sliced_kernels
from minibutter.nn.training import compile_kernels
from minibutter.provenance import read_provenance
from minibutter.runs import RunResult
from minibutter.sweeps.spec import Sweep, SweepError
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP

EXIT_DONE, EXIT_REFUSED, EXIT_FAILED_RUNS = 0, 2, 3

_SNAPSHOT_INTERVAL_S = 0.5


@dataclass
class Outcome:
    """How a sweep ended.

    Attributes
    ----------
    job : what was to do.
    n_runs, n_failed, n_diverged : of this call, over all ranks.
    duration_s : wall-clock time of this call.
    experiments, runs : the summary and the `runs` table of the whole directory; None where no run
        of it has ended yet.
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
    worker, widths = _find_workers(ranks, node)
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
    for dtype, kernel, tiling in _what_to_compile(job):
        compile_kernels(dtype, kernel, tiling)
        if job.together:
            compile_sliced_kernels(dtype)
    training_since_s = time.perf_counter()
    if job.groups or job.together:
        node.begin()
    if ranks.rank != 0:
        desk = _Desk(worker, ranks, stopping)
        _work_through(desk, job, ranks, node, together, data_dir)
        ranks.everybody.meet((node.end(), node.notes))
        code = ranks.everybody.meet()[0]
        ranks.part()
        return code

    def show(newest: list[Progress], left_s: float | None) -> None:
        reporter.update(newest, time.perf_counter() - training_since_s, left_s)

    with Dealer(job, widths, ranks, stopping, show) as dealer:
        desk = _Desk(worker, ranks, stopping, dealer)
        _work_through(desk, job, ranks, node, together, data_dir)
        while not all(progress.is_done for progress in dealer.newest):
            time.sleep(NAP_S)
            dealer.look()
            node.follow()
    newest = dealer.newest
    told = ranks.everybody.meet((node.end(), node.notes))
    accounts = [account for account, _ in told if account is not None]
    notes = list(dict.fromkeys(note for _, notes in told for note in notes))
    store.write_accounts(job.out, [account.columns() for account in accounts])
    has_results = bool(store.finished_runs(job.out)[0])
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
        is_cut_short=sum(progress.n_runs for progress in newest) < len(job.pending),
    )
    reporter.end(outcome)
    ranks.everybody.meet(outcome.exit_code)
    ranks.part()
    return outcome


def _what_to_compile(job: Job) -> list[tuple[str, str, Tiling]]:
    """Type, rung and tiling of all pending runs, each once, in an order that all ranks share."""
    groups = (*job.together, *job.groups)
    networks = [job.experiments[group.experiment_id].network for group in groups]
    asked = {(net.dtype, net.kernel, net.tiling): None for net in networks if net is not None}
    return list(asked)


class _Tracker:
    """Keeps a rank's progress up to date, passes it on, not too often, and sees to it that
    finished runs do not wait for the disk while a long one is trained."""

    def __init__(
        self,
        job: Job,
        rank: int,
        writer: store.ShardWriter,
        pass_on: Callable[[Progress], None],
    ) -> None:
        self.progress = Progress(rank)
        self._job = job
        self._writer = writer
        self._pass_on = pass_on
        self._finished_work = 0.0
        self._last_s = time.perf_counter()

    def on_epoch(self, group: Group, epoch: int, row: EpochRow) -> None:
        """An epoch of a group is over; `row` holds the metrics of one run, the loss first."""
        now_s = time.perf_counter()
        if now_s - self._last_s < _SNAPSHOT_INTERVAL_S:
            return
        self._last_s = now_s
        experiment = self._job.experiments[group.experiment_id]
        self.progress.work = self._finished_work + self._job.work(group, epoch)
        self.progress.current = (
            f"{experiment.title} #{_span(group.repetitions)} "
            f"epoch {epoch}/{experiment.spec.epochs} test loss {row.test[0]:.4f}"
        )
        self._writer.flush_if_due()
        self._pass_on(self.progress)

    def on_waiting(self) -> None:
        """This rank waits for others of its gang."""
        now_s = time.perf_counter()
        if now_s - self._last_s >= _SNAPSHOT_INTERVAL_S:
            self._last_s = now_s
            self._writer.flush_if_due()
            self._pass_on(self.progress)

    def on_group(self, group: Group, results: list[RunResult]) -> None:
        """The runs of a group are over, one way or another; those that were interrupted are not."""
        if len(results) == len(group.repetitions):
            self._finished_work += self._job.work(group)
            self.progress.work = self._finished_work
        self.progress.n_runs += len(results)
        self.progress.n_failed += sum(result.run["status"] == "failed" for result in results)
        self.progress.n_diverged += sum(bool(result.run["diverged"]) for result in results)

    def on_end(self) -> None:
        """All runs of the rank are over and stored."""
        self.progress.is_done, self.progress.current = True, ""
        self._pass_on(self.progress)


def _span(repetitions: Sequence[int]) -> str:
    """Numbers of repetitions for people: 4, 0-15, or 0,3,7 where some are missing."""
    first, last = repetitions[0], repetitions[-1]
    if len(repetitions) > 1 and last - first == len(repetitions) - 1:
        return f"{first}-{last}"
    return ",".join(map(str, repetitions))


def _find_workers(ranks: Alone | Team, node: Node) -> tuple[int, tuple[int, ...]]:
    """Number of this rank's gang, and how many ranks each has; without gangs, every rank is one."""
    leader = node.gang.meet(ranks.rank)[0]
    gangs = dict(ranks.everybody.meet((leader, node.gang.size)))
    leaders = sorted(gangs)
    return leaders.index(leader), tuple(gangs[each] for each in leaders)


class _Desk:
    """Where a rank gets its work, says how far it is, and hears that it is to end.

    Parameters
    ----------
    worker : number of this rank's gang.
    dealer : on rank 0; the others write to it.
    """

    def __init__(
        self, worker: int, ranks: Alone | Team, stopping: Stopping, dealer: Dealer | None = None
    ) -> None:
        self._worker, self._ranks = worker, ranks
        self._stopping, self._dealer = stopping, dealer
        self._measured_s: list[float] = []
        self._newest = Progress(ranks.rank)

    def ask(self, n_done: int) -> Deal:
        """The next groups, once so many of the last ones are done."""
        measured_s, self._measured_s = self._measured_s, []
        if self._dealer is None:
            return self._ranks.ask((self._worker, n_done, measured_s))
        return self._dealer.deal(self._worker, n_done, measured_s)

    def note(self, seconds: float) -> None:
        """A group of this rank took so long, see `estimates.measured_s`: for the next question."""
        self._measured_s.append(seconds)

    def report(self, progress: Progress) -> None:
        """Say how far this rank is."""
        self._newest = progress
        progress.is_asked_to_stop = self._stopping.is_asked
        if self._dealer is None:
            self._ranks.send_progress(progress)
        else:
            self._dealer.update(progress)

    def should_stop(self, epoch_s: float = 0.0) -> bool:
        """Whether to end here, before something that takes so many seconds; asked between any two
        epochs. A signal that only this rank has heard is passed on at once."""
        if self._dealer is not None:
            self._dealer.look()
            return self._dealer.is_stopping or self._stopping.is_due_within(epoch_s)
        if self._stopping.is_asked and not self._newest.is_asked_to_stop:
            self.report(self._newest)
        return self._stopping.is_due_within(epoch_s) or self._ranks.is_told_to_stop()

    @property
    def seconds_left(self) -> float:
        """Until this rank is to end; none where it has been told to, infinite without a limit."""
        return 0.0 if self.should_stop() else self._stopping.seconds_left

    def stop(self) -> None:
        """All ranks have agreed to end: nothing more is dealt."""
        if self._dealer is not None:
            self._dealer.stop()


def _work_through(
    desk: _Desk,
    job: Job,
    ranks: Alone | Team,
    node: Node,
    together: Together,
    data_dir: Path | None,
) -> None:
    """Train what all ranks train together, then this rank's part of what its gang is dealt, until
    there is nothing more, or it is to end: what a rank trains alone is then kept for the next
    start, and what it trains with others is finished."""
    with (
        # One rank is one core; BLAS is loaded by now, with the kernels.
        threadpool_limits(1),
        store.ShardWriter(job.out, f"rank{ranks.rank}") as writer,
    ):
        tracker = _Tracker(job, ranks.rank, writer, desk.report)

        # Ranks that train a run together would have to keep their parts of one checkpoint.
        keeping = {"checkpoint_dir": job.out, "should_stop": desk.should_stop}

        def train(group: Group, partners: Circle, on_ready: Callable[[], None]) -> list[RunResult]:
            return runs.execute_group(
                job.experiments[group.experiment_id],
                group.repetitions,
                meter=node.meter,
                provenance=read_provenance(),
                sweep=job.name,
                data_dir=data_dir,
                rank=ranks.rank,
                n_ranks=ranks.size,
                partners=partners,
                on_ready=on_ready,
                # One of those who train a run together says how far it is.
                on_epoch=partial(tracker.on_epoch, group)
                if partners.rank == 0
                else lambda *_: tracker.on_waiting(),
                on_note=partial(_print_note, ranks.rank),
                **({} if partners.size > 1 else keeping),
            )

        def keep(group: Group, results: list[RunResult]) -> list[RunResult]:
            over = [result for result in results if not result.is_interrupted]
            for result in over:
                writer.add(result.run, result.epochs)
            tracker.on_group(group, over)
            return over

        for group in job.together:
            # The same on all ranks: none begins what another leaves.
            left_s = min(ranks.everybody.meet(desk.seconds_left))
            if left_s <= 0:
                desk.stop()
                break
            # What one rank trains is kept when time is up; what several train is finished.
            if ranks.size == 1 or MARGIN * together.predict_s(group) <= left_s:
                results = together.train(group, train, tracker.on_waiting)
                if ranks.rank == 0:
                    keep(group, results)
            elif ranks.rank == 0:
                needed = report.duration_text(MARGIN * together.predict_s(group))
                title = job.experiments[group.experiment_id].title
                _print_note(0, f"{title} takes up to {needed} on all ranks: left for a longer job")
        for block in _blocks(desk, node):
            group = block[node.gang.rank] if node.gang.rank < len(block) else None
            results = node.train(
                None if group is None else partial(train, group, Circle()), tracker.on_waiting
            )
            if group is not None:
                over = keep(group, results)
                epochs = job.experiments[group.experiment_id].spec.epochs
                desk.note(measured_s([result.run for result in over], epochs))
    tracker.on_end()


def _blocks(desk: _Desk, node: Node) -> Iterator[tuple[Group, ...]]:
    """What the first rank of the gang is dealt, on all of its ranks, until there is nothing more or
    one of them is to end."""
    n_done = 0
    while blocks := node.gang.meet(desk.ask(n_done).blocks if node.gang.rank == 0 else ())[0]:
        for block in blocks:
            if any(node.gang.meet(desk.should_stop())):
                return
            yield block
        n_done = sum(map(len, blocks))


def _print_note(rank: int, note: str) -> None:
    print(f"rank {rank}: {note}", file=sys.stderr, flush=True)
