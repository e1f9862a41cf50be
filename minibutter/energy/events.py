"""Performance events as counters of the meter, where those of powercap are closed.

perf adds up in 64 bits within the kernel, so that nothing wraps; its permission is another one than
that of powercap (CAP_PERFMON or `kernel.perf_event_paranoid`), and one may be open where the other
is not. What an event is, and why it cannot be opened, stands in `perf`.
"""

from collections.abc import Callable
from pathlib import Path

from minibutter.energy import perf
from minibutter.energy.source import CounterUnavailable, Domain

_NEVER_WRAPS_UJ = 2**32 * 10**6


class EventSource:
    """All energy events of a machine; see `source.Source`.

    Packages and the memory that the machine counts can be read, or nothing is: a part of them would
    pass for the whole. Platform and cores are read apart and never added.

    Parameters
    ----------
    root : folder that stands for `/`.
    is_virtual : whether a hypervisor stands between.
    opener, reader : see `perf.open_perf`.

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
        try:
            self._events = perf.open_perf(root, opener, reader)
        except perf.PerfUnavailable as failure:
            raise CounterUnavailable(str(failure)) from failure
        problem = self._problem()
        if problem is not None:
            self._events.close()
            raise CounterUnavailable(problem)
        names = self._events.domains
        # Those of the total come first.
        self._order = sorted(range(len(names)), key=lambda place: not _is_summed(names[place]))
        self.domains = tuple(
            Domain(names[place], _NEVER_WRAPS_UJ, _is_summed(names[place])) for place in self._order
        )
        self.notes = tuple(f"{name}: {why}" for name, why in self._events.missing.items())

    def _problem(self) -> str | None:
        """Why the packages and memories that are open are not the energy of the machine."""
        for name, why in self._events.missing.items():
            if _is_summed(name):
                return f"{why}; packages alone must not pass for packages with memory"
        dies = [name for name in self._events.domains if "-die-" in name]
        if dies:
            return (
                f"{', '.join(dies)}: from Linux 6.9 to 6.11 the dies of AMD processors show one "
                "and the same counter, and counts from different moments do not tell whether these "
                "do; powercap tells them apart"
            )
        return None

    def read_uj(self, n_domains: int) -> list[int | CounterUnavailable]:
        """See `source.Source`."""
        try:
            values = self._events.read_uj()
        except perf.PerfUnavailable as failure:
            return [CounterUnavailable(str(failure))] * n_domains
        return [values[place] for place in self._order[:n_domains]]

    def check(self) -> str | None:
        """Events are of the CPUs that were there when they were opened, and stay so."""
        return None

    def close(self) -> None:
        """Give the descriptors back."""
        self._events.close()


def _is_summed(domain: str) -> bool:
    """Packages and their memory; `psys` contains them, and cores are parts."""
    return domain.startswith("package-")
