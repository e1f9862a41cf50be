"""Sockets, cores, memory nodes and caches of the CPUs that this process may use.

All of it is read from sysfs, for the CPUs in an affinity mask and not for CPU 0: on hybrid
processors the cores differ, and so do the third-level caches of processors with stacked cache. An
instance of a cache is a distinct (level, type, shared_cpu_list); sizes are never summed over CPUs.

What sysfs does not tell is None, and `Topology.missing` says why. No size is invented.
Source: Documentation/ABI/testing/sysfs-devices-system-cpu of the Linux kernel.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from minibutter.energy.caches import Cache, read_caches
from minibutter.energy.sysfs import (
    CPUS,
    format_cpus,
    parse_cpus,
    read_cpus,
    read_integer,
    read_text,
)

_CORE_TYPES = {"cpu_core": "performance", "cpu_atom": "efficient", "cpu_lowpower": "low-power"}


@dataclass(frozen=True)
class Cpu:
    """One logical CPU; None where sysfs does not tell."""

    number: int
    package: int | None
    """The socket."""
    die: int | None
    core: int | None
    """Number of the core, unique within its package."""
    threads: tuple[int, ...] | None
    """The CPUs of the same core, this one included."""
    node: int | None
    """Memory node (NUMA)."""
    core_type: str | None
    """`performance`, `efficient` or `low-power` on hybrid processors, else None."""


@dataclass(frozen=True)
class Node:
    """A memory node (NUMA)."""

    number: int
    cpus: tuple[int, ...] | None
    memory_bytes: int | None
    distances: tuple[int, ...] | None
    """To every node in the order of their numbers; 10 is local."""


@dataclass(frozen=True)
class Topology:
    """The CPUs of an affinity mask and what they are part of."""

    cpus: tuple[Cpu, ...]
    """Those of the mask, by number."""
    caches: tuple[Cache, ...]
    """Instances that a CPU of the mask uses, by level, type and first CPU."""
    nodes: tuple[Node, ...]
    """All memory nodes of the machine."""
    n_online: int | None
    """CPUs of the machine that are switched on."""
    cpus_without_caches: tuple[int, ...]
    """CPUs of the mask of whose data caches sysfs tells nothing."""
    missing: tuple[str, ...]
    """What sysfs did not tell, in words."""

    @property
    def n_packages(self) -> int | None:
        """Sockets that the mask reaches."""
        return self._count(lambda cpu: cpu.package)

    @property
    def n_dies(self) -> int | None:
        """Dies that the mask reaches."""
        return self._count(lambda cpu: None if cpu.die is None else (cpu.package, cpu.die))

    @property
    def n_cores(self) -> int | None:
        """Cores that the mask reaches."""
        return self._count(lambda cpu: cpu.threads)

    @property
    def threads_per_core(self) -> int | None:
        """The most CPUs that a core of the mask has; 1 where SMT is off or absent."""
        if any(cpu.threads is None for cpu in self.cpus):
            return None
        return max(len(cpu.threads) for cpu in self.cpus)

    def caches_of(self, cpu: int) -> tuple[Cache, ...]:
        """Data and unified caches that one CPU of the mask uses, by level."""
        return tuple(
            cache
            for cache in self.caches
            if cache.cpus is not None and cpu in cache.cpus and cache.type != "Instruction"
        )

    def kinds(self) -> tuple[tuple[int, ...], ...]:
        """The mask's CPUs in groups that have cores of one type and caches of the same sizes.

        One group on most machines; several on hybrid ones and with unequal third-level caches.
        """
        groups: dict[tuple, list[int]] = {}
        for cpu in self.cpus:
            sizes = tuple((c.level, c.size_bytes) for c in self.caches_of(cpu.number))
            groups.setdefault((cpu.core_type, sizes), []).append(cpu.number)
        return tuple(map(tuple, groups.values()))

    @property
    def data_levels(self) -> tuple[int, ...]:
        """Levels of the caches of data that CPUs of the mask have, as far as sysfs tells."""
        return tuple(sorted({cache.level for cache in self.caches if cache.type != "Instruction"}))

    def data_caches(self, level: int) -> list[Cache]:
        """Instances of the data or unified cache of a level."""
        return [c for c in self.caches if c.level == level and c.type != "Instruction"]

    def share_bytes(self, level: int, n_ranks: int = 1) -> int | None:
        """What a rank can count on of a level of the caches.

        Each instance belongs to the mask in proportion to the CPUs that share it; other CPUs are
        somebody else's. Ranks with the same mask are spread evenly over its instances. Where
        instances are unequal, it is the least.

        Parameters
        ----------
        level : 1, 2 or 3; the data or unified cache.
        n_ranks : ranks that run on this mask.

        Returns
        -------
        Bytes; None where `why_no_share` has a reason.
        """
        if self.why_no_share(level) is not None:
            return None
        numbers = {cpu.number for cpu in self.cpus}
        found = self.data_caches(level)
        ranks_each = -(-n_ranks // len(found))
        return min(
            c.size_bytes * len(numbers.intersection(c.cpus)) // len(c.cpus) // ranks_each
            for c in found
        )

    def why_no_share(self, level: int) -> str | None:
        """Why nobody can say what a rank has of a level; None if it is known.

        A size is unknown, or contradicts itself; nobody knows who shares it; or a CPU of the mask
        has no such cache.
        """
        found = self.data_caches(level)
        problem = next((cache.problem for cache in found if cache.problem is not None), None)
        if problem is not None:
            return problem
        if any(cache.cpus is None for cache in found):
            return f"nobody tells which CPUs share a cache of level {level}"
        reached = {cpu for cache in found for cpu in cache.cpus}
        without = tuple(cpu.number for cpu in self.cpus if cpu.number not in reached)
        if not without:
            return None
        reason = f"sysfs tells of no data cache of level {level} of CPU {format_cpus(without)}"
        if reached:
            reason += ", which other CPUs of this process have; bind it to CPUs that are alike"
        return reason

    def _count(self, key) -> int | None:
        values = {key(cpu) for cpu in self.cpus}
        return None if None in values else len(values)


def read_topology(root: Path = Path("/"), affinity: Collection[int] | None = None) -> Topology:
    """The topology of the CPUs in an affinity mask.

    Parameters
    ----------
    root : where `sys` lies.
    affinity : CPU numbers; those that this process may use when left out.
    """
    numbers = sorted(os.sched_getaffinity(0) if affinity is None else affinity)
    nodes = _read_nodes(root)
    node_of = {cpu: node.number for node in nodes for cpu in node.cpus or ()}
    type_of = {
        cpu: core_type
        for device, core_type in _CORE_TYPES.items()
        for cpu in read_cpus(root / "sys/devices" / device / "cpus") or ()
    }
    cpus = tuple(
        _read_cpu(root, number, node_of.get(number), type_of.get(number)) for number in numbers
    )
    caches, without_caches = read_caches(root, numbers)
    online = read_cpus(root / CPUS / "online")
    return Topology(
        cpus,
        caches,
        nodes,
        None if online is None else len(online),
        without_caches,
        tuple(_missing(root, cpus, caches, without_caches, nodes)),
    )


def _read_cpu(root: Path, number: int, node: int | None, core_type: str | None) -> Cpu:
    folder = root / CPUS / f"cpu{number}" / "topology"
    package = read_integer(folder / "physical_package_id")
    die = read_integer(folder / "die_id")
    return Cpu(
        number,
        # Where firmware does not tell, the kernel says -1.
        None if package == -1 else package,
        None if die == -1 else die,
        read_integer(folder / "core_id"),
        read_cpus(folder / "thread_siblings_list"),
        node,
        core_type,
    )


def _read_nodes(root: Path) -> tuple[Node, ...]:
    folder = root / "sys/devices/system/node"
    try:
        numbers = parse_cpus(read_text(folder / "online") or "")
    except ValueError:
        return ()
    return tuple(
        Node(
            number,
            _read_node_cpus(folder / f"node{number}"),
            _read_memory(folder / f"node{number}" / "meminfo"),
            _read_distances(folder / f"node{number}" / "distance"),
        )
        for number in numbers
    )


def _read_node_cpus(folder: Path) -> tuple[int, ...] | None:
    # A node of memory alone has an empty list, which is known.
    return read_cpus(folder / "cpulist") or (() if (folder / "cpulist").exists() else None)


def _read_memory(path: Path) -> int | None:
    for line in (read_text(path) or "").splitlines():
        words = line.split()
        if "MemTotal:" in words and words[-1] == "kB" and words[-2].isdecimal():
            return int(words[-2]) * 2**10
    return None


def _read_distances(path: Path) -> tuple[int, ...] | None:
    words = (read_text(path) or "").split()
    return tuple(map(int, words)) if words and all(map(str.isdecimal, words)) else None


def _missing(
    root: Path,
    cpus: tuple[Cpu, ...],
    caches: tuple[Cache, ...],
    without_caches: tuple[int, ...],
    nodes: tuple[Node, ...],
) -> list[str]:
    """Everything that could not be read or contradicts itself, as sentences for people."""
    folder = root / CPUS
    sentences = []
    for name, values in (
        ("sockets", [cpu.package for cpu in cpus]),
        ("dies", [cpu.die for cpu in cpus]),
        ("cores", [cpu.threads for cpu in cpus]),
    ):
        unknown = tuple(c.number for c, v in zip(cpus, values, strict=True) if v is None)
        if unknown:
            sentences.append(
                f"{name}: {folder}/cpu*/topology does not tell of CPU {format_cpus(unknown)}"
            )
    if without_caches:
        sentences.append(
            f"caches: {folder}/cpu*/cache tells nothing of CPU "
            f"{format_cpus(without_caches)}; some containers and some Arm firmware hide it"
        )
    problems: dict[tuple[int, str], list[str]] = {}
    for cache in caches:
        if cache.problem is not None:
            problems.setdefault((cache.level, cache.type), []).append(cache.problem)
        if cache.cpus is None:
            problems.setdefault((cache.level, cache.type), []).append("shared_cpu_list is missing")
    for (level, type_), found in problems.items():
        others = f" (and {len(found) - 1} more like this)" if len(found) > 1 else ""
        sentences.append(f"L{level} {type_.lower()}: {found[0]}{others}")
    if not nodes:
        sentences.append(f"memory nodes: {root / 'sys/devices/system/node'} tells nothing")
    return sentences
