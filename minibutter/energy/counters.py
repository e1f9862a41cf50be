"""Hardware counters of the thread that trains: cycles, instructions, and what the caches missed.

perf counts through the optional package `py-perf-event` (extra `counters`), and only what the
thread does in user space: not the kernel, not other threads or ranks. Every event is opened for
itself, so that one that a processor does not have takes no other with it.

A PMU has few counters. Events beyond their number would take turns, and perf would scale what it
saw of each up to the whole time. Here an event that finds no counter beside the others is given up
at once, and one that was off its counter within an epoch has no count for that epoch: a number that
was not counted is null with a reason.
Source: perf_event_open(2).
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from minibutter.energy import perf

COUNTERS = (
    "cycles",
    "instructions",
    "l1d_loads",
    "l1d_load_misses",
    "llc_loads",
    "llc_load_misses",
)
"""Columns of an epoch; those of the caches are the generic events of perf, loads of the program
without prefetches. `llc` is the last level, of which many AMD processors tell a process nothing."""

_OFF = f"off its counter for part of the time, which other events took: {perf.FREE_A_COUNTER}"
_ELSEWHERE = "its thread did not run: counters count in the thread that opens them"


def import_package() -> Any:
    """The package, loaded when it is first needed.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    import py_perf_event

    return py_perf_event


class HardwareCounters:
    """The counters of one thread, running and held open; made by `open_counters`.

    Attributes
    ----------
    reasons : for each of `COUNTERS` why it is not counted; None where it is.
    names : those that are counted.
    """

    def __init__(self, measures: Mapping[str, Any], missing: Mapping[str, str]) -> None:
        self.reasons = {name: missing.get(name) for name in COUNTERS}
        self.names = tuple(name for name in COUNTERS if name in measures)
        self._measures = tuple(measures[name] for name in self.names)

    def read(self) -> tuple[Any, ...]:
        """Of each of `names` the package's `Read`, or in its place the reason why there is none."""
        return tuple(map(_read, self._measures))


def open_counters(
    root: Path = Path("/"), importer: Callable[[], Any] = import_package
) -> HardwareCounters:
    """Open what can be opened for the calling thread; never raises for the rest.

    Parameters
    ----------
    root : where `proc` lies, which holds the present `perf_event_paranoid`.
    importer : returns the package.
    """
    measures: dict[str, Any] = {}
    missing: dict[str, str] = {}
    try:
        package = importer()
        for name, event in _events(package).items():
            try:
                measure = package.Measure([event])
                measure.enable()
                read = measure.read()
            except OSError as error:
                missing[name] = _explain(error, root)
                continue
            if 0 == read.time_running_ns < read.time_enabled_ns:
                missing[name] = f"no counter is left for it: {perf.FREE_A_COUNTER}"
            else:
                measures[name] = measure
    except ImportError as error:
        why = f"the package py-perf-event is not installed ({error}): pip install py-perf-event"
        return HardwareCounters({}, dict.fromkeys(COUNTERS, why))
    except AttributeError as error:
        why = f"py-perf-event is of another version ({error}): pip install -U py-perf-event"
        return HardwareCounters({}, dict.fromkeys(COUNTERS, why))
    return HardwareCounters(measures, missing)


def counters_of_this_thread() -> HardwareCounters:
    """The counters of the calling thread, opened once: a fork is another thread, too."""
    return _open_once(threading.get_native_id())


@lru_cache(maxsize=16)
def _open_once(_thread: int) -> HardwareCounters:
    return open_counters()


def _events(package: Any) -> dict[str, Any]:
    """Events as the package knows them; where a PMU is full, those further down are given up."""

    def loads(cache: Any, result: Any) -> Any:
        return package.Cache(cache, package.CacheOp.READ, result)

    cache, result = package.CacheId, package.CacheResult
    return {
        "cycles": package.Hardware.CPU_CYCLES,
        "instructions": package.Hardware.INSTRUCTIONS,
        "llc_load_misses": loads(cache.LL, result.MISS),
        "l1d_load_misses": loads(cache.L1D, result.MISS),
        "l1d_loads": loads(cache.L1D, result.ACCESS),
        "llc_loads": loads(cache.LL, result.ACCESS),
    }


def _explain(error: OSError, root: Path) -> str:
    # The package's errors have no errno; their text ends with the kernel's: "... (os error 13)".
    found = re.search(r"\(os error (\d+)\)", str(error))
    code = int(found[1]) if found else error.errno
    return str(error) if code is None else perf.explain_code(code, root, of_process=True)


def _read(measure: Any) -> Any:
    try:
        return measure.read()
    except OSError as error:
        return f"cannot be read ({error})"


class EpochCounts:
    """Counts of the epochs of a group, shared out equally to its repetitions.

    Parameters
    ----------
    counters : read at both ends of every epoch.
    n_repetitions : that are trained together.
    """

    def __init__(self, counters: HardwareCounters, n_repetitions: int) -> None:
        self._counters, self._n_repetitions = counters, n_repetitions
        self._before: tuple[Any, ...] = ()
        self._epochs: list[tuple[int | str, ...]] = []

    def begin(self) -> None:
        """An epoch begins now."""
        self._before = self._counters.read()

    def end(self) -> None:
        """The epoch is over."""
        after = self._counters.read()
        self._epochs.append(tuple(map(self._share, self._before, after)))

    def _share(self, before: Any, after: Any) -> int | str:
        """A repetition's share of a count, in whole events, or why there is none."""
        for read in (before, after):
            if isinstance(read, str):
                return read
        enabled_ns = after.time_enabled_ns - before.time_enabled_ns
        if enabled_ns == 0:
            return _ELSEWHERE
        if after.time_running_ns - before.time_running_ns < enabled_ns:
            return _OFF
        (first,), (last,) = before.measurements, after.measurements
        return round((last - first) / self._n_repetitions)

    def _column(self, name: str) -> list[int | str]:
        place = self._counters.names.index(name)
        return [epoch[place] for epoch in self._epochs]

    def columns(self) -> dict[str, list[int | None] | None]:
        """Each of `COUNTERS` with a count for every epoch so far; None where none is counted."""
        columns: dict[str, list[int | None] | None] = dict.fromkeys(COUNTERS)
        for name in self._counters.names:
            columns[name] = [None if isinstance(n, str) else n for n in self._column(name)]
        return columns

    def reason(self) -> str | None:
        """Why counts are missing, and of which events; None where there are all."""
        reasons = {name: why for name, why in self._counters.reasons.items() if why is not None}
        for name in self._counters.names:
            failures = Counter(why for why in self._column(name) if isinstance(why, str))
            if failures:
                reasons[name] = ", ".join(
                    f"in {number} of {len(self._epochs)} epochs {why}"
                    for why, number in failures.items()
                )
        texts = (f"{', '.join(names)}: {why}" for why, names in by_reason(reasons))
        return "; ".join(texts) or None


def by_reason(
    reasons: Mapping[str, str | None],
) -> Iterable[tuple[str | None, list[str]]]:
    """Reasons, each with the names that share it."""
    names: dict[str | None, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    return names.items()
