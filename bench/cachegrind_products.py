"""Products of a layer as `bench.cachegrind` runs them: compiled loops that load from disk."""

from collections.abc import Callable

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from minibutter.nn.kernels.jit import address_of, call, inlined_kernel, kernel
from minibutter.nn.kernels.layout import aligned_zeros, count_blocks, lanes_of
from minibutter.nn.kernels.plan import make_plan
from minibutter.nn.kernels.tile import PLAIN
from minibutter.nn.kernels.tiling import Tiling


@kernel
def _repeat_multiply(repeats, multiply, c, a, b, plan, epilogue, gate):
    for _ in range(repeats):
        call(multiply, (c, a, b, plan, epilogue, gate))


@kernel
def _repeat_contract(repeats, contract, c, x, y, n, plan):
    for _ in range(repeats):
        call(contract, (c, x, y, n, plan))


@kernel
def _repeat_multiply_tiled(repeats, multiply, c, a, b, plan, epilogue, gate):
    # The tiled rung takes A by its strides, whatever the order.
    view = a[::1, ::1]
    for _ in range(repeats):
        call(multiply, (c, view, b, plan, epilogue, gate))


@intrinsic
def _place_of_return_address(typing_context):
    """Where on the stack the kernel that asks finds the address to return to."""

    def emit(context, builder, signature, values):
        pointer = ir.IntType(8).as_pointer()
        place = builder.module.declare_intrinsic(
            "llvm.addressofreturnaddress", (pointer,), ir.FunctionType(pointer, ())
        )
        return builder.ptrtoint(builder.call(place, ()), ir.IntType(64))

    return numba.types.int64(), emit


@inlined_kernel
def _tell(numbers, address):
    """Put an address into the first four numbers: in pieces that a float32 can hold."""
    for piece in range(4):
        numbers[piece] = address >> 16 * piece & 0xFFFF


# Called as the kernels are, by arguments of the same types, so that they lie in the same place.


@kernel
def _locate_multiply(c, a, b, plan, epilogue, gate):
    _tell(c.reshape(c.size), _place_of_return_address())


@kernel
def _locate_contract(c, x, y, n, plan):
    _tell(c.reshape(c.size), _place_of_return_address())


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
    multiply = _repeat_multiply_tiled if case.kernel == "tiled" else _repeat_multiply
    w_rows = w[: case.fan_in]
    make, locate, address, arguments = {
        "forward": (
            *(multiply, _locate_multiply, plan.multiply_transposed),
            (narrow, w.T, wide, plan, plain, narrow),
        ),
        "backward_parameters": (
            *(_repeat_contract, _locate_contract, plan.contract),
            (w, wide, narrow, n, plan),
        ),
        "backward_input": (
            *(multiply, _locate_multiply, plan.multiply),
            (dx, w_rows, narrow, plan, plain, dx),
        ),
    }[case.product]

    def repeat(times: int) -> None:
        make(times, address, *arguments)

    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    make(1, address_of(locate, *map(numba.typeof, arguments)), *arguments)
    pieces = arguments[0].reshape(-1)[:4]
    addresses["stack"] = sum(int(piece) << 16 * place for place, piece in enumerate(pieces))
    pieces[:] = 0
    return repeat, addresses
