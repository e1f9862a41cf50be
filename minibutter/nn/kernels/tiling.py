"""Sizes of tiles and cache blocks: data of a run, with defaults from the machine's caches.

Tilings never change a sum (see `gemm`), only how often its parts travel between caches: they are
knobs for experiments on cache traffic and energy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.kernels.tile import TILE_LINES, TILE_ROWS

MAX_TILE_ROWS, MAX_TILE_LINES = 16, 8
MAX_LINES_IN_TILE = 32
"""Beyond these no processor has the registers, and compilation takes minutes."""

MAX_SIZE = 2**31 - 1

_TYPICAL_CACHES = {1: 32 * 2**10, 2: 512 * 2**10, 3: 8 * 2**20}


def read_cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> dict[int, int]:
    """Bytes of the data caches by level, as Linux tells them of the first CPU, to choose blocks by.

    Level 3 is divided by the CPUs that share it. Levels that Linux does not tell get the size of a
    usual server core: blocks must have some size, any will do, and runs store what was used. Who
    says how large the caches of a machine are asks `energy.topology`, which assumes nothing.
    """
    found = dict(_TYPICAL_CACHES)
    for folder in sorted(cpus.glob("cpu0/cache/index*")):
        try:
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            level = int((folder / "level").read_text())
            size = int((folder / "size").read_text().strip().removesuffix("K")) * 2**10
            sharers = _count_cpus((folder / "shared_cpu_list").read_text().strip())
        except (OSError, ValueError):
            continue
        found[level] = size // sharers if level == 3 else size
    return found


def _count_cpus(ranges: str) -> int:
    """CPUs in a list such as 0-3,8."""
    ends = [part.split("-") for part in ranges.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


@dataclass(frozen=True)
class Tiling:
    """Sizes of the register tile and of the cache blocks, in rows and columns of C = A @ B.

    None stands for the default of the machine.

    Attributes
    ----------
    tile_rows : rows of C in registers: units of a layer.
    tile_columns : columns of C in registers, a multiple of a cache line: rows of the batch.
    block_rows, block_depth : of A in a cache block.
    block_columns : of B in a cache block.
    """

    tile_rows: int | None = None
    tile_columns: int | None = None
    block_rows: int | None = None
    block_depth: int | None = None
    block_columns: int | None = None

    def resolved(self, dtype: str, caches: dict[int, int] | None = None) -> "Tiling":
        """The same with the machine's defaults for what is None.

        A panel of B (block_depth x one line) fills three eighths of the first-level cache, a block
        of A (block_rows x block_depth) as much of the second, and a block of B as much of this
        core's share of the third; the rest is for what passes by (Goto & van de Geijn 2008, ACM
        TOMS 34(3), section 6, which takes half).

        Parameters
        ----------
        dtype : "float32" or "float64".
        caches : bytes by level; those of this machine when left out.

        Raises
        ------
        ValueError
            If a size is not a positive number, tile_columns is not a multiple of a cache line, or
            the tile is larger than any processor's registers.
        """
        caches = caches or _CACHES
        size, lanes = np.dtype(dtype).itemsize, lanes_of(dtype)
        for name, value in vars(self).items():
            if value is not None and not (isinstance(value, int) and 1 <= value <= MAX_SIZE):
                raise ValueError(f"{name} is {value}; only 1 to {MAX_SIZE} can be")
        tile_rows = self.tile_rows or TILE_ROWS
        tile_columns = self.tile_columns or TILE_LINES * lanes
        if tile_rows > MAX_TILE_ROWS:
            raise ValueError(f"tile_rows is {tile_rows}; it must be at most {MAX_TILE_ROWS}")
        if tile_columns % lanes or tile_columns > MAX_TILE_LINES * lanes:
            raise ValueError(
                f"tile_columns is {tile_columns}; for {dtype} it must be a multiple of {lanes}, "
                f"a cache line, and at most {MAX_TILE_LINES * lanes}"
            )
        if tile_rows * (tile_columns // lanes) > MAX_LINES_IN_TILE:
            raise ValueError(
                f"tile_rows is {tile_rows} and tile_columns is {tile_columns}; their product, "
                f"{tile_rows * tile_columns}, must be at most {MAX_LINES_IN_TILE * lanes}"
            )
        block_depth = self.block_depth or max(caches[1] * 3 // 8 // (lanes * size), 1)
        block_rows = self.block_rows or _round_up(
            caches[2] * 3 // 8 // (block_depth * size), tile_rows
        )
        block_columns = self.block_columns or _round_up(
            caches[3] * 3 // 8 // (block_depth * size), tile_columns
        )
        return Tiling(tile_rows, tile_columns, block_rows, block_depth, block_columns)


def _round_up(value: int, step: int) -> int:
    return max(-(-value // step), 1) * step


DEFAULT_TILING = Tiling()

_CACHES = read_cache_bytes()
