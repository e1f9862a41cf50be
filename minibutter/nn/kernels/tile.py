"""The register tile: a small block of C held in vector registers while A and B stream past.

A compiler that sees three loops keeps one row of C at a time and loads and stores it for every
product. Here a block of `ROWS` x `VECTORS` vectors of C stays in registers for the whole sum: each
step over the depth loads VECTORS vectors of one row of B, broadcasts ROWS numbers of one column of
A, and makes ROWS x VECTORS fused multiply-adds. numba cannot say "these values live in registers",
so the block is emitted as LLVM IR (llvmlite) through an intrinsic: the accumulators are phi nodes
of one loop, the arithmetic is `llvm.fma`, and the last columns are handled by masks.

The order of summation is that of the naive rung, one product after the other from j = 0; only the
rounding between multiplication and addition is missing, so every element has one documented value,
whatever the block that it fell into.

Source: the idea is BLIS' micro-kernel (Van Zee & van de Geijn 2015, ACM TOMS 41(3), section 4).
"""

from functools import partial

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


def _host_features() -> dict[str, bool]:
    """What numba compiles for: the host's features, or those that NUMBA_CPU_FEATURES names."""
    named = numba.config.CPU_FEATURES
    if named is None:
        return dict(llvm.get_host_cpu_features())
    return {flag[1:]: flag[0] == "+" for flag in named.split(",") if flag}


_FEATURES = _host_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16
HAS_FMA = bool(_FEATURES.get("fma") or _FEATURES.get("neon"))

# 32 registers hold 24 accumulators, 4 vectors of B and a broadcast; 16 hold 12, 2 and 1.
ROWS, VECTORS = (6, 4) if VECTOR_BYTES == 64 else (6, 2)


def _splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """A vector with the scalar in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    zeros = ir.Constant(ir.VectorType(_INT32, lanes), [_INT32(0)] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


def _emit(context, builder, signature, arguments, is_masked: bool):
    """Emit one tile: a loop over the depth and the stores behind it."""
    c_type = signature.args[0]
    c, a, b = (
        context.make_array(array_type)(context, builder, value)
        for array_type, value in zip(signature.args[:3], arguments[:3], strict=True)
    )
    depth, n_rows, n_columns = arguments[3:]
    scalar = context.get_data_type(c_type.dtype)
    size = c_type.dtype.bitwidth // 8
    lanes = VECTOR_BYTES // size
    vector = ir.VectorType(scalar, lanes)
    flags = ir.VectorType(ir.IntType(1), lanes)
    name = f"v{lanes}f{8 * size}"
    module = builder.module

    def external(symbol: str, result: ir.Type, *parameters: ir.Type):
        return cgutils.get_or_insert_function(module, ir.FunctionType(result, parameters), symbol)

    pointer = vector.as_pointer()
    masked_load = external(f"llvm.masked.load.{name}.p0", vector, pointer, _INT32, flags, vector)
    masked_store = external(
        f"llvm.masked.store.{name}.p0", ir.VoidType(), vector, pointer, _INT32, flags
    )
    fma = external(f"llvm.fma.{name}", vector, vector, vector, vector)
    zero = ir.Constant(vector, [scalar(0.0)] * lanes)
    alignment = _INT32(size)

    def start_of(array) -> ir.Value:
        return builder.bitcast(array.data, ir.IntType(8).as_pointer())

    def strides_of(array) -> list[ir.Value]:
        return cgutils.unpack_tuple(builder, array.strides)

    def address(base: ir.Value, offset: ir.Value, to: ir.Type) -> ir.Value:
        return builder.bitcast(builder.gep(base, [offset]), to.as_pointer())

    c_row_stride, b_row_stride = strides_of(c)[0], strides_of(b)[0]
    a_row_stride, a_column_stride = strides_of(a)
    c_start, a_start, b_start = start_of(c), start_of(a), start_of(b)

    # Rows beyond the last read the last one again: the loop has no branch, and they are not stored.
    last_row = builder.sub(n_rows, _INT64(1))
    a_rows = []
    for r in range(ROWS):
        is_inside = builder.icmp_signed("<", _INT64(r), last_row)
        row = builder.select(is_inside, _INT64(r), last_row)
        a_rows.append(builder.gep(a_start, [builder.mul(row, a_row_stride)]))
    masks = []
    for v in range(VECTORS):
        columns = ir.Constant(
            ir.VectorType(_INT64, lanes), [_INT64(v * lanes + lane) for lane in range(lanes)]
        )
        masks.append(builder.icmp_signed("<", columns, _splat(builder, n_columns, lanes)))

    entry = builder.block
    loop = builder.append_basic_block("tile.depth")
    behind = builder.append_basic_block("tile.store")
    builder.branch(loop)
    builder.position_at_end(loop)
    j = builder.phi(_INT64, "j")
    j.add_incoming(_INT64(0), entry)
    sums = [[builder.phi(vector) for _ in range(VECTORS)] for _ in range(ROWS)]
    b_row = builder.gep(b_start, [builder.mul(j, b_row_stride)])
    b_vectors = []
    for v in range(VECTORS):
        source = address(b_row, _INT64(v * VECTOR_BYTES), vector)
        if is_masked:
            b_vectors.append(builder.call(masked_load, [source, alignment, masks[v], zero]))
        else:
            b_vectors.append(builder.load(source, align=size))
    a_offset = builder.mul(j, a_column_stride)
    grown: list[list[ir.Value]] = [[] for _ in range(ROWS)]
    for r in range(ROWS):
        a_value = builder.load(address(a_rows[r], a_offset, scalar))
        a_vector = _splat(builder, a_value, lanes)
        for v in range(VECTORS):
            if HAS_FMA:
                total = builder.call(fma, [a_vector, b_vectors[v], sums[r][v]])
            else:
                total = builder.fadd(sums[r][v], builder.fmul(a_vector, b_vectors[v]))
            sums[r][v].add_incoming(zero, entry)
            sums[r][v].add_incoming(total, loop)
            grown[r].append(total)
    next_j = builder.add(j, _INT64(1))
    j.add_incoming(next_j, loop)
    builder.cbranch(builder.icmp_signed("<", next_j, depth), loop, behind)

    builder.position_at_end(behind)
    for r in range(ROWS):
        with builder.if_then(builder.icmp_signed("<", _INT64(r), n_rows)):
            c_row = builder.gep(c_start, [builder.mul(_INT64(r), c_row_stride)])
            for v in range(VECTORS):
                target = address(c_row, _INT64(v * VECTOR_BYTES), vector)
                if is_masked:
                    builder.call(masked_store, [grown[r][v], target, alignment, masks[v]])
                else:
                    builder.store(grown[r][v], target, align=size)
    return context.get_dummy_value()


@intrinsic
def full_tile(typing_context, c, a, b, depth, n_rows, n_columns):
    """C[:n_rows, :width] = A[:n_rows] @ B[:, :width], where all VECTORS x lanes columns exist.

    Writes: c (>= n_rows, >= width), rows contiguous. Reads: a (>= n_rows, depth), any strides,
    b (depth, >= width), rows contiguous. depth >= 1; 1 <= n_rows, rows from the ROWS-th on are left
    alone; int64 all three.
    """
    signature = types.void(c, a, b, types.int64, types.int64, types.int64)
    return signature, partial(_emit, is_masked=False)


@intrinsic
def masked_tile(typing_context, c, a, b, depth, n_rows, n_columns):
    """As `full_tile` for the last columns: only the first n_columns are read and written."""
    signature = types.void(c, a, b, types.int64, types.int64, types.int64)
    return signature, partial(_emit, is_masked=True)
