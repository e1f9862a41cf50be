"""The union of several directories of results: clusters, jobs and laptops that did one sweep.

A run is what its id says, wherever it was done, so that a union is one of ids: whatever stands in
the target already is not copied again, and merging twice is merging once. Where two directories
have the same run with other numbers, nothing is merged until somebody says which of them counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from minibutter.store.compaction import forget
from minibutter.store.comparison import (
    COMPUTED_EPOCH_COLUMNS,
    COMPUTED_RUN_COLUMNS,
    Difference,
    Version,
    differences,
)
from minibutter.store.files import OtherVersion, StoreError, remedy
from minibutter.store.generations import shared_lock
from minibutter.store.manifest import open_directory, read_manifest
from minibutter.store.recovery import recover
from minibutter.store.schema import EPOCHS_SCHEMA, RUNS_SCHEMA, STATUSES
from minibutter.store.shards import commit, new_shard, visible_shards
from minibutter.store.tables import (
    all_runs,
    best_of_each,
    epochs_of,
    is_gone,
    refuse_nothing,
    require_results,
    rows_of,
)

_MAX_EPOCHS = 500_000
"""Rows of `epochs` that are compared, or copied to one shard, at a time."""


@dataclass(frozen=True)
class Conflict:
    """Two directories have the same run with different numbers.

    Attributes
    ----------
    difference : what is not the same.
    first, second : the directories. processors : on which each has done it.
    """

    difference: Difference
    first: Path
    second: Path
    processors: tuple[str, str]


@dataclass(frozen=True)
class Union:
    """What `merge` found and did.

    Attributes
    ----------
    n_runs : runs of the union.
    n_new : runs that were copied, by directory.
    conflicts : runs with different numbers. If `is_refused`, nothing was done because of them;
        else the directory that was preferred has won.
    messages : shards that were ignored.
    """

    n_runs: int
    n_new: dict[Path, int]
    conflicts: list[Conflict]
    is_refused: bool = False
    messages: list[str] = field(default_factory=list)


def merge(
    out: str | Path, directories: Sequence[str | Path], prefer: str | Path | None = None
) -> Union:
    """Copy to a directory all runs of others that it does not have.

    Of a run that failed in one directory and succeeded in another, the better outcome is taken.

    Parameters
    ----------
    out : directory of the union; created, or one of results that grows.
    directories : where the runs are; they stay as they are, and may be in use.
    prefer : the one, of `out` and `directories`, whose version of a run counts where numbers
        differ. The other version in `out` goes to its `quarantine/`.

    Raises
    ------
    StoreError
        If a directory holds no results, or those of another version, or `out` cannot be written.
    """
    out, places = Path(out), [Path(directory) for directory in directories]
    chosen = _named(out, places, prefer)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        require_results(out)
        recover(out)
    damaged: dict[Path, dict[str, str]] = {place: {} for place in (out, *places)}
    while True:
        try:
            return _merge(out, places, chosen, damaged)
        except _Moved:
            continue  # Other names, the same runs.
        except _Damaged as part:
            # Its runs may be in another directory, too.
            damaged[part.directory] |= part.problems


def _merge(
    out: Path, places: list[Path], chosen: Path | None, damaged: dict[Path, dict[str, str]]
) -> Union:
    target, *sides = (_Side(place, damaged[place]) for place in (out, *places))
    for side in sides:
        refuse_nothing(side.directory, side.best, side.problems)
    holders, conflicts = _compare([target, *sides])
    by_path = {side.directory: side for side in (target, *sides)}
    # With whom a run's first holder disagrees: all others have its numbers.
    others = {(conflict.difference.run_id, conflict.second) for conflict in conflicts}
    losers = []
    for conflict in conflicts:
        run_id = conflict.difference.run_id
        if chosen is None or not by_path[chosen].has_done(run_id):
            return Union(len(holders), {}, conflicts, True, _problems(by_path))
        if (run_id, chosen) not in others:
            continue
        if holders[run_id] is target:
            losers.append(run_id)
        holders[run_id] = by_path[chosen]

    _open(out, sides)
    if losers:
        forget(out, lambda runs: runs["run_id"].isin(losers))
    n_new = {}
    for side in sides:
        wanted = [run_id for run_id, holder in holders.items() if holder is side]
        n_new[side.directory] = _copy(side, wanted, out)
    return Union(len(holders), n_new, conflicts, messages=_problems(by_path))


def _problems(by_path: dict[Path, "_Side"]) -> list[str]:
    return list(dict.fromkeys(problem for side in by_path.values() for problem in side.problems))


class _Moved(Exception):
    """Files of a directory were replaced while it was read."""


class _Damaged(Exception):
    """Epochs of some shards cannot be read."""

    def __init__(self, directory: Path, problems: dict[str, str]) -> None:
        super().__init__(directory)
        self.directory = directory
        self.problems = problems


class _Side:
    """What one directory has.

    Attributes
    ----------
    directory : its path.
    best : the row that counts of every run, with its shard. statuses : of these, by run id.
    problems : shards that were ignored.
    """

    def __init__(self, directory: Path, damaged: dict[str, str]) -> None:
        self.directory = directory
        columns = ["run_id", "experiment_id", "repetition", "status", "epochs_completed"]
        columns += ["cpu_model"]
        shards = [shard for shard in visible_shards(directory) if shard.name not in damaged]
        rows, problems = all_runs(directory, shards, columns, refused=(OtherVersion,))
        self.best = best_of_each(rows).set_index("run_id", drop=False)
        self.statuses = dict(zip(self.best["run_id"], self.best["status"], strict=True))
        self.problems = [*problems.values(), *damaged.values()]

    def has_done(self, run_id: str) -> bool:
        """Whether it has a version of a run that did not fail."""
        return self.statuses.get(run_id, STATUSES[0]) != STATUSES[0]

    def version(self, run_ids: Sequence[str]) -> Version:
        """Computed columns of some runs."""
        some = self.best.loc[sorted(run_ids)]
        epochs = self.epochs(some, COMPUTED_EPOCH_COLUMNS)
        return Version(self.rows(some, COMPUTED_RUN_COLUMNS), epochs)

    def epochs(self, some: pd.DataFrame, columns: Sequence[str]) -> pa.Table:
        """Columns of `epochs`, of rows of `best`."""
        epochs, damaged = epochs_of(self.directory, some, columns)
        self.refuse_if_moved(damaged)
        if damaged:
            raise _Damaged(self.directory, damaged)
        return epochs

    def rows(self, some: pd.DataFrame, columns: Sequence[str]) -> pa.Table:
        """Columns of `runs`, of rows of `best`."""
        try:
            return rows_of(self.directory, some, columns)
        except StoreError:
            self.refuse_if_moved(some["shard"])
            raise

    def refuse_if_moved(self, shards: Iterable[str]) -> None:
        """Raise `_Moved` if one of these shards has been replaced."""
        if is_gone(self.directory, shards):
            raise _Moved


def _named(out: Path, places: list[Path], prefer: str | Path | None) -> Path | None:
    """The directory that `prefer` names; the paths are checked."""
    resolved = [place.resolve() for place in (out, *places)]
    for place, path in zip(places, resolved[1:], strict=True):
        if path == resolved[0]:
            raise StoreError(f"{place} is the directory to merge into; name the others only")
        require_results(place)
    if prefer is None:
        return None
    for place, path in zip((out, *places), resolved, strict=True):
        if path == Path(prefer).resolve():
            return place
    listed = ", ".join(map(str, (out, *places)))
    raise StoreError(f"{prefer} is none of the directories; prefer one of {listed}")


def _compare(sides: list[_Side]) -> tuple[dict[str, _Side], list[Conflict]]:
    """For every run the first side with its best outcome, and where another has other numbers."""
    holders: dict[str, _Side] = {}
    conflicts = []
    for side in sides:
        shared: dict[_Side, list[str]] = {}
        for run_id in side.statuses:
            holder = holders.get(run_id)
            if holder is None or (side.has_done(run_id) and not holder.has_done(run_id)):
                holders[run_id] = side
            elif side.has_done(run_id):
                shared.setdefault(holder, []).append(run_id)
        for holder, run_ids in shared.items():
            for batch in _batches(side.best.loc[run_ids]):
                for found in differences(holder.version(batch), side.version(batch)):
                    pair = (holder, side)
                    processors = tuple(s.best["cpu_model"][found.run_id] for s in pair)
                    conflicts.append(Conflict(found, *(s.directory for s in pair), processors))
    return holders, conflicts


def _batches(runs: pd.DataFrame) -> Iterator[list[str]]:
    n_epochs = runs["epochs_completed"].cumsum() - runs["epochs_completed"]
    for _, batch in runs.groupby(n_epochs // _MAX_EPOCHS):
        yield list(batch["run_id"])


def _open(out: Path, sides: list[_Side]) -> None:
    """Let the manifest of `out` ask for all that the others ask for."""
    manifests = [_manifest(side) for side in sides]
    own = read_manifest(out) if out.exists() else None
    requested: dict[str, int] = {}
    documents = []
    for manifest in ([own] if own else []) + manifests:
        for experiment_id, count in manifest["requested"].items():
            requested[experiment_id] = max(count, requested.get(experiment_id, 0))
        parts = manifest["document"].get("merged", [manifest["document"]])
        documents += [part for part in parts if part not in documents]
    document = documents[0] if len(documents) == 1 else {"merged": documents}
    open_directory(out, (own or manifests[0])["name"], requested, document)


def _manifest(side: _Side) -> dict[str, Any]:
    manifest = read_manifest(side.directory)
    if manifest is not None:
        return {"document": {}, **manifest}
    counts = side.best.groupby("experiment_id")["repetition"].max() + 1
    requested = {key: int(count) for key, count in counts.items()}
    return {"name": side.directory.resolve().name, "requested": requested, "document": {}}


def _copy(side: _Side, run_ids: list[str], out: Path) -> int:
    """Copy runs to new shards of `out`; returns how many."""
    for sequence, batch in enumerate(_batches(side.best.loc[run_ids])):
        some = side.best.loc[batch]
        runs, epochs = side.rows(some, RUNS_SCHEMA.names), side.epochs(some, EPOCHS_SCHEMA.names)
        try:
            with shared_lock(out):
                commit(new_shard(out, "merge", sequence), runs, epochs)
        except OSError as error:
            raise StoreError(
                f"{out} cannot take all runs ({error.strerror}); {remedy(error)}; what was copied "
                "is not copied again"
            ) from error
    return len(run_ids)
