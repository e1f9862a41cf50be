"""The zones below `sys/class/powercap`: which counters there are, and which of them add up.

The energy of a machine is that of its packages and of their memory, which the package does not
contain although its zone lies inside:

* `intel-rapl:*` with the name `package-N` or `package-N-die-M` (AMD processors appear under that
  name, too), and the `dram` inside it: summed;
* `core` and `uncore` are parts of the package (and `core` of AMD is a single core), `psys` and
  `psys-N` contain it, `intel-rapl-mmio` shows it a second time: known, read apart, never added;
* dies that show the counter of their package, as those of AMD processors did from Linux 6.9 to
  6.10.11, count once; those of Xeon AP are independent, and are summed;
* other control types (`dtpm`, `idle-inject`, `arm-scmi`) are no counters of the processor.

A zone is known by its control type and its `name`. The index in its path is a hexadecimal slot
number that follows the order of registration and may change. Only the flat links of the class are
followed, because the same zones appear once more below each other, and `subsystem` leads back up.
Source: Documentation/power/powercap and drivers/powercap of the Linux kernel.
"""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minibutter.energy.source import MAX_PLATFORM_W, MAX_POWER_W, CounterUnavailable

POWERCAP = Path("sys/class/powercap")
RAPL, MMIO = "intel-rapl", "intel-rapl-mmio"

_LINK = re.compile(r"(?P<control>[a-z][a-z-]*?)(?P<zone>:[0-9a-f]+)(?P<part>:[0-9a-f]+)?")
_PACKAGE = re.compile(r"package-\d+(?:-die-(?P<die>\d+))?")
_PLATFORM = re.compile(r"psys(-\d+)?")
_COUNTER_MAX = 2**32 - 1

_POWER_MARGIN = 4.0
_LEAST_BOUND_W = 250.0
"""`constraint_*_max_power_uw` is what a package is sold for; turbo takes a multiple for a while."""


class Files:
    """How files of the tree are read: the seam where tests and the simulation step in.

    Parameters
    ----------
    opener : opens a path and returns a file descriptor; raises OSError.
    pread : reads so many bytes of a descriptor from an offset; raises OSError.
    """

    def __init__(
        self,
        opener: Callable[[Path], int] | None = None,
        pread: Callable[[int, int, int], bytes] = os.pread,
    ) -> None:
        self.open = opener or open_read_only
        self.pread = pread

    def read_text(self, path: Path) -> str:
        """The content without the space around it.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        descriptor = self.open(path)
        try:
            return self.pread(descriptor, 8192, 0).decode("ascii", errors="replace").strip()
        finally:
            os.close(descriptor)


def open_read_only(path: Path) -> int:
    """File descriptor of a sysfs attribute; permission is checked here, not at each read."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@dataclass(frozen=True)
class Zone:
    """One energy counter."""

    name: str
    """`package-0`, `package-0/dram`, `psys`, `intel-rapl-mmio/package-0`."""

    path: Path
    """Directory of the zone, a link in `sys/class/powercap`."""

    max_energy_range_uj: int | None
    """Largest value that the counter shows; None where it cannot be read."""

    is_summed: bool = True
    """Whether it is part of the machine's energy."""

    max_power_w: float = MAX_POWER_W
    """What the domain cannot exceed."""

    note: str | None = None
    """What is odd about it."""

    @property
    def modulus_uj(self) -> int | None:
        """What one wrap is worth: one unit more than the largest value.

        The hardware counts 32 bits of a unit between 15 uJ and 1 J, and `max_energy_range_uj` is
        2^32 - 1 units.
        """
        if self.max_energy_range_uj is None:
            return None
        return self.max_energy_range_uj + max(round(self.max_energy_range_uj / _COUNTER_MAX), 1)

    @property
    def kernel_name(self) -> str:
        """What the file `name` says."""
        return self.name.rpartition("/")[2]

    @property
    def die_of(self) -> str | None:
        """The package that this die is one of; None for everything else."""
        match = _PACKAGE.fullmatch(self.name)
        return self.name.partition("-die-")[0] if match and match["die"] else None


def find_zones(root: Path, files: Files | None = None) -> tuple[list[Zone], list[str]]:
    """All zones that have an energy counter, those of the total first, and notes on the others.

    Parameters
    ----------
    root : folder that stands for `/`.
    files : how to read.

    Raises
    ------
    CounterUnavailable
        If there is no such directory, no package in it, or a zone of `intel-rapl` cannot be
        identified: it might be a package, and the rest would pass for the whole.
    """
    zones, notes, foreign = _collect(root, files or Files())
    if foreign:
        notes.append(f"no counters of the processor, left out: {', '.join(sorted(foreign))}")
    if not any(zone.is_summed for zone in zones):
        names = sorted({*(zone.name for zone in zones), *foreign})
        found = f"; it has {', '.join(names)}" if names else ""
        raise CounterUnavailable(
            f"{root / POWERCAP} has no zone {RAPL}:* with the name package-*{found}"
        )
    without = _packages_without_memory(zones)
    if without:
        notes.append(
            f"{', '.join(without)}: no counter of memory, which other packages have; what memory "
            "there draws is not in the total"
        )
    return zones, notes


def _packages_without_memory(zones: list[Zone]) -> list[str]:
    """Those that have none while others do: the driver skips counters that show 0 when it loads."""
    summed = {zone.name for zone in zones if zone.is_summed}
    with_memory = {name.removesuffix("/dram") for name in summed if name.endswith("/dram")}
    packages = {name for name in summed if not name.endswith("/dram")}
    return sorted(packages - with_memory) if with_memory else []


def list_zones(root: Path, files: Files | None = None) -> list[Zone]:
    """The same zones for people: also where no package is among them, and none where none can be
    identified."""
    try:
        return _collect(root, files or Files())[0]
    except CounterUnavailable:
        return []


def _collect(root: Path, files: Files) -> tuple[list[Zone], list[str], set[str]]:
    """All zones with a counter, those of the total first, notes, and foreign control types."""
    folder = root / POWERCAP
    try:
        links = sorted(os.listdir(folder))  # noqa: PTH208 - the errors are OSError, as elsewhere
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise CounterUnavailable(
                f"{folder} does not exist: a virtual machine, a processor without RAPL, or a "
                "kernel without the module intel_rapl_msr"
            ) from error
        raise CounterUnavailable(f"{folder} cannot be read ({error.strerror})") from error
    zones: dict[str, Zone] = {}
    parents: dict[str, str] = {}
    notes: list[str] = []
    foreign: set[str] = set()
    # Parts sort after the zone that they lie in, so that its name is known by then.
    for link in links:
        match = _LINK.fullmatch(link)
        if match is None or match["control"] not in (RAPL, MMIO):
            foreign |= {link.partition(":")[0]} - {RAPL, MMIO}
            continue
        path = folder / link
        try:
            kernel_name = files.read_text(path / "name")
        except OSError as error:
            if match["control"] == MMIO:
                notes.append(f"{path} cannot be read ({error.strerror})")
                continue
            raise CounterUnavailable(
                f"{path / 'name'} cannot be read ({error.strerror}): inside a container the "
                "counters may be masked"
            ) from error
        above = parents.get(match["control"] + match["zone"]) if match["part"] else None
        if match["part"] and above is None:
            notes.append(f"{path} ({kernel_name}) lies in no known zone; left out")
            continue
        name = f"{above}/{kernel_name}" if above else kernel_name
        if match["control"] == MMIO and above is None:
            name = f"{MMIO}/{name}"
        if not match["part"]:
            parents[link] = name
        is_summed = match["control"] == RAPL and (
            bool(_PACKAGE.fullmatch(name))
            or (kernel_name == "dram" and bool(_PACKAGE.fullmatch(above or "")))
        )
        if not (is_summed or _is_known_part(name)):
            notes.append(f"{path} has the unknown name {kernel_name!r}; read apart, not added")
        if name in zones:
            notes.append(f"{path} is a second {name}, beside {zones[name].path.name}; left out")
            continue
        if not _has_counter(path, files):
            problem = f"{path} ({name}) shows no energy, power at most"
            if is_summed:
                raise CounterUnavailable(problem)
            notes.append(problem)
            continue
        range_uj, note = _read_range(path, files)
        if note:
            notes.append(f"{name}: {note}")
        bound_w = _read_bound(path, files, bool(_PLATFORM.fullmatch(name)))
        zones[name] = Zone(name, path, range_uj, is_summed, bound_w, note)
    ordered = sorted(zones.values(), key=lambda zone: (not zone.is_summed, zone.name))
    return ordered, notes, foreign


def _is_known_part(name: str) -> bool:
    above, _, last = name.rpartition("/")
    known = last in ("core", "uncore", "dram") if above else _PLATFORM.fullmatch(last)
    return bool(known) or above == MMIO


def _has_counter(path: Path, files: Files) -> bool:
    """Whether `energy_uj` is there, readable or not."""
    try:
        os.close(files.open(path / "energy_uj"))
    except OSError as error:
        return error.errno != errno.ENOENT
    return True


def _read_range(path: Path, files: Files) -> tuple[int | None, str | None]:
    try:
        text = files.read_text(path / "max_energy_range_uj")
    except OSError as error:
        text, why = "", f"cannot be read ({error.strerror})"
    else:
        why = f"contains {text!r}"
    if text.isdecimal() and int(text) > 0:
        return int(text), None
    return None, f"max_energy_range_uj {why}, so that no wrap can be corrected"


def _read_bound(path: Path, files: Files, is_platform: bool) -> float:
    """Bound on power in watts: generous, because it only tells a wrap from a reset."""
    stated_uw = []
    for constraint in range(3):
        try:
            text = files.read_text(path / f"constraint_{constraint}_max_power_uw")
        except OSError:
            continue
        stated_uw += [int(text)] if text.isdecimal() and int(text) > 0 else []
    if not stated_uw:
        return MAX_PLATFORM_W if is_platform else MAX_POWER_W
    return max(_POWER_MARGIN * max(stated_uw) / 1e6, _LEAST_BOUND_W)
