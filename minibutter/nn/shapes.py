"""The outline of a network: (shape, size, depth, inputs, outputs) -> the width of every layer.

BUTTER describes a network by a *shape* (how wide each layer is relative to the first), a *size*
(how many trainable parameters it should have) and a *depth* (dense layers, the output layer
included). A search over the first layer's integer width finds the network whose parameter count is
nearest to the size. Nothing here knows arrays.

Source: Tripp et al. 2022, arXiv:2207.12547, and the BUTTER data set of OEDI (submission 5708).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import mul

SIZE_TOLERANCE = 0.20
"""A network may miss its size by this fraction; BUTTER recorded none that missed it by more."""

_LARGEST_SCALE = 2**30


class SizeUnreachable(ValueError):
    """No network of this shape and depth has a parameter count within 20 % of the size."""


def _rectangle(scale: int, depth: int, n_outputs: int) -> list[int]:
    return [scale] * (depth - 1) + [n_outputs]


def _trapezoid(scale: int, depth: int, n_outputs: int) -> list[int]:
    step = (scale - n_outputs) / (depth - 1)
    return [round(scale - k * step) for k in range(depth)]


def _exponential(scale: int, depth: int, n_outputs: int) -> list[int]:
    ratio = (n_outputs / scale) ** (1 / (depth - 1))
    return [max(n_outputs, round(scale * ratio**k)) for k in range(depth)]


def _wide_first(factor: int) -> Callable[[int, int, int], list[int]]:
    def widths(scale: int, depth: int, n_outputs: int) -> list[int]:
        return [scale] + [max(1, round(scale / factor))] * (depth - 2) + [n_outputs]

    return widths


_OUTLINES: dict[str, Callable[[int, int, int], list[int]]] = {
    "rectangle": _rectangle,
    "trapezoid": _trapezoid,
    "exponential": _exponential,
    **{f"wide_first_{m}x": _wide_first(m) for m in (2, 4, 5, 8, 10, 16, 20)},
    "rectangle_residual": _rectangle,
}

SHAPES: tuple[str, ...] = tuple(_OUTLINES)


@dataclass(frozen=True)
class Outline:
    """The widths that a search found, and how near they come to what was asked.

    Attributes
    ----------
    widths : units per layer, the output layer last.
    num_parameters : trainable parameters, weights and biases of every layer.
    """

    widths: tuple[int, ...]
    num_parameters: int


def count_parameters(n_inputs: int, widths: tuple[int, ...]) -> int:
    """Trainable parameters: P = Σ (w_{k-1} + 1) w_k, with w_{-1} = n_inputs.

    Every layer, the output layer too, has a bias; residual additions have no parameters.
    """
    return sum(map(mul, (n_inputs, *widths[:-1]), widths)) + sum(widths)


def shape_widths(shape: str, scale: int, depth: int, n_outputs: int) -> tuple[int, ...]:
    """Widths of a shape whose first layer has `scale` units.

    `round` is Python's, half to even, as in the original; the last width is always `n_outputs`.

    Raises
    ------
    ValueError
        If the shape is unknown, or the depth is below 2 (one hidden layer and the output layer).
    """
    _check(shape, depth)
    return tuple(_OUTLINES[shape](scale, depth, n_outputs))


def _check(shape: str, depth: int) -> None:
    if shape not in _OUTLINES:
        raise ValueError(f"shape is {shape!r}; it must be one of {', '.join(SHAPES)}")
    if depth < 2:
        raise ValueError(f"depth is {depth}; it counts the output layer, so it must be at least 2")


def format_widths(widths: tuple[int, ...]) -> str:
    """Widths for people: (17, 17, 17, 7) is 17x3-7.

    Examples
    --------
    >>> format_widths((17, 17, 17, 7))
    '17x3-7'
    """
    runs = [(width, len(list(group))) for width, group in groupby(widths)]
    return "-".join(f"{width}x{count}" if count > 1 else str(width) for width, count in runs)


def has_skip(shape: str, depth: int) -> tuple[bool, ...]:
    """Which layers add their input to their activation: the hidden layers 1 .. depth-2.

    h_k = f(h_{k-1} W_k + b_k) + h_{k-1}. The first and the output layer never do, so a residual
    network of depth 2 is a rectangle.
    """
    residual = shape == "rectangle_residual"
    return tuple(residual and 0 < k < depth - 1 for k in range(depth))


@lru_cache(maxsize=2**16)  # more than all BUTTER sweeps have
def find_outline(shape: str, size: int, depth: int, n_inputs: int, n_outputs: int) -> Outline:
    """Search the integer first width whose network has the parameter count nearest to `size`.

    P is monotone in the scale, so the scales on either side of P = size are found and the nearer
    one is the global optimum. Of two that are equally near, it is the one that a bisection of
    1 .. 2^30, BUTTER's search, evaluates first.

    Parameters
    ----------
    shape : one of `SHAPES`.
    size : trainable parameters wanted.
    depth : dense layers including the output layer, at least 2.
    n_inputs, n_outputs : encoded dimensions of the data set.

    Raises
    ------
    SizeUnreachable
        If the nearest network misses the size by more than 20 %; the message names that network
        and the nearest size for which there is one.
    ValueError
        If shape, size or depth is not possible.
    """
    if size < 1:
        raise ValueError(f"size is {size}; it counts parameters, so it must be at least 1")
    _check(shape, depth)

    make_widths = _OUTLINES[shape]

    def outline(scale: int) -> Outline:
        widths = tuple(make_widths(scale, depth, n_outputs))
        return Outline(widths, count_parameters(n_inputs, widths))

    def miss(found: Outline) -> int:
        return abs(found.num_parameters - size)

    neighbours = _neighbours(outline, size, depth, n_inputs + n_outputs)
    nearest = min(neighbours, key=miss)
    if len(neighbours) == 2 and miss(neighbours[0]) == miss(neighbours[1]):
        nearest = next(each for each in _bisection(outline, size) if miss(each) == miss(nearest))
    if miss(nearest) > SIZE_TOLERANCE * size:
        reachable = [_last_size(found.num_parameters, size) for found in neighbours]
        raise SizeUnreachable(
            f"size {size} is unreachable for shape {shape}, depth {depth}, {n_inputs} inputs and "
            f"{n_outputs} outputs: the nearest network, {format_widths(nearest.widths)}, has "
            f"{nearest.num_parameters} parameters ({(nearest.num_parameters - size) / size:+.1%}, "
            f"more than the {SIZE_TOLERANCE:.0%} that BUTTER allows); nearest reachable size: "
            f"{min(reachable, key=lambda reached: abs(reached - size))}"
        )
    return nearest


def _neighbours(
    outline: Callable[[int], Outline], size: int, depth: int, n_ends: int
) -> list[Outline]:
    """Networks of the scales on either side of P = size; one where it is met, or has one side.

    A rectangle of scale s has P = (d - 2) s^2 + (n_ends + d - 1) s + n_outputs. That of another
    shape is a part of it which varies slowly with s, so that three or four guesses lead to the
    neighbours, where a bisection takes thirty, for each of the tens of thousands of a sweep.
    """
    below, above = 0, _LARGEST_SCALE + 1
    found: dict[int, Outline] = {}
    a, b = depth - 2, n_ends + depth - 1
    part = 1.0
    while above - below > 1:
        wanted = size / part
        guess = 2 * wanted / (b + math.sqrt(b * b + 4 * a * wanted))
        # A shape that leads astray is bisected in the end.
        scale = round(guess) if len(found) < 10 else (below + above) // 2
        scale = min(max(scale, below + 1), above - 1)
        found[scale] = outline(scale)
        count = found[scale].num_parameters
        if count == size:
            return [found[scale]]
        below, above = (scale, above) if count < size else (below, scale)
        part = count / (scale * (a * scale + b))
    return [found[scale] for scale in (above, below) if scale in found]


def _bisection(outline: Callable[[int], Outline], size: int) -> Iterator[Outline]:
    """The networks that a bisection evaluates, in its order."""
    low, high = 1, _LARGEST_SCALE
    while low <= high:
        scale = (low + high) // 2
        candidate = outline(scale)
        yield candidate
        low, high = (scale + 1, high) if candidate.num_parameters < size else (low, scale - 1)


def _last_size(num_parameters: int, size: int) -> int:
    """The size, on the side of `size`, at which BUTTER lets a network stand for it at last."""
    if num_parameters < size:
        return math.floor(num_parameters / (1 - SIZE_TOLERANCE))
    return math.ceil(num_parameters / (1 + SIZE_TOLERANCE))
