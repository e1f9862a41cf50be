"""Fit all forms to the same observations and say what each is worth."""

from dataclasses import dataclass

import numpy as np

from minibutter.energy.model.forms import (
    CacheBytes,
    Design,
    butter_e_design,
    duration_design,
    flops_design,
    hierarchy_design,
    level_of,
    time_design,
)
from minibutter.energy.model.notes import notes_on, ranges_of
from minibutter.energy.model.observations import Observations
from minibutter.energy.model.regression import (
    Merged,
    examine,
    fit_left_out,
    fit_relative,
    folds,
    refit,
    resample,
    spread,
)
from minibutter.energy.model.results import (
    CONFIDENCE,
    MIN_EXPERIMENTS,
    MODEL_VERSION,
    Coefficient,
    EnergyModel,
    Form,
    Replicates,
    Row,
)
from minibutter.energy.model.scores import residuals_by_level, score

WORKING_SET = "parameter2x"
"""The one of a training step: parameters, gradients and all activations. It places a configuration
in the hierarchy."""

_LARGEST_LOG_RATIO = np.log(100.0)
"""Bound on the error that is remembered of a configuration to which nothing else is alike."""


def fit_energy(
    observations: Observations,
    caches: CacheBytes | None = None,
    n_replicates: int = 400,
    seed: int = 0,
) -> EnergyModel:
    """Fit joules an epoch to time, FLOPs and bytes, and the forms to compare with.

    Parameters
    ----------
    observations : from `observe`.
    caches : bytes of the data caches a core of the measured machine has, `l1` first; without them
        there is no form of BUTTER-E and there are no residuals by level.
    n_replicates : bootstrap samples of whole experiments.
    seed : of the bootstrap and of the folds; the same seed gives the same model.

    Returns
    -------
    EnergyModel
        Intervals, held-out scores and replicates are None with fewer than `MIN_EXPERIMENTS`.
    """
    features, duration_s = observations.features, observations.duration_s
    energy_j, composition = observations.energy_j, observations.composition
    work, static_s = composition.work(features), duration_s * observations.static_ratio
    _, groups = np.unique(observations.experiments, return_inverse=True)
    sampling = _Sampling(groups, n_replicates, seed)
    variants = tuple(sorted(set(features.variants)))
    energy = _fit(
        "hierarchy",
        hierarchy_design(work, static_s),
        energy_j,
        sampling,
        apart=True,
        n_mixed=float(composition.n_mixed.mean()),
    )
    seconds = _fit(
        "duration", duration_design(features, variants), duration_s, sampling, apart=True
    )
    notes = notes_on(observations, energy.form)
    beside = [("flops", flops_design(work)), ("time", time_design(static_s))]
    if caches is None:
        notes.append(
            "the caches of the measured machine are not known: no form of BUTTER-E, no residuals "
            "by level"
        )
    elif not composition.features.working_set_bytes:
        notes.append("results have no working sets: no form of BUTTER-E, no residuals by level")
    else:
        of_runs = butter_e_design(composition.features, caches)
        beside.insert(0, ("butter_e", composition.design(of_runs)))
    others = [_fit(name, design, energy_j, sampling, apart=False) for name, design in beside]
    rows = _rows(observations, energy, caches)
    return EnergyModel(
        version=MODEL_VERSION,
        kind=observations.kind,
        sources=observations.sources,
        qualities=observations.qualities,
        cpu_models=observations.cpu_models,
        n_runs=int(observations.n_runs.sum()),
        n_configurations=len(observations),
        n_experiments=int(groups.max()) + 1,
        left_out=observations.left_out,
        caches=None if caches is None else dict(caches),
        forms=(energy.form, *(fit.form for fit in others)),
        duration=seconds.form,
        variants=variants,
        residuals=residuals_by_level(rows),
        rows=rows,
        replicates=_replicates(observations, energy, seconds),
        ranges=ranges_of(observations),
        notes=tuple(notes),
    )


class _Sampling:
    """Folds and bootstrap counts, the same for all forms: replicates belong together."""

    def __init__(self, groups: np.ndarray, n_replicates: int, seed: int) -> None:
        self.groups = groups
        self.n_groups = int(groups.max()) + 1
        self.is_possible = self.n_groups >= MIN_EXPERIMENTS
        if self.is_possible:
            self.counts = resample(groups, n_replicates, seed)
            self.fold = folds(groups, seed)


@dataclass(frozen=True)
class _Fit:
    """A form, and what only this room needs: its terms, their coefficients, replicates and
    predictions, and for every row the coefficients that have not seen its experiment, with their
    predictions."""

    form: Form
    kept: list[int]
    coefficients: np.ndarray
    replicates: np.ndarray | None
    predicted: np.ndarray
    left_out: np.ndarray | None
    held_out: np.ndarray | None


def _fit(
    name: str,
    design: Design,
    target: np.ndarray,
    sampling: _Sampling,
    apart: bool,
    n_mixed: float = 1.0,
) -> _Fit:
    """Fit one form; `apart`: its coefficients are to be read, so that they get intervals, and terms
    that cannot be told from others are left out. `n_mixed` experiments are in each target.

    The forms to compare with are judged by their predictions, which dependent terms do not hurt.
    """
    absent = {column: "none in any row" for column in np.flatnonzero(~design.matrix.any(axis=0))}
    present = [column for column in range(len(design.terms)) if column not in absent]
    weighted = design.matrix[:, present] / target[:, None]
    kept, merged, dependences, condition = examine(
        _group_means(weighted, sampling.groups), [design.names[column] for column in present]
    )
    kept = [present[place] for place in kept] if apart else present
    if not apart:
        merged, dependences, condition = (), (), None
    matrix = design.matrix[:, kept]
    coefficients = fit_relative(matrix, target)
    predicted = matrix @ coefficients
    replicates = left_out = held_out = None
    if sampling.is_possible:
        if apart:
            replicates = refit(matrix, target, sampling.counts, coefficients)
            replicates = spread(coefficients, replicates, sampling.n_groups, n_mixed)
        left_out = fit_left_out(matrix, target, sampling.fold)
        held_out = (matrix * left_out).sum(axis=1)
    why = "a form to compare with" if not apart else f"fewer than {MIN_EXPERIMENTS} experiments"
    form = Form(
        name=name,
        coefficients=_coefficients(design, kept, coefficients, replicates, absent, merged, why),
        fitted=score(predicted, target),
        held_out=None if held_out is None else score(held_out, target),
        condition_index=condition,
        dependences=dependences,
        merged=merged,
    )
    return _Fit(form, kept, coefficients, replicates, predicted, left_out, held_out)


def _group_means(matrix: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """One row an experiment: what differs between its executions is mostly noise of the clock."""
    sums = np.zeros((groups.max() + 1, matrix.shape[1]))
    np.add.at(sums, groups, matrix)
    return sums / np.bincount(groups)[:, None]


def _coefficients(
    design: Design,
    kept: list[int],
    values: np.ndarray,
    replicates: np.ndarray | None,
    absent: dict[int, str],
    merged: tuple[Merged, ...],
    why_no_interval: str,
) -> tuple[Coefficient, ...]:
    reasons = absent | {
        design.names.index(each.term): f"cannot be told from {', '.join(each.into)}"
        for each in merged
    }
    tail = (1 - CONFIDENCE) / 2
    coefficients = []
    for column, term in enumerate(design.terms):
        if column not in kept:
            result = (None, None, None, reasons[column])
        elif replicates is None:
            reason = why_no_interval
            result = (float(values[kept.index(column)]), None, None, reason)
        else:
            place = kept.index(column)
            low, high = np.quantile(replicates[:, place], [tail, 1 - tail])
            result = (float(values[place]), float(low), float(high), None)
        coefficients.append(Coefficient(term.name, term.unit, *result))
    return tuple(coefficients)


def _rows(observations: Observations, energy: _Fit, caches: CacheBytes | None) -> tuple[Row, ...]:
    working_set = observations.features.working_set_bytes.get(WORKING_SET)
    levels: tuple[str | None, ...] = (None,) * len(observations)
    if caches is not None and working_set is not None:
        levels = level_of(working_set, caches)
    own = hierarchy_design(observations.features, _own_static_s(observations))
    own_j = own.matrix[:, energy.kept] @ energy.coefficients
    own_share = own_j / np.maximum(energy.predicted, 1e-300)
    return tuple(
        Row(
            experiment_id=observations.experiments[i],
            n_runs=int(observations.n_runs[i]),
            n_train=int(observations.features.n_train[i]),
            working_set_bytes=None if working_set is None else float(working_set[i]),
            level=levels[i],
            duration_s=float(observations.duration_s[i]),
            energy_j=float(observations.energy_j[i]),
            own_share=float(own_share[i]) if observations.is_package[i] else 1.0,
            predicted_j=float(energy.predicted[i]),
            held_out_j=None if energy.held_out is None else float(energy.held_out[i]),
        )
        for i in range(len(observations))
    )


def _own_static_s(observations: Observations) -> np.ndarray:
    """Seconds of static power that each configuration itself has to pay for: runs beside each other
    on a package share them by their durations."""
    seconds = observations.composition.seconds
    return observations.duration_s**2 * observations.static_ratio / seconds


def _replicates(observations: Observations, energy: _Fit, seconds: _Fit) -> Replicates | None:
    if energy.replicates is None or seconds.replicates is None:
        return None

    def alone_j(duration_s: np.ndarray) -> np.ndarray:
        design = hierarchy_design(observations.features, duration_s)
        return (design.matrix[:, energy.kept] * energy.left_out).sum(axis=1).clip(min=1e-300)

    # What a prediction of a sweep not yet run gets wrong: joules of an unseen network, of which
    # the error of a package with several has lost a part, and its seconds.
    with np.errstate(divide="ignore"):
        log_ratios = np.log(observations.energy_j / energy.held_out)
    log_ratios *= np.sqrt(observations.composition.n_mixed)
    log_ratios += np.log(alone_j(observations.duration_s) / alone_j(seconds.held_out))
    log_ratios = log_ratios.clip(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return Replicates(
        energy=tuple(map(tuple, energy.replicates.tolist())),
        duration=tuple(map(tuple, seconds.replicates.tolist())),
        log_ratios=tuple(log_ratios.tolist()),
    )
