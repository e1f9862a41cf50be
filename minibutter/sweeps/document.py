"""From the tables of a TOML file to grids: ranges, zips, conditions, and keys that replace others.

A grid is written in layers: what the file says of all grids, what a `[[grid]]` says, and before
them the layers of the file that it extends. A later layer replaces the keys of an earlier one;
conditions add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minibutter.sweeps.conditions import Condition, any_of, none_of
from minibutter.sweeps.expression import parse_condition
from minibutter.sweeps.grid import Axis, Grid
from minibutter.sweeps.runspec import (
    LIST_KEYS,
    SPEC_KEYS,
    Checks,
    SweepError,
    check_value,
    unknown_key,
)

MAX_REPETITIONS = 1_000_000
MAX_RANGE = 100_000
"""Values of a range; a mistyped one shall not fill the memory."""

LAYER_KEYS = ("repetitions", "zip", "include", "exclude", *SPEC_KEYS)

_RANGE_KEYS = ("first", "last", "step", "powers_of")
_QUOTIENT_KEYS = ("values", "divided_by")


@dataclass
class Layer:
    """Keys of one table of a file.

    Attributes
    ----------
    where : begins the messages about it.
    keys : of a run, with values as they were written.
    zips : by name, for each of its keys the values.
    conditions : all must hold.
    repetitions : None where it says nothing about them.
    """

    where: str
    keys: dict[str, Any] = field(default_factory=dict)
    zips: dict[str, dict[str, Any]] = field(default_factory=dict)
    conditions: list[Condition] = field(default_factory=list)
    repetitions: int | None = None


def read_layer(table: Mapping[str, Any], where: str, checks: Checks) -> Layer:
    """Read one table; its values are looked at when grids are made of it.

    Raises
    ------
    SweepError
        If a key is unknown, or repetitions, zips or conditions have another form.
    """
    for key in table:
        if key not in LAYER_KEYS:
            raise unknown_key(where, key, LAYER_KEYS)
    layer = Layer(where, {key: table[key] for key in table if key in SPEC_KEYS})
    if "repetitions" in table:
        layer.repetitions = _read_repetitions(table["repetitions"], where)
    layer.zips = _read_zips(table.get("zip", {}), layer)
    for key, combine in (("include", any_of), ("exclude", none_of)):
        texts = table.get(key, [])
        texts = texts if isinstance(texts, list) else [texts]
        parsed = [parse_condition(text, f"{where}: {key} = {text!r}", checks) for text in texts]
        if parsed:
            layer.conditions.append(combine(parsed))
    return layer


def _read_repetitions(repetitions: Any, where: str) -> int:
    is_count = isinstance(repetitions, int) and not isinstance(repetitions, bool)
    if not is_count or not 1 <= repetitions <= MAX_REPETITIONS:
        raise SweepError(
            f"{where}: repetitions = {repetitions!r}: must be a whole number from 1 to "
            f"{MAX_REPETITIONS}"
        )
    return repetitions


def _read_zips(zips: Any, layer: Layer) -> dict[str, dict[str, Any]]:
    form = "write it under a heading with a name of its own, as in [zip.NAME] or [grid.zip.NAME]"
    if not isinstance(zips, dict):
        raise SweepError(f"{layer.where}: zip = {zips!r}: {form}")
    seen = dict.fromkeys(layer.keys, "outside of it")
    for name, columns in zips.items():
        where = f"{layer.where}: zip.{name}"
        if not isinstance(columns, dict):
            raise SweepError(f"{where} = {columns!r}: {form}")
        for key in columns:
            if key not in SPEC_KEYS:
                raise unknown_key(where, key, SPEC_KEYS)
            if key in seen:
                raise SweepError(f"{where}: {key} is also given {seen[key]}; give it once")
            seen[key] = f"in zip.{name}"
    return {name: dict(columns) for name, columns in zips.items()}


def make_grid(layers: Sequence[Layer], where: str, checks: Checks) -> Grid:
    """One grid of its layers, the first replaced by the later ones.

    A key that a later layer gives leaves the zip in which an earlier one has it; rows of that zip
    which then are equal count once.

    Raises
    ------
    SweepError
        Naming the table, the key, the value and the rule that it breaks.
    """
    plain: dict[str, tuple[Any, str]] = {}
    zips: dict[str, tuple[dict[str, Any], str]] = {}
    repetitions = 1
    for layer in layers:
        given = {*layer.keys, *(key for columns in layer.zips.values() for key in columns)}
        zips = {
            name: ({key: columns[key] for key in columns if key not in given}, origin)
            for name, (columns, origin) in zips.items()
            if name not in layer.zips
        }
        # A key that is replaced keeps its place among the axes.
        plain = {key: plain[key] for key in plain if key not in given or key in layer.keys}
        plain |= {key: (value, layer.where) for key, value in layer.keys.items()}
        zips |= {name: (columns, layer.where) for name, columns in layer.zips.items()}
        repetitions = layer.repetitions or repetitions
    axes = [
        Axis((key,), tuple((value,) for value in _read_axis(key, written, origin, checks)))
        for key, (written, origin) in plain.items()
        if not _is_quotient(written)
    ]
    axes += [
        _zip_axis(columns, f"{origin}: zip.{name}", checks)
        for name, (columns, origin) in zips.items()
        if columns
    ]
    for key, (written, origin) in plain.items():
        if _is_quotient(written):
            axes = _with_quotient(axes, key, written, f"{origin}: {key}", checks)
    conditions = [condition for layer in layers for condition in layer.conditions]
    return Grid(axes, repetitions, conditions, where)


def _read_axis(key: str, written: Any, where: str, checks: Checks) -> list[Any]:
    """Values of a key: a list or a range is an axis, anything else a single value."""
    values = _spread(key, written, where)
    return [check_value(key, value, where, checks) for value in values]


def _spread(key: str, written: Any, where: str) -> list[Any]:
    if isinstance(written, dict):
        return _read_range(written, f"{where}: {key}")
    if not isinstance(written, list):
        return [(written,)] if key in LIST_KEYS and isinstance(written, str) else [written]
    if key in LIST_KEYS and not any(isinstance(item, list) for item in written):
        return [tuple(written)]
    if not written:
        raise SweepError(f"{where}: {key} = []: an axis needs at least one value")
    return [tuple(item) if isinstance(item, list) else item for item in written]


def _read_range(written: Mapping[str, Any], where: str) -> list[int]:
    """{first = 2, last = 10, step = 2}, or {powers_of = 2, first = 5, last = 25}."""
    for key in written:
        if key not in _RANGE_KEYS:
            raise unknown_key(where, key, (*_RANGE_KEYS, *_QUOTIENT_KEYS))
        if not isinstance(written[key], int) or isinstance(written[key], bool):
            raise SweepError(f"{where}.{key} = {written[key]!r}: must be a whole number")
    if not {"first", "last"} <= written.keys() or {"step", "powers_of"} <= written.keys():
        raise SweepError(
            f"{where}: a range has first and last, and either step or powers_of or neither, as in "
            "{ first = 2, last = 10 } or { powers_of = 2, first = 5, last = 25 }"
        )
    first, last = written["first"], written["last"]
    step, base = written.get("step", 1), written.get("powers_of")
    numbers = range(first, last + 1, step) if step > 0 else range(0)
    if not numbers:
        raise SweepError(
            f"{where}: there is nothing from {first} to {last} in steps of {step}; first must not "
            "exceed last, and a step is at least 1"
        )
    if len(numbers) > MAX_RANGE:
        raise SweepError(f"{where}: {len(numbers)} values are more than the {MAX_RANGE} of a range")
    if base is None:
        return list(numbers)
    if base < 2 or first < 0 or last > 63:
        raise SweepError(f"{where}: powers_of must be at least 2, first and last from 0 to 63")
    return [base**exponent for exponent in numbers]


def _zip_axis(columns: Mapping[str, Any], where: str, checks: Checks) -> Axis:
    values: dict[str, list[Any]] = {}
    for key, written in columns.items():
        if not isinstance(written, (list, dict)) or _is_quotient(written):
            raise SweepError(f"{where}: {key} = {written!r}: must be a list or a range")
        values[key] = _read_axis(key, written, where, checks)
    lengths = {key: len(column) for key, column in values.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise SweepError(f"{where}: its keys must have as many values each, but {counted}")
    return Axis(tuple(values), tuple(dict.fromkeys(zip(*values.values(), strict=True))))


def _is_quotient(written: Any) -> bool:
    return isinstance(written, dict) and any(key in written for key in _QUOTIENT_KEYS)


def _with_quotient(
    axes: list[Axis], key: str, written: Mapping[str, Any], where: str, checks: Checks
) -> list[Axis]:
    """{ values = [0.1, 0.2], divided_by = "size" }: the axis of size, with every quotient."""
    for part in written:
        if part not in _QUOTIENT_KEYS:
            raise unknown_key(where, part, _QUOTIENT_KEYS)
    values, divisor = written.get("values"), written.get("divided_by")
    if not isinstance(values, list) or not values or not isinstance(divisor, str):
        raise SweepError(f'{where}: write it as in {{ values = [0.1, 0.2], divided_by = "size" }}')
    number = next((n for n, axis in enumerate(axes) if divisor in axis.keys), None)
    if number is None:
        raise SweepError(f"{where} is divided by {divisor}, which is not given here")
    keys, rows = axes[number]
    place = keys.index(divisor)
    quotients = []
    for row in rows:
        for value in values:
            if not (_is_number(value) and _is_number(row[place])) or not row[place]:
                raise SweepError(
                    f"{where}: {value!r} cannot be divided by {divisor} = {row[place]!r}"
                )
            quotient = check_value(key, value / row[place], where.removesuffix(f": {key}"), checks)
            quotients.append((*row, quotient))
    return [*axes[:number], Axis((*keys, key), tuple(quotients)), *axes[number + 1 :]]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
