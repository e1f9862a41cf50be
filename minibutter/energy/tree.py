"""A powercap tree in a folder: files, links and modes as the kernel lays them out.

Zones are nested below `sys/devices/virtual/powercap`, and `sys/class/powercap` has flat links to
all of them; `subsystem` in each leads back to the class. Counters have mode 0400, as since Linux
5.10.
"""

import os
import shutil
from pathlib import Path

from minibutter.energy.profiles import CacheSpec, Profile, ZoneSpec
from minibutter.energy.zones import POWERCAP

_DEVICES = Path("sys/devices/virtual/powercap")
_CPUS = Path("sys/devices/system/cpu")
_LINE_BYTES = 64


def build_tree(root: Path, profile: Profile, start_uj: dict[str, int]) -> None:
    """Write the tree of a machine.

    Parameters
    ----------
    root : folder that stands for `/`; made if it is not there.
    profile : what the machine has.
    start_uj : what the file of each link shows first.
    """
    if profile.has_class:
        (root / POWERCAP).mkdir(parents=True)
    for zone in profile.zones:
        add_zone(root, zone, start_uj.get(zone.link))
    if profile.is_masked:
        shutil.rmtree(root / _DEVICES)
    flags = "fpu sse2 avx2 fma" + (" hypervisor" if profile.is_virtual else "")
    about = {"processor\t": "0", "vendor_id\t": profile.vendor, "flags\t\t": flags}
    _write(root / "proc/cpuinfo", "\n".join(f"{key}: {value}" for key, value in about.items()))
    _write(root / "proc/sys/kernel/random/boot_id", "6d0bf1a0-0000-4000-8000-000000000001")
    _write(root / "proc/sys/kernel/perf_event_paranoid", "2")
    for number, pmu in enumerate(profile.pmus):
        _write(root / "sys/bus/event_source/devices" / pmu / "type", str(4 + number))
    package_of = {cpu: number for number, cpus in enumerate(profile.packages) for cpu in cpus}
    cpus = sorted({*package_of, *(cpu for cache in profile.caches for cpu in cache.cpus)})
    _write(root / _CPUS / "online", f"0-{cpus[-1]}" if cpus[-1] else "0")
    _write(root / _CPUS / "possible", f"0-{cpus[-1]}" if cpus[-1] else "0")
    for cpu in cpus:
        topology = root / _CPUS / f"cpu{cpu}/topology"
        _write(topology / "core_id", str(cpu))
        _write(topology / "thread_siblings_list", str(cpu))
        _write(topology / "physical_package_id", str(package_of.get(cpu, 0)))
        own = [cache for cache in profile.caches if cpu in cache.cpus]
        for index, cache in enumerate(own):
            _add_cache(root / _CPUS / f"cpu{cpu}/cache/index{index}", cache)


def add_zone(root: Path, zone: ZoneSpec, start_uj: int | None = None) -> None:
    """Register a zone, and its control type if it is the first of it.

    Parameters
    ----------
    root : folder that stands for `/`.
    zone : what to add; the zone that it lies in must be there.
    start_uj : what its file shows first; None where it has no energy.
    """
    control, *slots = zone.link.split(":")
    folder = root / _DEVICES / control
    _add_folder(root, folder, control)
    _write(folder / "enabled", "1")
    for depth in range(len(slots)):
        folder /= ":".join([control, *slots[: depth + 1]])
    _add_folder(root, folder, zone.link)
    _write(folder / "name", zone.name)
    _write(folder / "enabled", "1")
    _write(folder / "constraint_0_name", "long_term")
    _write(folder / "constraint_0_power_limit_uw", str(int((zone.max_power_w or 0) * 1e6)))
    _write(folder / "constraint_0_time_window_us", "999424")
    if zone.max_power_w is not None:
        _write(folder / "constraint_0_max_power_uw", str(int(zone.max_power_w * 1e6)))
    if zone.counter is None:
        _write(folder / "power_uw", "0")
        _write(folder / "max_power_range_uw", "0")
        return
    _write(folder / "max_energy_range_uj", str(zone.range_uj))
    _write(folder / "energy_uj", str(start_uj or 0))
    (folder / "energy_uj").chmod(0o400)


def remove_zone(root: Path, link: str) -> None:
    """Unregister a zone and what lies in it, as the kernel does when a package goes offline."""
    shutil.rmtree((root / POWERCAP / link).resolve())
    for path in (root / POWERCAP).iterdir():
        if path.name == link or path.name.startswith(f"{link}:"):
            path.unlink()


def write_counter(root: Path, link: str, energy_uj: int) -> None:
    """Let the file of a counter show a number."""
    path = root / POWERCAP / link / "energy_uj"
    path.chmod(0o600)
    path.write_text(f"{energy_uj}\n", encoding="ascii")
    path.chmod(0o400)


def _add_folder(root: Path, folder: Path, link: str) -> None:
    if folder.exists():
        return
    (folder / "power").mkdir(parents=True)
    _write(folder / "uevent", "")
    classes = root / POWERCAP
    (folder / "subsystem").symlink_to(os.path.relpath(classes, folder))
    (classes / link).symlink_to(os.path.relpath(folder, classes))


def _add_cache(folder: Path, cache: CacheSpec) -> None:
    n_sets = cache.size_kib * 1024 // (cache.ways * _LINE_BYTES)
    for name, value in {
        "level": cache.level,
        "type": cache.type,
        "size": f"{cache.size_kib}K",
        "ways_of_associativity": cache.ways,
        "number_of_sets": n_sets,
        "coherency_line_size": _LINE_BYTES,
        "shared_cpu_list": ",".join(map(str, cache.cpus)),
    }.items():
        _write(folder / name, str(value))


def _write(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{line}\n", encoding="ascii")
