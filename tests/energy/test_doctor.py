"""Whether energy can be measured, and the lines that would mend it."""

import errno
import os
import subprocess

import pytest

from minibutter.energy import remedies
from minibutter.energy.doctor import NOTE, OBSTACLE, WARNING, diagnose
from minibutter.energy.zones import open_read_only


@pytest.fixture
def examine():
    """Diagnose a machine whose counters move by so many joules a look; returns the diagnosis."""

    def run(machine, moves_j=1.0, closed=(), perf_code=errno.EACCES):
        def opener(path):
            is_closed = path.parent.name in closed or "all" in closed
            if is_closed and path.name == "energy_uj":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return open_read_only(path)

        def perf_opener(attribute, cpu):
            if perf_code is not None:
                raise OSError(perf_code, os.strerror(perf_code))
            return os.open("/dev/null", os.O_RDONLY)

        def work():
            for path in machine.root.glob("sys/class/powercap/*/energy_uj"):
                path.write_text(f"{int(path.read_text()) + int(moves_j * 1e6)}\n")

        return diagnose(machine.root, opener, perf_opener, work)

    return run


@pytest.fixture
def server(make_tree):
    """Two sockets with memory in powercap and in perf."""
    machine = make_tree("server")
    for package in range(2):
        machine.add_zone(f"intel-rapl:{package}", f"package-{package}", 5_000_000 + package)
        machine.add_zone(f"intel-rapl:{package}:0", "dram")
        machine.add_zone(f"intel-rapl:{package}:1", "core")
    machine.add_zone("intel-rapl:2", "psys")
    machine.add_pmu("power", 17, "0,4", {"energy-pkg": 2, "energy-ram": 3})
    machine.write("proc/sys/kernel/perf_event_paranoid", 2)
    return machine


def found(diagnosis, subject):
    return [finding for finding in diagnosis.findings if finding.subject == subject]


def test_a_server_with_open_counters_can_be_measured_and_has_no_findings(server, examine):
    diagnosis = examine(server, perf_code=None)
    assert (diagnosis.source, diagnosis.can_measure) == ("powercap", True)
    assert diagnosis.findings == ()
    summed = [zone.name for zone in diagnosis.zones if zone.is_summed]
    assert summed == ["package-0", "package-0/dram", "package-1", "package-1/dram"]
    others = [zone.name for zone in diagnosis.zones if not zone.is_summed]
    assert sorted(others) == ["package-0/core", "package-1/core", "psys"]
    assert all(zone.reason is None for zone in diagnosis.zones)
    assert [event.domains for event in diagnosis.events] == [
        ("package-0", "package-1"), ("package-0/dram", "package-1/dram"),
    ]  # fmt: skip


@pytest.mark.parametrize("closed", [(), {"all"}])
def test_what_is_odd_about_the_zones_is_a_note_whether_they_are_open_or_not(
    server, examine, closed
):
    (server.root / "sys/class/powercap/intel-rapl:1:0").unlink()
    server.add_zone("intel-rapl:3", "accelerator-0")
    notes = [each for each in examine(server, closed=closed).findings if each.severity == NOTE]
    texts = [note.text for note in notes if note.subject == "powercap"]
    assert len(texts) == 2
    assert "unknown name 'accelerator-0'" in texts[0]
    assert "package-1: no counter of memory" in texts[1]


def test_closed_counters_come_with_the_lines_that_open_them(server, examine):
    diagnosis = examine(server, closed={"all"})
    assert (diagnosis.source, diagnosis.can_measure) == (None, False)
    (powercap,) = found(diagnosis, "powercap")
    assert powercap.severity == OBSTACLE
    assert "package-0, package-0/dram, package-1, package-1/dram: root only" in powercap.text
    assert powercap.remedies == remedies.open_powercap()
    (perf,) = found(diagnosis, "perf")
    assert perf.remedies == remedies.open_perf()
    assert diagnosis.perf_event_paranoid == 2


def test_one_closed_zone_is_enough_because_a_part_must_not_pass_for_the_whole(server, examine):
    diagnosis = examine(server, closed={"intel-rapl:1:0"})
    assert not diagnosis.can_measure
    (powercap,) = found(diagnosis, "powercap")
    assert powercap.text.startswith("package-1/dram (4 zones in all): root only")


def test_perf_takes_the_place_of_closed_counters(server, examine):
    diagnosis = examine(server, closed={"all"}, perf_code=None)
    assert (diagnosis.source, diagnosis.can_measure) == ("perf", True)
    (powercap,) = found(diagnosis, "powercap")
    assert (powercap.severity, powercap.remedies) == (NOTE, remedies.open_powercap())


def test_open_events_of_dies_that_may_be_mirrors_do_not_take_the_place(server, examine):
    server.add_pmu("power", 17, "0,1", {"energy-pkg": 2})
    for cpu in (0, 1):
        server.write(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", 0)
        server.write(f"sys/devices/system/cpu/cpu{cpu}/topology/die_id", cpu)
    diagnosis = examine(server, closed={"all"}, perf_code=None)
    assert (diagnosis.source, diagnosis.can_measure) == (None, False)
    assert "package-0-die-0, package-0-die-1" in found(diagnosis, "perf")[0].text


@pytest.mark.parametrize(
    ("code", "is_in_container", "lines"),
    [
        (errno.EACCES, False, remedies.open_perf()),
        (errno.EPERM, True, remedies.allow_perf_in_container()),
        (errno.EPERM, False, ()),
        (errno.EBUSY, False, ()),
        (errno.ENOENT, False, ()),
    ],
)
def test_fault_34_each_refusal_of_perf_has_its_own_lines(
    server, examine, code, is_in_container, lines
):
    if is_in_container:
        server.write(".dockerenv", "")
    (perf,) = found(examine(server, perf_code=code), "perf")
    assert perf.remedies == lines
    assert f"{errno.errorcode[code]}: " in perf.text


def test_a_counter_that_cannot_be_read_for_another_reason_gets_no_line_for_permissions(
    server, examine
):
    server.write("sys/class/powercap/intel-rapl:1/energy_uj", "nonsense")
    diagnosis = examine(server, moves_j=0)
    (powercap,) = found(diagnosis, "powercap")
    assert "package-1 (4 zones in all): " in powercap.text
    assert "not one line with a number" in powercap.text
    assert powercap.remedies == ()


def test_counters_that_stand_still_under_load_are_named(server, examine):
    (powercap,) = found(examine(server, moves_j=0), "powercap")
    assert powercap.severity == WARNING
    assert "package-0, package-0/dram, package-1, package-1/dram did not move" in powercap.text
    assert found(examine(server), "powercap") == []


@pytest.mark.parametrize(("apart_uj", "is_mirror"), [(0, True), (70_000_000, False)])
def test_dies_that_show_one_counter_are_mirrors_and_others_are_not(
    make_tree, examine, apart_uj, is_mirror
):
    machine = make_tree("x3d")
    for die in range(2):
        machine.add_zone(
            f"intel-rapl:{die}", f"package-0-die-{die}", 9_000_000 + die * apart_uj, 65532610987
        )
    findings = found(examine(machine), "mirrored dies")
    assert len(findings) == is_mirror
    if is_mirror:
        assert "package-0-die-1 shows the counter of package-0-die-0" in findings[0].text


def test_masked_counters_of_a_container_come_with_its_options(make_tree, examine, tmp_path):
    machine = make_tree("server")
    links = machine.root / "sys/class/powercap"
    links.mkdir(parents=True)
    (links / "intel-rapl:0").symlink_to(tmp_path / "masked")
    machine.write(".dockerenv", "")
    diagnosis = examine(machine)
    (powercap,) = found(diagnosis, "powercap")
    assert "masked in this container" in powercap.text
    assert powercap.remedies == remedies.unmask()
    assert found(diagnosis, "container")[0].severity == NOTE


def test_a_bare_machine_without_zones_is_told_which_drivers_to_load(make_tree, examine):
    (powercap,) = found(examine(make_tree("server")), "powercap")
    assert powercap.remedies == remedies.load_drivers()


def test_a_virtual_machine_without_zones_is_not_told_to_load_drivers(make_tree, examine):
    machine = make_tree()
    machine.add_cpuinfo(flags="fpu hypervisor")
    diagnosis = examine(machine)
    (powercap,) = found(diagnosis, "powercap")
    assert powercap.remedies == ()
    assert "take a node of bare metal" in found(diagnosis, "virtual machine")[0].text


def test_fault_33_counters_of_a_virtual_machine_are_said_to_be_estimates(make_tree, examine):
    diagnosis = examine(make_tree("vm_rapl"))
    assert diagnosis.can_measure
    (finding,) = found(diagnosis, "virtual machine")
    assert finding.severity == WARNING
    assert "the hypervisor's estimate" in finding.text


def test_the_second_view_alone_is_no_package(make_tree, examine):
    machine = make_tree("server")
    machine.add_zone("intel-rapl-mmio:0", "package-0")
    diagnosis = examine(machine)
    assert not diagnosis.can_measure
    assert "intel-rapl-mmio" in found(diagnosis, "powercap")[0].text
    assert [(zone.link, zone.is_summed) for zone in diagnosis.zones] == [
        ("intel-rapl-mmio:0", False)
    ]


def test_sgx_is_named_because_it_adds_noise(server, examine):
    server.add_cpuinfo(flags="fpu sgx avx2", microcode="0x2b000603")
    (finding,) = found(examine(server), "filtered values")
    assert finding.severity == WARNING
    assert "0x2b000603" in finding.text
    server.add_cpuinfo(flags="fpu sgx_lc avx2")
    assert found(examine(server), "filtered values") == []


def test_the_present_machine_is_examined_without_an_error():
    diagnosis = diagnose()
    assert diagnosis.can_measure == (diagnosis.source is not None)
    assert diagnosis.can_measure or any(f.severity == OBSTACLE for f in diagnosis.findings)


@pytest.mark.parametrize(
    "lines",
    [
        remedies.open_powercap(), remedies.open_perf(), remedies.load_drivers(),
        remedies.unmask(), remedies.allow_perf_in_container(),
    ],
)  # fmt: skip
def test_every_line_is_one_command_that_a_shell_can_parse(lines):
    for line in lines:
        assert "\n" not in line
        assert subprocess.run(["sh", "-nc", line], timeout=10).returncode == 0


def test_the_lines_for_the_boot_write_the_rules_that_are_meant(tmp_path):
    """Run with `tee` into a folder instead of sudo: what would be written must be right."""
    _, udev, tmpfiles = remedies.open_powercap()
    for line in (udev, tmpfiles):
        command = line.replace("sudo tee /etc/", f"tee {tmp_path}/")
        for folder in ("udev/rules.d", "tmpfiles.d"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["sh", "-c", command], check=True, timeout=10, capture_output=True)
    assert (tmp_path / "udev/rules.d/90-rapl.rules").read_text() == (
        'SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", ACTION=="add", '
        'RUN+="/bin/chmod a+r /sys%p/energy_uj"\n'
    )
    zones = "/sys/devices/virtual/powercap/intel-rapl/intel-rapl:*"
    assert (tmp_path / "tmpfiles.d/rapl.conf").read_text() == (
        f"z {zones}/energy_uj 0444 - -\nz {zones}/intel-rapl:*/energy_uj 0444 - -\n"
    )


def test_the_capability_goes_to_the_file_of_python_and_not_to_a_link(tmp_path):
    (tmp_path / "python3.11").write_text("")
    (tmp_path / "python").symlink_to(tmp_path / "python3.11")
    assert f"setcap cap_perfmon=ep {tmp_path}/python3.11 " in " ".join(
        remedies.open_perf(tmp_path / "python")
    )
