"""The forms of the model: which terms each adds up, as columns of a design.

* `hierarchy`: static power x time, joules per FLOP, joules per byte of each level;
* `butter_e`: the form of BUTTER-E, per training datum: a constant, depth, FLOPs, and the bytes of
  the four working sets that do not fit into the caches nearer by (Tripp et al. 2024, arXiv
  2403.08151; inferred from the published notebooks, because the fit itself is not published);
* `flops`: joules per FLOP alone;
* `time`: a constant power.

A form of seconds, for sweeps that have no durations yet: `duration_design`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from minibutter.energy.model.features import Features

CacheBytes = Mapping[str, int]
"""Bytes of the data caches that a core has, nearest first, by `l1`, `l2`, `l3`."""


@dataclass(frozen=True)
class Term:
    """One column: a name that says what its coefficient is, and the coefficient's unit."""

    name: str
    unit: str


@dataclass(frozen=True)
class Design:
    """Columns of a form: `matrix` is float64 of shape (n, len(terms)); no entry is negative."""

    terms: tuple[Term, ...]
    matrix: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """Of the terms."""
        return tuple(term.name for term in self.terms)


def hierarchy_design(features: Features, duration_s: np.ndarray) -> Design:
    """Joules of an epoch from time, FLOPs and bytes.

    Parameters
    ----------
    features : of n configurations.
    duration_s : float64, shape (n,): seconds of static power that the epoch has paid for.
    """
    columns = {
        Term("static_power_w", "W"): duration_s,
        Term("energy_per_flop_j", "J/FLOP"): features.flops,
    }
    columns |= {
        Term(f"energy_per_{level}_byte_j", "J/byte"): moved
        for level, moved in features.traffic_bytes.items()
    }
    return _design(columns)


def butter_e_design(features: Features, caches: CacheBytes) -> Design:
    """BUTTER-E's joules of an epoch: those of a training datum, times their number."""
    n_train = features.n_train
    columns = {
        Term("energy_per_datum_j", "J/datum"): n_train,
        Term("energy_per_datum_and_layer_j", "J/datum/layer"): n_train * features.depth,
        Term("energy_per_flop_j", "J/FLOP"): features.flops,
    }
    nearer = [
        ("l1", 0),
        *zip([*list(caches)[1:], "dram"], accumulate(caches.values()), strict=True),
    ]
    for name, bytes_ in features.working_set_bytes.items():
        for level, capacity_bytes in nearer:
            beyond = np.maximum(bytes_ - capacity_bytes, 0.0)
            columns[Term(f"{name}_from_{level}_j", "J/datum/byte")] = n_train * beyond
    return _design(columns)


def flops_design(features: Features) -> Design:
    """Joules of an epoch from FLOPs alone."""
    return _design({Term("energy_per_flop_j", "J/FLOP"): features.flops})


def time_design(duration_s: np.ndarray) -> Design:
    """Joules of an epoch from its seconds alone; `duration_s` has shape (n,)."""
    return _design({Term("power_w", "W"): duration_s})


def duration_design(features: Features, variants: tuple[str, ...]) -> Design:
    """Seconds of an epoch: a constant, its steps and their layers, FLOPs of each kernel and type,
    and bytes of each level.

    Repetitions that are trained together share what a step costs.

    Parameters
    ----------
    features : of n configurations.
    variants : kernels and types that have a rate of their own.
    """
    n_steps = features.n_steps / features.lanes
    columns = {Term("time_per_step_s", "s/step"): n_steps}
    of_row = np.array(features.variants)
    for variant in variants:
        term = Term(f"time_per_flop_s of {variant}", "s/FLOP")
        columns[term] = np.where(of_row == variant, features.flops, 0.0)
    columns[Term("time_per_layer_s", "s/step/layer")] = n_steps * features.depth
    columns |= {
        Term(f"time_per_{level}_byte_s", "s/byte"): moved
        for level, moved in features.traffic_bytes.items()
    }
    columns[Term("time_per_epoch_s", "s")] = 1 / features.lanes
    return _design(columns)


def level_of(working_set_bytes: np.ndarray, caches: CacheBytes) -> tuple[str, ...]:
    """The level that each working set fits into, `dram` where it fits into no cache.

    Capacity adds up from the nearest cache on, as in BUTTER-E.
    """
    levels = (*caches, "dram")
    limits = list(accumulate(caches.values()))
    return tuple(levels[place] for place in np.searchsorted(limits, working_set_bytes))


def _design(columns: Mapping[Term, np.ndarray]) -> Design:
    return Design(tuple(columns), np.column_stack([*columns.values()]).astype(np.float64))
