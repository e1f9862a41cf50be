"""Doing a study: rank 0 leads it from stage to stage, all ranks measure and train.

Whatever has been finished lies on the disk: measurements each in a file of its own, runs in the
shards of their sweep. The same command goes on from there, whenever and however it was stopped.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from threadpoolctl import threadpool_limits

import minibutter
from minibutter import store
from minibutter.datasets import DatasetError, canonical_reference
from minibutter.experiments import CHECKS
from minibutter.launch.concluding import Origins, StudyOutcome, conclude
from minibutter.launch.dealing import deal_pieces
from minibutter.launch.ranks import Alone, LaunchRefused, Team, find_ranks, refuse_lonely_tasks
from minibutter.launch.stopping import Stopping, read_limit
from minibutter.launch.sweep import Reporter, run_sweep
from minibutter.provenance import read_provenance
from minibutter.studies.catalogue import StudyError
from minibutter.studies.data import describe_data
from minibutter.studies.study import (
    Conclusion,
    Course,
    Measurement,
    Measurements,
    Settings,
    Study,
    SweepResults,
    SweepStage,
)
from minibutter.sweeps.spec import SweepError, parse_sweep
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP


class StudyReporter(Protocol):
    """What shows a study to a person; called on rank 0 only."""

    def sweep_reporter(self) -> Reporter:
        """Who shows a stage of runs."""

    def begin(self, stage: Measurements | SweepStage, n_done: int, n_ranks: int) -> None:
        """Before a stage; `n_done` of its measurements are there already."""

    def measured(self, n_done: int, n_pieces: int) -> None:
        """Rank 0 has finished a piece; so many of the stage are known to be done."""

    def end(self, stage: Measurements | SweepStage, duration_s: float) -> None:
        """After a stage."""


def run_study(
    study: Study, settings: Settings, out: Path, reporter: StudyReporter
) -> StudyOutcome | int:
    """Do what is missing of a study, on all ranks of this launch, and conclude.

    Parameters
    ----------
    out : directory of measurements, sweeps, tables, figures and the verdict; `study.json` in it
        says whose they are. What another version has measured is measured again.

    Returns
    -------
    The outcome on rank 0, its exit code 0 on the others; 75 on all of them if a signal came first,
    or the exit code of a sweep whose runs failed.

    Raises
    ------
    LaunchRefused
        On all ranks, if the study cannot be done as asked.
    """
    ranks = find_ranks()
    if isinstance(ranks, Alone):
        refuse_lonely_tasks()
    started_s = time.perf_counter()
    course = _course(study, settings, out) if ranks.rank == 0 else None
    results: Any = None
    origins = Origins()
    try:
        while True:
            step: Any = None
            if course is not None:
                try:
                    step = course.send(results)
                except StopIteration as stop:
                    step = stop.value
                except (StudyError, DatasetError, SweepError, store.StoreError) as error:
                    step = LaunchRefused(str(error))
            # The conclusion holds functions and tables that only rank 0 needs.
            told = ranks.broadcast(None if isinstance(step, Conclusion) else step)
            if isinstance(told, LaunchRefused):
                raise told if ranks.rank == 0 else LaunchRefused()
            if told is None:
                break
            stage_started_s = time.perf_counter()
            if isinstance(told, SweepStage):
                results = _run_stage(told, settings, out, reporter, ranks)
            else:
                results = _measure_stage(told, settings, out, reporter, ranks, origins)
            if isinstance(results, int):
                return results
            if ranks.rank == 0:
                reporter.end(told, time.perf_counter() - stage_started_s)
        if ranks.rank != 0:
            ranks.part()
            return 0
        duration_s = time.perf_counter() - started_s
        outcome = conclude(study, settings, out, step, duration_s, origins)
        ranks.part()
        return outcome
    except LaunchRefused:
        raise
    except BaseException as cause:
        ranks.abort(cause)
        raise


def _course(study: Study, settings: Settings, out: Path) -> Course:
    """The stages, if the data are there and the directory is for this study.

    The directory is claimed with the first stage: a study that is refused before leaves no trace.
    """
    info = describe_data(settings.dataset, settings.data_dir)
    about = {
        "study": study.name,
        "scale": settings.scale,
        "dataset": canonical_reference(settings.dataset),
        "digest": info.digest,
        "seed": settings.seed,
    }
    course, results = study.course(settings), None
    try:
        while True:
            stage = course.send(results)
            if results is None:
                store.claim_study_folder(out, about)
            results = yield stage
    except StopIteration as stop:
        return stop.value


def _run_stage(
    stage: SweepStage, settings: Settings, out: Path, reporter: StudyReporter, ranks: Alone | Team
) -> SweepResults | int | None:
    folder = out / "sweeps" / stage.name
    if ranks.rank == 0:
        reporter.begin(stage, 0, ranks.size)
    outcome = run_sweep(
        lambda: parse_sweep({"name": stage.name, **stage.document}, stage.name, CHECKS),
        reporter=reporter.sweep_reporter(),
        out=folder,
        data_dir=settings.data_dir,
    )
    code = outcome if isinstance(outcome, int) else outcome.exit_code
    if code:
        return code
    if ranks.rank != 0:
        return None
    return SweepResults(store.read_runs(folder), store.read_epochs(folder))


def _measure_stage(
    stage: Measurements,
    settings: Settings,
    out: Path,
    reporter: StudyReporter,
    ranks: Alone | Team,
    origins: Origins,
) -> pd.DataFrame | int | None:
    folder = out / "measurements" / stage.name
    known: dict[str, pd.DataFrame] = {}
    missing: list[int] = []
    if ranks.rank == 0:
        for number, piece in enumerate(stage.pieces):
            found = store.read_measurement(folder / f"{piece.id}.parquet")
            if found is None or not _is_of_this_version(found[1]):
                missing.append(number)
            else:
                known[piece.id] = found[0]
                origins.add(found[1])
        missing.sort(key=lambda number: -stage.pieces[number].predicted_s)
        reporter.begin(stage, len(known), ranks.size)
    missing = ranks.broadcast(missing)
    n_measured, is_stopped = 0, False
    with Stopping(read_limit(None)) as stopping, threadpool_limits(1):
        for number in deal_pieces(missing, ranks):
            # Who is to end takes what is dealt and leaves it, so that nobody waits for an answer.
            is_stopped = is_stopped or stopping.is_asked
            if is_stopped:
                continue
            piece = stage.pieces[number]
            _measure(piece, settings, folder / f"{piece.id}.parquet")
            n_measured += 1
            if ranks.rank == 0:
                reporter.measured(len(known) + n_measured * ranks.size, len(stage.pieces))
        is_stopped = is_stopped or stopping.is_asked
    if any(ranks.everybody.meet(is_stopped)):
        return EXIT_TIME_IS_UP
    if ranks.rank != 0:
        return None
    for number in missing:
        piece = stage.pieces[number]
        path = folder / f"{piece.id}.parquet"
        found = store.read_measurement(path)
        if found is None:
            raise store.StoreError(f"{path} was written a moment ago and cannot be read")
        known[piece.id] = found[0]
        origins.add(found[1])
    if not stage.pieces:
        return pd.DataFrame()
    return pd.concat(
        [_with_arguments(known[piece.id], piece) for piece in stage.pieces], ignore_index=True
    )


def _is_of_this_version(about: Mapping[str, Any]) -> bool:
    """Whether a piece is what this version would measure; others may lack a column, or be wrong."""
    return about.get("provenance", {}).get("minibutter_version") == minibutter.__version__


def _measure(piece: Measurement, settings: Settings, path: Path) -> None:
    started_s = time.perf_counter()
    table = piece.function(data_dir=settings.data_dir, **piece.arguments)
    about = {
        "function": f"{piece.function.__module__}.{piece.function.__qualname__}",
        "arguments": dict(piece.arguments),
        "duration_s": time.perf_counter() - started_s,
        "provenance": read_provenance().columns(),
    }
    store.write_measurement(path, table, about)


def _with_arguments(table: pd.DataFrame, piece: Measurement) -> pd.DataFrame:
    """The table with its plain arguments as columns, before its own."""
    added = {
        name: value
        for name, value in piece.arguments.items()
        if name not in table and not isinstance(value, list | tuple | Mapping)
    }
    return table.assign(**added)[[*added, *table.columns]]
