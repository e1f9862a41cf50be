"""What a fit may use: measured energy per epoch beside what was computed and moved for it.

One row is one configuration: an experiment as one processor executed it, the mean over the epochs
of all its repetitions. A model that is to say something about networks not yet run has seen as many
things as there were configurations, however often each was repeated.

Which energies count:

* `measured` and `measured_divided`: always. An equal share of a group's energy stands beside the
  same share of its duration, so that joules per second and per FLOP are those of the whole;
* `interpolated`: always. Energy of epochs shorter than the counter resolves is a share of a longer
  window, and only their sum enters;
* `measured_shared`: only if asked for. Other ranks' work is in it;
* `modelled` and `unavailable`: never. A fit to what another model said would only repeat it;
* `simulated`, and every quality of an `energy_source` that begins with "simulated": never together
  with measured ones.

Where none of a run's epochs has such an energy, the energy of the whole run is taken. Where an
energy was divided among the ranks of a package (`energy_ranks`), a rank has paid for that part of
the static power.

Of runs whose `energy_mode` is `shared` or `gang`, `energy_j` is a share of what a package took, and
does not count. The energy of the whole package during the run (`energy_package_j`) does, unless it
is modelled, beside all the work that it paid for (`concurrency`). A run beside one whose work is
not known is left out, and so is one that emptied the caches between its epochs.

Left out is also every run beside a load of other processes above `MAX_FOREIGN_LOAD`, unless its
energy is simulated: such counters do not see them. No option lets them in, because nobody knows
what these processes took. Where some runs were bound to one package, those that could use several
are left out: their energies hold the static power of all.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from minibutter.energy.model.composition import Composition, compose
from minibutter.energy.model.concurrency import (
    PACKAGE_COLUMNS,
    Paces,
    has_interval,
    is_steady,
    work_during,
)
from minibutter.energy.model.features import (
    FEATURE_COLUMNS,
    Features,
    ModelError,
    features_of,
    is_known,
)
from minibutter.energy.model.totals import KINDS, of_one_kind, totals_of

_KEYS = ["experiment_id", "cpu_model", "lanes", "energy_ranks", "is_package"]
"""What tells observations apart."""

MAX_FOREIGN_LOAD = 0.02
"""Processor time of other processes, as a fraction of what all processors have."""

RUN_COLUMNS = (
    *("run_id", "experiment_id", "status", "epochs_completed", "cpu_model", "kernel", "dtype"),
    *(
        "lanes",
        "energy_ranks",
        "duration_s",
        "energy_j",
        "energy_source",
        "energy_quality",
        "energy_reason",
    ),
    *FEATURE_COLUMNS,
    *PACKAGE_COLUMNS,
)
"""Columns of the table `runs` that `observe` reads.

Those of the features are refused with a message where they are absent; `energy_ranks`, the ranks of
a package among which an energy was divided, is then 1, and without `PACKAGE_COLUMNS` all energies
count as those of single runs."""

EPOCH_COLUMNS = ("run_id", "duration_s", "energy_j", "energy_source", "energy_quality")


@dataclass(frozen=True)
class Observations:
    """Measured configurations; every array has shape (n,).

    Attributes
    ----------
    kind : "measured" or "simulated".
    experiments : id of each row's experiment; a row is left out of a fit with its whole experiment.
    energy_j, duration_s : means per epoch, float64; `energy_j` is that of whole packages, with all
        that ran there, where `is_package`.
    static_ratio : seconds of static power in `energy_j` over `duration_s`: 1 for runs alone, 1/n
        where the energy was divided among n ranks; of whole packages the lanes that were trained
        together, whose durations are shares.
    is_package : bool.
    n_runs : runs in each row.
    features : of an epoch of each row's experiment; what ran beside it is not in them.
    composition : what each energy was spent on.
    sources : all `energy_source` of the rows. qualities : energies used, counted by quality; whole
        packages are "measured_package" or "simulated_package".
    cpu_models : all processors.
    left_out : runs that were not used, counted by the reason.
    """

    kind: str
    experiments: tuple[str, ...]
    energy_j: np.ndarray
    duration_s: np.ndarray
    static_ratio: np.ndarray
    is_package: np.ndarray
    n_runs: np.ndarray
    features: Features
    composition: Composition
    sources: tuple[str, ...]
    qualities: dict[str, int]
    cpu_models: tuple[str, ...]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.experiments)


def observe(
    runs: pd.DataFrame,
    epochs: pd.DataFrame,
    kind: str | None = None,
    with_shared: bool = False,
) -> Observations:
    """Choose what a fit may use, and condense it to a row per configuration.

    Parameters
    ----------
    runs : with `RUN_COLUMNS`, one row a run.
    epochs : with `EPOCH_COLUMNS`, one row an epoch.
    kind : "measured" or "simulated"; may be left out where there is only one of them.
    with_shared : take `measured_shared` as well.

    Raises
    ------
    ModelError
        If nothing was measured, measured and simulated rows are mixed and none is chosen, the
        columns of the features are missing, or nothing that was measured can be explained.
    """
    if kind is not None and kind not in KINDS:
        raise ModelError(f"source {kind!r}: it must be one of {', '.join(KINDS)}")
    left_out: Counter[str] = Counter()
    runs = runs.set_index("run_id", drop=False)
    is_failed = runs["status"] == "failed"
    left_out["the run failed"] += int(is_failed.sum())
    runs = runs[~is_failed]
    totals = totals_of(runs, epochs, with_shared, left_out)
    totals, kind = of_one_kind(totals, kind, left_out)
    if not is_known(runs)[totals.index].any():
        raise ModelError(
            "no FLOPs and bytes (flops_per_epoch, traffic_l1_bytes) are stored with these runs: "
            "results of an older version, of kernel blas, of repetitions packed in lanes and of "
            "machines whose caches are not known do not have them; run the sweep with this version "
            "and another kernel, one by one (--lanes 1), into another directory"
        )
    explained, rows = _explain(runs, totals, Paces(runs.index, epochs), kind, left_out)
    if rows.empty:
        reasons = "; ".join(f"{n} runs: {reason}" for reason, n in left_out.items() if n)
        raise ModelError(
            f"no run is left to fit ({reasons}); run the sweep on a machine that does nothing "
            "else, warm, with another kernel than blas, or one rank on a package"
        )
    groups = rows.groupby(_KEYS, dropna=False, sort=True)
    sums = groups[["energy_total_j", "duration_total_s", "static_total_s", "n_epochs"]].sum()
    firsts = groups.first().reset_index()
    qualities = Counter(quality for names in rows["qualities"] for quality in names)
    return Observations(
        kind=kind,
        experiments=tuple(firsts["experiment_id"]),
        energy_j=(sums["energy_total_j"] / sums["n_epochs"]).to_numpy(np.float64),
        duration_s=(sums["duration_total_s"] / sums["n_epochs"]).to_numpy(np.float64),
        static_ratio=(sums["static_total_s"] / sums["duration_total_s"]).to_numpy(np.float64),
        is_package=firsts["is_package"].to_numpy(bool),
        n_runs=groups.size().to_numpy(),
        features=features_of(firsts),
        composition=_compose(runs, rows, explained, groups.ngroup().to_numpy()),
        sources=tuple(sorted({source for names in rows["sources"] for source in names})),
        qualities=dict(sorted(qualities.items())),
        cpu_models=tuple(sorted(set(rows["cpu_model"]))),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _explain(
    runs: pd.DataFrame,
    totals: pd.DataFrame,
    paces: Paces,
    kind: str,
    left_out: Counter[str],
) -> tuple[sparse.csr_array, pd.DataFrame]:
    """Fractions of the work of all runs that each energy paid for, where all of it is known.

    Returns
    -------
    fractions : from `work_during`, one row for each row of `rows`, one column a run.
    rows : `totals` with the other columns of their runs, without those that cannot be explained.
    """
    rows = totals.join(runs.drop(columns=list(totals.columns), errors="ignore"))
    place = runs.index.get_indexer(rows.index)
    is_package = rows["is_package"].to_numpy(bool)
    is_wanted = np.zeros(len(runs), bool)
    is_wanted[place] = is_package
    fractions, is_beside_unbound = work_during(runs, is_wanted, paces)
    is_unknown = ~(is_known(runs) & is_steady(runs)).to_numpy(bool)
    unknown = fractions @ is_unknown.astype(np.float64) - is_unknown
    is_unbound = has_interval(rows).to_numpy(bool)
    if is_unbound.any():
        is_bound = is_unbound & rows["package"].notna().to_numpy(bool)
        is_unbound = is_unbound & ~is_bound & is_bound.any()
    foreign = np.full(len(rows), np.nan)
    if kind == "measured" and "foreign_load" in rows:
        foreign = rows["foreign_load"].to_numpy(np.float64)
    checks = {
        "no FLOPs and bytes are stored with the run": ~is_known(rows).to_numpy(bool),
        f"other processes took more than {100 * MAX_FOREIGN_LOAD:.0f} % of the processors": (
            foreign > MAX_FOREIGN_LOAD
        ),
        "caches were emptied between its epochs, and joules of its package went there": (
            is_package & ~is_steady(rows).to_numpy(bool)
        ),
        "its energy is that of several packages, and others here are of one": is_unbound,
        "it ran beside a run whose FLOPs or bytes are not known": unknown[place] > 0,
        "it ran beside a run that could use other packages, too": is_beside_unbound[place],
    }
    is_kept = np.ones(len(rows), bool)
    for reason, is_affected in checks.items():
        left_out[reason] += int((is_kept & is_affected).sum())
        is_kept &= ~is_affected
    return fractions[place[is_kept]], rows[is_kept]


def _compose(
    runs: pd.DataFrame, rows: pd.DataFrame, fractions: sparse.csr_array, numbers: np.ndarray
) -> Composition:
    """What the energies of observations were spent on; `numbers` are those of each row."""
    n_epochs = rows["n_epochs"].to_numpy(np.float64)
    completed = runs["epochs_completed"].to_numpy(np.float64)
    # Of a run alone, epochs without an energy are not in the sum.
    counted = n_epochs / rows["epochs_completed"].to_numpy(np.float64)
    epochs = compose(
        sparse.csr_array(sparse.diags_array(counted) @ fractions), completed, numbers, n_epochs
    )
    is_in = np.asarray(epochs.sum(axis=0) > 0)
    members = runs[is_in]
    return Composition(
        epochs=epochs[:, np.flatnonzero(is_in)],
        experiments=np.unique(members["experiment_id"].to_numpy(str), return_inverse=True)[1],
        features=features_of(members),
        duration_s=(members["duration_s"] / completed[is_in]).to_numpy(np.float64),
    )
