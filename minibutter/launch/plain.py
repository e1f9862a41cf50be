"""Plain text for logs, and the command line of mpi_run.py."""

import argparse
import math
import sys
from pathlib import Path

from minibutter import report
from minibutter.experiments import read_sweep
from minibutter.launch.job import AUTO, MAX_LANES, Job
from minibutter.launch.node import ENERGY_MODES, IDLE_S
from minibutter.launch.ranks import (
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    INTERRUPTED,
    LaunchRefused,
    Progress,
)
from minibutter.launch.stopping import LEFT_AT_ONCE, StopNow
from minibutter.launch.sweep import Outcome, run_sweep
from minibutter.launch.together import explain
from minibutter.store import StoreError
from minibutter.sweeps import QUICKSTART
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP


class PlainReporter:
    """Lines for a log: a batch system, a pipe, mpirun. The pauses between lines grow."""

    def begin(self, job: Job, n_ranks: int) -> None:
        self._total, self._n_runs = job.total_work, len(job.pending)
        self._next_line_s = 2.0
        for line in opening_lines(job, n_ranks):
            _say(line)

    def update(self, ranks: list[Progress], elapsed_s: float, left_s: float | None) -> None:
        if elapsed_s < self._next_line_s:
            return
        self._next_line_s = elapsed_s + min(60.0, max(2.0, elapsed_s / 10))
        done = sum(progress.work for progress in ranks)
        current = next((progress.current for progress in ranks if progress.current), "")
        if left_s is None:
            left_s = remaining_s(done, self._total, elapsed_s)
        left = report.duration_text(left_s)
        _say(
            f"[{report.duration_text(elapsed_s):>11}] "
            f"{sum(progress.n_runs for progress in ranks)}/{self._n_runs} runs  "
            f"{done / (self._total or 1):4.0%}  {left} left  {current}"
        )

    def end(self, outcome: Outcome) -> None:
        if outcome.experiments is not None:
            _say("")
            _say(report.plain_text(report.results_table(outcome.experiments)))
        for line in closing_lines(outcome):
            _say(line)

    def close(self) -> None:
        """Lines need no cleaning up."""


def remaining_s(done: float, total: float, elapsed_s: float) -> float:
    """Seconds left if the work that is left goes as fast as the work that is done."""
    if done < 0.02 * total:  # too little to tell
        return math.inf
    return elapsed_s * (total - done) / done if done else 0.0


def opening_lines(job: Job, n_ranks: int) -> list[str]:
    """What is about to happen."""
    ranks = "1 rank" if n_ranks == 1 else f"{n_ranks} ranks"
    found = f", {job.n_done} already done" if job.n_done else ""
    if job.kept:
        found += f", {len(job.kept)} go on from a checkpoint"
    lines = [
        f"{job.name}: {len(job.pending)} runs of {len(job.experiments)} experiments to do{found}; "
        f"{ranks}; results in {job.out}",
        *job.notes,
        *explain(job, n_ranks),
    ]
    problems = [experiment.problem for experiment in job.experiments.values()]
    lines += [f"cannot run: {problem}" for problem in report.shorten_list(filter(None, problems))]
    clipped = [e for e in job.experiments.values() if e.trains_in_one_batch]
    if clipped:
        lines.append(
            f"{len(clipped)} experiments take all rows in one step: batch_size "
            f"{clipped[0].spec.batch_size} exceeds the {clipped[0].n_train} training rows of "
            f"{clipped[0].spec.dataset}"
        )
    if job.pending:
        lines.append("compiling the kernels, or loading them from the cache ...")
    return lines


def closing_lines(outcome: Outcome) -> list[str]:
    """What happened, and where it lies."""
    lines = [
        "",
        f"{outcome.n_runs} runs in {report.duration_text(outcome.duration_s)}"
        + (f", {outcome.job.n_done} were done before" if outcome.job.n_done else ""),
    ]
    if outcome.is_cut_short:
        n_left = len(outcome.job.pending) - outcome.n_runs
        lines.append(f"ended early: {n_left} runs are left; the same command goes on from here")
        if outcome.n_runs or outcome.job.n_done:
            lines.append(f"`minibutter summarize {outcome.job.out}` sums up what is done so far")
    if outcome.runs is None:
        return lines + outcome.notes
    lines += [
        report.energy_text(outcome.runs),
        *outcome.notes,
        *(report.account_text(account.columns()) for account in outcome.accounts),
        f"epochs:  {outcome.job.out / 'epochs'}   (pandas.read_parquet opens the folder)",
        f"runs:    {outcome.job.out / 'runs'}",
        f"summary: {outcome.job.out / 'summary'}",
    ]
    failures = outcome.runs.loc[outcome.runs["status"] == "failed", "error"].value_counts()
    lines += report.shorten_list(
        f"{count} failed: {message}" for message, count in failures.items()
    )
    return lines


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """`mpirun -n N python mpi_run.py [SWEEP] [--out DIR] [--data-dir DIR] [--lanes N] ...`.

    Returns the exit code. 0: all runs done; 2: the sweep was refused; 3: done, but some runs
    failed; 75: ended early, for want of time or at a signal: start it again. A bug ends all ranks
    with 1 and the traceback of the rank that it struck.
    """
    parser = argparse.ArgumentParser(
        prog="mpi_run.py", description="Train a sweep on all ranks; rerunning it continues it."
    )
    parser.add_argument(
        "sweep",
        nargs="?",
        default=QUICKSTART,
        help="TOML file, or a name from the catalogue (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, help="directory of the results (results/NAME)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=V1,V2",
        help="give a key other values, in all grids; can be repeated",
    )  # fmt: skip
    parser.add_argument("--filter", help='only where this holds: "dataset=mnist and depth<=5"')
    parser.add_argument(
        "--limit", type=int, help="only the first so many experiments that can be run"
    )
    parser.add_argument("--budget", help="only what so many core-hours pay for: 100core-h")
    parser.add_argument("--data-dir", type=Path, help="folder of local .tsv.gz data sets")
    parser.add_argument(
        "--energy",
        default=AUTO,
        choices=ENERGY_MODES,
        help="joules of ranks that share a node: shared: by processor time; gang: the ranks of a "
        "package train the same at the same time; auto: shared, without idle power "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--idle-seconds",
        type=float,
        default=IDLE_S,
        help="sleep before and after, for the idle power; not in auto (default: %(default)s)",
    )
    parser.add_argument(
        "--time-limit",
        help="end in good order before, with code 75: 2h, 90m, 02:00:00, or auto, which asks Slurm "
        "or PBS",
    )
    parser.add_argument(
        "--shard",
        metavar="I/K",
        help="only part I of K of the runs, from 0 or from 1: for job arrays, "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT; all may share a directory",
    )
    parser.add_argument(
        "--lanes",
        default=AUTO,
        help=f"repetitions to train together: 1 to {MAX_LANES}, or {AUTO}, which packs where it "
        "pays (default)",
    )
    options = parser.parse_args(arguments)
    try:
        outcome = run_sweep(
            lambda: read_sweep(
                options.sweep, options.set, options.filter, options.limit, options.budget
            ),
            reporter=PlainReporter(),
            out=options.out,
            data_dir=options.data_dir,
            lanes=options.lanes,
            energy=options.energy,
            idle_s=options.idle_seconds,
            time_limit=options.time_limit,
            shard=options.shard,
        )
    except (LaunchRefused, StoreError) as refusal:
        if str(refusal):
            print(f"error: {refusal}", file=sys.stderr, flush=True)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED
    except StopNow as cause:
        print(f"{cause}: {LEFT_AT_ONCE}", file=sys.stderr, flush=True)
        return EXIT_TIME_IS_UP
    return outcome if isinstance(outcome, int) else outcome.exit_code
