"""Synthetic data sets, made from a seed: of any size, with a difficulty that is known.

A generator is written with its arguments, `gaussian_regression:dimension=4,seed=7`; what is left
out takes its default. `canonical_reference` writes all of them out in sorted order, so that two
spellings of one data set are one data set. The inputs are standard normal or near it, not scaled
to [0, 1].
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minibutter.datasets.dataset import Dataset, DatasetError, DatasetInfo
from minibutter.datasets.encoding import one_hot


@dataclass(frozen=True)
class Argument:
    """An argument of a generator; its type is that of its default."""

    default: int | float
    low: int | float
    high: int | float


# More elements than this in x (8 GiB of float32) is a misprint.
MAX_ELEMENTS = 2**31

_COMMON = {
    "dimension": Argument(8, 1, 1_000_000),
    "rows": Argument(1000, 2, 100_000_000),
    "seed": Argument(0, 0, 2**63 - 1),
}
ARGUMENTS = {
    "gaussian_classification": {
        **_COMMON,
        "classes": Argument(3, 2, 1000),
        "noise": Argument(0.5, 0.0, 1e6),
    },
    "gaussian_regression": {**_COMMON, "noise": Argument(0.1, 0.0, 1e6)},
}


def is_generator(reference: str) -> bool:
    """Whether a reference names a generator, with arguments or without."""
    return reference.partition(":")[0] in ARGUMENTS


def parse_generator(reference: str) -> tuple[str, dict[str, int | float]]:
    """Take a reference apart: the generator, and all its arguments in sorted order.

    Raises
    ------
    DatasetError
        When an argument is unknown, repeated, not a number of its type or out of its range, and
        when the arguments contradict each other.
    """
    generator, _, written = reference.partition(":")
    known = ARGUMENTS[generator]
    values = {name: known[name].default for name in sorted(known)}
    seen = set()
    for item in written.split(",") if written else []:
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals:
            raise DatasetError(f"{item!r} in {reference!r} is not of the form argument=value")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DatasetError(
                f"{generator} has no argument {name!r} (in {reference!r}); {hint}"
                f"Its arguments are {', '.join(values)}"
            )
        if name in seen:
            raise DatasetError(f"{name} is given twice in {reference!r}; leave one")
        seen.add(name)
        values[name] = _parse_value(name, text, known[name], reference)
    if values["rows"] * values["dimension"] > MAX_ELEMENTS:
        raise DatasetError(
            f"rows × dimension of {reference!r} is {values['rows'] * values['dimension']};"
            f" it must be at most {MAX_ELEMENTS}"
        )
    if values["rows"] < values.get("classes", 0):
        raise DatasetError(
            f"rows is {values['rows']} in {reference!r}; it must be at least the number of classes,"
            f" {values['classes']}"
        )
    return generator, values


def _parse_value(name: str, text: str, argument: Argument, reference: str) -> int | float:
    kind = type(argument.default)
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not argument.low <= value <= argument.high:  # false for NaN, too
        noun = "an integer" if kind is int else "a number"
        raise DatasetError(
            f"{name} is {text!r} in {reference!r}; it must be {noun} from {argument.low} to"
            f" {argument.high}"
        )
    return value


def canonical_generator(reference: str) -> str:
    """The one spelling of a synthetic data set: all arguments, sorted, numbers in Python's form."""
    generator, values = parse_generator(reference)
    return f"{generator}:" + ",".join(f"{name}={value!r}" for name, value in values.items())


def describe_generator(reference: str) -> DatasetInfo:
    """Task and dimensions of a synthetic data set, from its arguments alone."""
    generator, values = parse_generator(reference)
    if generator == "gaussian_regression":
        task, n_outputs = "regression", 1
    elif values["classes"] == 2:
        task, n_outputs = "binary", 1
    else:
        task, n_outputs = "classification", values["classes"]
    name = canonical_generator(reference)
    return DatasetInfo(name, task, values["rows"], values["dimension"], n_outputs)


def generate(reference: str) -> Dataset:
    """Make a synthetic data set.

    Parameters
    ----------
    reference : str, a generator with its arguments

    Returns
    -------
    dataset : Dataset

    Raises
    ------
    DatasetError
        For arguments that `parse_generator` refuses.
    """
    generator, values = parse_generator(reference)
    # The generator's name is part of the seed, so that seed 0 means other numbers in each.
    rng = np.random.default_rng([int.from_bytes(generator.encode()), values.pop("seed")])
    x, y = _MAKERS[generator](rng, **values)
    return Dataset(
        describe_generator(reference),
        x.astype(np.float32),
        y.astype(np.float32),
        source=f"minibutter, NumPy {np.__version__}",
        sha256=None,
    )


def _gaussian_classification(
    rng: np.random.Generator, *, classes: int, dimension: int, noise: float, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """One round cloud of standard deviation `noise` for each class.

    The centres are N(0, 1/dimension) in each coordinate: about √2 apart whatever the dimension.
    The classes are equally frequent, up to one row, and their order is random.
    """
    centres = rng.normal(0, dimension**-0.5, size=(classes, dimension))
    labels = rng.permutation(np.arange(rows) % classes)
    x = rng.normal(0, noise, size=(rows, dimension))
    x += centres[labels]
    return x, labels[:, None] if classes == 2 else one_hot(labels, classes)


def _gaussian_regression(
    rng: np.random.Generator, *, dimension: int, noise: float, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """y = 2u / (1 + u²) + N(0, noise²), scaled to [0, 1]; u is x along a random direction.

    The curve rises from -1 at u = -1 to 1 at u = 1 and falls back to 0 outside, so that a linear
    model does not suffice. Sigmoid outputs are why the result is scaled.
    """
    direction = rng.normal(size=dimension)
    direction /= np.sqrt((direction**2).sum())
    x = rng.normal(size=(rows, dimension))
    # A sum and not `@`: the order of a BLAS sum depends on the machine.
    u = (x * direction).sum(axis=1)
    y = 2 * u / (1 + u**2) + rng.normal(0, noise, size=rows)
    return x, ((y - y.min()) / (y.max() - y.min()))[:, None]


_MAKERS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "gaussian_classification": _gaussian_classification,
    "gaussian_regression": _gaussian_regression,
}
