"""How the products of a run are made: the rung, the tiling, and the memory that they take."""

from functools import cache
from typing import NamedTuple

import numba
import numpy as np

from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.kernels.jit import address_of
from minibutter.nn.kernels.layout import aligned_zeros, count_blocks, lanes_of
from minibutter.nn.kernels.tiled import compile_tiles, multiply_lanes
from minibutter.nn.kernels.tiling import Tiling


class Plan(NamedTuple):
    """How products are made, as the kernels read it. An address that is not needed is 0."""

    multiply: int  # address of the rung's `multiply` for A contiguous along rows
    multiply_transposed: int  # the same for A contiguous along columns
    contract: int  # address of the rung's `contract`
    multiply_lanes: int  # address of `multiply_lanes`
    tiles: int  # address of the loop over register tiles, see `compile_tiles`
    tile_rows: int  # of the register tile
    block_rows: int  # of A in a cache block: units of a layer
    block_depth: int  # of A and B in a cache block
    block_columns: int  # of B in a cache block: rows of the batch, or units for `contract`
    packed: np.ndarray  # (> block_rows * block_depth,): a block of A in the order of its use
    panels: np.ndarray  # (blocks of units, batch, LANES): what `contract` transposes
    edge: np.ndarray  # (>= most fan_in + 1, LANES): a panel of C, or all of Cᵀ, in `contract`
    rows: np.ndarray  # (2, most units, batch): what `blas` copies from and to blocks


def make_plan(
    kernel: str,
    tiling: Tiling,
    dtype: str,
    n_inputs: int,
    widths: tuple[int, ...],
    batch_size: int,
    repetitions: int,
) -> Plan:
    """How products are made, with the memory that a network's layers need for it.

    Compiles what it needs, or loads it from disk.

    Parameters
    ----------
    kernel : a key of `gemm.RUNGS`.
    tiling : may hold None.
    dtype : "float32" or "float64".
    n_inputs, widths, batch_size : the largest products that will be asked for.
    repetitions : how many are trained at once, 1 or LANES.
    """
    tiling = tiling.resolved(dtype)
    lanes = lanes_of(dtype)
    most_inputs = max(n_inputs, *widths) + 1
    batch = count_blocks(batch_size, dtype) * lanes
    # What a rung does not use takes no memory. A rest may make a block half as large again; one
    # larger than any product would be a waste.
    is_tiled, is_blas = kernel == "tiled" and repetitions == 1, kernel == "blas"
    block_rows = min(tiling.block_rows * 3 // 2, most_inputs) + tiling.tile_rows
    block_depth = min(tiling.block_depth * 3 // 2, most_inputs)
    packed_tiles = -(-block_rows // tiling.tile_rows) + 1
    most_panels = count_blocks(most_inputs, dtype)
    packed = block_rows * block_depth + packed_tiles * lanes
    plan = Plan(
        multiply=0,
        multiply_transposed=0,
        contract=0,
        multiply_lanes=0,
        tiles=0,
        tile_rows=tiling.tile_rows,
        block_rows=tiling.block_rows,
        block_depth=tiling.block_depth,
        block_columns=tiling.block_columns,
        packed=aligned_zeros(packed if is_tiled else 1, dtype),
        panels=aligned_zeros((most_panels, batch, lanes) if is_tiled else (1, 1, 1), dtype),
        edge=aligned_zeros((most_panels * lanes, lanes) if is_tiled else (1, 1), dtype),
        rows=aligned_zeros((2, most_inputs, batch) if is_blas else (1, 1, 1), dtype),
    )
    addresses = _compile_products(kernel, dtype, repetitions > 1, numba.typeof(plan))
    if kernel == "tiled":
        addresses |= {"tiles": compile_tiles(dtype, tiling.tile_rows, tiling.tile_columns // lanes)}
    return plan._replace(**addresses)


@cache
def _compile_products(
    kernel: str, dtype: str, has_lanes: bool, plan_type: numba.types.Type
) -> dict[str, int]:
    """Addresses of the products for arrays of this type, by the names of `Plan`'s fields."""
    element, number = numba.typeof(np.dtype(dtype).type(0)), numba.int64
    if has_lanes:
        lines = numba.types.Array(element, 3, "A")
        types = lines, lines, lines, plan_type, number, lines
        return {"multiply_lanes": address_of(multiply_lanes, *types)}
    multiply, contract = RUNGS[kernel]
    blocks = numba.types.Array(element, 3, "C")
    # The tiles go by strides: for them one `multiply` serves either order of A.
    layouts = "AA" if kernel == "tiled" else "CF"
    rows, columns = (numba.types.Array(element, 2, layout) for layout in layouts)
    rest = plan_type, number, blocks
    return {
        "multiply": address_of(multiply, blocks, rows, blocks, *rest),
        "multiply_transposed": address_of(multiply, blocks, columns, blocks, *rest),
        "contract": address_of(contract, rows, blocks, blocks, number, plan_type),
    }
