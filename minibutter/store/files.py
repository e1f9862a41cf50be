"""What all of the store's files have in common: errors, names of machines, and the disk's word."""

import errno
import os
import re
import socket
from pathlib import Path


class StoreError(Exception):
    """A directory or a file of results cannot be used as it is; the message says what to do."""


class UnreadableShard(StoreError):
    """A file is missing, damaged, or not a table of ours."""


class OtherVersion(StoreError):
    """Another version of minibutter wrote a file."""


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
    """Name of this machine as it stands in the names of shards."""
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
