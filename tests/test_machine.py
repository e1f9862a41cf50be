"""`minibutter machine`: what it says, what it measures, and what it ends with."""

import errno
import json
import os
import sys
from dataclasses import replace
from functools import partial

import numba
import pytest

from minibutter import cli
from minibutter.cli import description
from minibutter.cli.description import machine_lines
from minibutter.cli.machine import EXIT_NO_ENERGY
from minibutter.energy import remedies
from minibutter.energy.counters import COUNTERS, open_counters
from minibutter.energy.doctor import diagnose
from minibutter.energy.environment import read_environment
from minibutter.energy.topology import read_topology
from minibutter.launch import find_mpi_library
from minibutter.machine import Bandwidth, Ceilings, describe_machine, measure_ceilings
from tests.counters import FakePackage
from tests.machines import KIB, MIB

NO_SPEED = Ceilings(0, (0,), None, None, (), "not asked for")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command; returns its exit code and stdout."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["minibutter", "machine", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code or 0
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def without_measuring(monkeypatch):
    """Leave the speed out: these tests are about words."""
    monkeypatch.setattr("minibutter.machine.measure_ceilings", lambda topology: (NO_SPEED,))


def no_perf(attribute, cpu):
    raise PermissionError(13, "Permission denied")


@pytest.fixture
def describe(make_tree):
    """The screen of a machine that we do not have, and the tree it is read from."""

    def lines(
        profile,
        affinity,
        change=lambda machine: None,
        width=None,
        ceilings=(NO_SPEED,),
        package=FakePackage,
    ):
        machine = make_tree(profile)
        change(machine)
        described = replace(
            describe_machine(machine.root),
            topology=read_topology(machine.root, affinity),
            environment=read_environment(machine.root, affinity),
            diagnosis=diagnose(
                machine.root,
                perf_opener=no_perf,
                work=lambda: None,
                count=partial(open_counters, importer=package),
            ),
        )
        return machine_lines(described, ceilings, None, width)

    return lines


def section(lines, label):
    """The lines of a label, joined."""
    taken, found = [], False
    for line in lines:
        if line[:12].strip():
            found = line.startswith(label)
        if found:
            taken.append(line[12:].strip())
    return " / ".join(taken)


def test_the_exit_code_says_whether_energy_can_be_measured(call, without_measuring, monkeypatch):
    code, out = call()
    can_measure = diagnose().can_measure
    assert code == (0 if can_measure else EXIT_NO_ENERGY)
    assert ("cannot be measured here" in out) == (not can_measure)

    described = describe_machine()
    for source, expected in (("powercap", 0), (None, EXIT_NO_ENERGY)):
        known = replace(described, diagnosis=replace(described.diagnosis, source=source))
        monkeypatch.setattr("minibutter.machine.describe_machine", lambda known=known: known)
        assert call()[0] == call("--json")[0] == expected


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is measured without the compiler")
def test_json_is_json_and_holds_what_was_measured(call):
    code, out = call("--json")
    document = json.loads(out)
    assert code == (0 if document["diagnosis"]["can_measure"] else EXIT_NO_ENERGY)
    cpus = [cpu["number"] for cpu in document["topology"]["cpus"]]
    assert set(cpus) == os.sched_getaffinity(0)
    for ceiling in document["ceilings"]:
        assert ceiling["cpu"] in cpus
        assert 1 < ceiling["float64_gflops"] < ceiling["float32_gflops"] < 2000
        for bandwidth in ceiling["bandwidths"]:
            # A figure, or the reason why there is none.
            assert (bandwidth["read_gb_per_s"] is None) == (bandwidth["reason"] is not None)
            assert bandwidth["read_gb_per_s"] is None or 0.5 < bandwidth["read_gb_per_s"] < 5000
    assert document["simd"]["vector_bytes"] in (16, 32, 64)
    assert document["environment"]["affinity"]
    # Why each is missing; null where it is counted.
    assert document["diagnosis"]["counters"] == open_counters().reasons


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is measured without the compiler")
def test_half_of_each_level_is_read_and_what_no_level_holds(make_tree, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "minibutter.nn.ceiling.measure_read_bandwidth", lambda n: asked.append(n) or 7.0
    )
    monkeypatch.setattr("minibutter.nn.ceiling.measure_fma_ceiling", lambda *_: 50.0)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    machine = make_tree("hybrid")
    ceilings = measure_ceilings(read_topology(machine.root, range(9)), machine.root)
    assert [(c.cpu, c.cpus) for c in ceilings] == [
        (3, (0, 1, 2, 3)), (7, (4, 5, 6, 7)), (8, (8,)),
    ]  # fmt: skip
    assert asked == [
        24 * KIB, MIB, 12 * MIB, 96 * MIB,
        16 * KIB, 2 * MIB, 12 * MIB, 96 * MIB,
        16 * KIB, MIB, 8 * MIB,
    ]  # fmt: skip
    assert [b.level for b in ceilings[2].bandwidths] == ["L1", "L2", "memory"]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is measured without the compiler")
def test_levels_that_are_unknown_contradictory_or_too_large_are_not_measured(
    make_tree, monkeypatch
):
    monkeypatch.setattr("minibutter.nn.ceiling.measure_read_bandwidth", lambda n: 7.0)
    monkeypatch.setattr("minibutter.nn.ceiling.measure_fma_ceiling", lambda *_: 50.0)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)

    def bandwidths(machine, cpu):
        (ceiling,) = measure_ceilings(read_topology(machine.root, {cpu}), machine.root)
        return {b.level: (b.read_gb_per_s, b.reason) for b in ceiling.bandwidths}

    machine = make_tree("x3d")
    machine.write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    300000 kB")
    assert bandwidths(machine, 0)["memory"] == (
        None, f"it takes {384 * MIB} bytes, and {300000 * KIB} are free",
    )  # fmt: skip
    assert bandwidths(machine, 4)["memory"] == (7.0, None)

    machine.add_cache(range(4, 8), 3, "Unified", 320 * KIB, ways=1, sets=99)
    contradictory = bandwidths(machine, 4)
    assert contradictory["L2"] == (7.0, None)
    for level in ("L3", "memory"):
        assert contradictory[level][0] is None
        assert "1 ways x 99 sets" in contradictory[level][1]

    (machine.root / "sys/devices/system/cpu/cpu5/cache").rename(machine.root / "hidden")
    assert bandwidths(machine, 5) == {"memory": (None, "the sizes of the caches are not known")}


def test_a_thread_is_pinned_while_it_measures_and_has_its_cpus_back_afterwards(monkeypatch):
    events = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: events.append(cpus))

    def fail(*_):
        events.append("measured")
        raise MemoryError

    monkeypatch.setattr("minibutter.nn.ceiling.measure_fma_ceiling", fail)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 0)
    with pytest.raises(MemoryError):
        measure_ceilings(read_topology(affinity={0, 1}))
    assert events == [{1}, "measured", {0, 1, 2}]


def test_without_the_compiler_nothing_is_measured_and_the_reason_said(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    for ceiling in measure_ceilings(read_topology()):
        assert ceiling.float32_gflops is None
        assert "NUMBA_DISABLE_JIT" in ceiling.reason


def test_a_server_fits_on_one_screen(describe):
    lines = describe("server", range(16), width=80)
    assert section(lines, "processor").endswith(
        "2 sockets, 2 dies, 8 cores, up to 2 threads a core / "
        "this process may use 16 of 16 CPUs: 0-15"
    )
    caches = section(lines, "caches")
    assert "L1 data          8 x 32 KiB   2 CPUs each, 8 ways of 64 B" in caches
    assert "L3 unified       2 x 16 MiB   8 CPUs each, 16 ways of 64 B" in caches
    assert caches.endswith("L3 for each of 8 ranks: 4 MiB")
    assert "node 1: 16 GiB, CPUs 4-7,12-15, distances 21 10" in section(lines, "memory")
    assert len(lines) <= 50


def test_the_kinds_of_a_hybrid_processor_are_told_apart(describe):
    lines = describe("hybrid", range(9))
    assert "4 CPUs of the performance type (0-3)" in section(lines, "processor")
    assert "1 CPU of the low-power type (8)" in section(lines, "processor")
    assert "L2 unified       1 x 4 MiB    4 CPUs each" in section(lines, "caches")


def test_unknown_is_said_and_no_number_is_made_up(describe):
    lines = describe(None, {0, 1})
    assert section(lines, "processor").endswith(
        "unknown sockets, unknown dies, unknown cores, unknown threads a core / "
        "this process may use 2 CPUs: 0-1"
    )
    assert section(lines, "caches") == section(lines, "memory") == "unknown"
    assert section(lines, "state") == (
        "unknown whether virtual; governor unknown, turbo unknown, SMT unknown, "
        "huge pages unknown, microcode unknown"
    )
    assert "tells nothing of CPU 0-1" in section(lines, "not told")
    assert section(lines, "energy") == "cannot be measured here"
    assert not any(" 0 J" in line or "0 GB/s" in line for line in lines)


def test_hardware_counters_that_are_all_there_take_one_line(describe):
    shown = section(describe("server", range(16)), "counters")
    assert shown.removesuffix(" / ") == f"{', '.join(COUNTERS)}: recorded with every epoch"


def test_hardware_counters_are_shown_with_what_is_missing(describe):
    package = FakePackage()
    package.refused = dict.fromkeys(("cycles", "llc_loads"), errno.ENOENT)
    package.n_free = 3
    shown = section(describe("server", range(16), package=package), "counters")
    recorded, absent, full = shown.split(" / ")[:3]
    assert recorded == "instructions, l1d_load_misses, llc_load_misses: recorded with every epoch"
    assert absent.startswith("cycles, llc_loads: missing, ENOENT: the kernel does not have it")
    assert full.startswith("l1d_loads: missing, no counter is left for it: stop other profilers")


def test_hardware_counters_that_are_closed_come_with_the_line_that_opens_them(describe):
    package = FakePackage()
    package.refused = dict.fromkeys(COUNTERS, errno.EACCES)
    shown = section(
        describe(
            "server",
            range(16),
            lambda machine: machine.write("proc/sys/kernel/perf_event_paranoid", 4),
            package=package,
        ),
        "counters",
    )
    assert shown.startswith(f"{', '.join(COUNTERS)}: missing, EACCES: ")
    assert "and it is 4: sudo sysctl kernel.perf_event_paranoid=2" in shown


def test_counters_of_a_virtual_machine_are_shown_with_their_warning(describe):
    lines = describe("vm_rapl", {0, 1})
    energy = section(lines, "energy")
    assert "can be measured, through powercap" in energy
    assert "intel-rapl:0 package-0: readable, summed" in energy
    assert "intel-rapl:0:0 package-0/core: readable, not added" in energy
    assert "virtual machine (hypervisor: QEMU)" in section(lines, "state")
    assert "the hypervisor's estimate" in section(lines, "warning")


def test_speeds_stand_with_their_working_sets_and_reasons(describe):
    speed = Ceilings(
        3, (0, 1, 3), 118.24, 59.1,
        (Bandwidth("L1", 16 * KIB, 213.7, None), Bandwidth("memory", None, None, "no room")),
        None,
    )  # fmt: skip
    assert section(describe("server", {0}, ceilings=(speed,)), "speed") == (
        "CPU 3 (as 0-1,3): 118.2 GFLOP/s float32, 59.1 GFLOP/s float64 on registers / "
        "reads, GB/s (of a working set): L1 214 (16 KiB) / memory not measured: no room"
    )


def close_counters(machine):
    machine.add_pmu("power", 17, "0,4", {"energy-pkg": 2})
    machine.write("proc/sys/kernel/perf_event_paranoid", 2)


@pytest.mark.parametrize("width", [80, 120])
def test_sentences_are_folded_and_lines_for_the_shell_stay_whole(describe, width):
    lines = describe("server", range(16), close_counters, width)
    for_shell = {*remedies.open_perf(), *remedies.load_drivers()}
    assert for_shell <= set(lines)
    assert all(len(line) <= width for line in lines if line not in for_shell)


def test_elsewhere_than_on_a_terminal_no_line_is_folded(call, without_measuring):
    _, out = call()
    (state,) = (line for line in out.splitlines() if line.startswith("state"))
    assert "microcode" in state


def test_the_mpi_is_named_without_being_started(monkeypatch):
    library = find_mpi_library()
    assert library is None or any(name in library for name in ("MPI", "mpi"))
    monkeypatch.setattr("minibutter.launch.ranks._NAME_LIBRARY", "raise SystemExit(1)")
    assert find_mpi_library() is None
    monkeypatch.setattr("minibutter.launch.ranks._NAME_LIBRARY", "print('An  MPI: 1\\nbuilt')")
    assert find_mpi_library() == "An MPI: 1"


def test_sizes_are_read_as_people_write_them():
    assert [description._bytes(n) for n in (None, 512, 48 * KIB, 1536 * KIB, 24 * MIB)] == [
        "unknown", "512 B", "48 KiB", "1.5 MiB", "24 MiB",
    ]  # fmt: skip
