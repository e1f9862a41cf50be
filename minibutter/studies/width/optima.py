"""From accuracies of single repetitions to a table of optima and their slopes against the width."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from minibutter.studies.width.peak import Curve, Peak, Slope, find_peak, fit_slope
from minibutter.studies.width.scales import PREDICTED_BATCH_SLOPE, normalised_noise

INTERPOLATES = 0.005
"""Largest mean training error at the optimum of a width that counts as interpolating."""


class Setting(NamedTuple):
    """One curve of accuracy against batch size."""

    parameterization: str
    learning_rate: float
    width: int


@dataclass(frozen=True)
class Optimum:
    """The best batch size of a setting.

    Attributes
    ----------
    setting : of which network and rate.
    curve : all batch sizes that were measured.
    peak : where it is best.
    train_error : mean at the measured batch size nearest to the best one.
    """

    setting: Setting
    curve: Curve
    peak: Peak
    train_error: float

    @property
    def interpolates(self) -> bool:
        """Whether nearly all training rows are right at the optimum."""
        return self.train_error <= INTERPOLATES

    @property
    def log2_batch(self) -> float | None:
        """log2 of the best batch size; None unless resolved."""
        value = self.peak.batch.value
        return None if value is None else math.log2(value)


def curve_of(accuracies: pd.DataFrame) -> Curve:
    """The curve of one setting, from rows of repetitions and batch sizes."""
    table = accuracies.pivot(index="repetition", columns="batch_size", values="late_accuracy")
    return Curve(np.log2(table.columns.to_numpy(np.float64)), table.to_numpy(np.float64))


def find_optima(accuracies: pd.DataFrame, draws: np.ndarray) -> dict[Setting, Optimum]:
    """Optima of all settings of a table of `training.measure_late_accuracy`.

    Parameters
    ----------
    draws : of repetitions, the same for all settings (`peak.draw_repetitions`).
    """
    found = {}
    for key, rows in accuracies.groupby(list(Setting._fields), sort=True):
        setting = Setting(*key)
        curve = curve_of(rows)
        peak = find_peak(curve, draws)
        errors = rows.groupby("batch_size")["train_error"].mean()
        best = peak.batch.value or 2 ** curve.log2_batch[np.argmax(curve.accuracy.mean(axis=0))]
        nearest = np.argmin(np.abs(np.log2(errors.index.to_numpy(np.float64)) - math.log2(best)))
        found[setting] = Optimum(setting, curve, peak, float(errors.iloc[nearest]))
    return found


def usable(optima: Mapping[Setting, Optimum]) -> dict[Setting, Optimum]:
    """Those that a slope may be fitted to: resolved, of networks that interpolate."""
    return {
        setting: optimum
        for setting, optimum in optima.items()
        if optimum.interpolates and optimum.log2_batch is not None
    }


def of_parameterization(
    optima: Mapping[Setting, Optimum], parameterization: str
) -> dict[Setting, Optimum]:
    """Those of one parameterization."""
    return {
        setting: optimum
        for setting, optimum in optima.items()
        if setting.parameterization == parameterization
    }


def batch_slope(optima: Mapping[Setting, Optimum], n_draws: int) -> Slope:
    """d log B_opt / d log width of some optima, with an intercept for every learning rate."""
    optima = usable(optima)
    draws = np.array([optimum.peak.log2_batch for optimum in optima.values()])
    return fit_slope(
        [setting.width for setting in optima],
        [optimum.log2_batch for optimum in optima.values()],
        draws.T if len(draws) else np.empty((n_draws, 0)),
        [setting.learning_rate for setting in optima],
    )


def left_out(optima: Mapping[Setting, Optimum]) -> str:
    """Which widths the slope does not use, and why; empty if it uses all."""
    kept = usable(optima)
    parts = []
    for rate in sorted({setting.learning_rate for setting in optima}):
        missing = [s for s in optima if s.learning_rate == rate and s not in kept]
        for why, widths in (
            ("not interpolating", [s.width for s in missing if not optima[s].interpolates]),
            ("without optimum", [s.width for s in missing if optima[s].interpolates]),
        ):
            if widths:
                parts.append(f"{why} at rate {rate:g}: {', '.join(map(str, sorted(widths)))}")
    return f"left out widths {'; '.join(parts)}" if parts else ""


def optima_table(optima: Mapping[Setting, Optimum], sigma0: float) -> pd.DataFrame:
    """One row a setting: best batch size, normalised noise scale and accuracy with 95 % intervals.

    Columns `batch_*`, `noise_*` and `accuracy_*` end in `opt`, `low` and `high`; `noise` is ḡ of
    `scales`. `used` says whether the slopes are fitted to it, `why_not` why not.
    """
    rows = []
    for setting, optimum in optima.items():
        batch, accuracy = optimum.peak.batch, optimum.peak.accuracy
        # Of a batch of one row; of B rows it is this over B.
        scale = normalised_noise(
            setting.parameterization, setting.width, sigma0, setting.learning_rate, 1
        )
        reasons = [batch.reason] if batch.value is None else []
        if not optimum.interpolates:
            reasons.append(f"training error {optimum.train_error:.2%}: does not interpolate")
        rows.append(
            {
                **setting._asdict(),
                "batch_opt": batch.value,
                "batch_low": batch.low,
                "batch_high": batch.high,
                "noise_opt": None if batch.value is None else scale / batch.value,
                "noise_low": None if batch.high is None else scale / batch.high,
                "noise_high": None if batch.low is None else scale / batch.low,
                "accuracy_opt": accuracy.value,
                "accuracy_low": accuracy.low,
                "accuracy_high": accuracy.high,
                "train_error": optimum.train_error,
                "used": not reasons,
                "why_not": "; ".join(reasons),
            }
        )
    table = pd.DataFrame(rows)
    numbers = [name for name in table if name.endswith(("_opt", "_low", "_high"))]
    return table.astype(dict.fromkeys(numbers, "float64"))


def slopes_table(optima: Mapping[Setting, Optimum], n_draws: int) -> pd.DataFrame:
    """Slopes of the best batch size and of ḡ against width, by rate and over all rates (null)."""
    rows = []
    for name in sorted({setting.parameterization for setting in optima}):
        of_name = of_parameterization(optima, name)
        rates = sorted({setting.learning_rate for setting in of_name})
        noise_offset = 1.0 if name == "standard" else 0.0
        for rate in [*rates, None]:
            some = {s: o for s, o in of_name.items() if rate is None or s.learning_rate == rate}
            slope = batch_slope(some, n_draws)
            rows.append(
                {
                    "parameterization": name,
                    "learning_rate": rate,
                    "n_widths": len({s.width for s in usable(some)}),
                    "batch_slope": slope.value,
                    "batch_slope_low": slope.low,
                    "batch_slope_high": slope.high,
                    "predicted_batch_slope": PREDICTED_BATCH_SLOPE[name],
                    "noise_slope": _less(noise_offset, slope.value),
                    "noise_slope_low": _less(noise_offset, slope.high),
                    "noise_slope_high": _less(noise_offset, slope.low),
                    "predicted_noise_slope": noise_offset - PREDICTED_BATCH_SLOPE[name],
                    "reason": slope.reason,
                }
            )
    table = pd.DataFrame(rows)
    numbers = [name for name in table if "slope" in name or name == "learning_rate"]
    return table.astype(dict.fromkeys(numbers, "float64"))


def _less(offset: float, slope: float | None) -> float | None:
    """Slope of ḡ, proportional to width^offset / B, from that of B."""
    return None if slope is None else offset - slope
