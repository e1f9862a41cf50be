"""Statistics over the repetitions of an experiment, as the BUTTER data set defines them.

Quantiles interpolate linearly between order statistics (PERCENTILE_CONT of SQL) and NaN sorts as
the largest value. `num_finite` counts finite values; min, max, avg and stddev (n - 1) leave NaN
out.
"""

import numpy as np

_QUANTILES = {
    "q1": 0.25,
    "median": 0.5,
    "q3": 0.75,
    **{f"quantile_{percent}": percent / 100 for percent in (0, 25, 50, 75, 100)},
}


def extremum_of_runs(
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


def best_so_far(
    values: np.ndarray, epochs: np.ndarray, starts: np.ndarray, end: str
) -> dict[str, np.ndarray]:
    """Extremum of every run up to each of its epochs, and the epoch that first attained it.

    Both are NaN until the first value that is not. A run's rows begin at `starts`, by epoch.
    """
    pick = np.fmin if end == "min" else np.fmax
    best, best_epoch = [], []
    for of_run, its_epochs in zip(
        np.split(values, starts[1:]), np.split(epochs, starts[1:]), strict=True
    ):
        so_far = pick.accumulate(of_run)
        is_new = so_far != np.r_[np.nan, so_far[:-1]]  # NaN differs from itself.
        attained = np.where(is_new & ~np.isnan(so_far), its_epochs, np.nan)
        best.append(so_far)
        best_epoch.append(np.fmax.accumulate(attained))
    return {"best": np.concatenate(best), "best_epoch": np.concatenate(best_epoch)}


def grouped_statistics(
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
    result |= {
        statistic: _quantile(cells, _QUANTILES[statistic])
        for statistic in _QUANTILES
        if statistic in wanted
    }
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
