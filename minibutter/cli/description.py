"""A machine on one screen: a word on the left, what is known on the right.

Sentences are folded to the width of a terminal. Lines that are meant for a shell stay whole and
stand at its left edge, so that they can be copied.
"""

import textwrap
from collections import Counter

from rich.console import Console

from minibutter.energy.counters import by_reason
from minibutter.energy.doctor import OBSTACLE, Diagnosis
from minibutter.energy.environment import NO_HYPERVISOR, Environment
from minibutter.energy.sysfs import format_cpus
from minibutter.energy.topology import Topology
from minibutter.machine import Ceilings, Machine, Simd, share_of_last_level

_LABEL_WIDTH = 11
_UNKNOWN = "unknown"


def show_machine(machine: Machine, ceilings: tuple[Ceilings, ...], mpi_library: str | None) -> None:
    """Print a machine; on a terminal in its width, elsewhere with its lines whole."""
    console = Console()
    width = console.width if console.is_terminal else None
    for line in machine_lines(machine, ceilings, mpi_library, width):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def machine_lines(
    machine: Machine,
    ceilings: tuple[Ceilings, ...],
    mpi_library: str | None,
    width: int | None = None,
) -> list[str]:
    """The lines of the screen.

    Parameters
    ----------
    machine, ceilings : from `minibutter.machine`.
    mpi_library : name of the MPI; None if there is none.
    width : columns to fold sentences to; None keeps them whole.
    """
    topology = machine.topology
    sections = [
        ("processor", [f"{machine.cpu_model} ({machine.architecture}, Linux {machine.kernel})"]),
        ("", _cpu_lines(topology)),
        ("memory", _memory_lines(topology)),
        ("caches", _cache_lines(topology)),
        ("compiled", [_simd_line(machine.simd)]),
        ("BLAS", [machine.blas or _UNKNOWN]),
        ("MPI", [mpi_library or "none that mpi4py can load"]),
        ("state", [_state_line(machine.environment, machine.is_container)]),
        ("speed", [line for ceiling in ceilings for line in _speed_lines(ceiling)]),
        ("energy", _energy_lines(machine.diagnosis)),
        ("counters", _counter_lines(machine.diagnosis)),
        ("not told", list(topology.missing)),
    ]
    lines = [line for label, texts in sections for line in _fold(label, texts, width)]
    return [*lines, *_finding_lines(machine.diagnosis, width)]


def _fold(label: str, texts: list[str], width: int | None) -> list[str]:
    lines = []
    for n, text in enumerate(texts):
        head = f"{label if n == 0 else '':{_LABEL_WIDTH}} "
        if width is None:
            lines.append(head + text)
            continue
        lines += textwrap.wrap(
            text,
            max(width, 40),
            initial_indent=head,
            # A wrapped line of a list stands further in than the next entry.
            subsequent_indent=" " * (_LABEL_WIDTH + 3),
            break_on_hyphens=False,
            drop_whitespace=True,
        )
    return lines


def _count(number: int | None, what: str) -> str:
    return f"{_UNKNOWN} {what}s" if number is None else f"{number} {what}{'s' * (number != 1)}"


def _bytes(number: int | None) -> str:
    if number is None:
        return _UNKNOWN
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"


def _cpu_lines(topology: Topology) -> list[str]:
    numbers = tuple(cpu.number for cpu in topology.cpus)
    threads = topology.threads_per_core
    of_online = "" if topology.n_online is None else f" of {topology.n_online}"
    lines = [
        f"{_count(topology.n_packages, 'socket')}, {_count(topology.n_dies, 'die')}, "
        f"{_count(topology.n_cores, 'core')}, {'up to ' if (threads or 1) > 1 else ''}"
        f"{_count(threads, 'thread')} a core",
        f"this process may use {len(numbers)}{of_online} CPUs: {format_cpus(numbers)}",
    ]
    types = Counter(cpu.core_type for cpu in topology.cpus if cpu.core_type is not None)
    if types:
        lines.append(
            "hybrid: "
            + "; ".join(
                f"{_count(types[name], 'CPU')} of the {name} type "
                f"({format_cpus(tuple(c.number for c in topology.cpus if c.core_type == name))})"
                for name in types
            )
        )
    return lines


def _memory_lines(topology: Topology) -> list[str]:
    return [
        f"node {node.number}: {_bytes(node.memory_bytes)}, CPUs "
        f"{_UNKNOWN if node.cpus is None else format_cpus(node.cpus) or 'none'}"
        + (f", distances {' '.join(map(str, node.distances))}" if len(topology.nodes) > 1
           and node.distances else "")
        for node in topology.nodes
    ] or [_UNKNOWN]  # fmt: skip


def _cache_lines(topology: Topology) -> list[str]:
    """One line for all instances that are alike."""
    alike = Counter(
        (
            cache.level,
            cache.type,
            cache.size_bytes,
            cache.ways,
            cache.line_bytes,
            None if cache.cpus is None else len(cache.cpus),
        )
        for cache in topology.caches
    )
    lines = []
    for (level, type_, size, ways, line_bytes, sharers), number in alike.items():
        sharing = (
            "sharing unknown" if sharers is None
            else "one CPU each" if sharers == 1
            else f"{sharers} CPUs each"
        )  # fmt: skip
        shape = "" if None in (ways, line_bytes) else f", {ways} ways of {line_bytes} B"
        lines.append(f"L{level} {type_.lower():11} {number:3} x {_bytes(size):8} {sharing}{shape}")
    share = share_of_last_level(topology)
    if share is not None:
        lines.append(f"L3 for each of {_count(topology.n_cores, 'rank')}: {_bytes(share)}")
    return lines or [_UNKNOWN]


def _simd_line(simd: Simd) -> str:
    fma = "fused multiply-add" if simd.has_fma else "multiply and add apart"
    return (
        f"for {simd.cpu}: vectors of {simd.vector_bytes} bytes, {fma} ({' '.join(simd.features)})"
    )


def _switch(is_on: bool | None) -> str:
    return {None: _UNKNOWN, True: "on", False: "off"}[is_on]


def _state_line(environment: Environment, is_container: bool) -> str:
    host = {None: "unknown whether virtual", NO_HYPERVISOR: "bare metal"}.get(
        environment.hypervisor, f"virtual machine (hypervisor: {environment.hypervisor})"
    )
    return (
        f"{host}{', in a container' if is_container else ''}; "
        f"governor {environment.governor or _UNKNOWN}, turbo {_switch(environment.turbo)}, "
        f"SMT {_switch(environment.smt)}, huge pages "
        f"{environment.transparent_huge_pages or _UNKNOWN}, microcode "
        f"{environment.microcode or _UNKNOWN}"
    )


def _speed_lines(ceiling: Ceilings) -> list[str]:
    where = f"CPU {ceiling.cpu}"
    if len(ceiling.cpus) > 1:
        where += f" (as {format_cpus(ceiling.cpus)})"
    if ceiling.reason is not None:
        return [f"{where}: not measured ({ceiling.reason})"]
    reads, reasons = [], []
    for bandwidth in ceiling.bandwidths:
        if bandwidth.read_gb_per_s is None:
            reasons.append(f"{bandwidth.level} not measured: {bandwidth.reason}")
        else:
            reads.append(
                f"{bandwidth.level} {bandwidth.read_gb_per_s:.3g} "
                f"({_bytes(bandwidth.working_set_bytes)})"
            )
    lines = [
        f"{where}: {ceiling.float32_gflops:.1f} GFLOP/s float32, "
        f"{ceiling.float64_gflops:.1f} GFLOP/s float64 on registers"
    ]
    if reads:
        lines.append(f"reads, GB/s (of a working set): {', '.join(reads)}")
    return lines + reasons


def _energy_lines(diagnosis: Diagnosis) -> list[str]:
    lines = [
        f"can be measured, through {diagnosis.source}"
        if diagnosis.can_measure
        else "cannot be measured here"
    ]
    for zone in diagnosis.zones:
        state = "readable" if zone.reason is None else "closed"
        role = "summed" if zone.is_summed else "not added: part or second view of what is"
        lines.append(f"powercap {zone.link} {zone.name}: {state}, {role}")
    for event in diagnosis.events:
        state = "can be opened" if event.reason is None else "closed"
        lines.append(f"perf {event.name}: {state} ({_domains(event.domains)})")
    if diagnosis.perf_event_paranoid is not None:
        lines.append(f"kernel.perf_event_paranoid is {diagnosis.perf_event_paranoid}")
    return lines


def _counter_lines(diagnosis: Diagnosis) -> list[str]:
    """What is recorded first; counters that are missing for one reason share a line."""
    lines = [
        f"{', '.join(names)}: {'recorded with every epoch' if why is None else f'missing, {why}'}"
        for why, names in by_reason(diagnosis.counters)
    ]
    return sorted(lines, key=lambda line: ": missing, " in line)


def _domains(domains: tuple[str, ...]) -> str:
    return ", ".join(domains) if len(domains) <= 4 else f"{len(domains)} domains"


def _finding_lines(diagnosis: Diagnosis, width: int | None) -> list[str]:
    """Obstacles first; lines that help stand once, where they are first needed."""
    lines: list[str] = []
    shown: set[tuple[str, ...]] = set()
    for finding in sorted(diagnosis.findings, key=lambda finding: finding.severity != OBSTACLE):
        lines += ["", *_fold(finding.severity, [f"{finding.subject}: {finding.text}"], width)]
        if finding.remedies and finding.remedies not in shown:
            shown.add(finding.remedies)
            lines += finding.remedies
    return lines
