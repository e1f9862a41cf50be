"""Which energies of a table count, and the seconds and epochs that belong to them."""

from collections import Counter

import numpy as np
import pandas as pd

from minibutter.energy.model.concurrency import has_whole_package, interval_s, is_concurrent
from minibutter.energy.model.features import ModelError

USED_QUALITIES = ("measured", "measured_divided", "interpolated", "simulated")
SHARED_QUALITY = "measured_shared"

KINDS = ("measured", "simulated")

_NEVER_USED = ("modelled", "unavailable")


def totals_of(
    runs: pd.DataFrame, epochs: pd.DataFrame, with_shared: bool, left_out: Counter[str]
) -> pd.DataFrame:
    """Of every run with an energy that counts: joules, seconds and epochs that belong together.

    Parameters
    ----------
    runs : of the table `runs`, by `run_id`; none has failed.
    epochs : of the table `epochs`.
    with_shared : take `measured_shared` as well.
    left_out : takes the number of the other runs, by the reason.

    Returns
    -------
    pandas.DataFrame
        By `run_id`: `energy_total_j`, `duration_total_s`, `static_total_s` (seconds of static power
        in the energy), `energy_ranks` (ranks that a package's energy was divided among),
        `n_epochs`, `is_package`, and the lists `sources` and `qualities`.

    Raises
    ------
    ModelError
        If there are none.
    """
    accepted = (*USED_QUALITIES, *([SHARED_QUALITY] if with_shared else []))
    is_taken = ~runs["energy_quality"].isin(_NEVER_USED) & (runs["epochs_completed"] > 0)
    is_package = has_whole_package(runs) & is_taken
    parts = [_of_packages(runs[is_package])] if is_package.any() else []
    # A share of a package is no energy of a run. Of tables that do not know how it came about, and
    # where it was asked for, it counts as before.
    is_share = is_concurrent(runs) & (runs["energy_quality"] != SHARED_QUALITY)
    of_runs = _of_runs(runs[~is_package & ~is_share], epochs, accepted)
    totals = pd.concat([of_runs, *parts]) if len(of_runs) else pd.concat(parts or [of_runs])
    unused = runs.loc[runs.index.difference(totals.index)]
    is_lost = is_share & runs["energy_quality"].isin(USED_QUALITIES)
    reasons = ("energy is " + unused["energy_quality"]).mask(
        is_lost[unused.index], "the energy of its package, or its begin and end, are not known"
    )
    left_out.update(reasons.value_counts().to_dict())
    if totals.empty:
        raise ModelError(_why_nothing(unused, with_shared))
    return totals


def _of_runs(runs: pd.DataFrame, epochs: pd.DataFrame, accepted: tuple[str, ...]) -> pd.DataFrame:
    """Energies of epochs and, of runs whose epochs have none, of the whole run."""

    def usable(frame: pd.DataFrame) -> pd.Series:
        # Zero would be a counter that stood still, and no relative error could be taken of it.
        return (
            frame["energy_quality"].isin(accepted)
            & (frame["energy_j"] > 0)
            & (frame["duration_s"] > 0)
        )

    of_epochs = _condensed(
        epochs[usable(epochs) & epochs["run_id"].isin(runs.index)].assign(n_epochs=1)
    )
    rest = runs[usable(runs) & ~runs.index.isin(of_epochs.index) & (runs["epochs_completed"] > 0)]
    totals = of_epochs
    if len(rest):
        of_runs = _condensed(rest.assign(n_epochs=rest["epochs_completed"]))
        totals = pd.concat([of_epochs, of_runs]) if len(of_epochs) else of_runs
    n_ranks = runs["energy_ranks"] if "energy_ranks" in runs else pd.Series(1, runs.index)
    n_ranks = n_ranks.fillna(1).astype(np.float64)[totals.index]
    static_s = totals["duration_total_s"] / n_ranks
    return totals.assign(static_total_s=static_s, energy_ranks=n_ranks, is_package=False)


def _of_packages(runs: pd.DataFrame) -> pd.DataFrame:
    """Energies of whole packages over the interval of each run."""
    totals = _condensed(
        runs.assign(energy_j=runs["energy_package_j"], n_epochs=runs["epochs_completed"])
    )
    packages = totals["sources"].map(
        lambda names: [f"{KINDS[name.startswith('simulated')]}_package" for name in names]
    )
    static_s = interval_s(runs)[totals.index]
    return totals.assign(
        qualities=packages, static_total_s=static_s, energy_ranks=1.0, is_package=True
    )


def _condensed(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a run, of rows with an energy of a run or of its epochs."""
    source = frame["energy_source"].fillna("not named").astype(str)
    is_hidden = (frame["energy_quality"] == "simulated") & ~source.str.startswith("simulated")
    frame = frame.assign(source=source.where(~is_hidden, "simulated:" + source))
    groups = frame.reset_index(drop=True).groupby("run_id")
    return pd.DataFrame(
        {
            "energy_total_j": groups["energy_j"].sum(),
            "duration_total_s": groups["duration_s"].sum(),
            "n_epochs": groups["n_epochs"].sum().astype(np.int64),
            "sources": groups["source"].agg(lambda names: sorted(set(names))),
            "qualities": groups["energy_quality"].agg(lambda names: sorted(set(names))),
        }
    )


def of_one_kind(
    totals: pd.DataFrame, kind: str | None, left_out: Counter[str]
) -> tuple[pd.DataFrame, str]:
    """Measured energies alone, or simulated ones alone, and which.

    Parameters
    ----------
    totals : from `totals_of`.
    kind : "measured" or "simulated"; None where there is only one of them.
    left_out : takes the number of runs of the other kind, by the reason.

    Raises
    ------
    ModelError
        If both are there and none is chosen, or the chosen one is not there.
    """

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
    n_shares = int((is_concurrent(unused) & unused["energy_quality"].isin(USED_QUALITIES)).sum())
    if n_shares:
        return (
            f"all energies that were measured ({n_shares} runs) are shares of packages, and the "
            "energy of the package (energy_package_j) or the interval (boot_id, begun_ns, "
            "ended_ns) is not stored with them; run one rank on a package"
        )
    reasons = unused["energy_reason"].dropna().mode()
    reason = reasons.iloc[0] if len(reasons) else "reason unknown"
    return (
        f"no energy was measured in {len(unused)} runs ({reason}); run the sweep where RAPL can be "
        "read"
    )
