"""A package that counts what a test tells it to, with the interface of `py-perf-event`."""

import os
from collections import Counter
from types import SimpleNamespace

from minibutter.energy.counters import COUNTERS

STEP = {name: 1000 * (place + 1) for place, name in enumerate(COUNTERS)}
"""What every reading adds to a count: an epoch, which is read at both ends, has this many."""


class FakePackage:
    """Stands for the package, for the kernel and for a PMU with a number of counters.

    Attributes
    ----------
    refused : errno with which an event is refused, by its name in `COUNTERS`.
    n_free : events that find a counter at the same time.
    off : events that other events take the counter of, from the next reading on.
    unreadable : events that cannot be read any more.
    is_asleep : whether the thread that opened the events sleeps.
    opened : names of all events that were asked for.
    """

    Hardware = SimpleNamespace(CPU_CYCLES="cycles", INSTRUCTIONS="instructions")
    CacheId = SimpleNamespace(L1D="l1d", LL="llc")
    CacheOp = SimpleNamespace(READ="load")
    CacheResult = SimpleNamespace(ACCESS="loads", MISS="load_misses")

    def __init__(self):
        self.refused = {}
        self.n_free = len(COUNTERS)
        self.off, self.unreadable = set(), set()
        self.is_asleep = False
        self.opened = []
        self.running = set()

    def __call__(self):
        """As an importer: the package is itself."""
        return self

    @staticmethod
    def Cache(which, operation, result):
        assert operation == "load"
        return f"{which}_{result}"

    def Measure(self, events):
        (name,) = events
        self.opened.append(name)
        if name in self.refused:
            raise refusal(self.refused[name])
        return FakeMeasure(self, name)


class FakeMeasure:
    """One event."""

    def __init__(self, package, name):
        self._package, self._name = package, name
        self._is_enabled = False
        self._state = Counter()

    def __del__(self):
        self._package.running.discard(self._name)

    def enable(self):
        self._is_enabled = True
        if len(self._package.running) < self._package.n_free:
            self._package.running.add(self._name)

    def read(self):
        assert self._is_enabled
        if self._name in self._package.unreadable:
            raise refusal(5)
        if not self._package.is_asleep:
            self._state["enabled"] += 500
        if self._name in self._package.running and not self._package.is_asleep:
            share = 0.6 if self._name in self._package.off else 1
            self._state["running"] += int(500 * share)
            self._state["count"] += int(STEP[self._name] * share)
        return SimpleNamespace(
            measurements=[self._state["count"]],
            time_enabled_ns=self._state["enabled"],
            time_running_ns=self._state["running"],
        )


def refusal(code):
    """An error as the package raises it: its number stands in its text and nowhere else."""
    return OSError(f"{os.strerror(code)} (os error {code})")
