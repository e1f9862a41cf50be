"""When to end before all is done: a signal, or the end of the time that the job has.

SIGUSR1, which batch systems send some time before the end, and SIGTERM ask for an end in good
order: nothing new is begun, what is being trained is written down at the next epoch, and the exit
code is 75, "start it again". A second signal ends at once, with 75 too; it costs what was trained
since the last checkpoint.
"""

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import FrameType

from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP, TimeLimit, find_time_limit

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

GRACE_S = 60.0
"""Left for closing the files, of a limit of ten minutes or more; of shorter ones a tenth."""

PATIENCE_S = 2.0
"""After a second signal, for a main thread that is in the middle of a long epoch: Python tells it
of signals only behind that."""

SAME_S = 0.5
"""Signals so close together are one: a launcher may pass on what its process group got, too."""

LEFT_AT_ONCE = "left at once; the same command goes on from the last checkpoints"


class StopNow(BaseException):
    """A second signal; no handler of errors is to catch it."""


class Stopping(AbstractContextManager):
    """Hears signals, and knows when time is up; only in the main thread of a process.

    Parameters
    ----------
    limit : of this job.

    Attributes
    ----------
    is_asked : whether a signal has come.
    """

    def __init__(self, limit: TimeLimit) -> None:
        left_s = math.inf if limit.seconds_left is None else limit.seconds_left
        self._end_s = time.monotonic() + seconds_for_work(left_s)
        self.is_asked, self._asked_s = False, 0.0
        self._before: dict[int, object] = {}
        self._is_over = threading.Event()

    @property
    def seconds_left(self) -> float:
        """Until all must be closed; infinite where no limit is known."""
        return self._end_s - time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether to end: a signal has come, or time is up."""
        return self.is_due_within(0.0)

    def is_due_within(self, seconds: float) -> bool:
        """Whether to end sooner than in so many seconds, as far as that is known."""
        return self.is_asked or self.seconds_left <= seconds

    def __enter__(self) -> "Stopping":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        # What the system writes to, whatever the main thread does, and a thread reads.
        self._pipe = socket.socketpair()
        self._pipe[1].setblocking(False)
        self._before_fd = signal.set_wakeup_fd(self._pipe[1].fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        signal.set_wakeup_fd(self._before_fd)
        self._pipe[1].close()
        self._thread.join()
        self._pipe[0].close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.is_asked:
            self.is_asked, self._asked_s = True, time.monotonic()
        elif time.monotonic() - self._asked_s >= SAME_S:
            raise StopNow(f"{signal.Signals(number).name} came twice")

    def _listen(self) -> None:
        """End the process where the main thread does not hear a second signal."""
        first_s = math.inf
        while heard := self._pipe[0].recv(1):
            if heard[0] not in SIGNALS:
                continue
            first_s = min(first_s, time.monotonic())
            is_second = time.monotonic() - first_s >= SAME_S
            if is_second and not self._is_over.wait(PATIENCE_S):
                print(LEFT_AT_ONCE, file=sys.stderr, flush=True)
                os._exit(EXIT_TIME_IS_UP)


def seconds_for_work(left_s: float) -> float:
    """What is left of a limit when the files are to be closed in time; infinite if it is."""
    return left_s - min(GRACE_S, left_s / 10) if math.isfinite(left_s) else left_s


def read_limit(asked: str | None, environment: Mapping[str, str] = os.environ) -> TimeLimit:
    """The time limit of this job as asked for, or as the batch system says; see `timelimit`."""
    return find_time_limit(asked, environment, time.time())
