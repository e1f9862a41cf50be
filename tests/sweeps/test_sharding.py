"""Parts of a sweep that are done by jobs which know nothing of each other."""

import itertools
import random

import pytest

from minibutter.sweeps.sharding import read_shard
from minibutter.sweeps.spec import SweepError

RUNS = [
    (f"{random.Random(number).getrandbits(128):032x}", repetition)
    for number, repetition in itertools.product(range(50), range(6))
]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 1000])
def test_all_shards_together_are_the_sweep_and_none_has_a_run_of_another(first, count):
    shards = [read_shard(f"{number}/{count}") for number in range(first, first + count)]
    for run in RUNS:
        assert sum(shard.has(*run) for shard in shards) == 1


def test_repetitions_of_an_experiment_are_spread_evenly():
    for number in range(3):
        shard = read_shard(f"{number}/3")
        for _, runs in itertools.groupby(RUNS, key=lambda run: run[0]):
            assert sum(shard.has(*run) for run in runs) == 2


def test_parts_are_numbered_from_0_or_from_1():
    assert read_shard(" 4/4 ") == read_shard("0/4")
    assert str(read_shard("3/4")) == "3/4"


@pytest.mark.parametrize("text", ["", "2", "5/4", "0/0", "1/0", "-1/4", "1/4/2", "a/b", "1.5/4"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(SweepError, match="shard = "):
        read_shard(text)
