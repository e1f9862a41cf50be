"""Sweeps at work: run, and shown on the terminal."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from minibutter import launch
from minibutter.cli.terminal import Bar, Silent, print_json, records
from minibutter.experiments import plan_experiment
from minibutter.nn.slices import default_slices
from minibutter.sweeps.spec import RunSpec, Sweep, SweepError, explain
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP


@contextmanager
def ending_as_told(close: Callable[[], None]) -> Iterator[None]:
    """Around what a person, or a batch system, may stop: ends with the exit code of that.

    Parameters
    ----------
    close : gives the terminal back, however it ended.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(launch.INTERRUPTED, file=sys.stderr)
        raise typer.Exit(launch.EXIT_INTERRUPTED) from None
    except launch.StopNow as cause:
        print(f"{cause}: {launch.LEFT_AT_ONCE}", file=sys.stderr)
        raise typer.Exit(EXIT_TIME_IS_UP) from None
    finally:
        close()


def run_and_show(
    read_sweep: Callable[[], Sweep],
    out: Path | None,
    data_dir: Path | None,
    lanes: str,
    energy: str,
    idle_s: float,
    time_limit: str | None,
    as_json: bool,
    shard: str | None = None,
) -> None:
    """Do what is missing of a sweep, show how it goes, and end with its exit code."""
    for_people = Bar if sys.stdout.isatty() else launch.PlainReporter
    reporter = Silent() if as_json else for_people()
    with ending_as_told(reporter.close):
        outcome = launch.run_sweep(
            read_sweep,
            reporter=reporter,
            out=out,
            data_dir=data_dir,
            lanes=lanes,
            energy=energy,
            idle_s=idle_s,
            time_limit=time_limit,
            shard=shard,
        )
    if isinstance(outcome, int):
        raise typer.Exit(outcome)
    if as_json:
        print_json(
            {
                "sweep": outcome.job.name,
                "out": str(outcome.job.out),
                "runs": outcome.n_runs,
                "runs_done_before": outcome.job.n_done,
                "failed": outcome.n_failed,
                "diverged": outcome.n_diverged,
                "duration_s": outcome.duration_s,
                "node_energy": [account.columns() for account in outcome.accounts],
                "runs_left": len(outcome.job.pending) - outcome.n_runs,
                "experiments": [] if outcome.experiments is None else records(outcome.experiments),
            }
        )
    raise typer.Exit(outcome.exit_code)


def single_experiment(asked: dict[str, Any], repetitions: int, data_dir: Path | None) -> Sweep:
    """A sweep of one experiment, refused at once if it cannot run.

    Parameters
    ----------
    asked : the options of `minibutter train` by their names; `widths` is still text, and `measure`
        None where nothing is measured.
    repetitions : runs wanted.
    data_dir : where local data sets lie.
    """
    values = {key: asked[key] for key in RunSpec.model_fields}
    try:
        values["widths"] = parse_widths(values["widths"])
        spec = RunSpec(**(values | {"measure": tuple(values["measure"] or ())}))
    except ValidationError as error:
        raise SweepError(explain(error)) from None
    experiment = plan_experiment(spec, repetitions, data_dir)
    if experiment.problem is not None:
        raise SweepError(experiment.problem)
    # A name for a folder: of a generator its kind, of a file its name without odd characters.
    stem = re.sub(r"[^\w.-]", "_", Path(spec.dataset).name.partition(":")[0])[:40].lstrip(".")
    name = f"{stem}-{experiment.experiment_id[:8]}"
    document = spec.model_dump(mode="json", exclude_none=True) | {"repetitions": repetitions}
    return Sweep(name, "a single experiment", ((spec, repetitions),), document)


def choose_slices(slices: int | None, is_data_parallel: bool, batch_size: int) -> int:
    """Parts of a batch, from what `minibutter train` was told of them."""
    if is_data_parallel and slices == 1:
        raise SweepError(
            "--slices 1 with --data-parallel: a batch in one piece has nothing to share out; leave "
            "one of the two out"
        )
    if slices is not None:
        return slices
    return default_slices(batch_size) if is_data_parallel else 1


def parse_widths(text: str | None) -> tuple[int, ...] | None:
    """Units of every layer from the text of an option."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("-", ",").split(","))
    except ValueError:
        raise SweepError(
            f"--widths {text}: write whole numbers separated by commas, as in 17,17,7"
        ) from None
