"""What is to do: rank 0 reads the sweep, looks for what is done, and lists what is missing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import minibutter
from minibutter import calibration, datasets, store
from minibutter.experiments import Experiment, plan_experiments
from minibutter.experiments.resolved import Resolved
from minibutter.nn import cost
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.network import DTYPES
from minibutter.sweeps import identity
from minibutter.sweeps.sharding import read_shard
from minibutter.sweeps.spec import Sweep, SweepError

MAX_STACKED_BYTES = 2**30
"""A group has a copy of the data set for every repetition; more than this is not packed unasked."""


AUTO = "auto"
MAX_LANES = max(lanes_of(dtype) for dtype in DTYPES)


class Group(NamedTuple):
    """Repetitions of one experiment that a rank trains together, usually one."""

    experiment_id: str
    repetitions: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """What rank 0 decided and every rank knows.

    Attributes
    ----------
    name : of the sweep.
    out : directory of the results.
    experiments : by id; made when they are asked for.
    groups : the runs to do, those that take longest first; but for those of `together`.
    together : runs with slices, which all ranks train together; those that take longest first.
    n_done : runs that stood in the directory already.
    kept : of runs to do that have a checkpoint, by run id: how many epochs they need not do again.
    notes : what was found and mended in the directory.
    """

    name: str
    out: Path
    experiments: Mapping[str, Experiment]
    groups: tuple[Group, ...]
    together: tuple[Group, ...]
    n_done: int
    kept: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def pending(self) -> tuple[tuple[str, int], ...]:
        """(experiment id, repetition) of the runs to do, in the order in which they are begun."""
        groups = (*self.together, *self.groups)
        return tuple((group.experiment_id, r) for group in groups for r in group.repetitions)

    @property
    def total_work(self) -> float:
        """Predicted cost of all that is to do, in microseconds of one rank."""
        return sum(self.work(group) for group in (*self.together, *self.groups))

    def work(self, group: Group, n_epochs: int | None = None) -> float:
        """Predicted cost of a group, or of what it does up to some epoch, in microseconds of a
        rank. What was kept of it costs nothing, and what cannot be run is free.
        """
        if n_epochs is None:
            n_epochs = self.experiments[group.experiment_id].spec.epochs
        return max(n_epochs - self.epochs_kept(group), 0) * self.epoch_us(group)

    def length(self, group: Group) -> float:
        """Predicted cost of all epochs of a group, in microseconds of a rank, also of those that
        were kept: by this order what was begun goes on before its equals are begun."""
        return self.experiments[group.experiment_id].spec.epochs * self.epoch_us(group)

    def part_kept(self, group: Group) -> float:
        """Part of a group's epochs that no repetition needs to do again, from 0 to 1."""
        n_kept = self.epochs_kept(group)
        return n_kept / self.experiments[group.experiment_id].spec.epochs if n_kept else 0.0

    def epoch_us(self, group: Group) -> float:
        """Predicted microseconds of an epoch of a group on a rank."""
        return self.experiments[group.experiment_id].epoch_us(len(group.repetitions))

    def epochs_kept(self, group: Group) -> int:
        """Epochs that no repetition of a group needs to do again."""
        if not self.kept:
            return 0
        run_ids = (identity.run_id(group.experiment_id, number) for number in group.repetitions)
        return min(self.kept.get(run_id, 0) for run_id in run_ids)


def prepare_job(
    sweep: Sweep,
    out: Path | None,
    data_dir: Path | None,
    n_ranks: int = 1,
    lanes: int | str = AUTO,
    gang_size: int = 1,
    shard: str | None = None,
) -> Job:
    """Decide what is to do: plan, make sure that the data are there, look for finished runs.

    Parameters
    ----------
    sweep : what is asked for.
    out : directory of the results; `results/NAME` by default.
    data_dir : where local data sets lie.
    n_ranks : ranks that will do it.
    lanes : repetitions to train together where they can be packed, 1 to 16, or "auto": where the
        estimate of `nn.cost` says that it pays.
    gang_size : ranks that train repetitions of the same experiment at the same time.
    shard : only a part of the runs, see `sweeps.sharding.read_shard`; others do the rest, in the
        same directory, perhaps at this moment.

    Raises
    ------
    SweepError, DatasetError, StoreError
        If the sweep, its data or its directory cannot be used, or `lanes` or `shard` mean nothing.
    """
    lanes = read_lanes(lanes)
    part = read_shard("0/1" if shard is None else shard)
    out = Path("results") / sweep.name if out is None else out
    plan = plan_experiments(sweep, data_dir, calibration.machine_cost_model())
    for reference in plan.values()["dataset"]:
        datasets.ensure_available(reference, data_dir=data_dir)
    lacking = np.flatnonzero(plan.lacks_data)
    if len(lacking):
        experiment = plan[lacking[0]]
        raise SweepError(f"{experiment.spec.dataset} cannot be used: {experiment.problem}")
    document = {"sweep": sweep.document, "minibutter_version": minibutter.__version__}
    # The directory belongs to the whole sweep, of which another part may be chosen the next time.
    notes = store.open_directory(out, sweep.name, plan.requested, document)
    notes += plan.notes
    notes += store.recover(out)
    finished, _ = store.finished_runs(out)
    kept = store.kept_epochs(out)
    experiments = plan.by_id
    asked = {
        key: [r for r in range(count) if part.has(key, r)]
        for key, count in zip(plan.experiment_ids, plan.repetitions.tolist(), strict=True)
    }
    n_asked = sum(map(len, asked.values()))
    if shard is not None:
        notes.append(f"shard {part}: {n_asked} of {plan.repetitions.sum()} runs")
    pending = {
        key: [r for r in repetitions if not _is_done(experiments[key], r, finished)]
        for key, repetitions in asked.items()
    }
    sliced = {}
    if set(plan.values()["slices"]) != {1}:
        sliced = {
            key: pending.pop(key) for key in plan.experiment_ids if experiments[key].spec.slices > 1
        }
    # Several ranks that train a run together keep nothing of it, and find nothing.
    goes_on = pending | sliced if n_ranks == 1 else pending
    job = Job(
        name=sweep.name,
        out=out,
        experiments=experiments,
        groups=_each_alone(pending),
        together=_each_alone(sliced),
        n_done=n_asked - sum(map(len, (*pending.values(), *sliced.values()))),
        kept={run_id: kept[run_id] for run_id in _run_ids(goes_on) if run_id in kept},
        notes=tuple(notes),
    )
    groups = _pack(job, pending, n_ranks, lanes, gang_size)
    # Python's sort is stable: groups of equal cost keep the order of the file.
    return replace(
        job,
        groups=tuple(sorted(groups, key=job.length, reverse=True)),
        together=tuple(sorted(job.together, key=job.length, reverse=True)),
    )


def _each_alone(pending: dict[str, list[int]]) -> tuple[Group, ...]:
    return tuple(Group(key, (r,)) for key, missing in pending.items() for r in missing)


def _run_ids(pending: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Of repetitions of experiments."""
    for key, missing in pending.items():
        yield from (identity.run_id(key, repetition) for repetition in missing)


def read_lanes(lanes: int | str) -> int | None:
    """A number of lanes; None for "auto"."""
    if lanes == AUTO:
        return None
    if str(lanes).isdecimal() and 1 <= int(lanes) <= MAX_LANES:
        return int(lanes)
    raise SweepError(
        f"lanes = {lanes!r}: must be {AUTO} or a whole number from 1, which packs nothing, to "
        f"{MAX_LANES}"
    )


def _pack(
    job: Job,
    pending: dict[str, list[int]],
    n_ranks: int,
    lanes: int | None,
    gang_size: int,
) -> list[Group]:
    """Groups of the missing repetitions of every experiment.

    Only as many ranks are kept busy with one experiment as its part of the work is worth: the
    others have other experiments to train.
    """
    total = sum(map(job.work, job.groups))
    groups = []
    for key, missing in pending.items():
        experiment = job.experiments[key]
        alone = sum(job.work(Group(key, (repetition,))) for repetition in missing)
        ranks = math.ceil(n_ranks * alone / total - 1e-9) if total else 1
        size = group_size(
            experiment, experiment.spec.batch_size, len(missing), max(ranks, gang_size), lanes
        )
        # Repetitions that are not equally far cannot be packed.
        kept = {number: job.epochs_kept(Group(key, (number,))) for number in missing}
        for epochs in sorted(set(kept.values()), reverse=True):
            equals = [number for number in missing if kept[number] == epochs]
            groups += _cut(key, equals, size, gang_size)
    return groups


def _cut(key: str, missing: list[int], size: int, gang_size: int) -> list[Group]:
    """Groups of at most `size` repetitions.

    For a gang, as many as it has ranks are of one size, so that they end together; what is left
    over becomes smaller groups.
    """
    groups = []
    while missing:
        each = min(size, max(len(missing) // gang_size, 1)) if gang_size > 1 else size
        taken, missing = missing[: each * gang_size], missing[each * gang_size :]
        groups += [
            Group(key, tuple(taken[start : start + each])) for start in range(0, len(taken), each)
        ]
    return groups


def group_size(
    planned: Experiment | Resolved,
    batch_size: int,
    n_pending: int,
    n_ranks: int,
    lanes: int | None,
) -> int:
    """How many of the missing repetitions of an experiment to train together.

    Parameters
    ----------
    planned : the experiment, or what many have in common.
    batch_size : as it was asked for.
    n_pending : repetitions that are missing.
    n_ranks : ranks that are to be kept busy with them.
    lanes : the most; None for as many as the estimate says.
    """
    if planned.problem is not None:
        return 1
    if not planned.is_packable:
        return 1
    network = planned.network
    if lanes is not None:
        return min(lanes, cost.max_group_size(network))
    row_bytes = (network.n_inputs + network.n_outputs) * np.dtype(network.dtype).itemsize
    affordable = MAX_STACKED_BYTES // (row_bytes * (planned.n_train + planned.n_test))
    batch_size = min(batch_size, planned.n_train)
    size = cost.choose_group_size(network, batch_size, n_pending, n_ranks, planned.cost_model)
    return max(min(size, affordable), 1)


def _is_done(experiment: Experiment, repetition: int, finished: dict[str, str]) -> bool:
    """Whether a run need not be done again.

    A run that failed although nothing in its specification stands in its way, for want of memory,
    say, is tried again; one that can never succeed is not.
    """
    status = finished.get(identity.run_id(experiment.experiment_id, repetition))
    return status is not None and (status != "failed" or experiment.problem is not None)
