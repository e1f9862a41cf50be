"""Few large files in place of many shards, with the same rows to the last bit.

A shard is closed every few seconds, so that a kill costs little; files of a hundred megabytes are
what readers, and the metadata servers of clusters, want. `compact` gathers the rows of small
shards, ordered by run and epoch, reads back what it wrote, and exchanges the files in one step
(`generations`). Sweeps may go on and others may read meanwhile, and a kill at any moment loses no
row and shows none twice.

`forget` is the same exchange without some of the runs.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from minibutter.store.bits import is_same
from minibutter.store.files import StoreError, remedy
from minibutter.store.generations import Stage
from minibutter.store.parquet import SCHEMAS, read_shard, write_table
from minibutter.store.recovery import recover
from minibutter.store.shards import Shard, commit, new_shard, visible_shards
from minibutter.store.tables import (
    all_runs,
    best_of_each,
    in_order,
    refuse_nothing,
    require_results,
)

MAX_EPOCHS = 2_000_000
"""Rows of `epochs` in one file, about 120 MB; two copies of them are in memory at a time."""

_GROUP_ROWS = 2**18
"""Rows of a row group, of which DuckDB wants 100,000 to 1,000,000."""

_LEVEL = 9
"""Of zstd: it saves 3 % more than what a running sweep can afford."""


@dataclass(frozen=True)
class Compaction:
    """What `compact` found and left.

    Attributes
    ----------
    files_before, files_after : Parquet files of both tables.
    bytes_before, bytes_after : their sizes.
    n_runs, n_epochs : rows that count, before and after.
    n_dropped : rows of `runs` that did not count: of runs done twice, or repeated after a failure.
    messages : what was mended first, and shards that were left as they are.
    """

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    n_runs: int
    n_epochs: int
    n_dropped: int
    messages: list[str]


def compact(directory: str | Path) -> Compaction:
    """Gather the shards of a directory in few files.

    Parameters
    ----------
    directory : directory of a sweep, which may be running.

    Returns
    -------
    Compaction
        What was done; nothing is rewritten where there is nothing to gain.

    Raises
    ------
    StoreError
        If it is no directory of results, cannot be written or locked, or another version wrote it.
    """
    directory = Path(directory)
    require_results(directory)
    messages = recover(directory)
    before = _sizes(directory)
    left: dict[str, str] = {}
    while True:
        rows = _Rows(directory, left)
        refuse_nothing(directory, rows.runs, [*messages, *left.values(), *rows.problems])
        counted = best_of_each(rows.runs).index
        try:
            replaced = _write_groups(directory, rows, counted)
        except _UnreadablePart as part:
            # Its runs may have been done a second time: now it is the other rows that count.
            left[part.name] = f"left {part.name} as it is: {part}"
        else:
            break
    after = _sizes(directory)
    of_replaced = rows.runs.index[rows.runs["shard"].isin(replaced)]
    return Compaction(
        files_before=len(before),
        files_after=len(after),
        bytes_before=sum(before),
        bytes_after=sum(after),
        n_runs=len(counted),
        n_epochs=int(rows.runs.loc[counted, "epochs_completed"].sum()),
        n_dropped=len(of_replaced.difference(counted)),
        messages=[*messages, *left.values(), *rows.problems],
    )


def _write_groups(directory: Path, rows: "_Rows", counted: pd.Index) -> list[str]:
    groups = _groups(rows.runs)
    replaced = [name for names in groups for name in names]
    if replaced:
        with Stage(directory) as stage:
            for sequence, names in enumerate(groups):
                rows.write(new_shard(stage.path, "compact", sequence), names, counted)
            stage.publish(replaced)
    return replaced


def forget(
    directory: str | Path, is_forgotten: Callable[[pd.DataFrame], pd.Series]
) -> pd.DataFrame:
    """Take runs out of a directory, as if they had not been done yet.

    Their rows are kept in `quarantine/`, so that nothing is lost for good.

    Parameters
    ----------
    directory : directory of a sweep.
    is_forgotten : says for every row of `runs`, with `run_id`, `status` and `error`, whether it
        shall go.

    Returns
    -------
    pandas.DataFrame
        The rows that went, with `attrs["problems"]`, a list of the shards that were left and why.

    Raises
    ------
    StoreError
        As `compact`.
    """
    directory = Path(directory)
    require_results(directory)
    messages = recover(directory)
    rows = _Rows(directory)
    refuse_nothing(directory, rows.runs, [*messages, *rows.problems])
    forgotten = rows.runs.index[is_forgotten(rows.runs)]
    names = sorted(rows.runs.loc[forgotten, "shard"].unique())
    replaced = _write_rests(directory, rows, names, forgotten) if names else []
    gone = rows.runs.loc[forgotten]
    gone = gone[gone["shard"].isin(replaced)].drop(columns=["shard", "row"]).reset_index(drop=True)
    gone.attrs["problems"] = rows.problems
    return gone


def _write_rests(
    directory: Path, rows: "_Rows", names: list[str], forgotten: pd.Index
) -> list[str]:
    """Replace shards by what is left of them; returns those that could be."""
    with Stage(directory) as stage:
        replaced = []
        for sequence, name in enumerate(names):
            of_shard = rows.runs.index[rows.runs["shard"] == name]
            rest = new_shard(stage.path, "rest", sequence)
            try:
                rows.write(rest, [name], of_shard.difference(forgotten))
            except _UnreadablePart as part:
                rows.problems.append(f"left {name} as it is: {part}")
            else:
                replaced.append(name)
        if replaced:
            rows.keep(directory / "quarantine", replaced, forgotten)
            stage.publish(replaced)
    return replaced


class _UnreadablePart(Exception):
    """A shard whose rows cannot be had."""

    def __init__(self, name: str, problem: StoreError) -> None:
        super().__init__(str(problem))
        self.name = name


class _Rows:
    """All rows of `runs` that a directory has, and the way to those of `epochs`.

    Attributes
    ----------
    runs : a row for every row, with the name of its shard, but for those of the shards `left` out.
    problems : shards that could not be read, one sentence each.
    """

    def __init__(self, directory: Path, left: Collection[str] = ()) -> None:
        self._directory = directory
        shards = [shard for shard in visible_shards(directory) if shard.name not in left]
        columns = ["run_id", "status", "error", "epochs_completed"]
        self.runs, problems = all_runs(directory, shards, columns)
        self.problems = list(problems.values())

    def write(self, target: Shard, names: list[str], index: pd.Index) -> None:
        """Write the rows of some shards that stand in `index`, in order, as one shard."""
        runs, epochs = self._read(names, index)
        if len(runs):
            _write(runs, "runs", target, self._directory)
            _write(epochs, "epochs", target, self._directory)

    def keep(self, folder: Path, names: list[str], index: pd.Index) -> None:
        """Commit rows of some shards to another folder, where readers do not look for them."""
        try:
            for table in SCHEMAS:
                (folder / table).mkdir(parents=True, exist_ok=True)
            commit(new_shard(folder, "forgotten", 0), *self._read(names, index))
        except OSError as error:
            raise StoreError(
                f"{folder} cannot keep the runs to be forgotten ({error.strerror}); nothing was "
                f"changed; {remedy(error)}"
            ) from error

    def _read(self, names: list[str], index: pd.Index) -> tuple[pa.Table, pa.Table]:
        parts = {table: [schema.empty_table()] for table, schema in SCHEMAS.items()}
        for name in names:
            shard = Shard(self._directory, name)
            try:
                runs, epochs = (read_shard(shard.closed(table), table) for table in SCHEMAS)
            except StoreError as problem:
                raise _UnreadablePart(name, problem) from problem
            of_shard = self.runs[self.runs["shard"] == name]
            if of_shard.loc[of_shard["epochs_completed"] > 0, "run_id"].duplicated().any():
                twice = StoreError(f"{shard.closed('runs')} has a run twice, in one file")
                raise _UnreadablePart(name, twice)
            is_wanted = of_shard.index.isin(index)
            if not is_wanted.all():
                runs = runs.filter(pa.array(is_wanted))
                epochs = epochs.filter(pc.is_in(epochs["run_id"], value_set=runs["run_id"]))
            parts["runs"].append(runs)
            parts["epochs"].append(epochs)
        runs, epochs = (pa.concat_tables(parts[table]) for table in SCHEMAS)
        return runs.sort_by("run_id"), in_order(epochs)


def _write(rows: pa.Table, table: str, target: Shard, directory: Path) -> None:
    path = target.closed(table)
    try:
        write_table(rows, path, _LEVEL, _GROUP_ROWS)
    except OSError as error:
        raise StoreError(
            f"{directory} cannot take other files ({error.strerror}); nothing was changed; "
            f"{remedy(error)}"
        ) from error
    if not is_same(read_shard(path, table), rows):
        raise StoreError(
            f"{path} does not read back as it was written; nothing was changed: check the disk"
        )


def _groups(runs: pd.DataFrame) -> list[list[str]]:
    """Names of the shards that shall become one file each; files that are full stay.

    Shards that share a run are always read: a row is dropped only where the one that counts in its
    place has been read.
    """
    shards = (
        runs.assign(is_shared=runs.duplicated("run_id", keep=False))
        .groupby("shard")
        .agg(n_epochs=("epochs_completed", "sum"), is_shared=("is_shared", "any"))
    )
    small = shards[(shards["n_epochs"] < MAX_EPOCHS / 2) | shards["is_shared"]]
    number = (small["n_epochs"].cumsum() - small["n_epochs"]) // MAX_EPOCHS
    groups = [list(names) for names in small.groupby(number).groups.values()]
    return groups if len(groups) < len(small) or small["is_shared"].any() else []


def _sizes(directory: Path) -> list[int]:
    paths = [shard.closed(table) for shard in visible_shards(directory) for table in SCHEMAS]
    return [path.stat().st_size for path in paths if path.exists()]
