"""`minibutter sweep`: run, plan and list sweeps."""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import typer
from rich.console import Console

from minibutter import launch, report, runs
from minibutter.cli.options import DataDir, Json, Out, SweepSource
from minibutter.cli.terminal import Bar, Silent, print_json, records, show_table
from minibutter.nn.shapes import format_widths
from minibutter.sweeps.spec import Sweep, catalogue, load_sweep


def run(
    sweep: SweepSource = launch.QUICKSTART,
    out: Out = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Do all runs of a sweep that are not done yet; `mpirun -n N` spreads them over ranks."""
    run_and_show(lambda: load_sweep(sweep, runs.CHECKS), out, data_dir, as_json)


def run_and_show(
    read_sweep: Callable[[], Sweep], out: Path | None, data_dir: Path | None, as_json: bool
) -> None:
    """Do what is missing of a sweep, show how it goes, and end with its exit code."""
    for_people = Bar if sys.stdout.isatty() else launch.PlainReporter
    reporter = Silent() if as_json else for_people()
    try:
        outcome = launch.run_sweep(read_sweep, reporter=reporter, out=out, data_dir=data_dir)
    except KeyboardInterrupt:
        print(launch.INTERRUPTED, file=sys.stderr)
        raise typer.Exit(launch.EXIT_INTERRUPTED) from None
    finally:
        reporter.close()
    if outcome is None:
        return
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
                "experiments": records(outcome.experiments),
            }
        )
    raise typer.Exit(outcome.exit_code)


def plan(
    sweep: SweepSource = launch.QUICKSTART,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show what a sweep would run, without running it."""
    read = load_sweep(sweep, runs.CHECKS)
    experiments = runs.plan_experiments(read, data_dir)
    n_runs = sum(experiment.repetitions for experiment in experiments)
    unreachable = [experiment for experiment in experiments if experiment.problem]
    rows = [
        {
            "experiment_id": experiment.experiment_id,
            **experiment.spec.model_dump(mode="json"),
            "repetitions": experiment.repetitions,
            "network": list(experiment.network.widths) if experiment.network else None,
            "num_parameters": experiment.network.num_parameters if experiment.network else None,
            "flops": experiment.repetitions * experiment.spec.epochs * experiment.flops_per_epoch,
            "problem": experiment.problem,
        }
        for experiment in experiments
    ]
    if as_json:
        print_json({"sweep": read.name, "runs": n_runs, "experiments": rows})
        return
    show_table(_plan_table(experiments), Console())
    print(
        f"\n{read.name}: {n_runs} runs of {len(experiments)} experiments, "
        f"{sum(row['flops'] for row in rows):.3g} flops in all"
    )
    for line in report.shorten_list([experiment.problem for experiment in unreachable]):
        print(f"cannot run: {line}")


def _plan_table(experiments: list[runs.Experiment]) -> pd.DataFrame:
    frame = pd.DataFrame(
        [
            {
                **experiment.spec.model_dump(exclude={"widths"}),
                "depth": experiment.depth,
                "network": experiment.network and format_widths(experiment.network.widths),
                "parameters": experiment.network and experiment.network.num_parameters,
                "repetitions": experiment.repetitions,
                "id": experiment.experiment_id[:8],
                "": "cannot run" if experiment.problem else "",
            }
            for experiment in experiments
        ]
    )
    table = report.varying_settings(frame)
    for column in ("network", "parameters", "repetitions", "id", ""):
        cells = frame.loc[table.index, column]
        table[column] = ["-" if pd.isna(cell) else str(cell) for cell in cells]
    return table if any(table[""]) else table.drop(columns="")


def list_catalogue() -> None:
    """The sweeps that come with minibutter."""
    for name, description in catalogue().items():
        print(f"{name:12} {description}")
