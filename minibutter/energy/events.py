"""Performance events as counters of the meter, where those of powercap are closed.

perf adds up in 64 bits within the kernel, so that nothing wraps; its permission is another one than
that of powercap (CAP_PERFMON or `kernel.perf_event_paranoid`), and one may be open where the other
is not. What an event is, and why it cannot be opened, stands in `perf`.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from minibutter.energy import perf
from minibutter.energy.perf import PerfEvent
from minibutter.energy.source import (
    MAX_PLATFORM_W,
    MAX_POWER_W,
    CounterUnavailable,
    Domain,
)

_NEVER_WRAPS_UJ = 2**32 * 10**6


class EventSource:
    """All energy events of a machine, held open; see `source.Source`.

    Packages and the memory that the machine counts can be read, or nothing is: a part of them would
    pass for the whole. Platform and cores are read apart and never added; where they cannot be
    opened, `notes` says so.

    Parameters
    ----------
    root : folder that stands for `/`.
    is_virtual : whether a hypervisor stands between.
    opener : opens an event, given its attribute and its CPU, and returns a file descriptor.
    reader : reads 24 bytes from a descriptor.

    Raises
    ------
    CounterUnavailable
        If there is nothing to read, not all of it, or dies that may be mirrors of each other.
    """

    name = "perf"
    is_simulated = False

    def __init__(
        self,
        root: Path = Path("/"),
        is_virtual: bool = False,
        opener: Callable[[bytes, int], int] = perf.open_event,
        reader: Callable[[int], bytes] = perf.read_event,
    ) -> None:
        self.is_virtual = is_virtual
        self._root, self._reader = root, reader
        opened, missing = _open_events(root, opener)
        problem = _why_partial(opened, missing)
        if problem is not None:
            _close(opened)
            raise CounterUnavailable(problem)
        self._descriptors = opened
        # Those of the total come first.
        self._events = sorted(opened, key=lambda event: not _is_summed(event.domain))
        self.domains = tuple(
            Domain(event.domain, _NEVER_WRAPS_UJ, _is_summed(event.domain), _bound_w(event.domain))
            for event in self._events
        )
        self.notes = tuple(f"{name}: {why}" for name, why in missing.items())

    def read_uj(self, n_domains: int) -> list[int | CounterUnavailable]:
        """See `source.Source`."""
        values: list[int | CounterUnavailable] = []
        for event in self._events[:n_domains]:
            try:
                descriptor = self._descriptors.get(event)
                if descriptor is None:
                    raise CounterUnavailable("the events of perf are closed")
                values.append(perf.read_uj(event, descriptor, self._reader))
            except CounterUnavailable as failure:
                values.append(failure)
        return values

    def check(self) -> str | None:
        """Whether packages have come or gone; their events are of those that were there."""
        try:
            found = {event.domain for event in perf.find_events(self._root)}
        except CounterUnavailable:
            return None  # What cannot be read any more says so itself.
        held = {event.domain for event in self._events}
        for name in sorted(filter(_is_summed, found ^ held)):
            if name in found:
                return f"{name} has appeared since the meter was opened and is not counted"
            return f"{name} is gone since the meter was opened"
        return None

    def close(self) -> None:
        """Give the descriptors back."""
        _close(self._descriptors)
        self._descriptors = {}


def _open_events(
    root: Path, opener: Callable[[bytes, int], int]
) -> tuple[dict[PerfEvent, int], dict[str, str]]:
    """Descriptors of the events, and why other domains are missing.

    Events of one kind are opened on all packages or not at all: part of them would pass for the
    whole.
    """
    events = perf.find_events(root)
    opened: dict[PerfEvent, int] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(event.name for event in events):
        of_kind = [event for event in events if event.name == name]
        of_kind_opened: dict[PerfEvent, int] = {}
        try:
            for event in of_kind:
                attribute = perf.attribute(event.type, event.config)
                of_kind_opened[event] = opener(attribute, event.cpu)
        except OSError as error:
            _close(of_kind_opened)
            reason = perf.explain(error.errno, name, root)
            missing |= {event.domain: reason for event in of_kind}
        else:
            opened |= of_kind_opened
    return opened, missing


def _close(descriptors: Mapping[PerfEvent, int]) -> None:
    for descriptor in descriptors.values():
        with suppress(OSError):
            os.close(descriptor)


def _why_partial(opened: Mapping[PerfEvent, int], missing: Mapping[str, str]) -> str | None:
    """Why the packages and memories that are open are not the energy of the machine."""
    for name, why in missing.items():
        if _is_summed(name):
            is_memory = name.endswith("/dram")
            rest = "; packages alone must not pass for packages with memory" if is_memory else ""
            return why + rest
    dies = [event.domain for event in opened if "-die-" in event.domain]
    if dies:
        return (
            f"{', '.join(dies)}: from Linux 6.9 to 6.11 the dies of AMD processors show one "
            "and the same counter, and counts from different moments do not tell whether these "
            "do; powercap tells them apart"
        )
    return None


def _bound_w(domain: str) -> float:
    return MAX_PLATFORM_W if domain.startswith("psys") else MAX_POWER_W


def _is_summed(domain: str) -> bool:
    """Packages and their memory; `psys` contains them, and cores are parts."""
    return domain.startswith("package-")
