"""What to run: `Sweep`, a union of grids of specifications, read from a TOML file.

Its top level holds what all grids share; each `[[grid]]` adds or replaces keys. A key with a list
is an axis and the grid is the product of its axes, less what `include` and `exclude` leave out;
keys of a `zip` move together. A file may extend others. Nothing is built: a sweep of millions of
cells takes the memory of its axes, and repeated experiments count once when it is planned.
`docs/sweeps.md` is the reference of the language.

Names that other rooms own (shapes, optimizers, data sets, ...) are checked by functions that the
caller passes in; types and ranges are checked here.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from minibutter.sweeps.cells import Cells
from minibutter.sweeps.document import LAYER_KEYS, Layer, make_grid, read_layer
from minibutter.sweeps.grid import Grid
from minibutter.sweeps.runspec import (
    SPEC_KEYS,
    Checks,
    RunSpec,
    SweepError,
    explain,
    unknown_key,
)
from minibutter.sweeps.selection import EVERYTHING, Selection

__all__ = [
    "SPEC_KEYS",
    "Cells",
    "Checks",
    "RunSpec",
    "Sweep",
    "SweepError",
    "catalogue",
    "explain",
    "load_sweep",
    "parse_sweep",
]

_SWEEP_KEYS = ("name", "description", "extends", "grid", *LAYER_KEYS)


@dataclass(frozen=True)
class Sweep:
    """A finite, ordered set of experiments, each with a number of repetitions.

    Attributes
    ----------
    name : from the file, or its stem.
    description : one line for people.
    experiments : pairs (specification, repetitions) in the order of the file, as `Cells`; a plain
        sequence of pairs is made such. The same specification may occur twice, whoever gives them
        identity decides.
    document : the sweep as it was written, for the record.
    selection : what of it is to be done now; the others belong to it all the same.
    """

    name: str
    description: str
    experiments: Sequence[tuple[RunSpec, int]]
    document: dict[str, Any]
    selection: Selection = EVERYTHING

    def __post_init__(self) -> None:
        if not isinstance(self.experiments, Cells):
            object.__setattr__(self, "experiments", Cells.of_pairs(self.experiments))

    @property
    def grids(self) -> tuple[Grid, ...]:
        """What `experiments` is the union of."""
        return self.experiments.grids


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


def load_sweep(
    source: str,
    checks: Checks | None = None,
    assignments: Mapping[str, Any] | None = None,
    selection: Selection = EVERYTHING,
) -> Sweep:
    """Read a sweep from a TOML file, or from the catalogue by its name.

    Parameters
    ----------
    source : path of a file, or a name from `catalogue`.
    checks : functions that refuse values which other rooms do not know.
    assignments : keys that take the place of the file's, in all its grids.
    selection : what of it is to be done now.

    Raises
    ------
    SweepError
        Naming the file, the grid, the key, the value and the rule that it breaks.
    """
    document = _read_document(source, Path())
    return _parse(document, checks or {}, assignments or {}, selection)


def parse_sweep(
    document: Mapping[str, Any],
    origin: str,
    checks: Checks | None = None,
    assignments: Mapping[str, Any] | None = None,
    selection: Selection = EVERYTHING,
) -> Sweep:
    """Build a sweep from what a TOML file holds.

    Parameters
    ----------
    document : top level of the file.
    origin : what to call it in messages; its stem is the name of a sweep that gives none, and files
        that it extends are looked for in its folder.
    checks, assignments, selection : as for `load_sweep`.
    """
    folder = Path(origin).parent
    written = _Document(origin, folder, str(Path(origin).absolute()), dict(document))
    return _parse(written, checks or {}, assignments or {}, selection)


class _Document(NamedTuple):
    """A file that was read: what to call it, where it lies, which it is, and what it holds."""

    origin: str
    folder: Path
    identity: str
    content: dict[str, Any]


def _read_document(source: str, folder: Path) -> _Document:
    """Find a file from a folder, or a name in the catalogue, and read it."""
    path = folder / source
    packaged = _catalogue_folder() / f"{source}.toml"
    if path.suffix != ".toml" and packaged.is_file():
        origin, identity, text = source, f"catalogue: {source}", packaged.read_text("utf-8")
    else:
        origin, identity = str(path), str(path.absolute().resolve())
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SweepError(
                f"{path}: no such file, and no sweep of the catalogue has this name; "
                f"the catalogue holds: {', '.join(catalogue())}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SweepError(f"{path}: cannot be read as a TOML file: {error}") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"{origin}: not valid TOML: {error}") from None
    return _Document(origin, path.parent, identity, content)


def _parse(
    document: _Document, checks: Checks, assignments: Mapping[str, Any], selection: Selection
) -> Sweep:
    content, origin = document.content, document.origin
    written = _read_layers(document, checks, ())
    record = content if written.bases is None else content | {"extended": written.bases}
    last: list[Layer] = []
    if assignments:
        last = [read_layer(assignments, "--set", checks)]
        record = record | {"set": dict(assignments)}
    grids = [make_grid([*layers, *last], where, checks) for where, layers in written.grids]
    name = _text(content, "name", origin, Path(origin).stem)
    if not name.strip() or name.startswith(".") or "/" in name:
        raise SweepError(
            f"{origin}: name = {name!r}: becomes the name of a folder, so it must not be empty, "
            "begin with a dot or contain a slash"
        )
    if not any(map(len, grids)):
        raise SweepError(f"{origin}: include and exclude leave nothing of it")
    description = _text(content, "description", origin, "")
    return Sweep(name, description, Cells(grids), record, selection)


class _Written(NamedTuple):
    """What a file says: the layers that its grids share, those of every grid after its name for
    messages, and the content of the files that it extends."""

    shared: list[Layer]
    grids: list[tuple[str, list[Layer]]]
    bases: dict[str, Any] | None


def _read_layers(document: _Document, checks: Checks, ancestors: tuple[_Document, ...]) -> _Written:
    content, origin = document.content, document.origin
    _refuse_cycle(document, ancestors)
    for key in content:
        if key not in _SWEEP_KEYS:
            raise unknown_key(origin, key, _SWEEP_KEYS)
    own = read_layer({key: content[key] for key in content if key in LAYER_KEYS}, origin, checks)
    shared: list[Layer] = []
    grids: list[tuple[str, list[Layer]]] = []
    bases: dict[str, Any] = {}
    for source in _read_extends(content, origin):
        base = _read_document(source, document.folder)
        written = _read_layers(base, checks, (*ancestors, document))
        shared += written.shared
        grids += [(where, [*layers, own]) for where, layers in written.grids]
        bases[source] = base.content | ({"extended": written.bases} if written.bases else {})
    shared.append(own)
    for number, table in enumerate(_read_tables(content, origin), start=1):
        where = f"{origin}: grid {number}"
        grids.append((where, [*shared, read_layer(table, where, checks)]))
    return _Written(shared, grids or [(origin, shared)], bases or None)


def _refuse_cycle(document: _Document, ancestors: tuple[_Document, ...]) -> None:
    if document.identity in (ancestor.identity for ancestor in ancestors):
        chain = " extends ".join(each.origin for each in (*ancestors, document))
        raise SweepError(f"{ancestors[-1].origin}: extends goes round in a circle: {chain}")


def _read_extends(content: Mapping[str, Any], origin: str) -> list[str]:
    sources = content.get("extends", [])
    sources = [sources] if isinstance(sources, str) else sources
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise SweepError(
            f"{origin}: extends = {sources!r}: must be the path of a file, from this one's folder, "
            "or a name of the catalogue, or a list of these"
        )
    return sources


def _read_tables(content: Mapping[str, Any], origin: str) -> list[dict[str, Any]]:
    tables = content.get("grid")
    if tables is None:
        return []
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SweepError(f"{origin}: grid = {tables!r}: write each grid under a heading [[grid]]")
    if not tables:
        raise SweepError(f"{origin}: grid = []: a sweep needs at least one grid")
    return tables


def _text(document: Mapping[str, Any], key: str, origin: str, default: str) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise SweepError(f"{origin}: {key} = {value!r}: must be a string")
    return value
