"""What pairs of trainings come to: where they end, what several of them say, how fast they part."""

import math

import numpy as np
import pandas as pd

from minibutter.studies.instability.differences import fit_growth

Range = tuple[float | None, float | None]


def ends_of(divergence: pd.DataFrame) -> pd.DataFrame:
    """The last look at every pair: the rows of `measure_divergence` at their largest epoch."""
    keys = ["network", "dtype", "rule", "learning_rate", "start", "variant"]
    last = divergence.groupby(keys)["epoch"].transform("max")
    return divergence[divergence["epoch"] == last].reset_index(drop=True)


def geometric_mean(values: np.ndarray) -> float:
    """Of positive numbers; 0 if all are 0, NaN if one is not finite."""
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        return math.nan
    if not values.any():
        return 0.0
    # A pair that has not parted at all counts as one that has parted by half of float64's last bit.
    return float(np.exp(np.log(np.maximum(values, 1e-17)).mean()))


def by_starts(pairs: pd.DataFrame, column: str = "l1_hidden") -> tuple[float, Range, float | None]:
    """What several starts say: the mean on the logarithm, its range, and how sure that is.

    Pairs of one start share the unperturbed training, and count as one. The median of n starts lies
    in their range with a probability of 1 - 2^(1 - n).

    Returns
    -------
    Geometric mean; smallest and largest start, or None twice for one start; probability.
    """
    values = pairs.groupby("start")[column].agg(geometric_mean).to_numpy()
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return geometric_mean(values), (None, None), None
    return geometric_mean(values), (float(values.min()), float(values.max())), 1 - 2.0 ** (1 - n)


def growth_rates(divergence: pd.DataFrame) -> pd.DataFrame:
    """Slopes of log relative L2 against time of every pair, as Lyapunov exponents.

    Returns
    -------
    One row a pair: its keys, `rate` and `rate_error` per unit of time, `intercept` of the line,
    `rate_per_step`, `n_points`, `steepest` and its times; NaN where fewer than four looks lie
    between the first bit that differs and saturation.
    """
    keys = ["network", "dtype", "rule", "learning_rate", "start", "variant"]
    rows = []
    for key, pair in divergence.groupby(keys, sort=False):
        pair = pair.sort_values("epoch")
        found = fit_growth(pair["time"].to_numpy(), pair["l2"].to_numpy())
        row = dict(zip(keys, key, strict=True))
        rate = math.nan if found is None else found.rate
        rows.append(
            row
            | {
                "rate": rate,
                "rate_error": math.nan if found is None else found.standard_error,
                "intercept": math.nan if found is None else found.start,
                "rate_per_step": rate * row["learning_rate"],
                "n_points": 0 if found is None else found.n_points,
                "steepest": math.nan if found is None else found.steepest,
                "steepest_from": math.nan if found is None else found.steepest_from,
                "steepest_to": math.nan if found is None else found.steepest_to,
            }
        )
    return pd.DataFrame(rows)
