"""What one core can do at most: fused multiply-adds on numbers that never leave the registers.

`python -m bench.ceiling` prints the GFLOP/s of float32 and float64. Twelve accumulators are
multiplied and added to without end; none waits for another, so the chains hide the latency of the
instruction (on a core with two units of 4 cycles each, eight would do), and nothing is loaded or
stored. A matrix product can come close to this figure and never above it. Where the machine has no
fused multiply-add, it is a multiplication and an addition, which also count as two operations.

Vector width and features are those of `minibutter.nn.kernels.tile`, which the kernels use.
"""

import os
import time

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

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
    entry = builder.block
    loop, behind = (builder.append_basic_block(f"ceiling.{part}") for part in ("loop", "behind"))
    builder.branch(loop)
    builder.position_at_end(loop)
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

    # What nobody reads would not be computed.
    builder.position_at_end(behind)
    total = grown[0]
    for chain in grown[1:]:
        total = builder.fadd(total, chain)
    result = builder.extract_element(total, int32(0))
    for lane in range(1, lanes):
        result = builder.fadd(result, builder.extract_element(total, int32(lane)))
    return result


@intrinsic
def _multiply_add(typing_context, factor, summand, turns):
    """Sum of all chains after that many turns; scalars of one float type and an int64."""
    return factor(factor, summand, types.int64), _emit


@numba.njit(nogil=True)
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


def main() -> None:
    """Measure on one pinned core and print a line."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ceilings = {dtype: measure_fma_ceiling(dtype, samples=101) for dtype in ("float32", "float64")}
    operation = "fused multiply-add" if HAS_FMA else "multiply and add"
    print(
        f"{operation} on vectors of {VECTOR_BYTES} bytes: "
        + ", ".join(f"{value:.1f} GFLOP/s {dtype}" for dtype, value in ceilings.items())
    )


if __name__ == "__main__":
    main()
