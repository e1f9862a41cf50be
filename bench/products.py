"""The products of a dense layer on every rung, and by OpenBLAS: arrays, loops and a check.

A dense layer makes three: forward z = x @ w + b, backward dw = xᵀ @ dz (and db) and dx = dz @ wᵀ.
Our rungs get a batch in blocks of lanes, as in a run (`minibutter.nn.kernels.layout`). OpenBLAS
gets its best case: plain C-contiguous matrices, so that neither side has anything to convert, and
`np.dot` called by compiled code, so that no time goes to Python. The bias is one more row of w on
both sides, and x has the column of ones that belongs to it: the arithmetic is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np

from bench.layer_shapes import LayerShape
from minibutter.nn.kernels import layers
from minibutter.nn.kernels.layout import aligned_zeros, lanes_of
from minibutter.nn.kernels.plan import make_plan
from minibutter.nn.kernels.tile import PLAIN
from minibutter.nn.kernels.tiling import DEFAULT_TILING, Tiling

BATCH_SIZE = 256
OURS = ("naive", "blocked", "tiled")
OPENBLAS = "openblas"
RUNGS = (OPENBLAS, *OURS)


class Wrong(AssertionError):
    """A rung made another product, so its time would be that of something else."""


@numba.njit(nogil=True)
def _repeat_forward(repeats, z, x, w, repetitions, plan, epilogue):
    for _ in range(repeats):
        layers.dense_forward(z, x, w, repetitions, plan, epilogue)


@numba.njit(nogil=True)
def _repeat_backward_parameters(repeats, dw, x, dz, n, repetitions, plan):
    for _ in range(repeats):
        layers.dense_backward_parameters(dw, x, dz, n, repetitions, plan)


@numba.njit(nogil=True)
def _repeat_backward_input(repeats, dx, w, dz, repetitions, plan, epilogue):
    for _ in range(repeats):
        layers.dense_backward_input(dx, w, dz, repetitions, plan, epilogue, dx)


@numba.njit(nogil=True)
def _repeat_dot(repeats, c, a, b):
    for _ in range(repeats):
        np.dot(a, b, c)


@dataclass(frozen=True)
class Product:
    """One of the three products of a layer, ready to be made again and again.

    Attributes
    ----------
    name : "forward", "backward_parameters" or "backward_input".
    flops : of one product: 2 for every multiplication and addition.
    least_bytes : that must be read and written if every number travels once.
    repeat : by rung, a function that makes the product so many times.
    result : by rung, the product as a plain matrix.
    spoil : by rung, overwrites the product, so that what is not written is seen.
    operands : the plain matrices A and B of C = A @ B.
    """

    name: str
    flops: int
    least_bytes: int
    repeat: dict[str, Callable[[int], None]]
    result: dict[str, Callable[[], np.ndarray]]
    spoil: dict[str, Callable[[], None]]
    operands: tuple[np.ndarray, np.ndarray]


def as_blocks(rows: np.ndarray, n_units: int) -> np.ndarray:
    """Rows of a batch (n, width) as blocks (n / LANES, n_units, LANES), zeros in the rest."""
    lanes = lanes_of(rows.dtype)
    blocks = aligned_zeros((len(rows) // lanes, n_units, lanes), rows.dtype)
    blocks[:, : rows.shape[1]] = rows.reshape(-1, lanes, rows.shape[1]).transpose(0, 2, 1)
    return blocks


def as_rows(blocks: np.ndarray, width: int) -> np.ndarray:
    """The first `width` units of blocks as rows of a batch: the way back."""
    return blocks[:, :width].transpose(0, 2, 1).reshape(-1, width)


def _aligned(matrix: np.ndarray) -> np.ndarray:
    copy = aligned_zeros(matrix.shape, matrix.dtype)
    copy[:] = matrix
    return copy


def make_products(
    shape: LayerShape,
    dtype: str,
    batch_size: int = BATCH_SIZE,
    rungs: tuple[str, ...] = OURS,
    tiling: Tiling = DEFAULT_TILING,
) -> list[Product]:
    """The products of a layer with random numbers of a seed of their own, on OpenBLAS and `rungs`.

    Parameters
    ----------
    shape : of the layer.
    dtype : "float32" or "float64".
    batch_size : rows, a multiple of the lanes.
    rungs : keys of `gemm.RUNGS`.
    tiling : sizes of tiles and cache blocks.
    """
    n, fan_in, fan_out = batch_size, shape.fan_in, shape.fan_out
    rng = np.random.default_rng([n, fan_in, fan_out])

    def draw(rows: int, columns: int) -> np.ndarray:
        return _aligned(rng.standard_normal((rows, columns)).astype(dtype))

    x, w, dz = draw(n, fan_in + 1), draw(fan_in + 1, fan_out), draw(n, fan_out)
    x[:, fan_in] = 1
    z, dw = aligned_zeros((n, fan_out), dtype), aligned_zeros(w.shape, dtype)
    dx = aligned_zeros((n, fan_in), dtype)
    # In a run, what a layer puts out has room for the constant unit of the next.
    z_blocks, x_blocks = as_blocks(z, fan_out + 1), as_blocks(x, fan_in + 1)
    dz_blocks, dx_blocks = as_blocks(dz, fan_out), as_blocks(dx, fan_in)
    dw_ours = aligned_zeros(w.shape, dtype)
    plans = {rung: make_plan(rung, tiling, dtype, fan_in, (fan_out,), n, 1) for rung in rungs}

    def product(name, operands, c, c_ours, width, repeat_ours) -> Product:
        a, b = operands
        matrices = (*operands, c)
        return Product(
            name=name,
            flops=2 * a.shape[0] * a.shape[1] * b.shape[1],
            least_bytes=sum(matrix.nbytes for matrix in matrices),
            repeat={
                OPENBLAS: lambda times: _repeat_dot(times, c, a, b),
                **{
                    rung: lambda times, plan=plan: repeat_ours(times, plan)
                    for rung, plan in plans.items()
                },
            },
            result={
                OPENBLAS: lambda: c,
                **dict.fromkeys(plans, lambda: c_ours if width is None else as_rows(c_ours, width)),
            },
            spoil={
                OPENBLAS: lambda: c.fill(np.nan),
                **dict.fromkeys(plans, lambda: c_ours.fill(np.nan)),
            },
            operands=operands,
        )

    products = [
        product(
            "forward", (x, w), z, z_blocks, fan_out,
            lambda times, plan: _repeat_forward(times, z_blocks, x_blocks, w, 1, plan, PLAIN),
        ),
        product(
            "backward_parameters", (x.T, dz), dw, dw_ours, None,
            lambda times, plan: _repeat_backward_parameters(
                times, dw_ours, x_blocks, dz_blocks, n, 1, plan
            ),
        ),
    ]  # fmt: skip
    if shape.needs_dx:
        products.append(
            product(
                "backward_input", (dz, w[:fan_in].T), dx, dx_blocks, fan_in,
                lambda times, plan: _repeat_backward_input(
                    times, dx_blocks, w, dz_blocks, 1, plan, PLAIN
                ),
            )
        )  # fmt: skip
    return products


def check(product: Product) -> None:
    """Every rung makes the product that NumPy makes in float64.

    Raises
    ------
    Wrong
        Where a sum of d products is further off than d eps Σ|a||b|, or not a number.
    """
    a, b = (matrix.astype(np.float64) for matrix in product.operands)
    expected = a @ b
    eps = np.finfo(product.operands[0].dtype).eps
    bound = a.shape[1] * eps * (np.abs(a) @ np.abs(b))
    for rung, repeat in product.repeat.items():
        product.spoil[rung]()
        repeat(1)
        is_right = np.abs(product.result[rung]() - expected) <= bound
        if not is_right.all():
            raise Wrong(
                f"{rung}, {product.name}: {np.count_nonzero(~is_right)} of {expected.size} numbers "
                "are further from the product than rounding explains"
            )
