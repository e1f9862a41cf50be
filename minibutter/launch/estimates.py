"""Predictions of a job's groups, corrected by the runs that have ended, in this job or before.

What the groups are predicted to take comes from the rates of `nn.cost`; `sweeps.correction` finds
by how much they are off here. The corrections change who does what when, and no number of a run.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minibutter import store
from minibutter.launch.job import Group, Job
from minibutter.nn import cost
from minibutter.provenance import read_cpu_model
from minibutter.sweeps.correction import Correction, FinishedRuns

_STORED = ("experiment_id", "status", "lanes", "duration_s", "epochs_completed", "cpu_model")


class Estimates:
    """What each group of a job is predicted to take.

    Groups of an experiment that are trained alone, or packed, are of one class.

    Parameters
    ----------
    job : whose groups; those that cannot be run are predicted to take no time.

    Attributes
    ----------
    cost_s : float64, shape (n_groups,): seconds of each group on one rank, as corrected last, also
        of the epochs that were kept.
    n_runs : groups that the corrections were learned from.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first_s = np.array([job.length(group) / 1e6 for group in job.groups])
        self.cost_s, self.n_runs = self._first_s, 0
        numbers: dict[tuple[str, bool], int] = {}
        self._classes = np.array(
            [numbers.setdefault(_class_of(group), len(numbers)) for group in job.groups], np.int64
        )
        self._numbers = numbers
        predicted_s = np.ones(len(numbers))
        predicted_s[self._classes] = np.maximum(self._first_s, 1e-9)
        self._finished = FinishedRuns(self._shares(), predicted_s)

    def _shares(self) -> np.ndarray:
        """Parts of each class's prediction, float32 of shape (n_classes, n_parts)."""
        parts = 2 * len(cost.Rates._fields)
        shares = np.zeros((len(self._numbers), parts), np.float32)
        known: dict[tuple[Any, ...], np.ndarray] = {}
        for (experiment_id, is_packed), number in self._numbers.items():
            planned = self._job.experiments[experiment_id]
            if planned.problem is not None:
                continue
            asked = planned.network, min(planned.spec.batch_size, planned.n_train), 1 + is_packed
            if asked not in known:
                known[asked] = cost.step_shares(*asked, planned.cost_model)
            shares[number] = known[asked]
        return shares

    def add(self, task: int, measured_s: float) -> None:
        """A group, by its number in the job, took so long; see `measured_s`."""
        self._finished.add(int(self._classes[task]), measured_s)

    def add_stored(self) -> None:
        """Learn from the runs that stand in the directory and were done on such a processor."""
        if not self._job.n_done or not self._job.groups:
            return
        runs = store.read_runs(self._job.out, list(_STORED))
        is_told = (runs["status"] != "failed") & (runs["cpu_model"] == read_cpu_model())
        runs = runs[is_told]
        for run in runs.to_dict("records"):
            key = run["experiment_id"], bool(run["lanes"] > 1)
            if key in self._numbers:
                epochs = self._job.experiments[run["experiment_id"]].spec.epochs
                self._finished.add(self._numbers[key], measured_s([run], epochs))

    def correct(self) -> Correction:
        """Bring `cost_s` up to date with what was added."""
        correction = self._finished.correct()
        self.cost_s = self._first_s * correction.factors[self._classes]
        self.n_runs = correction.n_runs
        return correction


def measured_s(runs: Sequence[Mapping[str, Any]], epochs: int) -> float:
    """Seconds that a group takes for all epochs that it was asked for, by what it took for those
    that it did; NaN where a run failed or none ended.

    Parameters
    ----------
    runs : columns of the `runs` table, of repetitions that were trained together.
    epochs : that were asked for.
    """
    if not runs or any(run["status"] == "failed" or not run["epochs_completed"] for run in runs):
        return math.nan
    # Those that stopped early had their share of the shorter time; a group is as long as the last.
    return max(run["duration_s"] * run["lanes"] / run["epochs_completed"] for run in runs) * epochs


def _class_of(group: Group) -> tuple[str, bool]:
    return group.experiment_id, len(group.repetitions) > 1
