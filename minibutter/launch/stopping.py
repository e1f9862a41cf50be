"""When to end before all is done: a signal, or the end of the time that the job has.

SIGUSR1, which batch systems send some time before the end, and SIGTERM ask for an end in good
order: nothing new is begun, what is being trained is written down at the next epoch, and the exit
code is 75, "start it again". A second signal ends at once.
"""

import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import FrameType

from minibutter.sweeps.timelimit import TimeLimit, find_time_limit

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

GRACE_S = 60.0
"""Left for closing the files, of a limit of ten minutes or more; of shorter ones a tenth."""


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
        self.is_asked = False
        self._before: dict[int, object] = {}

    @property
    def seconds_left(self) -> float:
        """Until all must be closed; infinite where no limit is known."""
        return self._end_s - time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether to end: a signal has come, or time is up."""
        return self.is_asked or self.seconds_left <= 0

    def __enter__(self) -> "Stopping":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise StopNow(f"{signal.Signals(number).name} came twice")
        self.is_asked = True


def seconds_for_work(left_s: float) -> float:
    """What is left of a limit when the files are to be closed in time; infinite if it is."""
    return left_s - min(GRACE_S, left_s / 10) if math.isfinite(left_s) else left_s


def read_limit(asked: str | None, environment: Mapping[str, str] = os.environ) -> TimeLimit:
    """The time limit of this job as asked for, or as the batch system says; see `timelimit`."""
    return find_time_limit(asked, environment, time.time())
