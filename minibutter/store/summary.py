"""The repetitions of an experiment condensed to statistics: the tables that figures are made of.

The definitions are those of the BUTTER data set (OEDI submission 5708), so that the numbers can be
laid beside the published ones:

* quantiles interpolate linearly between order statistics (PERCENTILE_CONT of SQL). NaN sorts as
  the largest value and an epoch that a run did not reach counts as NaN, so that a diverged
  repetition pulls the upper quantiles and does not vanish from them;
* `num_finite` counts finite values; min, max, avg and stddev (n - 1) leave NaN out;
* the epoch of an extremum is the first, from 1, at which a run attains its own extremum.

There are three tables: experiments; their epochs, with the statistics of BUTTER's
`complete_summary` and medians of what runs may measure besides; and a thinned table of epochs with
those of BUTTER-E's `summary_by_epoch`, among them the best value so far, which says what it takes
to reach a loss.

Failed runs are counted and enter no statistic. Diverged and stopped runs do. Unlike `loss` in the
published files, the loss here does not contain the penalty.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from minibutter.store.schema import ENERGY_QUALITIES, EXPERIMENT_COLUMNS
from minibutter.store.statistics import best_so_far, extremum_of_runs, grouped_statistics

_LOSS_STATISTICS = ("num_finite", "min", "q1", "median", "q3", "max", "avg", "stddev")
_METRIC_STATISTICS = ("q1", "median", "q3", "avg", "stddev")
_EXTREMUM_STATISTICS = ("min", "q1", "median", "q3", "max", "avg")

_EPOCH_STATISTICS = {
    **{f"{side}_loss": _LOSS_STATISTICS for side in ("test", "train")},
    **{
        f"{side}_{metric}": _METRIC_STATISTICS
        for side in ("test", "train")
        for metric in ("accuracy", "mean_squared_error", "kullback_leibler_divergence")
    },
}
_NOISE_STATISTICS = dict.fromkeys(
    ("noise_trace", "noise_squared_gradient", "noise_simple_scale"), ("median",)
)
"""Of runs that measure it. A scale that is null, as |G|² is too small, counts as the largest."""
_PERCENTILES = tuple(f"quantile_{percent}" for percent in (0, 25, 50, 75, 100))
EXTREMA = {
    "test_loss": "min",
    "test_accuracy": "max",
    "test_mean_squared_error": "min",
    "test_kullback_leibler_divergence": "min",
}

EPOCH_COLUMNS = (*_EPOCH_STATISTICS, *_NOISE_STATISTICS)
"""Columns of `epochs` that the summaries are made from, beside `run_id` and `epoch`."""

RUN_COLUMNS = (
    *("run_id", "experiment_id", "status", "diverged", "duration_s", "energy_j", "energy_quality"),
    *EXPERIMENT_COLUMNS,
)
"""Columns of `runs` that the summaries are made from."""


def summarize_epochs(runs: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Statistics over the repetitions at every epoch.

    Parameters
    ----------
    runs : with columns run_id, experiment_id, status.
    epochs : with columns run_id, epoch, and the losses and metrics of both sides; those of the
        noise of gradients may be missing, here and there.

    Returns
    -------
    pandas.DataFrame
        One row for each experiment and each epoch that at least one of its runs reached, ordered
        by both; `num_runs` runs went into a row, and `num` of them reached it. Columns are named
        `test_loss_median` and so on.
    """
    places = _places(runs, epochs)
    epoch = places.epochs["epoch"].to_numpy(np.int64)
    layout = _lay_out(places, epoch, np.arange(1, epoch.max(initial=0) + 1))
    columns = layout.columns
    noise = {name: wanted for name, wanted in _NOISE_STATISTICS.items() if name in epochs}
    for name, wanted in (_EPOCH_STATISTICS | noise).items():
        values = places.epochs[name].to_numpy(np.float64)
        columns |= grouped_statistics(
            name, wanted, values, layout.row, places.column, columns["num_runs"]
        )
    return pd.DataFrame(columns)


def summarize_by_epoch(runs: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Quantiles over the repetitions, of an epoch and of the best so far, at `thin_epochs`.

    Parameters
    ----------
    runs, epochs : as for `summarize_epochs`.

    Returns
    -------
    pandas.DataFrame
        One row for each experiment and each of these epochs that a run reached, ordered by both.
        Columns are named `test_loss_quantile_50`, `test_loss_best_quantile_50`,
        `test_loss_best_epoch_quantile_50`, `train_loss_quantile_50` and so on.
    """
    places = _places(runs, epochs)
    epoch = places.epochs["epoch"].to_numpy(np.int64)
    order = np.lexsort((epoch, places.run))
    starts = np.flatnonzero(np.diff(places.run, prepend=-1))
    layout = _lay_out(places, epoch, thin_epochs(epoch.max(initial=0)))
    columns, shown = layout.columns, layout.row >= 0
    row, column = layout.row[shown], places.column[shown]

    def add(name: str, wanted: tuple[str, ...], values: np.ndarray) -> None:
        nonlocal columns
        of_rows = values[shown]
        columns |= grouped_statistics(name, wanted, of_rows, row, column, columns["num_runs"])

    for name, end in EXTREMA.items():
        values = places.epochs[name].to_numpy(np.float64)
        add(name, _PERCENTILES, values)
        ordered = best_so_far(values[order], epoch[order], starts, end)
        for what, wanted in (("best", _PERCENTILES), ("best_epoch", ("quantile_50",))):
            so_far = np.empty(len(order))
            so_far[order] = ordered[what]
            add(f"{name}_{what}", wanted, so_far)
        of_training = name.replace("test", "train")
        add(of_training, ("quantile_50",), places.epochs[of_training].to_numpy(np.float64))
    return pd.DataFrame(columns)


def thin_epochs(last: int) -> np.ndarray:
    """Epochs that a curve on a logarithmic axis needs: 1 to 32, then 50 in every decade."""
    exponents = np.arange(np.floor(50 * np.log10(32)), 50 * np.log10(max(last, 32)) + 1) / 50
    grid = np.union1d(np.arange(1, 33), np.rint(10**exponents).astype(np.int64))
    return grid[grid <= last]


def summarize_experiments(runs: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """What each experiment was, how its runs ended, and the best epochs of its runs.

    Parameters
    ----------
    runs : with all columns of `RUNS_SCHEMA`, or those that `write_summary` reads.
    epochs : with columns run_id, epoch, and the test metrics whose extrema are taken.

    Returns
    -------
    pandas.DataFrame
        One row an experiment, also if all its runs failed. `num_runs` runs are in the statistics,
        `num_failed` are not. Columns are named `test_loss_min_value_median`,
        `test_loss_min_epoch_q1` and so on. `energy_j_median` is null where no run was measured,
        `energy_j_num_measured` says how many were, and `energy_quality` is that of the worst.
    """
    experiments = runs.groupby("experiment_id")[list(EXPERIMENT_COLUMNS)].first()
    is_failed = runs["status"] == "failed"
    is_diverged = runs["diverged"].fillna(False).astype(bool) & ~is_failed
    for name, is_counted in (
        ("num_runs", ~is_failed),
        ("num_failed", is_failed),
        ("num_diverged", is_diverged),
    ):
        experiments[name] = is_counted.groupby(runs["experiment_id"]).sum()

    places = _places(runs, epochs)
    epoch = places.epochs["epoch"].to_numpy(np.int64)
    starts = np.flatnonzero(np.diff(places.run, prepend=-1))
    row, column = places.experiment[starts], places.column[starts]
    extrema: dict[str, np.ndarray] = {}
    for name, end in EXTREMA.items():
        values = places.epochs[name].to_numpy(np.float64)
        for what, of_run in extremum_of_runs(values, epoch, starts, end).items():
            extrema |= grouped_statistics(
                f"{name}_{end}_{what}", _EXTREMUM_STATISTICS, of_run, row, column, places.n_runs
            )
    experiments = experiments.join(pd.DataFrame(extrema, index=places.experiment_ids))
    return experiments.join(_measured_medians(runs)).reset_index()


class _Layout(NamedTuple):
    """The rows of a summary by epochs: for every row of `epochs` the number of the one that it
    belongs to, or -1, and the first columns."""

    row: np.ndarray
    columns: dict[str, np.ndarray]


def _lay_out(places: "_Places", epoch: np.ndarray, grid: np.ndarray) -> _Layout:
    """A row for each experiment and each epoch of the ascending `grid` that a run reached."""
    n_epochs = np.zeros(len(places.experiment_ids), dtype=np.int64)
    np.maximum.at(n_epochs, places.experiment, epoch)
    n_rows = np.searchsorted(grid, n_epochs, side="right")
    first_row = np.cumsum(n_rows) - n_rows
    place = np.searchsorted(grid, epoch)
    is_shown = np.isin(epoch, grid)
    row = np.where(is_shown, first_row[places.experiment] + place, -1)
    experiment = np.repeat(np.arange(len(n_rows)), n_rows)
    return _Layout(
        row,
        {
            "experiment_id": places.experiment_ids[experiment],
            "epoch": grid[np.arange(len(experiment)) - first_row[experiment]],
            "num_runs": places.n_runs[experiment],
            "num": np.bincount(row[is_shown], minlength=len(experiment)),
        },
    )


class _Places(NamedTuple):
    """Epochs of all runs but the failed, run by run, and where each belongs.

    `run`, `experiment` and `column` have one entry for every row of `epochs`: the number of its
    run, the number of its experiment, and the number of the run within that experiment.
    `n_runs` and `experiment_ids` have one entry for every experiment.
    """

    epochs: pd.DataFrame
    run: np.ndarray
    experiment: np.ndarray
    column: np.ndarray
    n_runs: np.ndarray
    experiment_ids: pd.Index


def _places(runs: pd.DataFrame, epochs: pd.DataFrame) -> _Places:
    runs = runs.loc[runs["status"] != "failed", ["run_id", "experiment_id"]]
    runs = runs.sort_values(["experiment_id", "run_id"], ignore_index=True)
    experiment_of_run, experiment_ids = pd.factorize(runs["experiment_id"])
    column_of_run = runs.groupby("experiment_id").cumcount().to_numpy()

    codes, run_ids = pd.factorize(epochs["run_id"])
    run = pd.Index(runs["run_id"]).get_indexer(run_ids)[codes]
    order = np.argsort(run, kind="stable")
    order = order[run[order] >= 0]
    run = run[order]
    return _Places(
        epochs.iloc[order],
        run,
        experiment_of_run[run],
        column_of_run[run],
        np.bincount(experiment_of_run),
        experiment_ids,
    )


def _measured_medians(runs: pd.DataFrame) -> pd.DataFrame:
    """Medians over the runs that were measured, and what they are worth, of every experiment."""
    succeeded = runs[runs["status"] != "failed"]
    measured = succeeded[succeeded["energy_j"].notna()]
    # A simulated energy never enters the median of others; alone, it is marked as what it is.
    is_simulated = measured["energy_quality"] == "simulated"
    has_others = (~is_simulated).groupby(measured["experiment_id"]).transform("any")
    measured = measured[~is_simulated | ~has_others.astype(bool)]
    ranks = pd.Categorical(measured["energy_quality"], ENERGY_QUALITIES, ordered=True).codes
    worst = pd.Series(ranks, measured.index).groupby(measured["experiment_id"]).min()
    groups = measured.groupby("experiment_id")
    experiment_ids = pd.Index(runs["experiment_id"].unique(), name="experiment_id")
    frame = pd.DataFrame(
        {
            "duration_s_median": succeeded.groupby("experiment_id")["duration_s"].median(),
            "energy_j_median": groups["energy_j"].median(),
            "energy_j_num_measured": groups.size(),
        },
        index=experiment_ids,
    )
    frame = frame.astype({"duration_s_median": "Float64", "energy_j_median": "Float64"})
    frame["energy_j_num_measured"] = frame["energy_j_num_measured"].fillna(0).astype(np.int64)
    # Where nothing was measured, the energy is what ENERGY_QUALITIES begins with: unavailable.
    worst = worst.reindex(experiment_ids, fill_value=0)
    frame["energy_quality"] = [ENERGY_QUALITIES[rank] for rank in worst]
    return frame
