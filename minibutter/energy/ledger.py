"""What work has drawn on a simulated machine, written down by all processes that work on it.

A file of JSON with whole picojoules by counter, under a lock of the file: nothing is rounded away
and nothing lost, however many write. Work stands in it one by one, with begin and end, as long as a
tick may divide it, and as a sum afterwards.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EMPTY = json.dumps({"settled_pj": {}, "works": {}})


@dataclass(frozen=True)
class Work:
    """The content of a ledger at one moment.

    Attributes
    ----------
    settled_pj : by counter, of work that is long over.
    works : by name: begin, end, picojoules by counter, and whether it goes on.
    """

    settled_pj: dict[str, int]
    works: dict[str, list[Any]]

    def drawn_pj(self, counter: str, moment_ns: int) -> int:
        """Energy that work has drawn from a counter until a moment."""
        drawn_pj = self.settled_pj.get(counter, 0)
        for begin_ns, end_ns, energies_pj, _ in self.works.values():
            drawn_pj += _part_pj(energies_pj.get(counter, 0), begin_ns, end_ns, moment_ns)
        return drawn_pj

    def settle(self, until_ns: int) -> None:
        """Add up what was over before a moment, and does not go on."""
        for name, (_, end_ns, energies_pj, goes_on) in list(self.works.items()):
            if end_ns < until_ns and not goes_on:
                for counter, energy_pj in energies_pj.items():
                    self.settled_pj[counter] = self.settled_pj.get(counter, 0) + energy_pj
                del self.works[name]


class Ledger:
    """The file, locked while it is read or written.

    Parameters
    ----------
    path : the file, which holds `EMPTY` at first.
    clock : nanoseconds.
    divisible_ns : work that ended so long ago is divided by no tick.
    """

    def __init__(self, path: Path, clock: Callable[[], int], divisible_ns: int) -> None:
        self._path, self._clock, self._divisible_ns = path, clock, divisible_ns

    @contextmanager
    def reading(self) -> Iterator[Work]:
        """The content, which nobody changes meanwhile."""
        with self._locked(fcntl.LOCK_SH) as (_, work):
            yield work

    def record(
        self,
        name: str,
        begin_ns: int,
        end_ns: int,
        energies_pj: Mapping[str, int],
        goes_on: bool = False,
    ) -> None:
        """Write work down; write it down anew if it went on.

        Parameters
        ----------
        name : of the work, no other's.
        begin_ns, end_ns : when its energy is drawn, evenly.
        energies_pj : by counter.
        goes_on : whether it will be written down anew, so that it must not be settled.
        """
        with self._locked(fcntl.LOCK_EX) as (descriptor, work):
            work.works[name] = [begin_ns, end_ns, dict(energies_pj), goes_on]
            work.settle(self._clock() - self._divisible_ns)
            text = json.dumps(work.__dict__, separators=(",", ":")).encode()
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))

    @contextmanager
    def _locked(self, how: int) -> Iterator[tuple[int, Work]]:
        # A lock belongs to an open file: opened anew, it keeps threads and forks apart, too.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            yield descriptor, Work(**json.loads(content))
        finally:
            os.close(descriptor)


def _part_pj(energy_pj: int, begin_ns: int, end_ns: int, moment_ns: int) -> int:
    if moment_ns >= end_ns:
        return energy_pj
    if moment_ns <= begin_ns:
        return 0
    return energy_pj * (moment_ns - begin_ns) // (end_ns - begin_ns)
