"""Sums over the slices of a batch, of the same bits whoever computes which slice.

What the slices give (gradients, sums of metrics) is added along one binary tree. Its leaves are the
slices in their order; on every level neighbours are added, the first to the second, the third to
the fourth, and a last one without a neighbour rises as it is:

    0 + 1   2 + 3   4 + 5   6          seven slices
      01 + 23        45 + 6
         0123    +    456

A rank has slices that follow each other. It adds what stands below one node of the tree; the sums
that it is left with are added to those of others further up. The tree depends on the number of
slices alone, and so does every bit of the sum.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """Things from `begin` to before `end` that follow each other."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


def cut(size: int, parts: int) -> list[Span]:
    """Things that follow each other, in parts whose sizes differ by one at most; some may be empty.

    So are the rows of a batch cut into slices, and slices and parameters shared out among ranks.
    """
    return [Span(i * size // parts, (i + 1) * size // parts) for i in range(parts)]


def pair_up(spans: Sequence[Span], n_leaves: int) -> tuple[np.ndarray, list[int]]:
    """Additions of the tree that can be done with the sums of these spans of leaves.

    Parameters
    ----------
    spans : nodes of the tree, or single leaves, in their order.
    n_leaves : of the whole tree.

    Returns
    -------
    pairs : int64 (n, 2): add the second sum to the first, in the order of the pairs.
    roots : positions among `spans` where sums remain that nothing here can be added to.
    """
    pairs: list[tuple[int, int]] = []
    remaining: list[tuple[Span, int]] = []
    for position, span in enumerate(spans):
        remaining.append((span, position))
        while len(remaining) > 1:
            (left, into), (right, what) = remaining[-2:]
            if not _are_neighbours(left, right, n_leaves):
                break
            pairs.append((into, what))
            remaining[-2:] = [(Span(left.begin, right.end), into)]
    return np.array(pairs, np.int64).reshape(-1, 2), [position for _, position in remaining]


def find_nodes(leaves: Span, n_leaves: int) -> list[Span]:
    """The nodes of the tree that remain of some leaves when these are added as far as they can."""
    spans = [Span(leaf, leaf + 1) for leaf in range(*leaves)]
    _, roots = pair_up(spans, n_leaves)
    bounds = [*(leaves.begin + root for root in roots), leaves.end]
    return [Span(begin, end) for begin, end in pairwise(bounds)]


def _are_neighbours(left: Span, right: Span, n_leaves: int) -> bool:
    """Whether two nodes that follow each other have the same parent.

    The left one has 2^k leaves; the right one as many, or all that are left.
    """
    parent = 2 * left.size
    return left.begin % parent == 0 and right.end == min(left.begin + parent, n_leaves)
