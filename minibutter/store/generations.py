"""Replacing many files of both tables at once, so that no reader ever sees some of the old files
with some of the new, whenever a process is killed.

A *generation* is all that `runs/` and `epochs/` hold. The next one is prepared in a hidden folder
of the directory, `.staging-HOST-PID-TOKEN`, which is worth nothing until it is published:

(1) commits of shards are kept waiting (`.lock`), and what they have added since is linked into the
new folders; (2) the hidden folder is renamed to `.exchange`. This is the moment at which the new
generation counts: whatever happens from here, it is finished and never taken back; (3) `epochs/`
changes places with its successor, in one step, then `runs/`; (4) `.exchange`, which now holds the
old files, gets its old name back and is deleted.

Our readers ask `table_folder` where a table is, and have the new generation from (2) on. Others,
who open the folders themselves, find each of them complete at every moment: the old one until it
changes places, and the new one after. Steps (3) and (4) are done by whoever comes next: `recover`,
the next commit, the next exchange.
"""

import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minibutter.store.files import StoreError, host_name, is_alive, remedy, sync

TABLES = ("epochs", "runs")
"""In the order in which a shard's files become visible."""

_LOCK, _EXCHANGE, _PLAN, _MARK = ".lock", ".exchange", "plan.json", ".new"
_TURN = ".turn.lock"
_STAGE = re.compile(r"\.staging-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]+")
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_PATIENCE_S = 60.0


def table_folder(directory: Path, table: str) -> Path:
    """The folder that holds the generation of `table` which counts."""
    staged = directory / _EXCHANGE / table
    return staged if (staged / _MARK).exists() else directory / table


@contextmanager
def shared_lock(directory: Path) -> Iterator[None]:
    """Keep exchanges of this directory waiting, and finish one that was cut.

    Any number of processes hold it together. Where nobody can lock there are no exchanges either,
    and nothing is held.
    """
    with _lock_file(directory) as descriptor:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            while (directory / _EXCHANGE).exists():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                _remove(_finish(directory))
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def turn(directory: Path) -> Iterator[None]:
    """What one process at a time does to files that all of them replace: jobs that share a
    directory may end at the same moment. Where nobody can lock, nothing is held."""
    with _lock_file(directory, _TURN) as descriptor:
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _lock_file(directory: Path, name: str = _LOCK) -> Iterator[int | None]:
    try:
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)  # And with it the lock.


@contextmanager
def _exclusive_lock(
    directory: Path,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    with _lock_file(directory) as descriptor:
        if descriptor is None:
            raise StoreError(
                f"{directory} cannot be locked: it is not writable for you, or its file system has "
                "no locks, so that a running sweep could not be kept waiting; work on a copy of it"
            )
        given_up_s = clock() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= given_up_s:
                    raise StoreError(
                        f"others write to {directory} without a pause; nothing was changed: try "
                        "again when its sweep has ended"
                    ) from None
                sleep(0.01)
        yield


class Stage:
    """A generation in the making, as a context; left without `publish` it leaves nothing.

    Parameters
    ----------
    directory : directory of the sweep.

    Attributes
    ----------
    path : takes the place of `directory` for those who write shards into the new generation.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        name = f".staging-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.path = directory / name

    def __enter__(self) -> "Stage":
        try:
            self.path.mkdir()
            for table in TABLES:
                folder, live = self.path / table, self._directory / table
                folder.mkdir()
                shutil.copymode(live, folder)
                with suppress(PermissionError):
                    os.chown(folder, -1, live.stat().st_gid)
                (folder / _MARK).touch()
        except OSError as error:
            _remove(self.path)
            raise StoreError(
                f"{self._directory} cannot take other files ({error.strerror}); {remedy(error)}"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        _remove(self.path)

    def publish(self, replaced: Collection[str]) -> None:
        """Let the new generation count, in place of the shards named and beside all others.

        Raises
        ------
        StoreError
            If one of these shards is gone, or the directory cannot be locked; nothing has changed.
        """
        with _exclusive_lock(self._directory):
            _remove(_finish(self._directory))
            self._refuse_if_overtaken(replaced)
            self._take_along(replaced)
            plan = self.path / _PLAN
            plan.write_text(json.dumps({"stage": self.path.name, "replaced": sorted(replaced)}))
            for path in (plan, *(self.path / table for table in TABLES), self.path):
                sync(path)
            self.path.rename(self._directory / _EXCHANGE)
            sync(self._directory)
            _finish(self._directory)

    def _refuse_if_overtaken(self, replaced: Collection[str]) -> None:
        for table in TABLES:
            found = {path.stem for path in (self._directory / table).glob("[!.]*.parquet")}
            if gone := sorted(set(replaced) - found):
                raise StoreError(
                    f"somebody else has replaced {gone[0]} in {self._directory} in the meantime; "
                    "nothing was changed: try again"
                )

    def _take_along(self, replaced: Collection[str]) -> None:
        for table in TABLES:
            for path in (self._directory / table).iterdir():
                target = self.path / table / path.name
                is_replaced = path.suffix == ".parquet" and path.stem in replaced
                if path.is_file() and not is_replaced and not target.exists():
                    _link(path, target)


def remove_dead_stages(directory: Path) -> list[str]:
    """Delete what killed processes of this machine have prepared and not published."""
    messages = []
    for path in sorted(directory.glob(".staging-*")):
        match = _STAGE.fullmatch(path.name)
        if match and match["host"] == host_name() and not is_alive(int(match["pid"])):
            _remove(path)
            messages.append(f"removed {path}, left unfinished by process {match['pid']}")
    return messages


def _finish(directory: Path) -> Path | None:
    """Steps (3) and (4), from wherever they were cut; returns what is left to be deleted."""
    exchange = directory / _EXCHANGE
    if not exchange.exists():
        return None
    plan = json.loads((exchange / _PLAN).read_text())
    replaced = set(plan["replaced"])
    for table in TABLES:
        if (exchange / table / _MARK).exists():
            _change_places(exchange / table, directory / table)
            sync(directory)
    for table in TABLES:
        for path in exchange.glob(f"{table}*/*"):
            target = directory / table / path.name
            # Put there by somebody who does not know of locks.
            if path.stem not in replaced and not target.exists():
                path.rename(target)
        (directory / table / _MARK).unlink(missing_ok=True)
    rubbish = directory / plan["stage"]
    exchange.rename(rubbish)
    sync(directory)
    return rubbish


def _change_places(staged: Path, live: Path) -> None:
    """Two folders swap their names: at once, where the system can; else `live` is missing for a
    moment, and a kill in this moment leaves it missing until the next `_finish`."""
    if live.exists() and not _rename_exchange(staged, live):
        live.rename(staged.with_name(f"{staged.name}-{secrets.token_hex(4)}"))
    if (staged / _MARK).exists():
        staged.rename(live)


def _rename_exchange(one: Path, other: Path) -> bool:
    """renameat2(2) with RENAME_EXCHANGE; False where the C library or file system has none."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    here, exchange = ctypes.c_int(-100), ctypes.c_uint(2)  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_LOCKS:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copy2(path, target)
        sync(target)


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
