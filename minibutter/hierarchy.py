"""Kernels and caches together: what training does to the memory hierarchy.

`nn` predicts the bytes that an epoch moves and knows which accesses its kernels make; `energy` has
a cache simulator; neither knows the other. Here the prediction is made for this machine's caches,
and the accesses of a product are replayed through simulated ones.
"""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numba
import numpy as np

from minibutter.energy import cachesim, flush
from minibutter.energy.cachesim import CacheLevel, CacheSimulator
from minibutter.energy.opening import find_root
from minibutter.energy.simulated import is_simulated
from minibutter.energy.topology import Topology, read_topology
from minibutter.nn.kernels.gemm_stream import STREAMS
from minibutter.nn.kernels.jit import address_of
from minibutter.nn.kernels.layout import count_blocks, lanes_of
from minibutter.nn.kernels.stream import (
    Memory,
    Stream,
    blocks_at,
    hand_over,
    make_stream,
    matrix_at,
    transposed,
)
from minibutter.nn.kernels.tile import LINE_BYTES, PLAIN, VECTOR_BYTES
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.loops import Cache, Margin, follow
from minibutter.nn.product_loops import Kernel, Product, product_effect
from minibutter.nn.traffic import PREDICTED_RUNGS, Traffic, Workload, predict_epoch

_PAGE_BYTES = 4096

WORKING_SETS = ("parameter", "parameter2x", "parameter2x_dataset", "bwd_layer")
TRAFFIC_COLUMNS = (
    "traffic_l1_bytes",
    "traffic_l2_bytes",
    "traffic_l3_bytes",
    "traffic_dram_bytes",
)


@cache
def machine_topology() -> Topology:
    """Of the CPUs that this process may use, as they were when it was first asked for."""
    return read_topology()


def predicted_topology() -> Topology:
    """Of the machine whose caches predictions are made for: this one or, where counters are
    simulated, the simulated one, if it has caches. A core of it has the same on every host, so that
    a power model draws the same joules."""
    root = find_root()
    if root == Path("/") or not is_simulated(root):
        return machine_topology()
    simulated = read_topology(root, {0})
    return simulated if simulated.caches else machine_topology()


def machine_caches() -> dict[int, int | None]:
    """Bytes by level that a core has of the data caches, with one rank on every core.

    They are the process's share where several CPUs have one cache, see `Topology.share_bytes`. None
    where sysfs does not tell, and empty where it tells of no cache at all: no size is assumed, and
    `unknown_caches` has the reason.
    """
    topology = predicted_topology()
    return {
        level: topology.n_cores and topology.share_bytes(level, topology.n_cores)
        for level in topology.data_levels
    }


def unknown_caches() -> str | None:
    """Why not all of `machine_caches` are known, so that no traffic can be predicted; else None."""
    topology = predicted_topology()
    if topology.n_cores is None:
        return "sysfs does not tell the cores, among which caches are shared"
    reasons = map(topology.why_no_share, topology.data_levels or (1,))
    return next((reason for reason in reasons if reason is not None), None)


def flushed_bytes() -> int:
    """Bytes to read so that nothing of before is left in any cache; see `flush.flushed_bytes`.

    Raises
    ------
    ValueError
        If the caches of this machine are not known.
    """
    return flush.flushed_bytes(machine_topology())


# ---------------------------------------------------------------------------------------------
# Prediction


def predict(workload: Workload, cache_state: str = "warm") -> Traffic | None:
    """Bytes that an epoch moves on this machine; None where `why_no_traffic` has a reason."""
    if why_no_traffic(workload) is not None:
        return None
    return _predict(workload, cache_state, tuple(sorted(machine_caches().items())))


@lru_cache(maxsize=256)
def _predict(workload: Workload, cache_state: str, caches: tuple[tuple[int, int], ...]) -> Traffic:
    levels = [Cache(n_bytes // LINE_BYTES) for _, n_bytes in caches]
    return predict_epoch(workload, levels, cache_state)


def why_no_traffic(workload: Workload) -> str | None:
    """Why the bytes that an epoch moves are not known; None where they can be predicted."""
    kernel = workload.network.kernel
    if kernel not in PREDICTED_RUNGS:
        return f"bytes are not known of kernel {kernel!r}"
    reason = unknown_caches()
    return reason and f"bytes cannot be predicted for unknown caches: {reason}"


def predict_product(product: Product, kernel: Kernel, level: Cache) -> tuple[float, float, float]:
    """Lines that a product fetches and writes back when the same product came before it.

    Returns
    -------
    Lines fetched, lines written back, and the margin: how many times larger or smaller than the
    level the nearest working set is that decided.
    """
    effect, margin = product_effect(product, kernel, level), Margin()
    margin.factor = effect.margin
    (moved,) = follow([effect.touched], level, margin, before=[effect.touched])
    fetched, written_back = map(sum, zip(*moved.values(), strict=True))
    return fetched, written_back, margin.factor


def work_columns(workload: Workload | None) -> dict[str, float | None]:
    """What an epoch computes and keeps, by the names of the columns of `runs`."""
    sets = workload.working_sets if workload else dict.fromkeys(WORKING_SETS)
    return {
        "flops_per_epoch": workload.flops if workload else None,
        **{f"working_set_{name}_bytes": n_bytes for name, n_bytes in sets.items()},
    }


def traffic_columns(workload: Workload, cache_state: str) -> dict[str, float | None]:
    """What an epoch moves, by the names of the columns of `runs`; None for what there is not."""
    traffic = predict(workload, cache_state)
    if traffic is None:
        return dict.fromkeys(TRAFFIC_COLUMNS)
    return {
        name: None if place is None else traffic.bytes[place]
        for name, place in level_places().items()
    }


def level_of(column: str) -> str:
    """`l1`, `l2`, `l3` or `dram`, of a column of `TRAFFIC_COLUMNS`."""
    return column.removeprefix("traffic_").removesuffix("_bytes")


def phase_table(workload: Workload, cache_state: str) -> list[dict[str, Any]]:
    """What the parts of an epoch move: name, layer, flops, and bytes by column; empty where
    `why_no_traffic` has a reason."""
    traffic = predict(workload, cache_state)
    if traffic is None:
        return []
    places = level_places()
    return [
        {"name": phase.name, "layer": phase.layer, "flops": phase.flops}
        | {name: None if at is None else phase.bytes[at] for name, at in places.items()}
        for phase in traffic.phases
    ]


def level_places() -> dict[str, int | None]:
    """Where the bytes of a column stand in `Traffic.bytes`; None: the machine has no such level."""
    levels = sorted(machine_caches())
    places = {f"traffic_l{level}_bytes": place for place, level in enumerate(levels)}
    return {name: places.get(name) for name in TRAFFIC_COLUMNS} | {
        "traffic_dram_bytes": len(levels)
    }


# ---------------------------------------------------------------------------------------------
# Simulation


def simulate_product(
    product: Product,
    kernel: str,
    tiling: Tiling,
    caches: Sequence[CacheLevel],
    *,
    model: str = "machine",
    repeats: int = 2,
    addresses: Mapping[str, int] | None = None,
    vector_bytes: int = VECTOR_BYTES,
) -> CacheSimulator:
    """Replay a product through caches that the same product has left warm.

    Parameters
    ----------
    product : what is multiplied.
    kernel : "naive", "blocked" or "tiled".
    tiling : sizes of tiles and cache blocks, resolved.
    caches : levels from the processor downwards.
    model : of the simulator, see `cachesim.MODELS`.
    repeats : products that are counted, after one that is not.
    addresses : where the arrays lie: w, x, z, dx, packed, panels, edge; one behind the other, on
        pages of their own, when left out. And `stack`, where the kernel's return address lies;
        without it what loops keep on the stack is left out.
    vector_bytes : of the processor's vectors.

    Returns
    -------
    CacheSimulator
        With the counts of all `repeats` products.

    Raises
    ------
    ValueError
        If the kernel's accesses are not known.
    """
    if kernel not in STREAMS:
        raise ValueError(
            f"kernel is {kernel!r}; accesses are known of {', '.join(STREAMS)}, and BLAS keeps its "
            "own to itself"
        )
    simulator = CacheSimulator(caches, model)
    addresses = addresses or place_arrays(product, tiling)
    stack = addresses.get("stack", 0)
    stream = make_stream(_drain(), simulator.state, vector_bytes, stack=stack)
    for repeat in range(1 + repeats):
        _append_product(stream, product, kernel, tiling, addresses)
        hand_over(stream)
        if repeat == 0:
            simulator.reset_counts()
    return simulator


@cache
def _drain() -> int:
    """Address of the simulator's `replay`, as streams call it."""
    state = numba.typeof(CacheSimulator([CacheLevel(64, 1)]).state)
    arrays = [numba.types.Array(kind, 1, "C") for kind in (numba.int64, numba.int32, numba.boolean)]
    return address_of(cachesim.replay, state, *arrays, numba.int64)


def place_arrays(product: Product, tiling: Tiling) -> dict[str, int]:
    """Addresses of the arrays of a product, one behind the other, each on pages of its own."""
    size, lanes = np.dtype(product.dtype).itemsize, lanes_of(product.dtype)
    blocks = count_blocks(product.n, product.dtype)
    most = max(product.fan_in + 1, product.fan_out)
    panels = -(-most // lanes)
    sizes = {
        "w": (product.fan_in + 1) * product.fan_out * size,
        "x": blocks * (product.fan_in + 1) * LINE_BYTES,
        "z": blocks * (product.fan_out + 1) * LINE_BYTES,
        "dx": blocks * product.fan_in * LINE_BYTES,
        "packed": 3 * tiling.block_rows * tiling.block_depth * size,
        "panels": panels * blocks * lanes * LINE_BYTES,
        "edge": panels * lanes * LINE_BYTES,
    }
    addresses, start = {}, _PAGE_BYTES
    for name, n_bytes in sizes.items():
        addresses[name] = start
        # A line more than whole pages: arrays of a run do not all begin in the same set.
        start += -(-n_bytes // _PAGE_BYTES) * _PAGE_BYTES + LINE_BYTES
    return addresses


def _append_product(
    stream: Stream, product: Product, kernel: str, tiling: Tiling, addresses: Mapping[str, int]
) -> None:
    multiply, contract = STREAMS[kernel]
    dtype, n = product.dtype, product.n
    lanes, blocks = lanes_of(dtype), count_blocks(n, dtype)
    fan_in, fan_out = product.fan_in, product.fan_out
    panels = -(-max(fan_in + 1, fan_out) // lanes)
    memory = Memory(
        tile_rows=tiling.tile_rows,
        tile_lines=tiling.tile_columns // lanes,
        block_rows=tiling.block_rows,
        block_depth=tiling.block_depth,
        block_columns=tiling.block_columns,
        packed=addresses["packed"],
        panels=blocks_at(addresses["panels"], panels, blocks * lanes, dtype),
        edge=matrix_at(addresses["edge"], panels * lanes, lanes, dtype),
    )
    w = matrix_at(addresses["w"], fan_in + 1, fan_out, dtype)
    x, z = (
        blocks_at(addresses[name], blocks, units, dtype)
        for name, units in (("x", fan_in + 1), ("z", fan_out))
    )
    if product.name == "forward":
        multiply(stream, z, transposed(w), x, memory, PLAIN, z)
    elif product.name == "backward_parameters":
        contract(stream, w, x, z, n, memory)
    else:
        dx = blocks_at(addresses["dx"], blocks, fan_in, dtype)
        multiply(stream, dx, w._replace(rows=fan_in), z, memory, PLAIN, dx)
