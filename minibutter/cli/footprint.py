"""What `minibutter hierarchy` shows: tables, JSON and a figure."""

from typing import Any

import pandas as pd
from pydantic import ValidationError
from rich.console import Console

from minibutter import hierarchy, plots
from minibutter.cli.options import Mistake
from minibutter.cli.running import parse_widths
from minibutter.cli.terminal import print_json, show_table
from minibutter.experiments import TILING_SIZES, plan_experiment
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.network import Network
from minibutter.nn.shapes import find_outline, format_widths
from minibutter.nn.traffic import Workload
from minibutter.sweeps.spec import RunSpec, SweepError, explain

_SPEC_KEYS = (
    *("dataset", "shape", "size", "depth", "widths", "batch_size", "optimizer", "activation"),
    *("test_split", "dtype", "kernel", "evaluate_train", "cache_state", "target", "task"),
    *TILING_SIZES,
)


def show_hierarchy(asked: dict[str, Any]) -> None:
    """Predict, and show in the way that was asked for.

    Parameters
    ----------
    asked : the options of `minibutter hierarchy` by their names.
    """
    values = {key: asked[key] for key in _SPEC_KEYS}
    values["widths"] = parse_widths(asked["widths"])
    try:
        # A name stands for the data set where only its dimensions are given.
        spec = RunSpec(**(values | {"dataset": asked["dataset"] or "rows of given dimensions"}))
    except ValidationError as error:
        raise SweepError(explain(error)) from None
    workload = _of_dimensions(spec, asked) if asked["dataset"] is None else _of_data(spec, asked)
    caches, reason = hierarchy.machine_caches(), hierarchy.why_no_traffic(workload)
    work = hierarchy.work_columns(workload)
    moved = hierarchy.traffic_columns(workload, spec.cache_state)
    phases = hierarchy.phase_table(workload, spec.cache_state)
    if asked["plot"] is not None:
        if reason is not None:
            raise Mistake(f"--plot {asked['plot']}: {reason}")
        sets = {name: work[f"working_set_{name}_bytes"] for name in hierarchy.WORKING_SETS}
        try:
            plots.draw_hierarchy(phases, sets, caches, asked["plot"])
        except ValueError as error:
            raise Mistake(f"--plot {asked['plot']}: {error}") from None
    network = workload.network
    if asked["as_json"]:
        print_json(
            {
                "network": {"n_inputs": network.n_inputs, "widths": list(network.widths)},
                "num_parameters": network.num_parameters,
                "caches_bytes": {str(level): n_bytes for level, n_bytes in caches.items()},
                "tiling": vars(network.tiling.resolved(network.dtype)),
                "traffic_quality": "modelled" if reason is None else "unavailable",
                "traffic_reason": reason,
                **work,
                **moved,
                "phases": phases,
            }
        )
        return
    console = Console()
    print(
        f"{network.n_inputs} inputs, {format_widths(network.widths)}: "
        f"{network.num_parameters} parameters, {work['flops_per_epoch']:.4g} flops an epoch\n"
    )
    show_table(_set_table(work, caches), console)
    if reason is not None:
        print(f"\n{reason}")
        return
    print(f"\npredicted for an epoch ({spec.cache_state} caches), not measured:")
    show_table(_phase_table(phases, moved), console)


def _of_data(spec: RunSpec, asked: dict[str, Any]) -> Workload:
    experiment = plan_experiment(spec, data_dir=asked["data_dir"])
    if experiment.problem is not None:
        raise SweepError(experiment.problem)
    return experiment.workload


def _of_dimensions(spec: RunSpec, asked: dict[str, Any]) -> Workload:
    n_inputs, n_outputs = asked["inputs"], asked["outputs"]
    n_test = max(round(spec.test_split * asked["rows"]), 1)
    n_train = asked["rows"] - n_test
    try:
        widths = (
            spec.widths
            or find_outline(spec.shape, spec.size, spec.depth, n_inputs, n_outputs).widths
        )
        if widths[-1] != n_outputs:
            raise ValueError(f"widths end with {widths[-1]}, but there are {n_outputs} outputs")
        network = Network(
            n_inputs=n_inputs,
            widths=widths,
            task="regression" if n_outputs == 1 else "classification",
            activation=spec.activation,
            shape=spec.shape,
            dtype=spec.dtype,
            kernel=spec.kernel,
            tiling=Tiling(**{size: getattr(spec, size) for size in TILING_SIZES}),
        )
        network.tiling.resolved(spec.dtype)
    except ValueError as error:
        raise SweepError(str(error)) from None
    batch_size = min(spec.batch_size, n_train)
    return Workload(network, n_train, n_test, batch_size, spec.optimizer, spec.evaluate_train)


def _set_table(work: dict[str, Any], caches: dict[int, int | None]) -> pd.DataFrame:
    """Working sets, and the first level that holds them."""
    rows = []
    for name in hierarchy.WORKING_SETS:
        n_bytes = work[f"working_set_{name}_bytes"]
        rows.append(
            {"working set": name, "bytes": _in_units(n_bytes), "fits": _place(n_bytes, caches)}
        )
    levels = [
        {
            "working set": f"(level {level})",
            "bytes": "unknown" if size is None else _in_units(size),
            "fits": "",
        }
        for level, size in sorted(caches.items())
    ]
    return pd.DataFrame([*rows, *levels])


def _place(n_bytes: int, caches: dict[int, int | None]) -> str:
    """Where so many bytes fit; a level of unknown size may or may not hold them."""
    for level, size in sorted(caches.items()):
        if size is None:
            return "unknown"
        if n_bytes <= size:
            return f"level {level}"
    return "memory" if caches else "unknown"


def _phase_table(phases: list[dict[str, Any]], moved: dict[str, float | None]) -> pd.DataFrame:
    columns = [column for column in hierarchy.TRAFFIC_COLUMNS if moved[column] is not None]
    heads = {column: column.split("_")[1] for column in columns}
    rows = [
        {
            "part": phase["name"].replace("_", " "),
            "layer": "" if phase["layer"] is None else str(phase["layer"] + 1),
            "Mflop": f"{phase['flops'] / 1e6:.4g}" if phase["flops"] else "",
            **{heads[column]: _in_units(phase[column]) for column in columns},
        }
        for phase in phases
    ]
    flops = sum(phase["flops"] for phase in phases) / 1e6
    total = {"part": "epoch", "layer": "", "Mflop": f"{flops:.4g}"}
    rows.append(total | {heads[column]: _in_units(moved[column]) for column in columns})
    return pd.DataFrame(rows)


def _in_units(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}" if n_bytes < 1000 else f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.3g} GiB"
