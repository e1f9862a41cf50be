"""Energy counters of processor packages and their memory, as Linux shows them in sysfs.

Which zones are read, and no more: every `package-*` zone of the control type `intel-rapl` (AMD
processors appear under that name, too) and the `dram` zone inside it, which the package does not
contain. `core` and `uncore` are parts of the package, `psys` contains it, and `intel-rapl-mmio`
shows the same package a second time, so none of these is added.

A zone is known by its `name`; the index in its path is a hexadecimal slot number that follows the
order of registration. Only the flat links of `/sys/class/powercap` are followed, because the same
zones appear once more below each other. Source: Documentation/power/powercap and
drivers/powercap of the Linux kernel.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ZONE = re.compile(r"(?P<package>intel-rapl:[0-9a-f]+)(?P<part>:[0-9a-f]+)?")
_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")
_COUNTER_MAX = 2**32 - 1


class RaplUnavailable(Exception):
    """The counters cannot be read; the message says why, and what would help."""


@dataclass(frozen=True)
class Zone:
    """One energy counter."""

    name: str
    """`package-0`, or `package-0/dram` for its memory."""

    path: Path
    """Directory of the zone, a link in `/sys/class/powercap`."""

    max_energy_range_uj: int
    """Largest value that the counter shows."""

    @property
    def modulus_uj(self) -> int:
        """What one wrap is worth: one unit more than the largest value.

        The hardware counts 32 bits of a unit between 15 uJ and 1 J, and `max_energy_range_uj` is
        2^32 - 1 units.
        """
        return self.max_energy_range_uj + round(self.max_energy_range_uj / _COUNTER_MAX)


def find_zones(root: Path) -> list[Zone]:
    """The packages and their memories, ordered by name.

    Parameters
    ----------
    root : directory of the flat links, normally `/sys/class/powercap`.

    Raises
    ------
    RaplUnavailable
        If there is no such directory, no package in it, or a zone that cannot be identified.
    """
    if not root.is_dir():
        raise RaplUnavailable(
            f"{root} does not exist: a virtual machine, a processor without RAPL, or a kernel "
            "without the module intel_rapl_msr"
        )
    # Parts sort after their package, so that its name is known when its memory is met.
    links = sorted(path.name for path in root.iterdir() if _ZONE.fullmatch(path.name))
    packages: dict[str, str] = {}
    zones: dict[str, Zone] = {}
    for link in links:
        match = _ZONE.fullmatch(link)
        name = _read_text(root / link / "name")
        if match["part"] is None and _PACKAGE.fullmatch(name):
            packages[link] = name
        elif match["part"] is not None and name == "dram" and match["package"] in packages:
            name = f"{packages[match['package']]}/dram"
        else:
            continue
        if name not in zones:
            zones[name] = Zone(name, root / link, _read_range(root / link))
    if not zones:
        raise RaplUnavailable(f"{root} has no zone intel-rapl:* with the name package-*")
    return [zones[name] for name in sorted(zones)]


def open_read_only(path: Path) -> int:
    """File descriptor of a sysfs attribute; permission is checked here, not at each read."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Counter:
    """The held file of one zone.

    Reading again from a held descriptor takes about a microsecond, opening anew fifteen.

    Parameters
    ----------
    zone : the zone to read.
    opener : opens `energy_uj` and returns a file descriptor.

    Raises
    ------
    RaplUnavailable
        If the file cannot be opened.
    """

    def __init__(self, zone: Zone, opener: Callable[[Path], int] = open_read_only) -> None:
        self.zone = zone
        self._opener = opener
        self._descriptor: int | None = None
        self._reopen()

    def read_uj(self) -> int:
        """Energy since some moment in the past, modulo `zone.modulus_uj`.

        Raises
        ------
        RaplUnavailable
            If the counter cannot be read now; the next call tries again.
        """
        try:
            if self._descriptor is None:
                self._reopen()
            return self._read_uj()
        except OSError:
            # A package that was off and on again has new files under the old names.
            self._reopen()
            try:
                return self._read_uj()
            except OSError as error:
                raise RaplUnavailable(f"{self._path} cannot be read ({error.strerror})") from error

    def close(self) -> None:
        """Give the file descriptor back."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    @property
    def _path(self) -> Path:
        return self.zone.path / "energy_uj"

    def _reopen(self) -> None:
        self.close()
        name = _read_text(self.zone.path / "name")
        if name != self.zone.name.rpartition("/")[2]:
            raise RaplUnavailable(f"{self.zone.path} was {self.zone.name}, and is now {name}")
        try:
            self._descriptor = self._opener(self._path)
        except PermissionError as error:
            raise RaplUnavailable(
                f"{self._path} may be read by root only, as in Linux since 5.10 (CVE-2020-8694); "
                "to let every user read the counters until the next boot: "
                f"sudo chmod a+r {self.zone.path.parent}/intel-rapl:*/energy_uj"
            ) from error
        except OSError as error:
            raise RaplUnavailable(f"{self._path} cannot be opened ({error.strerror})") from error

    def _read_uj(self) -> int:
        text = os.pread(self._descriptor, 32, 0)
        try:
            value = int(text)
        except ValueError:
            raise RaplUnavailable(f"{self._path} contains {text!r}, which is no number") from None
        if not 0 <= value <= self.zone.max_energy_range_uj:
            raise RaplUnavailable(f"{self._path} contains {value}, beyond its range")
        return value


def _read_range(zone: Path) -> int:
    path = zone / "max_energy_range_uj"
    text = _read_text(path)
    if not text.isdecimal() or int(text) == 0:
        raise RaplUnavailable(f"{path} contains {text!r}, so that no wrap could be corrected")
    return int(text)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise RaplUnavailable(
            f"{path} cannot be read ({error.strerror}); inside a container the counters may be "
            "masked"
        ) from error
