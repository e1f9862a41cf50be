"""Local tables: comma- or tab-separated text, gzip or not, and Parquet.

Reads a table with pandas and hands its columns to `encoding`. Names of columns may repeat, as they
do in exports of spreadsheets, except that of the target. IDX images are in `idx.py`.
"""

from __future__ import annotations

import difflib
import hashlib
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from minibutter.datasets.dataset import Dataset, DatasetError, DatasetInfo, content_digest
from minibutter.datasets.encoding import encode_inputs, encode_target

if TYPE_CHECKING:
    import pandas as pd  # slow to import, so only the functions that call it do

TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

MAX_NAMES_SHOWN = 20


def load_table(path: Path, target: str | None, task: str | None) -> Dataset:
    """Read and encode a local table.

    Parameters
    ----------
    path : Path of a file with one of `TABLE_SUFFIXES`
    target : str, name of the target's column
    task : "regression", "classification" or None to infer it from the target

    Returns
    -------
    dataset : Dataset, named after the file, with the digest of its content

    Raises
    ------
    DatasetError
        When the file can not be read, the target is not a column of it, or a column can not be
        encoded.
    """
    if task not in (None, "regression", "classification"):
        raise DatasetError(
            f'task is {task!r} for {path}; it must be "regression" or "classification"'
            " (which becomes binary by itself when the target has two values)"
        )
    source = str(path)
    inputs, column = split_target(read_table(path), target, source)
    y, task = encode_target(column, task, f"column {target!r} of {source}")
    x = encode_inputs(inputs, source)
    info = DatasetInfo(path.name, task, *x.shape, y.shape[1], content_digest(x, y, task))
    return Dataset(info, x, y, source, file_sha256(path))


def split_target(
    frame: pd.DataFrame, target: str | None, source: str
) -> tuple[pd.DataFrame, pd.Series]:
    """Take a table apart into its inputs and its target.

    Parameters
    ----------
    frame : DataFrame; its column names may repeat, except that of the target
    target : str, name of the target's column
    source : str, the file for messages

    Returns
    -------
    inputs : DataFrame without the target
    column : Series, the target

    Raises
    ------
    DatasetError
        When the target is not the name of exactly one column, or no rows or no inputs remain.
    """
    position = _target_position(list(frame.columns), target, source)
    if frame.shape[0] == 0:
        raise DatasetError(f"{source} has column names but no rows; it needs data to learn from")
    if frame.shape[1] == 1:
        raise DatasetError(
            f"{source} has the target {target!r} as its only column; it needs inputs as well"
        )
    others = [i for i in range(frame.shape[1]) if i != position]
    return frame.iloc[:, others], frame.iloc[:, position]


def _target_position(names: list[str], target: str | None, source: str) -> int:
    shown = ", ".join(repr(name) for name in names[:MAX_NAMES_SHOWN])
    if len(names) > MAX_NAMES_SHOWN:
        shown += f" and {len(names) - MAX_NAMES_SHOWN} more"
    if target is None:
        raise DatasetError(f"{source} needs a target: name one of its columns, which are {shown}")
    count = names.count(target)
    if count > 1:
        raise DatasetError(
            f"{count} columns of {source} are called {target!r}, so the target is ambiguous;"
            " rename all but one"
        )
    if count == 1:
        return names.index(target)
    near = difflib.get_close_matches(target, names, n=1)
    if near:
        remedy = f"did you mean {near[0]!r}? Its columns are {shown}"
    elif len(names) == 1 and any(mark in names[0] for mark in ",;\t"):
        remedy = f"its only column is {shown}: separate columns by commas (.csv) or tabs (.tsv)"
    else:
        remedy = f"choose one of its columns, which are {shown}"
    raise DatasetError(f"{source} has no column {target!r}; {remedy}")


def read_table(path: Path, dtype: type | None = None) -> pd.DataFrame:
    """Read a table as it is, with its own column names.

    Parameters
    ----------
    path : Path of a file with one of `TABLE_SUFFIXES`
    dtype : the type of all columns of a text file, which saves time and memory; None to infer it

    Returns
    -------
    frame : DataFrame

    Raises
    ------
    DatasetError
        When the file can not be opened, is damaged, ragged or not of the format its name says.
    """
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            frame.columns = [str(name) for name in frame.columns]
            return frame
        return _read_text_table(path, dtype)
    except pd.errors.ParserWarning as error:
        raise DatasetError(
            f"{path} has rows with more values than its header has names; name every column"
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text ({error}); convert it to UTF-8") from error
    except EOFError as error:
        raise DatasetError(f"{path} is a truncated gzip file; copy or download it again") from error
    except (ValueError, OSError, zlib.error) as error:
        kind = "Parquet" if path.suffix == ".parquet" else "a table with one header line"
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path} can not be read as {kind} ({type(error).__name__}: {reason});"
            " check that the file is complete and that its name has the right ending"
        ) from error


def _read_text_table(path: Path, dtype: type | None) -> pd.DataFrame:
    import pandas as pd

    options = {
        "sep": "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ",",
        "skipinitialspace": True,
    }
    with warnings.catch_warnings():
        # Rows longer than the header would lose their last values with no more than a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # Reading in chunks (low_memory) would infer the type of a column anew in every chunk.
        frame = pd.read_csv(
            path, index_col=False, dtype=dtype, low_memory=dtype is not None, **options
        )
    # pandas renames a repeated column to `name.1`, which would let a copy of the target pass as an
    # input; so the names are read once more as they stand.
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
    frame.columns = [str(name) for name in header.iloc[0]]
    return frame


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
