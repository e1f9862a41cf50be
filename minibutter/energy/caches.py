"""The caches of CPUs, instance by instance, as sysfs tells of them.

An instance is a distinct (level, type, shared_cpu_list): CPUs that share one are not to be added
up. What a process has of them follows from its CPUs, see `topology`.
Source: Documentation/ABI/testing/sysfs-devices-system-cpu of the Linux kernel.
"""

from dataclasses import dataclass
from pathlib import Path

from minibutter.energy.sysfs import CPUS, read_cpus, read_integer, read_text

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Cache:
    """One instance of a cache."""

    level: int
    type: str
    """`Data`, `Instruction` or `Unified`."""
    size_bytes: int | None
    line_bytes: int | None
    ways: int | None
    sets: int | None
    cpus: tuple[int, ...] | None
    """All CPUs that share it, also those outside the mask; None if unknown."""
    problem: str | None
    """Why its size is not to be trusted; None where it is."""


def read_caches(root: Path, numbers: list[int]) -> tuple[tuple[Cache, ...], tuple[int, ...]]:
    """Instances of the caches of these CPUs, and the CPUs that tell of none for data.

    Parameters
    ----------
    root : where `sys` lies.
    numbers : of the CPUs.

    Returns
    -------
    Instances by level, type and first CPU; numbers of CPUs.
    """
    instances: dict[tuple, Cache] = {}
    without = []
    for number in numbers:
        folders = (root / CPUS / f"cpu{number}" / "cache").glob("index*")
        found = [cache for cache in map(_read_cache, folders) if cache is not None]
        if all(cache.type == "Instruction" for cache in found):
            without.append(number)
        for cache in found:
            # Without the list nobody knows whether two CPUs speak of one instance.
            sharers = cache.cpus if cache.cpus is not None else ("cpu", number)
            instances.setdefault((cache.level, cache.type, sharers), cache)
    ordered = sorted(instances.values(), key=lambda c: (c.level, c.type, c.cpus or ()))
    return tuple(ordered), tuple(without)


def _read_cache(folder: Path) -> Cache | None:
    level, type_ = read_integer(folder / "level"), read_text(folder / "type")
    if level is None or type_ is None:
        return None
    size = _read_size(folder / "size")
    line = read_integer(folder / "coherency_line_size") or None
    ways = read_integer(folder / "ways_of_associativity") or None
    sets = read_integer(folder / "number_of_sets") or None
    problem = None
    if size is None:
        problem = f"{folder / 'size'} does not tell its size"
    elif None not in (line, ways, sets) and ways * sets * line != size:
        problem = (
            f"{folder}: the size is {size} bytes, but {ways} ways x {sets} sets x {line} bytes are "
            f"{ways * sets * line}"
        )
    cpus = read_cpus(folder / "shared_cpu_list")
    return Cache(level, type_, size, line, ways, sets, cpus, problem)


def _read_size(path: Path) -> int | None:
    """Bytes, from a text such as `32768K`; fully associative caches may say 0 and count as None."""
    text = read_text(path) or ""
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    return int(number) * unit or None if number.isdecimal() else None
