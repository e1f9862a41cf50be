"""Figures of late accuracy, best batch sizes and best noise scales."""

from pathlib import Path

import matplotlib.lines
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minibutter.plots.drawing import finish_axis, save
from minibutter.plots.width.axes import (
    COLOURS,
    NAMES,
    draw_prediction,
    error_bars,
    powers_of_two,
    width_axis,
)

_MARKERS = ("o", "s", "^", "v")
_SHOWN_DROP = 2.0
"""Percentage points below the worst of the optima that a panel still shows."""


def draw_accuracy(accuracies: pd.DataFrame, optima: pd.DataFrame, path: Path) -> None:
    """Late test accuracy against the batch size: a panel a learning rate, a curve a width.

    Points are means over repetitions; a bar under each curve's top is the 95 % interval of the best
    batch size, a diamond the best itself.

    Parameters
    ----------
    accuracies : rows of repetitions, with `late_accuracy`.
    optima : a row a curve, with `batch_opt`, `accuracy_opt` and `_low`, `_high`.
    """
    panels = list(optima.groupby(["parameterization", "learning_rate"], sort=True))
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(3.3 * n_columns, 2.4 * n_rows + 0.4), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
    colours = _width_colours(optima["width"])
    keys = ["parameterization", "learning_rate", "width"]
    of_curve = dict(list(accuracies.groupby(keys)))
    for axis, (panel, rows) in zip(axes, panels, strict=False):
        for row in rows.sort_values("width").itertuples():
            means = of_curve[*panel, row.width].groupby("batch_size")["late_accuracy"].mean()
            colour = colours[row.width]
            style = "-" if row.used else ":"
            axis.plot(
                means.index, 100 * means, style, color=colour, marker=".", markersize=4, lw=1.1
            )
            if not np.isnan(row.batch_opt):
                height = 100 * row.accuracy_opt
                # An interval that is open on a side goes on beyond the grid.
                low = row.batch_low if np.isfinite(row.batch_low) else means.index.min()
                high = row.batch_high if np.isfinite(row.batch_high) else means.index.max()
                axis.plot([low, high], [height] * 2, color=colour, linewidth=3, alpha=0.45)
                axis.plot(row.batch_opt, height, "D", color=colour, markersize=4.5)
        name, rate = panel
        axis.set_title(f"{NAMES[name]}, learning rate {rate:g}", fontsize=9)
        powers_of_two(axis, "x")
        finish_axis(axis)
    found = optima["accuracy_opt"][optima["batch_opt"].notna()]
    lowest, highest = 100 * found.min() - _SHOWN_DROP, 100 * found.max() + 0.7
    if np.isfinite([lowest, highest]).all():
        axes[0].set_ylim(lowest, highest)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel("batch size (rows)", fontsize=9)
    figure.supylabel("late test accuracy (%)", fontsize=9)
    _width_legend(figure, colours)
    save(figure, path)


def draw_optima(optima: pd.DataFrame, slopes: pd.DataFrame, path: Path) -> None:
    """Best batch size and best normalised noise scale against the width, with what is predicted.

    Parameters
    ----------
    optima : a row a curve; hollow markers are those that no slope is fitted to.
    slopes : of all learning rates together where `learning_rate` is null.
    """
    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, of_name in optima.groupby("parameterization"):
        rates = sorted(of_name["learning_rate"].unique())
        together = slopes[
            (slopes["parameterization"] == name) & slopes["learning_rate"].isna()
        ].iloc[0]
        for axis, quantity in ((left, "batch"), (right, "noise")):
            predicted = together[f"predicted_{quantity}_slope"]
            for rate, marker in zip(rates, _MARKERS, strict=False):
                some = of_name[of_name["learning_rate"] == rate].sort_values("width")
                some = some[some[f"{quantity}_opt"].notna()]
                if some.empty:
                    continue
                label = f"{NAMES[name]}, rate {rate:g}"
                _points(axis, some, quantity, COLOURS[name], marker, label)
            used = of_name[of_name["used"]]
            # Batches have a line for every rate; noise scales are to lie on a single one.
            lines = [used] if quantity == "noise" else [r for _, r in used.groupby("learning_rate")]
            for rows in lines:
                if len(rows) > 1:
                    values = rows[f"{quantity}_opt"]
                    draw_prediction(axis, rows["width"], values, predicted, COLOURS[name])
    for axis, label in (
        (left, "best batch size (rows)"),
        (right, r"best normalised noise scale $\bar g = \epsilon / (B s^2)$"),
    ):
        powers_of_two(axis, "y")
        axis.set_ylabel(label, fontsize=9)
        width_axis(axis)
        finish_axis(axis)
    handles, labels = left.get_legend_handles_labels()
    dashed = matplotlib.lines.Line2D([], [], color="0.4", linestyle="--", linewidth=1)
    figure.legend(
        [*handles, dashed],
        [*labels, "predicted slope"],
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        frameon=False,
    )
    save(figure, path)


def draw_best_accuracy(optima: pd.DataFrame, path: Path) -> None:
    """Test accuracy at the best batch size against the width."""
    figure = Figure(figsize=(3.8, 3.2), layout="constrained")
    axis = figure.subplots()
    found = optima[optima["batch_opt"].notna()]
    for (name, rate), some in found.groupby(["parameterization", "learning_rate"]):
        rates = sorted(found[found["parameterization"] == name]["learning_rate"].unique())
        some = some.sort_values("width")
        axis.errorbar(
            some["width"],
            100 * some["accuracy_opt"],
            100 * error_bars(some, "accuracy_opt", "accuracy"),
            color=COLOURS[name],
            marker=_MARKERS[rates.index(rate) % len(_MARKERS)],
            linestyle=("-", "--", ":", "-.")[rates.index(rate) % 4],
            markersize=4,
            linewidth=1,
            capsize=2,
            label=f"{NAMES[name]}, rate {rate:g}",
        )
    axis.set_ylabel("test accuracy at the best batch size (%)", fontsize=9)
    width_axis(axis)
    finish_axis(axis)
    if not found.empty:
        axis.legend(fontsize=8, loc="lower right")
    save(figure, path)


def _points(
    axis: Axes, rows: pd.DataFrame, quantity: str, colour: str, marker: str, label: str
) -> None:
    """Estimates with their intervals; hollow where they are not used."""
    value = rows[f"{quantity}_opt"].to_numpy(np.float64)
    axis.errorbar(
        rows["width"], value, error_bars(rows, f"{quantity}_opt", quantity), color=colour,
        linestyle="", marker="", capsize=2, linewidth=1,
    )  # fmt: skip
    used = rows["used"].to_numpy(bool)
    axis.plot(rows["width"][used], value[used], marker, color=colour, markersize=5, label=label)
    axis.plot(
        rows["width"][~used], value[~used], marker, color=colour, markersize=5, fillstyle="none"
    )


def _width_colours(widths: pd.Series) -> dict[int, tuple]:
    """The wider, the darker."""
    ordered = sorted(widths.unique())
    shades = np.linspace(0.12, 1.0, len(ordered))
    return {width: colormaps["viridis_r"](s) for width, s in zip(ordered, shades, strict=True)}


def _width_legend(figure: Figure, colours: dict[int, tuple]) -> None:
    line = matplotlib.lines.Line2D
    figure.legend(
        [line([], [], color=colour, linewidth=2) for colour in colours.values()],
        [str(width) for width in colours],
        title="width",
        loc="outside right upper",
        fontsize=8,
        title_fontsize=8,
        frameon=False,
    )
