"""Sockets, cores and caches of machines that are not alike, and of those that do not tell."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibutter.energy.sysfs import format_cpus, parse_cpus
from minibutter.energy.topology import read_topology
from tests.machines import KIB, MIB


@given(st.sets(st.integers(0, 300)))
def test_a_list_of_cpus_survives_writing_and_reading(cpus):
    ordered = tuple(sorted(cpus))
    assert parse_cpus(format_cpus(ordered)) == ordered


@pytest.mark.parametrize("text", ["0-", "a", "0-3;5", "0x1"])
def test_what_is_no_list_of_cpus_is_refused(text):
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpus(text)


def sizes(topology, cpu):
    return {cache.level: cache.size_bytes for cache in topology.caches_of(cpu)}


def test_sockets_cores_threads_and_nodes_of_a_server_are_counted_once(make_tree):
    topology = read_topology(make_tree("server").root, range(16))
    assert (topology.n_packages, topology.n_cores, topology.threads_per_core) == (2, 8, 2)
    assert topology.n_online == 16
    assert [cpu.node for cpu in topology.cpus] == [0, 0, 0, 0, 1, 1, 1, 1] * 2
    assert topology.nodes[1].distances == (21, 10)
    assert topology.nodes[0].memory_bytes == 16 * MIB * KIB
    assert topology.missing == ()


def test_an_instance_is_counted_once_and_not_once_a_cpu(make_tree):
    topology = read_topology(make_tree("server").root, range(16))
    by_level = [(cache.level, cache.type) for cache in topology.caches]
    assert by_level.count((1, "Data")) == by_level.count((1, "Instruction")) == 8
    assert by_level.count((2, "Unified")) == 8
    assert by_level.count((3, "Unified")) == 2


def test_only_the_cpus_of_the_mask_and_what_they_use_are_seen(make_tree):
    topology = read_topology(make_tree("server").root, {5, 13})
    assert [cpu.number for cpu in topology.cpus] == [5, 13]
    assert (topology.n_packages, topology.n_cores) == (1, 1)
    assert [cache.cpus for cache in topology.caches if cache.level == 3] == [
        (4, 5, 6, 7, 12, 13, 14, 15)
    ]


@pytest.mark.parametrize(
    ("affinity", "n_ranks", "expected"),
    [
        (range(16), 1, 16 * MIB),  # one instance each, of two
        (range(16), 2, 16 * MIB),
        (range(16), 8, 4 * MIB),
        ({5, 13}, 1, 4 * MIB),  # a quarter of the CPUs of the instance
        ({5, 13}, 2, 2 * MIB),
    ],
)
def test_the_share_of_the_third_level_follows_the_mask_and_the_ranks(
    make_tree, affinity, n_ranks, expected
):
    topology = read_topology(make_tree("server").root, affinity)
    assert topology.share_bytes(3, n_ranks) == expected


def test_the_cores_of_a_hybrid_processor_have_their_own_caches(make_tree):
    topology = read_topology(make_tree("hybrid").root, range(9))
    assert sizes(topology, 0) == {1: 48 * KIB, 2: 2 * MIB, 3: 24 * MIB}
    assert sizes(topology, 5) == {1: 32 * KIB, 2: 4 * MIB, 3: 24 * MIB}
    assert sizes(topology, 8) == {1: 32 * KIB, 2: 2 * MIB}
    assert topology.kinds() == ((0, 1, 2, 3), (4, 5, 6, 7), (8,))
    assert [topology.cpus[n].core_type for n in (0, 4, 8)] == [
        "performance", "efficient", "low-power",
    ]  # fmt: skip
    assert topology.n_cores == 7


def test_a_cpu_outside_the_third_level_leaves_no_share_of_it(make_tree):
    machine = make_tree("hybrid")
    topology = read_topology(machine.root, range(9))
    assert topology.share_bytes(3) is None
    assert topology.why_no_share(3) == (
        "sysfs tells of no data cache of level 3 of CPU 8, which other CPUs of this process have; "
        "bind it to CPUs that are alike"
    )
    assert topology.data_levels == (1, 2, 3)
    low_power = read_topology(machine.root, {8})
    assert low_power.share_bytes(3) is None
    assert low_power.why_no_share(3) == "sysfs tells of no data cache of level 3 of CPU 8"
    assert low_power.data_levels == (1, 2)
    assert read_topology(machine.root, range(8)).share_bytes(3) == 24 * MIB


def test_unequal_third_levels_are_two_kinds_and_the_lesser_counts(make_tree):
    machine = make_tree("x3d")
    topology = read_topology(machine.root, range(8))
    assert topology.kinds() == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert topology.share_bytes(3) == 32 * MIB
    assert topology.n_dies == 2
    assert read_topology(machine.root, {1}).share_bytes(3) == 24 * MIB


def test_fault_35_caches_that_are_not_told_are_not_invented(make_tree):
    topology = read_topology(make_tree("vm_rapl").root, {0, 1})
    assert topology.caches == ()
    assert topology.data_levels == ()
    assert [topology.share_bytes(level) for level in (1, 2, 3)] == [None] * 3
    (sentence,) = (line for line in topology.missing if line.startswith("caches"))
    assert "tells nothing of CPU 0-1" in sentence


def test_fault_35_a_size_that_its_ways_and_sets_contradict_is_reported_once(make_tree):
    machine = make_tree("server")
    for package in range(2):
        cpus = range(4 * package, 4 * package + 4)
        machine.add_cache(cpus, 3, "Unified", 320 * KIB, ways=16, sets=32768,
                          shared=f"{4 * package}-{4 * package + 3}")  # fmt: skip
    topology = read_topology(machine.root, range(8))
    (sentence,) = topology.missing
    assert "L3 unified" in sentence
    assert f"size is {320 * MIB} bytes, but 16 ways x 32768 sets x 64 bytes are {32 * MIB}" in (
        sentence
    )
    assert "1 more like this" in sentence
    assert topology.share_bytes(3) is None
    assert f"size is {320 * MIB} bytes" in topology.why_no_share(3)
    assert topology.share_bytes(2) == MIB // 2
    assert [cache.problem is None for cache in topology.caches if cache.level < 3] == [True] * 24


@pytest.mark.parametrize(
    ("text", "expected"),
    [("32K", 32 * KIB), ("2M", 2 * MIB), ("4096", 4096), ("0K", None), ("", None), ("many", None)],
)
def test_sizes_have_units_and_nonsense_is_no_size(make_tree, text, expected):
    machine = make_tree("x3d")
    folder = "sys/devices/system/cpu/cpu0/cache/index0"
    machine.write(f"{folder}/size", text)
    (machine.root / folder / "number_of_sets").unlink()
    topology = read_topology(machine.root, {0})
    assert sizes(topology, 0)[1] == expected
    assert bool(topology.missing) == (expected is None)


def test_caches_without_a_list_of_sharers_have_no_share(make_tree):
    machine = make_tree("x3d")
    for cpu in range(8):
        folder = f"sys/devices/system/cpu/cpu{cpu}/cache/index3"
        (machine.root / folder / "shared_cpu_list").unlink()
    topology = read_topology(machine.root, range(8))
    assert topology.share_bytes(3) is None
    assert topology.why_no_share(3) == "nobody tells which CPUs share a cache of level 3"
    assert topology.why_no_share(2) is None
    assert any("shared_cpu_list is missing" in line for line in topology.missing)


def test_a_machine_that_tells_nothing_has_nothing_and_says_so(make_tree):
    topology = read_topology(make_tree().root, {0, 1})
    assert [cpu.number for cpu in topology.cpus] == [0, 1]
    assert (topology.n_packages, topology.n_dies, topology.n_cores) == (None, None, None)
    assert (topology.threads_per_core, topology.n_online) == (None, None)
    words = [line.partition(":")[0] for line in topology.missing]
    assert words == ["sockets", "dies", "cores", "caches", "memory nodes"]


def test_a_socket_that_firmware_does_not_name_is_unknown(make_tree):
    machine = make_tree("x3d")
    machine.add_cpu(0, package=-1)
    topology = read_topology(machine.root, range(8))
    assert topology.n_packages is None
    assert any(line.startswith("sockets") and "CPU 0" in line for line in topology.missing)


def test_the_present_machine_is_read_for_the_cpus_of_this_process():
    topology = read_topology()
    assert {cpu.number for cpu in topology.cpus} == os.sched_getaffinity(0)
