"""Energy models on the terminal and on disk: read, fitted, written, and shown as tables."""

import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from minibutter import hierarchy, plots, report, store
from minibutter.cli.options import Mistake
from minibutter.cli.terminal import show_table
from minibutter.energy.model import (
    EnergyModel,
    ModelError,
    Planned,
    Prediction,
    features_of,
    fit_energy,
    model_from_json,
    observe,
    to_json,
)
from minibutter.energy.model.predict import JOULES_PER_KWH
from minibutter.energy.model.results import Coefficient, Form
from minibutter.experiments import Experiment
from minibutter.provenance import read_provenance

_FORMS = {
    "hierarchy": "time, FLOPs, bytes by level",
    "butter_e": "BUTTER-E",
    "flops": "FLOPs alone",
    "time": "time alone",
    "duration": "seconds: steps, FLOPs, bytes",
}
_TERMS = {
    "static_power_w": "static power",
    "energy_per_flop_j": "per FLOP",
    "energy_per_l1_byte_j": "per byte of L1",
    "energy_per_l2_byte_j": "per byte of L2",
    "energy_per_l3_byte_j": "per byte of L3",
    "energy_per_dram_byte_j": "per byte of memory",
}
_LEVELS = {"l1": "L1", "l2": "L2", "l3": "L3", "dram": "memory"}
_FACTORS = {"K": 2**10, "M": 2**20, "G": 2**30}


def fit_results(
    directory: Path, source: str | None, with_shared: bool, caches: str | None
) -> EnergyModel:
    """Fit the energies that a sweep's directory holds; options as the command line gives them."""
    given = None if caches is None else _parse_caches(caches)
    runs, epochs = store.read_runs(directory), store.read_epochs(directory)
    for problem in epochs.attrs.get("problems", []):
        print(f"warning: {problem}", file=sys.stderr)
    observations = observe(runs, epochs, source, with_shared)
    if given is None and observations.cpu_models == (read_provenance().cpu_model,):
        given = _read_caches()
    return fit_energy(observations, given)


def _read_caches() -> dict[str, int] | None:
    """This machine's; None, and a warning, where they are not known."""
    reason = hierarchy.unknown_caches()
    if reason is not None:
        print(f"warning: {reason}; --caches can say how large they are", file=sys.stderr)
        return None
    return {f"l{level}": size for level, size in sorted(hierarchy.machine_caches().items())}


def _parse_caches(text: str) -> dict[str, int]:
    parts = text.split(",")
    sizes = [re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", part.strip()) for part in parts]
    if not all(sizes) or not 1 <= len(parts) <= 3:
        raise Mistake(f"--caches {text}: write one to three sizes, nearest first, as 32K,512K,4M")
    return {
        f"l{level}": int(size[1]) * _FACTORS.get(size[2], 1) for level, size in enumerate(sizes, 1)
    }


def write_model(model: EnergyModel, folder: Path) -> list[Path]:
    """Write `model.json` and the figures; returns what was written."""
    rows = pd.DataFrame([asdict(row) for row in model.rows])
    is_shared = (rows["own_share"] != 1).any()
    own = rows.assign(
        **{name: rows[name] * rows["own_share"] for name in ("energy_j", "predicted_j")}
    )
    paths = [folder / "model.json", folder / "predicted.png", folder / "per_datum.png"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(to_json(model) + "\n")
        what = f"{model.kind} package with all its runs," if is_shared else model.kind
        plots.draw_predicted_energy(rows, what, paths[1])
        if rows["working_set_bytes"].isna().all():
            return paths[:2]
        what = f"{model.kind} package, modelled share" if is_shared else model.kind
        plots.draw_energy_per_datum(own, model.caches, what, paths[2])
    except OSError as error:
        raise Mistake(
            f"{folder} cannot take the model ({error.strerror or error}); give a folder that can "
            "be written: --out"
        ) from None
    return paths


def load_model(path: Path) -> EnergyModel:
    """A model from its file, or from results by fitting it."""
    if path.is_dir():
        return fit_results(path, None, False, None)
    try:
        return model_from_json(path.read_text())
    except OSError as error:
        raise Mistake(
            f"{path} cannot be read ({error.strerror}); give the model.json that `minibutter "
            "energy fit` wrote, or a directory of results"
        ) from None
    except UnicodeDecodeError:
        raise Mistake(f"{path} is no energy model; give a model.json") from None
    except ModelError as error:
        raise Mistake(f"{path}: {error}") from None


def plan_energy(experiments: list[Experiment]) -> Planned:
    """What the model needs to know of experiments that can be run; refused on unknown caches."""
    reason = hierarchy.unknown_caches()
    if reason is not None:
        raise Mistake(
            f"the bytes that a sweep moves cannot be predicted: {reason}; "
            "predict on a machine like the one that was measured"
        )
    frame = pd.DataFrame(
        [
            {
                "n_train": experiment.n_train,
                "batch_size": experiment.spec.batch_size,
                "depth": experiment.depth,
                "kernel": experiment.spec.kernel,
                "dtype": experiment.spec.dtype,
                **hierarchy.work_columns(experiment.workload),
                **hierarchy.traffic_columns(experiment.workload, experiment.spec.cache_state),
            }
            for experiment in experiments
        ]
    )
    return Planned(
        titles=[experiment.title for experiment in experiments],
        features=features_of(frame),
        epochs=np.array([experiment.spec.epochs for experiment in experiments]),
        repetitions=np.array([experiment.repetitions for experiment in experiments]),
    )


def show_model(model: EnergyModel, paths: list[Path]) -> None:
    """Coefficients, scores beside the other forms, residuals by level, and what to know."""
    console = Console()
    counted = ", ".join(f"{count} {quality}" for quality, count in model.qualities.items())
    print(
        f"fitted to {model.kind} energy ({', '.join(model.sources)}): {model.n_runs} runs "
        f"({counted}), {model.n_configurations} configurations of {model.n_experiments} "
        "experiments\n"
    )
    show_table(coefficients_table(model.hierarchy), console)
    print()
    show_table(forms_table(model), console)
    print("MAPE: mean relative error; left out, and all that follows: experiments not fitted to")
    if model.residuals:
        print()
        show_table(residuals_table(model), console)
    print()
    for note in model.notes:
        print(f"note: {_named(note)}")
    for reason, count in model.left_out.items():
        print(f"left out: {count} runs: {reason}")
    for path in paths:
        print(path)


def coefficients_table(form: Form) -> pd.DataFrame:
    """Coefficients with their intervals, as strings."""
    rows = []
    for coefficient in form.coefficients:
        value, interval, unit = _in_unit(coefficient)
        rows.append(
            {
                "": _TERMS[coefficient.term],
                "value": value,
                "90 % interval": interval,
                "unit": unit,
                "why not": _named(coefficient.reason or ""),
            }
        )
    table = pd.DataFrame(rows)
    return table if any(table["why not"]) else table.drop(columns="why not")


def _named(text: str) -> str:
    """A sentence with the terms as the table calls them."""
    for term, name in _TERMS.items():
        text = text.replace(term, name)
    return text


def _in_unit(coefficient: Coefficient) -> tuple[str, str, str]:
    """Value, interval and unit: joules per operation are read in picojoules."""
    factor, unit = (1.0, "W") if coefficient.unit == "W" else (1e12, f"p{coefficient.unit}")
    if coefficient.value is None:
        return "-", "-", unit
    value = f"{coefficient.value * factor:.4g}"
    if coefficient.low is None or coefficient.high is None:
        return value, "-", unit
    return value, f"[{coefficient.low * factor:.4g}, {coefficient.high * factor:.4g}]", unit


def forms_table(model: EnergyModel) -> pd.DataFrame:
    """How near each form comes, as strings; all but the first score are of what was left out."""
    rows = []
    for form in (*model.forms, model.duration):
        judged = form.held_out
        rows.append(
            {
                "form": _FORMS[form.name],
                "MAPE %": _percent(form.fitted.mape),
                "left out %": _percent(judged and judged.mape),
                "within 10 %": _percent(judged and judged.within_10_percent),
                "R2": _score(judged and judged.r2),
                "R2 of log": _score(judged and judged.r2_log),
            }
        )
    return pd.DataFrame(rows)


def residuals_table(model: EnergyModel) -> pd.DataFrame:
    """Errors by the level that the working set of a step fits into, as strings."""
    return pd.DataFrame(
        [
            {
                "fits into": _LEVELS[each.level],
                "configurations": str(each.n_configurations),
                "median %": _percent(each.median),
                "MAPE %": _percent(each.mape),
                "left out %": _percent(each.held_out_mape),
            }
            for each in model.residuals
        ]
    )


def show_prediction(prediction: Prediction, experiments: list[Experiment]) -> None:
    """kWh of every experiment and of all, and what they rest on."""
    show_table(prediction_table(prediction, experiments), Console())
    n_runs = sum(each.n_runs for each in prediction.experiments)
    interval = _interval(prediction.low_kwh, prediction.high_kwh)
    interval = "without interval" if interval == "-" else f"{interval} in 90 %"
    static = ""
    if prediction.static_kwh is not None and prediction.energy_kwh:
        share = prediction.static_kwh / prediction.energy_kwh
        static = f", {100 * share:.0f} % of it static power"
    print(
        f"\n{n_runs} runs: {prediction.energy_kwh:.3g} kWh {interval} ({prediction.energy_quality} "
        f"from {prediction.kind} energies){static}; "
        f"{report.duration_text(prediction.duration_s)} one after the other"
    )
    for note in prediction.notes:
        print(f"note: {note}")
    for assumption in prediction.assumptions:
        print(f"assumed: {assumption}")


def prediction_table(prediction: Prediction, experiments: list[Experiment]) -> pd.DataFrame:
    """What each experiment takes, as strings."""
    frame = pd.DataFrame(
        [{**each.spec.model_dump(exclude={"widths"}), "depth": each.depth} for each in experiments]
    )
    table = report.varying_settings(frame)
    ordered = [prediction.experiments[row] for row in table.index]
    table["runs"] = [str(each.n_runs) for each in ordered]
    table["time"] = [report.duration_text(each.duration_s) for each in ordered]
    factor, unit = _unit_for(max(each.energy_kwh for each in ordered))
    table[unit] = [f"{each.energy_kwh * factor:.3g}" for each in ordered]
    table["90 % interval"] = [_interval(each.low_kwh, each.high_kwh, factor) for each in ordered]
    table["beyond"] = [", ".join(each.outside) for each in ordered]
    return table if any(table["beyond"]) else table.drop(columns="beyond")


def _unit_for(most_kwh: float) -> tuple[float, str]:
    """What to multiply kWh with so that the largest of a table is easy to read, and its unit."""
    for factor, unit in ((1.0, "kWh"), (1e3, "Wh")):
        if most_kwh * factor >= 0.1:
            return factor, unit
    return JOULES_PER_KWH, "J"


def _interval(low: float | None, high: float | None, factor: float = 1.0) -> str:
    if low is None or high is None:
        return "-"
    return f"[{low * factor:.3g}, {high * factor:.3g}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{round(100 * value, 2) + 0.0:.2f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
