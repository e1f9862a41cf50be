"""The same training in other roundings: perturbations of the step, and of the kernels themselves.

Every variant computes the same numbers if these were real numbers. What differs is where a sum is
rounded, or how often.
"""

import os
from dataclasses import dataclass, field

import llvmlite.binding
import numpy as np

from minibutter.nn.kernels.tiling import DEFAULT_TILING, Tiling


@dataclass(frozen=True)
class Variant:
    """How a training differs from the usual one.

    Attributes
    ----------
    changes : whether the bits must change (True), must not (False), or it depends on the machine
        or the library (None).
    what : for people.
    perturbation : k of the step (k η) (d / k).
    kernel, tiling : of the matrix products.
    slices : parts of a batch whose gradients are summed along a tree.
    is_packed : whether it is trained in one lane of a packed group.
    is_reversed : whether the rows of every batch come in the opposite order.
    moves_a_weight : whether one weight of the start is the next larger number instead.
    features : of the processor that the kernels are compiled for; empty for this one.
    n_threads : of BLAS.
    """

    what: str
    changes: bool | None = None
    perturbation: int = 1
    kernel: str = "tiled"
    tiling: Tiling = field(default=DEFAULT_TILING)
    slices: int = 1
    is_packed: bool = False
    is_reversed: bool = False
    moves_a_weight: bool = False
    features: tuple[str, ...] = ()
    n_threads: int = 1


def _perturbed(k: int) -> Variant:
    is_exact = k & (k - 1) == 0
    return Variant(f"step ({k} η)(d / {k})", changes=not is_exact, perturbation=k)


VARIANTS: dict[str, Variant] = {
    "again": Variant("nothing at all", changes=False),
    **{f"k = {k}": _perturbed(k) for k in range(2, 12)},
    "one weight": Variant("one weight of the start moved by one ulp", True, moves_a_weight=True),
    "rows reversed": Variant("rows of every batch in the opposite order", True, is_reversed=True),
    "2 slices": Variant("gradient summed in 2 slices of the batch", True, slices=2),
    "8 slices": Variant("gradient summed in 8 slices of the batch", True, slices=8),
    "naive": Variant("rung naive: product and sum rounded apart", kernel="naive"),
    "blocked": Variant("rung blocked: product and sum rounded apart", kernel="blocked"),
    "blas": Variant("rung blas: sums in an order of OpenBLAS", kernel="blas"),
    "blas, 2 threads": Variant("rung blas, shared by 2 threads", kernel="blas", n_threads=2),
    **{
        f"block depth {depth}": Variant(
            f"sums cut after every {depth} products", False, tiling=Tiling(block_depth=depth)
        )
        for depth in (16, 64, 128, 256)
    },
    "small blocks": Variant(
        "cache blocks of 16 x 16 x 32",
        changes=False,
        tiling=Tiling(block_rows=16, block_depth=16, block_columns=32),
    ),
    "tile of 4 rows": Variant("register tiles of 4 rows", False, tiling=Tiling(tile_rows=4)),
    "lanes": Variant("in a lane of a packed group", False, is_packed=True),
    "SSE2": Variant("vectors of 16 bytes, nothing fused", features=("sse2",)),
    "AVX": Variant("vectors of 32 bytes, nothing fused", features=("sse2", "avx")),
    "AVX2": Variant("vectors of 32 bytes, fused", features=("sse2", "avx", "avx2", "fma")),
}
"""Variants by name."""


def why_impossible(variant: Variant) -> str:
    """Why this machine cannot run a variant; empty where it can."""
    if variant.features:
        if not llvmlite.binding.get_process_triple().startswith("x86_64"):
            return "its features are those of x86-64 processors, and this machine has another kind"
        host = llvmlite.binding.get_host_cpu_features()
        missing = [feature for feature in variant.features if not host.get(feature)]
        if missing:
            return f"this processor has no {', '.join(missing)}"
    if variant.n_threads > (os.cpu_count() or 1):
        return "this machine has one core"
    return ""


class ReversedBatches:
    """Draws an order of the rows, and turns the rows of every batch around.

    The batches hold the same rows; only the order of their sums is another.
    """

    def __init__(self, rng: np.random.Generator, batch_size: int) -> None:
        self._rng, self._batch_size = rng, batch_size

    def permutation(self, n_rows: int) -> np.ndarray:
        """As `numpy.random.Generator.permutation`."""
        order = self._rng.permutation(n_rows)
        for begin in range(0, n_rows, self._batch_size):
            order[begin : begin + self._batch_size] = order[begin : begin + self._batch_size][::-1]
        return order
