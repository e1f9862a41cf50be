"""Whether energy can be measured here, through what, and if not, which line would mend it.

`diagnose` looks at the zones of powercap and at the energy events of perf, tries to open every one
of them, lets the processor work for a moment and looks whether the counters move and whether they
move alike. What it finds are sentences with the exact lines that help; it changes nothing.
It also says which hardware counters can be recorded, which takes no energy counter.
"""

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from os import close
from pathlib import Path

from minibutter.energy import perf, remedies
from minibutter.energy.counters import HardwareCounters, open_counters
from minibutter.energy.environment import is_container, read_environment
from minibutter.energy.events import EventSource
from minibutter.energy.powercap import Counter, PowercapSource
from minibutter.energy.source import CounterUnavailable
from minibutter.energy.sysfs import read_cpuinfo, read_integer
from minibutter.energy.zones import POWERCAP, Files, Zone, find_zones, list_zones, open_read_only

OBSTACLE, WARNING, NOTE = "obstacle", "warning", "note"

WORK_S = 0.03
"""Some thirty ticks of a counter."""


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know, and what to do about it."""

    subject: str
    severity: str
    """`obstacle` (nothing can be measured because of it), `warning` (numbers mislead) or `note`."""
    text: str
    remedies: tuple[str, ...] = ()
    """Lines for a shell; one, or alternatives that say so."""


@dataclass(frozen=True)
class ZoneState:
    """A zone of powercap, whether or not it is read."""

    link: str
    """Its name in `/sys/class/powercap`."""
    name: str
    """`package-0/dram` for zones that are summed, else what the zone calls itself."""
    is_summed: bool
    """Whether it is part of the energy of the node; parts and second views are not."""
    reason: str | None
    """Why it cannot be read; None if it can."""


@dataclass(frozen=True)
class EventState:
    """An energy event of perf."""

    name: str
    domains: tuple[str, ...]
    reason: str | None
    """Why it cannot be opened; None if it can."""


@dataclass(frozen=True)
class Diagnosis:
    """What can be measured here, and what stands in the way."""

    source: str | None
    """`powercap`, else `perf`; None if neither can be read."""
    zones: tuple[ZoneState, ...]
    events: tuple[EventState, ...]
    perf_event_paranoid: int | None
    counters: dict[str, str | None]
    """Hardware counters of an epoch, and why each cannot be recorded; None if it can."""
    findings: tuple[Finding, ...]

    @property
    def can_measure(self) -> bool:
        """Whether the energy of all packages can be read."""
        return self.source is not None


def spin() -> None:
    """Keep the processor busy for `WORK_S`."""
    end_s = time.monotonic() + WORK_S
    while time.monotonic() < end_s:
        pass


def diagnose(
    root: Path = Path("/"),
    opener: Callable[[Path], int] = open_read_only,
    perf_opener: Callable[[bytes, int], int] = perf.open_event,
    work: Callable[[], None] = spin,
    count: Callable[[Path], HardwareCounters] = open_counters,
) -> Diagnosis:
    """Look at everything that could tell the energy of this machine; never raises for want of it.

    Parameters
    ----------
    root : where `sys` and `proc` lie.
    opener : opens a counter's file and returns a file descriptor.
    perf_opener : opens an event, given its attribute and its CPU, and returns a file descriptor.
    work : what the processor does between two looks at the counters.
    count : opens hardware counters, given `root`.
    """
    zones, powercap_findings, powercap_works = _look_at_powercap(root, opener, work)
    events, perf_findings, perf_works = _look_at_perf(root, perf_opener)
    source = "powercap" if powercap_works else "perf" if perf_works else None
    findings = [*powercap_findings, *perf_findings, *_look_around(root, source)]
    if source is not None:
        # What closes one source does not stand in the way where the other is open.
        findings = [replace(f, severity=NOTE) if f.severity == OBSTACLE else f for f in findings]
    paranoid, counters = read_integer(root / perf.PARANOID), count(root).reasons
    return Diagnosis(source, zones, events, paranoid, counters, tuple(findings))


# ---------------------------------------------------------------------------------------------
# powercap


def _look_at_powercap(
    root: Path, opener: Callable[[Path], int], work: Callable[[], None]
) -> tuple[tuple[ZoneState, ...], list[Finding], bool]:
    files = Files(opener)
    zones = list_zones(root, files)
    failures = {zone.name: _try_to_read(zone, files) for zone in zones}
    states = [
        ZoneState(zone.path.name, zone.name, zone.is_summed, failure and str(failure))
        for zone, failure in zip(zones, failures.values(), strict=True)
    ]
    try:
        _, notes = find_zones(root, files)
    except CounterUnavailable as failure:
        return tuple(states), [_no_zones(root, str(failure))], False
    findings = [Finding("powercap", NOTE, note) for note in notes]
    summed = [state for state in states if state.is_summed]
    unreadable = [state for state in summed if state.reason is not None]
    if not unreadable:
        return tuple(states), findings + _watch(root, files, work), True
    is_denied = any(
        isinstance(failures[state.name].__cause__, PermissionError) for state in unreadable
    )
    names = ", ".join(state.name for state in unreadable)
    partly = "" if len(unreadable) == len(summed) else f" ({len(summed)} zones in all)"
    obstacle = Finding(
        "powercap",
        OBSTACLE,
        f"{names}{partly}: {'root only' if is_denied else unreadable[0].reason}",
        remedies.open_powercap() if is_denied else (),
    )
    return tuple(states), [obstacle, *findings], False


def _try_to_read(zone: Zone, files: Files) -> Exception | None:
    """Why a counter cannot be read; None if it can."""
    try:
        counter = Counter(zone, files)
    except CounterUnavailable as failure:
        return failure
    try:
        counter.read_uj()
    except (OSError, CounterUnavailable) as failure:
        return failure
    finally:
        counter.close()
    return None


def _no_zones(root: Path, failure: str) -> Finding:
    folder = root / POWERCAP
    if folder.is_dir() and any(p.is_symlink() and not p.exists() for p in folder.iterdir()):
        return Finding("powercap", OBSTACLE, f"masked in this container: {failure}",
                       remedies.unmask())  # fmt: skip
    if folder.is_dir() and any(folder.glob("intel-rapl-mmio:*")):
        failure += "; intel-rapl-mmio, which is there, shows one package of several and no memory"
    lines = () if read_environment(root, ()).is_virtual else remedies.load_drivers()
    return Finding("powercap", OBSTACLE, failure, lines)


def _watch(root: Path, files: Files, work: Callable[[], None]) -> list[Finding]:
    """Counters that stand still under load, and dies that all show the counter of the package."""
    try:
        source = PowercapSource(root, files)
    except CounterUnavailable as failure:
        return [Finding("powercap", WARNING, f"a counter failed at once: {failure}")]
    domains = [domain for domain in source.domains if domain.is_summed]
    before = source.read_uj(len(domains))
    work()
    after = source.read_uj(len(domains))
    source.close()
    failed = [value for value in (*before, *after) if isinstance(value, CounterUnavailable)]
    if failed:
        return [Finding("powercap", WARNING, f"a counter failed under load: {failed[0]}")]
    findings = []
    still = [d.name for d, a, b in zip(domains, before, after, strict=True) if a == b]
    if still:
        findings.append(
            Finding("powercap", WARNING, f"{', '.join(still)} did not move while the CPU worked")
        )
    mirrors = [d for d in source.domains if d.note and d.note.startswith("shows the counter of")]
    if mirrors:
        findings.append(
            Finding(
                "mirrored dies",
                NOTE,
                f"{', '.join(f'{mirror.name} {mirror.note}' for mirror in mirrors)} (AMD "
                "processors with Linux 6.9 to 6.11, early Threadrippers): counted once; a newer "
                "kernel shows it once",
            )
        )
    return findings


# ---------------------------------------------------------------------------------------------
# perf


def _look_at_perf(
    root: Path, opener: Callable[[bytes, int], int]
) -> tuple[tuple[EventState, ...], list[Finding], bool]:
    try:
        events = perf.find_events(root)
    except CounterUnavailable as failure:
        return (), [Finding("perf", OBSTACLE, str(failure))], False
    states: list[EventState] = []
    codes: dict[int | None, str] = {}
    for name in dict.fromkeys(event.name for event in events):
        of_kind = [event for event in events if event.name == name]
        reason = None
        for event in of_kind:
            try:
                descriptor = opener(perf.attribute(event.type, event.config), event.cpu)
            except OSError as error:
                reason = perf.explain(error.errno, name, root)
                codes.setdefault(error.errno, reason)
                break
            with suppress(OSError):
                close(descriptor)
        states.append(EventState(name, tuple(event.domain for event in of_kind), reason))
    findings = [
        Finding("perf", OBSTACLE, reason, _perf_remedies(code, root))
        for code, reason in codes.items()
    ]
    try:
        EventSource(root, opener=opener).close()
    except CounterUnavailable as failure:
        if not codes:  # all events are open, and still not the energy of the machine
            findings.append(Finding("perf", OBSTACLE, str(failure)))
        return tuple(states), findings, False
    return tuple(states), findings, True


def _perf_remedies(code: int | None, root: Path) -> tuple[str, ...]:
    if code == errno.EACCES:
        return remedies.open_perf()
    if code == errno.EPERM and is_container(root):
        return remedies.allow_perf_in_container()
    return ()


# ---------------------------------------------------------------------------------------------
# What makes good counters doubtful


def _look_around(root: Path, source: str | None) -> list[Finding]:
    environment, cpuinfo = read_environment(root, ()), read_cpuinfo(root)
    findings = []
    if environment.is_virtual and source is not None:
        findings.append(
            Finding(
                "virtual machine",
                WARNING,
                "the counters of a virtual machine are the hypervisor's estimate, a share of the "
                "package by CPU time, and not a measurement; nothing in sysfs tells them apart",
            )
        )
    elif environment.is_virtual:
        findings.append(
            Finding(
                "virtual machine",
                NOTE,
                "hypervisors normally pass no energy counters on: take a node of bare metal",
            )
        )
    if is_container(root):
        findings.append(
            Finding(
                "container",
                NOTE,
                "permissions and drivers are those of the host, and are changed there",
            )
        )
    if "sgx" in cpuinfo.get("flags", "").split():
        findings.append(
            Finding(
                "filtered values",
                WARNING if source else NOTE,
                "SGX is on, so that the microcode "
                f"({environment.microcode or 'of unknown revision'}) adds noise to RAPL "
                "(INTEL-SA-00389): single readings deviate, sums over seconds much less; SGX can "
                "be switched off in the firmware's set-up",
            )
        )
    return findings
