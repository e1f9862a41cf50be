"""Results in the formats of others: the BUTTER data set, and CSV."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from minibutter.store import butter
from minibutter.store.files import StoreError, remedy
from minibutter.store.schema import EPOCHS_SCHEMA, RUNS_SCHEMA
from minibutter.store.tables import epoch_rows, frame_of, read_runs, run_rows

_MAX_EPOCHS = 2_000_000
"""Rows of `epochs` that are in memory at a time."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    n_runs, n_experiments : in it. n_left_out : runs that are not, because they failed or cannot be
        read.
    paths : files or folders in the target.
    problems : shards that were left out.
    """

    n_runs: int
    n_experiments: int
    n_left_out: int
    paths: list[Path]
    problems: list[str]


def export(directory: str | Path, out: str | Path, format_: str) -> Export:
    """Write all results of a directory in another format.

    Parameters
    ----------
    directory : directory of a sweep.
    out : folder to create; it appears when all is written.
    format_ : "butter": the folders of the published data set, without failed runs; "csv":
        `runs.csv` and `epochs.csv`, with all columns, null empty and widths as 17-17-7.

    Raises
    ------
    StoreError
        If nothing is stored there, `out` exists or cannot be written, the format is unknown, or a
        number does not fit into it.
    """
    directory, out = Path(directory), Path(out)
    if format_ not in FORMATS:
        raise StoreError(f"format {format_!r}: must be one of {', '.join(FORMATS)}")
    runs = read_runs(directory)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} exists; give a folder that does not, or an empty one")
    hidden = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        hidden.mkdir(parents=True)
        names, exported, problems = FORMATS[format_](directory, runs, hidden)
        hidden.replace(out)
    except OSError as error:
        raise StoreError(
            f"{out} cannot take the export ({error.strerror}); {remedy(error)}"
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return Export(
        n_runs=len(exported),
        n_experiments=exported["experiment_id"].nunique(),
        n_left_out=len(runs) - len(exported),
        paths=[out / name for name in names],
        problems=list(dict.fromkeys([*runs.attrs["problems"], *problems])),
    )


_Written = tuple[list[str], pd.DataFrame, list[str]]
"""Names in the target, rows of `runs` that are in it, shards that were left out."""


def _export_butter(directory: Path, runs: pd.DataFrame, target: Path) -> _Written:
    trained = runs[runs["status"] != "failed"]
    if not len(trained):
        raise StoreError(f"{directory} holds no run that did not fail: there is nothing to export")
    problems: list[str] = []
    exported = []

    def parts() -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        for some, epochs in _in_parts(directory, trained, butter.EPOCH_COLUMNS, problems):
            rows = frame_of(epochs)
            exported.append(some[some["run_id"].isin(rows["run_id"])].reset_index(drop=True))
            yield exported[-1], rows

    names = butter.write_butter(trained["experiment_id"].unique(), parts(), target)
    return names, pd.concat(exported), problems


def _export_csv(directory: Path, runs: pd.DataFrame, target: Path) -> _Written:
    rows, problems = run_rows(directory, RUNS_SCHEMA.names, runs["run_id"])
    place = rows.column_names.index("widths")
    widths = ["-".join(map(str, each)) if each else None for each in rows["widths"].to_pylist()]
    rows = rows.set_column(place, "widths", pa.array(widths, pa.string()))
    csv.write_csv(rows, target / "runs.csv")
    with csv.CSVWriter(target / "epochs.csv", EPOCHS_SCHEMA) as writer:
        for _, epochs in _in_parts(directory, runs, EPOCHS_SCHEMA.names, problems):
            writer.write_table(epochs)
    return ["runs.csv", "epochs.csv"], runs, problems


FORMATS: dict[str, Callable[[Path, pd.DataFrame, Path], _Written]] = {
    "butter": _export_butter,
    "csv": _export_csv,
}


def _in_parts(
    directory: Path, runs: pd.DataFrame, columns: Sequence[str], problems: list[str]
) -> Iterator[tuple[pd.DataFrame, pa.Table]]:
    """Whole experiments with their epochs, so many at a time as fit into memory."""
    n_epochs = runs.groupby("experiment_id")["epochs_completed"].sum()
    part = (n_epochs.cumsum() - n_epochs) // _MAX_EPOCHS
    for _, experiments in part.groupby(part):
        some = runs[runs["experiment_id"].isin(experiments.index)].reset_index(drop=True)
        epochs, faults = epoch_rows(directory, columns, some["run_id"])
        problems += faults
        yield some, epochs
