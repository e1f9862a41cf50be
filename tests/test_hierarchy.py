"""Streams of accesses through simulated caches, against predictions and closed forms."""

import numba
import numpy as np
import pytest

from minibutter import hierarchy
from minibutter.energy.cachesim import CacheLevel
from minibutter.energy.simulated import build
from minibutter.energy.topology import read_topology
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.loops import Cache, moved_bytes
from minibutter.nn.product_loops import Kernel, Product, product_loops
from tests.machines import KIB, MIB

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="too slow without the JIT")

PRODUCTS = ("forward", "backward_parameters", "backward_input")
RUNGS = ("naive", "blocked", "tiled")
SMALL = CacheLevel(4096, 64)  # fully associative: what the prediction reasons about
VECTOR_BYTES = 32


def tiling(dtype="float32"):
    return Tiling(tile_rows=6, tile_columns=16).resolved(dtype, {1: 8192, 2: 65536, 3: 2**22})


def simulate(product, rung, levels, **options):
    return hierarchy.simulate_product(
        product,
        rung,
        tiling(product.dtype),
        levels,
        repeats=1,
        vector_bytes=VECTOR_BYTES,
        **options,
    )


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 5), (7, 5, 20), (33, 18, 64), (50, 130, 96), (130, 50, 64)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_processor_moves_the_bytes_that_the_loops_say(rung, name, shape, dtype):
    product = Product(name, *shape, dtype)
    moved = simulate(product, rung, [SMALL]).state.moved_bytes
    read, written = moved_bytes(product_loops(product, Kernel(rung, tiling(dtype), VECTOR_BYTES)))
    # Blocks of unequal sizes stand by their mean.
    assert moved == pytest.approx([read, written], rel=0.03)


def test_naive_reads_and_writes_what_its_text_says():
    """Per product of a line: a number of A, lines of B and C, and C again."""
    m, d, blocks = 9, 5 + 1, 2
    moved = simulate(Product("forward", 5, m, 32, "float32"), "naive", [SMALL]).state.moved_bytes
    assert moved.tolist() == [blocks * m * d * (4 + 64 + 64), blocks * m * (64 + d * 64)]


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_large_caches_are_missed_once_and_never_again(rung, name):
    product, huge = Product(name, 30, 20, 64, "float32"), [CacheLevel(2**20, 16)]
    assert simulate(product, rung, huge).counts[0].misses == 0
    assert hierarchy.predict_product(product, Kernel(rung, tiling()), Cache(2**14))[0] == 0


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_prediction_is_within_a_tenth_where_no_working_set_is_near(rung, name):
    kernel = Kernel(rung, tiling(), VECTOR_BYTES)
    n_far = 0
    for width in (5, 9, 17, 30, 60, 150):
        product = Product(name, width, width + 3, 64, "float32")
        for kib in (2, 4, 16, 64, 256):
            level = CacheLevel(kib * 1024, kib * 16)
            cache = Cache(level.size_bytes // 64)
            fetched, written_back, margin = hierarchy.predict_product(product, kernel, cache)
            if margin < 2 or (width > 100 and kib > 16):
                continue
            n_far += 1
            counts = simulate(product, rung, [level]).counts[0]
            moved = counts.misses + counts.write_backs
            assert fetched + written_back == pytest.approx(moved, rel=0.1, abs=8), (width, kib)
    assert n_far >= 8


def test_blocks_can_keep_a_product_in_a_level_of_choice():
    """The same product, cut into blocks for the first level or not."""
    product = Product("forward", 400, 96, 128, "float32")
    levels = [CacheLevel(8192, 8), CacheLevel(2**20, 16)]
    few, many = (
        hierarchy.simulate_product(
            product, "blocked", Tiling(6, 16, 1000, depth, 1000), levels, vector_bytes=VECTOR_BYTES
        ).traffic_bytes[1]
        for depth in (16, 1000)
    )
    assert many > 3 * few


def test_accesses_of_blas_are_not_known():
    with pytest.raises(ValueError, match="blas"):
        simulate(Product("forward", 3, 3, 16, "float32"), "blas", [SMALL])


def test_arrays_lie_where_the_caller_says():
    product = Product("forward", 10, 10, 32, "float32")
    places = hierarchy.place_arrays(product, tiling())
    direct = [CacheLevel(2**16, 1)]
    apart = simulate(product, "naive", direct, addresses=places)
    # All arrays in the same sets of a cache of one way: they drive each other out.
    together = {name: 2**16 * number for number, name in enumerate(places, start=1)}
    crowded = simulate(product, "naive", direct, addresses=together)
    assert apart.counts[0].misses == 0 < crowded.counts[0].misses
    assert np.array_equal(apart.state.moved_bytes, crowded.state.moved_bytes)


@pytest.mark.parametrize("rung", ["naive", "blocked"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_lines_of_the_stack_take_ways_from_the_arrays(rung, name):
    """The arrays just fill the cache, so that the stack's lines must drive some of theirs out."""
    product, level = Product(name, 9, 8, 16, "float32"), [CacheLevel(24 * 64, 24)]
    places = hierarchy.place_arrays(product, tiling())
    without = simulate(product, rung, level, addresses=places)
    beside = simulate(product, rung, level, addresses=places | {"stack": 2**30})
    assert without.counts[0].misses == 0 < beside.counts[0].misses
    # Numbers of eight bytes are read, nothing is written.
    read, written = (beside.state.moved_bytes - without.state.moved_bytes).tolist()
    assert written == 0 < read
    assert read % 8 == 0


def test_a_core_has_the_same_of_the_caches_whether_a_process_is_bound_to_it_or_not(with_caches):
    topology = with_caches("server", *range(16))
    free = hierarchy.machine_caches()
    assert free == {1: 32 * KIB, 2: MIB, 3: 4 * MIB}
    assert topology.share_bytes(3) == 16 * MIB  # of a process that is alone


def test_a_bound_process_has_its_part_of_what_cores_share(with_caches):
    with_caches("server", 5, 13)
    assert hierarchy.machine_caches() == {1: 32 * KIB, 2: MIB, 3: 4 * MIB}
    assert hierarchy.unknown_caches() is None
    assert hierarchy.flushed_bytes() == 2 * 16 * MIB


def test_where_counters_are_simulated_predictions_are_for_the_simulated_caches(
    with_caches, tmp_path, monkeypatch
):
    with_caches("server", *range(16))
    zen = build(tmp_path / "zen", "amd_zen")
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(zen.root))
    assert hierarchy.machine_caches() == {1: 32 * KIB, 2: 512 * KIB, 3: 4 * MIB}
    assert hierarchy.unknown_caches() is None
    # What empties the caches must know those that there are.
    assert hierarchy.flushed_bytes() == 2 * 16 * MIB
    without = build(tmp_path / "server", "intel_server2")
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(without.root))
    assert hierarchy.machine_caches()[2] == MIB


def test_a_level_that_no_cpu_has_is_absent_and_not_unknown(with_caches):
    with_caches("hybrid", 8)
    assert hierarchy.machine_caches() == {1: 32 * KIB, 2: 2 * MIB}
    assert hierarchy.unknown_caches() is None
    assert hierarchy.level_places() == {
        "traffic_l1_bytes": 0,
        "traffic_l2_bytes": 1,
        "traffic_l3_bytes": None,
        "traffic_dram_bytes": 2,
    }


def test_caches_that_only_some_cpus_have_are_unknown_until_the_process_is_bound(with_caches):
    with_caches("hybrid", *range(9))
    assert hierarchy.machine_caches()[3] is None
    assert "level 3 of CPU 8, which other CPUs of this process have" in hierarchy.unknown_caches()


def test_without_cores_nobody_knows_how_many_share_a_cache(make_tree, monkeypatch):
    machine = make_tree("server")
    (machine.root / "sys/devices/system/cpu/cpu3/topology/thread_siblings_list").unlink()
    topology = read_topology(machine.root, range(16))
    monkeypatch.setattr(hierarchy, "machine_topology", lambda: topology)
    assert hierarchy.machine_caches() == {1: None, 2: None, 3: None}
    assert "does not tell the cores" in hierarchy.unknown_caches()
