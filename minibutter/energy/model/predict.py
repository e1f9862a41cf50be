"""Kilowatt-hours of a sweep that has not been run, from a model: never measured, and so labelled.

Seconds of an epoch come from the form `duration`, joules from them and the form `hierarchy`. The
interval has two parts: every bootstrap replicate of the fit predicts the whole sweep, and
multiplies each experiment by an error that the fit made in one it had not seen. Networks of one
kernel whose FLOPs lie within a factor of two get the same error, because what a model misses of a
network it misses of its like; different errors would average out in a sweep of many like networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibutter.energy.model.features import Features, ModelError
from minibutter.energy.model.forms import Design, duration_design, hierarchy_design
from minibutter.energy.model.results import CONFIDENCE, EnergyModel, Form

JOULES_PER_KWH = 3.6e6

_N_DRAWS = 4000

ASSUMPTIONS = (
    "the same kind of machine, at the same frequency, as the one that the model was fitted to",
    "one run at a time on a package; runs beside each other share static power and take less",
    "repetitions one by one; trained together in lanes they take less",
    "every run to its last epoch; compilation, loading of data and idling are not in it",
)


@dataclass(frozen=True)
class Planned:
    """What is to be run; every sequence has an entry for each of n experiments.

    Attributes
    ----------
    titles : the experiments in a few words.
    features : of them.
    epochs, repetitions : int, shape (n,).
    """

    titles: Sequence[str]
    features: Features
    epochs: np.ndarray
    repetitions: np.ndarray


@dataclass(frozen=True)
class PredictedExperiment:
    """All repetitions of one experiment.

    Attributes
    ----------
    title : the experiment in a few words.
    n_runs : repetitions.
    duration_s : modelled seconds of all runs, one after the other.
    energy_kwh, low_kwh, high_kwh : modelled energy and its 90 % interval; its ends are None where
        the model has none.
    outside : features that lie beyond all that was fitted.
    """

    title: str
    n_runs: int
    duration_s: float
    energy_kwh: float
    low_kwh: float | None
    high_kwh: float | None
    outside: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """A sweep's energy.

    Attributes
    ----------
    energy_quality : always "modelled".
    kind : "measured" or "simulated": what the model was fitted to.
    energy_kwh, low_kwh, high_kwh : of the whole sweep, with its 90 % interval.
    static_kwh : the part that is static power times time; None where no such term was fitted.
    duration_s : of all runs, one after the other.
    experiments : in the order of the plan.
    assumptions, notes : one sentence each.
    """

    energy_quality: str
    kind: str
    energy_kwh: float
    low_kwh: float | None
    high_kwh: float | None
    static_kwh: float | None
    duration_s: float
    experiments: tuple[PredictedExperiment, ...]
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]


def predict_energy(model: EnergyModel, planned: Planned, seed: int = 0) -> Prediction:
    """Energy and duration of experiments that have not been run.

    Parameters
    ----------
    model : from `fit_energy`.
    planned : at least one experiment.
    seed : of the draws for the interval.

    Raises
    ------
    ModelError
        If a kernel or type was not measured, or a level that the model needs is not known.
    """
    features = planned.features
    _require_known(model, features)
    n_epochs = (planned.epochs * planned.repetitions).astype(np.float64)
    to_seconds = _columns(model.duration, duration_design(features, model.variants))
    seconds = to_seconds @ _values(model.duration)
    design = hierarchy_design(features, seconds)
    to_joules = _columns(model.hierarchy, design)
    kwh = to_joules @ _values(model.hierarchy) * n_epochs / JOULES_PER_KWH
    power_w = model.hierarchy.value("static_power_w")
    lows, highs, low, high = _intervals(model, features, n_epochs, to_seconds, to_joules, seed)
    outside = _outside(model, features)
    experiments = tuple(
        PredictedExperiment(
            title=planned.titles[i],
            n_runs=int(planned.repetitions[i]),
            duration_s=float(seconds[i] * n_epochs[i]),
            energy_kwh=float(kwh[i]),
            low_kwh=lows[i],
            high_kwh=highs[i],
            outside=outside[i],
        )
        for i in range(len(kwh))
    )
    total_s = float(seconds @ n_epochs)
    return Prediction(
        energy_quality="modelled",
        kind=model.kind,
        energy_kwh=float(kwh.sum()),
        low_kwh=low,
        high_kwh=high,
        static_kwh=None if power_w is None else power_w * total_s / JOULES_PER_KWH,
        duration_s=total_s,
        experiments=experiments,
        assumptions=ASSUMPTIONS,
        notes=_notes(model, outside),
    )


def _require_known(model: EnergyModel, features: Features) -> None:
    unknown = sorted(set(features.variants) - set(model.variants))
    if unknown:
        raise ModelError(
            f"the model has not seen {', '.join(unknown)}, only {', '.join(model.variants)}; fit "
            "one to results that have it, or change kernel and dtype of the sweep"
        )
    for form in (model.hierarchy, model.duration):
        for coefficient in form.coefficients:
            _, _, rest = coefficient.term.partition("_per_")
            level = rest.removesuffix("_byte_j").removesuffix("_byte_s")
            if level != rest and coefficient.value and level not in features.traffic_bytes:
                raise ModelError(
                    f"the model needs the bytes of level {level}, which this machine does not "
                    "have; predict on a machine like the one that was measured"
                )


def _values(form: Form) -> np.ndarray:
    return np.array([c.value for c in form.coefficients if c.value is not None])


def _columns(form: Form, design: Design) -> np.ndarray:
    """The columns of a design that are in the fit, in the order of the fit."""
    places = {name: place for place, name in enumerate(design.names)}
    n = len(design.matrix)
    # A level that the machine does not have and the model makes nothing of: nothing goes there.
    columns = [
        design.matrix[:, places[c.term]] if c.term in places else np.zeros(n)
        for c in form.coefficients
        if c.value is not None
    ]
    return np.column_stack(columns)


def _intervals(
    model: EnergyModel,
    features: Features,
    n_epochs: np.ndarray,
    to_seconds: np.ndarray,
    to_joules: np.ndarray,
    seed: int,
) -> tuple[list[float | None], list[float | None], float | None, float | None]:
    """Ends of the intervals of every experiment, and of their sum."""
    n = len(n_epochs)
    if model.replicates is None:
        return [None] * n, [None] * n, None, None
    energy, duration = (
        np.array(replicates) for replicates in (model.replicates.energy, model.replicates.duration)
    )
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(energy), size=_N_DRAWS)
    is_time = np.array(
        [c.term == "static_power_w" for c in model.hierarchy.coefficients if c.value is not None]
    )
    seconds = duration[drawn] @ to_seconds.T
    joules = energy[drawn][:, ~is_time] @ to_joules[:, ~is_time].T
    joules += seconds * energy[drawn][:, is_time].sum(axis=1, keepdims=True)
    like = [
        (variant, int(binade))
        for variant, binade in zip(
            features.variants, np.floor(np.log2(features.flops)), strict=True
        )
    ]
    _, like_of_row = np.unique(np.array([str(each) for each in like]), return_inverse=True)
    errors = rng.choice(np.array(model.replicates.log_ratios), (_N_DRAWS, like_of_row.max() + 1))
    kwh = joules * np.exp(errors)[:, like_of_row] * n_epochs / JOULES_PER_KWH
    tail = (1 - CONFIDENCE) / 2
    lows, highs = np.quantile(kwh, [tail, 1 - tail], axis=0)
    low, high = np.quantile(kwh.sum(axis=1), [tail, 1 - tail])
    return lows.tolist(), highs.tolist(), float(low), float(high)


def _outside(model: EnergyModel, features: Features) -> list[tuple[str, ...]]:
    """Of every experiment the features that nothing fitted comes within a factor of two of."""
    values = {"flops": features.flops, "steps": features.n_steps, "depth": features.depth}
    values |= {f"{level} bytes": moved for level, moved in features.traffic_bytes.items()}
    found: list[tuple[str, ...]] = [() for _ in features.flops]
    for name, of_rows in values.items():
        low, high = model.ranges.get(name, (0.0, 0.0))
        for row in np.flatnonzero((of_rows < low / 2) | (of_rows > high * 2)):
            found[row] += (name,)
    return found


def _notes(model: EnergyModel, outside: list[tuple[str, ...]]) -> tuple[str, ...]:
    notes = []
    n_outside = sum(map(bool, outside))
    if n_outside:
        names = ", ".join(dict.fromkeys(name for each in outside for name in each))
        notes.append(
            f"{n_outside} of {len(outside)} experiments lie beyond what was fitted ({names}): "
            "there the interval is too narrow"
        )
    if model.replicates is None:
        notes.append("the model was fitted to too few experiments for an interval")
    if any(quality.endswith("_package") for quality in model.qualities):
        notes.append(
            "seconds were measured of runs beside each other on a package; alone, one may be faster"
        )
    if model.kind == "simulated":
        notes.append("the model was fitted to simulated energies: it says nothing about a machine")
    return tuple(notes)
