"""Conditions as text: `depth > 10 and shape in ['exponential', 'trapezoid']`.

The language is a small part of Python's: comparisons, also chained ones, `in` and `not in` with a
list, `and`, `or`, `not`, parentheses; numbers, powers such as 2**20, text, true and false, and the
keys of a run by their names. A single `=` is read as `==`, and a word that is no key stands for
itself, so that `dataset=mnist` can be typed without quotes. Python reads the text, but nothing of
it is executed.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minibutter.sweeps.conditions import AllOf, AnyOf, Comparison, Condition, Key, Not
from minibutter.sweeps.runspec import (
    SPEC_KEYS,
    Checks,
    RunSpec,
    SweepError,
    check_value,
    unknown_key,
)


def parse_condition(text: Any, where: str, checks: Checks) -> Condition:
    """Read a condition.

    Parameters
    ----------
    text : as it was written.
    where : begins the messages; names the file or the option, and the text.
    checks : functions that refuse names which other rooms do not know.

    Raises
    ------
    SweepError
        Naming what of the text cannot be, and why.
    """
    if not isinstance(text, str):
        raise SweepError(f"{where}: must be a string")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of 1and 2, say, which is refused or understood
            tree = ast.parse(_with_double_equals(text), mode="eval").body
        return Condition(text, _Reader(where, checks).read(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, SweepError):
            raise
        why = error.msg if isinstance(error, SyntaxError) else "too deep, or no text"
        raise SweepError(
            f"{where}: cannot be read ({why}); write it as in depth > 10 and dataset in "
            "['mnist', '201_pol'], with quotes around names that are not plain words"
        ) from None


def _with_double_equals(text: str) -> str:
    """One line, with == for =, but in quotes."""
    parts = re.split(r"""('[^']*'|"[^"]*")""", " ".join(text.strip().splitlines()))
    return "".join(
        part if quoted else re.sub(r"(?<![<>=!])=(?!=)", "==", part)
        for quoted, part in zip([False, True] * len(parts), parts, strict=False)
    )


@dataclass(frozen=True)
class _Word:
    """A name that is no key: text without quotes, or a mistake."""

    name: str


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, listed: value in listed,
    ast.NotIn: lambda value, listed: value not in listed,
}
_EQUALITY = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
_FLAGS = {"true": True, "false": False}


_NUMBER, _TEXT, _FLAG, _LIST = "a number", "text", "true or false", "a list"


def _kind(schema: dict[str, Any]) -> str:
    """What the values of a key are, from its JSON schema."""
    types = [option.get("type") for option in schema.get("anyOf", [schema])]
    kinds = {"string": _TEXT, "boolean": _FLAG, "array": _LIST}
    return next((kinds[each] for each in types if each in kinds), _NUMBER)


_KINDS = {key: _kind(each) for key, each in RunSpec.model_json_schema()["properties"].items()}


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return _FLAG
    return _TEXT if isinstance(value, str) else _NUMBER


class _Reader:
    """From Python's tree of a text to ours, with a refusal of all that the language lacks."""

    def __init__(self, where: str, checks: Checks) -> None:
        self._where, self._checks = where, checks

    def read(self, node: ast.expr) -> Any:
        """What is true or false of a cell."""
        match node:
            case ast.BoolOp(op=ast.And()):
                return AllOf(tuple(map(self.read, node.values)))
            case ast.BoolOp():
                return AnyOf(tuple(map(self.read, node.values)))
            case ast.UnaryOp(op=ast.Not()):
                return Not(self.read(node.operand))
            case ast.Compare():
                sides = [node.left, *node.comparators]
                pairs = zip(node.ops, sides[:-1], sides[1:], strict=True)
                return AllOf(tuple(self._comparison(*pair) for pair in pairs))
            case ast.Name() if _KINDS.get(node.id) == _FLAG:
                return Comparison(operator.eq, Key(node.id), True)
            case ast.Name() if node.id not in _KINDS:
                raise unknown_key(self._where, node.id, SPEC_KEYS)
        raise self._refusal(node, "is no comparison")

    def _comparison(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Comparison:
        if type(op) not in _COMPARE:
            raise self._refusal(right, "cannot follow `is`; compare with ==")
        first = self._side(left)
        second = self._listed(right) if isinstance(op, (ast.In, ast.NotIn)) else self._side(right)
        keys = [side.name for side in (first, second) if isinstance(side, Key)]
        words = [
            side
            for side in (first, *(second if isinstance(second, tuple) else (second,)))
            if not isinstance(side, Key)
        ]
        if not keys:
            unknown = [word.name for word in words if isinstance(word, _Word)]
            if unknown:
                raise unknown_key(self._where, unknown[0], SPEC_KEYS)
            raise self._refusal(left, "is compared, but with no key")
        kind = _KINDS[keys[0]]
        lists = [key for key in keys if _KINDS[key] == _LIST]
        if lists:
            hint = "; depth counts their layers" if "widths" in lists else ""
            raise SweepError(f"{self._where}: {lists[0]} cannot be compared{hint}")
        if kind != _NUMBER and not isinstance(op, _EQUALITY):
            raise SweepError(f"{self._where}: {keys[0]} has no order; compare with ==, != or in")
        for other in keys[1:]:
            if _KINDS[other] != kind:
                raise SweepError(f"{self._where}: {keys[0]} is {kind}, and {other} {_KINDS[other]}")
        for word in words:
            self._check(keys[0], kind, word)
        first, second = map(_plain, (first, second))
        return Comparison(_COMPARE[type(op)], first, second)

    def _check(self, key: str, kind: str, word: Any) -> None:
        """Refuse a value that the key cannot have."""
        if isinstance(word, _Word):
            if kind != _TEXT:
                raise unknown_key(self._where, word.name, SPEC_KEYS)
            word = word.name
        if _kind_of(word) != kind:
            raise SweepError(f"{self._where}: {key} is {kind}, and {word!r} {_kind_of(word)}")
        if kind == _TEXT:
            check_value(key, word, self._where, self._checks)

    def _listed(self, node: ast.expr) -> tuple[Any, ...]:
        if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            raise self._refusal(node, "follows `in`, but is no list; write [a, b]")
        listed = tuple(map(self._side, node.elts))
        if any(isinstance(each, Key) for each in listed):
            raise self._refusal(node, "lists a key; list values")
        return listed

    def _side(self, node: ast.expr) -> Any:
        """A key, a word or a value."""
        match node:
            case ast.Name() if node.id in _KINDS:
                return Key(node.id)
            case ast.Name():
                return _FLAGS.get(node.id, _Word(node.id))
            case ast.Constant(value=bool() | int() | float() | str()):
                return node.value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
                return -node.operand.value
            case ast.BinOp(
                left=ast.Constant(value=int() as base),
                op=ast.Pow(),
                right=ast.Constant(value=int() as exponent),
            ) if base <= 1000 and exponent < 64:
                return base**exponent
        raise self._refusal(node, "is neither a key nor a number nor text")

    def _refusal(self, node: ast.expr, why: str) -> SweepError:
        return SweepError(f"{self._where}: {ast.unparse(node)} {why}")


def _plain(side: Any) -> Any:
    """Words as text; keys and values as they are."""
    if isinstance(side, tuple):
        return tuple(map(_plain, side))
    return side.name if isinstance(side, _Word) else side
