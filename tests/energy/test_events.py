"""Performance events as counters of the meter: in place of powercap, and never a part for all."""

import errno
import os
from pathlib import Path

import pytest

from minibutter.energy import opening, perf
from minibutter.energy.events import EventSource
from minibutter.energy.source import CounterUnavailable
from tests.kernel import FakeKernel

PKG, RAM, PSYS = 2, 3, 5


@pytest.fixture
def server(make_tree):
    """Two sockets whose PMU counts packages, memory and platform."""
    machine = make_tree("server")
    machine.add_pmu("power", 17, "0,4", {"energy-pkg": PKG, "energy-ram": RAM, "energy-psys": PSYS})
    return machine


@pytest.fixture
def kernel():
    return FakeKernel()


def open_source(machine, kernel):
    return EventSource(machine.root, opener=kernel.open, reader=kernel.read)


def test_packages_and_memory_are_summed_and_come_first(server, kernel):
    source = open_source(server, kernel)
    names = [(domain.name, domain.is_summed) for domain in source.domains]
    assert names == [
        ("package-0", True), ("package-1", True), ("package-0/dram", True),
        ("package-1/dram", True), ("psys", False), ("psys-1", False),
    ]  # fmt: skip
    assert [domain.max_power_w for domain in source.domains] == [1000.0] * 4 + [10_000.0] * 2
    assert (source.name, source.is_simulated, source.notes) == ("perf", False, ())
    source.close()


def test_only_as_many_as_asked_for_are_read_each_in_its_place(server, kernel):
    """Cores of AMD processors are many, and each of them is disturbed when it is read."""
    server.add_pmu("power_core", 18, "0-7", {"energy-core": 1})
    source = open_source(server, kernel)
    kernel.counts[17, PKG, 4] = 2**32  # one joule in units of 2^-32 J
    assert source.read_uj(4) == [0, 10**6, 0, 0]
    assert kernel.n_reads == 4
    assert len(source.read_uj(14)) == 14
    source.close()


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (b"", "gave 0 bytes instead of 24: the event is in an error state"),
        (OSError(errno.ENODEV, os.strerror(errno.ENODEV)), "cannot be read (No such device)"),
    ],
)
def test_a_failed_event_is_named_and_keeps_no_other_from_being_read(
    server, kernel, failure, message
):
    source = open_source(server, kernel)
    kernel.failing[17, PKG, 4] = failure
    values = source.read_uj(6)
    assert values[:1] + values[2:] == [0] * 5
    assert str(values[1]) == f"power/energy-pkg/ on CPU 4 {message}"
    source.close()


def test_fault_34_a_count_that_shared_its_counter_is_a_failure_now_and_later(server, kernel):
    source = open_source(server, kernel)
    kernel.off_ns[17, PKG, 0] = 400_000_000
    for _ in range(2):
        values = source.read_uj(4)
        assert "CPU 0 was counted for 0.600 s of 1.000 s" in str(values[0])
        assert values[1:] == [0, 0, 0]
    source.close()


@pytest.mark.parametrize(("config", "message"), [
    (PKG, "power/energy-pkg/ cannot be opened: EACCES"),
    (RAM, "power/energy-ram/ .* packages alone must not pass for packages with memory"),
])  # fmt: skip
@pytest.mark.parametrize("cpus", [(), (4,)])
def test_a_part_of_the_machine_does_not_pass_for_it(server, kernel, config, message, cpus):
    """Also if one of two packages can be opened."""
    kernel.refused[17, config, *cpus] = errno.EACCES
    with pytest.raises(CounterUnavailable, match=message):
        open_source(server, kernel)
    assert kernel.opened
    assert kernel.n_held == 0


def test_dies_that_may_be_mirrors_are_refused_and_given_back(make_tree, kernel):
    machine = make_tree("x3d")
    machine.add_pmu("power", 17, "0,4", {"energy-pkg": PKG})
    with pytest.raises(CounterUnavailable, match="package-0-die-0, package-0-die-1: from Linux"):
        open_source(machine, kernel)
    assert (len(kernel.opened), kernel.n_held) == (2, 0)


def test_a_platform_that_is_closed_is_a_note(server, kernel):
    kernel.refused[17, PSYS, 4] = errno.EINVAL
    source = open_source(server, kernel)
    assert [note.partition(":")[0] for note in source.notes] == ["psys", "psys-1"]
    assert "EINVAL" in source.notes[0]
    assert (len(source.domains), kernel.n_held) == (4, 4)
    source.close()


def test_fault_16_a_package_that_comes_or_goes_makes_the_total_unknown(server, kernel):
    source = open_source(server, kernel)
    assert source.check() is None
    pmu = "sys/bus/event_source/devices/power"
    server.add_cpu(16, package=2)
    server.write(f"{pmu}/cpumask", "0,4,16")
    assert source.check() == "package-2 has appeared since the meter was opened and is not counted"
    server.write(f"{pmu}/cpumask", "0")
    assert source.check() == "package-1 is gone since the meter was opened"
    server.write(f"{pmu}/cpumask", "1,5")  # Other CPUs speak for the same packages.
    assert source.check() is None
    (server.root / pmu / "cpumask").unlink()
    assert source.check() is None
    source.close()


def test_a_closed_source_has_given_its_files_back_and_says_so(server, kernel):
    source = open_source(server, kernel)
    assert kernel.n_held == 6
    source.close()
    source.close()
    assert kernel.n_held == 0
    assert [str(value) for value in source.read_uj(2)] == ["the events of perf are closed"] * 2


def test_the_meter_takes_events_where_powercap_is_closed(server, kernel, monkeypatch):
    monkeypatch.setattr(opening, "has_energy_events", lambda root: True)
    monkeypatch.setattr(opening, "EventSource", lambda root, virtual: open_source(server, kernel))

    def closed(*_):
        raise CounterUnavailable("powercap is closed")

    monkeypatch.setattr(opening, "PowercapSource", closed)
    now = [0]
    with opening.open_meter(Path("/"), clock=lambda: now[0]) as meter:
        begin = meter.stamp()
        now[0] += 10**9
        for key in ((PKG, 0), (PKG, 4), (RAM, 0), (RAM, 4)):
            kernel.counts[17, *key] = 2**32 * 10
        energy = meter.between(begin, meter.stamp())
    scale_j = float(perf.find_events(server.root)[0].scale_j)
    assert energy.energy_j == pytest.approx(4 * 10 * 2**32 * scale_j)
    assert energy.source.startswith("perf:package+dram")
    assert energy.quality == "measured"


def test_the_reasons_of_both_are_told_where_neither_can_be_read(monkeypatch):
    monkeypatch.setattr(opening, "has_energy_events", lambda root: True)

    def refuse(what):
        def raise_it(*_):
            raise CounterUnavailable(f"{what} is closed")

        return raise_it

    monkeypatch.setattr(opening, "PowercapSource", refuse("powercap"))
    monkeypatch.setattr(opening, "EventSource", refuse("perf"))
    with opening.open_meter(Path("/")) as meter:
        assert meter.unavailable == "powercap is closed; perf is closed"
