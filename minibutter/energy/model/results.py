"""What a fit comes to: plain frozen values that go to JSON and back."""

import json
from dataclasses import asdict, dataclass, fields
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from minibutter.energy.model.features import ModelError
from minibutter.energy.model.regression import Dependence, Merged

MODEL_VERSION = 2
"""Raised when a field changes its name or meaning."""

CONFIDENCE = 0.90
"""Of all intervals."""

MIN_EXPERIMENTS = 5
"""With fewer, leaving one out or drawing them anew says nothing."""


@dataclass(frozen=True)
class Coefficient:
    """A term's coefficient and its bootstrap interval.

    Attributes
    ----------
    term, unit : as in `forms`.
    value : None where the term is not in the fit.
    low, high : ends of the 90 % interval; None with `value`, with too few experiments, and in forms
        to compare with.
    reason : why `value`, `low` or `high` is None; None where none is.
    """

    term: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    reason: str | None


@dataclass(frozen=True)
class Scores:
    """How near predictions come; over configurations.

    Attributes
    ----------
    n_configurations : number of them.
    mape : mean absolute error, relative to the measurement.
    r2 : explained share of the variance of joules, most of which is in the largest networks.
    r2_log : the same of the logarithm, in which all sizes count; None where a prediction is 0.
    mean_ratio : mean of predicted over measured.
    within_10_percent : share of predictions.

    `r2` and `r2_log` are None where there is only one value.
    """

    n_configurations: int
    mape: float
    r2: float | None
    r2_log: float | None
    mean_ratio: float
    within_10_percent: float


@dataclass(frozen=True)
class Form:
    """A fitted form.

    Attributes
    ----------
    name : `hierarchy`, `butter_e`, `flops`, `time`, or `duration` for seconds.
    coefficients : of all terms.
    fitted, held_out : scores on the rows fitted, and on experiments left out; `held_out` is None
        with fewer experiments than `MIN_EXPERIMENTS`.
    condition_index : of the terms in the fit, weighted and scaled.
    dependences : terms in the fit that are hard to tell apart.
    merged : terms left out because they cannot be told from others.
    """

    name: str
    coefficients: tuple[Coefficient, ...]
    fitted: Scores
    held_out: Scores | None
    condition_index: float | None
    dependences: tuple[Dependence, ...]
    merged: tuple[Merged, ...]

    def value(self, term: str) -> float | None:
        """Coefficient of a term; None where it is not in the fit."""
        return next(c.value for c in self.coefficients if c.term == term)


@dataclass(frozen=True)
class Residuals:
    """Relative errors, predicted over measured minus 1, of the configurations of one level."""

    level: str
    n_configurations: int
    mape: float
    median: float
    held_out_mape: float | None


@dataclass(frozen=True)
class Row:
    """A configuration: what was measured and what the form `hierarchy` says.

    Energies are joules an epoch; `held_out_j` is of a fit without this experiment. `own_share` is
    the configuration's part in them: 1, but of energies of whole packages, which hold what ran
    beside it, the part that the form says it took, with its part of the static power. `level` is
    None where the caches are not known, `working_set_bytes` where results do not have it.
    """

    experiment_id: str
    n_runs: int
    n_train: int
    working_set_bytes: float | None
    level: str | None
    duration_s: float
    energy_j: float
    own_share: float
    predicted_j: float
    held_out_j: float | None


@dataclass(frozen=True)
class Replicates:
    """Bootstrap replicates, for intervals of predictions.

    Attributes
    ----------
    energy : coefficients of the terms in the form `hierarchy`, one tuple a replicate.
    duration : those of the form `duration`, of the same replicates.
    log_ratios : of every configuration the logarithm of measured energy over that of a fit, of
        energy and seconds, without its experiment; of whole packages what it may be of one of the
        experiments in it.
    """

    energy: tuple[tuple[float, ...], ...]
    duration: tuple[tuple[float, ...], ...]
    log_ratios: tuple[float, ...]


@dataclass(frozen=True)
class EnergyModel:
    """Joules an epoch of one kind of machine, from measured or from simulated energies.

    Attributes
    ----------
    kind : "measured" or "simulated": what it was fitted to.
    sources : counters. qualities : how many runs had energies of each quality.
    cpu_models : processors.
    n_runs, n_configurations, n_experiments : fitted.
    left_out : runs that were not, counted by the reason.
    caches : bytes a core has by level; None where they are not known.
    forms : `hierarchy` first, then those beside it.
    duration : seconds an epoch.
    variants : kernels and types that were measured.
    residuals : of `hierarchy` by level; empty where the caches are not known.
    rows : all configurations.
    replicates : None with fewer experiments than `MIN_EXPERIMENTS`.
    ranges : least and largest value of each feature fitted.
    notes : what a reader has to know, one sentence each.
    """

    version: int
    kind: str
    sources: tuple[str, ...]
    qualities: dict[str, int]
    cpu_models: tuple[str, ...]
    n_runs: int
    n_configurations: int
    n_experiments: int
    left_out: dict[str, int]
    caches: dict[str, int] | None
    forms: tuple[Form, ...]
    duration: Form
    variants: tuple[str, ...]
    residuals: tuple[Residuals, ...]
    rows: tuple[Row, ...]
    replicates: Replicates | None
    ranges: dict[str, tuple[float, float]]
    notes: tuple[str, ...]

    @property
    def hierarchy(self) -> Form:
        """The form that predicts."""
        return self.forms[0]


def to_json(value: Any) -> str:
    """A result as JSON, every float with all its digits."""
    return json.dumps(asdict(value), indent=1, allow_nan=False)


def model_from_json(text: str) -> EnergyModel:
    """The model that `to_json` wrote.

    Raises
    ------
    ModelError
        If the text is no such model, or of another version.
    """
    remedy = "write it again with `minibutter energy fit RESULTS --out DIR`"
    try:
        document = json.loads(text)
        version = document["version"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"this is no energy model; {remedy}") from None
    if version != MODEL_VERSION:
        raise ModelError(f"the model has version {version}, not {MODEL_VERSION}; {remedy}")
    try:
        return _restore(EnergyModel, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the model is damaged ({error}); {remedy}") from None


def _restore(kind: Any, value: Any) -> Any:
    """A value of JSON as the annotated type: tuples from lists, dataclasses from objects."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _restore(arguments[0], value)
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_restore(each, part) for each, part in zip(kinds, value, strict=True))
    if origin is dict:
        return {key: _restore(arguments[1], part) for key, part in value.items()}
    if hasattr(kind, "__dataclass_fields__"):
        hints = get_type_hints(kind)
        return kind(**{f.name: _restore(hints[f.name], value[f.name]) for f in fields(kind)})
    if not isinstance(value, int | float if kind is float else kind):
        raise TypeError(f"{value!r} where {kind.__name__} belongs")
    return kind(value)
