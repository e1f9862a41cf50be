"""Energy events of perf: which there are, how one is opened and read, and why one may be closed.

The kernel's `power` PMU counts the energy of packages, their memory and the platform, `power_core`
that of single cores (AMD, Linux 6.14 on). The kernel widens the hardware's 32 bits to 64, so these
counters do not wrap, and every user may read them who may open CPU-wide events (CAP_PERFMON or
`kernel.perf_event_paranoid` <= 0), without access to powercap's files. Kernels that show one
package counter as several dies to powercap (AMD, 6.9 to 6.11) do so here, too.

PMUs are found below `/sys/bus/event_source/devices`: `type` names them to the system call,
`cpumask` lists the CPUs to open an event on (one a package, or one a core), `events/NAME` holds the
configuration, `events/NAME.scale` what one count is worth and `events/NAME.unit` must be Joules.
Source: perf_event_open(2); arch/x86/events/rapl.c of the Linux kernel.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from minibutter.energy.source import CounterUnavailable
from minibutter.energy.sysfs import CPUS, read_cpus, read_integer, read_text

DEVICES = Path("sys/bus/event_source/devices")
PARANOID = Path("proc/sys/kernel/perf_event_paranoid")

_SYSCALLS = {"x86_64": 298, "aarch64": 241}
_CLOSE_ON_EXEC = 8
_TIMES = 0b11  # PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING
_ATTRIBUTE = struct.Struct("IIQQQQQIIQQ")
_READING = struct.Struct("QQQ")

EVENTS = (
    ("power", "energy-pkg"),
    ("power", "energy-ram"),
    ("power", "energy-psys"),
    ("power_core", "energy-core"),
)
"""PMU and event of all that is read; `energy-cores` and `energy-gpu` are parts of a package."""


@dataclass(frozen=True)
class PerfEvent:
    """One event on one CPU."""

    domain: str
    """`package-0`, `package-0-die-1`, `package-0/dram`, `psys`, or `core-3`: the core of CPU 3."""
    name: str
    """As perf writes it: `power/energy-pkg/`."""
    type: int
    """Number of the PMU."""
    config: int
    cpu: int
    """Where it is opened; for a core, the CPU that the domain is named after."""
    scale_j: Fraction
    """Joules a count, exactly."""


def find_events(root: Path = Path("/")) -> tuple[PerfEvent, ...]:
    """All energy events of this machine, in the order of `EVENTS` and of the CPUs.

    Parameters
    ----------
    root : where `sys` lies.

    Raises
    ------
    CounterUnavailable
        If there is no event `power/energy-pkg/`, or a file of an event cannot be understood.
    """
    if not has_energy_events(root):
        raise CounterUnavailable(explain(errno.ENOENT, "power/energy-pkg/", root))
    return tuple(event for pmu, name in EVENTS for event in _find_event(root, pmu, name))


def has_energy_events(root: Path = Path("/")) -> bool:
    """Whether the kernel has energy events at all, open or not."""
    return (root / DEVICES / "power/events/energy-pkg").exists()


def _find_event(root: Path, pmu: str, name: str) -> list[PerfEvent]:
    folder = root / DEVICES / pmu
    terms = read_text(folder / "events" / name)
    if terms is None:
        return []
    type_, cpus = read_integer(folder / "type"), read_cpus(folder / "cpumask")
    if type_ is None or not cpus:
        raise CounterUnavailable(f"{folder} has no number in type, or no CPU in cpumask")
    unit = read_text(folder / "events" / f"{name}.unit")
    if unit != "Joules":
        raise CounterUnavailable(f"{folder}/events/{name}.unit is {unit!r}, not Joules")
    scale = read_text(folder / "events" / f"{name}.scale")
    try:
        scale_j = Fraction(scale or "")
    except (ValueError, ZeroDivisionError):
        scale_j = Fraction(0)
    if scale_j <= 0:
        raise CounterUnavailable(
            f"{folder}/events/{name}.scale is {scale!r}, not a positive number"
        )
    config = _config(folder, terms)
    domains = _name_domains(root, name, cpus)
    return [
        PerfEvent(domain, f"{pmu}/{name}/", type_, config, cpu, scale_j)
        for domain, cpu in zip(domains, cpus, strict=True)
    ]


def _config(folder: Path, terms: str) -> int:
    """The number behind terms such as `event=0x02`, placed as `format/event` says: `config:0-7`."""
    config = 0
    for term in terms.split(","):
        name, _, value = term.partition("=")
        place = read_text(folder / "format" / name) or ("config:0-7" if name == "event" else "")
        word, _, bits = place.partition(":")
        first, _, last = bits.partition("-")
        try:
            if word != "config":
                raise ValueError
            number, low, high = int(value or "1", 0), int(first), int(last or first)
            if number < 0 or number >> (high - low + 1):
                raise ValueError
        except ValueError:
            raise CounterUnavailable(
                f"{folder}: the term {term!r} with the format {place!r} is not understood"
            ) from None
        config |= number << low
    return config


def _name_domains(root: Path, name: str, cpus: tuple[int, ...]) -> list[str]:
    """Names of the domains that the CPUs of a PMU stand for, as powercap has them."""
    if name == "energy-core":
        return [f"core-{cpu}" for cpu in cpus]
    places = []
    for cpu in cpus:
        folder = root / CPUS / f"cpu{cpu}/topology"
        package, die = (read_integer(folder / f) for f in ("physical_package_id", "die_id"))
        if package is None:
            raise CounterUnavailable(f"{folder} does not tell the package of CPU {cpu}")
        places.append((package, die))
    packages = [package for package, _ in places]
    if len(set(places)) < len(places):
        raise CounterUnavailable(f"the cpumask of {name}, {cpus}, names a die twice")
    if name == "energy-psys":
        return ["psys" if package == 0 else f"psys-{package}" for package in packages]
    names = [
        f"package-{package}" + (f"-die-{die}" if packages.count(package) > 1 else "")
        for package, die in places
    ]
    return [f"{package}/dram" for package in names] if name == "energy-ram" else names


# ---------------------------------------------------------------------------------------------
# Opening and reading


def attribute(type_: int, config: int) -> bytes:
    """The `struct perf_event_attr` of a counter that runs from now on, with both of its times."""
    return _ATTRIBUTE.pack(type_, _ATTRIBUTE.size, config, 0, 0, _TIMES, 0, 0, 0, 0, 0)


def open_event(attribute: bytes, cpu: int) -> int:
    """File descriptor of a CPU-wide event: perf_event_open(2) for all processes on one CPU.

    Raises
    ------
    OSError
        As the system call says; ENOSYS where its number is not known.
    """
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"unknown system call on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    every_process, no_group = ctypes.c_int(-1), ctypes.c_int(-1)
    descriptor = libc.syscall(
        ctypes.c_long(number), attribute, every_process, ctypes.c_int(cpu), no_group,
        ctypes.c_ulong(_CLOSE_ON_EXEC),
    )  # fmt: skip
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def read_event(descriptor: int) -> bytes:
    """24 bytes: count, nanoseconds enabled, nanoseconds running."""
    return os.read(descriptor, _READING.size)


def read_uj(event: PerfEvent, descriptor: int, reader: Callable[[int], bytes] = read_event) -> int:
    """Energy of a domain since its event was opened, in whole microjoules; there is no wrap.

    Parameters
    ----------
    event : what is read.
    descriptor : of the event.
    reader : reads 24 bytes from a descriptor.

    Raises
    ------
    CounterUnavailable
        If the event cannot be read, or was off its counter for part of the time: then energy is
        missing from its count, and stays missing.
    """
    try:
        data = reader(descriptor)
        count, enabled_ns, running_ns = _READING.unpack(data)
    except OSError as error:
        raise CounterUnavailable(
            f"{event.name} on CPU {event.cpu} cannot be read ({error.strerror})"
        ) from error
    except struct.error:
        # A read of nothing: the kernel could not put a pinned event onto its counter.
        raise CounterUnavailable(
            f"{event.name} on CPU {event.cpu} gave {len(data)} bytes instead of "
            f"{_READING.size}: the event is in an error state"
        ) from None
    if running_ns < enabled_ns:
        raise CounterUnavailable(
            f"{event.name} on CPU {event.cpu} was counted for {running_ns / 1e9:.3f} s of "
            f"{enabled_ns / 1e9:.3f} s: it shared its counter with other events, or the CPU "
            "was switched off; stop other profilers and open it anew"
        )
    return count * 1_000_000 * event.scale_j.numerator // event.scale_j.denominator


FREE_A_COUNTER = (
    "stop other profilers (perf, turbostat, the NMI watchdog: sudo sysctl kernel.nmi_watchdog=0)"
)
"""What helps where a PMU has fewer counters than events."""


def explain(code: int | None, event: str, root: Path = Path("/")) -> str:
    """Why an energy event cannot be opened, and what to do.

    Parameters
    ----------
    code, root : see `explain_code`.
    event : as perf writes it.
    """
    return f"{event} cannot be opened: {explain_code(code, root)}"


def explain_code(code: int | None, root: Path = Path("/"), *, of_process: bool = False) -> str:
    """What an errno of perf_event_open means; the kernel has a number for every cause.

    Parameters
    ----------
    code : the errno.
    root : where `proc` lies, which holds the present `perf_event_paranoid`.
    of_process : whether the event counts what this process does on the core, which takes less
        permission; else it counts energy, on a CPU for all processes.
    """
    paranoid = read_integer(root / PARANOID)
    if of_process:
        scope, level = "events of a process", 2
        absent = "a virtual machine without a PMU, or a processor that does not count it"
    else:
        scope, level = "CPU-wide events", 0
        absent = (
            "a virtual machine, a processor without RAPL, or a kernel module that is not loaded: "
            "sudo modprobe rapl"
        )
    reasons = {
        errno.ENOENT: f"ENOENT: the kernel does not have it; {absent}",
        errno.EACCES: (
            f"EACCES: {scope} need CAP_PERFMON or kernel.perf_event_paranoid <= {level}, and it "
            f"is {'unknown' if paranoid is None else paranoid}: "
            f"sudo sysctl kernel.perf_event_paranoid={level}"
        ),
        errno.EPERM: (
            "EPERM: a filter of system calls or a lockdown forbids perf_event_open; in a "
            "container start it with --cap-add PERFMON or another seccomp profile"
        ),
        errno.EBUSY: f"EBUSY: another program has the counter to itself; {FREE_A_COUNTER}",
        errno.EINVAL: (
            "EINVAL: the kernel knows the PMU but not this event on this CPU; the kernel is older "
            "than the processor, or the PMU is full"
        ),
        errno.ENODEV: "ENODEV: the CPU is switched off, or its PMU is gone; switch it on",
        errno.ENOSYS: "ENOSYS: this kernel, or this kind of processor, has no perf_event_open",
        errno.EMFILE: "EMFILE: too many files are open: ulimit -n 4096",
    }
    known = "an unknown error" if code is None else f"errno {code}: {os.strerror(code)}"
    return reasons.get(code, known)
