"""Products of a layer as `bench.cachegrind` runs them: compiled loops that load from disk."""

from collections.abc import Callable

import numpy as np

from minibutter.nn.kernels.jit import call, kernel
from minibutter.nn.kernels.layout import aligned_zeros, count_blocks, lanes_of
from minibutter.nn.kernels.plan import make_plan
from minibutter.nn.kernels.tile import PLAIN
from minibutter.nn.kernels.tiling import Tiling


@kernel
def _repeat_multiply(repeats, multiply, c, a, b, plan, epilogue):
    for _ in range(repeats):
        call(multiply, (c, a, b, plan, epilogue, c))


@kernel
def _repeat_contract(repeats, contract, c, x, y, n, plan):
    for _ in range(repeats):
        call(contract, (c, x, y, n, plan))


@kernel
def _repeat_multiply_tiled(repeats, multiply, c, a, b, plan, epilogue):
    # The tiled rung takes A by its strides, whatever the order.
    view = a[::1, ::1]
    for _ in range(repeats):
        call(multiply, (c, view, b, plan, epilogue, c))


def prepare(case) -> tuple[Callable[[int], None], dict[str, int]]:
    """A function that makes the product so many times, and the addresses of its arrays.

    Parameters
    ----------
    case : `bench.cachegrind.Case`.
    """
    dtype, n = case.dtype, case.batch_size
    blocks, lanes = count_blocks(n, dtype), lanes_of(dtype)
    tiling = Tiling(*case.tiling)
    plan = make_plan(case.kernel, tiling, dtype, case.fan_in, (case.fan_out,), n, 1)
    w = aligned_zeros((case.fan_in + 1, case.fan_out), dtype)
    wide = aligned_zeros((blocks, case.fan_in + 1, lanes), dtype)
    narrow = aligned_zeros((blocks, case.fan_out, lanes), dtype)
    dx = aligned_zeros((blocks, case.fan_in, lanes), dtype)
    arrays = {"w": w, "x": wide, "z": narrow, "dx": dx}
    arrays |= {"packed": plan.packed, "panels": plan.panels, "edge": plan.edge}
    plain = np.int64(PLAIN)
    repeat_multiply = _repeat_multiply_tiled if case.kernel == "tiled" else _repeat_multiply

    def repeat(times: int) -> None:
        if case.product == "forward":
            repeat_multiply(times, plan.multiply_transposed, narrow, w.T, wide, plan, plain)
        elif case.product == "backward_parameters":
            _repeat_contract(times, plan.contract, w, wide, narrow, n, plan)
        else:
            w_rows = w[: case.fan_in]
            repeat_multiply(times, plan.multiply, dx, w_rows, narrow, plan, plain)

    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    return repeat, addresses
