"""What commands on a directory of results have found and done, on the terminal and as JSON."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.console import Console

from minibutter import report
from minibutter.cli.terminal import print_json, show_table
from minibutter.launch.status import Status
from minibutter.launch.verify import Repeated, Verification
from minibutter.store import Compaction, Export, Union

_HOUR_S = 3600.0


def show_status(directory: Path, status: Status, as_json: bool) -> None:
    """Counts, failures, core-hours, and the time that is left."""
    if as_json:
        print_json({"directory": str(directory), **asdict(status)})
        return
    counts = {
        "done": status.done,
        "diverged": status.diverged,
        "failed": status.failed,
        "pending": status.pending,
    }
    known = {state: count for state, count in counts.items() if count is not None}
    total = sum(known.values())
    experiments = _counted(status.n_experiments, "experiment")
    print(f"{status.name}: {_counted(total, 'run')} of {experiments} in {directory}\n")
    rows = [
        {"state": state, "runs": str(count), "%": f"{100 * count / (total or 1):.0f}"}
        for state, count in known.items()
    ]
    show_table(pd.DataFrame(rows), Console())
    if status.not_asked_for:
        print(f"and {_counted(status.not_asked_for, 'run')} that the sweep does not ask for")
    if status.failed:
        again = "?" if status.failed_again is None else status.failed_again
        print(
            f"\nfailed ({again} of them are tried again by the next `minibutter sweep run`, all "
            "after `minibutter retry`):"
        )
        _print_failures(status.failures)
    print(f"\n{_time_line(status)}")
    _warn(status.problems)


def _time_line(status: Status) -> str:
    done = f"trained: {_core_time(status.core_s_done)}"
    if status.core_s_left is None:
        return f"{done}; left: not known, because {status.left_reason}"
    if not status.core_s_left:
        is_over = not status.pending and not status.failed_again
        return f"{done}; " + ("nothing is left to do" if is_over else "the rest takes no time")
    return (
        f"{done}; left: about {_core_time(status.core_s_left)}, which are "
        f"{report.duration_text(status.left_s)} on {_counted(status.n_ranks, 'rank')}"
    )


def _core_time(seconds: float) -> str:
    if seconds < 0.1 * _HOUR_S:
        return f"{report.duration_text(seconds)} of one core"
    return f"{seconds / _HOUR_S:.3g} core-hours"


def show_forgotten(directory: Path, forgotten: pd.DataFrame, as_json: bool) -> None:
    """Failed runs that are to be done again, by their messages."""
    failures = forgotten["error"].value_counts().to_dict()
    if as_json:
        print_json({"forgotten": len(forgotten), "failures": failures})
    elif not len(forgotten):
        print(f"no run has failed in {directory}")
    else:
        print(f"forgot {_counted(len(forgotten), 'failed run')}:")
        _print_failures(failures)
        print(f"start the sweep again to do them; what they were is in {directory / 'quarantine'}")
    _warn(forgotten.attrs["problems"])


def show_compaction(directory: Path, done: Compaction, as_json: bool) -> None:
    """Files before and after."""
    rows = f"{_counted(done.n_runs, 'run')}, {_counted(done.n_epochs, 'epoch')}"
    if as_json:
        print_json(asdict(done))
    elif done.files_after == done.files_before:
        print(f"{directory} is compact: {_counted(done.files_before, 'file')}, {rows}")
    else:
        print(
            f"{directory}: {done.files_before} files ({_megabytes(done.bytes_before)}) are now "
            f"{done.files_after} ({_megabytes(done.bytes_after)}): {rows}"
        )
    if done.n_dropped and not as_json:
        print(f"{_counted(done.n_dropped, 'row')} of runs that were done twice are left out")
    _warn(done.messages)


def show_repeated(repeated: Repeated) -> None:
    """One line as soon as a run has been done again."""
    print(f"{repeated.run_id}  {_verdict(repeated)}  {repeated.title}", flush=True)


def _verdict(repeated: Repeated) -> str:
    if repeated.problem is not None:
        return f"not repeated: {repeated.problem}"
    if repeated.difference is None:
        return "same"
    columns, epoch = repeated.difference.columns, repeated.difference.first_epoch
    listed = ", ".join(columns[:3]) + (f" and {len(columns) - 3} more" if columns[3:] else "")
    since = "" if epoch is None else f" from epoch {epoch}"
    return f"DIFFERENT{since} in {listed}"


def show_verification(found: Verification, as_json: bool) -> None:
    """How many were the same, and what was another processor or version."""
    if as_json:
        print_json({**asdict(found), "exit_code": found.exit_code})
        return
    n = len(found.repeated)
    different = [each for each in found.repeated if each.difference is not None]
    n_problems = sum(each.problem is not None for each in found.repeated)
    verdicts = [f"{n - len(different) - n_problems} the same to the last bit"]
    verdicts += [f"{len(different)} different"] if different else []
    verdicts += [f"{n_problems} not repeated"] if n_problems else []
    print(f"{n} of {_counted(found.n_finished, 'finished run')} done again: {', '.join(verdicts)}")
    elsewhere = pd.Series(
        [
            f"{name} was {then}, is {now}"
            for each in found.repeated
            for name, (then, now) in each.elsewhere.items()
        ],
        dtype=str,
    ).value_counts()
    for line, count in elsewhere.items():
        print(f"  of {_counted(count, 'run')}: {line}")
    if len(elsewhere):
        print("the same bits are promised only for the same processor and versions")
    _warn(found.problems)


def show_union(out: Path, union: Union, as_json: bool) -> None:
    """What came from where, and runs with other numbers."""
    conflicts = [
        {
            "run_id": conflict.difference.run_id,
            "first": str(conflict.first),
            "second": str(conflict.second),
            "columns": list(conflict.difference.columns),
            "first_epoch": conflict.difference.first_epoch,
            "processors": list(conflict.processors),
        }
        for conflict in union.conflicts
    ]
    if as_json:
        new = {str(path): count for path, count in union.n_new.items()}
        print_json(
            {
                "runs": union.n_runs,
                "new": new,
                "conflicts": conflicts,
                "is_refused": union.is_refused,
            }
        )
        return
    if conflicts:
        table = pd.DataFrame(conflicts)
        table["columns"] = [
            f"{c[0]}" + (f" +{len(c) - 1}" if c[1:] else "") for c in table["columns"]
        ]
        table["first_epoch"] = ["-" if pd.isna(e) else f"{e:.0f}" for e in table["first_epoch"]]
        processors = {tuple(pair) for pair in table.pop("processors") if pair[0] != pair[1]}
        show_table(table.rename(columns={"first_epoch": "from epoch"}), Console())
        for first, second in sorted(processors):
            print(f"done on different processors, {first} and {second}")
        print()
    for path, count in union.n_new.items():
        print(f"{_counted(count, 'new run')} from {path}")
    if not union.is_refused:
        print(f"{out} has {_counted(union.n_runs, 'run')}")
    _warn(union.messages)


def show_export(done: Export, as_json: bool) -> None:
    """What was written, and where."""
    paths = [str(path) for path in done.paths]
    if as_json:
        print_json(asdict(done) | {"paths": paths})
        return
    left_out = f"; {done.n_left_out} that failed or cannot be read are left out"
    print(
        f"{_counted(done.n_runs, 'run')} of {_counted(done.n_experiments, 'experiment')}"
        f"{left_out if done.n_left_out else ''}"
    )
    print("\n".join(paths))
    _warn(done.problems)


def _print_failures(failures: dict[str, int]) -> None:
    width = len(str(max(failures.values(), default=0)))
    for line in report.shorten_list(
        f"  {count:{width}}  {message}" for message, count in failures.items()
    ):
        print(line)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def _warn(problems: Iterable[str]) -> None:
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
