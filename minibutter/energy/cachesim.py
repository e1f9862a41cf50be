"""A cache simulator: any number of set-associative levels that replace the least recently used.

It replays accesses (address, bytes, whether they write) and counts what happens in every level.
There are demand accesses only: no prefetcher, no translation of addresses, one core, data alone.
Two models:

"machine": what cores of today do, as far as it can be said of all of them. A line that is missed is
fetched through all levels and kept in each (write-allocate); a level that drops a line that was
written hands it down first (write-back), and the next level takes it in whether or not it had it.
A level may drop what the one above still has (neither inclusive nor exclusive). An access that
straddles lines is one access to each.

"cachegrind": the model of `valgrind --tool=cachegrind`, for comparison. Lower levels see only what
the first has missed; nothing is written back; an access that straddles two lines is one access that
hits where both lines do, and looks both up in the next level where it does not.

Sets are chosen by the low bits of the line's number, or by its remainder where their number is no
power of two; real third levels mix the bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

MODELS = ("machine", "cachegrind")

READ_HITS, READ_MISSES, WRITE_HITS, WRITE_MISSES, WRITE_BACKS = range(5)
_N_COUNTS = 5

# An entry of a set is 2 * line + (1 if it was written); no line is -1.
_EMPTY, _HIT = -2, -1


@dataclass(frozen=True)
class CacheLevel:
    """One level of the hierarchy.

    Attributes
    ----------
    size_bytes : capacity.
    ways : lines of a set; as many as the level has lines makes it fully associative.
    line_bytes : a power of two.

    Raises
    ------
    ValueError
        If the size is not a whole number of sets.
    """

    size_bytes: int
    ways: int
    line_bytes: int = 64

    def __post_init__(self) -> None:
        if self.line_bytes < 1 or self.line_bytes & (self.line_bytes - 1):
            raise ValueError(f"line_bytes is {self.line_bytes}; it must be a power of two")
        set_bytes = self.ways * self.line_bytes
        if self.ways < 1 or self.size_bytes < 1 or self.size_bytes % set_bytes:
            raise ValueError(
                f"a level of {self.size_bytes} bytes cannot have {self.ways} ways of "
                f"{self.line_bytes}-byte lines; the size must be a multiple of {set_bytes}"
            )

    @property
    def sets(self) -> int:
        """Number of sets."""
        return self.size_bytes // (self.ways * self.line_bytes)


@dataclass(frozen=True)
class LevelCounts:
    """What happened in a level.

    Attributes
    ----------
    read_hits, read_misses, write_hits, write_misses : accesses that reached the level. Below the
        first level they are fetches of lines for the level above: reads and writes by what the
        processor wanted.
    write_backs : lines handed down because they had been written; 0 in the model of cachegrind.
    """

    read_hits: int
    read_misses: int
    write_hits: int
    write_misses: int
    write_backs: int

    @property
    def accesses(self) -> int:
        """Hits and misses."""
        return self.read_hits + self.write_hits + self.misses

    @property
    def misses(self) -> int:
        """Lines (in the model of cachegrind: accesses) that were fetched from below."""
        return self.read_misses + self.write_misses


class State(NamedTuple):
    """The caches as the compiled code sees them."""

    geometry: np.ndarray  # (levels, 4) int64: sets, ways, log2 of line bytes, first entry
    entries: np.ndarray  # (lines of all levels,) int64: sets one behind the other, latest use first
    counts: np.ndarray  # (levels, 5) int64: `READ_HITS` ... `WRITE_BACKS`
    moved_bytes: np.ndarray  # (2,) int64: that the processor read and wrote
    is_cachegrind: bool


@numba.njit(nogil=True)
def _touch(entries, start, ways, line, dirty):
    """Use a line of the set at `start`; returns _HIT, or the entry that had to leave for it."""
    moved = entries[start]
    if moved >> 1 == line:
        entries[start] = moved | dirty
        return _HIT
    for place in range(start + 1, start + ways):
        entry = entries[place]
        entries[place] = moved
        if entry >> 1 == line:
            entries[start] = entry | dirty
            return _HIT
        moved = entry
    entries[start] = 2 * line + dirty
    return moved


@numba.njit(nogil=True)
def _set_of(geometry, level, line):
    """Where the set of a line begins among the entries."""
    sets = geometry[level, 0]
    index = line & (sets - 1) if sets & (sets - 1) == 0 else line % sets
    return geometry[level, 3] + index * geometry[level, 1]


@numba.njit(nogil=True)
def _hand_down(state, level, entry):
    """Write back what a level has dropped, as far down as it pushes other lines out."""
    geometry = state.geometry
    while entry != _EMPTY and entry & 1:
        state.counts[level, WRITE_BACKS] += 1
        address = (entry >> 1) << geometry[level, 2]
        level += 1
        if level == geometry.shape[0]:
            return
        line = address >> geometry[level, 2]
        entry = _touch(state.entries, _set_of(geometry, level, line), geometry[level, 1], line, 1)
        if entry == _HIT:
            return


@numba.njit(nogil=True)
def replay(state, addresses, sizes, writes, n):
    """Replay n accesses.

    Updates: state (`State`). Reads: addresses (>= n,) int64, sizes (>= n,) int32, at least 1,
    writes (>= n,) bool.
    """
    geometry, counts, entries = state.geometry, state.counts, state.entries
    bits = geometry[0, 2]
    for access in range(n):
        address, is_write = addresses[access], writes[access]
        last_byte = address + sizes[access] - 1
        kind = WRITE_HITS if is_write else READ_HITS
        state.moved_bytes[1 if is_write else 0] += sizes[access]
        if state.is_cachegrind:
            for level in range(geometry.shape[0]):
                line, other = address >> geometry[level, 2], last_byte >> geometry[level, 2]
                ways = geometry[level, 1]
                is_hit = _touch(entries, _set_of(geometry, level, line), ways, line, 0) == _HIT
                if other != line:
                    start = _set_of(geometry, level, other)
                    is_hit &= _touch(entries, start, ways, other, 0) == _HIT
                if is_hit:
                    counts[level, kind] += 1
                    break
                counts[level, kind + 1] += 1
        else:
            for first in range(address >> bits, (last_byte >> bits) + 1):
                for level in range(geometry.shape[0]):
                    line = first << bits >> geometry[level, 2]
                    # Only the first level holds what was written: below it is still the old line.
                    dirty = 1 if is_write and level == 0 else 0
                    start = _set_of(geometry, level, line)
                    dropped = _touch(entries, start, geometry[level, 1], line, dirty)
                    if dropped == _HIT:
                        counts[level, kind] += 1
                        break
                    counts[level, kind + 1] += 1
                    _hand_down(state, level, dropped)


class CacheSimulator:
    """Caches in use.

    Parameters
    ----------
    levels : from the processor downwards.
    model : one of `MODELS`.

    Raises
    ------
    ValueError
        If there is no level, the model is not known, or lines grow shorter from level to level.

    Examples
    --------
    >>> caches = CacheSimulator([CacheLevel(1024, ways=2)])
    >>> caches.replay(np.arange(0, 4096, 8), 8, False)
    >>> caches.counts[0].misses
    64
    """

    def __init__(self, levels: Sequence[CacheLevel], model: str = "machine") -> None:
        if not levels:
            raise ValueError("there is no level; a hierarchy has at least one")
        if model not in MODELS:
            raise ValueError(f"model is {model!r}; it must be one of {', '.join(MODELS)}")
        lines = [level.line_bytes for level in levels]
        if lines != sorted(lines):
            raise ValueError(f"lines have {lines} bytes from level to level; they must not shrink")
        self.levels = tuple(levels)
        n_lines = [level.sets * level.ways for level in levels]
        starts = np.cumsum([0, *n_lines[:-1]])
        self.state = State(
            geometry=np.array(
                [
                    (level.sets, level.ways, level.line_bytes.bit_length() - 1, start)
                    for level, start in zip(levels, starts, strict=True)
                ],
                dtype=np.int64,
            ),
            entries=np.full(sum(n_lines), _EMPTY, np.int64),
            counts=np.zeros((len(levels), _N_COUNTS), np.int64),
            moved_bytes=np.zeros(2, np.int64),
            is_cachegrind=model == "cachegrind",
        )

    def replay(
        self, addresses: np.ndarray, sizes: np.ndarray | int, writes: np.ndarray | bool
    ) -> None:
        """Replay accesses in their order; called again, it goes on from there.

        Parameters
        ----------
        addresses : (n,) integers, at least 0.
        sizes : (n,) bytes of each, at least 1, or one number for all.
        writes : (n,) whether each writes, or one value for all.

        Raises
        ------
        ValueError
            If an address is negative, or a size is not positive.
        """
        addresses = np.ascontiguousarray(addresses, dtype=np.int64)
        sizes = np.ascontiguousarray(np.broadcast_to(sizes, addresses.shape), dtype=np.int32)
        writes = np.ascontiguousarray(np.broadcast_to(writes, addresses.shape), dtype=np.bool_)
        if addresses.size and (addresses.min() < 0 or sizes.min() < 1):
            raise ValueError("addresses must be at least 0 and sizes at least 1 byte")
        replay(self.state, addresses, sizes, writes, addresses.size)

    @property
    def counts(self) -> tuple[LevelCounts, ...]:
        """What happened since the start, or the last `reset_counts`, level by level."""
        return tuple(LevelCounts(*map(int, row)) for row in self.state.counts)

    @property
    def traffic_bytes(self) -> tuple[int, ...]:
        """Bytes moved: between processor and first level, first and second, ..., and to memory.

        The first counts what instructions ask for, the others whole lines, fetched and written
        back.
        """
        lines = [
            (counts.misses + counts.write_backs) * level.line_bytes
            for counts, level in zip(self.counts, self.levels, strict=True)
        ]
        return int(self.state.moved_bytes.sum()), *lines

    def reset_counts(self) -> None:
        """Count from 0 again; the caches keep their lines."""
        self.state.counts[:] = 0
        self.state.moved_bytes[:] = 0

    def flush(self) -> None:
        """Empty all levels; what was written is counted as written back, level by level."""
        for level, (sets, ways, _, start) in enumerate(self.state.geometry):
            entries = self.state.entries[start : start + sets * ways]
            dropped = entries[entries & 1 == 1]
            entries[:] = _EMPTY
            if not self.state.is_cachegrind:
                for entry in dropped:
                    _hand_down(self.state, level, entry)
