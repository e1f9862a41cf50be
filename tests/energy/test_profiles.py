"""All trees that machines are known to have: what each of them is worth."""

import pytest

from minibutter.energy.profiles import PROFILES
from minibutter.energy.source import CounterUnavailable
from minibutter.energy.zones import find_zones
from tests.energy.conftest import JOULE, assert_unavailable, measure

UNMEASURABLE = {
    "none": "does not exist: a virtual machine",
    "empty_class": "has no zone intel-rapl:* with the name package-*",
    "container_masked": "inside a container the counters may be masked",
    "arm_scmi": "has no zone intel-rapl:* with the name package-*; it has arm-scmi",
}
MEASURABLE = sorted(set(PROFILES) - set(UNMEASURABLE))

SUMMED = {
    "intel_server2": ["package-0", "package-0/dram", "package-1", "package-1/dram"],
    "intel_client": ["package-0"],
    "spr4": [f"package-{i}{part}" for i in range(4) for part in ("", "/dram")],
    "clx_ap": [f"package-{i}-die-{die}" for i in range(2) for die in range(2)],
    "amd_zen": ["package-0"],
    "amd_ccd_bug": ["package-0-die-0"],
    "threadripper": ["package-0-die-0"],
    "swapped_index": ["package-0", "package-0/dram", "package-1", "package-1/dram"],
    "hybrid": ["package-0"],
    "x3d": ["package-0"],
    "vm_rapl": ["package-0"],
    "dtpm_idle_inject": ["package-0", "package-0/dram", "package-1", "package-1/dram"],
    "twelve_zones": sorted(f"package-{i}" for i in range(12)),
}


def test_there_are_the_seventeen_profiles():
    assert len(PROFILES) == 17
    assert set(SUMMED) == set(MEASURABLE)


@pytest.mark.parametrize("profile", MEASURABLE)
def test_profile_sums_every_package_and_memory_once(make_machine, profile):
    machine = make_machine(profile)
    with machine.meter() as meter:
        summed = [domain.name for domain in meter.domains if domain.is_summed]
    assert summed == SUMMED[profile]


@pytest.mark.parametrize("profile", MEASURABLE)
def test_profile_gives_the_true_energy_to_the_microjoule(make_machine, profile):
    """Every counter draws another amount, so that no wrong sum comes out right."""
    machine = make_machine(profile)
    drawn_uj = {name: 10 * JOULE + 3**i for i, name in enumerate(machine.raw_uj)}
    with machine.meter() as meter:
        energy = measure(
            meter, machine, **{name.replace("/", "__"): uj for name, uj in drawn_uj.items()}
        )
    true_uj = sum(drawn_uj[name] for name in machine.profile.true_counters)
    assert energy.energy_j == true_uj / 1e6
    has_dram = any(name.endswith("/dram") for name in machine.profile.true_counters)
    label = "powercap:package+dram" if has_dram else "powercap:package"
    assert energy.source == label + (", virtual machine" if profile == "vm_rapl" else "")
    assert energy.quality == ("modelled" if profile == "vm_rapl" else "measured")


@pytest.mark.parametrize("profile", UNMEASURABLE)
def test_profile_without_counters_says_why(make_machine, profile):
    machine = make_machine(profile)
    with machine.meter() as meter:
        assert meter.source is None
        assert_unavailable(measure(meter, machine, seconds=1.0), UNMEASURABLE[profile])


def test_parts_and_wholes_of_a_client_are_reported_apart(make_machine):
    machine = make_machine("intel_client")
    with machine.meter() as meter:
        begin = meter.stamp(apart=True)
        machine.draw(1.0, package_0=10 * JOULE, core=6 * JOULE, uncore=JOULE, psys=20 * JOULE)
        end = meter.stamp(apart=True)
        apart = meter.domains_between(begin, end)
        assert meter.between(begin, end).energy_j == 10.0
    assert {name: energy.energy_j for name, energy in apart.items()} == {
        "package-0": 10.0,
        "intel-rapl-mmio/package-0": 10.0,
        "package-0/core": 6.0,
        "package-0/uncore": 1.0,
        "psys": 20.0,
    }
    assert apart["psys"].source == "powercap:psys"
    assert {energy.quality for energy in apart.values()} == {"measured"}


def test_zones_are_known_by_name_whatever_their_slot(make_machine):
    zones, _ = find_zones(make_machine("swapped_index").root)
    slots = {zone.name: zone.path.name for zone in zones}
    assert slots["package-0"] == "intel-rapl:1"
    assert slots["package-1/dram"] == "intel-rapl:0:0"


@pytest.mark.parametrize(
    ("range_uj", "modulus_uj"),
    [(262143328850, 262143328911), (65532610987, 65532611002), (4294967295000000, 2**32 * 10**6)],
)
def test_one_wrap_is_worth_the_range_and_one_unit(single, range_uj, modulus_uj):
    single.write("intel-rapl:0", "max_energy_range_uj", f"{range_uj}\n")
    ((zone,), _) = find_zones(single.root)
    assert zone.modulus_uj == modulus_uj


@pytest.mark.parametrize(
    ("max_power_uw", "bound_w"),
    [(None, 1000.0), ("0\n", 1000.0), ("15000000\n", 250.0), ("205000000\n", 820.0)],
)
def test_bound_on_power_follows_from_what_the_zone_states(single, max_power_uw, bound_w):
    if max_power_uw is not None:
        single.path("intel-rapl:0", "constraint_0_max_power_uw").write_text(max_power_uw)
    ((zone,), _) = find_zones(single.root)
    assert zone.max_power_w == bound_w


def test_a_platform_with_accelerators_may_draw_more_than_a_package(make_machine):
    machine = make_machine("spr4")
    with machine.meter() as meter:
        begin = meter.stamp(apart=True)
        machine.draw(1.0, psys=9000 * JOULE, package_0=1100 * JOULE)
        apart = meter.domains_between(begin, meter.stamp(apart=True))
    assert apart["psys"].energy_j == apart["psys-3"].energy_j == 9000.0
    assert "jumped or was reset" in apart["package-0"].reason


def test_a_package_whose_memory_is_not_counted_as_that_of_others_is_named(server):
    server.unplug("intel-rapl:1:0")
    _, (note,) = find_zones(server.root)
    assert note.startswith("package-1: no counter of memory, which other packages have")
    server.unplug("intel-rapl:0:0")
    assert find_zones(server.root)[1] == []


def test_a_package_that_shows_power_only_is_refused(single):
    single.path("intel-rapl:0").unlink()
    with pytest.raises(CounterUnavailable, match=r"package-0.*shows no energy"):
        find_zones(single.root)
