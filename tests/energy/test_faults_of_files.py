"""Faults of the tree and its files: 1 to 6, 10, 13 to 16, 24 to 28 and 33 of those in test_faults.

Every fault comes in through the files that the reader opens and reads.
"""

import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest

from minibutter.energy.profiles import INTEL_RANGE_UJ, SERVER_DRAM_RANGE_UJ, Profile, ZoneSpec
from minibutter.energy.source import CounterUnavailable
from minibutter.energy.zones import find_zones
from tests.energy.conftest import (
    EACCES,
    EINVAL,
    EIO,
    ENODEV,
    JOULE,
    assert_unavailable,
    measure,
    stamp_after,
)


def test_fault_01_without_powercap_the_reason_is_that_there_is_none(make_machine):
    machine = make_machine("none")
    with machine.meter() as meter:
        assert_unavailable(measure(meter, machine, seconds=1), "does not exist", "intel_rapl_msr")
        assert "does not exist" in meter.unavailable


def test_fault_02_an_empty_class_is_told_from_none(make_machine):
    machine = make_machine("empty_class")
    with machine.meter() as meter:
        assert_unavailable(measure(meter, machine, seconds=1), "has no zone intel-rapl:*")


def test_fault_03_dangling_links_are_those_of_a_container(make_machine):
    machine = make_machine("container_masked")
    assert machine.path("intel-rapl:0").parent.is_symlink()
    with machine.meter() as meter:
        assert_unavailable(
            measure(meter, machine, seconds=1), "intel-rapl:0/name", "container", "masked"
        )


def test_fault_04_forbidden_counters_come_with_the_line_that_opens_them(server, files):
    files.opening["energy_uj"] = EACCES
    with server.meter(files=files) as meter:
        energy = measure(meter, server)
        assert_unavailable(energy, "energy_uj may be read by root only", "sudo chmod a+r")
        assert "can be read" not in energy.reason


@pytest.mark.parametrize(
    ("slot", "readable"),
    [("0:0", "package-0"), ("1", "package-0, package-0/dram"),
     ("1:0", "package-0, package-0/dram, package-1")],
)  # fmt: skip
def test_fault_05_a_partial_total_is_no_total(server, files, slot, readable):
    files.opening[f"intel-rapl:{slot}/energy_uj"] = EACCES
    with server.meter(files=files) as meter:
        assert_unavailable(
            measure(meter, server),
            f"intel-rapl:{slot}/energy_uj",
            f"({readable} can be read, but a part must not pass for the whole)",
        )


def test_fault_05_a_forbidden_part_beside_the_total_costs_nothing_but_itself(make_machine, files):
    machine = make_machine("intel_client")
    files.opening["intel-rapl:1/energy_uj"] = EACCES
    with machine.meter(files=files) as meter:
        assert measure(meter, machine).energy_j == 10.0
        assert any("intel-rapl:1/energy_uj may be read" in note for note in meter.notes)


@pytest.mark.parametrize("text", [None, "0\n", "", "-1\n", "none\n"])
def test_fault_06_without_a_range_what_does_not_fall_is_measured(single, text):
    if text is None:
        single.path("intel-rapl:0", "max_energy_range_uj").unlink()
    else:
        single.write("intel-rapl:0", "max_energy_range_uj", text)
    with single.meter() as meter:
        assert measure(meter, single).energy_j == 10.0
        (note,) = meter.notes
        assert "no wrap can be corrected" in note


@pytest.mark.parametrize("code", [EACCES, EIO])
@pytest.mark.parametrize("how", ["opening", "reading"])
def test_fault_06_a_range_that_cannot_be_read_is_named_with_the_reason(single, files, how, code):
    getattr(files, how)["max_energy_range_uj"] = code
    with single.meter(files=files) as meter:
        assert measure(meter, single).energy_j == 10.0
        (note,) = meter.notes
        assert f"cannot be read ({os.strerror(code)}), so that no wrap" in note


def test_fault_06_without_a_range_a_fall_is_no_number(single):
    single.path("intel-rapl:0", "max_energy_range_uj").unlink()
    single.set("package-0", INTEL_RANGE_UJ - JOULE)
    with single.meter() as meter:
        assert_unavailable(measure(meter, single), "fell", "range cannot be read")
        assert measure(meter, single).energy_j == 10.0


def test_fault_06_without_a_range_a_long_gap_may_hide_a_wrap(single):
    single.path("intel-rapl:0", "max_energy_range_uj").unlink()
    with single.meter() as meter:
        assert measure(meter, single, seconds=65.0, package_0=JOULE).energy_j == 1.0
        assert_unavailable(
            measure(meter, single, seconds=66.0, package_0=JOULE), "66 s between", "too long"
        )


def test_fault_10_a_module_that_was_loaded_anew_has_counters_that_begin_at_0(single, files):
    """The zone is gone and back between two readings; what it counts has been another counter."""
    single.set("package-0", 5000 * JOULE)
    with single.meter(files=files) as meter:
        begin = meter.stamp()
        single.raw_uj["package-0"] = 0
        single.replace("intel-rapl:0", single.zones["intel-rapl:0"])
        middle = stamp_after(meter, single)
        assert_unavailable(meter.between(begin, middle), "package-0 was reset, not wrapped")
        assert meter.between(middle, stamp_after(meter, single)).energy_j == 10.0


def test_fault_13_one_failed_read_costs_no_energy(server, files):
    """The neighbours of the failed reading have all of it; only the cut between is shared out."""
    with server.meter(files=files) as meter:
        stamps = [meter.stamp()]
        for fails in (False, True, False, False):
            server.draw_all()
            files.reading = {"energy_uj": EINVAL} if fails else {}
            stamps.append(meter.stamp())
        parts = [meter.between(*pair) for pair in pairwise(stamps)]
        assert meter.between(stamps[0], stamps[-1]).energy_j == 4 * 40.0
    assert [part.energy_j for part in parts] == pytest.approx([40.0] * 4, abs=1e-5)
    assert [part.quality for part in parts] == [
        "measured", "interpolated", "interpolated", "measured",
    ]  # fmt: skip
    assert parts[1].resolution_j > 40.0 > 1.0 > parts[0].resolution_j


def test_fault_13_a_file_that_may_no_longer_be_opened_is_still_read(server, files):
    """Permission is checked at opening: a launcher may have opened it before it stepped down."""
    with server.meter(files=files) as meter:
        begin = meter.stamp()
        files.opening["energy_uj"] = EACCES
        files.reading["energy_uj"] = EINVAL
        failed = stamp_after(meter, server)
        assert_unavailable(meter.between(begin, failed), "root only")
        files.reading.clear()
        assert meter.between(begin, stamp_after(meter, server)).energy_j == 80.0


def test_fault_14_a_package_that_is_unplugged_makes_the_total_unknown(server):
    with server.meter() as meter:
        before = meter.stamp()
        between = stamp_after(meter, server)
        server.unplug("intel-rapl:1")
        after = stamp_after(meter, server)
        assert meter.between(before, between).energy_j == 40.0
        assert_unavailable(meter.between(between, after), "package-1 is gone")


def test_fault_14_enodev_of_a_held_file_is_survived_by_opening_anew(single, files):
    with single.meter(files=files) as meter:
        begin, n_held = meter.stamp(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        files.reading["energy_uj"] = ENODEV
        failed = stamp_after(meter, single)
        assert_unavailable(meter.between(begin, failed), "No such device")
        assert len(os.listdir("/proc/self/fd")) == n_held  # noqa: PTH208
        files.reading.clear()
        single.draw_all(2.0)
        assert meter.between(begin, meter.stamp()).energy_j == 20.0


def test_fault_15_a_package_is_found_again_in_another_slot(server):
    with server.meter() as meter:
        begin = meter.stamp()
        server.replace(
            "intel-rapl:1",
            ZoneSpec("intel-rapl:2", "package-1", "package-1", max_power_w=205.0),
            ZoneSpec("intel-rapl:2:0", "dram", "package-1/dram", SERVER_DRAM_RANGE_UJ),
        )
        server.draw_all(3.0)
        assert meter.between(begin, meter.stamp()).energy_j == 40.0


def test_fault_15_another_package_in_the_old_slot_is_not_taken_for_it(server):
    """Slot 1 now holds a third package; nothing of it may enter package-1."""
    with server.meter() as meter:
        begin = meter.stamp()
        server.replace("intel-rapl:1", ZoneSpec("intel-rapl:1", "package-7", "package-7"))
        server.draw_all(3.0)
        assert_unavailable(meter.between(begin, meter.stamp()), "package-1 is gone")


def test_fault_16_a_package_that_appears_makes_the_total_unknown_until_it_is_counted(single):
    with single.meter() as meter:
        first = meter.stamp()
        second = stamp_after(meter, single)
        meter.beat()
        single.plug(ZoneSpec("intel-rapl:1", "package-1", "package-1"))
        single.draw_all()
        meter.beat()
        third = meter.stamp()
        single.draw_all()
        assert meter.between(first, second).energy_j == 10.0
        assert_unavailable(meter.between(second, third), "package-1 has appeared")
        assert_unavailable(meter.between(third, meter.stamp()), "package-1 has appeared")
        assert "package-1 has appeared" in meter.notes[-1]
    with single.meter() as meter:
        assert measure(meter, single).energy_j == 20.0


def test_fault_24_a_zone_with_an_unknown_name_is_named_and_not_added(make_machine):
    zones = (
        ZoneSpec("intel-rapl:0", "package-0", "package-0"),
        ZoneSpec("intel-rapl:0:0", "media", "media"),
        ZoneSpec("intel-rapl:1", "accelerator-0", "accelerator"),
        ZoneSpec("intel-rapl:1:0", "dram", "its memory"),
    )
    machine = make_machine(Profile(zones, ("package-0",)))
    with machine.meter() as meter:
        assert measure(meter, machine, package_0=5 * JOULE).energy_j == 5.0
        text = "\n".join(meter.notes)
        assert "unknown name 'media'" in text
        assert "unknown name 'accelerator-0'" in text


def test_fault_25_foreign_control_types_and_zones_without_energy_are_left_out(make_machine):
    machine = make_machine("dtpm_idle_inject")
    assert not machine.path("dtpm:0").exists()
    assert machine.path("dtpm:0", "power_uw").exists()
    with machine.meter() as meter:
        assert measure(meter, machine).energy_j == 40.0
        assert meter.notes == ("no counters of the processor, left out: dtpm, idle-inject",)


def test_fault_25_a_part_that_shows_power_only_is_named_and_left_out(make_machine):
    zones = (
        ZoneSpec("intel-rapl:0", "package-0", "package-0"),
        ZoneSpec("intel-rapl:0:0", "uncore", None),
        ZoneSpec("intel-rapl:1", "psys", None),
    )
    machine = make_machine(Profile(zones, ("package-0",)))
    with machine.meter() as meter:
        assert measure(meter, machine).energy_j == 10.0
        assert [domain.name for domain in meter.domains] == ["package-0"]
        assert [note.partition(" ")[2] for note in meter.notes] == [
            "(package-0/uncore) shows no energy, power at most",
            "(psys) shows no energy, power at most",
        ]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "abc\n", "12 34\n", "47000000x\n", "4700", "47000000\njunk\n", "-5\n",
     "47_000_000\n", " 47000000\n", "47000000\n\n"],
)  # fmt: skip
def test_fault_26_what_is_not_one_line_with_a_number_is_a_failed_reading(single, text):
    with single.meter() as meter:
        begin = meter.stamp()
        single.clock.advance(1.0)
        single.write("intel-rapl:0", "energy_uj", text)
        assert_unavailable(
            meter.between(begin, meter.stamp()), "energy_uj contains", "not one line with a number"
        )
        assert meter.between(begin, stamp_after(meter, single)).energy_j == 10.0


def test_fault_27_the_loop_through_subsystem_is_not_walked(server, files):
    loop = server.path("intel-rapl:0", "subsystem")
    assert (loop / "intel-rapl:0" / "subsystem" / "intel-rapl:1" / "name").exists()
    zones, _ = find_zones(server.root, files)
    assert len(zones) == 4
    assert not [path for path in files.opened if "subsystem" in path]
    names = [path for path in files.opened if path.endswith("/name")]
    assert len(names) == len(set(names)) == 4


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_fault_28_after_a_fork_the_child_has_no_meter_and_says_so(single):
    """Also if the fork came while the heartbeat held the lock, which nobody in the child gives."""
    with single.meter() as meter:
        begin = meter.stamp()
        reading, writing = os.pipe()
        with meter._sampler.lock:
            child = os.fork()
        if child == 0:
            signal.alarm(20)  # If it waits for the lock after all, it must not for ever.
            status = 1
            try:
                meter._sampler.lock.acquire(blocking=False)
                energy = meter.between(begin, meter.stamp())
                meter.beat()
                meter.forget_before(begin)
                assert_unavailable(energy, f"opened by process {os.getppid()}", "open one here")
                assert_unavailable(meter.along([(begin, begin + 1)])[0], "open one here")
                assert meter.domains_between(begin, begin + 1) == {}
                meter.close()
                with single.meter() as own:
                    assert own.unavailable is None
                os.write(writing, b"fine")
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        assert os.waitpid(child, 0)[1] == 0
        assert os.read(reading, 10) == b"fine"
        os.close(reading)
        assert measure(meter, single).energy_j == 10.0


def test_fault_28_counters_are_not_inherited_by_other_programs(single):
    code = "import os, sys; print(*[os.readlink(f'/proc/self/fd/{n}') for n in (3, 4, 5, 6, 7, 8)"
    code += " if os.path.islink(f'/proc/self/fd/{n}')])"
    with single.meter() as meter:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, close_fds=False
        )
        descriptor = meter._source._counters[0]._descriptor
        assert not os.get_inheritable(descriptor)
        assert "energy_uj" not in done.stdout

        reading, writing = os.pipe()
        program = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
        )
        os.close(writing)
        assert os.waitpid(program, 0)[1] == 0
        with os.fdopen(reading) as output:
            assert "energy_uj" not in output.read()
        assert measure(meter, single).energy_j == 10.0


def test_fault_28_a_descriptor_that_was_closed_by_others_is_opened_anew(single):
    """As programs do that close whatever is open when they start to run by themselves."""
    with single.meter() as meter:
        begin = meter.stamp()
        os.close(meter._source._counters[0]._descriptor)
        assert meter.between(begin, stamp_after(meter, single)).energy_j == 10.0


def test_fault_33_counters_of_a_virtual_machine_are_an_estimate(make_machine):
    machine = make_machine("vm_rapl")
    with machine.meter() as meter:
        energy = measure(meter, machine)
        assert (energy.energy_j, energy.quality) == (10.0, "modelled")
        assert energy.source == "powercap:package, virtual machine"
        assert meter.notes == (
            "a hypervisor stands between: the counters are an estimate of the host",
        )


def test_fault_33_counters_that_are_updated_once_a_second_need_longer_regions(make_machine):
    """As an emulation does; half of these regions show no energy, the others twice as much."""
    machine = make_machine("vm_rapl")
    with machine.meter() as meter:
        stamps = [meter.stamp()]
        for _ in range(25):
            for energy_uj in (0, 100 * JOULE):
                machine.draw(0.5, package_0=energy_uj)
                stamps.append(meter.stamp())
        energies = meter.along(list(pairwise(stamps)))
    assert {energy.quality for energy in energies} == {"modelled"}
    assert min(energy.window_s for energy in energies) >= 5.0
    assert sum(energy.energy_j for energy in energies) == pytest.approx(2500.0)
    assert max(energy.energy_j for energy in energies) < 60.0


def test_an_unreadable_counter_is_told_from_a_forbidden_one(single, files):
    files.opening["energy_uj"] = EIO
    with single.meter(files=files) as meter:
        energy = measure(meter, single)
    assert_unavailable(energy, "cannot be opened (Input/output error)")
    assert "chmod" not in energy.reason


def test_a_package_whose_name_cannot_be_read_is_not_left_out_silently(server, files):
    files.reading["intel-rapl:1/name"] = EIO
    with pytest.raises(CounterUnavailable, match="intel-rapl:1/name"):
        find_zones(server.root, files)
