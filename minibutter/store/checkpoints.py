"""Runs in progress: one file each, from which they go on after a kill.

`checkpoints/RUN_ID.npz` begins with a line of text: the version of the format, a checksum of all
that follows, and how many epochs are done. The rest is NumPy's npz without pickles: the arrays of a
training, the epochs so far as an Arrow table, and a record of plain values as JSON. A file is
replaced as a whole, and goes when its run stands in a closed shard. Where it is lost, only time is
lost.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from minibutter.store.files import StoreError, replacing
from minibutter.store.rows import typed_table
from minibutter.store.schema import EPOCHS_SCHEMA, SCHEMA_VERSION

CHECKPOINTS = "checkpoints"
FORMAT_VERSION = 1

_BYTES = 16  # of a checksum
_HEADING = re.compile(rb"minibutter checkpoint (?P<version>\d+) (?P<digest>\S*) ?(?P<epochs>.*)\n?")
_ARRAY = "state."
_COLUMNS = EPOCHS_SCHEMA.remove(0)


@dataclass(frozen=True)
class Checkpoint:
    """A run in progress.

    Attributes
    ----------
    run_id : of the run.
    arrays : of its training, by name; numbers only.
    epochs : the columns of the table `epochs`, but `run_id`, of the epochs so far.
    record : plain values, as JSON knows them, with texts as keys: whatever else belongs to it.
    """

    run_id: str
    arrays: Mapping[str, np.ndarray]
    epochs: Mapping[str, Any]
    record: Mapping[str, Any]


def checkpoint_path(directory: Path, run_id: str) -> Path:
    """Where the checkpoint of a run stands, if it has one."""
    return directory / CHECKPOINTS / f"{run_id}.npz"


def write_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Keep a run in progress; the checkpoint that it had before stays until all of this is there.

    Parameters
    ----------
    directory : of the sweep.

    Raises
    ------
    OSError
        If the disk refuses; nothing half-written stays.
    ValueError, TypeError
        If the columns of the epochs are not those of the table.
    """
    about = {
        "run_id": checkpoint.run_id,
        "schema_version": SCHEMA_VERSION,
        "record": checkpoint.record,
    }
    table = typed_table(checkpoint.epochs, _COLUMNS, len(checkpoint.epochs["epoch"]))
    members = {
        "about": _as_array(json.dumps(about, allow_nan=False).encode()),
        "epochs": _as_array(_pack_table(table)),
        **{_ARRAY + name: array for name, array in checkpoint.arrays.items()},
    }
    path = checkpoint_path(directory, checkpoint.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        placeholder = _heading("0" * 2 * _BYTES, len(table))
        file.write(placeholder)
        np.savez(file, **members)
        file.seek(len(placeholder))
        digest = _digest_rest(file, str(len(table)).encode())
        file.seek(0)
        file.write(_heading(digest, len(table)))


def read_checkpoint(directory: Path, run_id: str) -> Checkpoint | None:
    """What was kept of a run; None if nothing was.

    Raises
    ------
    StoreError
        If the file is damaged, was written by another version, or cannot be read.
    """
    path = checkpoint_path(directory, run_id)
    try:
        with path.open("rb") as file:
            _check_heading(path, file)
            with np.load(file) as members:
                return _unpack(path, run_id, dict(members))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
        # The checksum was right: somebody has written it, but not we.
        raise StoreError(f"{path} is no checkpoint of minibutter ({error})") from error


def kept_epochs(directory: Path) -> dict[str, int]:
    """How many epochs were kept of every run in progress, as the first lines of the files say.

    Whether a file can be used shows when all of it is read: `read_checkpoint`.
    """
    kept = {}
    for path in (directory / CHECKPOINTS).glob("[!.]*.npz"):
        with suppress(OSError), path.open("rb") as file:
            heading = _HEADING.fullmatch(file.readline(100))
            is_ours = heading is not None and int(heading["version"]) == FORMAT_VERSION
            if is_ours and heading["epochs"].isdigit():
                kept[path.stem] = int(heading["epochs"])
    return kept


def remove_checkpoints(directory: Path, run_ids: Iterable[str]) -> None:
    """Forget runs that are done; what cannot be removed now is removed by `recover`."""
    if not (directory / CHECKPOINTS).is_dir():
        return
    for run_id in run_ids:
        with suppress(OSError):
            checkpoint_path(directory, run_id).unlink(missing_ok=True)


def _heading(digest: str, n_epochs: int) -> bytes:
    return f"minibutter checkpoint {FORMAT_VERSION} {digest} {n_epochs}\n".encode()


def _check_heading(path: Path, file: BinaryIO) -> None:
    """Read the first line, and make sure that the rest is what was written; then go back to it."""
    heading = _HEADING.fullmatch(file.readline(100))
    start = file.tell()
    if heading is None:
        raise StoreError(f"{path} is damaged (its first line is not that of a checkpoint)")
    if int(heading["version"]) != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {int(heading['version'])}, this minibutter reads version "
            f"{FORMAT_VERSION}"
        )
    if _digest_rest(file, heading["epochs"]).encode() != heading["digest"]:
        raise StoreError(f"{path} is damaged (its checksum is another)")
    file.seek(start)


def _digest_rest(file: BinaryIO, before: bytes) -> str:
    """Hash of some bytes, and of a file from where it stands to its end."""
    return hashlib.file_digest(
        file, lambda: hashlib.blake2b(before, digest_size=_BYTES)
    ).hexdigest()


def _unpack(path: Path, run_id: str, members: Mapping[str, np.ndarray]) -> Checkpoint:
    about = json.loads(members["about"].tobytes())
    if about["run_id"] != run_id:
        raise StoreError(f"{path} is the checkpoint of another run, {about['run_id']}")
    if about["schema_version"] != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {about['schema_version']}, this minibutter reads version "
            f"{SCHEMA_VERSION}"
        )
    with pa.ipc.open_stream(pa.py_buffer(members["epochs"].tobytes())) as stream:
        table = stream.read_all()
    if not table.schema.equals(_COLUMNS):
        raise StoreError(f"{path} has epochs with other columns")
    return Checkpoint(
        run_id=run_id,
        arrays={
            name.removeprefix(_ARRAY): array
            for name, array in members.items()
            if name.startswith(_ARRAY)
        },
        epochs={name: _values(table[name]) for name in table.column_names},
        record=about["record"],
    )


def _pack_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _as_array(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def _values(column: pa.ChunkedArray) -> np.ndarray | list:
    """Numbers as an array; texts, and columns with nulls, as a list."""
    if column.null_count or pa.types.is_string(column.type):
        return column.to_pylist()
    return column.to_numpy()
