"""Matrix products: their values, their bits, and what they leave alone.

The order of summation is part of the contract, so most tests ask for exact numbers: those of a loop
over products in NumPy, which rounds once for each product and once for each sum, or only once for
both (fused), as the machine does it.
"""

from fractions import Fraction
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from minibutter.nn.kernels import tile
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.kernels.layout import aligned_zeros, count_blocks, lanes_of
from minibutter.nn.kernels.tile import PLAIN, RELU, RELU_MASK
from minibutter.nn.kernels.tiled import multiply_lanes
from minibutter.nn.kernels.tiling import DEFAULT_TILING, Tiling
from minibutter.nn.network import Network

DTYPES = ("float32", "float64")
FUSES = tile.HAS_FMA and not numba.config.DISABLE_JIT
EPILOGUES = {"plain": PLAIN, "relu": RELU, "relu_mask": RELU_MASK}
NAN, INF = np.nan, np.inf

EVERY_RUNG = pytest.mark.parametrize("rung", RUNGS)
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)

# (m, depth, rows of the batch): ones, primes, numbers on and beside the sizes of tiles and lines.
SHAPES = [
    (1, 1, 1), (1, 7, 3), (3, 1, 33), (5, 3, 16), (7, 13, 17), (16, 16, 16), (17, 31, 64),
    (65, 5, 80), (2, 257, 8), (6, 64, 65), (12, 3, 70), (13, 2, 131), (31, 47, 97),
]  # fmt: skip

# Blocks that are smaller than most of the shapes, odd, and no multiples of the tile.
BLOCKINGS = {
    "default": Tiling(),
    "tiny": Tiling(block_rows=1, block_depth=1, block_columns=1),
    "odd": Tiling(block_rows=5, block_depth=7, block_columns=33),
    "flat": Tiling(block_rows=3, block_depth=50),
    "deep": Tiling(block_rows=40, block_depth=3, block_columns=48),
    "several tiles": Tiling(block_rows=18, block_depth=20),
}
# Each is compiled for it, so that every number of rows is tried with one of the types only.
TILES = [
    (dtype, tile_shape)
    for dtype, rows in (("float32", (1, 3, 5, 8)), ("float64", (2, 4, 7)))
    for tile_shape in (*({"tile_rows": each} for each in rows), {"tile_rows": 3, "n_lines": 2})
]


def name_tiling(dtype, tile_rows, n_lines=1, **blocks):
    return Tiling(tile_rows=tile_rows, tile_columns=n_lines * lanes_of(dtype), **blocks)


def draw(rng, *shape, dtype):
    """Numbers of many sizes, so that another order of summation gives other bits."""
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 7, shape)).astype(dtype)


def fenced(shape, dtype, value=7, offset=None):
    """An array inside of a frame of `value`s, and the frame.

    `offset` numbers stand before it: a whole line, unless it says otherwise.
    """
    size, fence = int(np.prod(shape)), 4 * lanes_of(dtype)
    offset = fence if offset is None else offset
    frame = aligned_zeros(offset + size + fence, dtype)
    frame[:] = value
    return frame[offset : offset + size].reshape(shape), frame


def to_blocks(rows, extra_units=0, filler=NAN):
    """Rows (n, width) as blocks (B, width + extra_units, LANES) between fences of NaN.

    What does not belong to a row or unit is filled: lanes behind the last row, and extra units.
    """
    n, width = rows.shape
    lanes = lanes_of(rows.dtype)
    blocks, _ = fenced((count_blocks(n, rows.dtype), width + extra_units, lanes), rows.dtype, NAN)
    blocks[:] = filler
    for i, row in enumerate(rows):
        blocks[i // lanes, :width, i % lanes] = row
    return blocks


def to_rows(blocks, n, width):
    """The inverse of `to_blocks`."""
    return blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])[:n, :width]


def plan_for(rung, dtype, m, depth, n, tiling=DEFAULT_TILING):
    """How a network makes these products, with memory for no larger ones."""
    network = Network(m, (depth, m), "regression", dtype=dtype, kernel=rung, tiling=tiling)
    return network.workspace(n).plan


def fence_plan(plan):
    """The same plan with fences around all of its memory; returns them as well."""
    fences = {}
    for name in ("packed", "panels", "edge", "rows"):
        array, frame = fenced(getattr(plan, name).shape, plan.packed.dtype)
        plan = plan._replace(**{name: array})
        array[:] = NAN
        fences[name] = array, frame
    return plan, fences


def assert_fences_hold(fences):
    for name, (array, frame) in fences.items():
        array[:] = 7
        assert (frame == 7).all(), name


def multiply(rung, c, a, b, plan, epilogue, gate):
    RUNGS[rung][0](c, a, b, plan, epilogue, gate)


def contract(rung, c, x, y, n, plan):
    RUNGS[rung][1](c, x, y, n, plan)


class Multiplication:
    """A (m, depth), B and a gate in blocks, and C between fences with a constant unit behind."""

    def __init__(self, seed, shape, dtype, order="C"):
        self.m, self.depth, self.n = shape
        self.dtype = dtype
        rng = np.random.default_rng([seed, *shape])
        self.a = np.asarray(draw(rng, self.m, self.depth, dtype=dtype), order=order)
        self.b_rows = draw(rng, self.n, self.depth, dtype=dtype)
        self.gate_rows = draw(rng, self.n, self.m, dtype=dtype)
        self.b = to_blocks(self.b_rows, extra_units=1)
        self.gate = to_blocks(self.gate_rows, extra_units=1)

    def make(self, rung, epilogue=PLAIN, tiling=DEFAULT_TILING):
        """C as rows (n, m), on that rung; checks that nothing else was written."""
        plan = plan_for(rung, self.dtype, self.m, self.depth, self.n, tiling)
        plan, fences = fence_plan(plan)
        c, frame = fenced((len(self.b), self.m + 1, self.b.shape[2]), self.dtype)
        c[:, : self.m] = NAN
        multiply(rung, c, self.a, self.b, plan, epilogue, self.gate)
        rows = to_rows(c, self.n, self.m).copy()
        c[:, : self.m] = 7
        assert (frame == 7).all(), "written beside C"
        assert_fences_hold(fences)
        return rows


class Contraction:
    """X and Y in blocks, with NaN in every lane behind the last row, and in X's extra unit."""

    def __init__(self, seed, shape, dtype):
        self.m, self.p, self.n = shape
        self.dtype = dtype
        rng = np.random.default_rng([seed, *shape])
        self.x_rows = draw(rng, self.n, self.m, dtype=dtype)
        self.y_rows = draw(rng, self.n, self.p, dtype=dtype)
        self.x, self.y = to_blocks(self.x_rows, extra_units=1), to_blocks(self.y_rows)

    def make(self, rung, tiling=DEFAULT_TILING):
        """C (m, p) on that rung, at any place in memory; checks that nothing else was written."""
        plan = plan_for(rung, self.dtype, self.m, self.p, self.n, tiling)
        plan, fences = fence_plan(plan)
        c, frame = fenced((self.m, self.p), self.dtype, offset=67)
        c[:] = NAN
        contract(rung, c, self.x, self.y, self.n, plan)
        result = c.copy()
        c[:] = 7
        assert (frame == 7).all(), "written beside C"
        assert_fences_hold(fences)
        return result


def sum_in_order(a, b):
    """A @ B, one product after the other; every product and every sum is rounded."""
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for j in range(a.shape[1]):
        total += a[:, j, None] * b[j]
    return total


def sum_fused(a, b):
    """A @ B, one product after the other; every a b + c is rounded once."""
    fuse = _fuse_float32 if a.dtype == np.float32 else _fuse_float64
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for j in range(a.shape[1]):
        total = fuse(a[:, j, None], b[j], total)
    return total


def _fuse_float32(a, b, c):
    """In float64 the product is exact; the sum is rounded to odd, and then as if only once.

    Source: Boldo & Melquiond 2008, IEEE Trans. Comput. 57(4), theorem 1; the error of a sum is
    Knuth's.
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    is_even = total.view(np.int64) % 2 == 0
    odd = np.where((error != 0) & is_even, np.nextafter(total, np.copysign(INF, error)), total)
    return odd.astype(np.float32)


@np.vectorize
def _fuse_float64(a, b, c):
    """In rational numbers everything is exact, and Python rounds a quotient correctly."""
    return float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


# ---------------------------------------------------------------------------------------------
# Values


@EVERY_RUNG
@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_multiply_equals_numpy_and_writes_nothing_else(order, shape, dtype, rung, assert_within):
    case = Multiplication(1, shape, dtype, order)
    expected = case.b_rows @ case.a.T
    # A sum of d products, in any order, errs by at most d eps/2 Σ|a||b|; here are two such sums.
    bound = case.depth * np.finfo(dtype).eps * (np.abs(case.b_rows) @ np.abs(case.a).T)
    for name, tiling in BLOCKINGS.items():
        assert_within(case.make(rung, tiling=tiling), expected, bound, name)


@EVERY_RUNG
@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES)
def test_contract_equals_numpy_and_never_sees_lanes_behind_the_last_row(
    shape, dtype, rung, assert_within
):
    case = Contraction(2, shape, dtype)
    expected = case.x_rows.T @ case.y_rows
    bound = case.n * np.finfo(dtype).eps * (np.abs(case.x_rows).T @ np.abs(case.y_rows))
    for name, tiling in BLOCKINGS.items():
        assert_within(case.make(rung, tiling), expected, bound, name)


@EVERY_RUNG
@EVERY_DTYPE
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 13, 17), (17, 9, 70), (12, 8, 33)])
def test_epilogues_are_those_of_the_finished_sums(shape, dtype, rung):
    case = Multiplication(3, shape, dtype)
    case.gate[0, 0, 0] = 0  # the kink shuts
    gates = to_rows(case.gate, case.n, case.m)
    for tiling in BLOCKINGS.values():
        sums = case.make(rung, PLAIN, tiling)
        np.testing.assert_array_equal(case.make(rung, RELU, tiling), np.maximum(sums, 0))
        np.testing.assert_array_equal(
            case.make(rung, RELU_MASK, tiling), np.where(gates > 0, sums, 0)
        )


@EVERY_RUNG
@EVERY_DTYPE
def test_epilogues_let_nan_pass_and_shut_only_where_the_gate_is_known_to_be(dtype, rung):
    """A run that diverges must show it: NaN is neither positive nor negative, and stays."""
    lanes = lanes_of(dtype)
    sums = np.array([[1, -1, NAN, INF, -INF, 0]], dtype)
    gates = [1.0, NAN, INF, 0.0, -0.0, -1.0, -INF]
    n = len(gates)
    a = np.ascontiguousarray(sums.T)  # times 1, in every row
    b = np.ones((1, 1, lanes), dtype)
    gate = np.tile(np.resize(gates, lanes).astype(dtype), (1, 6, 1))
    plan = plan_for(rung, dtype, 6, 1, n)
    c = np.empty((1, 6, lanes), dtype)
    multiply(rung, c, a, b, plan, RELU, gate)
    np.testing.assert_array_equal(to_rows(c, n, 6), np.tile([[1, 0, NAN, INF, 0, 0]], (n, 1)))
    multiply(rung, c, a, b, plan, RELU_MASK, gate)
    is_open = np.array([True, True, True, False, False, False, False])[:, None]
    np.testing.assert_array_equal(to_rows(c, n, 6), np.where(is_open, sums, 0))


@EVERY_RUNG
@EVERY_DTYPE
def test_nan_and_inf_reach_the_products_even_against_zeros(dtype, rung):
    a = np.array([[NAN, 1], [INF, 1], [1, 1]], dtype)
    b_rows = np.array([[0, 1], [1, 1]], dtype)
    expected = np.array([[NAN, NAN, 1], [NAN, INF, 2]])
    plan = plan_for(rung, dtype, 3, 2, 3)
    c = np.empty((1, 3, lanes_of(dtype)), dtype)
    multiply(rung, c, a, to_blocks(b_rows, filler=0), plan, PLAIN, c)
    np.testing.assert_array_equal(to_rows(c, 2, 3), expected)
    c = np.empty((3, 2), dtype)
    x, y = to_blocks(np.ascontiguousarray(a.T)), to_blocks(np.ascontiguousarray(b_rows.T))
    contract(rung, c, x, y, 2, plan)
    np.testing.assert_array_equal(c, expected.T)


# ---------------------------------------------------------------------------------------------
# Bits


@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES)
def test_naive_adds_its_products_one_by_one_in_their_order(shape, dtype):
    case = Multiplication(4, shape, dtype)
    expected = sum_in_order(case.a, case.b_rows.T).T
    np.testing.assert_array_equal(case.make("naive"), expected)
    case = Contraction(4, shape, dtype)
    expected = sum_in_order(case.x_rows.T, case.y_rows)
    np.testing.assert_array_equal(case.make("naive"), expected)


@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES)
def test_blocked_has_the_bits_of_naive_whatever_the_blocks(shape, dtype):
    for case in (Multiplication(5, shape, dtype), Contraction(5, shape, dtype)):
        naive = case.make("naive")
        for name, tiling in BLOCKINGS.items():
            actual = case.make("blocked", tiling=tiling)
            np.testing.assert_array_equal(actual, naive, err_msg=name)


# A rational number for every product would take seconds for the largest shapes.
BITS = [
    (shape, dtype)
    for dtype in DTYPES
    for shape in SHAPES
    if dtype == "float32" or np.prod(shape) < 10_000
]


@pytest.mark.parametrize(("shape", "dtype"), BITS)
def test_tiled_adds_in_the_same_order_with_one_rounding_a_product(shape, dtype):
    """Whichever tile, line and cache block an element fell into; two roundings without FMA."""
    chain = sum_fused if FUSES else sum_in_order
    case = Multiplication(6, shape, dtype)
    expected = chain(case.a, case.b_rows.T).T
    np.testing.assert_array_equal(case.make("tiled"), expected)
    case = Contraction(6, shape, dtype)
    np.testing.assert_array_equal(case.make("tiled"), chain(case.x_rows.T, case.y_rows))


@pytest.mark.skipif(FUSES, reason="this processor rounds once for product and sum")
@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES)
def test_tiled_has_the_bits_of_naive_where_nothing_is_fused(shape, dtype):
    for case in (Multiplication(11, shape, dtype), Contraction(11, shape, dtype)):
        np.testing.assert_array_equal(case.make("tiled"), case.make("naive"))


@EVERY_DTYPE
@pytest.mark.parametrize("shape", SHAPES)
def test_no_cache_block_changes_a_bit_of_tiled(shape, dtype):
    for case in (Multiplication(7, shape, dtype), Contraction(7, shape, dtype)):
        default = case.make("tiled")
        for name, tiling in BLOCKINGS.items():
            np.testing.assert_array_equal(case.make("tiled", tiling=tiling), default, err_msg=name)


@pytest.mark.parametrize(("dtype", "tile_shape"), TILES)
def test_no_tile_changes_a_bit_of_tiled(dtype, tile_shape):
    for shape in SHAPES:
        for case in (Multiplication(8, shape, dtype), Contraction(8, shape, dtype)):
            default = case.make("tiled")
            for blocks in ({}, {"block_rows": 5, "block_depth": 7, "block_columns": 33}):
                tiling = name_tiling(dtype, **tile_shape, **blocks)
                np.testing.assert_array_equal(
                    case.make("tiled", tiling=tiling), default, err_msg=f"{shape} {blocks}"
                )


@EVERY_RUNG
@EVERY_DTYPE
def test_rows_of_a_batch_have_the_same_bits_wherever_they_stand(dtype, rung):
    """But on blas, which adds in an order of its own."""
    if rung == "blas":
        pytest.skip("the order of summation is the library's")
    case = Multiplication(9, (13, 31, 70), dtype)
    together = case.make(rung)
    for i in (0, 1, 17, 69):
        alone = Multiplication(9, (13, 31, 1), dtype)
        alone.a, alone.b = case.a, to_blocks(case.b_rows[i : i + 1], extra_units=1)
        np.testing.assert_array_equal(alone.make(rung)[0], together[i])


# ---------------------------------------------------------------------------------------------
# Packed repetitions


def draw_lanes(seed, m, depth, blocks, dtype):
    """A (m, depth, lanes), B and a gate in blocks with a unit too many, C in a frame of 7."""
    rng, lanes = np.random.default_rng([seed, m, depth, blocks]), lanes_of(dtype)
    c, frame = fenced((blocks, m + 1, lanes), dtype)
    c[:, :m] = NAN
    b = draw(rng, blocks, depth + 1, lanes, dtype=dtype)
    b[:, depth] = NAN
    return SimpleNamespace(
        a=draw(rng, m, depth, lanes, dtype=dtype),
        b=b,
        gate=draw(rng, blocks, m + 1, lanes, dtype=dtype),
        c=c,
        frame=frame,
    )


@pytest.mark.parametrize("epilogue", EPILOGUES.values(), ids=EPILOGUES)
@EVERY_DTYPE
@pytest.mark.parametrize(
    ("m", "depth", "blocks"),
    [(1, 1, 1), (1, 7, 3), (5, 3, 1), (7, 13, 17), (16, 16, 4), (13, 2, 9), (3, 71, 2)],
)
def test_every_lane_has_the_bits_of_its_own_product(m, depth, blocks, dtype, epilogue):
    drawn = draw_lanes(10, m, depth, blocks, dtype)
    # In a run of its own a lane's blocks are the rows of the batch.
    plan, expected = plan_for("tiled", dtype, m, depth, blocks), np.empty_like(drawn.c[:, :m])
    for lane in range(lanes_of(dtype)):
        a, b, gate = (
            np.ascontiguousarray(array[..., lane])
            for array in (drawn.a, drawn.b[:, :depth], drawn.gate)
        )
        c = np.full((count_blocks(blocks, dtype), m + 1, lanes_of(dtype)), NAN, dtype)
        multiply("tiled", c, a, to_blocks(b), plan, epilogue, to_blocks(gate))
        expected[..., lane] = to_rows(c, blocks, m)
    for name, tiling in BLOCKINGS.items():
        plan = plan_for("tiled", dtype, m, depth, blocks, tiling)
        drawn.c[:, :m] = NAN
        multiply_lanes(drawn.c, drawn.a, drawn.b, plan, epilogue, drawn.gate)
        np.testing.assert_array_equal(drawn.c[:, :m], expected, err_msg=name)
        drawn.c[:, :m] = 7
        assert (drawn.frame == 7).all(), name


@EVERY_DTYPE
def test_lanes_may_lie_anywhere_as_long_as_they_are_lines(dtype):
    """With axes exchanged the same function makes all three products of a layer."""
    m, depth, blocks = 7, 5, 11
    drawn = draw_lanes(11, m, depth, blocks, dtype)
    plan = plan_for("tiled", dtype, m, depth, blocks)
    multiply_lanes(drawn.c, drawn.a, drawn.b, plan, PLAIN, drawn.c)
    turned_a = np.ascontiguousarray(drawn.a.transpose(1, 0, 2)).transpose(1, 0, 2)
    turned_b = np.ascontiguousarray(drawn.b.transpose(1, 0, 2)).transpose(1, 0, 2)
    turned_c = np.zeros((m, blocks, lanes_of(dtype)), dtype).transpose(1, 0, 2)
    multiply_lanes(turned_c, turned_a, turned_b, plan, PLAIN, turned_c)
    np.testing.assert_array_equal(turned_c, drawn.c[:, :m])


@EVERY_DTYPE
def test_a_lane_of_nan_leaves_the_others_alone(dtype):
    m, depth, blocks = 7, 5, 3
    drawn = draw_lanes(12, m, depth, blocks, dtype)
    plan = plan_for("tiled", dtype, m, depth, blocks)
    multiply_lanes(drawn.c, drawn.a, drawn.b, plan, PLAIN, drawn.c)
    spoilt = np.full_like(drawn.c, 7)
    drawn.a[0, 0, 3] = NAN
    multiply_lanes(spoilt, drawn.a, drawn.b, plan, PLAIN, spoilt)
    assert np.isnan(spoilt[:, 0, 3]).all()
    spoilt[:, 0, 3] = drawn.c[:, 0, 3]
    np.testing.assert_array_equal(spoilt, drawn.c)
