"""One reader for all ranks of a kernel.

Every rank that read the counters itself would disturb the others: a reading interrupts a core of
each package. So one process reads, ten times a second and whenever a rank asks, and writes down for
all (`board`): the counters, the processor time of every rank, and once a second what others than
the ranks have taken of the machine's processor time. What a rank makes of it stands in
`attribution`.

It is a thread, not a process: kernels release the interpreter's lock, and so do its own sleeps.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minibutter.energy.board import UNREAD, BoardWriter, Row
from minibutter.energy.meter import describe_source
from minibutter.energy.quantity import Cost
from minibutter.energy.sampler import Sampler
from minibutter.energy.source import CounterUnavailable, Domain, Source
from minibutter.energy.sysfs import read_text

PERIOD_S = 0.1
"""Between two samples while nobody asks for one."""

SHORTEST_PERIOD_S = 0.002
"""Between two samples however many ranks ask: two updates of the counters."""

N_TRIES = 5
"""Of a reading whose thread lost its processor in the middle: it shares one with the training."""

_LOOK_AROUND_NS = 10**9
_TICK_S = 0.01  # USER_HZ is 100 on all architectures that have RAPL.


@dataclass(frozen=True)
class NodeCounters:
    """What ranks must know to read along; can be sent to them.

    Attributes
    ----------
    folder : of the board.
    source : which counters are summed, as in `Energy.source`.
    is_simulated, is_virtual : see `source.Source`.
    domains : the counters of the total.
    packages : package of every rank of the node, in their order; None: of several, or unknown.
    reader_rank : the rank that reads, in the job.
    n_cpus : processors of the node that are switched on.
    """

    folder: Path
    source: str
    is_simulated: bool
    is_virtual: bool
    domains: tuple[Domain, ...]
    packages: tuple[int | None, ...]
    reader_rank: int
    n_cpus: int


def read_process_cpu_ns(process: int) -> int:
    """Processor time of a process of this kernel, all its threads together, in nanoseconds.

    Raises
    ------
    OSError
        If there is no such process, or not in this container.
    """
    # The clock of a process has its number in its name: MAKE_PROCESS_CPUCLOCK in
    # include/linux/posix-timers_types.h, with CPUCLOCK_SCHED.
    return time.clock_gettime_ns(~process << 3 | 2)


def process_name() -> tuple[int, int | None]:
    """Number of this process, and in which namespace it counts; None where that is not told."""
    try:
        return os.getpid(), Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return os.getpid(), None


def read_busy(root: Path = Path("/")) -> tuple[int, int] | None:
    """Processor time that the whole machine has spent on anything, in nanoseconds, and the number
    of its processors; None where `/proc/stat` does not tell.

    Time stolen by a hypervisor, waiting and idling are not counted.
    """
    lines = (read_text(root / "proc/stat") or "").splitlines()
    n_cpus = sum(line.startswith("cpu") for line in lines) - 1
    words = lines[0].split() if lines else []
    if n_cpus < 1 or words[:1] != ["cpu"] or not all(map(str.isdecimal, words[1:8])):
        return None
    user, nice, system, _idle, _iowait, irq, softirq = map(int, words[1:8])
    return round((user + nice + system + irq + softirq) * _TICK_S * 1e9), n_cpus


class NodeReader:
    """Reads for all ranks of a node, in a thread of its own, until it is closed.

    Parameters
    ----------
    source : the counters; closed with the reader.
    packages : of every rank, see `NodeCounters`.
    processes : number of the process of every rank; None where it runs in another namespace, in
        which numbers mean others.
    reader_rank : this rank's number in the job.
    clock, boot_clock : as for `Sampler`.
    process_cpu_ns, busy : how processor times are read.

    Attributes
    ----------
    counters : to be sent to the ranks.
    """

    def __init__(
        self,
        source: Source,
        packages: Sequence[int | None],
        processes: Sequence[int | None],
        reader_rank: int = 0,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        boot_clock: Callable[[], int] | None = None,
        process_cpu_ns: Callable[[int], int] = read_process_cpu_ns,
        busy: Callable[[], tuple[int, int] | None] = read_busy,
    ) -> None:
        domains = tuple(domain for domain in source.domains if domain.is_summed)
        self._n_domains, self._processes = len(domains), tuple(processes)
        self._process_cpu_ns, self._busy = process_cpu_ns, busy
        self._foreign_from_ns: int | None = None
        self._is_closed = False
        self._failures: dict[str, str] = {}
        self._foreign_stamp_ns = self._foreign_ns = 0
        self._board = BoardWriter(len(domains), len(self._processes))
        self._sampler = Sampler(source, self, clock=clock, boot_clock=boot_clock, n_tries=N_TRIES)
        found = busy()
        self.counters = NodeCounters(
            folder=self._board.folder,
            source=describe_source(source),
            is_simulated=source.is_simulated,
            is_virtual=source.is_virtual,
            domains=domains,
            packages=tuple(packages),
            reader_rank=reader_rank,
            n_cpus=found[1] if found else 0,
        )
        self._sampler.sample(len(domains))
        self._sampler.start(self._serve)

    @property
    def cost(self) -> Cost:
        """What reading has taken so far."""
        return self._sampler.cost

    def append(
        self, stamp_ns: int, width_ns: int, values: Sequence[int | CounterUnavailable]
    ) -> None:
        """See `sampler.Sink`; domains beside the total come last and are left out."""
        values = values[: self._n_domains]
        failures = {
            str(i): str(value)
            for i, value in enumerate(values)
            if isinstance(value, CounterUnavailable)
        }
        if failures != self._failures:
            self._board.tell({"stamp_ns": stamp_ns, "failures": failures})
            self._failures = failures
        cpu_ns = tuple(map(self._cpu_ns, self._processes))
        if stamp_ns - self._foreign_stamp_ns >= _LOOK_AROUND_NS:
            self._look_around(stamp_ns, cpu_ns)
        numbers = tuple(UNREAD if isinstance(v, CounterUnavailable) else v for v in values)
        self._board.write(
            Row(stamp_ns, width_ns, self._foreign_stamp_ns, self._foreign_ns, numbers, cpu_ns)
        )

    def add_break(self, begin_ns: int, end_ns: int, reason: str) -> None:
        """See `sampler.Sink`."""
        self._board.tell({"begin_ns": begin_ns, "end_ns": end_ns, "reason": reason})

    def set_change(self, change: str | None, checked_ns: int, stamp_ns: int) -> None:
        """See `sampler.Sink`."""
        if change is not None:
            self.add_break(checked_ns, stamp_ns, change)
        self._board.tell({"change": change, "checked_ns": stamp_ns})

    def hide(self) -> None:
        """All ranks have opened the board: a kill shall leave nothing behind."""
        self._board.hide()

    def close(self) -> None:
        """Stop reading; ranks that ask after that get a reason instead of joules."""
        if self._is_closed:
            return
        self._is_closed = True
        self._sampler.stop()
        self._board.ring()  # It must not sleep out its time.
        self._sampler.close()
        self._board.close()

    def _serve(self, is_closed: threading.Event) -> None:
        next_beat_s = time.monotonic() + self._sampler.period_s
        while not is_closed.is_set():
            rung = self._board.wait(PERIOD_S)
            if is_closed.is_set():
                return
            # A sample that was missed shows as a gap; the thread must live to take the next.
            with suppress(Exception):
                if time.monotonic() >= next_beat_s:
                    next_beat_s = time.monotonic() + self._sampler.period_s
                    self._sampler.beat()
                else:
                    self._sampler.sample(self._sampler.n_summed)
            if rung:
                is_closed.wait(SHORTEST_PERIOD_S)

    def _cpu_ns(self, process: int | None) -> int:
        if process is None:
            return UNREAD
        try:
            return self._process_cpu_ns(process)
        except OSError:
            return UNREAD

    def _look_around(self, stamp_ns: int, cpu_ns: Sequence[int]) -> None:
        """What others than the ranks have taken since the first look."""
        busy = self._busy()
        if busy is None or UNREAD in cpu_ns:
            return
        others_ns = busy[0] - sum(cpu_ns)
        if self._foreign_from_ns is None:
            self._foreign_from_ns = others_ns
        # May fall by a tick: the two are not counted in the same way.
        self._foreign_ns, self._foreign_stamp_ns = others_ns - self._foreign_from_ns, stamp_ns
