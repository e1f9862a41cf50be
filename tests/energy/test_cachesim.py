"""The cache simulator against closed forms, and against one of a few lines that is slow."""

from collections import OrderedDict

import numpy as np
import pytest

from minibutter.energy.cachesim import CacheLevel, CacheSimulator


class SlowCaches:
    """The same models with an ordered dictionary a set: line -> whether it was written."""

    def __init__(self, levels, model):
        self.levels, self.model = levels, model
        self.sets = [[OrderedDict() for _ in range(level.sets)] for level in levels]
        self.counts = [dict.fromkeys(("hits", "misses", "write_backs"), 0) for _ in levels]

    def touch(self, level, line, dirty):
        """Whether the line was there, and what had to leave for it."""
        ways = self.sets[level][line % self.levels[level].sets]
        was_there = line in ways
        dropped = None
        if not was_there and len(ways) == self.levels[level].ways:
            dropped = ways.popitem(last=False)
        ways[line] = ways.pop(line, False) or dirty
        return was_there, dropped

    def write_back(self, level, dropped):
        if dropped is None or not dropped[1]:
            return
        self.counts[level]["write_backs"] += 1
        if level + 1 < len(self.levels):
            address = dropped[0] * self.levels[level].line_bytes
            line = address // self.levels[level + 1].line_bytes
            self.write_back(level + 1, self.touch(level + 1, line, True)[1])

    def access(self, address, size, is_write):
        step = self.levels[0].line_bytes
        if self.model == "cachegrind":
            for level, geometry in enumerate(self.levels):
                lines = {
                    address // geometry.line_bytes,
                    (address + size - 1) // geometry.line_bytes,
                }
                found = [self.touch(level, line, False)[0] for line in sorted(lines)]
                self.counts[level]["hits" if all(found) else "misses"] += 1
                if all(found):
                    return
            return
        for first in range(address // step, (address + size - 1) // step + 1):
            for level, geometry in enumerate(self.levels):
                line = first * step // geometry.line_bytes
                was_there, dropped = self.touch(level, line, is_write and level == 0)
                self.counts[level]["hits" if was_there else "misses"] += 1
                self.write_back(level, dropped)
                if was_there:
                    break


GEOMETRIES = {
    "one level, one way": [CacheLevel(512, 1)],
    "two levels": [CacheLevel(512, 2), CacheLevel(2048, 4)],
    "three levels": [CacheLevel(256, 4), CacheLevel(1024, 2), CacheLevel(4096, 8)],
    "sets that are no power of two": [CacheLevel(384, 2), CacheLevel(64 * 35, 5)],
    "longer lines below": [CacheLevel(256, 2, 32), CacheLevel(1024, 2, 128)],
}


@pytest.mark.parametrize("model", ["machine", "cachegrind"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_count_is_that_of_the_slow_simulator(name, model):
    levels = GEOMETRIES[name]
    rng = np.random.default_rng(len(name))
    # Near each other, so that all levels have hits, and some across lines.
    addresses = np.abs(np.cumsum(rng.integers(-300, 300, 4000))).astype(np.int64)
    sizes = rng.choice([4, 16, 32], addresses.size)
    writes = rng.random(addresses.size) < 0.4
    slow, fast = SlowCaches(levels, model), CacheSimulator(levels, model)
    for access in zip(addresses.tolist(), sizes.tolist(), writes.tolist(), strict=True):
        slow.access(*access)
    for part in np.array_split(np.arange(addresses.size), 3):  # goes on from call to call
        fast.replay(addresses[part], sizes[part], writes[part])
    for expected, counts in zip(slow.counts, fast.counts, strict=True):
        assert counts.read_hits + counts.write_hits == expected["hits"]
        assert counts.misses == expected["misses"]
        assert counts.write_backs == expected["write_backs"]
    assert all(counts.misses > 100 for counts in fast.counts)


def test_a_stream_misses_once_a_line_and_is_written_back_once():
    caches = CacheSimulator([CacheLevel(1024, 2), CacheLevel(4096, 4)])
    caches.replay(np.arange(0, 2**16, 8), 8, True)
    caches.flush()
    lines = 2**16 // 64
    for counts in caches.counts:
        assert (counts.write_misses, counts.write_backs, counts.read_misses) == (lines, lines, 0)
    assert caches.traffic_bytes == (2**16, 2 * 2**16, 2 * 2**16)


@pytest.mark.parametrize(("lines", "misses_a_round"), [(16, 0), (17, 17)])
def test_a_cycle_one_line_too_long_never_hits(lines, misses_a_round):
    """What is used least recently is what is needed next."""
    caches = CacheSimulator([CacheLevel(16 * 64, ways=16)])
    round_ = np.arange(lines) * 64
    caches.replay(round_, 8, False)
    caches.reset_counts()
    for _ in range(5):
        caches.replay(round_, 8, False)
    assert caches.counts[0].misses == 5 * misses_a_round


def test_a_stride_of_the_set_period_uses_one_set_alone():
    level = CacheLevel(4096, ways=4)  # 16 sets: lines 1024 bytes apart fall into the same
    caches = CacheSimulator([level])
    for _ in range(3):
        caches.replay(np.arange(4) * 1024, 4, False)
    assert caches.counts[0].misses == 4
    for _ in range(3):
        caches.replay(np.arange(5) * 1024, 4, False)
    assert caches.counts[0].misses == 4 + 1 + 5 + 5  # from the first that does not fit on, all


def test_a_straddling_access_is_one_miss_for_cachegrind_and_two_for_a_machine():
    for model, misses in (("cachegrind", 1), ("machine", 2)):
        caches = CacheSimulator([CacheLevel(1024, 2), CacheLevel(4096, 2)], model)
        caches.replay(np.array([60]), 8, False)
        assert [counts.misses for counts in caches.counts] == [misses, misses]
        caches.replay(np.array([0, 64]), 4, False)  # both lines are there
        assert caches.counts[0].read_hits == 2


def test_a_flush_leaves_nothing():
    caches = CacheSimulator([CacheLevel(1024, 2), CacheLevel(4096, 2)])
    caches.replay(np.arange(0, 1024, 64), 8, False)
    caches.flush()
    caches.reset_counts()
    caches.replay(np.arange(0, 1024, 64), 8, False)
    assert [counts.misses for counts in caches.counts] == [16, 16]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CacheLevel(1000, 2), "multiple of 128"),
        (lambda: CacheLevel(1024, 2, 48), "power of two"),
        (lambda: CacheSimulator([]), "no level"),
        (lambda: CacheSimulator([CacheLevel(1024, 2)], "ideal"), "ideal"),
        (lambda: CacheSimulator([CacheLevel(256, 2), CacheLevel(1024, 2, 32)]), "shrink"),
        (lambda: CacheSimulator([CacheLevel(256, 2)]).replay(np.array([-1]), 4, False), "at least"),
    ],
)
def test_impossible_caches_and_accesses_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
