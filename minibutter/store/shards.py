"""How results reach the disk, and how they are found again after a kill.

A sweep's directory holds `runs/*.parquet` and `epochs/*.parquet`. A *shard* is a pair of files of
one name, one in each folder, written by one process and never changed afterwards; there is no
lock, no server and no shared file. A run is done when it stands in a closed shard.

The pair is committed in four steps, so that a kill at any instant can be told from what it left:
(1) `runs/.NAME.tmp` is written and flushed to the disk, (2) `epochs/.NAME.tmp` likewise,
(3) the second is renamed to `epochs/NAME.parquet`, (4) the first to `runs/NAME.parquet`. Before (3)
nothing is visible; after (3) both files are complete, and step (4) may be done by anybody, at any
time, from any machine. `recover` does it, and `ShardWriter` does not mind being helped.
"""

import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from minibutter.store.rows import epoch_table, run_table
from minibutter.store.schema import EPOCHS_SCHEMA, RUNS_SCHEMA, SCHEMA_VERSION

SCHEMAS = {"runs": RUNS_SCHEMA, "epochs": EPOCHS_SCHEMA}

MAX_BUFFERED_EPOCHS = 1_000_000
"""Rows of `epochs` (about 150 MB) that close a shard whatever the time."""

_VERSION_KEY = b"minibutter_schema_version"
_NAME = re.compile(r"part-[^-]+-(?P<host>.+)-(?P<pid>\d+)-\d+-[0-9a-f]+")


class StoreError(Exception):
    """A directory or a file of results cannot be used as it is; the message says what to do."""


class UnreadableShard(StoreError):
    """A file is missing, damaged, or not a table of ours."""


@dataclass(frozen=True)
class Shard:
    """One pair of files: a name inside a sweep's directory."""

    directory: Path
    name: str

    def closed(self, table: str) -> Path:
        """The file of `table` ("runs" or "epochs") that readers see."""
        return self.directory / table / f"{self.name}.parquet"

    def unfinished(self, table: str) -> Path:
        """The hidden file of `table` that is being written; readers of Parquet skip it."""
        return self.directory / table / f".{self.name}.tmp"

    def owner(self) -> tuple[str, int] | None:
        """Host name and process id of the writer, or None for a name of another form."""
        match = _NAME.fullmatch(self.name)
        return (match["host"], int(match["pid"])) if match else None


class ShardWriter:
    """Bundles finished runs into shards; one writer a process.

    A shard is closed when `interval_s` has passed since the last one, so that a long run is on the
    disk at once and short runs share a file, and when the block is left, also through an
    exception. A kill costs at most the runs that finished within the last `interval_s`.

    Parameters
    ----------
    directory : directory of the sweep; `runs` and `epochs` are created in it.
    label : says who wrote, for example "rank3"; part of the file names.
    interval_s : seconds between two shards.
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
        interval_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = Path(directory)
        # Names are taken apart at "-", and host names may contain it, so the label may not.
        self._label = re.sub(r"[^A-Za-z0-9_.]", "_", label) or "_"
        self._interval_s = interval_s
        self._clock = clock
        self._last_flush_s = clock()
        self._sequence = 0
        self._runs: list[pa.Table] = []
        self._epochs: list[pa.Table] = []
        self._n_epochs = 0
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
            If a column is missing, unknown, of another type or length, or contradicts another.
        """
        runs, rows = run_table(run), epoch_table(run, epochs)
        self._runs.append(runs)
        self._epochs.append(rows)
        self._n_epochs += len(rows)
        if self._n_epochs >= MAX_BUFFERED_EPOCHS:
            self.flush()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Close a shard if `interval_s` has passed; worth a call during a long run, too."""
        if self._clock() - self._last_flush_s >= self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Close a shard with the runs taken over so far, if there are any.

        Raises
        ------
        OSError
            If the disk refuses. The runs stay in the buffer and nothing half-written stays.
        """
        self._last_flush_s = self._clock()
        if not self._runs:
            return
        unique = f"{os.getpid()}-{self._sequence:05d}-{secrets.token_hex(4)}"
        shard = Shard(self._directory, f"part-{self._label}-{host_name()}-{unique}")
        self._sequence += 1
        try:
            _commit(shard, runs=pa.concat_tables(self._runs), epochs=pa.concat_tables(self._epochs))
        finally:
            # Without its temporary file nobody can finish step (4) any more: what can be seen of
            # `runs` now is final, also when an interrupt or a full disk ended the commit early.
            shard.unfinished("runs").unlink(missing_ok=True)
            if shard.closed("runs").exists():
                self._runs, self._epochs, self._n_epochs = [], [], 0
            else:
                shard.unfinished("epochs").unlink(missing_ok=True)
                shard.closed("epochs").unlink(missing_ok=True)


def visible_shards(directory: Path) -> list[Shard]:
    """Shards of which a file is visible, by name, but for those between their two renames."""
    names = {path.stem for table in SCHEMAS for path in (directory / table).glob("[!.]*.parquet")}
    shards = (Shard(directory, name) for name in sorted(names))
    # A temporary file that is gone by now was renamed before now: the pair is complete.
    return [shard for shard in shards if not shard.unfinished("runs").exists()]


def read_shard(path: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One file of `table`, its page checksums verified; no columns read only the footer.

    Raises
    ------
    UnreadableShard
        If the file is missing, truncated, damaged, or has other columns than ours.
    StoreError
        If another version of minibutter wrote it, or the system does not let us read it.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_schema(path, file.schema_arrow, table)
            return file.read(columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow reports damage as an OSError without number; a number comes from the system.
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise StoreError(f"{path} cannot be read ({os.strerror(error.errno)})") from error
        what = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        first_line = str(error).splitlines()[0]
        raise UnreadableShard(f"{path} {what} ({first_line})") from error


def _check_schema(path: Path, found: pa.Schema, table: str) -> None:
    version = (found.metadata or {}).get(_VERSION_KEY)
    if version not in (None, str(SCHEMA_VERSION).encode()):
        raise StoreError(
            f"{path} has schema version {version.decode()}, this minibutter reads version "
            f"{SCHEMA_VERSION}; use the minibutter that wrote it, or another directory"
        )
    if version is None or not found.equals(SCHEMAS[table]):
        raise UnreadableShard(f"{path} is not a table of {table} of minibutter")


def read_pair(runs: Path, epochs: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of the file `runs`, once it is certain that `epochs` holds the epochs of its runs.

    Raises
    ------
    UnreadableShard, StoreError
        As `read_shard`; also if the two files do not belong together.
    """
    table = read_shard(runs, "runs", list(dict.fromkeys([*columns, "epochs_completed"])))
    promised = pc.sum(table["epochs_completed"], min_count=0).as_py()
    stored = len(read_shard(epochs, "epochs", []))
    if promised != stored:
        raise UnreadableShard(f"{epochs} has {stored} epochs, its runs have {promised}")
    return table.select(list(columns))


def _commit(shard: Shard, runs: pa.Table, epochs: pa.Table) -> None:
    _write(runs, shard.unfinished("runs"))
    _write(epochs, shard.unfinished("epochs"))
    shard.unfinished("epochs").replace(shard.closed("epochs"))
    # The renames must reach the disk in this order, or a power cut could keep only the second.
    sync_folder(shard.directory / "epochs")
    try:
        shard.unfinished("runs").replace(shard.closed("runs"))
    except FileNotFoundError:
        if not shard.closed("runs").exists():
            raise
    sync_folder(shard.directory / "runs")


def _write(table: pa.Table, path: Path) -> None:
    # Byte-stream split puts the exponents of neighbouring epochs side by side, which halves a
    # metric under zstd. Nullable columns keep the plain encoding: Arrow 11 and 16.0 and some
    # readers in other languages decode a split column with nulls wrongly.
    # The epoch counts up, so its differences are stored.
    texts = [field.name for field in table.schema if field.type == pa.string()]
    floats = [
        field.name
        for field in table.schema
        if pa.types.is_floating(field.type) and not field.nullable
    ]
    with path.open("wb") as file:
        pq.write_table(
            table,
            file,
            version="2.6",
            compression="zstd",
            compression_level=3,
            use_dictionary=texts,
            use_byte_stream_split=floats,
            column_encoding={"epoch": "DELTA_BINARY_PACKED"},
            write_page_checksum=True,
        )
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk, where the file system can promise it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def host_name() -> str:
    """Name of this machine as it stands in the names of shards."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "_"
