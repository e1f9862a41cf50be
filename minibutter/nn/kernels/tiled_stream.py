"""What the `tiled` rung reads and writes: the loops of `tiled`, see `gemm_stream`.

The tile loads a row of B and a number of every row of A in each step over the depth, and C only
before the sum, where it adds to an earlier one, and after. Squares that are transposed are read and
written a vector at a time; rows behind the last are the last, as in `tile.transpose_square`.
"""

from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.stream import at, load, number_at, store
from minibutter.nn.kernels.tile import LINE_BYTES, PLAIN, RELU_MASK, Lines, Numbers
from minibutter.nn.kernels.tiled import (
    BLOCKS_WORTH_PACKING,
    COLUMNS_AT_ONCE,
    move,
    next_block,
)


@kernel
def _tile(stream, n_rows, n_lines, depth, c, a, b, size, adds, epilogue, gate):
    """Accesses of `tile.tile`. c, b, gate: `Lines`, a: `Numbers`."""
    vector = stream.vector_bytes
    if adds:
        for r in range(n_rows):
            _load_lines(stream, c.start + r * c.row_stride, c.line_stride, n_lines, vector)
    a_run, b_row = a.start, b.start
    left = depth
    while left > 0:
        for j in range(min(left, a.run)):
            _load_lines(stream, b_row, b.line_stride, n_lines, vector)
            for r in range(n_rows):
                load(stream, a_run + r * a.row_stride + j * a.column_stride, size)
            b_row += b.row_stride
        left -= a.run
        a_run += a.run_stride
    if epilogue == RELU_MASK:
        for r in range(n_rows):
            _load_lines(stream, gate.start + r * gate.row_stride, gate.line_stride, n_lines, vector)
    for r in range(n_rows):
        for line in range(n_lines):
            start = c.start + r * c.row_stride + line * c.line_stride
            for offset in range(0, LINE_BYTES, vector):
                store(stream, start + offset, vector)


@kernel
def _load_lines(stream, start, line_stride, n_lines, vector):
    for line in range(n_lines):
        for offset in range(0, LINE_BYTES, vector):
            load(stream, start + line * line_stride + offset, vector)


@kernel
def _tiles(stream, memory, m, depth, blocks, c, a, b, size, adds, epilogue, gate):
    """Accesses of the loop over tiles, see `tiled.compile_tiles`."""
    rows, lines = memory.tile_rows, memory.tile_lines
    q = 0
    widest = lines if m >= rows else rows * lines // m
    while q < blocks:
        n_lines = widest if blocks - q >= widest else 1
        for i in range(0, m, rows):
            a_start = a.start + i // rows * a.tile_stride
            _tile(
                stream,
                min(rows, m - i),
                n_lines,
                depth,
                move(c, i, q),
                Numbers(a_start, 0, a.row_stride, a.column_stride, a.run, a.run_stride),
                move(b, 0, q),
                size,
                adds,
                epilogue,
                move(gate, i, q),
            )
        q += n_lines


@kernel
def _lines(blocks, block, row):
    """Where the lines of an array lie from (block, row) on."""
    return Lines(at(blocks, block, row), blocks.unit_stride, blocks.block_stride)


@kernel
def _packed_tile(stream, memory, depth, size):
    return depth * memory.tile_rows + stream.vector_bytes // size


@kernel
def _pack(stream, memory, a, i_start, i_end, j_start, j_end):
    """Accesses of `tiled._pack`: a block of A is read, and written in the order of its use."""
    if a.row_stride == a.size:
        _pack_columns(stream, memory, a, i_start, i_end, j_start, j_end)
    else:
        _pack_rows(stream, memory, a, i_start, i_end, j_start, j_end)


@kernel
def _pack_columns(stream, memory, a, i_start, i_end, j_start, j_end):
    rows, size = memory.tile_rows, a.size
    side = stream.vector_bytes // size
    tile_size = _packed_tile(stream, memory, j_end - j_start, size)
    for few in range(j_start, j_end, COLUMNS_AT_ONCE):
        few_end = min(few + COLUMNS_AT_ONCE, j_end)
        for i in range(i_start, i_end, rows):
            is_whole = i + (rows + side - 1) // side * side <= a.rows
            for j in range(few, few_end):
                start = (i - i_start) // rows * tile_size + (j - j_start) * rows
                if is_whole:
                    for r in range(0, rows, side):
                        load(stream, number_at(a, i + r, j), stream.vector_bytes)
                        store(stream, memory.packed + (start + r) * size, stream.vector_bytes)
                else:
                    for r in range(min(rows, i_end - i)):
                        load(stream, number_at(a, i + r, j), size)
                        store(stream, memory.packed + (start + r) * size, size)


@kernel
def _pack_rows(stream, memory, a, i_start, i_end, j_start, j_end):
    rows, size = memory.tile_rows, a.size
    side = stream.vector_bytes // size
    depth = j_end - j_start
    tile_size = _packed_tile(stream, memory, depth, size)
    whole = depth // side * side
    for i in range(i_start, i_end, rows):
        n_rows = min(rows, i_end - i)
        for j in range(0, whole, side):
            start = (i - i_start) // rows * tile_size + j * rows
            for r in range((n_rows - 1) // side * side, -1, -side):
                _transpose_square(
                    stream,
                    memory.packed + (start + r) * size,
                    rows * size,
                    side,
                    number_at(a, i + r, j_start + j),
                    a.row_stride,
                    n_rows - r,
                    size,
                )
        for j in range(whole, depth):
            start = (i - i_start) // rows * tile_size + j * rows
            for r in range(n_rows):
                load(stream, number_at(a, i + r, j_start + j), size)
                store(stream, memory.packed + (start + r) * size, size)


@kernel
def _transpose_square(
    stream, target, target_stride, n_targets, source, source_stride, n_sources, size
):
    """Accesses of `tile.transpose_square`."""
    side = stream.vector_bytes // size
    for r in range(side):
        load(stream, source + min(r, n_sources - 1) * source_stride, stream.vector_bytes)
    for r in range(side):
        store(stream, target + min(r, n_targets - 1) * target_stride, stream.vector_bytes)


@kernel
def _transpose_blocks(stream, panels, blocks, width, n):
    """Accesses of `layout.transpose_blocks` to the first `width` units."""
    lanes, size = blocks.lanes, blocks.size
    side = stream.vector_bytes // size
    for p in range((width + lanes - 1) // lanes):
        n_units = min(lanes, width - p * lanes)
        for q in range((n + lanes - 1) // lanes):
            for j in range(0, lanes, side):
                for i in range(0, n_units, side):
                    _transpose_square(
                        stream,
                        at(panels, p, q * lanes + j) + i * size,
                        panels.unit_stride,
                        lanes - j,
                        at(blocks, q, p * lanes + i) + j * size,
                        blocks.unit_stride,
                        n_units - i,
                        size,
                    )


@kernel
def multiply_tiled(stream, c, a, b, memory, epilogue, gate):
    """Accesses of `tiled.multiply_tiled`. c, b, gate: `Blocks`, a: `Matrix`."""
    blocks, lanes = c.blocks, c.lanes
    m, depth = a.rows, a.columns
    tile_rows, size = memory.tile_rows, c.size
    is_larger = (
        next_block(m, memory.block_rows) < m or next_block(depth, memory.block_depth) < depth
    )
    packs = is_larger and blocks >= BLOCKS_WORTH_PACKING
    block_columns = max(memory.block_columns // lanes, 1)
    for q in range(0, blocks, block_columns):
        n_blocks = min(block_columns, blocks - q)
        j = 0
        while j < depth:
            n_columns = next_block(depth - j, memory.block_depth)
            last = epilogue if j + n_columns == depth else PLAIN
            i = 0
            while i < m:
                n_rows = next_block(m - i, memory.block_rows)
                if packs:
                    _pack(stream, memory, a, i, i + n_rows, j, j + n_columns)
                    tile_stride = _packed_tile(stream, memory, n_columns, size) * size
                    places = Numbers(
                        memory.packed, tile_stride, size, tile_rows * size, n_columns, 0
                    )
                else:
                    places = Numbers(
                        number_at(a, i, j),
                        tile_rows * a.row_stride,
                        a.row_stride,
                        a.column_stride,
                        n_columns,
                        0,
                    )
                _tiles(
                    stream,
                    memory,
                    n_rows,
                    n_columns,
                    n_blocks,
                    _lines(c, q, i),
                    places,
                    _lines(b, q, j),
                    size,
                    j > 0,
                    last,
                    _lines(gate, q, i),
                )
                i += n_rows
            j += n_columns


@kernel
def contract_tiled(stream, c, x, y, n, memory):
    """Accesses of `tiled.contract_tiled`. c: `Matrix`, x, y: `Blocks`."""
    m, p, lanes = c.rows, c.columns, x.lanes
    lines_of_x, lines_of_y = (m + lanes - 1) // lanes, (p + lanes - 1) // lanes
    if p <= lanes and lines_of_x * (p + lanes // 2) < lines_of_y * (m + lanes // 2):
        _contract_transposed(stream, c, x, y, n, memory)
    else:
        _contract(stream, c, x, y, n, memory)


@kernel
def _numbers_of(blocks, memory, row, unit):
    """Units as rows of A, from (row of the batch, unit) on, in runs of a block's lanes."""
    return Numbers(
        at(blocks, row // blocks.lanes, unit),
        memory.tile_rows * blocks.unit_stride,
        blocks.unit_stride,
        blocks.size,
        blocks.lanes,
        blocks.block_stride,
    )


@kernel
def _contract_transposed(stream, c, x, y, n, memory):
    m, p, lanes, size = c.rows, c.columns, x.lanes, x.size
    panels = (m + lanes - 1) // lanes
    _transpose_blocks(stream, memory.panels, x, m, n)
    block_depth = max(memory.block_depth // lanes, 1) * lanes
    ct = Lines(memory.edge.start, panels * lanes * size, lanes * size)
    row = 0
    while row < n:
        n_rows = next_block(n - row, block_depth)
        a, b = _numbers_of(y, memory, row, 0), _lines(memory.panels, 0, row)
        _tiles(stream, memory, p, n_rows, panels, ct, a, b, size, row > 0, PLAIN, ct)
        row += n_rows
    for i in range(m):
        for k in range(p):
            load(stream, memory.edge.start + (k * panels * lanes + i) * size, size)
            store(stream, number_at(c, i, k), size)


@kernel
def _contract(stream, c, x, y, n, memory):
    m, p, lanes, size = c.rows, c.columns, x.lanes, x.size
    _transpose_blocks(stream, memory.panels, y, p, n)
    block_depth = max(memory.block_depth // lanes, 1) * lanes
    whole_panels = p // lanes
    panels = whole_panels + (1 if p % lanes else 0)
    in_place = Lines(c.start, p * size, lanes * size)
    edge = Lines(memory.edge.start, lanes * size, 0)
    block_columns = max(memory.block_columns // lanes, 1)
    for k in range(0, panels, block_columns):
        n_panels = min(block_columns, panels - k)
        n_whole = min(n_panels, whole_panels - k)
        row = 0
        while row < n:
            n_rows = next_block(n - row, block_depth)
            i = 0
            while i < m:
                n_units = next_block(m - i, memory.block_rows)
                a, b = _numbers_of(x, memory, row, i), _lines(memory.panels, k, row)
                c_lines = move(in_place, i, k)
                adds = row > 0
                _tiles(
                    *(stream, memory, n_units, n_rows, n_whole, c_lines, a, b),
                    *(size, adds, PLAIN, in_place),
                )
                if n_whole < n_panels:
                    b, c_lines = move(b, 0, n_whole), move(edge, i, 0)
                    _tiles(
                        *(stream, memory, n_units, n_rows, 1, c_lines, a, b),
                        *(size, adds, PLAIN, edge),
                    )
                i += n_units
            row += n_rows
    for i in range(m):
        for k in range(whole_panels * lanes, p):
            load(stream, number_at(memory.edge, i, k - whole_panels * lanes), size)
            store(stream, number_at(c, i, k), size)
