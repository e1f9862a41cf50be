"""The counters of Linux' powercap tree, read from files that are held open.

Reading again from a held descriptor takes about a microsecond, opening anew fifteen, and permission
is checked at opening only. What the zones mean stands in `zones`.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from minibutter.energy.source import CounterUnavailable, Domain
from minibutter.energy.zones import MMIO, POWERCAP, Files, Zone, find_zones

_MIRROR_LOOKS = 20
_RETRY_NS = 10**9
_NEWLINE = ord("\n")


class Counter:
    """The held file of one zone.

    Parameters
    ----------
    zone : the zone to read.
    files : how to read.

    Raises
    ------
    CounterUnavailable
        If the file cannot be opened.
    """

    def __init__(self, zone: Zone, files: Files | None = None) -> None:
        self.zone = zone
        self._files = files or Files()
        self._pread = self._files.pread
        self._descriptor: int | None = None
        self.open()

    @property
    def path(self) -> Path:
        """The file that is read."""
        return self.zone.path / "energy_uj"

    def read_uj(self) -> int:
        """Energy since some moment in the past, modulo `zone.modulus_uj`.

        Raises
        ------
        OSError
            If the kernel refuses.
        CounterUnavailable
            If the file is not open, or holds no number of the counter.
        """
        descriptor = self._descriptor
        if descriptor is None:
            raise CounterUnavailable(f"{self.path} is not open")
        text = self._pread(descriptor, 32, 0)
        digits = text[:-1]
        # A number that is cut short is a number, too; the kernel ends each with a newline.
        if not digits.isdigit() or text[-1] != _NEWLINE:
            raise CounterUnavailable(f"{self.path} contains {text!r}, not one line with a number")
        value = int(digits)
        if value > self._largest_uj:
            raise CounterUnavailable(f"{self.path} contains {value}, beyond its range")
        return value

    def open(self, zone: Zone | None = None) -> None:
        """Open the file anew, in the directory of `zone` if the kernel has moved it.

        The file that is held is given back only for another one: whoever may no longer open it may
        still read it.
        """
        zone = zone or self.zone
        path = zone.path / "energy_uj"
        try:
            descriptor = self._files.open(path)
        except PermissionError as error:
            raise CounterUnavailable(
                f"{path} may be read by root only, as in Linux since 5.10 (CVE-2020-8694); "
                "to let every user read the counters until the next boot: "
                f"sudo chmod a+r {zone.path.parent}/intel-rapl:*/energy_uj"
            ) from error
        except OSError as error:
            raise CounterUnavailable(f"{path} cannot be opened ({error.strerror})") from error
        # The same number: others have closed it, and the kernel has given it out again.
        if descriptor != self._descriptor:
            self.close()
        self.zone, self._descriptor = zone, descriptor
        range_uj = zone.max_energy_range_uj
        self._largest_uj = math.inf if range_uj is None else range_uj

    def close(self) -> None:
        """Give the file descriptor back."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


class PowercapSource:
    """All counters of a powercap tree; see `source.Source`.

    Either all packages and their memories can be read, or nothing is: part of them would pass for
    the whole. Zones beside the total may be missing; `notes` says so.

    Parameters
    ----------
    root : folder that stands for `/`.
    files : how to read.
    clock : nanoseconds, monotonic; only paces the search for zones that are lost.
    is_simulated : whether a model drives the tree.

    Raises
    ------
    CounterUnavailable
        If there is nothing to read, or not all of it.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        files: Files | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        is_simulated: bool = False,
    ) -> None:
        self.name = "simulated" if is_simulated else "powercap"
        self.is_simulated = is_simulated
        self._root, self._files, self._clock = root, files or Files(), clock
        self._retry_ns = 0
        zones, notes = find_zones(root, self._files)
        self._zone_names = {zone.name for zone in zones if zone.is_summed}
        self._counters: list[Counter] = []
        apart: list[Counter] = []
        try:
            for zone in zones:
                try:
                    counter = Counter(zone, self._files)
                except CounterUnavailable as failure:
                    if zone.is_summed:
                        readable = [c.zone.name for c in (*self._counters, *apart)]
                        raise CounterUnavailable(
                            f"{failure}{_partial(readable)}{_mmio_hint(zones)}"
                        ) from failure
                    notes.append(str(failure))
                    continue
                (self._counters if zone.is_summed else apart).append(counter)
            self._mirrors = self._find_mirrors()
        except BaseException:
            for counter in (*self._counters, *apart):
                counter.close()
            raise
        mirrors = [counter for counter in self._counters if counter.zone.name in self._mirrors]
        # A mirror's memory is no mirror of anything; AMD processors, which have them, have none.
        self._counters = [c for c in self._counters if c not in mirrors] + mirrors + apart
        if mirrors:
            notes.append(
                f"{', '.join(counter.zone.name for counter in mirrors)} show the counter of "
                f"{', '.join(sorted(set(self._mirrors.values())))} and are not added"
            )
        self.domains = tuple(map(self._domain, self._counters))
        self.is_virtual = has_hypervisor(root, self._files)
        if self.is_virtual:
            notes.append("a hypervisor stands between: the counters are an estimate of the host")
        self.notes = tuple(notes)

    def _domain(self, counter: Counter) -> Domain:
        zone = counter.zone
        mirrored = self._mirrors.get(zone.name)
        note = f"shows the counter of {mirrored}" if mirrored else zone.note
        is_summed = zone.is_summed and mirrored is None
        return Domain(zone.name, zone.modulus_uj, is_summed, zone.max_power_w, note)

    def read_uj(self, n_domains: int) -> list[int | CounterUnavailable]:
        """See `source.Source`."""
        values: list[int | CounterUnavailable] = []
        for counter in self._counters[:n_domains]:
            try:
                values.append(counter.read_uj())
            except (OSError, CounterUnavailable) as error:
                values.append(self._read_again(counter, error))
        return values

    def _read_again(self, counter: Counter, error: Exception) -> int | CounterUnavailable:
        """A package that was off and on again has new files, perhaps in another slot.

        Looked for once a second: it takes far longer than a reading.
        """
        failure = error
        if isinstance(error, OSError):
            failure = CounterUnavailable(f"{counter.path} cannot be read ({error.strerror})")
        if self._clock() < self._retry_ns:
            return failure
        try:
            zones, _ = find_zones(self._root, self._files)
            zone = next((zone for zone in zones if zone.name == counter.zone.name), None)
            if zone is None:
                raise CounterUnavailable(f"{counter.zone.name} is gone from {POWERCAP}")
            counter.open(zone)
            return counter.read_uj()
        except (OSError, CounterUnavailable) as again:
            self._retry_ns = self._clock() + _RETRY_NS
            return again if isinstance(again, CounterUnavailable) else failure

    def check(self) -> str | None:
        """Whether packages have come, or a mirror has turned out to be none."""
        try:
            zones, _ = find_zones(self._root, self._files)
        except CounterUnavailable:
            return None  # What is gone cannot be read, and every reading says so.
        for zone in zones:
            if zone.is_summed and zone.name not in self._zone_names:
                return f"{zone.name} has appeared since the meter was opened and is not counted"
        by_name = {counter.zone.name: counter for counter in self._counters}
        for name, mirrored in self._mirrors.items():
            try:
                is_mirror = self._is_mirror(by_name[name], by_name[mirrored])
            except (OSError, CounterUnavailable):
                continue  # Its next reading will say why.
            if not is_mirror:
                return f"{name} was taken for a mirror of {mirrored} and is not counted"
        return None

    def close(self) -> None:
        """Give the files back."""
        for counter in self._counters:
            counter.close()

    def _find_mirrors(self) -> dict[str, str]:
        """Dies that show the counter of another die of their package, and which."""
        mirrors: dict[str, str] = {}
        originals: dict[str, list[Counter]] = {}
        for counter in self._counters:
            package = counter.zone.die_of
            if package is None:
                continue
            known = originals.setdefault(package, [])
            try:
                original = next((one for one in known if self._is_mirror(counter, one)), None)
            except OSError as error:
                problem = f"{counter.path} cannot be read ({error.strerror})"
                raise CounterUnavailable(
                    f"{problem}, so that mirrored dies of {package} cannot be told from others"
                ) from error
            if original is None:
                known.append(counter)
            else:
                mirrors[counter.zone.name] = original.zone.name
        return mirrors

    @staticmethod
    def _is_mirror(one: Counter, other: Counter) -> bool:
        """Whether two counters are one.

        Readings of one counter through two files are equal unless an update fell between them: a
        matter of microseconds in a millisecond. Two counters are not equal to the last of 2^32
        units, or for one update at most.
        """
        return any(one.read_uj() == other.read_uj() for _ in range(_MIRROR_LOOKS))


def _partial(readable: list[str]) -> str:
    if not readable:
        return ""
    return f" ({', '.join(readable)} can be read, but a part must not pass for the whole)"


def _mmio_hint(zones: list[Zone]) -> str:
    names = [zone.name for zone in zones if zone.name.startswith(MMIO)]
    return f"; {', '.join(names)} shows a package again and does not stand in" if names else ""


def has_hypervisor(root: Path, files: Files) -> bool:
    """Whether the processor's flags say that it is a virtual one."""
    with suppress(OSError):
        for line in files.read_text(root / "proc/cpuinfo").splitlines():
            if line.startswith("flags"):
                return "hypervisor" in line.split()
    return False
