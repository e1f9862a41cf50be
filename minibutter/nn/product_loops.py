"""The products of the rungs as nests of loops, for `loops`: what moves where, without computing.

Each function describes the kernel of its name in `kernels/gemm.py` or `kernels/tiled.py`. Blocks of
unequal sizes stand by their mean; the rest of a tile is as wide as its mean, too.

Arrays: a, b, c, gate of `multiply`, x, y, c of `contract`, and packed, panels, edge. What follows a
blank in a name is a region of the array that the others do not touch.

Legend: that of `kernels/gemm.py`; s is the size of a number in bytes, Q the number of blocks of the
batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from minibutter.nn.kernels.layout import count_blocks, lanes_of
from minibutter.nn.kernels.tile import LINE_BYTES, VECTOR_BYTES
from minibutter.nn.kernels.tiled import BLOCKS_WORTH_PACKING, next_block
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.loops import Cache, Loop, Margin, Part, Touched, Use, analyse, moved_bytes

L = LINE_BYTES


class Product(NamedTuple):
    """One of the three products of a layer for a batch.

    name is "forward" (z = x w), "backward_parameters" (dw = xᵀ dz) or "backward_input" (dx = dz
    wᵀ); fan_in and fan_out are the layer's, without the constant unit, n the rows of the batch.
    """

    name: str
    fan_in: int
    fan_out: int
    n: int
    dtype: str
    epilogue: str = "plain"  # "relu" or "relu_mask": what happens to the finished sums

    @property
    def flops(self) -> int:
        """Two for every product that is added, the bias's among them; lanes without a row aside."""
        rows = self.fan_in + (self.name != "backward_input")
        return 2 * self.n * rows * self.fan_out


@dataclass(frozen=True)
class Kernel:
    """How products are made.

    Attributes
    ----------
    rung : "naive", "blocked" or "tiled".
    tiling : resolved.
    vector_bytes : of the register tile's vectors.
    """

    rung: str
    tiling: Tiling
    vector_bytes: int = VECTOR_BYTES


class _Shape(NamedTuple):
    """What `multiply` is given."""

    m: int
    d: int
    q: int  # blocks
    row_step: int  # of A, bytes
    column_step: int
    b_block: int  # bytes from block to block
    c_block: int
    s: int
    epilogue: str


def product_loops(product: Product, kernel: Kernel) -> Part:
    """What a product does, part after part.

    Raises
    ------
    ValueError
        If it is not known of the rung.
    """
    if kernel.rung not in _RUNGS:
        raise ValueError(f"kernel is {kernel.rung!r}; loops are known of {', '.join(_RUNGS)}")
    multiply, contract = _RUNGS[kernel.rung]
    fan_in, fan_out, n = product.fan_in, product.fan_out, product.n
    lanes, blocks = lanes_of(product.dtype), count_blocks(n, product.dtype)
    s = L // lanes
    if product.name == "backward_parameters":
        return contract(fan_in + 1, fan_out, n, lanes, s, kernel)
    if product.name == "forward":
        shape = _Shape(
            *(fan_out, fan_in + 1, blocks, s, fan_out * s),
            *((fan_in + 1) * L, (fan_out + 1) * L, s, product.epilogue),
        )
    else:
        shape = _Shape(
            *(fan_in, fan_out, blocks, fan_out * s, s),
            *(fan_out * L, fan_in * L, s, product.epilogue),
        )
    return multiply(shape, kernel)


class Effect(NamedTuple):
    """What a product does.

    Attributes
    ----------
    touched : arrays by name.
    read_bytes, written_bytes : that the processor moves.
    margin : of the working sets that decided, see `loops.Margin`.
    """

    touched: dict[str, Touched]
    read_bytes: float
    written_bytes: float
    margin: float


@lru_cache(maxsize=4096)
def product_effect(product: Product, kernel: Kernel, cache: Cache) -> Effect:
    """What a product does to a cache that is empty before and flushed behind."""
    part, margin = product_loops(product, kernel), Margin()
    touched: dict[str, Touched] = {}
    for region, use in analyse(part, cache, margin).items():
        array = region.partition(" ")[0]
        if array in touched:
            before = touched[array]
            sums = (a + b for a, b in zip(before[:3], use[:3], strict=True))
            use = Touched(*sums, max(before.window, use.window))
        touched[array] = use
    return Effect(touched, *moved_bytes(part), margin.factor)


# ---------------------------------------------------------------------------------------------
# naive and blocked


def _add_products(
    shape: _Shape, i_step: dict, j_step: dict, d: float, of_i: str = "", of_j: str = ""
) -> Loop:
    """For each j: a number of A, a line of B, and a line of C that is read and written.

    Blocks of the depth and of rows, `of_j` and `of_i`, are regions of the arrays.
    """
    a = {name: n * shape.row_step for name, n in i_step.items()}
    a |= {name: n * shape.column_step for name, n in j_step.items()}
    b = {name: n * L for name, n in j_step.items()} | {"q": shape.b_block}
    c = {name: n * L for name, n in i_step.items()} | {"q": shape.c_block}
    return Loop(
        "j",
        d,
        (
            Use(f"a{of_i}{of_j}", shape.s, a, read=shape.s),
            Use(f"b{of_j}", L, b, read=L),
            Use(f"c{of_i}", L, c, read=L, written=L),
        ),
    )


def _finish(shape: _Shape, regions: Sequence[tuple[str, int]] = ()) -> Part:
    """The pass over the finished sums, if they are anything but plain: regions of C and rows."""
    if shape.epilogue == "plain":
        return ()
    steps = {"q": shape.c_block, "i": L}
    rows = []
    for region, m in regions or [("", shape.m)]:
        uses = (Use(f"c{region}", L, steps, read=L, written=L),)
        if shape.epilogue == "relu_mask":
            uses = (Use(f"gate{region}", L, steps, read=L), *uses)
        rows.append(Loop("i", m, uses))
    return (Loop("q", shape.q, tuple(rows)),)


def _multiply_naive(shape: _Shape, kernel: Kernel) -> Part:
    products = _add_products(shape, {"i": 1}, {"j": 1}, shape.d)
    clear = Use("c", L, {"q": shape.c_block, "i": L}, written=L)
    return (Loop("q", shape.q, (Loop("i", shape.m, (clear, products)),)), *_finish(shape))


def _contract_naive(m: int, p: int, n: int, lanes: int, s: int, kernel: Kernel) -> Part:
    blocks = -(-n // lanes)
    rows = n / blocks * s
    row = Loop(
        "q",
        blocks,
        (
            Use("x", L, {"q": m * L, "i": L}, read=rows),
            Use("y", L, {"q": p * L, "k": L}, read=rows),
        ),
    )
    total = Use("c", s, {"i": p * s, "k": s}, written=s)
    return (Loop("i", m, (Loop("k", p, (row, total)),)),)


def _whole_and_rest(length: int, block: int) -> list[tuple[int, int]]:
    """(blocks, length of each): `blocked` cuts whole blocks, and the rest is one more."""
    whole, rest = divmod(length, block)
    return [pair for pair in ((whole, block), (1, rest)) if 0 not in pair]


def _multiply_blocked(shape: _Shape, kernel: Kernel) -> Part:
    parts: list[Loop] = []
    rows_of = _whole_and_rest(shape.m, kernel.tiling.block_rows)
    for n_j, d in _whole_and_rest(shape.d, kernel.tiling.block_depth):
        of_depth = []
        for n_i, m in rows_of:
            of_i, of_j = f" rows of {m}", f" depth of {d}"
            products = _add_products(shape, {"i": 1, "ib": m}, {"j": 1, "jb": d}, d, of_i, of_j)
            is_first = not parts
            clear = Use(
                f"c{of_i}", L, {"q": shape.c_block, "i": L, "ib": m * L}, written=L / n_j * is_first
            )
            rows = Loop("i", m, (clear, products))
            of_depth.append(Loop("ib", n_i, (Loop("q", shape.q, (rows,)),)))
        parts.append(Loop("jb", n_j, tuple(of_depth)))
    regions = [(f" rows of {m}", n_i * m) for n_i, m in rows_of]
    return (*parts, *_finish(shape, regions))


def _contract_blocked(m: int, p: int, n: int, lanes: int, s: int, kernel: Kernel) -> Part:
    blocks = -(-n // lanes)
    in_block = n / blocks * s
    parts: list[Loop] = []
    for n_q, few in _whole_and_rest(blocks, max(kernel.tiling.block_depth // lanes, 1)):
        of_rows = []
        for n_i, units in _whole_and_rest(m, kernel.tiling.block_rows):
            x = {"q": m * L, "qb": few * m * L, "i": L, "ib": units * L}
            y = {"q": p * L, "qb": few * p * L, "k": L}
            row = Loop(
                "q",
                few,
                (
                    Use(f"x rows of {units} {few}", L, x, read=in_block),
                    Use(f"y {few}", L, y, read=in_block),
                ),
            )
            c = {"i": p * s, "ib": units * p * s, "k": s}
            adding = 1 if parts else (n_q - 1) / n_q
            total = Use(f"c rows of {units}", s, c, read=s * adding, written=s)
            of_rows.append(Loop("ib", n_i, (Loop("k", p, (Loop("i", units, (row, total)),)),)))
        parts.append(Loop("qb", n_q, tuple(of_rows)))
    return tuple(parts)


# ---------------------------------------------------------------------------------------------
# tiled


def _count(length: int, block: int) -> int:
    """Blocks of a length, as `tiled.next_block` cuts it."""
    n = 0
    while length > 0:
        length -= next_block(length, block)
        n += 1
    return n


def _groups(blocks: float, m: int, kernel: Kernel, lanes: int) -> float:
    """Groups of lines that the loop over tiles takes at once."""
    rows, lines = kernel.tiling.tile_rows, kernel.tiling.tile_columns // lanes
    widest = lines if m >= rows else rows * lines // m
    return blocks // widest + blocks % widest


def _tiles(
    m: float, blocks: float, groups: float, depth: Loop, rows: float, c: Use, gate: Part
) -> Loop:
    """The loop over tiles: groups of lines, tiles of rows, the depth, and C at the end."""
    lines = blocks / groups

    def of_tile(use: Use) -> Loop:
        return Loop("r", rows, (Loop("l", lines, (use,)),))

    return Loop("g", groups, (Loop("t", m / rows, (depth, *map(of_tile, (*gate, c)))),))


def _multiply_tiled(shape: _Shape, kernel: Kernel) -> Part:
    tiling, s = kernel.tiling, shape.s
    lanes = L // s
    n_j, n_i = _count(shape.d, tiling.block_depth), _count(shape.m, tiling.block_rows)
    packs = (n_j > 1 or n_i > 1) and shape.q >= BLOCKS_WORTH_PACKING
    n_q = -(-shape.q // max(tiling.block_columns // lanes, 1))
    d, m, blocks = shape.d / n_j, shape.m / n_i, shape.q / n_q
    rows = m / -(-m // tiling.tile_rows)
    groups = _groups(round(blocks), round(m), kernel, lanes)
    lines = blocks / groups
    a_blocks = {"ib": m * shape.row_step, "jb": d * shape.column_step}
    if packs:
        a = Use("packed", s, {"r": s, "j": rows * s, "t": d * rows * s}, read=s)
    else:
        steps = {"r": shape.row_step, "t": rows * shape.row_step, "j": shape.column_step}
        a = Use("a", s, a_blocks | steps, read=s)
    b = {"l": shape.b_block, "g": lines * shape.b_block, "qb": blocks * shape.b_block}
    b |= {"j": L, "jb": d * L}
    c = {"l": shape.c_block, "g": lines * shape.c_block, "qb": blocks * shape.c_block}
    c |= {"r": L, "t": rows * L, "ib": m * L}
    depth = Loop("j", d, (Loop("l", lines, (Use("b", L, b, read=L),)), Loop("r", rows, (a,))))
    gate = (Use("gate", L, c, read=L / n_j),) if shape.epilogue == "relu_mask" else ()
    use_c = Use("c", L, c, read=L * (n_j - 1) / n_j, written=L)
    body = (_tiles(m, blocks, groups, depth, rows, use_c, gate),)
    if packs:
        body = (*_pack(shape, kernel, m, d, a_blocks), *body)
    return (Loop("qb", n_q, (Loop("jb", n_j, (Loop("ib", n_i, body),)),)),)


def _pack(shape: _Shape, kernel: Kernel, m: float, d: float, blocks: dict) -> tuple[Loop, ...]:
    """A block of A is copied: whole vectors, or squares of them that are transposed."""
    s, vector = shape.s, kernel.vector_bytes
    side = vector // s
    steps = blocks | {"pi": shape.row_step, "pj": shape.column_step}
    vectors = -(-kernel.tiling.tile_rows // side) * side  # numbers of a tile's column, in vectors
    if shape.row_step == s:
        starts = _tile_starts(shape.m, kernel)
        # Where whole vectors would reach beyond the matrix, numbers are copied one by one.
        copied = sum(vectors if i + vectors <= shape.m else n_rows for i, n_rows in starts)
        moved = copied * s / shape.m
        order = ("pj", d, "pi", m)
    else:
        whole = d // side * side
        copied = sum(-(-n_rows // side) * side for _, n_rows in _tile_starts(shape.m, kernel))
        moved = s * (whole * copied / shape.m + d - whole) / d
        order = ("pi", m, "pj", d)
    a = Use("a", s, steps, read=moved)
    to = Use("packed", s, {"pi": s, "pj": m * s}, written=moved)
    outer, n_outer, inner, n_inner = order
    return (Loop(outer, n_outer, (Loop(inner, n_inner, (a, to)),)),)


def _tile_starts(m: int, kernel: Kernel) -> list[tuple[int, int]]:
    """First row and number of rows of every tile, as `multiply_tiled` cuts m rows."""
    starts, i = [], 0
    while i < m:
        n_rows = next_block(m - i, kernel.tiling.block_rows)
        for first in range(0, n_rows, kernel.tiling.tile_rows):
            starts.append((i + first, min(kernel.tiling.tile_rows, n_rows - first)))
        i += n_rows
    return starts


def _transposed(
    name: str, width: int, units: int, n: int, lanes: int, s: int, kernel: Kernel
) -> Loop:
    """`layout.transpose_blocks`: blocks of an array with so many units become panels."""
    blocks, vector = -(-n // lanes), kernel.vector_bytes
    panels = -(-width // lanes)
    squares = sum(-(-min(lanes, width - p * lanes) * s // vector) for p in range(panels))
    of_panel = width / panels
    moved = squares / panels * vector * lanes  # of a panel and a block
    source = {"p": of_panel * L, "q": units * L, "unit": L}
    target = {"p": blocks * lanes * L, "q": lanes * L, "row": L}
    body = (
        Loop("unit", of_panel, (Use(name, L, source, read=moved / of_panel),)),
        Loop("row", lanes, (Use("panels", L, target, written=moved / lanes),)),
    )
    return Loop("p", panels, (Loop("q", blocks, body),))


def _contract_tiled(m: int, p: int, n: int, lanes: int, s: int, kernel: Kernel) -> Part:
    lines_of_x, lines_of_y = -(-m // lanes), -(-p // lanes)
    if p <= lanes and lines_of_x * (p + lanes // 2) < lines_of_y * (m + lanes // 2):
        # Cᵀ = Σ Y Xᵀ: x is transposed, the rows of the tile are y's units.
        panels = lines_of_x
        tiles = _contract_panels("y", p, p, panels, n, lanes, s, kernel, 1, panels * L, "edge")
        copy = Use("edge", p * panels * L, read=m * p * s)
        result = Use("c", m * p * s, written=m * p * s)
        return (_transposed("x", m, m, n, lanes, s, kernel), tiles, copy, result)
    n_k = -(-lines_of_y // max(kernel.tiling.block_columns // lanes, 1))
    tiles = _contract_panels("x", m, m, lines_of_y, n, lanes, s, kernel, n_k, p * s, "c")
    parts = (_transposed("y", p, p, n, lanes, s, kernel), tiles)
    rest = m * (p % lanes) * s
    if rest:
        edge = Use("edge", m * L, read=rest)
        parts = (*parts, edge, Use("c", m * p * s, written=rest))
    return parts


def _contract_panels(
    name: str,
    m: int,
    units: int,
    panels: int,
    n: int,
    lanes: int,
    s: int,
    kernel: Kernel,
    n_k: int,
    c_row: int,
    c_name: str,
) -> Loop:
    """Tiles whose A are units of blocks, in runs of lanes, and whose B are panels."""
    tiling = kernel.tiling
    blocks = -(-n // lanes)
    n_rows = _count(n, max(tiling.block_depth // lanes, 1) * lanes)
    n_i = _count(m, tiling.block_rows) if c_name == "c" else 1
    few, rows_of_a, width = blocks / n_rows, m / n_i, panels / n_k
    in_lane = n / blocks
    rows = rows_of_a / -(-rows_of_a // tiling.tile_rows)
    groups = _groups(round(width), round(rows_of_a), kernel, lanes)
    lines = width / groups
    panel = blocks * lanes * L
    a = {"lane": s, "q": units * L, "rb": few * units * L}
    a |= {"r": L, "t": rows * L, "ib": rows_of_a * L}
    b = {"lane": L, "q": lanes * L, "rb": few * lanes * L}
    b |= {"l": panel, "g": lines * panel, "kb": width * panel}
    depth = Loop(
        "q",
        few,
        (
            Loop(
                "lane",
                in_lane,
                (
                    Loop("l", lines, (Use("panels", L, b, read=L),)),
                    Loop("r", rows, (Use(name, s, a, read=s),)),
                ),
            ),
        ),
    )
    c = {"r": c_row, "t": rows * c_row, "ib": rows_of_a * c_row}
    c |= {"l": L, "g": lines * L, "kb": width * L}
    use_c = Use(c_name, L, c, read=L * (n_rows - 1) / n_rows, written=L)
    tiles = _tiles(rows_of_a, width, groups, depth, rows, use_c, ())
    return Loop("kb", n_k, (Loop("rb", n_rows, (Loop("ib", n_i, (tiles,)),)),))


_RUNGS = {
    "naive": (_multiply_naive, _contract_naive),
    "blocked": (_multiply_blocked, _contract_blocked),
    "tiled": (_multiply_tiled, _contract_tiled),
}
