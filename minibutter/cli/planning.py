"""What a sweep would run: every experiment of a small one, axes and sizes of a large one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from minibutter import report
from minibutter.calibration import machine_cost_model
from minibutter.cli.forecasting import look_ahead, outlook_document, outlook_lines
from minibutter.cli.terminal import print_json_rows, show_table
from minibutter.experiments import Plan, plan_experiments
from minibutter.nn.shapes import format_widths
from minibutter.sweeps.spec import Sweep, catalogue, load_sweep

_US_PER_H = 3.6e9
_SHOWN_VALUES = 8


def show_plan(
    sweep: Sweep,
    data_dir: Path | None,
    n_ranks: int | None,
    time_limit: str | None,
    lanes: str,
    energy_model: Path | None,
    as_json: bool,
) -> None:
    """Show what would be run, what it would take, and what cannot be run."""
    plan = plan_experiments(sweep, data_dir, machine_cost_model())
    outlook = look_ahead(plan, n_ranks, time_limit, lanes, energy_model)
    if as_json:
        print_json_rows(_totals(plan) | outlook_document(outlook), "experiments", _rows(plan))
        return
    console = Console()
    if len(plan) <= report.MAX_ROWS:
        show_table(_experiment_table(plan), console)
    else:
        show_table(_axis_table(plan), console)
        print()
        show_table(_size_table(plan), console)
    print()
    for note in plan.notes:
        print(note)
    print(
        f"{plan.name}: {plan.repetitions.sum()} runs of {len(plan)} experiments "
        f"({plan.n_cells.sum()} cells), about {report.hours_text(plan.core_h)} core-hours"
    )
    for line in outlook_lines(outlook):
        print(line)
    for line in _problem_lines(plan):
        print(f"cannot run: {line}")


def show_catalogue() -> None:
    """Names, cells, runs and descriptions of the sweeps that come along."""
    rows = []
    for name, description in catalogue().items():
        grids = load_sweep(name).grids
        n_runs = sum(grid.repetitions * len(grid) for grid in grids)
        rows.append((name, str(sum(map(len, grids))), str(n_runs), description))
    table = pd.DataFrame(rows, columns=["sweep", "cells", "runs", "description"])
    print(report.plain_text(table))


def _totals(plan: Plan) -> dict[str, Any]:
    sizes, counts = np.unique(plan.sizes[plan.is_unreachable], return_counts=True)
    return {
        "sweep": plan.name,
        "notes": plan.notes,
        "cells": int(plan.n_cells.sum()),
        "runs": int(plan.repetitions.sum()),
        "cannot_run": int(plan.has_problem.sum()),
        "unreachable_sizes": {f"{size:.0f}": int(n) for size, n in zip(sizes, counts, strict=True)},
        "work_core_h": plan.core_h,
    }


def _rows(plan: Plan) -> Iterator[dict[str, Any]]:
    for experiment, work_us in zip(plan, plan.work_us.tolist(), strict=True):
        network, n_epochs = experiment.network, experiment.repetitions * experiment.spec.epochs
        yield {
            "experiment_id": experiment.experiment_id,
            **experiment.spec.model_dump(mode="json"),
            "repetitions": experiment.repetitions,
            "network": list(network.widths) if network else None,
            "num_parameters": network.num_parameters if network else None,
            "flops": n_epochs * experiment.flops_per_epoch,
            "work_core_h": work_us / _US_PER_H,
            "problem": experiment.problem,
        }


def _experiment_table(plan: Plan) -> pd.DataFrame:
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
            for experiment in plan
        ]
    )
    table = report.varying_settings(frame)
    for column in ("network", "parameters", "repetitions", "id", ""):
        cells = frame.loc[table.index, column]
        table[column] = ["-" if pd.isna(cell) else str(cell) for cell in cells]
    return table if any(table[""]) else table.drop(columns="")


def _axis_table(plan: Plan) -> pd.DataFrame:
    """The keys that have several values, as strings."""
    rows = [
        {"axis": key.replace("_", " "), "values": str(len(values)), "": _shortened(values)}
        for key, values in plan.values().items()
        if len(values) > 1
    ]
    return pd.DataFrame(rows)


def _shortened(values: list[Any]) -> str:
    texts = [format_widths(value) if isinstance(value, tuple) else str(value) for value in values]
    if len(texts) > _SHOWN_VALUES:
        texts = [*texts[: _SHOWN_VALUES - 2], "...", texts[-1]]
    return ", ".join(texts)


def _size_table(plan: Plan) -> pd.DataFrame:
    """Experiments, runs and work by size, as strings."""
    frame = pd.DataFrame(
        {
            "size": plan.sizes,
            "experiments": 1,
            "runs": plan.repetitions,
            "cannot run": plan.has_problem,
            "core-hours": plan.work_us / _US_PER_H,
        }
    )
    sums = frame.groupby("size", dropna=False).sum().reset_index()
    table = pd.DataFrame(
        {
            "size": ["widths" if pd.isna(size) else f"{size:.0f}" for size in sums["size"]],
            "experiments": sums["experiments"].map(str),
            "runs": sums["runs"].map(str),
            "cannot run": sums["cannot run"].map(str),
            "core-hours": sums["core-hours"].map(report.hours_text),
        }
    )
    return table if plan.has_problem.any() else table.drop(columns="cannot run")


def _problem_lines(plan: Plan) -> list[str]:
    """Every different problem, or a few of them; unreachable sizes in one line if they are many."""
    of_sizes = list(plan.problems(plan.is_unreachable))
    others = report.shorten_list(plan.problems(plan.has_problem & ~plan.is_unreachable))
    if len(of_sizes) <= report.MAX_LINES:
        return [*of_sizes, *others]
    sizes, counts = np.unique(plan.sizes[plan.is_unreachable], return_counts=True)
    counted = ", ".join(f"{n} of size {size:.0f}" for size, n in zip(sizes, counts, strict=True))
    return [
        f"{counts.sum()} experiments, because no network of their shape and depth is within 20 % "
        f"of their size: {counted}",
        *others,
    ]
