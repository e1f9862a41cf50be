"""Sizes of tiles and cache blocks: what the machine says, what a run may say, what is refused."""

import numba
import numpy as np
import pytest

from minibutter.nn.kernels import tile
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.kernels.tiling import Tiling, read_cache_bytes
from minibutter.nn.network import Network

DTYPES = ("float32", "float64")
KIB = 2**10
TYPICAL = {1: 32 * KIB, 2: 512 * KIB, 3: 8 * 2**20}


@pytest.fixture
def make_caches(tmp_path):
    """make_caches(rows): a folder like Linux' of a first CPU with these caches."""

    def make(*caches):
        for index, (level, kind, size, cpus) in enumerate(caches):
            folder = tmp_path / "cpu0" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in (
                ("level", level), ("type", kind), ("size", size), ("shared_cpu_list", cpus)
            ):  # fmt: skip
                if text is not None:
                    (folder / name).write_text(f"{text}\n")
        return tmp_path

    return make


def test_data_caches_of_the_first_cpu_are_read_and_the_third_is_shared(make_caches):
    cpus = make_caches(
        (1, "Data", "48K", "0"),
        (1, "Instruction", "64K", "0"),
        (2, "Unified", "2048K", "0-1"),
        (3, "Unified", "32768K", "0-3,8,16-18"),
    )
    assert read_cache_bytes(cpus) == {1: 48 * KIB, 2: 2048 * KIB, 3: 32768 * KIB // 8}


def test_levels_that_linux_does_not_tell_have_the_size_of_a_usual_core(make_caches, tmp_path):
    assert read_cache_bytes(tmp_path / "nothing") == TYPICAL
    cpus = make_caches(
        (1, "Data", "48K", None),
        (2, "Unified", "1024K", "0"),
        (3, "Unified", "unknown", "0-1"),
    )
    assert read_cache_bytes(cpus) == TYPICAL | {2: 1024 * KIB}


@pytest.mark.parametrize("dtype", DTYPES)
def test_default_blocks_fill_three_eighths_of_each_cache(dtype):
    size, lanes = np.dtype(dtype).itemsize, lanes_of(dtype)
    caches = {1: 32 * KIB, 2: 512 * KIB, 3: 4096 * KIB}
    sizes = Tiling().resolved(dtype, caches)
    assert (sizes.tile_rows, sizes.tile_columns) == (tile.TILE_ROWS, tile.TILE_LINES * lanes)
    panel, a_block, b_block = (
        size * sizes.block_depth * columns
        for columns in (lanes, sizes.block_rows, sizes.block_columns)
    )
    assert panel == 12 * KIB
    # Rounded up to whole tiles.
    assert 0 <= a_block - 192 * KIB < size * sizes.block_depth * sizes.tile_rows
    assert 0 <= b_block - 1536 * KIB < size * sizes.block_depth * sizes.tile_columns
    assert sizes.block_rows % sizes.tile_rows == 0
    assert sizes.block_columns % sizes.tile_columns == 0


def test_defaults_are_those_of_this_machines_caches():
    caches = read_cache_bytes()
    assert Tiling().resolved("float32") == Tiling().resolved("float32", caches)


def test_tiny_caches_still_hold_one_number_of_everything():
    sizes = Tiling().resolved("float64", {1: 1, 2: 1, 3: 1})
    assert sizes.block_depth == 1
    assert sizes.block_rows == sizes.tile_rows
    assert sizes.block_columns == sizes.tile_columns


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", Tiling.__dataclass_fields__)
def test_a_size_that_is_named_is_taken_and_the_others_stay_defaults(name, dtype):
    value = {"tile_columns": 2 * lanes_of(dtype)}.get(name, 3)
    sizes = Tiling(**{name: value}).resolved(dtype)
    assert getattr(sizes, name) == value
    assert None not in vars(sizes).values()
    assert sizes.resolved(dtype) == sizes


@pytest.mark.parametrize(
    ("sizes", "dtype", "message"),
    [
        ({"tile_rows": 0}, "float32", "tile_rows is 0; only 1 to 2147483647 can be"),
        ({"tile_rows": 17}, "float32", "tile_rows is 17; it must be at most 16"),
        ({"tile_columns": -16}, "float32", "tile_columns is -16; only 1 to 2147483647 can be"),
        ({"tile_columns": 8}, "float32",
         "tile_columns is 8; for float32 it must be a multiple of 16, a cache line, and at most "
         "128"),
        ({"tile_columns": 72}, "float64", "tile_columns is 72; for float64 .*multiple of 8.* 64"),
        (
            {"tile_rows": 16, "tile_columns": 128},
            "float32",
            "tile_rows is 16 and tile_columns is 128; their product, 2048, must be at most 512",
        ),
        (
            {"block_depth": 2**62},
            "float32",
            f"block_depth is {2**62}; only 1 to 2147483647 can be",
        ),
        ({"block_rows": 0}, "float32", "block_rows is 0; only 1 to 2147483647 can be"),
        ({"block_depth": -1}, "float32", "block_depth is -1; only 1 to 2147483647 can be"),
        ({"block_columns": 0}, "float64", "block_columns is 0; only 1 to 2147483647 can be"),
    ],
)  # fmt: skip
def test_impossible_size_is_refused_with_the_reason(sizes, dtype, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**sizes).resolved(dtype)
    with pytest.raises(ValueError, match=message):
        Network(3, (4, 2), "regression", dtype=dtype, tiling=Tiling(**sizes)).workspace(5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rung", RUNGS)
def test_sizes_of_a_network_reach_its_products(rung, dtype):
    sizes = Tiling(None, None, 5, 7, 48)
    network = Network(3, (4, 2), "regression", dtype=dtype, kernel=rung, tiling=sizes)
    plan = network.workspace(5).plan
    for name, value in vars(sizes.resolved(dtype)).items():
        assert name == "tile_columns" or getattr(plan, name) == value


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="without a compiler there is no tile")
def test_tiles_are_compiled_once_for_each_shape_and_type():
    def find_tiles(dtype, tile_rows):
        tiling = Tiling(tile_rows=tile_rows)
        return Network(1, (1, 1), "regression", dtype=dtype, tiling=tiling).workspace(1).plan.tiles

    assert find_tiles("float32", 3) == find_tiles("float32", 3)
    places = {find_tiles(dtype, rows) for dtype in DTYPES for rows in (2, 3)}
    assert len(places) == 4
