"""Energy through perf events: which are found, what a count is worth, and every way to fail."""

import ctypes
import errno
import os
import re
import struct
from fractions import Fraction

import pytest

from minibutter.energy import perf
from minibutter.energy.events import EventSource
from minibutter.energy.perf import find_events
from minibutter.energy.source import CounterUnavailable
from tests.kernel import FakeKernel

PKG, RAM, PSYS = "power/energy-pkg/", "power/energy-ram/", "power/energy-psys/"


@pytest.fixture
def server(make_tree):
    """Two sockets whose PMU counts packages, memory and platform."""
    machine = make_tree("server")
    machine.add_pmu(
        "power", 17, "0,4", {"energy-pkg": 2, "energy-ram": 3, "energy-psys": 5, "energy-cores": 1}
    )
    machine.write("proc/sys/kernel/perf_event_paranoid", 2)
    return machine


@pytest.fixture
def kernel():
    return FakeKernel()


def test_packages_memory_and_platform_are_found_on_the_cpus_of_the_mask(server):
    assert [(event.name, event.domain, event.cpu, event.config) for event in
            find_events(server.root)] == [
        (PKG, "package-0", 0, 2), (PKG, "package-1", 4, 2),
        (RAM, "package-0/dram", 0, 3), (RAM, "package-1/dram", 4, 3),
        (PSYS, "psys", 0, 5), (PSYS, "psys-1", 4, 5),
    ]  # fmt: skip


def test_cores_are_named_after_the_cpu_that_counts_them(server):
    server.add_pmu("power_core", 18, "0-7", {"energy-core": 1})
    domains = [e.domain for e in find_events(server.root) if e.name == "power_core/energy-core/"]
    assert domains == [f"core-{cpu}" for cpu in range(8)]


def test_dies_of_a_package_are_domains_of_their_own(make_tree):
    machine = make_tree("x3d")
    machine.add_pmu("power", 9, "0,4", {"energy-pkg": 2, "energy-ram": 3})
    assert [event.domain for event in find_events(machine.root)] == [
        "package-0-die-0", "package-0-die-1", "package-0-die-0/dram", "package-0-die-1/dram",
    ]  # fmt: skip


def test_a_package_that_two_cpus_count_is_refused_instead_of_counted_twice(make_tree):
    machine = make_tree("hybrid")
    machine.add_pmu("power", 9, "0,4", {"energy-pkg": 2})
    with pytest.raises(CounterUnavailable, match="names a die twice"):
        find_events(machine.root)


def test_counts_are_whole_microjoules_without_rounding_of_the_scale(server):
    event = find_events(server.root)[0]
    # 2^-32 J a count, one count below a whole number after seven weeks at 1 kW: a product of
    # doubles would round it up.
    for count, expected_uj in (
        (2**32 * 4_233_600_000 - 1, 4_233_599_999_999_999), (2**32 // 1000, 999), (1, 0),
    ):  # fmt: skip
        energy_uj = perf.read_uj(event, 7, lambda _, n=count: struct.pack("QQQ", n, 9, 9))
        assert (energy_uj, type(energy_uj)) == (expected_uj, int)


def test_terms_are_placed_where_the_format_says(server):
    server.write("sys/bus/event_source/devices/power/events/energy-pkg", "event=0x02,umask=0x1f")
    server.write("sys/bus/event_source/devices/power/format/umask", "config:8-15")
    assert find_events(server.root)[0].config == 0x1F02


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("events/energy-pkg", "event=0x102", "'event=0x102' with the format 'config:0-7'"),
        ("events/energy-pkg", "event=two", "not understood"),
        ("events/energy-pkg", "event=0x02,umask=1", "'umask=1' with the format ''"),
        ("events/energy-pkg.unit", "Watts", "unit is 'Watts', not Joules"),
        ("events/energy-pkg.scale", "0", "scale is '0', not a positive number"),
        ("events/energy-pkg.scale", "much", "scale is 'much'"),
        ("cpumask", "", "no CPU in cpumask"),
        ("type", "power", "no number in type"),
    ],
)
def test_files_that_cannot_be_understood_are_named(server, file, content, message):
    server.write(f"sys/bus/event_source/devices/power/{file}", content)
    with pytest.raises(CounterUnavailable, match="devices/power") as error:
        find_events(server.root)
    assert message in str(error.value)


def test_a_machine_without_the_event_says_so_with_the_module_to_load(make_tree):
    with pytest.raises(CounterUnavailable, match=r"ENOENT.* modprobe rapl"):
        find_events(make_tree("vm_rapl").root)


def test_fault_34_every_refusal_has_its_own_words_and_remedy(server, kernel):
    remedies = {
        errno.ENOENT: "modprobe rapl",
        errno.EACCES: "it is 2: sudo sysctl kernel.perf_event_paranoid=0",
        errno.EPERM: "--cap-add PERFMON",
        errno.EBUSY: "stop other profilers",
        errno.EINVAL: "the kernel is older than the processor, or the PMU is full",
        errno.ENODEV: "switch it on",
        errno.EMFILE: "ulimit -n",
        errno.EIO: "errno 5: Input/output error",
    }
    messages = set()
    for code, remedy in remedies.items():
        kernel.refused = {(17, 2): code}
        with pytest.raises(CounterUnavailable) as error:
            EventSource(server.root, opener=kernel.open, reader=kernel.read)
        message = str(error.value)
        assert message.startswith(f"{PKG} cannot be opened: ")
        assert remedy in message
        named = [errno.errorcode[c] for c in remedies if f"{errno.errorcode[c]}:" in message]
        assert named == ([] if code == errno.EIO else [errno.errorcode[code]])
        messages.add(message)
    assert len(messages) == len(remedies)


def test_fault_34_an_event_of_the_process_takes_less_permission_and_no_module(server):
    server.write("proc/sys/kernel/perf_event_paranoid", 3)
    refused = perf.explain_code(errno.EACCES, server.root, of_process=True)
    assert refused.endswith("<= 2, and it is 3: sudo sysctl kernel.perf_event_paranoid=2")
    absent = perf.explain_code(errno.ENOENT, server.root, of_process=True)
    assert "a virtual machine without a PMU" in absent
    assert "rapl" not in absent.lower()
    for code in (errno.EPERM, errno.EBUSY, errno.EINVAL, errno.EMFILE, None):
        assert perf.explain_code(code, of_process=True) == perf.explain_code(code)


def test_the_attribute_is_laid_out_as_the_kernel_has_it():
    class Attribute(ctypes.Structure):  # perf_event_attr of linux/perf_event.h, its second version
        _fields_ = [
            *((name, ctypes.c_uint32) for name in ("type", "size")),
            *((name, ctypes.c_uint64) for name in (
                "config", "sample_period", "sample_type", "read_format", "flags")),
            *((name, ctypes.c_uint32) for name in ("wakeup_events", "bp_type")),
            *((name, ctypes.c_uint64) for name in ("config1", "config2")),
        ]  # fmt: skip

    parsed = Attribute.from_buffer_copy(perf.attribute(17, 2))
    assert (parsed.type, parsed.size, parsed.config) == (17, 72, 2)
    assert (parsed.read_format, parsed.flags, parsed.sample_period) == (3, 0, 0)


def test_the_true_system_call_counts_a_clock_or_says_why_it_may_not(make_tree):
    """The software PMU has a clock in nanoseconds on every machine: 1 GW, as it were, of joules."""
    machine = make_tree("server")
    cpu = min(os.sched_getaffinity(0))
    machine.add_pmu("power", 1, str(cpu), {"energy-pkg": 0}, scale="1e-9")
    machine.add_cpu(cpu)
    machine.write("proc/sys/kernel/perf_event_paranoid", 2)
    try:
        source = EventSource(machine.root)
    except CounterUnavailable as refusal:
        assert re.search("EACCES|EPERM|ENOSYS", str(refusal))  # noqa: PT017
        return
    assert [domain.name for domain in source.domains] == ["package-0"]
    ((first,), (second,)) = source.read_uj(1), source.read_uj(1)
    source.close()
    assert 0 <= first < second


def test_an_event_that_the_true_kernel_does_not_know_is_refused(make_tree):
    machine = make_tree("server")
    machine.add_pmu("power", 2**31 - 7, "0", {"energy-pkg": 2})
    with pytest.raises(CounterUnavailable, match=r"ENOENT|EACCES|EPERM|ENOSYS"):
        EventSource(machine.root)


def test_the_scale_of_the_kernel_is_exactly_2_to_the_minus_32(server):
    assert find_events(server.root)[0].scale_j == Fraction(1, 2**32)
