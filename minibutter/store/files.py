"""What all of the store's files have in common: errors, names of machines, and the disk's word;
and files that appear whole or not at all, whatever happens while they are written."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class StoreError(Exception):
    """A directory or a file of results cannot be used as it is; the message says what to do."""


class UnreadableShard(StoreError):
    """A file is missing, damaged, or not a table of ours."""


class OtherVersion(StoreError):
    """Another version of minibutter wrote a file."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, to be written and read, that takes the place of `path` at the end of the block.

    It is on the disk by then. If the block is left through an exception, nothing stays of it; a
    kill leaves a hidden file, whose name says which process of which machine wrote it.
    """
    temporary = path.with_name(f".{path.name}.{host_name()}.{os.getpid()}.tmp")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Around what a disk may refuse.

    Raises
    ------
    StoreError
        In place of an OSError: what did not go, why, and what to do about it.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise StoreError(
            f"{what} ({why}): {remedy(error)}; the same command then goes on from here"
        ) from error


def writer_of(temporary: Path) -> tuple[str, int] | None:
    """Host name and process id of the writer of a file that `replacing` had not finished; None for
    a name of another form."""
    match = _TEMPORARY.fullmatch(temporary.name)
    return (match["host"], int(match["pid"])) if match else None


_TEMPORARY = re.compile(r"\.[^.]+\.[a-z]+\.(?P<host>.+)\.(?P<pid>\d+)\.tmp")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the file system can
    promise it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def host_name() -> str:
    """Name of this machine as it stands in the names of files."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "_"


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # It belongs to another user, or is no process id at all: leave it.
    return True


def remedy(error: OSError) -> str:
    """What a user can do about a folder that refuses a file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or choose another directory"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make it writable for you, or choose another directory"
    return "choose another directory"
