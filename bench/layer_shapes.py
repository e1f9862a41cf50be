"""The dense layers that BUTTER's networks have, and a sample of them.

The grid is BUTTER's primary sweep: 13 data sets, its published shapes, depths 2 to 20 and sizes of
2^5 to 2^24 parameters. Residual rectangles have the layers of rectangles and are not counted twice.

Source: Tripp et al. 2022, arXiv:2207.12547, and the BUTTER data set of OEDI (submission 5708).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minibutter.datasets.dataset import DatasetInfo
from minibutter.datasets.registry import BUTTER
from minibutter.nn.shapes import SizeUnreachable, find_outline

SHAPES = (
    "rectangle", "trapezoid", "exponential",
    "wide_first_2x", "wide_first_4x", "wide_first_8x", "wide_first_16x",
)  # fmt: skip
DEPTHS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20)
SIZES = tuple(2**k for k in range(5, 25))

MOST_UNITS = 4096
"""Wider layers (2 % of all) are left out: a batch of one with 10^6 units takes gigabytes."""

CLASS_ENDS = tuple(4**k for k in range(2, 12))
"""Weights at which the classes end: below 4 x 4, then a factor of 4 each, to 2048 x 2048."""


@dataclass(frozen=True, order=True)
class LayerShape:
    """Units before and behind the weights, and whether the gradient of the input is ever needed.

    It is not where only first layers have this shape: nobody asks how the data should change.
    """

    fan_in: int
    fan_out: int
    needs_dx: bool = True

    @property
    def name(self) -> str:
        return f"{self.fan_in}x{self.fan_out}"

    @property
    def size_class(self) -> int:
        """Index into `CLASS_ENDS`; `len(CLASS_ENDS)` for what is larger."""
        return int(np.searchsorted(CLASS_ENDS, self.fan_in * self.fan_out, side="right"))


def count_layers(
    datasets: Iterable[DatasetInfo] = tuple(BUTTER.values()),
    depths: Iterable[int] = DEPTHS,
    sizes: Iterable[int] = SIZES,
) -> Counter[LayerShape]:
    """How many layers of each shape the networks of the grid have.

    Cells that BUTTER refused, because no network is near their size, have none.
    """
    first: Counter[tuple[int, int]] = Counter()
    later: Counter[tuple[int, int]] = Counter()
    cells = [(i, s, d, n) for i in datasets for s in SHAPES for d in depths for n in sizes]
    for info, shape, depth, size in cells:
        try:
            widths = find_outline(shape, size, depth, info.n_inputs, info.n_outputs).widths
        except SizeUnreachable:
            continue
        first[info.n_inputs, widths[0]] += 1
        later.update(pairwise(widths))
    return Counter(
        {LayerShape(*pair, pair in later): first[pair] + later[pair] for pair in first | later}
    )


def draw_sample(layers: Counter[LayerShape], n_shapes: int, seed: int = 0) -> list[LayerShape]:
    """Layers of all sizes: as many of each class of `CLASS_ENDS`, the frequent ones more likely.

    Within a class, layers are drawn without replacement with probabilities in proportion to their
    number in the grid. Of a class that has fewer, all are taken.

    Parameters
    ----------
    layers : how many there are of each.
    n_shapes : to draw; rounded down to a multiple of the number of classes, at least one of each.
    seed : of the draw.
    """
    rng = np.random.default_rng(seed)
    share = max(n_shapes // len(CLASS_ENDS), 1)
    sample = []
    for size_class in range(len(CLASS_ENDS)):
        members = sorted(
            layer
            for layer in layers
            if layer.size_class == size_class and max(layer.fan_in, layer.fan_out) <= MOST_UNITS
        )
        counts = np.array([layers[member] for member in members], np.float64)
        chosen = rng.choice(
            len(members), min(share, len(members)), replace=False, p=counts / counts.sum()
        )
        sample += [members[i] for i in chosen]
    return sorted(sample, key=lambda layer: (layer.fan_in * layer.fan_out, layer))
