"""The register tile: a small block of C held in vector registers while A and B stream past.

A compiler that sees three loops keeps one row of C at a time and loads and stores it for every
product. Here a few rows of C, one or several cache lines wide, stay in registers for the whole sum:
each step over the depth loads as much of one row of B, broadcasts one number of every row of A, and
makes as many fused multiply-adds as there are accumulators. numba cannot say "these values live in
registers", so the tile is emitted as LLVM IR (llvmlite) through an intrinsic: the accumulators are
phi nodes of one loop, the arithmetic is `llvm.fma`. What a layer does to a finished sum (relu, or
the mask of its derivative) happens before the store, while the block is still in registers.

The order of summation is that of the naive rung, one product after the other from j = 0; only the
rounding between multiplication and addition is missing, so every element has one documented value,
whatever the block that it fell into.

Source: the idea is BLIS' micro-kernel (Van Zee & van de Geijn 2015, ACM TOMS 41(3), section 4).
"""

from collections.abc import Iterable
from typing import NamedTuple

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

LINE_BYTES = 64
"""A cache line, the unit of a tile's width: 16 float32 or 8 float64."""

PLAIN, RELU, RELU_MASK = range(3)
"""What happens to a finished sum c: nothing; relu(c); c where the gate is positive, else 0."""


class Lines(NamedTuple):
    """Where the lines of B, C or a gate lie: an address and strides in bytes."""

    start: int
    row_stride: int
    line_stride: int  # between the lines of a row: from a block of the batch to the next


class Numbers(NamedTuple):
    """Where the numbers of A lie: an address and strides in bytes."""

    start: int
    tile_stride: int  # from a tile of rows to the next
    row_stride: int  # within a tile
    column_stride: int  # within a run
    run: int  # columns that lie evenly
    run_stride: int


_BYTE, _INT32, _INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_ROWS_PER_POINTER = 3  # one address register serves rows p, p + s and p + 2 s: x86 scales by 1, 2


def host_features() -> dict[str, bool]:
    """What numba compiles for: the host's features, or those that NUMBA_CPU_FEATURES names."""
    named = numba.config.CPU_FEATURES
    if named is None:
        return dict(llvm.get_host_cpu_features())
    return {flag[1:]: flag[0] == "+" for flag in named.split(",") if flag}


_FEATURES = host_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16
HAS_FMA = bool(_FEATURES.get("fma") or _FEATURES.get("neon"))

# A line is 1, 2 or 4 vectors. Accumulators, a row of B and one broadcast must fit the registers:
# 24 + 4 + 1 of 32 with AVX-512, 12 + 2 + 1 of 16 with AVX2, 8 + 4 + 1 of 16 with SSE. NEON gets as
# many, though it has 32.
TILE_ROWS, TILE_LINES = {64: (6, 4), 32: (6, 1), 16: (2, 1)}[VECTOR_BYTES]


def vector_lanes(like):
    """Numbers of this one's type in a vector register.

    Within kernels it is a constant: loops that count in vectors then need no division, which takes
    longer than what the shortest of them do.
    """
    return VECTOR_BYTES // like.itemsize


@overload(vector_lanes)
def _choose_lanes(like):
    lanes = VECTOR_BYTES * 8 // like.bitwidth
    return lambda like: lanes


class _Emitter:
    """What the parts of a tile share: the builder, the types of its values, the constants."""

    def __init__(self, builder: ir.IRBuilder, scalar: ir.Type, size: int) -> None:
        self.builder = builder
        self.size = size
        self.lanes = VECTOR_BYTES // size
        self.vector = ir.VectorType(scalar, self.lanes)
        self.zero = ir.Constant(self.vector, [scalar(0.0)] * self.lanes)
        self._scalar = scalar

    def pointer(self, address: ir.Value) -> ir.Value:
        """A byte pointer from an integer."""
        return self.builder.inttoptr(address, _BYTE.as_pointer())

    def load_lines(self, start: ir.Value, stride: ir.Value, n_lines: int) -> list[ir.Value]:
        """The vectors of several lines."""
        addresses = self._vectors_of(start, stride, n_lines)
        return [self.builder.load(address, align=self.size) for address in addresses]

    def store_lines(self, vectors: list[ir.Value], start: ir.Value, stride: ir.Value) -> None:
        n_lines = len(vectors) * VECTOR_BYTES // LINE_BYTES
        for vector, address in zip(vectors, self._vectors_of(start, stride, n_lines), strict=True):
            self.builder.store(vector, address, align=self.size)

    def load_broadcast(self, address: ir.Value) -> ir.Value:
        """One number in every lane of a vector."""
        pointer = self.builder.bitcast(address, self._scalar.as_pointer())
        scalar = self.builder.load(pointer, align=self.size)
        return self.splat(scalar, self.lanes)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once where the machine can."""
        if not HAS_FMA:
            return self.builder.fadd(c, self.builder.fmul(a, b))
        function = ir.FunctionType(self.vector, [self.vector] * 3)
        symbol = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        fma = cgutils.get_or_insert_function(self.builder.module, function, symbol)
        return self.builder.call(fma, [a, b, c])

    def where_positive(self, gate: ir.Value, value: ir.Value) -> ir.Value:
        """The value where gate > 0 or NaN, else 0: a run that diverges must show it."""
        is_open = self.builder.fcmp_unordered(">", gate, self.zero)
        return self.builder.select(is_open, value, self.zero)

    def shuffle(self, first: ir.Value, second: ir.Value, picks: Iterable[int]) -> ir.Value:
        """Numbers of two vectors side by side, by their positions."""
        mask = [_INT32(pick) for pick in picks]
        return self.builder.shuffle_vector(
            first, second, ir.Constant(ir.VectorType(_INT32, len(mask)), mask)
        )

    def join(self, parts: list[ir.Value]) -> ir.Value:
        """Vectors one behind the other as one."""
        while len(parts) > 1:
            both = range(2 * parts[0].type.count)
            parts = [self.shuffle(*parts[i : i + 2], both) for i in range(0, len(parts), 2)]
        return parts[0]

    def load_masked(self, address: ir.Value, mask: ir.Value) -> ir.Value:
        """As many numbers as the mask has, 0 where it is false: nothing is read there."""
        count = mask.type.count
        vector = ir.VectorType(self._scalar, count)
        pointer = self.builder.bitcast(address, vector.as_pointer())
        zero = ir.Constant(vector, [self._scalar(0.0)] * count)
        function = ir.FunctionType(vector, [pointer.type, _INT32, mask.type, vector])
        symbol = f"llvm.masked.load.v{count}f{8 * self.size}.p0"
        load = cgutils.get_or_insert_function(self.builder.module, function, symbol)
        return self.builder.call(load, [pointer, _INT32(self.size), mask, zero])

    def splat(self, value: ir.Value, count: int) -> ir.Value:
        """The same number so many times."""
        undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
        first = self.builder.insert_element(undefined, value, _INT32(0))
        return self.shuffle(first, undefined, [0] * count)

    def _vectors_of(self, start: ir.Value, stride: ir.Value, n_lines: int) -> list[ir.Value]:
        lines = [
            self.builder.gep(start, [self.builder.mul(_INT64(line), stride)])
            for line in range(n_lines)
        ]
        return [
            self.builder.bitcast(self.builder.gep(line, [_INT64(offset)]), self.vector.as_pointer())
            for line in lines
            for offset in range(0, LINE_BYTES, VECTOR_BYTES)
        ]


def _emit_rows(
    emit: _Emitter, n_rows: int, n_lines: int, has_lanes: bool, operands: dict[str, ir.Value]
) -> None:
    """Emit a tile of exactly `n_rows` rows: its start, the loops over the depth, its end."""
    builder = emit.builder
    vectors = range(n_lines * LINE_BYTES // VECTOR_BYTES)

    def rows_from(start: ir.Value, stride: ir.Value) -> list[ir.Value]:
        return [builder.gep(start, [builder.mul(_INT64(r), stride)]) for r in range(n_rows)]

    def load_a(address: ir.Value) -> list[ir.Value]:
        if has_lanes:
            return emit.load_lines(address, _INT64(0), n_lines)
        return [emit.load_broadcast(address)] * len(vectors)

    # Start from zero, or from what the blocks of the depth before this one have left in C.
    c_rows = rows_from(emit.pointer(operands["c"].start), operands["c"].row_stride)
    from_zero = builder.block
    with builder.if_then(operands["adds"]):
        earlier = [emit.load_lines(row, operands["c"].line_stride, n_lines) for row in c_rows]
        from_c = builder.block
    sums = [[builder.phi(emit.vector) for _ in vectors] for _ in c_rows]
    for r in range(n_rows):
        for v in vectors:
            sums[r][v].add_incoming(emit.zero, from_zero)
            sums[r][v].add_incoming(earlier[r][v], from_c)

    # Columns of A lie evenly within a run; runs lie evenly, too. Most products have a single run.
    a_start = emit.pointer(operands["a"].start)
    b_start = emit.pointer(operands["b"].start)
    entry = builder.block
    next_run = builder.append_basic_block("tile.run")
    loop = builder.append_basic_block("tile.depth")
    run_done = builder.append_basic_block("tile.run_done")
    behind = builder.append_basic_block("tile.end")
    builder.branch(next_run)

    builder.position_at_end(next_run)
    left = builder.phi(_INT64)
    a_run, b_run = builder.phi(a_start.type), builder.phi(b_start.type)
    run_sums = [[builder.phi(emit.vector) for _ in vectors] for _ in c_rows]
    is_last = builder.icmp_signed("<=", left, operands["a"].run)
    run = builder.select(is_last, left, operands["a"].run)
    a_groups = [
        builder.gep(a_run, [builder.mul(_INT64(r), operands["a"].row_stride)])
        for r in range(0, n_rows, _ROWS_PER_POINTER)
    ]
    builder.branch(loop)

    builder.position_at_end(loop)
    j, b_row = builder.phi(_INT64), builder.phi(b_start.type)
    a_pointers = [builder.phi(a_start.type) for _ in a_groups]
    grown = [[builder.phi(emit.vector) for _ in vectors] for _ in c_rows]
    b_vectors = emit.load_lines(b_row, operands["b"].line_stride, n_lines)
    totals = []
    for r in range(n_rows):
        group, within = divmod(r, _ROWS_PER_POINTER)
        offset = builder.mul(_INT64(within), operands["a"].row_stride)
        a_vectors = load_a(builder.gep(a_pointers[group], [offset]))
        totals.append([emit.multiply_add(a_vectors[v], b_vectors[v], grown[r][v]) for v in vectors])
    j_next = builder.add(j, _INT64(1))
    b_next = builder.gep(b_row, [operands["b"].row_stride])
    a_next = [builder.gep(pointer, [operands["a"].column_stride]) for pointer in a_pointers]
    builder.cbranch(builder.icmp_signed("<", j_next, run), loop, run_done)

    builder.position_at_end(run_done)
    left_next = builder.sub(left, run)
    a_run_next = builder.gep(a_run, [operands["a"].run_stride])
    builder.cbranch(is_last, behind, next_run)

    for phi, at_start, after_run in (
        (left, operands["depth"], left_next),
        (a_run, a_start, a_run_next),
        (b_run, b_start, b_next),
        *((run_sums[r][v], sums[r][v], totals[r][v]) for r in range(n_rows) for v in vectors),
    ):
        phi.add_incoming(at_start, entry)
        phi.add_incoming(after_run, run_done)
    for phi, at_start, after_step in (
        (j, _INT64(0), j_next),
        (b_row, b_run, b_next),
        *zip(a_pointers, a_groups, a_next, strict=True),
        *((grown[r][v], run_sums[r][v], totals[r][v]) for r in range(n_rows) for v in vectors),
    ):
        phi.add_incoming(at_start, next_run)
        phi.add_incoming(after_step, loop)

    # What the layer does to the finished sums.
    builder.position_at_end(behind)
    done = builder.append_basic_block("tile.store")
    ends = {behind: totals}
    choice = builder.switch(operands["epilogue"], done)
    for kind in (RELU, RELU_MASK):
        block = builder.append_basic_block("tile.epilogue")
        choice.add_case(_INT64(kind), block)
        builder.position_at_end(block)
        if kind == RELU:
            gates = totals
        else:
            gate = emit.pointer(operands["gate"].start)
            gates = [
                emit.load_lines(row, operands["gate"].line_stride, n_lines)
                for row in rows_from(gate, operands["gate"].row_stride)
            ]
        ends[block] = [
            [emit.where_positive(gates[r][v], totals[r][v]) for v in vectors] for r in range(n_rows)
        ]
        builder.branch(done)
    builder.position_at_end(done)
    finished = [[builder.phi(emit.vector) for _ in vectors] for _ in c_rows]
    for block, lines in ends.items():
        for r in range(n_rows):
            for v in vectors:
                finished[r][v].add_incoming(lines[r][v], block)
    for row, values in zip(c_rows, finished, strict=True):
        emit.store_lines(values, row, operands["c"].line_stride)


_KEY_BASE = 1000  # more than a tile has lines
_OPERANDS = ("n_rows", "n_lines", "depth", "c", "has_lanes", "a", "b", "adds", "epilogue", "gate")


def _emit_tile(context, builder, signature, arguments):
    """Emit one tile for every shape that may be asked for, and the choice between them."""
    element, most_rows, most_lines = signature.args[0], *(t.count for t in signature.args[1:3])
    operands = dict(zip(_OPERANDS, arguments[3:], strict=True))
    for name, parts in (("a", Numbers), ("b", Lines), ("c", Lines), ("gate", Lines)):
        operands[name] = parts(*cgutils.unpack_tuple(builder, operands[name]))
    emit = _Emitter(builder, context.get_data_type(element), element.bitwidth // 8)
    done = builder.append_basic_block("tile.done")
    # Few rows leave registers free: they take more lines.
    shapes = sorted(
        {
            (n_rows, n_lines)
            for n_rows in range(1, most_rows + 1)
            for n_lines in (1, most_lines, count_lines(n_rows, most_rows, most_lines))
        }
    )
    for has_lanes in (False, True):
        asked = builder.append_basic_block("tile.kind")
        otherwise = builder.append_basic_block("tile.next_kind")
        is_asked = builder.icmp_signed("==", operands["has_lanes"], ir.IntType(1)(has_lanes))
        builder.cbranch(is_asked, asked, otherwise)
        builder.position_at_end(asked)
        key = builder.add(builder.mul(operands["n_rows"], _INT64(_KEY_BASE)), operands["n_lines"])
        choice = builder.switch(key, done)
        for n_rows, n_lines in shapes:
            block = builder.append_basic_block("tile.shape")
            choice.add_case(_INT64(n_rows * _KEY_BASE + n_lines), block)
            builder.position_at_end(block)
            _emit_rows(emit, n_rows, n_lines, has_lanes, operands)
            builder.branch(done)
        builder.position_at_end(otherwise)
    builder.branch(done)
    builder.position_at_end(done)
    return context.get_dummy_value()


def count_lines(n_rows: int, rows: int, lines: int) -> int:
    """Lines of a tile of fewer rows that fills the registers of one of rows x lines."""
    return rows * lines // n_rows


@intrinsic
def tile(
    typing_context,
    like,
    rows,
    lines,
    n_rows,
    n_lines,
    depth,
    c,
    has_lanes,
    a,
    b,
    adds,
    epilogue,
    gate,
):
    """C[i, :] = epilogue(C[i, :] (if `adds`) + Σ_j A[i, j] B[j, :]) for i < n_rows.

    `like` is any number of A's type. The largest tile is part of the types, because the code
    depends on it: `rows` is a tuple as long as it has rows, `lines` one as long as a row has lines.

    Writes: c (`Lines`), n_rows rows of n_lines lines. Reads: a (`Numbers`), n_rows x depth numbers,
    or lines where `has_lanes` says that every lane has a matrix A of its own; b (`Lines`), depth
    rows of n_lines lines; gate (`Lines`), like c, for RELU_MASK.
    1 <= n_rows <= len(rows), n_lines is 1, len(lines) or `count_lines` of these, depth >= 1,
    run >= 1.
    """
    number, flag = types.int64, types.boolean
    scalars = {"n_rows": number, "n_lines": number, "depth": number, "epilogue": number,
               "has_lanes": flag, "adds": flag}  # fmt: skip
    places = {"c": c, "a": a, "b": b, "gate": gate}
    operands = [{**scalars, **places}[name] for name in _OPERANDS]
    return types.void(like, rows, lines, *operands), _emit_tile


def _exchange(emit: _Emitter, vectors: list[ir.Value]) -> list[ir.Value]:
    """Emit the exchange network: every square of as many numbers as there are vectors transposed.

    Vector k gets number k of every square of the others.
    """
    lanes = range(emit.lanes)
    vectors = list(vectors)
    step = 1
    while step < len(vectors):
        # Rows r and r + step swap two corners of every square of 2 step x 2 step numbers.
        upper = [lane if not lane & step else emit.lanes + lane - step for lane in lanes]
        lower = [lane + step if not lane & step else emit.lanes + lane for lane in lanes]
        for r in range(len(vectors)):
            if not r & step:
                pair = vectors[r], vectors[r + step]
                for row, picks in ((r, upper), (r + step, lower)):
                    vectors[row] = emit.shuffle(*pair, picks)
        step *= 2
    return vectors


def _emit_transpose(context, builder, signature, arguments):
    """Emit `transpose_square`, for whole squares and for those with fewer rows on a side."""
    element = signature.args[0]
    emit = _Emitter(builder, context.get_data_type(element), element.bitwidth // 8)
    target, target_stride, n_targets, source, source_stride, n_sources = arguments[1:]

    def rows_of(start: ir.Value, stride: ir.Value, last: ir.Value | None) -> list[ir.Value]:
        """Addresses; rows behind the last are the last."""
        rows = []
        for r in range(emit.lanes):
            row = _INT64(r)
            if last is not None:
                row = builder.select(builder.icmp_signed("<", row, last), row, last)
            address = builder.gep(emit.pointer(start), [builder.mul(row, stride)])
            rows.append(builder.bitcast(address, emit.vector.as_pointer()))
        return rows

    def emit_branch(n_sources: ir.Value | None, n_targets: ir.Value | None) -> None:
        """None stands for a whole side."""
        last_source, last_target = (
            None if n_rows is None else builder.sub(n_rows, _INT64(1))
            for n_rows in (n_sources, n_targets)
        )
        sources = rows_of(source, source_stride, last_source)
        targets = rows_of(target, target_stride, last_target)
        # Targets may overlap: each row's own store is the last to touch it. Of rows that do not
        # exist and fall on the last one, the one that does is stored last.
        order = range(emit.lanes) if n_targets is None else reversed(range(emit.lanes))
        columns = _exchange(emit, [builder.load(row, align=emit.size) for row in sources])
        for row in order:
            builder.store(columns[row], targets[row], align=emit.size)

    has_sources, has_targets = (
        builder.icmp_signed(">=", n_rows, _INT64(emit.lanes)) for n_rows in (n_sources, n_targets)
    )
    with builder.if_else(has_targets) as (whole_targets, fewer_targets):
        with whole_targets, builder.if_else(has_sources) as (whole_sources, fewer_sources):
            with whole_sources:
                emit_branch(None, None)
            with fewer_sources:
                emit_branch(n_sources, None)
        with fewer_targets:
            emit_branch(n_sources, n_targets)
    return context.get_dummy_value()


@intrinsic
def transpose_square(
    typing_context, like, target, target_stride, n_targets, source, source_stride, n_sources
):
    """target[j, i] = source[i, j] for a square as wide as a vector, within registers.

    Addresses and strides between rows in bytes; `like` is any number of their type. Whole
    vectors are read and written, but only n_sources >= 1 rows read and n_targets >= 1 rows written;
    columns of the target behind the n_sources-th hold numbers without meaning. A whole side of
    targets is written first row first, so that rows closer than a vector overwrite such numbers.
    """
    return types.void(like, *[types.int64] * 6), _emit_transpose


def _emit_gather(context, builder, signature, arguments):
    """Emit `gather_square` for 1, 2, 4, ... columns, each whole or with numbers missing."""
    element = signature.args[0]
    emit = _Emitter(builder, context.get_data_type(element), element.bitwidth // 8)
    target, target_stride, n_columns, rows, n_rows, offset = arguments[1:]
    row_pointers = builder.inttoptr(rows, _INT64.as_pointer())
    done = builder.append_basic_block("gather.done")

    def load_row(r: int, columns: int, is_whole: bool) -> ir.Value:
        address = builder.load(builder.gep(row_pointers, [_INT64(r)]), align=8)
        start = builder.gep(emit.pointer(address), [offset])
        if is_whole:
            vector = ir.VectorType(emit.vector.element, columns)
            return builder.load(builder.bitcast(start, vector.as_pointer()), align=emit.size)
        # A row that does not exist has no columns.
        is_row = builder.icmp_signed("<", _INT64(r), n_rows)
        count = builder.select(is_row, builder.trunc(n_columns, _INT32), _INT32(0))
        positions = ir.Constant(ir.VectorType(_INT32, columns), [_INT32(k) for k in range(columns)])
        mask = builder.icmp_signed("<", positions, emit.splat(count, columns))
        return emit.load_masked(start, mask)

    def emit_columns(columns: int, is_whole: bool) -> None:
        loaded = [load_row(r, columns, is_whole) for r in range(emit.lanes)]
        # Rows j, j + columns, j + 2 columns, ... side by side make vector j.
        vectors = [emit.join(loaded[j::columns]) for j in range(columns)]
        last = builder.sub(n_columns, _INT64(1))
        for k, vector in reversed(list(enumerate(_exchange(emit, vectors)))):
            row = _INT64(k)
            if not is_whole:  # columns that are missing are overwritten by the last one
                row = builder.select(builder.icmp_signed("<", row, last), row, last)
            address = builder.gep(emit.pointer(target), [builder.mul(row, target_stride)])
            place = builder.bitcast(address, emit.vector.as_pointer())
            builder.store(vector, place, align=emit.size)

    columns = 1
    has_rows = builder.icmp_signed(">=", n_rows, _INT64(emit.lanes))
    while columns <= emit.lanes:
        fits = builder.icmp_signed("<=", n_columns, _INT64(columns))
        is_widest = columns == emit.lanes
        with builder.if_then(ir.IntType(1)(1) if is_widest else fits):
            comparison = ">=" if is_widest else "=="
            has_columns = builder.icmp_signed(comparison, n_columns, _INT64(columns))
            with builder.if_else(builder.and_(has_columns, has_rows)) as (whole, parts):
                with whole:
                    emit_columns(columns, True)
                with parts:
                    emit_columns(columns, False)
            builder.branch(done)
        columns *= 2
    builder.branch(done)
    builder.position_at_end(done)
    return context.get_dummy_value()


@intrinsic
def gather_square(typing_context, like, target, target_stride, n_columns, rows, n_rows, offset):
    """target[k, r] = row_r[k], r < as many as a vector has, for rows that lie anywhere.

    target, rows and offset (into each row) are addresses and bytes; `rows` is where the addresses
    of the rows stand, int64; `like` is any number of their type. As many columns as a vector
    has, but at most `n_columns`, are written, zeros for rows behind the n_rows-th. Nothing is read
    outside of the rows' n_columns numbers.
    """
    return types.void(like, *[types.int64] * 6), _emit_gather


@intrinsic
def copy_vector(typing_context, like, target, source):
    """Copy one vector between addresses; `like` is any number of their type."""

    def emit_copy(context, builder, signature, arguments):
        element = signature.args[0]
        emit = _Emitter(builder, context.get_data_type(element), element.bitwidth // 8)
        to, of = (
            builder.bitcast(emit.pointer(address), emit.vector.as_pointer())
            for address in arguments[1:]
        )
        builder.store(builder.load(of, align=emit.size), to, align=emit.size)
        return context.get_dummy_value()

    return types.void(like, types.int64, types.int64), emit_copy
