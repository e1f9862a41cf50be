"""The repetitions of an experiment condensed to statistics: the tables that figures are made of.

The definitions are those of the BUTTER data set (OEDI submission 5708), so that the numbers can be
laid beside the published ones:

* quantiles interpolate linearly between order statistics (PERCENTILE_CONT of SQL). NaN sorts as
  the largest value and an epoch that a run did not reach counts as NaN, so that a diverged
  repetition pulls the upper quantiles and does not vanish from them;
* `num_finite` counts finite values; min, max, avg and stddev (n - 1) leave NaN out;
* the epoch of an extremum is the first, from 1, at which a run attains its own extremum.

Failed runs are counted and enter no statistic. Diverged and stopped runs do. Unlike `loss` in the
published files, the loss here does not contain the penalty.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minibutter.store.files import StoreError, sync
from minibutter.store.schema import ENERGY_QUALITIES, EXPERIMENT_COLUMNS
from minibutter.store.tables import read_epochs, read_runs

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
_EXTREMA = {
    "test_loss": "min",
    "test_accuracy": "max",
    "test_mean_squared_error": "min",
    "test_kullback_leibler_divergence": "min",
}
_QUANTILES = {"q1": 0.25, "median": 0.5, "q3": 0.75}

_RUN_COLUMNS = [
    *("run_id", "experiment_id", "status", "diverged", "duration_s", "energy_j", "energy_quality"),
    *EXPERIMENT_COLUMNS,
]


def summarize_epochs(runs: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Statistics over the repetitions at every epoch.

    Parameters
    ----------
    runs : with columns run_id, experiment_id, status.
    epochs : with columns run_id, epoch, and the losses and metrics of both sides.

    Returns
    -------
    pandas.DataFrame
        One row for each experiment and each epoch that at least one of its runs reached, ordered
        by both; `num_runs` runs went into a row. Columns are named `test_loss_median` and so on.
    """
    places = _places(runs, epochs)
    epoch = places.epochs["epoch"].to_numpy(np.int64)
    n_epochs = np.zeros(len(places.experiment_ids), dtype=np.int64)
    np.maximum.at(n_epochs, places.experiment, epoch)
    first_row = np.cumsum(n_epochs) - n_epochs
    row = first_row[places.experiment] + epoch - 1

    experiment_of_row = np.repeat(np.arange(len(n_epochs)), n_epochs)
    runs_of_row = places.n_runs[experiment_of_row]
    columns = {
        "experiment_id": places.experiment_ids[experiment_of_row],
        "epoch": np.arange(len(experiment_of_row)) - first_row[experiment_of_row] + 1,
        "num_runs": runs_of_row,
    }
    for name, wanted in _EPOCH_STATISTICS.items():
        values = places.epochs[name].to_numpy(np.float64)
        columns |= _grouped_statistics(name, wanted, values, row, places.column, runs_of_row)
    return pd.DataFrame(columns)


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
    for name, end in _EXTREMA.items():
        values = places.epochs[name].to_numpy(np.float64)
        for what, of_run in _extremum_of_runs(values, epoch, starts, end).items():
            extrema |= _grouped_statistics(
                f"{name}_{end}_{what}", _EXTREMUM_STATISTICS, of_run, row, column, places.n_runs
            )
    experiments = experiments.join(pd.DataFrame(extrema, index=places.experiment_ids))
    return experiments.join(_measured_medians(runs)).reset_index()


def write_summary(directory: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summarise a sweep into `summary/experiments.parquet` and `summary/epochs.parquet`.

    Parameters
    ----------
    directory : directory of the sweep.

    Returns
    -------
    experiments, epochs : pandas.DataFrame
        As `summarize_experiments` and `summarize_epochs` return them, with `attrs["problems"]`.

    Raises
    ------
    StoreError
        If nothing is stored there, or the summary cannot be written.
    """
    directory = Path(directory)
    runs = read_runs(directory, columns=_RUN_COLUMNS)
    epochs = read_epochs(directory, columns=["run_id", "epoch", *_EPOCH_STATISTICS])
    experiments = summarize_experiments(runs, epochs)
    by_epoch = summarize_epochs(runs, epochs)
    folder = directory / "summary"
    try:
        folder.mkdir(exist_ok=True)
        for name, frame in (("experiments", experiments), ("epochs", by_epoch)):
            frame.attrs["problems"] = epochs.attrs["problems"]
            _write_frame(frame, folder / f"{name}.parquet")
    except OSError as error:
        raise StoreError(
            f"{folder} cannot take the summary ({error.strerror or error}); make it writable for "
            "you, or copy the results to a folder that is"
        ) from error
    return experiments, by_epoch


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


def _extremum_of_runs(
    values: np.ndarray, epochs: np.ndarray, starts: np.ndarray, end: str
) -> dict[str, np.ndarray]:
    """Extremum of every run and the epoch that first attains it; NaN where all values are NaN.

    A run's rows begin at `starts`, and NaN is passed over.
    """
    reduce = np.fmin if end == "min" else np.fmax
    extremum = reduce.reduceat(values, starts)
    lengths = np.diff(np.r_[starts, len(values)])
    attains = values == np.repeat(extremum, lengths)
    epochs_attaining = np.where(attains, epochs.astype(np.float64), np.nan)
    return {"value": extremum, "epoch": np.fmin.reduceat(epochs_attaining, starts)}


def _grouped_statistics(
    name: str,
    wanted: tuple[str, ...],
    values: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    n_columns: np.ndarray,
) -> dict[str, np.ndarray]:
    """Statistics of each row of a ragged table of which `values` are the cells known.

    Row r has `n_columns[r]` cells; value i stands in row `row[i]`, column `column[i]`, and all
    other cells are NaN. Rows of one length are treated together, as a matrix: experiments of a
    sweep have few different numbers of repetitions.
    """
    result = {statistic: np.full(len(n_columns), np.nan) for statistic in wanted}
    for width in np.unique(n_columns):
        rows = np.flatnonzero(n_columns == width)
        place = np.full(len(n_columns), -1)
        place[rows] = np.arange(len(rows))
        here = place[row] >= 0
        cells = np.full((len(rows), width), np.nan)
        cells[place[row[here]], column[here]] = values[here]
        for statistic, numbers in _statistics_of_rows(cells, wanted).items():
            result[statistic][rows] = numbers
    if "num_finite" in result:
        result["num_finite"] = result["num_finite"].astype(np.int64)
    return {f"{name}_{statistic}": numbers for statistic, numbers in result.items()}


def _statistics_of_rows(cells: np.ndarray, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Statistics along the second axis of a float64 matrix that has at least one column."""
    cells = np.sort(cells, axis=1)  # NaN goes last, which makes it the largest.
    is_number = ~np.isnan(cells)
    count = is_number.sum(axis=1)
    result = {
        "num_finite": np.isfinite(cells).sum(axis=1),
        "min": cells[:, 0],
        "max": cells[np.arange(len(cells)), np.maximum(count - 1, 0)],
    }
    result |= {statistic: _quantile(cells, q) for statistic, q in _QUANTILES.items()}
    # An infinite value makes the average infinite and the deviation NaN: both are the answer.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        result["avg"] = np.sum(cells, axis=1, where=is_number) / np.where(count, count, np.nan)
        squares = np.square(cells - result["avg"][:, None])
        degrees = np.where(count > 1, count - 1, np.nan)
        result["stddev"] = np.sqrt(np.sum(squares, axis=1, where=is_number) / degrees)
    return {statistic: result[statistic] for statistic in wanted}


def _quantile(sorted_cells: np.ndarray, q: float) -> np.ndarray:
    position = q * (sorted_cells.shape[1] - 1)
    below = sorted_cells[:, int(np.floor(position))]
    above = sorted_cells[:, int(np.ceil(position))]
    with np.errstate(invalid="ignore"):
        between = below + (position - np.floor(position)) * (above - below)
    # Between two equal infinities the formula would say NaN.
    return np.where(below == above, below, between)


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


def _write_frame(frame: pd.DataFrame, path: Path) -> None:
    # Column by column, because a frame as a whole would have its NaN turned into null.
    columns = {
        name: pa.array(column.to_numpy() if column.dtype == np.float64 else column)
        for name, column in frame.items()
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(pa.table(columns), temporary, compression="zstd")
    temporary.replace(path)
    sync(path.parent)
