"""The summaries of a directory on the disk, kept up to date.

`.summary.parquet` remembers of every run what the summaries were made from, the shard that it stood
in, and the sizes and times of the shard's two files. A shard whose files are as they were is not
opened again, and the epochs are read only of experiments whose runs have changed. After a
compaction the runs are the same and stand in other shards: no epoch is read. But files that have
changed under the same name were damaged, mended or copied, and all that they hold counts as new.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from minibutter.store.files import StoreError, remedy, replacing
from minibutter.store.generations import turn
from minibutter.store.parquet import SCHEMAS
from minibutter.store.schema import RUNS_SCHEMA
from minibutter.store.shards import Shard, visible_shards
from minibutter.store.summary import (
    EPOCH_COLUMNS,
    RUN_COLUMNS,
    summarize_by_epoch,
    summarize_epochs,
    summarize_experiments,
)
from minibutter.store.tables import (
    all_runs,
    best_of_each,
    epochs_of,
    frame_of,
    is_gone,
    refuse_nothing,
    require_results,
)

_VERSION = 1
"""Raised when a statistic changes its meaning under the same name."""

_SUMMARIES = {
    "experiments": summarize_experiments,
    "epochs": summarize_epochs,
    "by_epoch": summarize_by_epoch,
}
_READ = (*RUN_COLUMNS, "epochs_completed", "started_at")
_REMEMBERED = pa.schema(
    [
        *(RUNS_SCHEMA.field(name) for name in _READ),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("files", pa.string()),
    ]
)
_ORDER = {
    "experiments": ["experiment_id"],
    "epochs": ["experiment_id", "epoch"],
    "by_epoch": ["experiment_id", "epoch"],
}
_KEY = ["run_id", "experiment_id", "status", "started_at"]

_MASKED_DTYPES = ("Int32", "Int64", "Float64", "boolean")
_MAX_EPOCHS = 2_000_000
"""Rows of `epochs` that are in memory at a time."""


def write_summary(directory: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summarise a sweep into `summary/experiments.parquet`, `epochs.parquet`, `by_epoch.parquet`.

    Parameters
    ----------
    directory : directory of the sweep.

    Returns
    -------
    experiments, epochs : pandas.DataFrame
        As `summarize_experiments` and `summarize_epochs` return them, with `attrs["problems"]`, a
        list of the shards that were left out and why.

    Raises
    ------
    StoreError
        If nothing is stored there, or the summary cannot be written.
    """
    directory = Path(directory)
    require_results(directory)
    # Whoever is the last to have this has looked for shards when all others had closed theirs.
    with turn(directory):
        while (frames := _write_summary(directory)) is None:
            pass  # Files were replaced while they were read: other names, the same runs.
    return frames


def _write_summary(directory: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """None if a shard was replaced between the listing and the reading."""
    shards = visible_shards(directory)
    # Before a shard is read: a file that changes in between counts as changed the next time.
    files = {shard.name: _files(shard) for shard in shards}
    before = _read_memory(directory)
    is_unchanged = before["files"] == before["shard"].map(files)
    known = before[is_unchanged]
    names = set(known["shard"])
    rows, ignored = all_runs(directory, [s for s in shards if s.name not in names], _READ)
    if is_gone(directory, ignored):
        return None
    rows["files"] = rows["shard"].map(files)
    if len(known):
        rows = pd.concat([known, rows], ignore_index=True) if len(rows) else known
    problems = list(ignored.values())
    refuse_nothing(directory, rows, problems)

    runs = best_of_each(rows)
    stored = _read_summaries(directory) if len(before) else None
    in_place = before.loc[~is_unchanged & before["shard"].isin(list(files)), "experiment_id"]
    changed = _changed_experiments(best_of_each(before), runs).union(in_place.unique())
    if stored and not len(changed):
        summaries = stored
    else:
        summaries, damaged = _summarize(directory, runs, stored, changed)
        if is_gone(directory, damaged):
            return None
        problems += damaged.values()
        # What could not be read is not remembered, and asked for again the next time.
        rows = rows[~rows["shard"].isin(damaged)]
    if summaries is not stored or len(rows) != len(before) or len(known) < len(before):
        _write(directory, summaries, rows)
    frames = [_frame(summaries[name]) for name in ("experiments", "epochs")]
    for frame in frames:
        frame.attrs["problems"] = problems
    return frames[0], frames[1]


def _files(shard: Shard) -> str | None:
    """Sizes and times of the two files of a shard; None, which equals nothing, without a pair."""
    try:
        states = [shard.closed(table).stat() for table in SCHEMAS]
    except OSError:
        return None
    return " ".join(f"{state.st_size}:{state.st_mtime_ns}" for state in states)


def _changed_experiments(before: pd.DataFrame, now: pd.DataFrame) -> pd.Index:
    """Ids of experiments that have other runs than before, by whatever attempt at a run counts."""
    both = before[_KEY].merge(now[_KEY], how="outer", indicator=True)
    return pd.Index(both.loc[both["_merge"] != "both", "experiment_id"].unique())


def _summarize(
    directory: Path,
    runs: pd.DataFrame,
    stored: dict[str, pa.Table] | None,
    changed: pd.Index,
) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """All summaries, of which the experiments that have not changed are taken from `stored`; and
    by the names of shards whose epochs could not be read the reason."""
    to_do = runs if stored is None else runs[runs["experiment_id"].isin(changed)]
    n_epochs = to_do.groupby("experiment_id")["epochs_completed"].sum()
    batch = (n_epochs.cumsum() - n_epochs) // _MAX_EPOCHS
    parts: dict[str, list[pa.Table]] = {name: [] for name in _SUMMARIES}
    damaged: dict[str, str] = {}
    if stored is not None:
        gone = pa.array([*changed], pa.string())
        for name, table in stored.items():
            parts[name].append(table.filter(pc.invert(pc.is_in(table["experiment_id"], gone))))
    for _, experiments in batch.groupby(batch):
        some = to_do[to_do["experiment_id"].isin(experiments.index)].reset_index(drop=True)
        table, problems = epochs_of(directory, some, EPOCH_COLUMNS)
        damaged |= problems
        epochs = frame_of(table)
        for name, summarize in _SUMMARIES.items():
            parts[name].append(_table(summarize(some, epochs)))
    return {
        name: pa.concat_tables(tables, promote_options="permissive").sort_by(
            [(key, "ascending") for key in _ORDER[name]]
        )
        for name, tables in parts.items()
    }, damaged


def _signature() -> bytes:
    """Changes with the columns of the summaries and of what is remembered."""
    runs = frame_of(_REMEMBERED.empty_table())
    epochs = pd.DataFrame({name: [] for name in ("run_id", "epoch", *EPOCH_COLUMNS)})
    columns = [list(summarize(runs, epochs)) for summarize in _SUMMARIES.values()]
    text = repr([_VERSION, columns, _REMEMBERED.to_string()])
    return hashlib.sha256(text.encode()).hexdigest().encode()


def _read_memory(directory: Path) -> pd.DataFrame:
    nothing = frame_of(_REMEMBERED.empty_table())
    try:
        table = pq.read_table(directory / ".summary.parquet")
    except (OSError, pa.ArrowException):
        return nothing
    if (table.schema.metadata or {}).get(b"signature") != _signature():
        return nothing
    return frame_of(table.cast(_REMEMBERED))


def _read_summaries(directory: Path) -> dict[str, pa.Table] | None:
    try:
        return {
            name: pq.read_table(directory / "summary" / f"{name}.parquet") for name in _SUMMARIES
        }
    except (OSError, pa.ArrowException):
        return None


def _write(directory: Path, summaries: dict[str, pa.Table], rows: pd.DataFrame) -> None:
    folder = directory / "summary"
    memory = pa.Table.from_pandas(rows, _REMEMBERED, preserve_index=False)
    memory = memory.replace_schema_metadata({"signature": _signature()})
    try:
        folder.mkdir(exist_ok=True)
        # The memory goes last: what it does not know of is summarised again.
        for name, table in summaries.items():
            _replace(folder / f"{name}.parquet", table)
        _replace(directory / ".summary.parquet", memory)
    except OSError as error:
        raise StoreError(
            f"{folder} cannot take the summary ({error.strerror or error}); {remedy(error)}, or "
            "copy the results to a folder that is writable"
        ) from error


def _replace(path: Path, table: pa.Table) -> None:
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def _table(frame: pd.DataFrame) -> pa.Table:
    # Column by column, because a frame as a whole would have its NaN turned into null.
    arrays, fields = [], []
    for name, column in frame.items():
        array = pa.array(column.to_numpy() if column.dtype == np.float64 else column)
        if pa.types.is_large_string(array.type):
            array = array.cast(pa.string())
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"dtype": str(column.dtype)}))
    return pa.table(arrays, pa.schema(fields))


def _frame(table: pa.Table) -> pd.DataFrame:
    """As the frame was that became this table: masked columns are masked again."""
    dtypes = {field.name: field.metadata[b"dtype"].decode() for field in table.schema}
    masked = {name: dtype for name, dtype in dtypes.items() if dtype in _MASKED_DTYPES}
    frame = table.drop_columns(list(masked)).to_pandas()
    for name, dtype in masked.items():
        frame[name] = table[name].to_pandas(
            types_mapper=lambda _, d=dtype: pd.api.types.pandas_dtype(d)
        )
    return frame[table.column_names]
