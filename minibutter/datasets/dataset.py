"""What a data set is once it is read: two encoded arrays, and the facts that planning needs.

A `DatasetInfo` is small, hashable and travels between ranks; a `Dataset` stays in the process that
trains on it, with arrays that nobody can write to. Neither knows files or column names: those end
where encoding begins.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


class DatasetError(ValueError):
    """A data set can not be had, and the user can mend it: the message says what, where and how."""


@dataclass(frozen=True)
class DatasetInfo:
    """What planning needs to know of a data set, without its arrays.

    Attributes
    ----------
    name : the canonical reference; for a local file the file's name without its folder
    task : "regression", "binary" or "classification"
    n_rows : rows before the split
    n_inputs : columns of x after encoding
    n_outputs : columns of y after encoding; 1 for a regression on one target and for "binary"
    digest : SHA-256 of the encoded content for local files, None where the name pins the content
    """

    name: str
    task: str
    n_rows: int
    n_inputs: int
    n_outputs: int
    digest: str | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """An encoded data set. Its arrays are read-only, so that runs can share them.

    Attributes
    ----------
    info : the facts above
    x : ndarray of shape (n_rows, n_inputs), float32, C-contiguous
    y : ndarray of shape (n_rows, n_outputs), float32: 0/1, one-hot, or scaled to [0, 1]
    source : where it was read from: path of a file, or the package that made it
    sha256 : SHA-256 of the one file that was read, None when no file or several were
    """

    info: DatasetInfo
    x: np.ndarray
    y: np.ndarray
    source: str
    sha256: str | None

    def __post_init__(self):
        self.x.setflags(write=False)
        self.y.setflags(write=False)


def content_digest(x: np.ndarray, y: np.ndarray, task: str) -> str:
    """SHA-256 of an encoded data set: two files with the same digest train the same networks.

    The hash covers the task, both shapes and the float32 values in little-endian order, so it does
    not depend on the path, the file format or the names of the columns.

    Parameters
    ----------
    x : ndarray of shape (n_rows, n_inputs), float32
    y : ndarray of shape (n_rows, n_outputs), float32
    task : str

    Returns
    -------
    digest : str, 64 hexadecimal digits
    """
    digest = hashlib.sha256(f"{task} {x.shape} {y.shape}\n".encode())
    for array in (x, y):
        digest.update(np.ascontiguousarray(array, dtype="<f4"))
    return digest.hexdigest()
