"""Finding the counters of this machine, or of the tree that stands for it: powercap, then perf.

`open_meter` is for one process that has the machine for itself; `open_reader` for the one of many
ranks that reads for all, and `open_rank_meter` for each of them.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from minibutter.energy.attribution import RankMeter
from minibutter.energy.events import EventSource
from minibutter.energy.meter import Meter
from minibutter.energy.perf import has_energy_events
from minibutter.energy.powercap import PowercapSource, has_hypervisor
from minibutter.energy.reader import NodeCounters, NodeReader
from minibutter.energy.simulated import SimulatedMachine, is_simulated
from minibutter.energy.source import CounterUnavailable, Source
from minibutter.energy.zones import Files

ROOT_VARIABLE = "MINIBUTTER_POWERCAP_ROOT"
"""Folder that stands for `/`: the host's, mounted into a container, or a simulated machine's."""


def find_root() -> Path:
    """The folder that stands for `/`, from the environment."""
    return Path(os.environ.get(ROOT_VARIABLE) or "/")


def open_meter(
    root: Path | None = None,
    *,
    clock: Callable[[], int] = time.monotonic_ns,
    files: Files | None = None,
) -> Meter:
    """A meter of this machine, which says why if it cannot measure; never raises for that.

    Either all packages and their memories can be read, or nothing is: part of the counters would
    pass for the whole.

    Parameters
    ----------
    root : folder that stands for `/`; by default MINIBUTTER_POWERCAP_ROOT, or the machine itself. A
        folder made by `simulated.build` is recognised, and its energies are marked `simulated`.
    clock : nanoseconds, monotonic, common to the processes of the machine.
    files : how files are read.

    Examples
    --------
    >>> with open_meter() as meter:
    ...     begin = meter.stamp()
    ...     energy = meter.between(begin, meter.stamp())
    """
    root = find_root() if root is None else root
    machine = _find_machine(root, clock)
    try:
        source = _open_source(root, files, clock, machine)
    except CounterUnavailable as failure:
        return Meter(None, str(failure), clock=clock)
    boot_clock = _boot_clock(clock, machine)
    return Meter(source, clock=clock, boot_clock=boot_clock, machine=machine)


def open_reader(
    packages: Sequence[int | None],
    processes: Sequence[int | None],
    reader_rank: int,
    root: Path | None = None,
    *,
    clock: Callable[[], int] = time.monotonic_ns,
    files: Files | None = None,
) -> NodeReader | str:
    """A reader for all ranks of a node; a sentence where nothing can be read: why.

    Parameters
    ----------
    packages, processes : of every rank, see `NodeReader`.
    reader_rank : this rank's number in the job.
    root, clock, files : as for `open_meter`.
    """
    root = find_root() if root is None else root
    machine = _find_machine(root, clock)
    try:
        source = _open_source(root, files, clock, machine)
    except CounterUnavailable as failure:
        return str(failure)
    boot_clock = _boot_clock(clock, machine)
    try:
        return NodeReader(
            source, packages, processes, reader_rank, clock=clock, boot_clock=boot_clock
        )
    except OSError as error:
        source.close()
        return (
            f"ranks of this node cannot share what is read ({error.strerror}: {error.filename}); "
            "make room in /dev/shm, or set TMPDIR to a folder of this node"
        )


def open_rank_meter(
    counters: NodeCounters | str,
    position: int,
    mode: str,
    reader: NodeReader | None = None,
    root: Path | None = None,
    *,
    clock: Callable[[], int] = time.monotonic_ns,
) -> RankMeter:
    """A rank's view of the counters that are read for its node.

    Parameters
    ----------
    counters, position, mode, reader : as for `RankMeter`.
    root, clock : as for `open_meter`.
    """
    machine = _find_machine(find_root() if root is None else root, clock)
    return RankMeter(counters, position, mode, clock=clock, machine=machine, reader=reader)


def _find_machine(root: Path, clock: Callable[[], int]) -> SimulatedMachine | None:
    return SimulatedMachine(root, clock) if is_simulated(root) else None


def _open_source(
    root: Path,
    files: Files | None,
    clock: Callable[[], int],
    machine: SimulatedMachine | None,
) -> Source:
    """The counters of powercap or, where they are closed, those of perf.

    Raises
    ------
    CounterUnavailable
        If neither can be read: the reason of powercap, and that of perf where it has events.
    """
    try:
        return PowercapSource(root, files or machine, clock, machine is not None)
    except CounterUnavailable as failure:
        # Events are opened by a system call, and are this kernel's whatever folder stands for `/`.
        if root != Path("/") or not has_energy_events(root):
            raise
        try:
            return EventSource(root, has_hypervisor(root, files or Files()))
        except CounterUnavailable as other:
            raise CounterUnavailable(f"{failure}; {other}") from failure


def _boot_clock(
    clock: Callable[[], int], machine: SimulatedMachine | None
) -> Callable[[], int] | None:
    """Tells how long the machine was suspended; only where time is its own."""
    return _boot_ns if clock is time.monotonic_ns and machine is None else None


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
