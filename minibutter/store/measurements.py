"""Tables of single measurements: a file each, which is there as a whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minibutter.store.files import StoreError, remedy, replacing

_KEY = b"minibutter_measurement"


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            pq.write_table(content, file, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise StoreError(f"cannot write {path} ({error.strerror}): {remedy(error)}") from error


def read_measurement(path: Path) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """A table and what it is about; None if the file is missing, damaged or none of ours, so that
    it is measured again."""
    try:
        content = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError):
        return None
    about = (content.schema.metadata or {}).get(_KEY)
    return None if about is None else (content.to_pandas(), json.loads(about))


def write_study_table(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write a table for readers, as Parquet and as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.parquet") as file:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file, compression="zstd")
    with replacing(folder / f"{name}.csv") as file:
        table.to_csv(file, index=False)
