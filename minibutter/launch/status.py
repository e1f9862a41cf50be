"""How far a sweep is, from what its directory holds: nothing is asked of the ranks that work on it.

What is left is estimated from durations that were measured. An experiment of which some repetitions
are done takes as long for the others; one of which none is done takes as long as its work says,
measured on all that are (`Job.work`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter import store
from minibutter.datasets import DatasetError
from minibutter.experiments import CHECKS, Experiment, plan_experiments
from minibutter.launch.job import Group, Job
from minibutter.sweeps.spec import SweepError, parse_sweep

_COLUMNS = ["run_id", "experiment_id", "repetition", "status", "diverged", "error", "duration_s",
            "started_at", "n_ranks"]  # fmt: skip


@dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Attributes
    ----------
    name : of the sweep; of the directory, where it has no manifest.
    n_experiments : asked for.
    done, diverged, failed, pending : runs asked for, each in one of these states. Diverged ones
        have ended, with a loss that is not finite. `pending` is None without a manifest.
    not_asked_for : other runs that stand there.
    failed_again : failed runs that the next `sweep run` tries again by itself; None if not known.
    failures : messages of failed runs and how many have them, the most frequent first.
    core_s_done : seconds that the runs have trained, of one core.
    core_s_left : what pending and repeated runs will take; None, and `left_reason`, if not known.
    n_ranks : ranks that `left_s` is meant for.
    left_s : seconds until all is done; None if not known. At least what the longest run takes.
    problems : shards that were ignored.
    """

    name: str
    n_experiments: int
    done: int
    diverged: int
    failed: int
    pending: int | None
    not_asked_for: int
    failed_again: int | None
    failures: dict[str, int]
    core_s_done: float
    core_s_left: float | None
    left_reason: str | None
    n_ranks: int
    left_s: float | None
    problems: list[str]


def read_status(
    directory: Path, n_ranks: int | None = None, data_dir: Path | None = None
) -> Status:
    """Look into the directory of a sweep, which may be running.

    Parameters
    ----------
    directory : of the sweep.
    n_ranks : ranks that will do the rest; those of the newest run, or 1, if left out.
    data_dir : where local data sets lie, for runs of which none has been measured.

    Raises
    ------
    StoreError
        If it is no directory of results, or nothing was ever asked for there.
    """
    store.require_results(directory)
    manifest = store.read_manifest(directory)
    statuses, problems = store.finished_runs(directory)
    if statuses:
        runs = store.read_runs(directory, _COLUMNS)
    elif manifest is None:
        raise store.StoreError(
            f"{directory} has no run and no sweep.json; give the directory of a sweep (--out)"
        )
    else:
        runs = pd.DataFrame({name: [] for name in _COLUMNS})

    requested = _requested(manifest, runs)
    core_s_done, n_stored = float(runs["duration_s"].sum()), len(runs)
    limits = runs["experiment_id"].map(requested).fillna(0)
    runs = runs[runs["repetition"] < limits]
    is_failed = runs["status"] == "failed"
    is_diverged = ~is_failed & runs["diverged"].fillna(False).astype(bool)
    missing = pd.Series(requested, dtype=float).sub(
        runs.groupby("experiment_id").size(), fill_value=0
    )
    measured = set(runs.loc[~is_failed, "experiment_id"])
    planned, reason = {}, None
    if is_failed.any() or not measured.issuperset(missing.index[missing > 0]):
        planned, reason = _plan(manifest, data_dir)
    again = _tried_again(runs[is_failed], planned)
    to_do = missing
    if again is not None:
        to_do = to_do.add(again.groupby("experiment_id").size(), fill_value=0)
    left = _Estimate.of(runs[~is_failed], to_do[to_do > 0], planned, reason)
    if n_ranks is None:
        n_ranks = int(runs.loc[runs["started_at"].idxmax(), "n_ranks"]) if len(runs) else 1
    return Status(
        name=manifest["name"] if manifest else directory.resolve().name,
        n_experiments=len(requested),
        done=int((~is_failed & ~is_diverged).sum()),
        diverged=int(is_diverged.sum()),
        failed=int(is_failed.sum()),
        pending=int(missing.sum()) if manifest else None,
        not_asked_for=n_stored - len(runs),
        failed_again=None if again is None else len(again),
        failures=runs.loc[is_failed, "error"].value_counts().to_dict(),
        core_s_done=core_s_done,
        core_s_left=left.core_s if manifest else None,
        left_reason=left.reason if manifest else "there is no sweep.json that says what to do",
        n_ranks=n_ranks,
        left_s=None
        if left.core_s is None or not manifest
        else max(left.core_s / n_ranks, left.longest_s),
        problems=problems,
    )


def _requested(manifest: Mapping[str, Any] | None, runs: pd.DataFrame) -> dict[str, int]:
    if manifest is not None:
        return manifest["requested"]
    return (runs.groupby("experiment_id")["repetition"].max() + 1).to_dict()


def _plan(
    manifest: Mapping[str, Any] | None, data_dir: Path | None
) -> tuple[dict[str, Experiment], str | None]:
    """The experiments that the manifest's sweeps mean, by id; or why they cannot be told."""
    document = {} if manifest is None else manifest.get("document", {})
    planned: dict[str, Experiment] = {}
    for part in document.get("merged", [document]):
        if "sweep" not in part:
            return planned, "the directory does not say from which sweep it is"
        try:
            sweep = parse_sweep(part["sweep"], "sweep.json", CHECKS)
            planned |= {each.experiment_id: each for each in plan_experiments(sweep, data_dir)}
        except (SweepError, DatasetError) as error:
            return planned, str(error)
    return planned, next((each.problem for each in planned.values() if each.info is None), None)


def _tried_again(failed: pd.DataFrame, planned: Mapping[str, Experiment]) -> pd.DataFrame | None:
    """Failed runs in whose way nothing stands; see `prepare_job`."""
    if not set(failed["experiment_id"]) <= set(planned):
        return None
    may_succeed = [planned[key].problem is None for key in failed["experiment_id"]]
    return failed[np.array(may_succeed, dtype=bool)]


def _work(planned: Mapping[str, Experiment]) -> dict[str, float]:
    """Predicted cost of one run of every experiment; only their ratios are used."""
    job = Job(
        name="",
        out=Path(),
        experiments=dict(planned),
        groups=(),
        together=(),
        n_done=0,
        kept={},
        notes=(),
    )
    return {key: job.work(Group(key, (0,))) for key in planned}


@dataclass(frozen=True)
class _Estimate:
    """Core-seconds of what is left, and of the longest run of it; None with a reason."""

    core_s: float | None
    longest_s: float = 0.0
    reason: str | None = None

    @classmethod
    def of(
        cls,
        done: pd.DataFrame,
        to_do: pd.Series,
        planned: Mapping[str, Experiment],
        reason: str | None,
    ) -> "_Estimate":
        """From the runs that are done, and by experiment id the number that is to do."""
        if not len(to_do):
            return cls(0.0)
        measured = done.groupby("experiment_id")["duration_s"].agg(["mean", "sum", "size"])
        if not len(measured):
            return cls(None, reason="no run has been measured yet")
        each_s = measured["mean"].reindex(to_do.index)
        unknown = each_s.index[each_s.isna()]
        if len(unknown):
            work = _work(planned)
            known = [key for key in measured.index if work.get(key)]
            if not set(unknown) <= set(work) or not known:
                why = reason or "it is not in the sweep that the directory names"
                return cls(
                    None,
                    reason=f"no run has been measured of {len(unknown)} experiments, and how large "
                    f"they are cannot be told: {why}",
                )
            total_work = sum(work[key] * measured["size"][key] for key in known)
            seconds_per_work = measured.loc[known, "sum"].sum() / total_work
            each_s[unknown] = [work[key] * seconds_per_work for key in unknown]
        return cls(float((each_s * to_do).sum()), float(each_s.max()))
