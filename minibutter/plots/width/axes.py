"""What the figures of the width study share: names, colours, the axis of widths, predictions."""

import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

NAMES = {"standard": "standard", "ntk": "NTK", "mup": "μP"}
COLOURS = {"standard": "#1f6fb4", "ntk": "#c4501b", "mup": "#2f8f5b"}


def width_axis(axis: Axes, is_labelled: bool = True) -> None:
    """Widths along x."""
    powers_of_two(axis, "x")
    if is_labelled:
        axis.set_xlabel("width (units of a hidden layer)", fontsize=9)


def powers_of_two(axis: Axes, which: str) -> None:
    """A logarithmic scale of "x" or "y", labelled with whole numbers."""
    scale, ticks = {"x": (axis.set_xscale, axis.xaxis), "y": (axis.set_yscale, axis.yaxis)}[which]
    scale("log", base=2)
    ticks.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))


def error_bars(rows: pd.DataFrame, value: str, ends: str) -> np.ndarray:
    """Lengths (2, n) of bars from a column to `ends`_low and `ends`_high.

    0 where a side is open, or where a percentile lies on the value's other side.
    """
    middle = rows[value].to_numpy(np.float64)
    low, high = (rows[f"{ends}_{side}"].to_numpy(np.float64) for side in ("low", "high"))
    return np.clip(np.nan_to_num([middle - low, high - middle]), 0, None)


def draw_prediction(axis: Axes, x: pd.Series, y: pd.Series, slope: float, colour: str) -> None:
    """A line of this slope through the middle of points, in logarithms."""
    log_x, log_y = np.log(x.to_numpy(np.float64)), np.log(y.to_numpy(np.float64))
    ends = np.array([log_x.min(), log_x.max()])
    line = log_y.mean() + slope * (ends - log_x.mean())
    axis.plot(np.exp(ends), np.exp(line), "--", color=colour, linewidth=1, alpha=0.8, zorder=1)
