"""The ceiling of one core: `python -m bench.ceiling` prints the GFLOP/s of float32 and float64.

What is measured, and how, stands in `minibutter.nn.ceiling`; `minibutter machine` shows it beside
the bandwidth of each level of memory.
"""

import os

from minibutter.nn.ceiling import measure_fma_ceiling
from minibutter.nn.kernels.tile import HAS_FMA, VECTOR_BYTES


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
