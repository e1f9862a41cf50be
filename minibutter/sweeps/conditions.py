"""Conditions on the keys of a sweep, and where they hold. `expression.py` reads them from text.

A condition is asked of whole columns: as every key has few values, a comparison is made once for
each of them, and looked up for the cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class KeyColumns(Protocol):
    """What conditions are asked of: every key has few values, and every cell one of them."""

    def __len__(self) -> int: ...

    def values(self, key: str) -> Sequence[Any]:
        """The values of a key, None where it is left open."""

    def codes(self, key: str) -> np.ndarray:
        """For every cell which of the values it has: integers of shape (n_cells,)."""


class Tree(Protocol):
    """A part of a condition."""

    def holds(self, columns: KeyColumns) -> np.ndarray:
        """Where it holds: bool of shape (n_cells,)."""


@dataclass(frozen=True)
class Condition:
    """A condition that was understood.

    Attributes
    ----------
    text : as it was written.
    tree : what it means.
    """

    text: str
    tree: Tree

    def holds(self, columns: KeyColumns) -> np.ndarray:
        """Where it holds: bool of shape (n_cells,)."""
        return self.tree.holds(columns)


def any_of(conditions: Sequence[Condition]) -> Condition:
    """The condition that at least one of some holds."""
    text = ", ".join(condition.text for condition in conditions)
    return Condition(text, AnyOf(tuple(condition.tree for condition in conditions)))


def none_of(conditions: Sequence[Condition]) -> Condition:
    """The condition that none of some holds."""
    some = any_of(conditions)
    return Condition(f"none of {some.text}", Not(some.tree))


@dataclass(frozen=True)
class AllOf:
    """All parts hold."""

    parts: tuple[Tree, ...]

    def holds(self, columns: KeyColumns) -> np.ndarray:
        return np.logical_and.reduce([part.holds(columns) for part in self.parts])


@dataclass(frozen=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Tree, ...]

    def holds(self, columns: KeyColumns) -> np.ndarray:
        return np.logical_or.reduce([part.holds(columns) for part in self.parts])


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Tree

    def holds(self, columns: KeyColumns) -> np.ndarray:
        return ~self.part.holds(columns)


@dataclass(frozen=True)
class Key:
    """The value of a key, on one side of a comparison."""

    name: str


@dataclass(frozen=True)
class Comparison:
    """Of two keys, or of a key and a value. With a key that is left open it does not hold."""

    compare: Callable[[Any, Any], bool]
    left: Any
    right: Any

    def holds(self, columns: KeyColumns) -> np.ndarray:
        sides = (self.left, self.right)
        lefts, rights = (
            columns.values(side.name) if isinstance(side, Key) else [side] for side in sides
        )
        table = np.array([[self._holds(left, right) for right in rights] for left in lefts])
        at = tuple(columns.codes(side.name) if isinstance(side, Key) else 0 for side in sides)
        return table[at]

    def _holds(self, left: Any, right: Any) -> bool:
        return left is not None and right is not None and bool(self.compare(left, right))
