"""Reading the counters at the right moments: when asked, and often enough in between.

A `Sampler` owns a source of counters. It stamps every reading, notices when the machine was
suspended or has changed, keeps account of what reading costs, and hands what it has read to a sink:
the series of a `Meter`, or the board on which the ranks of a node read it.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from minibutter.energy.quantity import Cost
from minibutter.energy.series import TICK_NS
from minibutter.energy.source import CounterUnavailable, Source

LONGEST_PERIOD_S = 30.0
"""Between two readings of the heartbeat, however slowly the counters wrap."""

NARROW_NS = TICK_NS // 2
"""A reading that takes longer belongs to no moment: half an update of the counters."""


class Sink(Protocol):
    """Where samples go."""

    def append(
        self, stamp_ns: int, width_ns: int, values: Sequence[int | CounterUnavailable]
    ) -> None:
        """Take the first counters in microjoules, or why one could not be read.

        Parameters
        ----------
        stamp_ns : middle of the sweep over the counters; later than every stamp before.
        width_ns : length of the sweep.
        """

    def add_break(self, begin_ns: int, end_ns: int, reason: str) -> None:
        """Take a stretch whose energy is not known, of any counter."""

    def set_change(self, change: str | None, checked_ns: int, stamp_ns: int) -> None:
        """Take how the machine has changed, so that the total is no longer all of it, or None.

        Parameters
        ----------
        checked_ns : when that was looked for before.
        stamp_ns : when it was looked for now.
        """


class Sampler:
    """Reads a source and hands on what it shows; may be used from several threads.

    Parameters
    ----------
    source : the counters.
    sink : where samples go, under `lock`.
    clock : nanoseconds, monotonic; the same for all processes of a machine.
    boot_clock : nanoseconds that go on while the machine is suspended; None: it never is.
    n_tries : readings that take longer than `NARROW_NS`, because the thread lost its processor in
        the middle, are repeated so often; the last one counts.

    Attributes
    ----------
    lock : held while a sample is taken and handed on.
    n_summed : counters of the total, which come first.
    newest_ns : the last stamp.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        boot_clock: Callable[[], int] | None = None,
        n_tries: int = 1,
    ) -> None:
        self.source, self._sink = source, sink
        self._n_tries = n_tries
        self._clock, self._boot_clock = clock, boot_clock
        self.lock = threading.Lock()
        self.n_summed = sum(domain.is_summed for domain in source.domains)
        self.newest_ns = self._checked_ns = clock() - 1
        self._reads = self._cpu_ns = 0
        self._slept_ns = self._asleep_ns()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def period_s(self) -> float:
        """Between two readings of the heartbeat: a quarter of the shortest wrap at most."""
        return min([LONGEST_PERIOD_S, *(domain.wrap_s / 4 for domain in self.source.domains)])

    @property
    def cost(self) -> Cost:
        """What reading has taken so far."""
        return Cost(self._reads, self._cpu_ns / 1e9)

    def sample(self, n_domains: int) -> int:
        """Read the first counters now.

        Failures are handed on and never raised.

        Returns
        -------
        The moment of the reading: nanoseconds of the clock, greater than all before.
        """
        with self.lock:
            cpu_ns = time.thread_time_ns()
            for _ in range(self._n_tries):
                begun_ns = self._clock()
                if self._is_closed.is_set():
                    closed = CounterUnavailable("the meter is closed")
                    values = [closed] * n_domains
                else:
                    values = self.source.read_uj(n_domains)
                ended_ns = self._clock()
                if ended_ns - begun_ns <= NARROW_NS:
                    break
            stamp_ns = max((begun_ns + ended_ns) // 2, self.newest_ns + 1)
            if self._boot_clock is not None:
                self._look_for_sleep(stamp_ns)
            self._sink.append(stamp_ns, ended_ns - begun_ns, values)
            self.newest_ns = stamp_ns
            self._reads += 1
            self._cpu_ns += time.thread_time_ns() - cpu_ns
            return stamp_ns

    def _asleep_ns(self) -> int:
        return self._boot_clock() - self._clock() if self._boot_clock else 0

    def _look_for_sleep(self, stamp_ns: int) -> None:
        slept_ns = self._asleep_ns()
        asleep_ns, self._slept_ns = slept_ns - self._slept_ns, slept_ns
        if asleep_ns > 10 * TICK_NS:
            reason = f"the machine was suspended for {asleep_ns / 1e9:.1f} s"
            self._sink.add_break(self.newest_ns, stamp_ns, reason)

    def beat(self) -> None:
        """Look whether the machine has changed, and read everything.

        In this order: who sees the sample must know of the change.
        """
        if self._is_closed.is_set():
            return
        try:
            with self.lock:
                now_ns = max(self._clock(), self.newest_ns)
                self._sink.set_change(self.source.check(), self._checked_ns, now_ns)
                self._checked_ns = now_ns
        finally:
            self.sample(len(self.source.domains))

    def start(self, live: Callable[[threading.Event], None] | None = None) -> None:
        """Let a thread of the background take care of what must not be missed.

        Parameters
        ----------
        live : what the thread does until the event is set; by default `beat` every `period_s`.
        """
        live = live or self._beat_on
        self._thread = threading.Thread(
            target=live, args=(self._is_closed,), name="energy meter", daemon=True
        )
        self._thread.start()

    def _beat_on(self, is_closed: threading.Event) -> None:
        while not is_closed.wait(self.period_s):
            # A reading that was missed shows as a gap; the thread must live to take the next.
            with suppress(Exception):
                self.beat()

    def stop(self) -> None:
        """Tell the thread to end; `close` waits for it."""
        self._is_closed.set()

    def close(self, is_owner: bool = True) -> None:
        """Stop the thread and give the files back.

        Parameters
        ----------
        is_owner : False in a child of the process that opened it: the child has no such thread, and
            the lock may be held by a thread that it does not have.
        """
        self.stop()
        if not is_owner:
            self.source.close()
            return
        if self._thread is not None:
            self._thread.join()
        with self.lock:
            self.source.close()


class Owner:
    """The process in which something was opened that does not survive a fork."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def problem(self) -> str | None:
        """Why it cannot be used in this process; None if it can."""
        if os.getpid() == self._process:
            return None
        return (
            f"the meter was opened by process {self._process} and does not run in this child of "
            "it; open one here"
        )
