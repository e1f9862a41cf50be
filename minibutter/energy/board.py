"""Where one process puts what it has read, and all processes of the node see it.

A board is a folder of the node, best in memory. `samples` is a ring of rows of 64-bit integers
behind a header that says how many have been written; `events` is a text that grows, one line of
JSON for what is no number: why a counter could not be read, when the machine slept. A reader of the
board that looks away for longer than the ring lasts misses rows, no more: counters are cumulative.
`bell` is a pipe: a byte in it asks for a sample now.

The writer writes events and row before the header, so that who sees the header sees them. Nobody
waits for a lock, and nobody can keep the writer from writing.
"""

import json
import os
import select
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

CAPACITY = 2**14
"""Rows of the ring: 27 minutes at ten a second."""

UNREAD = -1
"""In the place of a value that could not be read."""

_HEADER = struct.Struct("2q")


class BoardGone(Exception):
    """The board cannot be opened, or nobody writes on it any more; the message says which."""


class Row(NamedTuple):
    """One sample."""

    stamp_ns: int
    width_ns: int  # of the sweep over the counters
    foreign_stamp_ns: int  # when foreign_ns was last looked for
    foreign_ns: int  # processor time of others, since the first look
    values_uj: tuple[int, ...]  # by domain; UNREAD where an event says why
    cpu_ns: tuple[int, ...]  # processor time of each rank; UNREAD where it cannot be read


class _Layout:
    """Where the numbers of a row lie."""

    _N_FIXED = 4

    def __init__(self, n_domains: int, n_ranks: int) -> None:
        self._n_domains = n_domains
        self._row = struct.Struct(f"{self._N_FIXED + n_domains + n_ranks}q")
        self.size = self._row.size

    def offset(self, number: int) -> int:
        return _HEADER.size + number % CAPACITY * self.size

    def pack(self, row: Row) -> bytes:
        return self._row.pack(*row[: self._N_FIXED], *row.values_uj, *row.cpu_ns)

    def unpack(self, data: bytes) -> Row:
        numbers = self._row.unpack(data)
        fixed, rest = numbers[: self._N_FIXED], numbers[self._N_FIXED :]
        return Row(*fixed, rest[: self._n_domains], rest[self._n_domains :])


class BoardWriter:
    """Makes a board and writes on it; one process, one thread at a time.

    Parameters
    ----------
    n_domains, n_ranks : values of a row.

    Attributes
    ----------
    folder : where others open it, until `hide`.

    Raises
    ------
    OSError
        If there is no room for it.
    """

    def __init__(self, n_domains: int, n_ranks: int) -> None:
        self._layout = _Layout(n_domains, n_ranks)
        memory = Path("/dev/shm")
        where = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="minibutter-energy-", dir=where))
        self._n_rows = self._events_size = 0
        try:
            self._samples = os.open(self.folder / "samples", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            self._events = os.open(self.folder / "events", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            os.mkfifo(self.folder / "bell")
            # Open for writing, too: a pipe without writers would always be ready to be read.
            self._bell = os.open(self.folder / "bell", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._write_header()
        except OSError:
            self.hide()
            raise

    def write(self, row: Row) -> None:
        """Add a sample."""
        os.pwrite(self._samples, self._layout.pack(row), self._layout.offset(self._n_rows))
        self._n_rows += 1
        self._write_header()

    def tell(self, event: dict[str, Any]) -> None:
        """Add an event."""
        line = json.dumps(event).encode() + b"\n"
        os.pwrite(self._events, line, self._events_size)
        self._events_size += len(line)
        self._write_header()

    def _write_header(self) -> None:
        os.pwrite(self._samples, _HEADER.pack(self._n_rows, self._events_size), 0)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until somebody rings, or the time is over; whether it was rung."""
        ready, _, _ = select.select([self._bell], [], [], timeout_s)
        if ready:
            os.read(self._bell, 65536)
        return bool(ready)

    def ring(self) -> None:
        """End a `wait`, in another thread."""
        os.write(self._bell, b"!")

    def hide(self) -> None:
        """Remove the names once all have opened the files: nothing is left behind by a kill."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Give the files back; who rings after that learns that nobody reads."""
        self.hide()
        for descriptor in (self._samples, self._events, self._bell):
            os.close(descriptor)


class BoardReader:
    """Reads a board.

    Parameters
    ----------
    folder : of the writer.
    n_domains, n_ranks : as the writer has them.

    Raises
    ------
    BoardGone
        If it cannot be opened here.
    """

    def __init__(self, folder: Path, n_domains: int, n_ranks: int) -> None:
        self._layout = _Layout(n_domains, n_ranks)
        self._n_seen = self._events_seen = 0
        self._descriptors: list[int] = []
        try:
            for name, flags in (
                ("samples", os.O_RDONLY),
                ("events", os.O_RDONLY),
                ("bell", os.O_WRONLY | os.O_NONBLOCK),
            ):
                self._descriptors.append(os.open(folder / name, flags | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise BoardGone(
                f"what is read for this node lies in {folder}, which cannot be opened here "
                f"({error.strerror}): the ranks of a node must share /dev/shm, or $TMPDIR"
            ) from error

    def news(self) -> Iterator[Row | dict[str, Any]]:
        """What has been written since the last call: events first, then samples in their order."""
        samples, events, _ = self._descriptors
        n_rows, events_size = _HEADER.unpack(os.pread(samples, _HEADER.size, 0))
        if events_size > self._events_seen:
            text = os.pread(events, events_size - self._events_seen, self._events_seen)
            self._events_seen = events_size
            yield from map(json.loads, text.splitlines())
        # The oldest row of a full ring may be overwritten while it is read.
        first = max(self._n_seen, n_rows - CAPACITY + 1)
        self._n_seen = n_rows
        for number in range(first, n_rows):
            data = os.pread(samples, self._layout.size, self._layout.offset(number))
            n_now, _ = _HEADER.unpack(os.pread(samples, _HEADER.size, 0))
            if n_now - number < CAPACITY:  # Else the writer has come round, and it may be newer.
                yield self._layout.unpack(data)

    def ring(self) -> None:
        """Ask for a sample now.

        Raises
        ------
        BoardGone
            If nobody reads any more.
        """
        try:
            os.write(self._descriptors[2], b"!")
        except BlockingIOError:
            pass  # It has been rung so often that one more makes no difference.
        except OSError as error:
            raise BoardGone("the rank that reads the counters has ended") from error

    def close(self) -> None:
        """Give the files back."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
