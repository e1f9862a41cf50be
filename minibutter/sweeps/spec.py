"""What to run: `RunSpec`, everything a run is made from, and `Sweep`, a union of grids of them.

A sweep is a TOML file. Its top level holds what all grids share; each `[[grid]]` adds or replaces
keys. A key with a list is an axis and the grid is the product of its axes, so combinations that
make no sense are simply not written. Repeated experiments count once.

Names that other rooms own (shapes, optimizers, data sets, ...) are checked by functions that the
caller passes in; types and ranges are checked here.
"""

import difflib
import itertools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

Checks = Mapping[str, Callable[[Any], None]]
"""For a key of `RunSpec`: a function that raises ValueError when the value cannot be."""


# What the columns of the results can hold, and what a mistyped zero must not ask for.
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
LargeCount = Annotated[int, Field(ge=1, le=2**63 - 1)]
MAX_DEPTH = 1000
MAX_REPETITIONS = 1_000_000


class SweepError(ValueError):
    """A sweep cannot be read; the message names file, key, value and rule."""


class RunSpec(BaseModel):
    """Everything that determines a run, but the number of its repetition. Defaults are BUTTER's.

    Either `size` and `depth` say how large the network is, and `shape` how it narrows, or `widths`
    lists the units of every layer, the output layer last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: str = Field(min_length=1, description="name, generator or path of the data set")
    target: str | None = Field(None, description="target column of a local file")
    task: Literal["regression", "classification"] | None = Field(
        None, description="how to read the target of a local file; inferred when left out"
    )
    shape: str = Field("rectangle", description="outline of the network")
    size: LargeCount | None = Field(None, description="trainable parameters wanted")
    depth: Annotated[int, Field(ge=2, le=MAX_DEPTH)] | None = Field(
        None, description="dense layers, the output layer included"
    )
    widths: Annotated[tuple[Count, ...], Field(max_length=MAX_DEPTH)] | None = Field(
        None, description="units of every layer, instead of size and depth"
    )
    activation: str = Field("relu", description="of the hidden layers")
    initializer: str = Field("glorot_uniform", description="distribution of the first weights")
    optimizer: str = Field("adam", description="update rule")
    learning_rate: FiniteFloat = Field(1e-4, gt=0, description="step size")
    momentum: FiniteFloat = Field(0.0, ge=0, lt=1, description="of sgd and rmsprop")
    batch_size: Count = Field(256, description="rows per step")
    epochs: Count = Field(3000, description="passes over the training set")
    l1: FiniteFloat = Field(0.0, ge=0, description="penalty on Σ|w| of every layer")
    l2: FiniteFloat = Field(0.0, ge=0, description="penalty on Σw² of every layer")
    label_noise: FiniteFloat = Field(
        0.0, ge=0, le=1, description="fraction of wrong training labels; for regression the noise"
        " in standard deviations of the target",
    )  # fmt: skip
    test_split: FiniteFloat = Field(0.2, gt=0, lt=1, description="fraction of rows for testing")
    split_method: Literal["shuffled", "last"] = Field(
        "shuffled", description="draw the test rows in every repetition, or take the last ones"
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of training")
    kernel: str = Field("tiled", description="rung of the matrix product ladder")
    tile_rows: Count | None = Field(
        None,
        description="rows of the register tile; like the sizes below, the machine's if left out",
    )
    tile_columns: Count | None = Field(
        None, description="columns of the register tile, whole cache lines"
    )
    block_rows: Count | None = Field(None, description="rows of a cache block")
    block_depth: Count | None = Field(None, description="products of a sum in a cache block")
    block_columns: Count | None = Field(None, description="columns of a cache block")
    cache_state: Literal["warm", "cold"] = Field(
        "warm", description="of the caches at the start of an epoch: as the one before has left"
        " them, or emptied",
    )  # fmt: skip
    seed: int = Field(0, ge=0, le=2**63 - 1, description="root of all random streams")
    evaluate_train: bool = Field(
        False, description="evaluate the training set after every epoch too"
    )
    on_divergence: Literal["continue", "stop"] = Field(
        "continue", description="what to do after the first epoch with NaN or inf"
    )

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "RunSpec":
        if self.widths is None and (self.size is None or self.depth is None):
            missing = [key for key in ("size", "depth") if getattr(self, key) is None]
            raise ValueError(
                f"{' and '.join(missing)} missing: give size and depth (with shape), or widths"
            )
        if self.widths is not None and (self.size is not None or self.depth is not None):
            raise ValueError("widths stand instead of size and depth; give one or the other")
        if self.widths is not None and len(self.widths) < 2:
            raise ValueError(
                "widths needs at least one hidden layer and the output layer, as in [17, 17, 7]"
            )
        if self.optimizer == "adam" and self.momentum != 0:
            raise ValueError(
                f"momentum = {self.momentum} with optimizer = 'adam', which has its own; "
                "leave momentum out, or use sgd or rmsprop"
            )
        return self

    def canonical(self) -> dict[str, Any]:
        """The specification as plain values, with one spelling for what is the same network.

        All shapes coincide at depth 2, one hidden layer, and explicit widths leave of the shape
        only whether there are skips. Warm caches are not mentioned: they are what there always
        was, and ids do not change with every new field.
        """
        content = self.model_dump(mode="json")
        if self.cache_state == "warm":
            del content["cache_state"]
        depth = self.depth if self.widths is None else len(self.widths)
        is_residual = self.shape == "rectangle_residual"
        if depth == 2 or (self.widths is not None and not is_residual):
            content["shape"] = "rectangle"
        return content


SPEC_KEYS: tuple[str, ...] = tuple(RunSpec.model_fields)
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
            raise _unknown_key(origin, key, (*_SWEEP_KEYS, *SPEC_KEYS))
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
                raise _unknown_key(where, key, _GRID_KEYS)
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
    axes = {key: _axis(key, value, where) for key, value in merged.items()}
    for key, values in axes.items():
        for value in values:
            try:
                if key in checks:
                    checks[key](value)
            except ValueError as error:
                raise SweepError(f"{where}: {key} = {value!r}: {error}") from None
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


def explain(error: ValidationError) -> str:
    """One line for the first thing that is wrong with a specification: key = value: rule."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    # TOML has lists where Python has tuples.
    message = message.replace("Input should be", "must be").replace("valid tuple", "list")
    key = first["loc"][0] if first["loc"] else None
    if first["type"] == "missing":
        return f"{key} is missing: every run needs one"
    return f"{key} = {first['input']!r}: {message}" if key else message


def _unknown_key(where: str, key: str, known: tuple[str, ...]) -> SweepError:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
    return SweepError(f"{where}: {key}: unknown key; {hint}")
