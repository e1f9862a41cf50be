"""What to run: `Sweep`, a union of grids of specifications (`runspec.RunSpec`).

A sweep is a TOML file. Its top level holds what all grids share; each `[[grid]]` adds or replaces
keys. A key with a list is an axis and the grid is the product of its axes, so combinations that
make no sense are simply not written. Repeated experiments count once.

Names that other rooms own (shapes, optimizers, data sets, ...) are checked by functions that the
caller passes in; types and ranges are checked here.
"""

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from minibutter.sweeps.runspec import (
    SPEC_KEYS,
    Checks,
    RunSpec,
    SweepError,
    check_value,
    explain,
    unknown_key,
)

__all__ = [
    "SPEC_KEYS",
    "Checks",
    "RunSpec",
    "Sweep",
    "SweepError",
    "catalogue",
    "explain",
    "load_sweep",
    "parse_sweep",
]

MAX_REPETITIONS = 1_000_000

_SWEEP_KEYS = ("name", "description", "repetitions", "grid")
_GRID_KEYS = ("repetitions", *SPEC_KEYS)


@dataclass(frozen=True)
class Sweep:
    """A finite, ordered set of experiments, each with a number of repetitions.

    Attributes
    ----------
    name : from the file, or its stem.
    description : one line for people.
    experiments : pairs (specification, repetitions) in the order of the file; the same
        specification may occur twice, whoever gives them identity decides.
    document : the sweep as it was written, for the record.
    """

    name: str
    description: str
    experiments: tuple[tuple[RunSpec, int], ...]
    document: dict[str, Any]


def catalogue() -> dict[str, str]:
    """Names of the sweeps that ship with the package, with their descriptions."""
    found = {}
    for entry in sorted(_catalogue_folder().iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            document = tomllib.loads(entry.read_text(encoding="utf-8"))
            found[entry.name.removesuffix(".toml")] = document.get("description", "")
    return found


def _catalogue_folder():
    return resources.files("minibutter.sweeps") / "catalog"


def load_sweep(source: str, checks: Checks | None = None) -> Sweep:
    """Read a sweep from a TOML file, or from the catalogue by its name.

    Parameters
    ----------
    source : path of a file, or a name from `catalogue`.
    checks : functions that refuse values which other rooms do not know.

    Raises
    ------
    SweepError
        Naming the file, the grid, the key, the value and the rule that it breaks.
    """
    path = Path(source)
    packaged = _catalogue_folder() / f"{source}.toml"
    if path.suffix != ".toml" and packaged.is_file():
        origin, text = source, packaged.read_text(encoding="utf-8")
    else:
        origin = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SweepError(
                f"{source}: no such file, and no sweep of the catalogue has this name; "
                f"the catalogue holds: {', '.join(catalogue())}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SweepError(f"{source}: cannot be read as a TOML file: {error}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"{origin}: not valid TOML: {error}") from None
    return parse_sweep(document, origin=origin, checks=checks)


def parse_sweep(document: Mapping[str, Any], origin: str, checks: Checks | None = None) -> Sweep:
    """Build a sweep from what a TOML file holds.

    Parameters
    ----------
    document : top level of the file.
    origin : what to call it in messages; its stem is the name of a sweep that gives none.
    checks : as for `load_sweep`.
    """
    for key in document:
        if key not in _SWEEP_KEYS and key not in SPEC_KEYS:
            raise unknown_key(origin, key, (*_SWEEP_KEYS, *SPEC_KEYS))
    shared = {key: document[key] for key in document if key in _GRID_KEYS}
    grids = document.get("grid", [{}])
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        raise SweepError(f"{origin}: grid = {grids!r}: write each grid under a heading [[grid]]")
    if not grids:
        raise SweepError(f"{origin}: grid = []: a sweep needs at least one grid")
    experiments: list[tuple[RunSpec, int]] = []
    for number, grid in enumerate(grids, start=1):
        where = f"{origin}: grid {number}" if "grid" in document else origin
        for key in grid:
            if key not in _GRID_KEYS:
                raise unknown_key(where, key, _GRID_KEYS)
        merged = {**shared, **grid}
        repetitions = merged.pop("repetitions", 1)
        is_count = isinstance(repetitions, int) and not isinstance(repetitions, bool)
        if not is_count or not 1 <= repetitions <= MAX_REPETITIONS:
            raise SweepError(
                f"{where}: repetitions = {repetitions!r}: must be a whole number from 1 to "
                f"{MAX_REPETITIONS}"
            )
        experiments += [(spec, repetitions) for spec in _expand(merged, where, checks or {})]
    name = _text(document, "name", origin, Path(origin).stem)
    if not name.strip() or name.startswith(".") or "/" in name:
        raise SweepError(
            f"{origin}: name = {name!r}: becomes the name of a folder, so it must not be empty, "
            "begin with a dot or contain a slash"
        )
    return Sweep(
        name=name,
        description=_text(document, "description", origin, ""),
        experiments=tuple(experiments),
        document=dict(document),
    )


def _text(document: Mapping[str, Any], key: str, origin: str, default: str) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise SweepError(f"{origin}: {key} = {value!r}: must be a string")
    return value


def _expand(merged: Mapping[str, Any], where: str, checks: Checks) -> list[RunSpec]:
    """The product of a grid's axes, the last key running fastest."""
    axes = {
        key: [check_value(key, value, where, checks) for value in _axis(key, value, where)]
        for key, value in merged.items()
    }
    specs = []
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        try:
            specs.append(RunSpec(**values))
        except ValidationError as error:
            raise SweepError(f"{where}: {explain(error)}") from None
    return specs


def _axis(key: str, value: Any, where: str) -> list:
    """Values of a key: a list is an axis, anything else a single value; widths are lists."""
    is_list = isinstance(value, list)
    if key == "widths" and is_list and not any(isinstance(item, list) for item in value):
        return [tuple(value)]
    if not is_list:
        return [value]
    if not value:
        raise SweepError(f"{where}: {key} = []: an axis needs at least one value")
    return [tuple(item) if isinstance(item, list) else item for item in value]
