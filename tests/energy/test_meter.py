"""The meter as its users see it: regions, windows, heartbeat, cost."""

import os
import threading
import time
from dataclasses import fields
from itertools import pairwise

import pytest

from minibutter.energy import Energy, open_meter
from minibutter.energy.profiles import AMD_RANGE_UJ, Profile, ZoneSpec
from minibutter.energy.series import Series
from tests.energy.conftest import ENOENT, JOULE, FaultyFiles, assert_unavailable, measure


def test_energy_says_where_it_comes_from_and_what_it_is_worth(server):
    with server.meter() as meter:
        energy = measure(meter, server)
    assert energy == Energy(
        energy_j=40.0,
        source="powercap:package+dram",
        quality="measured",
        reason=None,
        resolution_j=pytest.approx(40.0 * 2e-3, rel=1e-6),
        window_s=None,
        idle_j=None,
        package_j=40.0,
        n_ranks=1,
    )


def test_a_share_of_a_group_adds_up_and_is_marked(server):
    with server.meter() as meter:
        energy = measure(meter, server)
    share = energy.divided(4)
    assert (share.energy_j, share.quality) == (10.0, "measured_divided")
    assert share.resolution_j == energy.resolution_j / 4
    assert energy.divided(1) is energy
    nothing = Energy(None, None, "unavailable", "why")
    assert nothing.divided(4) is nothing


def test_stamps_grow_even_where_the_clock_stands(single):
    with single.meter() as meter:
        stamps = [meter.stamp() for _ in range(100)]
        assert all(before < after for before, after in pairwise(stamps))
        single.clock.now_ns -= 10**9
        assert meter.stamp() > stamps[-1]


def test_moments_between_readings_are_interpolated_and_marked(single):
    """As other ranks log them: stamps of the same clock at which nobody read."""
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw_all()
        end = meter.stamp()
        middle = (begin + end) // 2
        first, second = meter.between(begin, middle), meter.between(middle, end)
    assert first.energy_j == pytest.approx(5.0, abs=2e-6)
    assert first.energy_j + second.energy_j == pytest.approx(10.0, abs=1e-9)
    assert {first.quality, second.quality} == {"interpolated"}
    assert first.resolution_j >= 5.0  # All of it may have been drawn on the other side.


def test_a_moment_after_the_last_reading_takes_one_more(single):
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw_all(2.0)
        end = begin + 10**9
        assert meter.between(begin, end).energy_j == pytest.approx(5.0, abs=1e-6)


def test_short_regions_share_the_energy_of_a_window_by_time(single):
    with single.meter() as meter:
        regions = []
        for milliseconds in (4, 4, 4, 30, 2, 6, 2, 1):
            begin = meter.stamp()
            single.draw(milliseconds / 1000, package_0=milliseconds * 50_000)
            regions.append((begin, meter.stamp()))
        energies = meter.along(regions)
    windows_ms = [energy.window_s and round(energy.window_s * 1e3, 3) for energy in energies]
    assert windows_ms == [12, 12, 12, None, 11, 11, 11, 11]
    expected_j = [0.2, 0.2, 0.2, 1.5, 0.1, 0.3, 0.1, 0.05]
    assert [energy.energy_j for energy in energies] == pytest.approx(expected_j, rel=1e-5)
    assert [energy.quality for energy in energies] == (
        ["interpolated"] * 3 + ["measured"] + ["interpolated"] * 4
    )
    # 50 W and two ticks, whatever the window: of an epoch of 2 ms that is all.
    assert [energy.resolution_j for energy in energies] == pytest.approx([0.1] * 8, rel=1e-3)


def test_regions_of_a_run_add_up_to_the_run_where_nothing_lies_between(single):
    with single.meter() as meter:
        stamps = [meter.stamp()]
        for i in range(100):
            single.draw((1 + i % 17) / 1000, package_0=40_000 + 1_000 * i)
            stamps.append(meter.stamp())
        energies = meter.along(list(pairwise(stamps)))
        whole = meter.between(stamps[0], stamps[-1])
    assert len(energies) == 100
    assert sum(energy.energy_j for energy in energies) == pytest.approx(whole.energy_j, rel=1e-12)


def test_pauses_between_short_regions_keep_their_part_of_the_energy(single):
    with single.meter() as meter:
        regions = []
        for _ in range(2):
            begin = meter.stamp()
            single.draw(0.004, package_0=200_000)
            regions.append((begin, meter.stamp()))
            single.draw(0.008, package_0=400_000)
        energies = meter.along(regions)
    assert [energy.energy_j for energy in energies] == pytest.approx([0.2, 0.2], rel=1e-5)


def test_a_run_that_is_too_short_as_a_whole_is_no_number(single):
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw(0.004, package_0=200_000)
        end = meter.stamp()
        energies = meter.along([(begin, end - 1_000_000), (end - 1_000_000, end)])
    assert len(energies) == 2
    for energy in energies:
        assert_unavailable(energy, "4.000 ms is too short", "10 ms are needed")
    assert meter.along([]) == []


def test_heartbeat_beats_four_times_a_wrap_at_the_bound_and_every_half_minute(make_machine, single):
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0", AMD_RANGE_UJ)
    with make_machine(Profile((zone,), ("package-0",))).meter() as meter:
        assert meter.period_s == pytest.approx(65.5326 / 4, rel=1e-4)
    with single.meter() as meter:
        assert meter.period_s == 30.0


def test_heartbeat_reads_while_nobody_asks_and_stops_with_the_meter(single, monkeypatch):
    monkeypatch.setattr("minibutter.energy.sampler.LONGEST_PERIOD_S", 0.002)
    with single.meter() as meter:
        thread = meter._sampler._thread
        assert thread.daemon
        deadline_s = time.monotonic() + 30
        while meter.cost.reads < 5 and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert meter.cost.reads >= 5
    assert not thread.is_alive()


def test_heartbeat_survives_what_should_not_happen(single, monkeypatch):
    monkeypatch.setattr("minibutter.energy.sampler.LONGEST_PERIOD_S", 0.002)
    files = FaultyFiles()
    with single.meter(files=files) as meter:
        monkeypatch.setattr(meter._source, "check", lambda: 1 / 0)
        reads, deadline_s = meter.cost.reads, time.monotonic() + 30
        while meter.cost.reads < reads + 5 and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert meter._sampler._thread.is_alive()
        assert meter.cost.reads >= reads + 5


def test_many_threads_may_ask_at_once(single, monkeypatch):
    """The threads take turns in the middle of a reading, so that only a lock keeps them apart."""
    with single.meter() as meter:
        append = Series.append
        monkeypatch.setattr(
            Series, "append", lambda *sample: (time.sleep(1e-5), append(*sample))[1]
        )
        stamps = []
        threads = [
            threading.Thread(target=lambda: stamps.extend(meter.stamp() for _ in range(50)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(stamps)) == 200
    assert meter.cost.reads == 201


def test_a_closed_meter_has_given_its_files_back_and_still_knows_what_it_saw(single):
    meter = single.meter()
    begin = meter.stamp()
    single.draw_all()
    end = meter.stamp()
    descriptor = meter._source._counters[0]._descriptor
    meter.close()
    meter.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert meter.between(begin, end).energy_j == 10.0
    single.draw_all()
    assert_unavailable(meter.between(end, meter.stamp()), "the meter is closed")


def test_files_are_given_back_when_there_is_no_total(server):
    files = FaultyFiles()
    files.opening["intel-rapl:1:0/energy_uj"] = ENOENT
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with server.meter(files=files) as meter:
        assert_unavailable(measure(meter, server), "package-1/dram", "shows no energy")
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_cost_counts_readings_and_processor_time(server):
    with server.meter() as meter:
        before = meter.cost
        for _ in range(1000):
            meter.stamp()
        cost = meter.cost - before
    assert cost.reads == 1000
    assert 1e-6 < cost.cpu_s / cost.reads < 1e-3


def test_memory_of_earlier_runs_is_given_back(single):
    with single.meter() as meter:
        for _ in range(100):
            single.draw(0.1, package_0=JOULE)
            begin = meter.stamp()
        meter.forget_before(begin)
        assert len(meter._series[0]) == 1
        single.draw(0.1, package_0=JOULE)
        assert meter.between(begin, meter.stamp()).energy_j == 1.0


def test_the_root_of_the_counters_comes_from_the_environment(single, monkeypatch):
    """As where the host's tree is mounted into a container."""
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(single.root))
    with open_meter() as meter:
        assert meter.source == "powercap:package"
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(single.root / "nowhere"))
    with open_meter() as meter:
        assert str(single.root / "nowhere") in meter.unavailable


def test_every_field_of_an_energy_is_described():
    assert [field.name for field in fields(Energy)] == [
        "energy_j", "source", "quality", "reason", "resolution_j", "window_s",
        "idle_j", "package_j", "n_ranks",
    ]  # fmt: skip
