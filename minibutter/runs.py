"""One run, from its experiment to its rows: the only place where all rooms meet.

`execute_group` trains repetitions of an experiment (`experiments`) and returns what the store
keeps. No MPI here, no printing: the same call serves one process and a thousand ranks.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minibutter import hierarchy, store
from minibutter.courses import Course, Ending, RunResult, failed_outcome
from minibutter.energy import RegionMeter
from minibutter.energy.counters import EpochCounts, HardwareCounters, counters_of_this_thread
from minibutter.energy.environment import recent_environment
from minibutter.energy.flush import CacheFlusher
from minibutter.epoch_columns import EpochColumns
from minibutter.experiments import Experiment
from minibutter.nn.groups import EpochRow, TrainingGroup
from minibutter.nn.partners import ALONE, Partners
from minibutter.nn.starts import Start
from minibutter.preparation import (
    FORESEEN,
    all_or_none,
    find_data,
    make_adaptive_batch,
    make_groups,
    prepare,
)
from minibutter.provenance import Provenance
from minibutter.run_columns import identity_columns, used_sizes
from minibutter.saving import CHECKPOINT_S, Saver


def execute(experiment: Experiment, repetition: int, **options: Any) -> RunResult:
    """Train one repetition to its end: a group of one, with the options of `execute_group`."""
    return execute_group(experiment, [repetition], **options)[0]


def execute_group(
    experiment: Experiment,
    repetitions: Sequence[int],
    *,
    meter: RegionMeter,
    provenance: Provenance,
    sweep: str,
    counters: HardwareCounters | None = None,
    data_dir: Path | None = None,
    rank: int = 0,
    n_ranks: int = 1,
    partners: Partners = ALONE,
    on_ready: Callable[[], None] = lambda: None,
    on_epoch: Callable[[int, EpochRow], None] | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    should_stop: Callable[[float], bool] = lambda epoch_s: False,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[RunResult]:
    """Train repetitions together to their ends; what their user can mend becomes a failed result.

    Every repetition gets the bits that it would get alone; of the group's durations and energies it
    gets an equal share. One that cannot be prepared fails for itself, and repetitions that cannot
    be packed are trained one by one. Those that have a checkpoint go on from there, together where
    they have done equally many epochs.

    Parameters
    ----------
    experiment : from `plan_experiments`.
    repetitions : numbers, from 0; no more than fit the lanes (`nn.cost.max_group_size`) are packed.
    meter : read around every epoch.
    provenance : of this process.
    sweep : name, for the record.
    counters : read around every epoch; by default those of this thread, opened once.
    data_dir : where local data sets lie.
    rank, n_ranks : for the record; they do not change a number.
    partners : ranks that share out the slices of every batch, where the experiment has any; all of
        them call this, and each result holds what its own rank has measured.
    on_ready : called when all is prepared, before the first epoch; again before that of the next,
        where repetitions are trained one by one.
    on_epoch : called after every epoch with its number, from 1, and the row of the first repetition
        that has not stopped.
    checkpoint_dir : directory of the sweep, for checkpoints; None: there are none.
    checkpoint_s : between two of them.
    should_stop : asked before every epoch, with the seconds that it is going to take; once it says
        so, what was trained is kept, and all that have not ended are interrupted. Progress of less
        than half a second is not worth a checkpoint.
    on_note : called with what people should know: a checkpoint that cannot be used or written.

    Returns
    -------
    A result for every repetition, in their order.

    Raises
    ------
    Exception
        Whatever is not foreseen: a bug of ours must not look like a result.
    """
    origin = {"started_at": datetime.now(UTC), "rank": rank, "n_ranks": n_ranks}
    origin |= provenance.columns() | recent_environment().columns()
    origin |= {"schema_version": store.SCHEMA_VERSION, "package": meter.package}
    origin |= {"energy_reader_rank": meter.reader_rank, "ranks_together": partners.size}
    known = {
        repetition: identity_columns(experiment, repetition, sweep) | origin
        for repetition in repetitions
    }
    saver = Saver(checkpoint_dir, checkpoint_s, provenance, on_note)
    starts: dict[int, Start] = {}
    courses: dict[int, Course] = {}
    results: dict[int, RunResult] = {}
    for repetition in repetitions:
        try:
            with all_or_none(partners):
                dataset = find_data(experiment, data_dir)
                start = prepare(experiment, repetition, dataset)
                run_id = known[repetition]["run_id"]
                resumed = saver.resume(run_id, start)
            starts[repetition], courses[repetition] = resumed
        except FORESEEN as error:
            results[repetition] = _failed(known[repetition], error)
    for members, group in make_groups(experiment, starts, partners):
        if isinstance(group, Exception):
            results |= {repetition: _failed(known[repetition], group) for repetition in members}
            continue
        used = {"data_source": dataset.source, "data_sha256": dataset.sha256}
        used |= {"lanes": len(members), **used_sizes(experiment.network)}
        traffic: dict[str, float | None] = {}
        # The model knows the steps of one rank that measures nothing besides.
        is_modelled = experiment.spec.slices == 1 and not experiment.spec.measure
        if len(members) == 1 and is_modelled:
            traffic = hierarchy.traffic_columns(experiment.workload, experiment.spec.cache_state)
        try:
            with all_or_none(partners):
                is_cold = experiment.spec.cache_state == "cold"
                flusher = CacheFlusher(hierarchy.flushed_bytes()) if is_cold else None
        except FORESEEN as error:
            results |= {repetition: _failed(known[repetition], error) for repetition in members}
            continue
        counts = EpochCounts(counters or counters_of_this_thread(), len(members))
        going = [courses.pop(repetition) for repetition in members]
        watched = on_ready, on_epoch, saver, should_stop
        _train(experiment, group, going, flusher, traffic, meter, counts, *watched)
        for repetition, course in zip(members, going, strict=True):
            run = known[repetition] | used | traffic | course.outcome
            results[repetition] = RunResult(run, course.columns.columns(), course)
    return [results[repetition] for repetition in repetitions]


def _train(
    experiment: Experiment,
    group: TrainingGroup,
    courses: list[Course],
    flusher: CacheFlusher | None,
    traffic: dict[str, float | None],
    meter: RegionMeter,
    counts: EpochCounts,
    on_ready: Callable[[], None],
    on_epoch: Callable[[int, EpochRow], None] | None,
    saver: Saver,
    should_stop: Callable[[float], bool],
) -> None:
    """Train a group until its epochs are over, all its repetitions have stopped, or it must stop.

    `courses` are those of its repetitions. `flusher` empties the caches before every epoch.
    `traffic` is what an epoch moves, as far as it is known: simulated counters are told.
    """
    spec, n_repetitions = experiment.spec, len(courses)
    flops = experiment.flops_per_epoch * n_repetitions * group.share
    moved = {hierarchy.level_of(column): n for column, n in traffic.items() if n is not None}
    on_ready()
    cost_before, started_ns, started_s = meter.cost, meter.begin(), time.perf_counter()
    regions: list[tuple[int, int]] = []
    epoch_duration_s = experiment.epoch_us(n_repetitions) / 1e6 * group.share

    def measure() -> Ending:
        duration_s, ended_ns = time.perf_counter() - started_s, meter.end()
        return Ending(
            duration_s=duration_s / n_repetitions,
            begun_ns=started_ns,
            ended_ns=ended_ns,
            energy=meter.between(started_ns, ended_ns).divided(n_repetitions),
            # Short epochs share windows with their neighbours: all are asked for at once.
            energies=[each.divided(n_repetitions) for each in meter.along(regions)],
            mode=meter.mode,
            foreign_load=meter.foreign_load(started_ns, ended_ns),
            cost=meter.cost - cost_before,
            counts=counts,
            regions=tuple(regions),
        )

    batch = make_adaptive_batch(experiment)
    saver.begin()
    for epoch in range(group.epochs + 1, spec.epochs + 1):
        stops = should_stop(epoch_duration_s)
        is_due = bool(regions) and saver.is_due(is_last=stops)
        if stops or is_due:
            ending = measure()
        if is_due:
            saver.save(group, courses, ending, is_last=stops)
        if stops:
            for course in courses:
                if course.outcome is None:
                    course.interrupt(ending)
            break
        if flusher is not None:
            flusher.flush()
        if batch is not None:
            batch.follow(courses[0].columns.noise)
            group.batch_size = batch.size
        before_ns = meter.stamp()
        counts.begin()
        begun_s = time.perf_counter()
        with meter.working(flops, moved, epoch_duration_s):
            rows = group.run_epoch()
        epoch_duration_s = time.perf_counter() - begun_s
        counts.end()
        regions.append((before_ns, meter.stamp()))
        share_s = epoch_duration_s / n_repetitions
        going = [(c, row) for c, row in zip(courses, rows, strict=True) if c.outcome is None]
        for course, row in going:
            course.add(epoch, row, share_s)
        if on_epoch is not None:
            on_epoch(epoch, going[0][1])
        over = [course for course, _ in going if course.is_over(spec)]
        if over:
            ending = measure()
            for course in over:
                course.end(spec, ending)
        if len(over) == len(going):
            break


def _failed(run: dict[str, Any], error: Exception) -> RunResult:
    return RunResult(run | failed_outcome(error), EpochColumns().columns())
