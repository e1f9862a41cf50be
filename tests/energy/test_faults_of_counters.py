"""Faults of counters, clocks and use: 7 to 12, 17 to 23 and 29 to 32 of the list in test_faults."""

import time
from itertools import pairwise

import pytest

from minibutter.energy import open_meter
from minibutter.energy.profiles import (
    AMD_RANGE_UJ,
    INTEL_RANGE_UJ,
    PLATFORM_RANGE_UJ,
    Profile,
    ZoneSpec,
)
from minibutter.energy.series import Series
from minibutter.energy.source import Domain
from tests.energy.conftest import (
    EACCES,
    JOULE,
    FaultyFiles,
    assert_unavailable,
    measure,
    stamp_after,
)

INTEL_MODULUS_UJ = INTEL_RANGE_UJ + 61


def test_fault_07_a_wrap_is_counted_once(single):
    single.set("package-0", INTEL_RANGE_UJ - JOULE)
    with single.meter() as meter:
        begin = meter.stamp()
        single.clock.advance(1.0)
        single.set("package-0", 9 * JOULE)
        assert meter.between(begin, meter.stamp()).energy_j == (10 * JOULE + 61) / 1e6


def test_fault_07_many_wraps_are_counted_by_the_heartbeat(single):
    with single.meter() as meter:
        begin = meter.stamp()
        for _ in range(40):
            single.draw(200.0, package_0=180_000 * JOULE)
            meter.beat()
        assert meter.between(begin, meter.stamp()).energy_j == 40 * 180_000.0
        assert meter._series[0].n_wraps == 40 * 180_000 * JOULE // INTEL_MODULUS_UJ == 27


def test_fault_08_the_same_value_after_a_short_time_is_a_standstill_and_no_wrap(single):
    with single.meter() as meter:
        assert_unavailable(
            measure(meter, single, seconds=20.0, package_0=0), "stood still for 20.000 s"
        )


def test_fault_08_the_same_value_after_the_time_of_a_wrap_is_ambiguous(single):
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw(263.0, package_0=INTEL_MODULUS_UJ)
        assert_unavailable(meter.between(begin, meter.stamp()), "too long", "wrap every 262 s")


@pytest.mark.parametrize(("seconds", "is_ambiguous"), [(262.9, False), (263.2, True)])
def test_fault_09_a_second_wrap_is_excluded_by_the_power_it_would_take(
    single, seconds, is_ambiguous
):
    """Apart from 1 kJ there may be 262143 J more, for which 263.143 s at 1 kW are needed."""
    with single.meter() as meter:
        energy = measure(meter, single, seconds=seconds, package_0=1000 * JOULE)
        if is_ambiguous:
            assert_unavailable(energy, "263 s between two readings is too long", "1000 W")
        else:
            assert energy.energy_j == 1000.0
        assert measure(meter, single).energy_j == 10.0


def test_fault_09_two_wraps_are_not_taken_for_the_little_that_they_leave(single):
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw(600.0, package_0=2 * INTEL_MODULUS_UJ + 5 * JOULE)
        assert_unavailable(meter.between(begin, meter.stamp()), "600 s between two readings")
        assert measure(meter, single).energy_j == 10.0


def test_fault_09_the_bound_of_the_zone_decides_and_not_that_of_all(make_machine):
    """A laptop's package of 250 W at most wraps in 1049 s, memory of a server in 263."""
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0", INTEL_RANGE_UJ, 15.0)
    machine = make_machine(Profile((zone,), ("package-0",)))
    with machine.meter() as meter:
        assert measure(meter, machine, seconds=1000.0, package_0=JOULE).energy_j == 1.0
        assert_unavailable(
            measure(meter, machine, seconds=1060.0, package_0=JOULE), "at most 250 W", "1049 s"
        )


def test_fault_10_a_reset_is_no_wrap_and_spoils_only_its_own_stretch(single):
    single.set("package-0", 5000 * JOULE)
    with single.meter() as meter:
        stamps = [meter.stamp()]
        for raw_uj in (5010 * JOULE, 3 * JOULE, 13 * JOULE):
            single.clock.advance(1.0)
            single.set("package-0", raw_uj)
            stamps.append(meter.stamp())
        before, across, after = (meter.between(*pair) for pair in pairwise(stamps))
        assert (before.energy_j, after.energy_j) == (10.0, 10.0)
        assert_unavailable(across, "package-0 was reset, not wrapped", "1000 W")
        assert_unavailable(meter.between(stamps[0], stamps[-1]), "reset")


def test_fault_10_a_counter_that_jumps_ahead_is_no_energy(single):
    with single.meter() as meter:
        assert_unavailable(measure(meter, single, package_0=2000 * JOULE), "jumped or was reset")


@pytest.mark.parametrize("stuck", ["package_0", "package_1__dram"])
def test_fault_11_a_stuck_counter_is_never_zero_joules(server, stuck):
    with server.meter() as meter:
        moving = {c.replace("-", "_").replace("/", "__") for c in server.raw_uj} - {stuck}
        assert_unavailable(
            measure(meter, server, **dict.fromkeys(moving, JOULE)),
            stuck.replace("__", "/").replace("_", "-"),
            "stood still for 1.000 s",
        )
        assert measure(meter, server).energy_j == 40.0


def test_fault_12_a_value_beyond_the_range_is_a_failed_reading(single):
    with single.meter() as meter:
        begin = meter.stamp()
        single.clock.advance(1.0)
        single.set("package-0", INTEL_RANGE_UJ + 1)
        assert_unavailable(meter.between(begin, meter.stamp()), "beyond its range")


@pytest.mark.parametrize("profile", ["intel_client", "spr4"])
def test_fault_17_the_platform_is_not_added_to_what_it_contains(make_machine, profile):
    machine = make_machine(profile)
    with machine.meter() as meter:
        energy = measure(meter, machine)
        platforms = [d.name for d in meter.domains if d.name.startswith("psys")]
    assert energy.energy_j == 10.0 * len(machine.profile.true_counters)
    assert len(platforms) == {"intel_client": 1, "spr4": 4}[profile]


def test_fault_18_the_second_view_through_mmio_is_not_added(make_machine):
    machine = make_machine("intel_client")
    with machine.meter() as meter:
        assert measure(meter, machine, package_0=10 * JOULE).energy_j == 10.0


def test_fault_18_mmio_alone_does_not_stand_in(make_machine):
    machine = make_machine("intel_client")
    files = FaultyFiles()
    files.opening = {f"intel-rapl:{slot}/energy_uj": EACCES for slot in ("0", "0:0", "0:1", "1")}
    with machine.meter(files=files) as meter:
        assert_unavailable(measure(meter, machine), "intel-rapl-mmio/package-0", "not stand in")


@pytest.mark.parametrize(("profile", "n_mirrors"), [("amd_ccd_bug", 11), ("threadripper", 1)])
def test_fault_19_mirrored_dies_count_once(make_machine, profile, n_mirrors):
    machine = make_machine(profile)
    with machine.meter() as meter:
        assert measure(meter, machine).energy_j == 10.0
        (note,) = meter.notes
        assert note.count("package-0-die-") == n_mirrors + 1
        assert "show the counter of package-0-die-0 and are not added" in note


def test_fault_19_an_update_between_two_readings_hides_no_mirror(make_machine):
    """The counter moves with every third reading, first within a pair of readings."""
    machine, files = make_machine("threadripper"), FaultyFiles()
    count, pread = iter(range(10**6)), files.pread
    link = str(machine.path("intel-rapl:0").parent)

    def moving(descriptor, n_bytes, offset):
        if files._paths[descriptor].endswith("energy_uj") and link[:-1] in files._paths[descriptor]:
            return f"{1000 + next(count) // 3}\n".encode()
        return pread(descriptor, n_bytes, offset)

    next(count), next(count)
    files.pread = moving
    with machine.meter(files=files) as meter:
        assert [domain.is_summed for domain in meter.domains] == [True] + [False] * 3


def test_fault_19_a_die_that_departs_from_its_mirror_makes_the_total_unknown(make_machine):
    machine = make_machine("clx_ap")
    machine.raw_uj = dict.fromkeys(machine.raw_uj, 0)  # Not even booted: all alike.
    machine.show()
    with machine.meter() as meter:
        begin = meter.stamp()
        machine.draw(1.0, **{"package_0_die_0": JOULE, "package_0_die_1": 2 * JOULE})
        meter.beat()
        assert_unavailable(meter.between(begin, meter.stamp()), "taken for a mirror")


def test_fault_20_independent_dies_are_summed(make_machine):
    machine = make_machine("clx_ap")
    with machine.meter() as meter:
        assert measure(meter, machine).energy_j == 40.0
        assert meter.notes == ()


def test_fault_21_slots_are_hexadecimal(make_machine):
    machine = make_machine("twelve_zones")
    assert machine.path("intel-rapl:b").exists()
    with machine.meter() as meter:
        assert measure(meter, machine).energy_j == 120.0


def test_fault_22_slots_are_not_numbers_of_packages(make_machine):
    machine = make_machine("swapped_index")
    with machine.meter() as meter:
        begin = meter.stamp()
        machine.draw(
            1.0, package_0=JOULE, package_1=2 * JOULE, package_0__dram=3, package_1__dram=4
        )
        energies = meter.domains_between(begin, meter.stamp())
    assert [energies[name].energy_j for name in sorted(energies)] == [1.0, 3e-6, 2.0, 4e-6]


def test_fault_23_the_one_core_of_amd_processors_is_read_apart(make_machine):
    machine = make_machine("amd_zen")
    with machine.meter() as meter:
        begin = meter.stamp(apart=True)
        machine.draw(1.0, package_0=130 * JOULE, core=6 * JOULE)
        end = meter.stamp(apart=True)
        assert meter.between(begin, end).energy_j == 130.0
        assert meter.domains_between(begin, end)["package-0/core"].energy_j == 6.0


def test_fault_30_a_step_of_the_wall_clock_changes_nothing(single, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9)
    monkeypatch.setattr(time, "time_ns", lambda: -(10**18))
    with open_meter(single.root) as meter:
        begin = meter.stamp()
        assert abs(begin - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) < 10**9
        time.sleep(0.012)
        single.draw_all(0.0)
        end = meter.stamp()
        assert meter.between(begin, end).energy_j == 10.0
        assert 12_000_000 <= end - begin < 10**10


def test_fault_30_what_was_drawn_while_the_machine_slept_is_not_known(single):
    from minibutter.energy.meter import Meter
    from minibutter.energy.powercap import PowercapSource

    asleep_ns = 0
    source = PowercapSource(single.root, clock=single.clock)
    boot_clock = lambda: single.clock() + asleep_ns  # noqa: E731
    with Meter(source, clock=single.clock, boot_clock=boot_clock) as meter:
        first = meter.stamp()
        second = stamp_after(meter, single)
        asleep_ns = 3600 * 10**9
        third = stamp_after(meter, single)
        single.draw_all()
        assert meter.between(first, second).energy_j == 10.0
        assert_unavailable(meter.between(second, third), "was suspended for 3600.0 s")
        assert meter.between(third, meter.stamp()).energy_j == 10.0


def test_fault_30_an_exception_in_a_region_leaves_the_meter_as_it_was(single):
    with single.meter() as meter:
        begin = meter.stamp()
        with pytest.raises(ZeroDivisionError), meter.working(1e9):
            single.draw_all(1 / 0)
        assert meter.between(begin, stamp_after(meter, single)).energy_j == 10.0
        assert measure(meter, single).energy_j == 10.0


def test_fault_30_nested_regions_are_measured_each_for_itself(single):
    with single.meter() as meter:
        outer = meter.stamp()
        inner = stamp_after(meter, single)
        inner_end = stamp_after(meter, single)
        outer_end = stamp_after(meter, single)
        assert meter.between(inner, inner_end).energy_j == 10.0
        assert meter.between(outer, outer_end).energy_j == 30.0


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.0099])
def test_fault_30_a_region_of_less_than_ten_ticks_is_no_number(single, seconds):
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw(seconds, package_0=JOULE)
        meter.stamp()
        end = begin + round(seconds * 1e9)
        assert_unavailable(meter.between(begin, end), f"{seconds * 1e3:.3f} ms is too short")


def test_fault_31_a_sweep_that_was_preempted_is_known_to_be_wide(server):
    """50 ms pass between two counters of the last reading."""
    files = FaultyFiles()
    with server.meter(files=files) as meter:
        begin = meter.stamp()
        quick = meter.between(begin, stamp_after(meter, server))
        pread = files.pread

        def slow(descriptor, n_bytes, offset):
            if "intel-rapl:1/energy_uj" in files._paths[descriptor]:
                server.clock.advance(0.050)
            return pread(descriptor, n_bytes, offset)

        for counter in meter._source._counters:
            counter._pread = slow
        begin = meter.stamp()
        wide = meter.between(begin, stamp_after(meter, server))
    assert quick.resolution_j == pytest.approx(40.0 * 2 * 0.001, rel=1e-6)
    # 1.05 s between the middles of two sweeps of 50 ms: half of each, and a tick, at each end.
    assert wide.resolution_j == pytest.approx(40.0 / 1.05 * 2 * (0.001 + 0.025), rel=1e-6)


def test_fault_32_weeks_of_microjoules_are_counted_to_the_last_one():
    """Doubles would drop single microjoules from 2^53 on, after 104 days at a kilowatt."""
    series = Series(Domain("package-0", AMD_RANGE_UJ + 15, True))
    modulus_uj, step_uj, raw_uj = AMD_RANGE_UJ + 15, 29_999_999_999, 0
    n_steps = 2**53 // step_uj + 1000
    for i in range(n_steps + 1):
        series.append(i * 30 * 10**9, 0, raw_uj)
        raw_uj = (raw_uj + step_uj) % modulus_uj
    whole = series.between(0, n_steps * 30 * 10**9).energy_uj
    assert whole == n_steps * step_uj > 2**53
    assert series.between((n_steps - 1) * 30 * 10**9, n_steps * 30 * 10**9).energy_uj == step_uj


def test_fault_32_a_microjoule_after_months_is_still_a_microjoule(make_machine):
    """The counter of a platform of Sapphire Rapids, 1 J a unit, takes weeks to wrap."""
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0", PLATFORM_RANGE_UJ)
    machine = make_machine(Profile((zone,), ("package-0",)))
    days_s, drawn_uj = 20 * 86400.0, 1_500_000_000_000_001
    with machine.meter() as meter:
        first = meter.stamp()
        for _ in range(7):
            machine.draw(days_s, package_0=drawn_uj)
            last = meter.stamp()
        assert meter._series[0].between(first, last).energy_uj == 7 * drawn_uj > 2**53
        assert measure(meter, machine, package_0=1).energy_j == 1e-6
        assert meter._series[0].n_wraps == 2
