"""What a run found: said where the machine says it, None where it does not."""

import os

import pytest

from minibutter.energy import environment as environment_module
from minibutter.energy.environment import is_container, read_environment, recent_environment

CPU = "sys/devices/system/cpu"


def test_everything_that_a_server_tells_is_recorded(make_tree):
    machine = make_tree("server")
    for policy, governor in ((0, "performance"), (1, "performance"), (2, "powersave")):
        machine.write(f"{CPU}/cpufreq/policy{policy}/scaling_governor", governor)
        machine.write(f"{CPU}/cpufreq/policy{policy}/affected_cpus", policy)
    machine.write(f"{CPU}/cpufreq/boost", 1)
    machine.write(f"{CPU}/smt/active", 1)
    machine.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    machine.write("proc/sys/kernel/random/boot_id", "6d0bf1a0-0000-4000-8000-00000000000a")
    assert read_environment(machine.root, {1, 0}).columns() == {
        "affinity": "0-1",
        "governor": "performance",
        "turbo": True,
        "smt": True,
        "microcode": "0x2b000603",  # of the first processor
        "hypervisor": "none",
        "transparent_huge_pages": "madvise",
        "boot_id": "6d0bf1a0-0000-4000-8000-00000000000a",
    }
    assert read_environment(machine.root, {0, 2}).governor == "performance,powersave"
    assert read_environment(machine.root, {3}).governor is None


def test_a_machine_that_tells_nothing_is_neither_off_nor_bare(make_tree):
    environment = read_environment(make_tree().root, {0, 1, 5})
    columns = environment.columns()
    assert columns.pop("affinity") == "0-1,5"
    assert set(columns.values()) == {None}
    assert environment.is_virtual is None


def test_governors_are_found_without_policies(make_tree):
    machine = make_tree()
    machine.write(f"{CPU}/cpu3/cpufreq/scaling_governor", "schedutil")
    assert read_environment(machine.root, {3}).governor == "schedutil"


@pytest.mark.parametrize(("no_turbo", "turbo"), [("0", True), ("1", False)])
def test_turbo_of_intel_is_said_the_other_way_round(make_tree, no_turbo, turbo):
    machine = make_tree()
    machine.write(f"{CPU}/intel_pstate/no_turbo", no_turbo)
    assert read_environment(machine.root, {0}).turbo is turbo


def test_a_virtual_machine_is_known_by_its_flag_and_named_by_its_hardware(make_tree):
    machine = make_tree("vm_rapl")
    assert read_environment(machine.root, {0}).hypervisor == "QEMU"
    (machine.root / "sys/class/dmi/id/sys_vendor").unlink()
    environment = read_environment(machine.root, {0})
    assert (environment.hypervisor, environment.is_virtual) == ("unknown", True)


def test_hardware_named_after_a_cloud_is_bare_metal_without_the_flag(make_tree):
    machine = make_tree("server")
    machine.write("sys/class/dmi/id/sys_vendor", "Amazon EC2")
    environment = read_environment(machine.root, {0})
    assert (environment.hypervisor, environment.is_virtual) == ("none", False)


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv", "run/systemd/container"])
def test_containers_are_known_by_their_marks(make_tree, mark):
    machine = make_tree()
    assert not is_container(machine.root)
    machine.write(mark, "")
    assert is_container(machine.root)


def test_the_affinity_is_that_of_this_process_unless_told():
    assert read_environment().affinity.replace("-", ",").split(",")[0] == str(
        min(os.sched_getaffinity(0))
    )


def test_the_recent_state_is_read_again_after_a_second_and_for_other_cpus(monkeypatch):
    read = []
    monkeypatch.setattr(environment_module, "read_environment", lambda **asked: read.append(asked))
    monkeypatch.setattr(environment_module.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(environment_module.os, "sched_getaffinity", lambda pid: cpus)
    for now_s, cpus, n_read in (
        (1000.1, {0}, 1),
        (1000.9, {0}, 1),
        (1001.1, {0}, 2),
        (1001.2, {0, 1}, 3),
        (1001.3, {0, 1}, 3),
    ):
        recent_environment()
        assert len(read) == n_read, (now_s, cpus)
