"""The sum of vectors that ranks have computed, on all ranks, in the order of `summation`."""

import numpy as np

from minibutter.nn.kernels import slices
from minibutter.nn.kernels.layout import aligned_zeros, lanes_of
from minibutter.nn.partners import Parcels, Partners
from minibutter.nn.summation import Span, cut, find_nodes, pair_up


class SharedSum:
    """Vectors of one length, some on every rank, and how their sum comes to all ranks.

    Every rank adds its own vectors as far as the tree allows, and is left with one sum or a few.
    Each is in charge of a part of the vector: it gets this part of the others' sums, adds them, and
    hands the finished part to everybody.

    Parameters
    ----------
    size : numbers of a vector.
    dtype : of the numbers.
    n_vectors : on all ranks together; every rank has its part of them, see `summation.cut`.
    partners : the ranks.

    Attributes
    ----------
    own : which of the vectors are this rank's.
    vectors : (n own, size or a few more), to write them to; what is behind `size` must stay 0.
    """

    def __init__(self, size: int, dtype: str, n_vectors: int, partners: Partners) -> None:
        rank, self._partners = partners.rank, partners
        shares = cut(n_vectors, partners.size)
        self.own = shares[rank]
        lanes = lanes_of(dtype)
        n_lines = -(-size // lanes)  # vectors and parts of them begin on cache lines
        # A rank without vectors has room for their sum.
        self._memory = aligned_zeros((max(self.own.size, 1), n_lines * lanes), dtype)
        self.vectors = self._memory[: self.own.size]
        self._sum = self._memory[0, :size]
        self._pairs, roots = pair_up([Span(i, i + 1) for i in range(*self.own)], n_vectors)

        nodes = [find_nodes(share, n_vectors) for share in shares]
        self._pairs_of_all, _ = pair_up([node for part in nodes for node in part], n_vectors)
        parts = [
            slice(min(part.begin * lanes, size), min(part.end * lanes, size))
            for part in cut(n_lines, partners.size)
        ]
        self._part = self._sum[parts[rank]]
        n_nodes = [len(of_rank) for of_rank in nodes]
        self._inbox = aligned_zeros((sum(n_nodes), self._part.size), dtype)
        rows = np.split(self._inbox, np.cumsum(n_nodes)[:-1])
        own_sums = [self._memory[root] for root in roots]
        self._own = [(row, own[parts[rank]]) for row, own in zip(rows[rank], own_sums, strict=True)]
        others = [other for other in range(partners.size) if other != rank]
        self._sums_out = _worth_sending(
            (other, own[parts[other]]) for other in others for own in own_sums
        )
        self._sums_in = _worth_sending((other, row) for other in others for row in rows[other])
        self._part_out = _worth_sending((other, self._part) for other in others)
        self._parts_in = _worth_sending((other, self._sum[parts[other]]) for other in others)

    def add_up(self) -> np.ndarray:
        """The sum (size,) of the vectors of all ranks, which all call this; they are used up."""
        slices.add_pairs(self._memory, self._pairs)
        if self._partners.size > 1:
            self._partners.exchange(self._sums_out, self._sums_in)
            for row, own in self._own:
                row[:] = own
            slices.add_pairs(self._inbox, self._pairs_of_all)
            self._part[:] = self._inbox[0]
            self._partners.exchange(self._part_out, self._parts_in)
        return self._sum


def _worth_sending(parcels) -> Parcels:
    return [(rank, array) for rank, array in parcels if array.size]


def collect(own: np.ndarray, n_rows: int, partners: Partners) -> np.ndarray:
    """Rows (n_rows, n) of all ranks, on all ranks, from those that are this rank's.

    Parameters
    ----------
    own : (n own, n) float64, this rank's part of the rows, see `summation.cut`.
    """
    shares = [slice(*share) for share in cut(n_rows, partners.size)]
    rows = np.zeros((n_rows, own.shape[1]))
    rows[shares[partners.rank]] = own
    others = [rank for rank in range(partners.size) if rank != partners.rank]
    partners.exchange(
        _worth_sending((rank, rows[shares[partners.rank]]) for rank in others),
        _worth_sending((rank, rows[shares[rank]]) for rank in others),
    )
    return rows
