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

Where none of a run's epochs has such an energy, the energy of the whole run is taken.

Where an energy was divided among the ranks of a package (`energy_ranks`), a rank has paid for that
part of the static power.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from minibutter.energy.model.features import (
    FEATURE_COLUMNS,
    Features,
    ModelError,
    features_of,
    is_known,
)

USED_QUALITIES = ("measured", "measured_divided", "interpolated", "simulated")
SHARED_QUALITY = "measured_shared"

KINDS = ("measured", "simulated")

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
)
"""Columns of the table `runs` that `observe` reads.

Those of the features are refused with a message where they are absent; `energy_ranks`, the ranks of
a package among which an energy was divided, is then 1."""

EPOCH_COLUMNS = ("run_id", "duration_s", "energy_j", "energy_source", "energy_quality")


@dataclass(frozen=True)
class Observations:
    """Measured configurations; every array has shape (n,).

    Attributes
    ----------
    kind : "measured" or "simulated".
    experiments : id of each row's experiment; a row is left out of a fit with its whole experiment.
    energy_j, duration_s : means per epoch, float64.
    n_ranks : ranks of the package that the energy was divided among; 1 where it was not.
    n_runs : runs in each row.
    features : of each row.
    sources : all `energy_source` of the rows. qualities : energies used, counted by quality.
    cpu_models : all processors.
    left_out : runs that were not used, counted by the reason.
    """

    kind: str
    experiments: tuple[str, ...]
    energy_j: np.ndarray
    duration_s: np.ndarray
    n_ranks: np.ndarray
    n_runs: np.ndarray
    features: Features
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
        If nothing was measured, measured and simulated rows are mixed and none is chosen, or the
        columns of the features are missing.
    """
    if kind is not None and kind not in KINDS:
        raise ModelError(f"source {kind!r}: it must be one of {', '.join(KINDS)}")
    left_out: Counter[str] = Counter()
    runs = runs.set_index("run_id", drop=False)
    is_failed = runs["status"] == "failed"
    left_out["the run failed"] += int(is_failed.sum())
    runs = runs[~is_failed]
    accepted = (*USED_QUALITIES, *([SHARED_QUALITY] if with_shared else []))
    totals = _totals(runs, epochs, accepted)
    unused = runs.loc[runs.index.difference(totals.index)]
    for quality, count in unused["energy_quality"].value_counts().items():
        left_out[f"energy is {quality}"] += int(count)
    if totals.empty:
        raise ModelError(_why_nothing(unused, with_shared))
    totals, kind = _one_kind(totals, kind, left_out)

    rows = totals.join(runs.drop(columns=list(totals.columns), errors="ignore"))
    has_features = is_known(rows)
    if not has_features.any():
        raise ModelError(
            "no FLOPs and bytes (flops_per_epoch, traffic_l1_bytes) are stored with these runs: "
            "results of an older version and of kernel blas do not have them; run the sweep with "
            "this version and another kernel, into another directory"
        )
    left_out["no FLOPs and bytes are stored with the run"] += int((~has_features).sum())
    rows, totals = rows[has_features], totals[has_features]
    if "energy_ranks" not in rows:
        rows = rows.assign(energy_ranks=1)
    rows = rows.assign(energy_ranks=rows["energy_ranks"].fillna(1))
    keys = ["experiment_id", "cpu_model", "lanes", "energy_ranks"]
    groups = rows.groupby(keys, dropna=False, sort=True)
    sums = groups[["energy_total_j", "duration_total_s", "n_epochs"]].sum()
    firsts = groups.first().reset_index()
    qualities = Counter(quality for names in totals["qualities"] for quality in names)
    return Observations(
        kind=kind,
        experiments=tuple(firsts["experiment_id"]),
        energy_j=(sums["energy_total_j"] / sums["n_epochs"]).to_numpy(np.float64),
        duration_s=(sums["duration_total_s"] / sums["n_epochs"]).to_numpy(np.float64),
        n_ranks=firsts["energy_ranks"].to_numpy(np.float64),
        n_runs=groups.size().to_numpy(),
        features=features_of(firsts),
        sources=tuple(sorted({source for names in totals["sources"] for source in names})),
        qualities=dict(sorted(qualities.items())),
        cpu_models=tuple(sorted(set(rows["cpu_model"]))),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def _totals(runs: pd.DataFrame, epochs: pd.DataFrame, accepted: tuple[str, ...]) -> pd.DataFrame:
    """Of every run with an energy that counts: joules, seconds and epochs that belong together."""

    def usable(frame: pd.DataFrame) -> pd.Series:
        # Zero would be a counter that stood still, and no relative error could be taken of it.
        return (
            frame["energy_quality"].isin(accepted)
            & (frame["energy_j"] > 0)
            & (frame["duration_s"] > 0)
        )

    def condensed(frame: pd.DataFrame) -> pd.DataFrame:
        source = frame["energy_source"].fillna("not named").astype(str)
        is_hidden = (frame["energy_quality"] == "simulated") & ~source.str.startswith("simulated")
        groups = frame.assign(source=source.where(~is_hidden, "simulated:" + source)).groupby(
            "run_id"
        )
        return pd.DataFrame(
            {
                "energy_total_j": groups["energy_j"].sum(),
                "duration_total_s": groups["duration_s"].sum(),
                "n_epochs": groups["n_epochs"].sum(),
                "sources": groups["source"].agg(lambda names: sorted(set(names))),
                "qualities": groups["energy_quality"].agg(lambda names: sorted(set(names))),
            }
        )

    of_epochs = condensed(
        epochs[usable(epochs) & epochs["run_id"].isin(runs.index)].assign(n_epochs=1)
    )
    rest = runs[usable(runs) & ~runs.index.isin(of_epochs.index) & (runs["epochs_completed"] > 0)]
    if rest.empty:
        return of_epochs
    of_runs = condensed(
        rest.assign(n_epochs=rest["epochs_completed"].astype(np.int64)).reset_index(drop=True)
    )
    return pd.concat([of_epochs, of_runs]) if len(of_epochs) else of_runs


def _one_kind(
    totals: pd.DataFrame, kind: str | None, left_out: Counter[str]
) -> tuple[pd.DataFrame, str]:
    def kind_of(names: list[str]) -> str:
        kinds = {KINDS[name.startswith("simulated")] for name in names}
        return kinds.pop() if len(kinds) == 1 else "both"

    kinds = totals["sources"].map(kind_of)
    found = sorted(set(kinds))
    if kind is None and (len(found) > 1 or found == ["both"]):
        counts = ", ".join(f"{(kinds == each).sum()} {each}" for each in found)
        raise ModelError(
            f"measured and simulated energies are mixed ({counts} runs); choose one: "
            "--source measured or --source simulated"
        )
    kind = kind or found[0]
    if kind not in found:
        raise ModelError(
            f"there is no {kind} energy here, only {', '.join(found)}; leave --source out, or give "
            "other results"
        )
    for other in found:
        if other != kind:
            left_out[f"energy is {other}, not {kind}"] += int((kinds == other).sum())
    return totals[kinds == kind], kind


def _why_nothing(unused: pd.DataFrame, with_shared: bool) -> str:
    if unused.empty:
        return "no run was trained; run the sweep, or give another directory"
    n_shared = int((unused["energy_quality"] == SHARED_QUALITY).sum())
    if n_shared and not with_shared:
        return (
            f"all energies that were measured ({n_shared} runs) hold work of other ranks "
            "(measured_shared); run one rank on a package, or give --with-shared to fit them as "
            "they are"
        )
    reasons = unused["energy_reason"].dropna().mode()
    reason = reasons.iloc[0] if len(reasons) else "reason unknown"
    return (
        f"no energy was measured in {len(unused)} runs ({reason}); run the sweep where RAPL can be "
        "read"
    )
