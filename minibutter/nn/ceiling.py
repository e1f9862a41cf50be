"""What one core can do at most: arithmetic on registers, and reading from each level of memory.

`measure_fma_ceiling` gives GFLOP/s of fused multiply-adds on numbers that never leave the
registers. Twelve accumulators are multiplied and added to without end; none waits for another, so
the chains hide the latency of the instruction (on a core with two units of 4 cycles each, eight
would do), and nothing is loaded or stored. A matrix product can come close to this figure and never
above it. Where the machine has no fused multiply-add, it is a multiplication and an addition, which
also count as two operations.

`measure_read_bandwidth` gives GB/s of reading a working set over and over, line after line, as
hardware prefetchers like it. Which level of memory that is follows from the size: half a cache
stays in it, four times the last one comes from memory.

Vector width and features are those of `minibutter.nn.kernels.tile`, which the kernels use.
"""

import statistics
import time
from functools import reduce

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.tile import HAS_FMA, VECTOR_BYTES

CHAINS = 12
"""With factor and summand 14 registers; AVX2 has 16."""

TURNS = 2**20
"""Of one sample, some 2 ms: far above the clock's resolution, below a scheduler's slice."""

SAMPLES = 9


def _emit(context, builder, signature, arguments):
    """The loop: `CHAINS` vectors as phi nodes, each `sum = sum * factor + summand`."""
    factor, summand, turns = arguments
    dtype = signature.args[0]
    scalar, lanes = context.get_data_type(dtype), VECTOR_BYTES * 8 // dtype.bitwidth
    vector = ir.VectorType(scalar, lanes)
    int32, int64 = ir.IntType(32), ir.IntType(64)
    fma_type = ir.FunctionType(vector, [vector] * 3)
    name = f"llvm.fma.v{lanes}f{dtype.bitwidth}"
    fma = cgutils.get_or_insert_function(builder.module, fma_type, name) if HAS_FMA else None

    def splat(value: ir.Value) -> ir.Value:
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, value, int32(0))
        zeros = ir.Constant(ir.VectorType(int32, lanes), [int32(0)] * lanes)
        return builder.shuffle_vector(first, undefined, zeros)

    factors, summands = splat(factor), splat(summand)
    entry, loop, behind = _open_loop(builder, "ceiling")
    turn = builder.phi(int64)
    sums = [builder.phi(vector) for _ in range(CHAINS)]
    if HAS_FMA:
        grown = [builder.call(fma, [total, factors, summands]) for total in sums]
    else:
        grown = [builder.fadd(builder.fmul(total, factors), summands) for total in sums]
    for chain in range(CHAINS):
        # Chains that start alike would be one to the compiler.
        sums[chain].add_incoming(ir.Constant(vector, [scalar(float(chain))] * lanes), entry)
        sums[chain].add_incoming(grown[chain], loop)
    next_turn = builder.add(turn, int64(1))
    turn.add_incoming(int64(0), entry)
    turn.add_incoming(next_turn, loop)
    builder.cbranch(builder.icmp_signed("<", next_turn, turns), loop, behind)

    builder.position_at_end(behind)
    return _add_lanes(builder, grown, builder.fadd)


def _open_loop(builder, name):
    """The blocks before, in and behind a loop that runs at least once; building goes on in it."""
    entry = builder.block
    loop, behind = (builder.append_basic_block(f"{name}.{part}") for part in ("loop", "behind"))
    builder.branch(loop)
    builder.position_at_end(loop)
    return entry, loop, behind


def _add_lanes(builder, vectors, add):
    """The sum of all lanes of all vectors: what nobody reads would not be computed."""
    total = reduce(add, vectors)
    lanes = range(total.type.count)
    return reduce(add, [builder.extract_element(total, ir.IntType(32)(lane)) for lane in lanes])


@intrinsic
def _multiply_add(typing_context, factor, summand, turns):
    """Sum of all chains after that many turns; scalars of one float type and an int64."""
    return factor(factor, summand, types.int64), _emit


@kernel
def run_chains(factor, summand, turns):
    """Sum of all lanes of all chains after `turns` times x = x * factor + summand, chain c from c.

    Takes two scalars of one float type and an int; returns a scalar of that type.
    """
    return _multiply_add(factor, summand, turns)


def count_flops(dtype: str) -> int:
    """Operations of one sample, a multiplication and an addition in every lane of every chain."""
    return 2 * TURNS * CHAINS * (VECTOR_BYTES // np.dtype(dtype).itemsize)


def measure_fma_ceiling(dtype: str = "float32", samples: int = SAMPLES) -> float:
    """GFLOP/s of one core, the best of some samples of about 2 ms.

    The best and not the median, because it is to be a ceiling: an interrupted sample says nothing
    about the core.
    """
    scalar = np.dtype(dtype).type
    # Each chain converges to 2: no overflow and no subnormal number slows the arithmetic down.
    arguments = scalar(0.5), scalar(1.0), TURNS
    run_chains(*arguments)
    durations_s = []
    for _ in range(samples):
        begun_s = time.perf_counter()
        total = run_chains(*arguments)
        durations_s.append(time.perf_counter() - begun_s)
        lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
        assert total == 2 * CHAINS * lanes, f"the chains do not add up: {total}"
    return count_flops(dtype) / min(durations_s) / 1e9


# ---------------------------------------------------------------------------------------------
# Reading

UNROLLED = 8
"""Vectors that one turn of the loop reads, each into a sum of its own."""

STEP_BYTES = UNROLLED * VECTOR_BYTES
LINE_BYTES = 64

SAMPLE_S = 0.02
"""Of reading; long against an interrupt, short against a change of the clock rate."""


def _emit_sum(context, builder, signature, arguments):
    """The loop: `UNROLLED` vectors are loaded and added to as many integer sums."""
    start, end = arguments
    int64 = ir.IntType(64)
    lanes = VECTOR_BYTES // 8
    vector = ir.VectorType(int64, lanes)
    zero = ir.Constant(vector, [int64(0)] * lanes)
    entry, loop, behind = _open_loop(builder, "reading")
    address = builder.phi(int64)
    sums = [builder.phi(vector) for _ in range(UNROLLED)]
    grown = []
    for n, total in enumerate(sums):
        place = builder.add(address, int64(n * VECTOR_BYTES))
        line = builder.load(builder.inttoptr(place, vector.as_pointer()), align=8)
        grown.append(builder.add(total, line))
    for total, new in zip(sums, grown, strict=True):
        total.add_incoming(zero, entry)
        total.add_incoming(new, loop)
    following = builder.add(address, int64(STEP_BYTES))
    address.add_incoming(start, entry)
    address.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, end), loop, behind)

    builder.position_at_end(behind)
    return _add_lanes(builder, grown, builder.add)


@intrinsic
def _sum_bytes(typing_context, start, end):
    """Sum of the int64 between two addresses, whole steps apart."""
    return types.int64(types.int64, types.int64), _emit_sum


@kernel
def sum_passes(start, end, passes):
    """Sum of the int64 from one address to another, read as often as `passes` says.

    Takes two addresses, `STEP_BYTES` or a multiple of it apart, and an int; returns an int64 that
    wraps.
    """
    total = 0
    for _ in range(passes):
        total += _sum_bytes(start, end)
    return total


def measure_read_bandwidth(working_set_bytes: int, samples: int = SAMPLES) -> float:
    """GB/s at which one core reads a working set again and again: the median of some samples.

    Every sample is checked: the sum of what was read must be the sum of what stands there.

    Parameters
    ----------
    working_set_bytes : rounded down to whole steps of 512 bytes or less.
    samples : of some 20 ms each.

    Raises
    ------
    ValueError
        If the working set is smaller than a step.
    MemoryError
        If there is no room for it.
    """
    n_bytes = working_set_bytes // STEP_BYTES * STEP_BYTES
    if n_bytes == 0:
        raise ValueError(
            f"working_set_bytes is {working_set_bytes}; it must be at least {STEP_BYTES}"
        )
    memory = np.ones((n_bytes + LINE_BYTES) // 8, dtype=np.int64)
    start = -(-memory.ctypes.data // LINE_BYTES) * LINE_BYTES
    _time_passes(start, n_bytes, 1)  # compiles, if need be, and fetches the working set
    passes = 1
    for _ in range(2):  # A single pass over a small set is over before the clock notices.
        duration_s = _time_passes(start, n_bytes, passes)
        passes = max(1, int(passes * SAMPLE_S / duration_s))
    durations_s = [_time_passes(start, n_bytes, passes) for _ in range(samples)]
    return n_bytes * passes / statistics.median(durations_s) / 1e9


def _time_passes(start: int, n_bytes: int, passes: int) -> float:
    begun_s = time.perf_counter()
    total = sum_passes(start, start + n_bytes, passes)
    duration_s = time.perf_counter() - begun_s
    assert total == n_bytes // 8 * passes, f"not everything was read: {total}"
    return duration_s
