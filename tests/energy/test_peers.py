"""Twelve scenarios on which no package of six was right: the truth is what was drawn, exactly.

pyRAPL, pyJoules, CodeCarbon, CarbonTracker, perun and Zeus were each run on trees like these; every
one of them failed at least one, mostly without a word.
"""

import pytest

from minibutter.energy.profiles import INTEL_RANGE_UJ, PROFILES
from tests.energy.conftest import EACCES, EINVAL, JOULE, FaultyFiles, assert_unavailable

STEP = {"package": 10 * JOULE, "dram": 4 * JOULE, "psys": 20 * JOULE}


def step(machine, seconds=1.0):
    """10 J a package, 4 J a subzone, 20 J the platform."""
    drawn = {}
    for counter in machine.raw_uj:
        kind = "psys" if counter == "psys" else "dram" if "/" in counter else "package"
        drawn[counter.replace("/", "__")] = STEP[kind]
    drawn |= dict.fromkeys({"core", "uncore"} & set(drawn), STEP["dram"])
    machine.draw(seconds, **drawn)


SCENARIOS = {
    "two sockets with memory": ("intel_server2", 28.0),
    "client with core, uncore, psys and mmio": ("intel_client", 10.0),
    "psys and psys-1 on a server": ("spr4", 56.0),
    "dies of their own": ("clx_ap", 40.0),
    "slot is not the package's number": ("swapped_index", 28.0),
    "twelve zones with hexadecimal names": ("twelve_zones", 120.0),
    "twelve dies that mirror one counter": ("amd_ccd_bug", 10.0),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_is_exact(make_machine, scenario):
    profile, true_j = SCENARIOS[scenario]
    machine = make_machine(profile)
    with machine.meter() as meter:
        begin = meter.stamp()
        step(machine)
        assert meter.between(begin, meter.stamp()).energy_j == true_j


def test_scenario_of_a_wrap_is_exact(single):
    """10 J, of which 4 before the wrap; the counter's last value is one unit before 0."""
    single.set("package-0", INTEL_RANGE_UJ + 61 - 4 * JOULE)
    with single.meter() as meter:
        begin = meter.stamp()
        step(single)
        assert single.raw_uj["package-0"] == 6 * JOULE
        assert meter.between(begin, meter.stamp()).energy_j == 10.0


def test_scenario_of_a_failed_reading_in_the_middle_is_exact(single):
    files = FaultyFiles()
    with single.meter(files=files) as meter:
        begin = meter.stamp()
        step(single)
        files.reading["energy_uj"] = EINVAL
        meter.stamp()
        files.reading.clear()
        step(single, 2.0)
        assert meter.between(begin, meter.stamp()).energy_j == 20.0


def test_scenario_of_uneven_load_is_exact(single):
    """30 J in a second, then 5 J in the next: differences never pass through power."""
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw(1.0, package_0=30 * JOULE)
        middle = meter.stamp()
        single.draw(1.0, package_0=5 * JOULE)
        end = meter.stamp()
        assert meter.between(begin, end).energy_j == 35.0
        assert meter.between(begin, middle).energy_j == 30.0
        assert meter.between(middle, end).energy_j == 5.0


def test_scenario_of_forbidden_counters_is_null_with_a_reason(server):
    files = FaultyFiles()
    files.opening["energy_uj"] = EACCES
    with server.meter(files=files) as meter:
        begin = meter.stamp()
        step(server)
        assert_unavailable(meter.between(begin, meter.stamp()), "root only", "chmod")


def test_scenario_of_a_reading_right_after_a_wrap_is_exact(single):
    """200 J through the wrap, read at once: no helper has to notice first."""
    single.set("package-0", INTEL_RANGE_UJ + 61 - 100 * JOULE)
    with single.meter() as meter:
        begin = meter.stamp()
        single.draw(0.2, package_0=200 * JOULE)
        assert meter.between(begin, meter.stamp()).energy_j == 200.0


def test_the_scenarios_are_those_of_known_machines():
    assert {profile for profile, _ in SCENARIOS.values()} <= set(PROFILES)
    tests = [name for name in globals() if name.startswith("test_scenario_of_")]
    assert len(SCENARIOS) + len(tests) == 12
