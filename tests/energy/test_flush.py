"""Reading until the caches hold nothing else."""

import pytest

from minibutter.energy.flush import CacheFlusher, flushed_bytes
from minibutter.energy.topology import read_topology
from tests.machines import KIB, MIB


def test_every_line_of_the_buffer_is_read():
    assert CacheFlusher(64 * 1000).flush() == 1000


def test_a_buffer_is_memory_of_its_own():
    """Pages that were never written would all be one page of zeros, and drive nothing out."""
    flusher = CacheFlusher(2**16)
    assert flusher._buffer.all()
    assert flusher._buffer.nbytes == 2**16


def test_runs_that_follow_each_other_take_the_memory_once():
    before = CacheFlusher(2**16)
    assert CacheFlusher(2**16)._buffer is before._buffer
    assert CacheFlusher(2**17)._buffer.nbytes == 2**17


@pytest.mark.parametrize(
    ("profile", "affinity", "expected"),
    [
        ("server", range(16), 2 * 16 * MIB),  # two instances; one core fills one of them
        ("server", {5}, 2 * 16 * MIB),  # its share is an eighth, but its lines may be anywhere
        ("x3d", range(8), 2 * 96 * MIB),  # of unequal instances the larger
        ("x3d", {4}, 2 * 32 * MIB),
        ("hybrid", range(9), 2 * 24 * MIB),
        ("hybrid", {8}, 2 * 2 * MIB),  # the second level is the last of a low-power core
    ],
)
def test_a_flush_reads_twice_the_whole_of_the_last_level(make_tree, profile, affinity, expected):
    assert flushed_bytes(read_topology(make_tree(profile).root, affinity)) == expected


def test_fault_35_unknown_caches_cannot_be_flushed_and_no_size_is_assumed(make_tree):
    machine = make_tree("x3d")
    (machine.root / "sys/devices/system/cpu/cpu5/cache").rename(machine.root / "hidden")
    with pytest.raises(ValueError, match=r"no data cache of CPU 5; .*with cache_state = 'warm'"):
        flushed_bytes(read_topology(machine.root, range(8)))
    assert flushed_bytes(read_topology(machine.root, {4, 6})) == 2 * 32 * MIB


def test_fault_35_a_last_level_that_contradicts_itself_is_not_flushed_by_guess(make_tree):
    machine = make_tree("x3d")
    machine.add_cache(range(4, 8), 3, "Unified", 320 * KIB, ways=1, sets=99)
    with pytest.raises(ValueError, match=r"size is \d+ bytes, but 1 ways x 99 sets"):
        flushed_bytes(read_topology(machine.root, range(8)))
    assert flushed_bytes(read_topology(machine.root, range(4))) == 2 * 96 * MIB
