"""How results reach the disk, and how they are found again after a kill.

A sweep's directory holds `runs/*.parquet` and `epochs/*.parquet`. A *shard* is a pair of files of
one name, one in each folder, written by one process and never changed afterwards; there is no
server and no shared file. A run is done when it stands in a closed shard.

The pair is committed in four steps, so that a kill at any instant can be told from what it left:
(1) `runs/.NAME.tmp` is written and flushed to the disk, (2) `epochs/.NAME.tmp` likewise,
(3) the second is renamed to `epochs/NAME.parquet`, (4) the first to `runs/NAME.parquet`. Before (3)
nothing is visible; after (3) both files are complete, and step (4) may be done by anybody, at any
time, from any machine. `recover` does it, and `ShardWriter` does not mind being helped. No rank
waits for another: only an exchange of all files (`generations`) keeps commits waiting.
"""

import math
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from minibutter.store.checkpoints import remove_checkpoints
from minibutter.store.files import StoreError, host_name, saying, sync
from minibutter.store.generations import shared_lock, table_folder
from minibutter.store.parquet import SCHEMAS, write_table
from minibutter.store.rows import epoch_table, run_table

MAX_BUFFERED_EPOCHS = 1_000_000
"""Rows of `epochs` (about 150 MB) that close a shard whatever the time."""

MAX_NEW_RUNS, MAX_NEW_EPOCHS = 256, 20_000
"""Runs, or epochs of them, that wait as they came: Arrow takes as long to check and lay out the
columns of one short run as of a hundred."""

INTERVAL_S, LONGEST_INTERVALS = 2.0, 150
"""Seconds between the first shards of a writer, and by what they grow: to five minutes. A file has
60 kB beside its rows, and file systems of clusters do not like millions of files."""

_GROWING_AFTER = 20

_NAME = re.compile(r"part-[^-]+-(?P<host>.+)-(?P<pid>\d+)-\d+-[0-9a-f]+")


@dataclass(frozen=True)
class Shard:
    """One pair of files: a name inside a sweep's directory."""

    directory: Path
    name: str

    def closed(self, table: str) -> Path:
        """The file of `table` ("runs" or "epochs") that readers see."""
        return table_folder(self.directory, table) / f"{self.name}.parquet"

    def unfinished(self, table: str) -> Path:
        """The hidden file of `table` that is being written; readers of Parquet skip it."""
        return table_folder(self.directory, table) / f".{self.name}.tmp"

    def owner(self) -> tuple[str, int] | None:
        """Host name and process id of the writer, or None for a name of another form."""
        match = _NAME.fullmatch(self.name)
        return (match["host"], int(match["pid"])) if match else None


class ShardWriter:
    """Bundles finished runs into shards; one writer a process.

    A shard is closed when some time has passed since the last one, so that short runs share a file,
    and when the block is left, also through an exception: `interval_s` at first, and after twenty
    such intervals a twentieth of the time since the begin, up to `LONGEST_INTERVALS` of them. A
    kill costs at most the runs that finished within that time. Their checkpoints are removed when
    it is closed.

    Parameters
    ----------
    directory : directory of the sweep; `runs` and `epochs` are created in it.
    label : says who wrote, for example "rank3"; part of the file names.
    interval_s : seconds between the first shards.
    clock : returns seconds; monotonic.

    Examples
    --------
    >>> with ShardWriter(directory, "rank0") as writer:  # doctest: +SKIP
    ...     writer.add(run, epochs)
    """

    def __init__(
        self,
        directory: str | Path,
        label: str,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = Path(directory)
        # Names are taken apart at "-", and host names may contain it, so the label may not.
        self._label = re.sub(r"[^A-Za-z0-9_.]", "_", label) or "_"
        self._interval_s = interval_s
        self._clock = clock
        self._begun_s = self._last_flush_s = clock()
        self._sequence = 0
        self._runs: list[pa.Table] = []
        self._epochs: list[pa.Table] = []
        self._new: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]] = []
        self._n_new_epochs = 0
        self._n_epochs = 0
        with saying(f"{directory} cannot take results"):
            for table in SCHEMAS:
                (self._directory / table).mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def add(self, run: Mapping[str, Any], epochs: Mapping[str, Any] | None = None) -> None:
        """Take over one finished run; writes when a shard is due.

        Parameters
        ----------
        run : one value for every column of `RUNS_SCHEMA`.
        epochs : an array or list of length `run["epochs_completed"]` for every column of
            `EPOCHS_SCHEMA` but `run_id`, or None for a column of nulls. In arrays and lists NaN
            stays NaN. May be left out for a run that has no epochs.

        Raises
        ------
        ValueError, TypeError
            If a column is missing, unknown, of another type or length, or contradicts another: at
            once or, of a short run, with one of the next calls, at the latest by `flush`.
        """
        self._new.append((run, epochs))
        self._n_epochs += run["epochs_completed"]
        self._n_new_epochs += run["epochs_completed"]
        if len(self._new) >= MAX_NEW_RUNS or self._n_new_epochs >= MAX_NEW_EPOCHS:
            self._take_in()
        if self._n_epochs >= MAX_BUFFERED_EPOCHS:
            self.flush()
        self.flush_if_due()

    def _take_in(self) -> None:
        """Turn what was added lately into tables, all of it at once.

        Raises
        ------
        ValueError, TypeError
            That of the first run that is wrong; it takes no others with it.
        """
        if not self._new:
            return
        try:
            self._lay_out(len(self._new))
            return
        except (ValueError, TypeError):
            problem = None
        while self._new:
            try:
                self._lay_out(1)
            except (ValueError, TypeError) as error:
                problem = problem or error
                del self._new[0]
        self._n_new_epochs = 0
        if problem is not None:
            raise problem

    def _lay_out(self, n: int) -> None:
        """Turn the first so many of what was added lately into tables."""
        runs, epochs = zip(*self._new[:n], strict=True)
        tables = run_table(runs), epoch_table(runs, epochs)
        n_epochs = self._n_new_epochs - len(tables[1])
        # In one statement, which no interrupt divides: nothing is lost, nothing is there twice.
        self._runs, self._epochs, self._new, self._n_new_epochs = (
            [*self._runs, tables[0]], [*self._epochs, tables[1]], self._new[n:], n_epochs,
        )  # fmt: skip

    def flush_if_due(self) -> None:
        """Close a shard if it is time to; worth a call during a long run, too."""
        now_s, first_s = self._clock(), self._interval_s
        grown_s = min((now_s - self._begun_s) / _GROWING_AFTER, LONGEST_INTERVALS * first_s)
        if now_s - self._last_flush_s >= max(first_s, grown_s if first_s else 0.0):
            self.flush()

    def flush(self) -> None:
        """Close a shard with the runs taken over so far, if there are any.

        Raises
        ------
        StoreError
            If the disk refuses. The runs stay in the buffer and nothing half-written stays.
        """
        self._last_flush_s = self._clock()
        try:
            self._take_in()
        finally:
            if self._runs:
                self._write()

    def _write(self) -> None:
        shard = new_shard(self._directory, self._label, self._sequence)
        self._sequence += 1
        runs, epochs = pa.concat_tables(self._runs), pa.concat_tables(self._epochs)
        refused = f"{shard.directory} does not take the {len(runs)} runs that have ended last"
        with saying(refused), shared_lock(self._directory):
            try:
                commit(shard, runs, epochs)
            finally:
                # Without its temporary file nobody can finish step (4) any more: what can be seen
                # of `runs` now is final, also when an interrupt or a full disk ended the commit
                # early.
                shard.unfinished("runs").unlink(missing_ok=True)
                if shard.closed("runs").exists():
                    remove_checkpoints(self._directory, _run_ids_done(self._runs))
                    self._runs, self._epochs, self._n_epochs = [], [], self._n_new_epochs
                else:
                    shard.unfinished("epochs").unlink(missing_ok=True)
                    shard.closed("epochs").unlink(missing_ok=True)


def most_shards(seconds: float) -> float:
    """How many shards a writer closes in that time, at most."""
    growing_s, longest_s = _GROWING_AFTER * INTERVAL_S, LONGEST_INTERVALS * INTERVAL_S
    n_first = min(seconds, growing_s) / INTERVAL_S
    grown = min(max(seconds / growing_s, 1.0), LONGEST_INTERVALS)
    n_growing = _GROWING_AFTER * math.log(grown)
    return n_first + n_growing + max(seconds - growing_s * LONGEST_INTERVALS, 0.0) / longest_s


def new_shard(directory: Path, label: str, sequence: int) -> Shard:
    """A pair of files that nobody else writes; `sequence` counts those of this process."""
    unique = f"{os.getpid()}-{sequence:05d}-{secrets.token_hex(4)}"
    return Shard(directory, f"part-{label}-{host_name()}-{unique}")


def _run_ids_done(runs: Sequence[pa.Table]) -> list[str]:
    """Runs that nobody will go on with; a failed one is tried again, from where it was."""
    run_ids, statuses = (pa.concat_tables(runs)[name].to_pylist() for name in ("run_id", "status"))
    return [key for key, status in zip(run_ids, statuses, strict=True) if status != "failed"]


def visible_shards(directory: Path) -> list[Shard]:
    """Shards of which a file is visible, by name, but for those between their two renames.

    Raises
    ------
    StoreError
        If the system does not let us look.
    """
    try:
        names = {name for table in SCHEMAS for name in _names(table_folder(directory, table))}
        shards = (Shard(directory, name) for name in sorted(names))
        # A temporary file that is gone by now was renamed before now: the pair is complete.
        return [shard for shard in shards if not shard.unfinished("runs").exists()]
    except OSError as error:
        raise StoreError(
            f"{error.filename} cannot be read ({error.strerror}); ask its owner to let you, or "
            "give another directory"
        ) from error


def _names(folder: Path) -> list[str]:
    # Not `glob`, which finds nothing where it may not look.
    try:
        with os.scandir(folder) as entries:
            paths = [Path(entry) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path.stem for path in paths if path.suffix == ".parquet" and path.name[0] != "."]


def commit(shard: Shard, runs: pa.Table, epochs: pa.Table) -> None:
    """Write a pair of files in the four steps."""
    write_table(runs, shard.unfinished("runs"))
    write_table(epochs, shard.unfinished("epochs"))
    shard.unfinished("epochs").replace(shard.closed("epochs"))
    # The renames must reach the disk in this order, or a power cut could keep only the second.
    sync(shard.directory / "epochs")
    try:
        shard.unfinished("runs").replace(shard.closed("runs"))
    except FileNotFoundError:
        if not shard.closed("runs").exists():
            raise
    sync(shard.directory / "runs")
