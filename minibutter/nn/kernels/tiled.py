"""The `tiled` rung: products made of register tiles, with the blocks of the caches around them.

The loop over tiles is compiled once for every shape of tile and called by its address: the shape
decides its machine code, which is long, and behind an address the products need not be compiled
again for another one.

The legend and the order of summation are those of `gemm`.
"""

from functools import cache

import numba
import numpy as np

from minibutter.nn.kernels.jit import address_of, call, kernel
from minibutter.nn.kernels.layout import transpose_blocks
from minibutter.nn.kernels.tile import (
    PLAIN,
    RELU,
    VECTOR_BYTES,
    Lines,
    Numbers,
    copy_vector,
    tile,
    transpose_square,
    vector_lanes,
)

COLUMNS_AT_ONCE = 16
_LEAST_DEPTH = 16  # sums of fewer products spend their time on loading and storing C
BLOCKS_WORTH_PACKING = 4  # a copy of A costs about as much as its product with one block


@cache
def compile_tiles(dtype: str, rows: int, lines: int) -> int:
    """Address of the loop `tiles` for tiles of at most `rows` rows of `lines` cache lines.

    tiles(m, depth, blocks, c, has_lanes, a, b, adds, epilogue, gate) makes
    C_q[i] = epilogue(C_q[i] (if `adds`) + Σ_j A[i, j] B_q[j]) for i < m and q < blocks.
    Writes: c (`Lines`), m rows of every block. Reads: a (`Numbers`), m x depth numbers, or lines
    where `has_lanes`; b (`Lines`), depth >= 1 rows of every block; gate (`Lines`), like c. Blocks
    are `line_stride` apart.
    """
    if numba.config.DISABLE_JIT:
        return 0
    like = np.dtype(dtype).type(0)
    row_shape, line_shape = (0,) * rows, (0,) * lines

    @kernel
    def tiles(m, depth, blocks, c, has_lanes, a, b, adds, epilogue, gate):
        # A block of B, read by all rows of A in turn, stays in the first-level cache.
        q = 0
        widest = lines if m >= rows else rows * lines // m
        while q < blocks:
            n_lines = widest if blocks - q >= widest else 1
            for i in range(0, m, rows):
                a_start = a.start + i // rows * a.tile_stride
                tile(
                    like,
                    row_shape,
                    line_shape,
                    min(rows, m - i),
                    n_lines,
                    depth,
                    move(c, i, q),
                    has_lanes,
                    Numbers(a_start, 0, a.row_stride, a.column_stride, a.run, a.run_stride),
                    move(b, 0, q),
                    adds,
                    epilogue,
                    move(gate, i, q),
                )
            q += n_lines

    number, flag = numba.int64, numba.boolean
    lines_type = numba.typeof(Lines(*[0] * len(Lines._fields)))
    numbers_type = numba.typeof(Numbers(*[0] * len(Numbers._fields)))
    return address_of(
        tiles,
        *(number, number, number, lines_type, flag, numbers_type, lines_type),
        *(flag, number, lines_type),
    )


@kernel
def move(lines, rows, blocks):
    """The same lines from a later row and block on."""
    start = lines.start + rows * lines.row_stride + blocks * lines.line_stride
    return Lines(start, lines.row_stride, lines.line_stride)


@kernel
def _lines(blocks, block, row):
    """Where the lines of an array (blocks, units, lanes) lie from (block, row) on."""
    block_stride, row_stride = np.int64(blocks.strides[0]), np.int64(blocks.strides[1])
    start = np.int64(blocks.ctypes.data) + block * block_stride + row * row_stride
    return Lines(start, row_stride, block_stride)


@kernel
def _pack(plan, a, i_start, i_end, j_start, j_end):
    """Copy a block of A in the order in which the tiles read it.

    Writes: plan.packed (flat): for every tile of rows, column after column; the last tile's columns
    are as far apart as the others', even if it has fewer rows, and numbers without meaning follow.
    Reads: a (m, d), contiguous along rows or columns.

    Whole vectors are copied where the rows of a tile do not fill them: the next column, which is
    copied later, overwrites what is too much.
    """
    if a.strides[0] == a.itemsize:
        _pack_columns(plan, a, i_start, i_end, j_start, j_end)
    else:
        _pack_rows(plan, a, i_start, i_end, j_start, j_end)


@kernel
def _packed_tile(plan, depth):
    """Numbers from a packed tile to the next: its own, and room for what a vector has too much."""
    return depth * plan.tile_rows + vector_lanes(plan.packed.dtype.type(0))


@kernel
def _pack_columns(plan, a, i_start, i_end, j_start, j_end):
    """`_pack` where A is contiguous along columns: each is cut into the tiles' pieces.

    Several columns at a time: one alone would wait for the memory at its start.
    """
    like = a.dtype.type(0)
    rows, side, column_stride = plan.tile_rows, vector_lanes(like), np.int64(a.strides[1])
    size = VECTOR_BYTES // side
    packed = np.int64(plan.packed.ctypes.data)
    tile_size = _packed_tile(plan, j_end - j_start)
    for few in range(j_start, j_end, COLUMNS_AT_ONCE):
        few_end = min(few + COLUMNS_AT_ONCE, j_end)
        tile_start = np.int64(0)
        for i in range(i_start, i_end, rows):
            source = np.int64(a.ctypes.data) + i * size
            is_whole = i + (rows + side - 1) // side * side <= a.shape[0]
            for j in range(few, few_end):
                start = tile_start + (j - j_start) * rows
                if is_whole:
                    for r in range(0, rows, side):
                        target = packed + (start + r) * size
                        copy_vector(like, target, source + j * column_stride + r * size)
                else:
                    for r in range(min(rows, i_end - i)):
                        plan.packed[start + r] = a[i + r, j]
            tile_start += tile_size


@kernel
def _pack_rows(plan, a, i_start, i_end, j_start, j_end):
    """`_pack` where A is contiguous along rows: squares of a tile's rows are transposed."""
    like = a.dtype.type(0)
    rows, side, row_stride = plan.tile_rows, vector_lanes(like), np.int64(a.strides[0])
    size = VECTOR_BYTES // side
    packed = np.int64(plan.packed.ctypes.data)
    depth = j_end - j_start
    tile_size = _packed_tile(plan, depth)
    whole = depth // side * side
    tile_start = np.int64(0)
    for i in range(i_start, i_end, rows):
        n_rows = min(rows, i_end - i)
        source = np.int64(a.ctypes.data) + i * row_stride
        for j in range(0, whole, side):
            start = tile_start + j * rows
            # The last rows first: what they have too much lies in the next column's first rows.
            for r in range((n_rows - 1) // side * side, -1, -side):
                transpose_square(
                    like,
                    packed + (start + r) * size,
                    rows * size,
                    side,
                    source + r * row_stride + (j_start + j) * size,
                    row_stride,
                    n_rows - r,
                )
        for j in range(whole, depth):
            start = tile_start + j * rows
            for r in range(n_rows):
                plan.packed[start + r] = a[i + r, j_start + j]
        tile_start += tile_size


@kernel
def next_block(left, block):
    """Size of the next block; a rest of less than half a block joins the last."""
    return left if 2 * left < 3 * block else block


@kernel
def multiply_tiled(c, a, b, plan, epilogue, gate):
    """As `multiply_naive`, tile by tile, and what the layer does to the finished sums.

    Writes: c (blocks, >= m, lanes). Reads: a (m, d), b (blocks, >= d, lanes), gate (blocks, >= m,
    lanes) for RELU_MASK. Cost: 2 m d flops a lane.

    A larger than one cache block is packed block by block, if there are enough blocks of B to read
    it again: its numbers then lie in the order of their use, and rows whose length is a power of
    two do not compete for the same sets of the cache.
    """
    blocks, lanes = c.shape[0], c.shape[2]
    m, depth = a.shape
    tile_rows, size = plan.tile_rows, np.int64(c.itemsize)
    row_stride, column_stride = np.int64(a.strides[0]), np.int64(a.strides[1])
    is_larger = next_block(m, plan.block_rows) < m or next_block(depth, plan.block_depth) < depth
    packs = is_larger and blocks >= BLOCKS_WORTH_PACKING
    block_columns = max(plan.block_columns // lanes, 1)
    for q in range(0, blocks, block_columns):
        n_blocks = min(block_columns, blocks - q)
        j = np.int64(0)
        while j < depth:
            n_columns = next_block(depth - j, plan.block_depth)
            # Only the last block of the depth finishes the sums.
            last = epilogue if j + n_columns == depth else PLAIN
            i = np.int64(0)
            while i < m:
                n_rows = next_block(m - i, plan.block_rows)
                if packs:
                    _pack(plan, a, i, i + n_rows, j, j + n_columns)
                    start = np.int64(plan.packed.ctypes.data)
                    tile_stride = _packed_tile(plan, n_columns) * size
                    places = Numbers(start, tile_stride, size, tile_rows * size, n_columns, 0)
                else:
                    start = np.int64(a.ctypes.data) + i * row_stride + j * column_stride
                    tile_stride = tile_rows * row_stride
                    places = Numbers(start, tile_stride, row_stride, column_stride, n_columns, 0)
                call(
                    plan.tiles,
                    (
                        n_rows,
                        n_columns,
                        n_blocks,
                        _lines(c, q, i),
                        False,
                        places,
                        _lines(b, q, j),
                        j > 0,
                        last,
                        _lines(gate, q, i),
                    ),
                )
                i += n_rows
            j += n_columns


@kernel
def contract_tiled(c, x, y, n, plan):
    """As `contract_naive`, tile by tile.

    Writes: c (m, p). Reads: x (blocks, >= m, lanes), y (blocks, p, lanes), n: rows.
    Cost: 2 m p n flops.

    The tile wants one of the two along the lanes, which is transposed for it; the other is read
    where it lies. Per row of the batch, a row of a tile costs a cycle and a line that is transposed
    about half a cycle a number.
    """
    m, p = c.shape
    lanes = x.shape[2]
    lines_of_x, lines_of_y = (m + lanes - 1) // lanes, (p + lanes - 1) // lanes
    if p <= lanes and lines_of_x * (p + lanes // 2) < lines_of_y * (m + lanes // 2):
        _contract_transposed(c, x, y, n, plan)
    else:
        _contract(c, x, y, n, plan)


@kernel
def _contract_transposed(c, x, y, n, plan):
    """`contract_tiled` for few columns of C: Cᵀ = Σ_rows Y Xᵀ, whose columns are many."""
    m, p = c.shape
    lanes, size = x.shape[2], np.int64(c.itemsize)
    transpose_blocks(plan.panels, x[:, :m], n)
    panels = (m + lanes - 1) // lanes
    unit_stride, block_stride = lanes * size, np.int64(y.strides[0])
    block_depth = max(plan.block_depth // lanes, 1) * lanes
    ct = Lines(np.int64(plan.edge.ctypes.data), panels * lanes * size, lanes * size)
    row = np.int64(0)
    while row < n:
        n_rows = next_block(n - row, block_depth)
        start = np.int64(y.ctypes.data) + row // lanes * block_stride
        tile_stride = plan.tile_rows * unit_stride
        places = Numbers(start, tile_stride, unit_stride, size, lanes, block_stride)
        b = _lines(plan.panels, 0, row)
        call(plan.tiles, (p, n_rows, panels, ct, False, places, b, row > 0, PLAIN, ct))
        row += n_rows
    edge = plan.edge.reshape(plan.edge.size)
    for i in range(m):
        for k in range(p):
            c[i, k] = edge[k * panels * lanes + i]


@kernel
def _contract(c, x, y, n, plan):
    """`contract_tiled` with y transposed, so that the columns of C lie along the lanes.

    The last columns of C that do not fill a line take a detour.
    """
    m, p = c.shape
    lanes, size = x.shape[2], np.int64(c.itemsize)
    transpose_blocks(plan.panels, y[:, :p], n)
    block_depth = max(plan.block_depth // lanes, 1) * lanes
    whole_panels = p // lanes
    panels = whole_panels + (1 if p % lanes else 0)
    in_place = Lines(np.int64(c.ctypes.data), p * size, lanes * size)
    edge = Lines(np.int64(plan.edge.ctypes.data), lanes * size, 0)
    unit_stride, block_stride = lanes * size, np.int64(x.strides[0])
    block_columns = max(plan.block_columns // lanes, 1)
    for k in range(0, panels, block_columns):
        n_panels = min(block_columns, panels - k)
        n_whole = min(n_panels, whole_panels - k)
        row = np.int64(0)
        while row < n:
            n_rows = next_block(n - row, block_depth)
            i = np.int64(0)
            while i < m:
                n_units = next_block(m - i, plan.block_rows)
                start = np.int64(x.ctypes.data) + row // lanes * block_stride + i * unit_stride
                tile_stride = plan.tile_rows * unit_stride
                places = Numbers(start, tile_stride, unit_stride, size, lanes, block_stride)
                b = _lines(plan.panels, k, row)
                call(
                    plan.tiles,
                    (
                        n_units,
                        n_rows,
                        n_whole,
                        move(in_place, i, k),
                        False,
                        places,
                        b,
                        row > 0,
                        PLAIN,
                        in_place,
                    ),
                )
                if n_whole < n_panels:
                    call(
                        plan.tiles,
                        (
                            n_units,
                            n_rows,
                            1,
                            move(edge, i, 0),
                            False,
                            places,
                            move(b, 0, n_whole),
                            row > 0,
                            PLAIN,
                            edge,
                        ),
                    )
                i += n_units
            row += n_rows
    for i in range(m):
        for k in range(whole_panels * lanes, p):
            c[i, k] = plan.edge[i, k - whole_panels * lanes]


@kernel
def multiply_lanes(c, a, b, plan, epilogue, gate):
    """C_q[i, r] = Σ_j A[i, j, r] B_q[j, r]: a product of its own in every lane, tiled.

    The rounding is that of `multiply_tiled`, so that packed repetitions have the bits of single
    runs. Any strides, but the lanes are contiguous: with axes exchanged, the same function
    multiplies x by w (A = wᵀ), dz by wᵀ (A = w) and x by dz (A = xᵀ, the blocks are units).

    Writes: c (blocks, >= m, lanes). Reads: a (m, d, lanes), b (blocks, >= d, lanes), gate like c
    for RELU_MASK. Cost: 2 m d flops a block and lane.
    """
    m, depth = a.shape[:2]
    blocks = c.shape[0]
    row_stride, column_stride = np.int64(a.strides[0]), np.int64(a.strides[1])
    # Lines of A are read once for every block: as much of the depth at a time as stays nearby.
    block_depth = max(plan.block_depth // (m + blocks), _LEAST_DEPTH)
    j = np.int64(0)
    while j < depth:
        n_columns = next_block(depth - j, block_depth)
        start = np.int64(a.ctypes.data) + j * column_stride
        call(
            plan.tiles,
            (
                m,
                n_columns,
                blocks,
                _lines(c, 0, 0),
                True,
                Numbers(
                    start,
                    plan.tile_rows * row_stride,
                    row_stride,
                    column_stride,
                    n_columns,
                    0,
                ),
                _lines(b, 0, j),
                j > 0,
                epilogue if j + n_columns == depth else PLAIN,
                _lines(gate, 0, 0),
            ),
        )
        j += n_columns


if numba.config.DISABLE_JIT:
    # Plain Python has no registers and no addresses: the same sums, with every product rounded.
    def multiply_tiled(c, a, b, plan, epilogue, gate):
        multiply_lanes(c, a[:, :, None], b, plan, epilogue, gate)

    def contract_tiled(c, x, y, n, plan):
        lanes = x.shape[2]
        c[:] = 0
        for row in range(n):
            q, lane = divmod(row, lanes)
            c += x[q, : len(c), lane, None] * y[q, : c.shape[1], lane]

    def multiply_lanes(c, a, b, plan, epilogue, gate):
        m, depth = a.shape[:2]
        sums = np.zeros_like(c[:, :m])
        for j in range(depth):
            sums += a[:, j] * b[:, j, None]
        gates = sums if epilogue == RELU else gate[:, :m]
        c[:, :m] = sums if epilogue == PLAIN else np.where(gates <= 0, 0, sums)
