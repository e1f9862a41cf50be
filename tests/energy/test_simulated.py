"""The simulated machine: what is put in comes out, in one process and in several."""

import multiprocessing
import os
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibutter.energy import open_meter
from minibutter.energy.profiles import AMD_RANGE_UJ, PROFILES
from minibutter.energy.simulated import Clock, PowerModel, SimulatedMachine, build, is_simulated
from minibutter.energy.zones import POWERCAP

MODEL = PowerModel(
    package_w=30.0,
    dram_w=3.0,
    joules_per_flop=1e-11,
    joules_per_byte={"l1": 1e-12, "l2": 5e-12, "l3": 2e-11, "dram": 1e-10},
)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def machine(tmp_path, clock):
    return build(tmp_path / "machine", "intel_server2", MODEL, clock)


def test_work_draws_static_power_and_joules_by_flop_and_byte(machine, clock):
    with open_meter(machine.root, clock=clock, files=machine) as meter:
        begin = meter.stamp()
        traffic = {"l1": 1e11, "l2": 4e10, "l3": 1e10, "dram": 2e9}
        machine.spend(2.0, 1e12, traffic, package=1)
        energies = meter.domains_between(begin, meter.stamp())
    expected_j = {
        "package-0": 60.0,
        "package-0/dram": 6.0,
        "package-1": 60.0 + 10.0 + 0.1 + 0.2 + 0.2,
        "package-1/dram": 6.0 + 0.2,
    }
    for name, energy in energies.items():
        # A unit of the counter at each end.
        assert energy.energy_j == pytest.approx(expected_j[name], abs=2e-4)
        assert energy.quality == "simulated"
        assert energy.source == f"simulated:{name}"
    assert machine.total_j == pytest.approx(sum(expected_j.values()), rel=1e-12)


def test_memory_without_a_counter_is_drawn_by_the_package(tmp_path, clock):
    machine = build(tmp_path / "machine", "amd_zen", MODEL, clock)
    machine.spend(1.0, bytes_by_level={"dram": 1e11})
    assert machine.energy_j("package-0") == pytest.approx(30.0 + 10.0)


def test_unknown_level_or_profile_is_refused_by_name(machine, tmp_path):
    with pytest.raises(ValueError, match="no level 'l4'; it has l1, l2, l3, dram"):
        machine.spend(1.0, bytes_by_level={"l4": 1.0})
    with pytest.raises(ValueError, match="no profile 'pentium'; there are none"):
        build(tmp_path / "other", "pentium")
    with pytest.raises(ValueError, match="is not empty"):
        build(machine.root)
    with pytest.raises(ValueError, match="less than half a tick"):
        PowerModel(jitter_s=0.0005)


def test_counters_move_at_ticks_only(machine, clock):
    zone = machine.profile.zones[0]
    clock.now_ns = 5_000_000_000
    seen = []
    for _ in range(40):
        seen.append(machine.counter_uj(zone))
        clock.now_ns += 100_000
    changes = [i for i, (one, other) in enumerate(pairwise(seen), 1) if one != other]
    assert changes == [10, 20, 30]


def test_jitter_moves_ticks_by_no_more_than_it_says(tmp_path, clock):
    model = PowerModel(jitter_s=0.0002)
    machine = build(tmp_path / "machine", "amd_zen", model, clock)
    zone, changes_ns, before = machine.profile.zones[0], [], None
    for now_ns in range(5_000_000_000, 5_050_000_000, 20_000):
        clock.now_ns = now_ns
        shown = machine.counter_uj(zone)
        if before is not None and shown != before:
            changes_ns.append(now_ns)
        before = shown
    offsets_ns = [(now_ns + 500_000) % 1_000_000 - 500_000 for now_ns in changes_ns]
    assert 49 <= len(changes_ns) <= 50
    assert min(offsets_ns) < -50_000
    assert max(offsets_ns) > 50_000
    assert -200_000 <= min(offsets_ns) <= max(offsets_ns) <= 220_000


def test_counters_show_whole_units_and_wrap_as_told(tmp_path, clock):
    model = PowerModel(package_w=100.0, wraps_after_j=50.0)
    machine = build(tmp_path / "machine", "amd_zen", model, clock)
    zone = machine.profile.zones[0]
    before = machine.counter_uj(zone)
    assert AMD_RANGE_UJ - 50_000_016 <= before <= AMD_RANGE_UJ
    with open_meter(machine.root, clock=clock, files=machine) as meter:
        begin = meter.stamp()
        clock.advance(1.0)
        assert machine.counter_uj(zone) < before
        energy = meter.between(begin, meter.stamp())
    assert energy.energy_j == pytest.approx(100.0, abs=4e-5)


@settings(deadline=None)  # Every example builds a tree of files.
@given(st.lists(st.tuples(st.floats(0.02, 30.0), st.floats(0.0, 1e12)), min_size=1, max_size=8))
def test_what_is_read_is_the_truth_but_for_a_tick_and_a_unit(tmp_path_factory, works):
    clock = Clock()
    machine = build(tmp_path_factory.mktemp("machine") / "machine", "intel_server2", MODEL, clock)
    with open_meter(machine.root, clock=clock, files=machine) as meter:
        stamps, truths_j = [meter.stamp()], [machine.total_j]
        for duration_s, flops in works:
            machine.spend(duration_s, flops)
            stamps.append(meter.stamp())
            truths_j.append(machine.total_j)
        energies = [meter.between(*pair) for pair in pairwise(stamps)]
        whole = meter.between(stamps[0], stamps[-1])
    powers_w = [66.0 + flops * 1e-11 / duration_s for duration_s, flops in works]
    for i, energy in enumerate(energies):
        off_j = abs(energy.energy_j - (truths_j[i + 1] - truths_j[i]))
        # Each end is one tick back, at the power of its own side.
        assert off_j <= 1e-3 * (powers_w[i] + powers_w[max(i - 1, 0)]) + 5e-4
    assert sum(energy.energy_j for energy in energies) == pytest.approx(whole.energy_j, rel=1e-12)


def test_planned_work_moves_the_counters_while_it_lasts_and_ends_with_its_energy(machine, clock):
    before_j = machine.energy_j("package-0")
    with machine.working(1e12, expected_s=2.0):
        clock.advance(1.0)
        assert machine.energy_j("package-0") - before_j == pytest.approx(30.0 + 5.0)
        clock.advance(0.5)  # Sooner than expected: the rest comes at the end.
    assert machine.energy_j("package-0") - before_j == pytest.approx(45.0 + 10.0)
    clock.advance(60.0)
    machine.spend(0.1)
    assert machine.energy_j("package-0") - before_j == pytest.approx(61.6 * 30.0 + 10.0)


def test_planned_work_that_takes_longer_is_counted_once_and_never_falls(machine, clock):
    zone, seen = machine.profile.zones[0], []
    before_j = machine.energy_j("package-0")
    with machine.working(1e12, expected_s=0.5):
        for _ in range(20):
            clock.advance(0.1)
            machine.draw("package-1", 1.0)  # Others settle what is over, but not this.
            seen.append(machine.counter_uj(zone))
        clock.advance(0.0005)  # The last tick is now before the end.
    seen.append(machine.counter_uj(zone))
    assert seen == sorted(seen)
    assert machine.energy_j("package-0") - before_j == pytest.approx(60.015 + 10.0)


def test_work_without_plan_comes_when_it_ends(machine, clock):
    before_j = machine.energy_j("package-0")
    with machine.working(1e12):
        clock.advance(1.0)
        assert machine.energy_j("package-0") - before_j == pytest.approx(30.0)
    assert machine.energy_j("package-0") - before_j == pytest.approx(40.0)


def work_and_read(root, n_works, queue):
    machine = SimulatedMachine(root)
    with open_meter(root) as meter:
        begin = meter.stamp()
        for _ in range(n_works):
            with machine.working(1e10, {"dram": 1e8}, expected_s=0.001):
                time.sleep(0.001)
        time.sleep(0.02)
        queue.put((os.getpid(), meter.between(begin, meter.stamp())))


def test_many_processes_work_on_one_machine_and_no_joule_is_lost(tmp_path):
    """3 x 50 works of 0.1 J each and 0.01 J of memory, read by all while they go on."""
    model = PowerModel(0.1, 0.1, joules_per_flop=1e-11, joules_per_byte={"dram": 1e-10})
    machine = build(tmp_path / "machine", "intel_server2", model)
    begun_s = time.monotonic()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [
        context.Process(target=work_and_read, args=(machine.root, 50, queue)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    energies = [queue.get()[1] for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    package_j, memory_j = machine.energy_j("package-0"), machine.energy_j("package-0/dram")
    static_j = 0.1 * (time.monotonic() - begun_s + 1.0)  # since the machine was built
    assert 15.0 <= package_j <= 15.0 + static_j
    assert 1.5 <= memory_j <= 1.5 + static_j
    for energy in energies:
        assert energy.quality == "simulated"
        assert 5.5 - 0.01 <= energy.energy_j <= machine.total_j


def test_a_machine_is_recognised_by_its_folder_and_from_the_environment(machine, monkeypatch):
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(machine.root))
    assert is_simulated(machine.root)
    with open_meter() as meter:
        assert meter.is_simulated
        assert meter.source == "simulated:package+dram"


@pytest.mark.parametrize("profile", PROFILES)
def test_tree_has_the_files_links_and_modes_of_a_true_one(tmp_path, clock, profile):
    machine = build(tmp_path / "machine", profile, clock=clock)
    classes = machine.root / POWERCAP
    assert classes.exists() == (profile != "none")
    for zone in PROFILES[profile].zones:
        link = classes / zone.link
        assert link.is_symlink()
        if profile == "container_masked":
            assert not link.exists()
            continue
        assert (link / "name").read_text() == f"{zone.name}\n"
        assert (link / "subsystem").resolve() == classes.resolve()
        nested = machine.root / "sys/devices/virtual/powercap" / zone.link.split(":")[0]
        assert nested in link.resolve().parents
        if zone.counter is None:
            assert not (link / "energy_uj").exists()
            continue
        assert (link / "energy_uj").stat().st_mode & 0o777 == 0o400
        shown = (link / "energy_uj").read_text()
        assert shown == f"{machine.counter_uj(zone)}\n"
        assert 0 <= int(shown) <= zone.range_uj
    for index in machine.root.glob("sys/devices/system/cpu/cpu*/cache/index*"):
        values = {path.name: path.read_text().strip() for path in index.iterdir()}
        size = int(values["ways_of_associativity"]) * int(values["number_of_sets"])
        assert values["size"] == f"{size * int(values['coherency_line_size']) // 1024}K"


def test_files_are_rewritten_for_readers_that_know_only_files(machine, clock):
    zone = machine.profile.zones[0]
    path = machine.root / POWERCAP / zone.link / "energy_uj"
    before = int(path.read_text())
    machine.spend(1.0, 1e12)
    assert int(path.read_text()) == before
    machine.write_counters()
    assert int(path.read_text()) - before == pytest.approx(40_000_000, abs=62)
