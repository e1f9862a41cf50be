"""Finding the counters of this machine, or of the tree that stands for it: powercap, then perf."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from minibutter.energy.events import EventSource
from minibutter.energy.meter import Meter
from minibutter.energy.perf import has_energy_events
from minibutter.energy.powercap import PowercapSource, has_hypervisor
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
    shared: bool = False,
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
    shared : whether other ranks run on the same packages.
    clock : nanoseconds, monotonic, common to the processes of the machine.
    files : how files are read.

    Examples
    --------
    >>> with open_meter() as meter:
    ...     begin = meter.stamp()
    ...     energy = meter.between(begin, meter.stamp())
    """
    root = find_root() if root is None else root
    machine = SimulatedMachine(root, clock) if is_simulated(root) else None
    try:
        source = _open_source(root, files, clock, machine)
    except CounterUnavailable as failure:
        return Meter(None, str(failure), shared=shared, clock=clock)
    is_real_time = clock is time.monotonic_ns and machine is None
    boot_clock = _boot_ns if is_real_time else None
    return Meter(source, shared=shared, clock=clock, boot_clock=boot_clock, machine=machine)


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


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
