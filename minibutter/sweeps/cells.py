"""`Cells`: the cells of a union of grids, one after the other, none of them built."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import numpy as np

from minibutter.sweeps.grid import Columns, Grid
from minibutter.sweeps.runspec import RunSpec


class Cells(Sequence[tuple[RunSpec, int]]):
    """Pairs (specification, repetitions), which are made when they are asked for.

    Attributes
    ----------
    grids : in the order of the file.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        self.grids = tuple(grids)
        self._ends = list(accumulate(map(len, self.grids)))

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[RunSpec, int]]) -> "Cells":
        """Cells that were made one by one."""
        groups = groupby(pairs, key=lambda pair: pair[1])
        return cls([Grid.of_specs([spec for spec, _ in group], count) for count, group in groups])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, cell):
        if isinstance(cell, slice):
            return [self[each] for each in range(len(self))[cell]]
        number = range(len(self))[cell]
        which = bisect_right(self._ends, number)
        grid = self.grids[which]
        return grid[number - self._ends[which] + len(grid)], grid.repetitions

    def __iter__(self) -> Iterator[tuple[RunSpec, int]]:
        for grid in self.grids:
            for spec in grid:
                yield spec, grid.repetitions

    def columns_of(self, cells: np.ndarray) -> Iterator[tuple[Columns, np.ndarray]]:
        """Some cells, grid by grid.

        Parameters
        ----------
        cells : int64, of shape (n,), in any order.

        Yields
        ------
        columns : those of one grid.
        places : where they stand among `cells`.
        """
        which = np.searchsorted(self._ends, cells, side="right")
        for number, grid in enumerate(self.grids):
            places = np.flatnonzero(which == number)
            if len(places):
                yield grid.columns(cells[places] - (self._ends[number] - len(grid))), places

    def numbers_of(self, key: str) -> np.ndarray:
        """Values of a key that are numbers: float64 of shape (n_cells,), NaN where it is open."""
        return np.concatenate([grid.columns().numbers_of(key) for grid in self.grids])

    def are_corners(self, cells: np.ndarray) -> np.ndarray:
        """Which of some cells are at one end of every axis of numbers, as far as these cells go.

        Parameters
        ----------
        cells : int64, of shape (n,).

        Returns
        -------
        ndarray of bool, of shape (n,); cells of different grids have nothing to do with each other.
        """
        are_corners = np.ones(len(cells), bool)
        for columns, places in self.columns_of(cells):
            for key in columns.keys_of_numbers():
                values = columns.numbers_of(key)
                extremes = np.nanmin(values), np.nanmax(values)
                are_corners[places] &= np.isin(values, extremes)
        return are_corners
