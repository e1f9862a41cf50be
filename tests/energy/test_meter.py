import errno
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibutter.energy import Energy, open_meter
from minibutter.energy.meter import Meter, Reading
from minibutter.energy.powercap import Zone, open_read_only

INTEL_RANGE_UJ = 262143328850
INTEL_UNIT_UJ = 61


def measure(meter, clock, duration_s, work=lambda: None):
    start = meter.read()
    work()
    clock.now_s += duration_s
    return meter.between(start, meter.read())


def assert_unavailable(energy, *parts):
    assert energy == Energy(None, None, "unavailable", energy.reason)
    for part in parts:
        assert part in energy.reason


def test_packages_and_memories_of_two_sockets_are_summed_exactly(server, clock):
    def work():
        server.advance("intel-rapl:0", 10_000_001)
        server.advance("intel-rapl:1", 20_000_000)
        server.advance("intel-rapl:0:0", 3_000_000)
        server.advance("intel-rapl:1:0", 500_000)

    with open_meter(server.root, clock=clock) as meter:
        energy = measure(meter, clock, 1.0, work)
    assert energy == Energy(33.500001, "powercap:package+dram", "measured", None)


def test_core_uncore_platform_and_mmio_add_nothing(powercap, clock):
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "uncore",
        "intel-rapl:1": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for zone, name in zones.items():
        powercap.add(zone, name)

    def work():
        for zone in zones:
            powercap.advance(zone, 10_000_000)

    with open_meter(powercap.root, clock=clock) as meter:
        energy = measure(meter, clock, 1.0, work)
    assert energy == Energy(10.0, "powercap:package", "measured", None)


def test_amd_package_counts_and_its_single_core_does_not(amd, clock):
    def work():
        amd.advance("intel-rapl:0", 7_250_000)
        amd.advance("intel-rapl:0:0", 1_000_000)

    with open_meter(amd.root, clock=clock) as meter:
        assert measure(meter, clock, 0.1, work).energy_j == 7.25


def test_twelve_packages_with_hexadecimal_slots_are_all_counted(powercap, clock):
    slots = [f"intel-rapl:{i:x}" for i in range(12)]
    for i, slot in enumerate(slots):
        powercap.add(slot, f"package-{i}")
    with open_meter(powercap.root, clock=clock) as meter:
        energy = measure(
            meter, clock, 1.0, lambda: [powercap.advance(slot, 10_000_000) for slot in slots]
        )
    assert energy.energy_j == 120.0


def test_independent_dies_are_summed(powercap, clock):
    powercap.add("intel-rapl:0", "package-0-die-0", 5)
    powercap.add("intel-rapl:1", "package-0-die-1", 7_000_000)

    def work():
        powercap.advance("intel-rapl:0", 4_000_000)
        powercap.advance("intel-rapl:1", 6_000_000)

    with open_meter(powercap.root, clock=clock) as meter:
        assert measure(meter, clock, 1.0, work).energy_j == 10.0


def test_packages_shared_with_other_ranks_are_marked(amd, clock):
    with open_meter(amd.root, shared=True, clock=clock) as meter:
        energy = measure(meter, clock, 1.0, lambda: amd.advance("intel-rapl:0", 1_000_000))
    assert energy == Energy(1.0, "powercap:package", "measured_shared", None)


def test_counter_that_wraps_once_adds_the_range_and_one_unit(powercap, clock):
    powercap.add("intel-rapl:0", "package-0", INTEL_RANGE_UJ - 1_000_000)
    with open_meter(powercap.root, clock=clock) as meter:
        energy = measure(meter, clock, 1.0, lambda: powercap.set("intel-rapl:0", 9_000_000))
    assert energy.energy_j == (10_000_000 + INTEL_UNIT_UJ) / 1e6


def test_counter_that_was_reset_is_no_wrap(powercap, clock):
    powercap.add("intel-rapl:0", "package-0", 5_000_000_000)
    with open_meter(powercap.root, clock=clock) as meter:
        energy = measure(meter, clock, 1.0, lambda: powercap.set("intel-rapl:0", 50_000))
    assert_unavailable(energy, "package-0", "reset")


@pytest.mark.parametrize(("duration_s", "is_ambiguous"), [(262.1, False), (262.2, True)])
def test_interval_in_which_a_counter_may_wrap_twice_is_ambiguous(
    powercap, clock, duration_s, is_ambiguous
):
    powercap.add("intel-rapl:0", "package-0")
    with open_meter(powercap.root, clock=clock) as meter:
        energy = measure(meter, clock, duration_s, lambda: powercap.set("intel-rapl:0", 10**9))
    if is_ambiguous:
        assert_unavailable(energy, "262 s between two readings is too long", "1000 W")
    else:
        assert energy.energy_j == 1000.0


def test_shortest_range_decides_how_long_an_interval_may_be(server, clock):
    """The memory's counter wraps four times as soon as the package's."""
    with open_meter(server.root, clock=clock) as meter:
        assert_unavailable(measure(meter, clock, 66.0), "package-0/dram", "66 s")


@pytest.mark.parametrize(("duration_s", "is_too_short"), [(0.0098, True), (0.0102, False)])
def test_interval_below_ten_ticks_is_unavailable(amd, clock, duration_s, is_too_short):
    with open_meter(amd.root, clock=clock) as meter:
        energy = measure(meter, clock, duration_s, lambda: amd.advance("intel-rapl:0", 1_000_000))
    if is_too_short:
        assert_unavailable(energy, "9.800 ms is too short")
    else:
        assert energy.energy_j == 1.0


@pytest.mark.parametrize("zone", ["intel-rapl:0", "intel-rapl:1:0"])
def test_counter_that_stands_still_is_never_zero_joules(server, clock, zone):
    moving = {"intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl:1:0"} - {zone}
    with open_meter(server.root, clock=clock) as meter:
        energy = measure(
            meter, clock, 1.0, lambda: [server.advance(other, 1_000_000) for other in moving]
        )
    assert_unavailable(energy, "stood still")


def test_failed_read_costs_its_own_intervals_only(amd, clock):
    path = amd.root / "intel-rapl:0" / "energy_uj"
    with open_meter(amd.root, clock=clock) as meter:
        readings = []
        for text in ("1000000", "2000000", "", "4000000", "8000000"):
            path.write_text(text)
            readings.append(meter.read())
            clock.now_s += 1.0
    intervals = [meter.between(*pair) for pair in pairwise(readings)]
    assert [interval.energy_j for interval in intervals] == [1.0, None, None, 4.0]
    assert_unavailable(intervals[1], "energy_uj contains b''")
    assert_unavailable(intervals[2], "energy_uj contains b''")
    assert meter.along(readings).energy_j == 7.0


def test_long_run_is_measured_along_its_readings(powercap, clock):
    """Three wraps, epochs of 100 s, and many too short to be measured alone."""
    powercap.add("intel-rapl:0", "package-0")
    with open_meter(powercap.root, clock=clock) as meter:
        readings = [meter.read()]
        for duration_s in [100.0] * 10 + [0.001] * 50:
            powercap.advance("intel-rapl:0", round(duration_s * 900e6))
            clock.now_s += duration_s
            readings.append(meter.read())
        assert meter.along(readings).energy_j == 900_045.0
        assert_unavailable(meter.between(readings[0], readings[-1]), "too long")
        assert_unavailable(meter.between(readings[-2], readings[-1]), "too short")


def test_reset_in_the_middle_of_a_long_run_is_seen(powercap, clock):
    powercap.add("intel-rapl:0", "package-0", 5_000_000_000)
    with open_meter(powercap.root, clock=clock) as meter:
        readings = []
        for energy_uj in (5_000_000_000, 5_100_000_000, 10_000, 100_000_000):
            powercap.set("intel-rapl:0", energy_uj)
            readings.append(meter.read())
            clock.now_s += 200.0
        assert_unavailable(meter.along(readings), "reset")


@given(
    start_uj=st.integers(0, INTEL_RANGE_UJ),
    parts_uj=st.lists(st.integers(1, 10**9), min_size=1, max_size=20),
)
def test_parts_of_a_run_add_up_to_the_run(tmp_path_factory, start_uj, parts_uj):
    zone = Zone("package-0", tmp_path_factory.getbasetemp(), INTEL_RANGE_UJ)

    class Recorded:
        """A counter whose readings are made below."""

        def __init__(self):
            self.zone = zone

    meter = Meter([Recorded()], None, False, lambda: 0.0)
    readings, total_uj = [Reading(0.0, (start_uj,), None)], start_uj
    for i, part_uj in enumerate(parts_uj):
        total_uj += part_uj
        readings.append(Reading(i + 1.0, (total_uj % zone.modulus_uj,), None))
    parts = [meter.between(*pair).energy_j for pair in pairwise(readings)]
    assert parts == [part_uj / 1e6 for part_uj in parts_uj]
    assert meter.along(readings).energy_j == sum(parts_uj) / 1e6


def test_machine_without_counters_says_so_in_every_energy(tmp_path, clock):
    with open_meter(tmp_path / "absent", clock=clock) as meter:
        assert "virtual machine" in meter.unavailable
        assert meter.source is None
        assert_unavailable(measure(meter, clock, 1.0), "does not exist", "virtual machine")


def test_one_forbidden_counter_makes_the_whole_unavailable(server, clock):
    opened = []

    def refuse_memory(path):
        if path.parent.name == "intel-rapl:0:0":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        opened.append(open_read_only(path))
        return opened[-1]

    with open_meter(server.root, clock=clock, opener=refuse_memory) as meter:
        assert_unavailable(measure(meter, clock, 1.0), "intel-rapl:0:0/energy_uj", "sudo chmod a+r")
    assert opened
    for descriptor in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_unreadable_counter_is_told_from_a_forbidden_one(amd, clock):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with open_meter(amd.root, clock=clock, opener=fail) as meter:
        energy = measure(meter, clock, 1.0)
    assert_unavailable(energy, "cannot be opened (Input/output error)")
    assert "chmod" not in energy.reason


def test_closed_meter_gives_its_files_back_and_reads_no_more(amd, clock):
    opened = []

    def opener(path):
        opened.append(open_read_only(path))
        return opened[-1]

    meter = open_meter(amd.root, clock=clock, opener=opener)
    meter.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
    assert_unavailable(measure(meter, clock, 1.0), "the meter is closed")
    assert len(opened) == 1
