"""Performance events as counters of the meter: in place of powercap, and never a part for all."""

import errno
import os
import struct
from pathlib import Path

import pytest

from minibutter.energy import opening, perf
from minibutter.energy.events import EventSource
from minibutter.energy.source import CounterUnavailable

PKG, RAM, PSYS = 2, 3, 5


@pytest.fixture
def server(make_tree):
    """Two sockets whose PMU counts packages, memory and platform."""
    machine = make_tree("server")
    machine.add_pmu("power", 17, "0,4", {"energy-pkg": PKG, "energy-ram": RAM, "energy-psys": PSYS})
    return machine


class Kernel:
    """Opens events as files of its own; every event has counted as many units as its key says."""

    def __init__(self, refused=()):
        self.refused, self.keys, self.units = refused, {}, {}
        self.running_ns = 10**9

    def open(self, attribute, cpu):
        _, _, config = struct.unpack_from("IIQ", attribute)
        if config in self.refused:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = os.open("/dev/null", os.O_RDONLY)
        self.keys[descriptor] = config, cpu
        return descriptor

    def read(self, descriptor):
        units = self.units.get(self.keys[descriptor], 0)
        return struct.pack("QQQ", units, 10**9, self.running_ns)


def make_source(machine, kernel):
    return EventSource(machine.root, opener=kernel.open, reader=kernel.read)


def test_packages_and_memory_are_summed_and_come_first(server):
    source = make_source(server, Kernel())
    names = [(domain.name, domain.is_summed) for domain in source.domains]
    assert names == [
        ("package-0", True), ("package-1", True), ("package-0/dram", True),
        ("package-1/dram", True), ("psys", False), ("psys-1", False),
    ]  # fmt: skip
    assert (source.name, source.is_simulated, source.check()) == ("perf", False, None)
    source.close()


def test_only_as_many_as_asked_for_are_read_each_in_its_place(server):
    kernel = Kernel()
    source = make_source(server, kernel)
    before = source.read_uj(4)
    kernel.units[PKG, 4] = 2**32  # one joule in units of 2^-32 J
    after = source.read_uj(4)
    moved = [late - early for early, late in zip(before, after, strict=True)]
    assert [uj > 0 for uj in moved] == [False, True, False, False]
    assert len(source.read_uj(2)) == 2
    source.close()


def test_counts_that_were_off_the_counter_are_a_failure_in_every_place(server):
    kernel = Kernel()
    source = make_source(server, kernel)
    kernel.running_ns = 1
    values = source.read_uj(4)
    assert all(isinstance(value, CounterUnavailable) for value in values)
    assert "was counted for" in str(values[0])
    source.close()


@pytest.mark.parametrize(("refused", "message"), [
    ((PKG,), "power/energy-pkg/ cannot be opened: EACCES"),
    ((RAM,), "packages alone must not pass for packages with memory"),
])  # fmt: skip
def test_a_part_of_the_machine_does_not_pass_for_it(server, refused, message):
    kernel = Kernel(refused)
    with pytest.raises(CounterUnavailable, match=message):
        make_source(server, kernel)
    for descriptor in kernel.keys:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_platform_that_is_closed_is_a_note(server):
    source = make_source(server, Kernel({PSYS}))
    assert [note.partition(":")[0] for note in source.notes] == ["psys", "psys-1"]
    assert len(source.domains) == 4
    source.close()


def test_the_meter_takes_events_where_powercap_is_closed(server, monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(opening, "has_energy_events", lambda root: True)
    monkeypatch.setattr(opening, "EventSource", lambda root, virtual: make_source(server, kernel))

    def closed(*_):
        raise CounterUnavailable("powercap is closed")

    monkeypatch.setattr(opening, "PowercapSource", closed)
    now = [0]
    with opening.open_meter(Path("/"), clock=lambda: now[0]) as meter:
        begin = meter.stamp()
        now[0] += 10**9
        for key in ((PKG, 0), (PKG, 4), (RAM, 0), (RAM, 4)):
            kernel.units[key] = 2**32 * 10
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
