"""The two tables of a sweep's directory as pandas frames.

`pandas.read_parquet(directory / "epochs")` works as well; the readers here add three things: each
run appears once even if two processes have done it, an epoch never appears without its run, and a
damaged shard costs its own runs only. What was left out is listed in `frame.attrs["problems"]`.

In a frame, nullable integers and flags have pandas' masked types. Floats are NumPy's, so null reads
as NaN there: `energy_reason` and `evaluate_train` tell a missing value from a diverged one.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from minibutter.store.files import OtherVersion, StoreError
from minibutter.store.manifest import MANIFEST
from minibutter.store.parquet import SCHEMAS, read_pair, read_shard
from minibutter.store.schema import EPOCHS_SCHEMA, RUNS_SCHEMA, STATUSES
from minibutter.store.shards import Shard, visible_shards

_MASKED_TYPES = {
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}

_MAX_SLICES = 2000
"""Cutting a table into more slices than this takes longer than picking its rows one by one."""


def finished_runs(directory: str | Path) -> tuple[dict[str, str], list[str]]:
    """Which runs need not be run again.

    Parameters
    ----------
    directory : directory of a sweep; nothing is finished in one that does not exist.

    Returns
    -------
    statuses : dict
        For every run in a closed shard its status: "completed", "stopped" or "failed".
    problems : list of str
        Shards that were ignored, one sentence each.

    Raises
    ------
    StoreError
        If a shard was written by another schema version: its runs are done, but which they are
        cannot be read.
    """
    runs, problems = _closed_runs(Path(directory), ["run_id", "status"], (OtherVersion,))
    return dict(zip(runs["run_id"], runs["status"], strict=True)), problems


def read_runs(directory: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """One row a run, ordered by `run_id`.

    Parameters
    ----------
    directory : directory of a sweep.
    columns : names from `RUNS_SCHEMA`; all by default.

    Returns
    -------
    pandas.DataFrame
        With `attrs["problems"]`, a list of the shards that were left out and why.

    Raises
    ------
    StoreError
        If nothing is stored there.
    ValueError
        If a column is unknown.
    """
    columns = _known_columns(columns, "runs")
    runs, problems = _stored_runs(Path(directory), columns)
    return _with_problems(runs[columns], problems)


def read_epochs(
    directory: str | Path,
    columns: Sequence[str] | None = None,
    run_ids: Iterable[str] | None = None,
) -> pd.DataFrame:
    """One row an epoch, ordered by `run_id` and `epoch`.

    Parameters
    ----------
    directory : directory of a sweep.
    columns : names from `EPOCHS_SCHEMA`; all by default.
    run_ids : runs to read; all by default.

    Returns
    -------
    pandas.DataFrame
        With `attrs["problems"]`, a list of the shards that were left out and why.

    Raises
    ------
    StoreError
        If nothing is stored there.
    ValueError
        If a column is unknown.
    """
    columns = _known_columns(columns, "epochs")
    epochs, problems = epoch_rows(Path(directory), columns, run_ids)
    return _with_problems(frame_of(epochs.select(columns)), problems)


def epoch_rows(
    directory: Path, columns: Sequence[str], run_ids: Iterable[str] | None = None
) -> tuple[pa.Table, list[str]]:
    """As `read_epochs`, but an Arrow table, which has `run_id` and `epoch` in any case."""
    runs, problems = _stored_runs(directory, ["run_id"])
    if run_ids is not None:
        runs = runs[runs["run_id"].isin(list(run_ids))]
    epochs, damaged = epochs_of(directory, runs, columns)
    if is_gone(directory, damaged):
        return epoch_rows(directory, columns, run_ids)
    return epochs, problems + list(damaged.values())


def epochs_of(
    directory: Path, runs: pd.DataFrame, columns: Sequence[str]
) -> tuple[pa.Table, dict[str, str]]:
    """Epochs of runs, given with their shards, and by the names of shards that could not be read
    the reason."""
    to_read = list(dict.fromkeys(["run_id", "epoch", *columns]))
    parts, problems = [EPOCHS_SCHEMA.empty_table().select(to_read)], {}
    for name, wanted in runs.groupby("shard")["run_id"]:
        try:
            path = Shard(directory, name).closed("epochs")
            part = read_shard(path, "epochs", to_read, wanted.tolist())
        except StoreError as problem:
            problems[name] = (
                f"{problem}; to run its runs again, move it and the file of the same name in runs/ "
                "out of the directory and resume the sweep"
            )
            continue
        is_wanted = pc.is_in(part["run_id"], value_set=pa.array(wanted, pa.string()))
        parts.append(part if pc.all(is_wanted).as_py() else part.filter(is_wanted))
    return in_order(pa.concat_tables(parts)), problems


def run_rows(
    directory: Path, columns: Sequence[str], run_ids: Iterable[str]
) -> tuple[pa.Table, list[str]]:
    """Some rows of `runs` as an Arrow table, which has `run_id` in any case."""
    runs, problems = _stored_runs(directory, ["run_id"])
    runs = runs[runs["run_id"].isin(list(run_ids))]
    try:
        return rows_of(directory, runs, columns), problems
    except StoreError:
        if not is_gone(directory, runs["shard"]):
            raise
    return run_rows(directory, columns, run_ids)


def rows_of(directory: Path, runs: pd.DataFrame, columns: Sequence[str]) -> pa.Table:
    """Rows of `runs`, given with their shards and the places in them, ordered by `run_id`."""
    to_read = list(dict.fromkeys(["run_id", *columns]))
    parts = [RUNS_SCHEMA.empty_table().select(to_read)]
    for name, some in runs.groupby("shard"):
        part = read_shard(Shard(directory, name).closed("runs"), "runs", to_read)
        parts.append(part.take(pa.array(some["row"], pa.int64())))
    return pa.concat_tables(parts).sort_by("run_id")


def _stored_runs(directory: Path, columns: list[str]) -> tuple[pd.DataFrame, list[str]]:
    require_results(directory)
    runs, problems = _closed_runs(directory, columns)
    refuse_nothing(directory, runs, problems)
    return runs, problems


def refuse_nothing(directory: Path, runs: pd.DataFrame, problems: list[str]) -> None:
    """Raise a StoreError where there is no run, which says what was ignored."""
    if runs.empty:
        ignored = "".join(f"\n  {problem}" for problem in problems)
        raise StoreError(
            f"{directory} holds no finished run yet; start its sweep, or give another directory"
            f"{ignored}"
        )


def require_results(directory: Path) -> None:
    """Refuse what cannot be the directory of a sweep; one without a finished run passes.

    Raises
    ------
    StoreError
        If it does not exist, is a file, may not be read, is empty, or holds something else.
    """
    try:
        names = sorted(path.name for path in directory.iterdir() if path.name[0] != ".")
    except OSError as error:
        what = {
            FileNotFoundError: "does not exist",
            NotADirectoryError: "is a file",
        }.get(type(error), f"cannot be read ({error.strerror})")
        raise StoreError(f"{directory} {what}; give the directory of a sweep (--out)") from error
    if not names:
        raise StoreError(
            f"{directory} is empty and holds no finished run yet; start a sweep there (--out), or "
            "give another directory"
        )
    if not {MANIFEST, *SCHEMAS}.intersection(names):
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise StoreError(
            f"{directory} holds no results: there is neither {MANIFEST} nor runs/ nor epochs/, but "
            f"{listed}; give the directory of a sweep (--out)"
        )


def _closed_runs(
    directory: Path, columns: Sequence[str], refused: tuple[type[StoreError], ...] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """One row a run: `columns`, and the name of the shard that counts for it."""
    runs, problems = all_runs(directory, visible_shards(directory), columns, refused)
    if is_gone(directory, problems):
        return _closed_runs(directory, columns, refused)
    return best_of_each(runs).reset_index(drop=True), list(problems.values())


def all_runs(
    directory: Path,
    shards: Iterable[Shard],
    columns: Sequence[str],
    refused: tuple[type[StoreError], ...] = (),
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Every row that these shards have in `runs`, with the name of the shard and its place in it,
    and by the names of shards that were ignored the reason; `refused` reasons are raised."""
    to_read = list(dict.fromkeys([*columns, "run_id", "status", "started_at"]))
    parts, problems = {}, {}
    for shard in shards:
        try:
            part = read_pair(shard.closed("runs"), shard.closed("epochs"), to_read)
        except StoreError as problem:
            if isinstance(problem, refused):
                raise
            problems[shard.name] = f"ignored {shard.name}: {problem}"
        else:
            parts[shard.name] = part
    lengths = [len(part) for part in parts.values()]
    empty = RUNS_SCHEMA.empty_table().select(to_read)
    runs = frame_of(pa.concat_tables([empty, *parts.values()])).assign(
        shard=np.repeat(np.array(list(parts), dtype=object), lengths),
        row=np.concatenate([np.arange(0), *map(np.arange, lengths)]),
    )
    return runs, problems


def best_of_each(runs: pd.DataFrame) -> pd.DataFrame:
    """The row that counts for every run, ordered by `run_id`; the index stays.

    Two processes that did the same run have computed the same numbers; of a run that failed once
    and was repeated, the better outcome counts. Further ties go to the later start.
    """
    return (
        runs.assign(preference=runs["status"].map(STATUSES.index))
        .sort_values(["run_id", "preference", "started_at", "shard"])
        .drop_duplicates("run_id", keep="last")
        .drop(columns="preference")
    )


def is_gone(directory: Path, shards: Iterable[str]) -> bool:
    """Whether one of these shards was replaced since it was listed."""
    return bool(set(shards) - {shard.name for shard in visible_shards(directory)})


def in_order(epochs: pa.Table) -> pa.Table:
    """The rows by `run_id` and `epoch`; a table that is in order already costs nothing."""
    # Sorting a few distinct names and then integers is ten times faster than sorting long texts.
    run_ids = epochs["run_id"].combine_chunks().dictionary_encode()
    ranks = np.argsort(np.argsort(run_ids.dictionary.to_numpy(zero_copy_only=False)))
    order = np.lexsort((epochs["epoch"].to_numpy(), ranks[run_ids.indices.to_numpy()]))
    # A run's rows mostly stand together: moving them together is much faster than one by one.
    starts = np.flatnonzero(np.diff(order, prepend=-2) != 1)
    if len(starts) > _MAX_SLICES:
        return epochs.take(order)
    lengths = np.diff(starts, append=len(order))
    slices = [epochs.slice(order[s], n) for s, n in zip(starts, lengths, strict=True)]
    return pa.concat_tables(slices) if len(slices) > 1 else epochs


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A table of ours as pandas has it: columns with nulls masked, but for floats."""
    masked = [f.name for f in table.schema if f.nullable and f.type in _MASKED_TYPES]
    frame = table.drop_columns(masked).to_pandas()
    frame[masked] = table.select(masked).to_pandas(types_mapper=_MASKED_TYPES.get)
    return frame[table.column_names]


def _known_columns(columns: Sequence[str] | None, table: str) -> list[str]:
    names = SCHEMAS[table].names
    if columns is None:
        return names
    for column in columns:
        if column not in names:
            near = get_close_matches(column, names)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise ValueError(f"the table of {table} has no column {column!r}; {hint}")
    return list(columns)


def _with_problems(frame: pd.DataFrame, problems: list[str]) -> pd.DataFrame:
    frame.attrs["problems"] = problems
    return frame
