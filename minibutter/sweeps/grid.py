"""`Grid`: the product of axes, less what conditions take away; not built, but counted and indexed.

A cell is a number. Its digits, in the mixed radix of the lengths of the axes, are its places on
them, the last axis running fastest. So whole columns of a sweep come from a few divisions of an
array, and a question is asked once for every combination of the keys that matter to it, however
many cells share it (`Columns.distinct`).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from pydantic import ValidationError

from minibutter.sweeps.conditions import Condition
from minibutter.sweeps.runspec import RULE_KEYS, SPEC_KEYS, RunSpec, SweepError, explain

MAX_CELLS = 2**62
MAX_CONDITIONAL_CELLS = 2**28
"""Conditions look at every combination: of so many for about a minute."""

_CHUNK = 2**20
_DEFAULTS = {key: field.default for key, field in RunSpec.model_fields.items()}


class Axis(NamedTuple):
    """Keys that move together, usually one, and the rows of values that they take."""

    keys: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Grid(Sequence[RunSpec]):
    """A product of axes as a sequence of specifications, which are made when they are asked for.

    Attributes
    ----------
    repetitions : of every cell.
    n_combinations : cells before the conditions.
    """

    def __init__(
        self,
        axes: Iterable[Axis],
        repetitions: int = 1,
        conditions: Sequence[Condition] = (),
        where: str = "grid",
    ) -> None:
        """Take axes of valid values (`runspec.check_value`), no key on two of them.

        `where` begins the messages.

        Raises
        ------
        SweepError
            If a cell breaks a rule across keys, or there are more than can be counted.
        """
        self.repetitions = repetitions
        self.axes = tuple(axes)
        lengths = [len(axis.rows) for axis in self.axes]
        self.n_combinations = math.prod(lengths)
        limit = MAX_CONDITIONAL_CELLS if conditions else MAX_CELLS
        if self.n_combinations > limit:
            looked_at = " for include and exclude to look at" if conditions else ""
            raise SweepError(
                f"{where}: {self.n_combinations} combinations are more than {limit}, which is too "
                f"many{looked_at}; write shorter axes, or several grids"
            )
        self.strides = [math.prod(lengths[number + 1 :]) for number in range(len(lengths))]
        self._constants = {
            key: value
            for axis in self.axes
            if len(axis.rows) == 1
            for key, value in zip(axis.keys, axis.rows[0], strict=True)
        }
        self._varying = [
            (axis, stride)
            for axis, stride in zip(self.axes, self.strides, strict=True)
            if len(axis.rows) > 1
        ]
        self.kept = self._find_kept(conditions) if conditions else None
        self._check_rules(where)

    @classmethod
    def of_specs(cls, specs: Iterable[RunSpec], repetitions: int = 1) -> "Grid":
        """Specifications that were made one by one, as rows of a single axis."""
        rows = tuple(tuple(getattr(spec, key) for key in SPEC_KEYS) for spec in specs)
        return cls([Axis(SPEC_KEYS, rows)], repetitions)

    def __len__(self) -> int:
        return self.n_combinations if self.kept is None else len(self.kept)

    @overload
    def __getitem__(self, cell: int) -> RunSpec: ...

    @overload
    def __getitem__(self, cell: slice) -> list[RunSpec]: ...

    def __getitem__(self, cell: int | slice) -> RunSpec | list[RunSpec]:
        if isinstance(cell, slice):
            return [self[each] for each in range(len(self))[cell]]
        number = range(len(self))[cell]
        if self.kept is not None:
            number = int(self.kept[number])
        values = dict(self._constants)
        for (keys, rows), stride in self._varying:
            values |= zip(keys, rows[number // stride % len(rows)], strict=True)
        return RunSpec(**values)

    def columns(self, cells: np.ndarray | None = None) -> "Columns":
        """Some cells, or all, column by column; `cells` are integers of shape (n,)."""
        if cells is None:
            return Columns(self, np.arange(len(self)) if self.kept is None else self.kept)
        return Columns(self, cells if self.kept is None else self.kept[cells])

    def _find_kept(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Numbers of the combinations for which all conditions hold, int64."""
        kept = []
        for start in range(0, self.n_combinations, _CHUNK):
            numbers = np.arange(start, min(start + _CHUNK, self.n_combinations))
            chunk = Columns(self, numbers)
            for condition in conditions:
                chunk = Columns(self, chunk.numbers[chunk.where(condition)])
            kept.append(chunk.numbers)
        return np.concatenate(kept)

    def _check_rules(self, where: str) -> None:
        """Make one specification of every combination of the keys that its rules read."""
        if self.kept is not None:
            cells, _ = self.columns().distinct(RULE_KEYS)
        else:
            cells = np.zeros(1, np.int64)
            for axis, stride in self._varying:
                if not set(RULE_KEYS).isdisjoint(axis.keys):
                    places = stride * np.arange(len(axis.rows))
                    cells = np.add.outer(cells, places).ravel()
        for cell in cells.tolist():
            try:
                self[cell]
            except ValidationError as error:
                raise SweepError(f"{where}: {explain(error)}") from None


class Columns:
    """Cells of a grid, column by column: a few values, and for every cell which of them it has.

    Attributes
    ----------
    numbers : of the cells among all combinations of the grid, int64.
    """

    def __init__(self, grid: Grid, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self._grid = grid
        self._at = {
            key: (number, place)
            for number, axis in enumerate(grid.axes)
            for place, key in enumerate(axis.keys)
        }

    def __len__(self) -> int:
        return len(self.numbers)

    def values(self, key: str) -> list[Any]:
        """Values of a key, one for every place on its axis; a default where it has none."""
        if key not in self._at:
            return [_DEFAULTS[key]]
        number, place = self._at[key]
        return [row[place] for row in self._grid.axes[number].rows]

    def codes(self, key: str) -> np.ndarray:
        """Which of `values` each cell has: int64 of shape (n_cells,)."""
        if key not in self._at:
            return np.zeros(len(self), np.int64)
        return self._places(self._at[key][0])

    def keys_of_numbers(self) -> list[str]:
        """Keys on an axis of several rows whose values are numbers."""
        return [
            key
            for key, (number, _) in self._at.items()
            if len(self._grid.axes[number].rows) > 1
            and all(type(value) in (int, float) for value in self.values(key))
        ]

    def numbers_of(self, key: str) -> np.ndarray:
        """Values of a key that are numbers: float64 of shape (n_cells,), NaN where it is open."""
        values = [math.nan if value is None else value for value in self.values(key)]
        return np.array(values, np.float64)[self.codes(key)]

    def where(self, condition: Condition) -> np.ndarray:
        """Where a condition holds: booleans of shape (n_cells,)."""
        return condition.holds(_WithDepth(self._grid, self.numbers))

    def distinct(self, keys: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """The combinations of some keys that occur.

        Returns
        -------
        cells : for every combination the first cell that has it, as `Grid` counts: (n_distinct,).
        codes : for every cell which of them it has: (n_cells,).
        """
        axes = sorted({self._at[key][0] for key in keys if key in self._at})
        code, n_codes = np.zeros(len(self), np.int64), 1
        for number in axes:
            length = len(self._grid.axes[number].rows)
            if length > 1:
                code, n_codes = code * length + self._places(number), n_codes * length
        if n_codes > 8 * len(self):
            _, cells, codes = np.unique(code, return_index=True, return_inverse=True)
            return cells, codes
        first = np.full(n_codes, -1)
        first[code[::-1]] = np.arange(len(self))[::-1]
        occurs = first >= 0
        return first[occurs], (np.cumsum(occurs) - 1)[code]

    def rows(self, keys: Sequence[str], cells: np.ndarray) -> list[tuple[Any, ...]]:
        """Values of some keys of some cells, one tuple a cell; `cells` count these columns'."""
        chosen = Columns(self._grid, self.numbers[cells])
        columns = [map(chosen.values(key).__getitem__, chosen.codes(key).tolist()) for key in keys]
        return list(zip(*columns, strict=True))

    def _places(self, number: int) -> np.ndarray:
        length = len(self._grid.axes[number].rows)
        return self.numbers // self._grid.strides[number] % length


class _WithDepth(Columns):
    """As conditions see them: a network of given widths has a depth, too."""

    def values(self, key: str) -> list[Any]:
        if key == "depth" and "widths" in self._at:
            lengths = [widths and len(widths) for widths in super().values("widths")]
            if "depth" not in self._at:
                return lengths
            # Specifications that were made one by one have both keys, on the same axis.
            return [a or b for a, b in zip(super().values("depth"), lengths, strict=True)]
        return super().values(key)

    def codes(self, key: str) -> np.ndarray:
        return super().codes("widths" if key == "depth" and "widths" in self._at else key)
