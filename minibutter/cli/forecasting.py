"""What a plan comes to, in sentences and for programs: hours, jobs, bytes and kilowatt-hours."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minibutter import report
from minibutter.calibration import Calibration, find_calibration
from minibutter.cli.calibrating import describe_costs
from minibutter.cli.options import Mistake
from minibutter.experiments import Plan
from minibutter.launch.forecast import Forecast, forecast
from minibutter.launch.stopping import read_limit
from minibutter.store.shards import most_shards
from minibutter.store.volume import table_bytes

if TYPE_CHECKING:
    from minibutter.energy.model import Prediction

_MOST_MODELLED = 50
"""Bytes between the levels of the memory take a tenth of a second to predict for a deep network: of
more experiments than these, a sample stands for all."""


@dataclass(frozen=True)
class Outlook:
    """What is expected of a sweep.

    Attributes
    ----------
    calibration : where the times come from; None for the built-in rates.
    n_epochs : of all runs that can be run.
    disk_bytes : of both tables.
    schedule : None where no number of ranks was given.
    energy : None where no model was given; of a sample where `energy_scale` is not 1.
    energy_scale : what the energy of the sample is to be multiplied with.
    """

    calibration: Calibration | None
    n_epochs: int
    disk_bytes: int
    schedule: Forecast | None
    energy: "Prediction | None"
    energy_scale: float


def look_ahead(
    plan: Plan,
    n_ranks: int | None,
    time_limit: str | None,
    lanes: str,
    energy_model: Path | None,
) -> Outlook:
    """Predict all that was asked for; `None` where it was not."""
    if n_ranks is not None and n_ranks < 1:
        raise Mistake(f"--ranks {n_ranks}: must be at least 1")
    if n_ranks is None and time_limit is not None:
        raise Mistake("--time-limit is the length of a job: --ranks must say how large it is")
    schedule = None
    if n_ranks is not None:
        limit_s = None if time_limit is None else read_limit(time_limit).seconds_left
        schedule = forecast(plan, n_ranks, lanes, limit_s)
    energy, scale = (None, 1.0) if energy_model is None else _predict_energy(plan, energy_model)
    runs = np.where(plan.has_problem, 0, plan.repetitions)
    n_epochs = int(runs @ plan.epochs)
    n_train = int(runs[_evaluates_train(plan)] @ plan.epochs[_evaluates_train(plan)])
    n_shards = 1
    if schedule is not None and schedule.n_jobs:
        each = most_shards(schedule.makespan_s / schedule.n_jobs)
        n_shards = min(schedule.n_groups, round(schedule.n_ranks * schedule.n_jobs * each) + 1)
    return Outlook(
        calibration=find_calibration(),
        n_epochs=n_epochs,
        disk_bytes=table_bytes(n_epochs, n_train, int(runs.sum()), n_shards),
        schedule=schedule,
        energy=energy,
        energy_scale=scale,
    )


def _evaluates_train(plan: Plan) -> np.ndarray:
    return plan.sweep_cells.numbers_of("evaluate_train")[plan.cells].astype(bool)


def _predict_energy(plan: Plan, path: Path) -> "tuple[Prediction, float]":
    from minibutter.cli.energy_models import load_model, plan_energy
    from minibutter.energy.model import predict_energy

    runnable = np.flatnonzero(~plan.has_problem)
    if not len(runnable):
        raise Mistake("--energy-model: nothing of this sweep can be run")
    work_us = plan.work_us
    model = load_model(path)
    # From small to large, so that a sample has all sizes.
    ordered = runnable[np.argsort(work_us[runnable], kind="stable")]
    stride = -(-len(ordered) // _MOST_MODELLED)
    chosen = ordered[stride // 2 :: stride]
    prediction = predict_energy(model, plan_energy([plan[number] for number in chosen.tolist()]))
    return prediction, float(work_us[runnable].sum() / work_us[chosen].sum())


def outlook_lines(outlook: Outlook) -> list[str]:
    """The same for people."""
    lines = [] if outlook.schedule is None else _schedule_lines(outlook.schedule)
    lines.append(f"disk: about {_bytes_text(outlook.disk_bytes)} for {outlook.n_epochs:,} epochs")
    if outlook.energy is not None:
        lines += _energy_lines(outlook.energy, outlook.energy_scale)
    lines.append(describe_costs(outlook.calibration))
    return lines


def _schedule_lines(schedule: Forecast) -> list[str]:
    ranks = "1 rank" if schedule.n_ranks == 1 else f"{schedule.n_ranks} ranks"
    n_left = int(schedule.too_long.sum())
    if not schedule.n_jobs and not n_left:
        return []
    lines = []
    if schedule.n_jobs:
        lines.append(
            f"on {ranks}: {_time_text(schedule.makespan_s)}, {schedule.efficiency:.1%} busy; "
            f"{report.hours_text(schedule.core_h)} core-hours as packed"
        )
    if schedule.time_limit_s is None:
        lines.append(
            f"  no schedule is shorter than {_time_text(schedule.lower_bound_s)}; the longest run "
            f"takes {_time_text(schedule.longest_s)}"
        )
        return lines
    job = f"of {_time_text(schedule.time_limit_s)}"
    if schedule.n_jobs:
        about = "about " if schedule.is_sampled else ""
        jobs = "1 job" if schedule.n_jobs == 1 else f"{about}{schedule.n_jobs} jobs"
        lines.append(f"  {jobs} {job}")
    if n_left:
        n_experiments = int((schedule.too_long > 0).sum())
        lines.append(
            f"  too long for a job: {n_left} runs of {n_experiments} experiments, not one epoch of "
            f"which fits; the longest needs {_time_text(schedule.needed_s)}"
        )
    return lines


def _energy_lines(energy: "Prediction", scale: float) -> list[str]:
    interval = "without interval"
    if energy.low_kwh is not None:
        low, high = (report.hours_text(end * scale) for end in (energy.low_kwh, energy.high_kwh))
        interval = f"[{low}, {high}] in 90 %"
    of_sample = "" if scale == 1 else f", from a sample of {len(energy.experiments)} experiments"
    return [
        f"energy: {report.hours_text(energy.energy_kwh * scale)} kWh {interval} "
        f"({energy.energy_quality} from {energy.kind} energies{of_sample})",
        *(f"note: {note}" for note in energy.notes),
    ]


def outlook_document(outlook: Outlook) -> dict[str, Any]:
    """The same for programs."""
    schedule, energy, scale = outlook.schedule, outlook.energy, outlook.energy_scale
    return {
        "calibrated_at": outlook.calibration and outlook.calibration.measured_at,
        "epochs": outlook.n_epochs,
        "disk_bytes": outlook.disk_bytes,
        "schedule": schedule
        and {
            "ranks": schedule.n_ranks,
            "groups": schedule.n_groups,
            "core_h": schedule.core_h,
            "makespan_s": schedule.makespan_s,
            "lower_bound_s": schedule.lower_bound_s,
            "efficiency": schedule.efficiency,
            "time_limit_s": schedule.time_limit_s,
            "jobs": schedule.n_jobs,
            "is_sampled": schedule.is_sampled,
            "longest_s": schedule.longest_s,
            "needed_time_limit_s": schedule.needed_s,
            "runs_too_long": int(schedule.too_long.sum()),
            "experiments_too_long": int((schedule.too_long > 0).sum()),
        },
        "energy": energy
        and {
            "quality": energy.energy_quality,
            "kind": energy.kind,
            "energy_kwh": energy.energy_kwh * scale,
            "low_kwh": None if energy.low_kwh is None else energy.low_kwh * scale,
            "high_kwh": None if energy.high_kwh is None else energy.high_kwh * scale,
            "sampled_experiments": len(energy.experiments),
            "notes": list(energy.notes),
            "assumptions": list(energy.assumptions),
        },
    }


def _time_text(seconds: float) -> str:
    """Days of what takes several."""
    if seconds < 3 * 86400:
        return report.duration_text(seconds)
    days = seconds / 86400
    return f"{days:.3g} days" if days < 1000 else f"{days / 365.25:.3g} years"


def _bytes_text(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
