import errno
import os
import re

import pytest

from minibutter.energy.powercap import Counter, RaplUnavailable, Zone, find_zones

INTEL_RANGE_UJ = 262143328850


def names(powercap):
    return [zone.name for zone in find_zones(powercap.root)]


def test_packages_and_their_memories_are_found_once_each(server):
    assert names(server) == ["package-0", "package-0/dram", "package-1", "package-1/dram"]


def test_zone_is_known_by_its_name_and_not_by_its_slot(server):
    slots = {zone.name: zone.path.name for zone in find_zones(server.root)}
    assert slots["package-0"] == "intel-rapl:1"
    assert slots["package-0/dram"] == "intel-rapl:1:0"


def test_parts_platform_and_the_second_view_of_a_package_are_left_out(powercap):
    powercap.add("intel-rapl:0", "package-0")
    powercap.add("intel-rapl:0:0", "core")
    powercap.add("intel-rapl:0:1", "uncore")
    powercap.add("intel-rapl:0:2", "dram")
    powercap.add("intel-rapl:1", "psys")
    powercap.add("intel-rapl:2", "psys-1")
    powercap.add("intel-rapl:2:0", "dram")
    powercap.add("intel-rapl-mmio:0", "package-0")
    powercap.add("intel-rapl-mmio:0:0", "dram")
    powercap.add("intel-rapl-mmio:1", "package-1")
    powercap.add("dtpm:0", "package-7")
    assert names(powercap) == ["package-0", "package-0/dram"]


def test_slots_are_hexadecimal(powercap):
    for i in range(18):
        powercap.add(f"intel-rapl:{i:x}", f"package-{i}")
    assert len(names(powercap)) == 18
    assert "package-17" in names(powercap)


def test_dies_of_a_package_are_zones_of_their_own(powercap):
    powercap.add("intel-rapl:0", "package-0-die-0")
    powercap.add("intel-rapl:1", "package-0-die-1")
    powercap.add("intel-rapl:1:0", "dram")
    assert names(powercap) == ["package-0-die-0", "package-0-die-1", "package-0-die-1/dram"]


def test_one_name_is_one_counter(powercap):
    powercap.add("intel-rapl:0", "package-0")
    powercap.add("intel-rapl:1", "package-0")
    assert names(powercap) == ["package-0"]


@pytest.mark.parametrize(
    ("range_uj", "unit_uj"),
    [(262143328850, 61), (65532610987, 15), (65712999613, 15), (4294967295000000, 1_000_000)],
)
def test_modulus_is_one_unit_more_than_the_largest_value(tmp_path, range_uj, unit_uj):
    assert Zone("package-0", tmp_path, range_uj).modulus_uj == range_uj + unit_uj


def test_absent_folder_empty_folder_and_masked_links_are_told_apart(tmp_path, powercap):
    with pytest.raises(RaplUnavailable, match="does not exist: a virtual machine"):
        find_zones(tmp_path / "absent")
    with pytest.raises(RaplUnavailable, match="has no zone"):
        find_zones(powercap.root)
    (powercap.root / "intel-rapl:0").symlink_to(tmp_path / "masked")
    with pytest.raises(RaplUnavailable, match="container"):
        find_zones(powercap.root)


@pytest.mark.parametrize("text", ["", "0\n", "many\n", "-5\n"])
def test_zone_without_a_range_is_refused(powercap, text):
    powercap.add("intel-rapl:0", "package-0")
    (powercap.root / "intel-rapl:0" / "max_energy_range_uj").write_text(text)
    with pytest.raises(RaplUnavailable, match="max_energy_range_uj contains"):
        find_zones(powercap.root)


@pytest.fixture
def counter(powercap):
    powercap.add("intel-rapl:0", "package-0", 123456)
    counter = Counter(find_zones(powercap.root)[0])
    yield counter
    counter.close()


def test_counter_follows_its_file(powercap, counter):
    assert counter.read_uj() == 123456
    powercap.set("intel-rapl:0", INTEL_RANGE_UJ)
    assert counter.read_uj() == INTEL_RANGE_UJ


@pytest.mark.parametrize("text", ["", "\n", "12 34\n", "nan\n", "-1\n", str(INTEL_RANGE_UJ + 1)])
def test_counter_without_a_number_in_range_is_refused_and_recovers(powercap, counter, text):
    path = powercap.root / "intel-rapl:0" / "energy_uj"
    path.write_text(text)
    with pytest.raises(RaplUnavailable, match=re.escape(str(path))):
        counter.read_uj()
    path.write_text("77\n")
    assert counter.read_uj() == 77


def test_counter_that_was_removed_and_came_back_is_opened_anew(powercap, counter):
    os.close(counter._descriptor)  # What the kernel does to a held file of a package gone offline.
    assert counter.read_uj() == 123456

    path = powercap.root / "intel-rapl:0" / "energy_uj"
    os.close(counter._descriptor)
    path.rename(path.with_name("gone"))
    for _ in range(2):
        with pytest.raises(RaplUnavailable, match="cannot be opened"):
            counter.read_uj()
    path.with_name("gone").rename(path)
    assert counter.read_uj() == 123456


def test_slot_that_came_back_as_another_package_is_refused(powercap, counter):
    os.close(counter._descriptor)
    (powercap.root / "intel-rapl:0" / "name").write_text("package-1\n")
    with pytest.raises(RaplUnavailable, match="was package-0, and is now package-1"):
        counter.read_uj()


def test_forbidden_counter_names_its_file_and_the_command_that_opens_it(powercap):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    powercap.add("intel-rapl:0", "package-0")
    with pytest.raises(RaplUnavailable) as error:
        Counter(find_zones(powercap.root)[0], refuse)
    assert str(powercap.root / "intel-rapl:0" / "energy_uj") in str(error.value)
    assert f"sudo chmod a+r {powercap.root}/intel-rapl:*/energy_uj" in str(error.value)
