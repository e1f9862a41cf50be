"""This machine as the experiments see it: what it is, what it can do, what can be measured on it.

`describe_machine` collects what others read (topology, environment, energy counters, compiler,
BLAS); `measure_ceilings` lets the processor show its speed. Where energy and nn meet, apart from
training; nothing is printed here.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minibutter.energy.caches import Cache
from minibutter.energy.doctor import Diagnosis, diagnose
from minibutter.energy.environment import Environment, is_container, read_environment
from minibutter.energy.sysfs import read_text
from minibutter.energy.topology import Topology, read_topology
from minibutter.provenance import read_blas, read_cpu_model

_MEMORY_SETS = 4
"""The working set that must come from memory, in sizes of the last cache."""

_FMA_SAMPLES = 51


@dataclass(frozen=True)
class Simd:
    """What numba compiles the kernels for."""

    cpu: str
    """LLVM's name of the processor."""
    vector_bytes: int
    has_fma: bool
    features: tuple[str, ...]
    """Of the features that matter to the kernels, those that are there."""


@dataclass(frozen=True)
class Machine:
    """Everything that can be said of a machine without measuring."""

    cpu_model: str
    architecture: str
    kernel: str
    """Release of the operating system."""
    topology: Topology
    environment: Environment
    is_container: bool
    simd: Simd
    blas: str | None
    diagnosis: Diagnosis


@dataclass(frozen=True)
class Bandwidth:
    """Reading by one core from one level of memory."""

    level: str
    """`L1`, `L2`, `L3` or `memory`."""
    working_set_bytes: int | None
    read_gb_per_s: float | None
    reason: str | None
    """Why it was not measured; None where it was."""


@dataclass(frozen=True)
class Ceilings:
    """The speed of one core, for CPUs of one kind."""

    cpu: int
    """Where it was measured."""
    cpus: tuple[int, ...]
    """The CPUs of the mask that are like it."""
    float32_gflops: float | None
    float64_gflops: float | None
    bandwidths: tuple[Bandwidth, ...]
    reason: str | None
    """Why nothing was measured; None where it was."""


def describe_machine(root: Path = Path("/")) -> Machine:
    """What this machine is, for the CPUs that this process may use.

    Parameters
    ----------
    root : where `sys` and `proc` lie.
    """
    return Machine(
        cpu_model=read_cpu_model(),
        architecture=platform.machine(),
        kernel=platform.release(),
        topology=read_topology(root),
        environment=read_environment(root),
        is_container=is_container(root),
        simd=_read_simd(),
        blas=read_blas(),
        diagnosis=diagnose(root),
    )


def as_document(machine: Machine, ceilings: tuple[Ceilings, ...]) -> dict[str, Any]:
    """Plain values for JSON, with what follows from the fields."""
    document = asdict(machine)
    topology = machine.topology
    document["topology"] |= {
        "n_packages": topology.n_packages,
        "n_dies": topology.n_dies,
        "n_cores": topology.n_cores,
        "threads_per_core": topology.threads_per_core,
        "l3_share_bytes": share_of_last_level(topology),
    }
    document["environment"]["is_virtual"] = machine.environment.is_virtual
    document["diagnosis"]["can_measure"] = machine.diagnosis.can_measure
    document["ceilings"] = [asdict(ceiling) for ceiling in ceilings]
    return document


def share_of_last_level(topology: Topology) -> int | None:
    """Bytes of the third level for each rank, when there is one on every core of the mask."""
    return None if topology.n_cores is None else topology.share_bytes(3, topology.n_cores)


def _read_simd() -> Simd:
    import llvmlite.binding as llvm
    import numba

    from minibutter.nn.kernels.tile import HAS_FMA, VECTOR_BYTES, host_features

    features = host_features()
    named = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512vl", "neon", "sve")
    return Simd(
        cpu=numba.config.CPU_NAME or llvm.get_host_cpu_name(),
        vector_bytes=VECTOR_BYTES,
        has_fma=HAS_FMA,
        features=tuple(name for name in named if features.get(name)),
    )


def measure_ceilings(topology: Topology, root: Path = Path("/")) -> tuple[Ceilings, ...]:
    """Speed of one core of every kind, measured on the last CPU of each: about a second a kind.

    Parameters
    ----------
    topology : with the caches, half of each of which is read, and the CPUs to measure on.
    root : where `proc` lies, which tells how much memory is free.
    """
    return tuple(_measure_kind(topology, kind, root) for kind in topology.kinds())


def _measure_kind(topology: Topology, cpus: tuple[int, ...], root: Path) -> Ceilings:
    import numba

    from minibutter.nn.ceiling import measure_fma_ceiling

    cpu = cpus[-1]
    if numba.config.DISABLE_JIT:
        return Ceilings(cpu, cpus, None, None, (), "NUMBA_DISABLE_JIT is set: nothing is compiled")
    with _pinned_to(cpu):
        return Ceilings(
            cpu,
            cpus,
            measure_fma_ceiling("float32", _FMA_SAMPLES),
            measure_fma_ceiling("float64", _FMA_SAMPLES),
            tuple(_measure_bandwidths(topology.caches_of(cpu), root)),
            None,
        )


@contextmanager
def _pinned_to(cpu: int) -> Iterator[None]:
    """Keep this thread on one CPU, and give the others back afterwards."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _measure_bandwidths(caches: tuple[Cache, ...], root: Path) -> Iterator[Bandwidth]:
    from minibutter.nn.ceiling import measure_read_bandwidth

    sets: list[tuple[str, int | None, str | None]] = []
    for cache in caches:
        half = None if cache.size_bytes is None else cache.size_bytes // 2
        sets.append((f"L{cache.level}", half, cache.problem))
    sets.append(("memory", *_memory_set(caches, root)))
    for level, n_bytes, problem in sets:
        if problem is not None or n_bytes is None:
            yield Bandwidth(level, n_bytes, None, problem)
            continue
        try:
            yield Bandwidth(level, n_bytes, measure_read_bandwidth(n_bytes), None)
        except MemoryError:
            yield Bandwidth(level, n_bytes, None, f"there is no room for {n_bytes} bytes")


def _memory_set(caches: tuple[Cache, ...], root: Path) -> tuple[int | None, str | None]:
    """Bytes that no cache holds, or why there is no such number."""
    if not caches:
        return None, "the sizes of the caches are not known"
    last = max(caches, key=lambda cache: cache.level)
    if last.problem is not None or last.size_bytes is None:
        return None, last.problem
    n_bytes, free_bytes = _MEMORY_SETS * last.size_bytes, _free_bytes(root)
    if free_bytes is not None and n_bytes > free_bytes // 2:
        return n_bytes, f"it takes {n_bytes} bytes, and {free_bytes} are free"
    return n_bytes, None


def _free_bytes(root: Path) -> int | None:
    for line in (read_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 2**10
    return None
