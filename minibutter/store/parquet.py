"""Single files of the two tables: written so that any reader can open them and every byte is
checked, and read with the question whether they are ours."""

import errno
import os
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from minibutter.store.files import OtherVersion, StoreError, UnreadableShard
from minibutter.store.schema import EPOCHS_SCHEMA, RUNS_SCHEMA, SCHEMA_VERSION

SCHEMAS = {"runs": RUNS_SCHEMA, "epochs": EPOCHS_SCHEMA}

_VERSION_KEY = b"minibutter_schema_version"
_MAX_GROUP_ROWS = 1_000_000


def read_shard(
    path: Path,
    table: str,
    columns: Sequence[str] | None = None,
    run_ids: Sequence[str] | None = None,
) -> pa.Table:
    """One file of `table`, its page checksums verified; no columns read only the footer.

    With `run_ids`, parts of the file that have none of these runs are not read; others may still
    be among the rows.

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
            if run_ids is None:
                return file.read(columns=columns)
            return file.read_row_groups(_groups_with(file.metadata, sorted(run_ids)), columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow reports damage as an OSError without number; a number comes from the system.
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise StoreError(f"{path} cannot be read ({os.strerror(error.errno)})") from error
        what = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        first_line = str(error).splitlines()[0]
        raise UnreadableShard(f"{path} {what} ({first_line})") from error


def _groups_with(metadata: pq.FileMetaData, run_ids: Sequence[str]) -> list[int]:
    """Row groups whose range of run ids holds one of these; `run_id` is the first column."""
    wanted = []
    for number in range(metadata.num_row_groups):
        found = metadata.row_group(number).column(0).statistics
        is_known = found is not None and found.has_min_max
        first = bisect_left(run_ids, found.min) if is_known else 0
        if not is_known or (first < len(run_ids) and run_ids[first] <= found.max):
            wanted.append(number)
    return wanted


def _check_schema(path: Path, found: pa.Schema, table: str) -> None:
    version = (found.metadata or {}).get(_VERSION_KEY)
    if version not in (None, str(SCHEMA_VERSION).encode()):
        raise OtherVersion(
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


def write_table(
    table: pa.Table, path: Path, level: int = 3, group_rows: int = _MAX_GROUP_ROWS
) -> None:
    """Write a file of ours, with zstd of this level, to the disk; not yet its name."""
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
            row_group_size=group_rows,
            version="2.6",
            compression="zstd",
            compression_level=level,
            use_dictionary=texts,
            use_byte_stream_split=floats,
            column_encoding={"epoch": "DELTA_BINARY_PACKED"},
            write_page_checksum=True,
        )
        file.flush()
        os.fsync(file.fileno())
