"""Where ranks run: which package pays for whom, and one core for each where nobody has said.

A launcher that binds ranks is right. Where it has bound none (every rank may use all processors),
each gets a core of its own, those of a package first, if there are enough: a rank that wanders
between packages can be told no package's energy, and two on one core are no gang.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minibutter.energy.sysfs import format_cpus
from minibutter.energy.topology import Cpu, Topology


@dataclass(frozen=True)
class Placement:
    """The processors of a rank.

    Attributes
    ----------
    cpus : that it may use.
    package : that all of them belong to; None where there are several, or sysfs does not tell.
    cores : of these processors, each named by its first thread; None where sysfs does not tell.
    """

    cpus: tuple[int, ...]
    package: int | None
    cores: tuple[int, ...] | None


def find_placement(topology: Topology) -> Placement:
    """The placement of a rank from the topology of its affinity mask."""
    packages = {cpu.package for cpu in topology.cpus}
    threads = [cpu.threads for cpu in topology.cpus]
    return Placement(
        cpus=tuple(cpu.number for cpu in topology.cpus),
        package=packages.pop() if len(packages) == 1 else None,
        cores=None if None in threads else tuple(sorted({each[0] for each in threads})),
    )


def choose_cpus(topology: Topology, n_ranks: int) -> tuple[int, ...] | None:
    """A processor for each of the ranks of a node, each on a core of its own.

    Parameters
    ----------
    topology : of the mask that all ranks have.
    n_ranks : ranks of the node.

    Returns
    -------
    One processor a rank; None where the launcher has bound the ranks, there are fewer cores than
    ranks, or sysfs does not tell cores apart.
    """
    cpus = topology.cpus
    if topology.n_online is None or len(cpus) < topology.n_online:
        return None
    if any(cpu.threads is None for cpu in cpus):
        return None

    def place(cpu: Cpu) -> tuple[int, int]:
        return (-1 if cpu.package is None else cpu.package, cpu.number)

    first_threads = [cpu for cpu in sorted(cpus, key=place) if cpu.number == cpu.threads[0]]
    if len(first_threads) < n_ranks:
        return None
    return tuple(cpu.number for cpu in first_threads[:n_ranks])


@contextmanager
def claim_core(cpu: int) -> Iterator[bool]:
    """Keep other jobs of this node from binding a rank to a processor; whether it was free.

    A lock on a file in memory, which ends with the process however it ends.
    """
    memory = Path("/dev/shm")
    folder = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    try:
        descriptor = os.open(
            folder / f"minibutter-cpu-{cpu}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
    except OSError:
        yield False  # Another user's.
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def gang_problem(placements: Sequence[Placement]) -> str | None:
    """Why ranks are no gang, each on a core of its own; None if they are."""
    for rank, placement in enumerate(placements):
        if placement.cores is None:
            return "sysfs does not tell which processors share a core"
        if len(placement.cores) > 1:
            return (
                f"rank {rank} of the node may use several cores "
                f"(processors {format_cpus(placement.cpus)}); bind each rank to one, as with "
                "mpirun -bind-to core"
            )
    cores = [placement.cores[0] for placement in placements]
    twice = next((core for core in cores if cores.count(core) > 1), None)
    if twice is None:
        return None
    sharing = [str(rank) for rank, core in enumerate(cores) if core == twice]
    return f"ranks {', '.join(sharing)} of the node share a core; start one rank a core"
