"""What a study leaves: tables of measurements, each whole or not at all, and whose they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minibutter.store.files import StoreError, replacing, saying
from minibutter.store.manifest import replace_file

_KEY = b"minibutter_measurement"
_OWNER = "study.json"


def claim_study_folder(folder: Path, about: Mapping[str, Any]) -> None:
    """Write down whose results a folder is for, or see that it is for the same ones.

    Tables and figures of two studies, or of one study of two data sets, would lie mixed.

    Parameters
    ----------
    about : plain values by name.

    Raises
    ------
    StoreError
        If the folder is for others, or the system does not take a file.
    """
    path = folder / _OWNER
    try:
        with saying(f"cannot write {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                replace_file(path, json.dumps(dict(about), indent=2) + "\n")
            found = json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(
            f"{path} is damaged, so that nothing says whose results {folder} holds: remove the "
            "file if they are of this study, or choose another directory with --out"
        ) from error
    if found != dict(about):
        raise StoreError(
            f"{folder} holds {_listed(found)}, and this is {_listed(about)}: choose another "
            "directory with --out"
        )


def _listed(about: Any) -> str:
    if not isinstance(about, Mapping):
        return repr(about)
    return ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)


def write_measurement(path: Path, table: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write a table with what it is about, plain values by name, and the folder that it is for.

    Raises
    ------
    StoreError
        If the system does not take it.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    content = content.replace_schema_metadata(
        {**(content.schema.metadata or {}), _KEY: json.dumps(dict(about)).encode()}
    )
    with saying(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            pq.write_table(content, file, compression="zstd", write_page_checksum=True)


def read_measurement(path: Path) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """A table and what it is about; None if the file is missing, damaged or none of ours, so that
    it is measured again."""
    try:
        content = pq.read_table(path, page_checksum_verification=True)
        about = (content.schema.metadata or {}).get(_KEY)
        return None if about is None else (content.to_pandas(), json.loads(about))
    # Checksums are of pages: what stands behind them, names and all, may be damaged unseen.
    except (pa.ArrowException, OSError, ValueError):
        return None


def write_study_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write a table for readers, as Parquet and as CSV.

    Raises
    ------
    StoreError
        If the system does not take it.
    """
    with saying(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{name}.parquet") as file:
            content = pa.Table.from_pandas(table, preserve_index=False)
            pq.write_table(content, file, compression="zstd")
        with replacing(folder / f"{name}.csv") as file:
            table.to_csv(file, index=False)
