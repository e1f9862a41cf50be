"""Figures of the width study."""

from pathlib import Path

import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minibutter.plots.drawing import finish_axis, save

_NAMES = {"standard": "standard", "ntk": "NTK", "mup": "μP"}
_COLOURS = {"standard": "#1f6fb4", "ntk": "#c4501b", "mup": "#2f8f5b"}
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
                ends = [row.batch_low, row.batch_high]
                ends = [end if np.isfinite(end) else row.batch_opt for end in ends]
                axis.plot(ends, [height] * 2, color=colour, linewidth=3, alpha=0.45)
                axis.plot(row.batch_opt, height, "D", color=colour, markersize=4.5)
        name, rate = panel
        axis.set_title(f"{_NAMES[name]}, learning rate {rate:g}", fontsize=9)
        _batch_axis(axis)
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
                label = f"{_NAMES[name]}, rate {rate:g}"
                _points(axis, some, quantity, _COLOURS[name], marker, label)
                used = some[some["used"]]
                if quantity == "batch" and len(used) > 1:
                    _line_through(axis, used, quantity, predicted, _COLOURS[name])
            used = of_name[of_name["used"]]
            if quantity == "noise" and len(used) > 1:
                _line_through(axis, used, quantity, predicted, _COLOURS[name])
    for axis, label in (
        (left, "best batch size (rows)"),
        (right, r"best normalised noise scale $\bar g = \epsilon / (B s^2)$"),
    ):
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.set_ylabel(label, fontsize=9)
        _width_axis(axis)
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


def draw_largest_rates(
    stability: pd.DataFrame, batches: pd.DataFrame, n_inputs: int, path: Path
) -> None:
    """Largest stable learning rate beside 2 / λ0, and the largest batch size, against the width.

    Parameters
    ----------
    stability : a row a parameterization and width, with `linear_rate`, `largest_rate` and
        `largest_rate_that_trains`.
    batches : likewise, with `largest_batch`; may be empty.
    n_inputs : width from which on a prediction for wide networks is drawn.
    """
    figure = Figure(figsize=(7.0, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    predicted = {"standard": -1.0, "ntk": 0.0}
    for name, some in stability.groupby("parameterization"):
        some = some.sort_values("width")
        colour = _COLOURS[name]
        for column, style, marker in (
            ("largest_rate", "-", "o"),
            ("largest_rate_that_trains", ":", "s"),
            ("linear_rate", "", "x"),
        ):
            errors = [
                some[column] - some[f"{column}_low"],
                some[f"{column}_high"] - some[column],
            ]
            left.errorbar(
                some["width"], some[column], errors, color=colour, marker=marker, linestyle=style,
                markersize=4, linewidth=1, capsize=2,
            )  # fmt: skip
        wide = some[some["width"] >= n_inputs]
        if name in predicted and len(wide) > 1:
            _prediction(left, wide["width"], wide["largest_rate"], predicted[name], "0.3")
    for name, some in batches.groupby("parameterization"):
        errors = np.array(
            [
                some["largest_batch"] - some["largest_batch_low"],
                some["largest_batch_high"] - some["largest_batch"],
            ]
        )
        right.errorbar(
            some["width"], some["largest_batch"], np.nan_to_num(errors), color=_COLOURS[name],
            marker="o", linestyle="", markersize=4, capsize=2, label=_NAMES[name],
        )  # fmt: skip
        if len(some) > 1:
            _prediction(right, some["width"], some["largest_batch"], -1.0, _COLOURS[name])
    left.set_yscale("log", base=10)
    right.set_yscale("log", base=2)
    right.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    left.set_ylabel("learning rate", fontsize=9)
    right.set_ylabel("batch size at the largest rate (rows)", fontsize=9)
    for axis in (left, right):
        _width_axis(axis)
        finish_axis(axis)
    line = matplotlib.lines.Line2D
    handles = [
        *(line([], [], color=_COLOURS[name], lw=3) for name in _COLOURS),
        line([], [], color="0.3", marker="o", markersize=4),
        line([], [], color="0.3", marker="s", linestyle=":", markersize=4),
        line([], [], color="0.3", marker="x", linestyle="", markersize=4),
        line([], [], color="0.4", linestyle="--", lw=1),
    ]
    labels = [
        *_NAMES.values(), "largest without a rise of the loss", "largest that trains",
        r"$2 / \lambda_0$", "predicted slope",
    ]  # fmt: skip
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save(figure, path)


def draw_best_accuracy(optima: pd.DataFrame, path: Path) -> None:
    """Test accuracy at the best batch size against the width."""
    figure = Figure(figsize=(3.8, 3.2), layout="constrained")
    axis = figure.subplots()
    found = optima[optima["batch_opt"].notna()]
    for (name, rate), some in found.groupby(["parameterization", "learning_rate"]):
        rates = sorted(found[found["parameterization"] == name]["learning_rate"].unique())
        some = some.sort_values("width")
        errors = 100 * np.array(
            [
                some["accuracy_opt"] - some["accuracy_low"],
                some["accuracy_high"] - some["accuracy_opt"],
            ]
        )
        axis.errorbar(
            some["width"],
            100 * some["accuracy_opt"],
            errors,
            color=_COLOURS[name],
            marker=_MARKERS[rates.index(rate) % len(_MARKERS)],
            linestyle=("-", "--", ":", "-.")[rates.index(rate) % 4],
            markersize=4,
            linewidth=1,
            capsize=2,
            label=f"{_NAMES[name]}, rate {rate:g}",
        )
    axis.set_ylabel("test accuracy at the best batch size (%)", fontsize=9)
    _width_axis(axis)
    finish_axis(axis)
    if not found.empty:
        axis.legend(fontsize=8, loc="lower right")
    save(figure, path)


def draw_coordinates(coordinates: pd.DataFrame, path: Path) -> None:
    """How far the units of every layer have moved after some steps, against the width."""
    names = [name for name in _NAMES if (coordinates["parameterization"] == name).any()]
    layers = list(dict.fromkeys(coordinates["layer"]))
    figure = Figure(figsize=(7.0, 1.9 * len(layers) + 0.6), layout="constrained")
    axes = figure.subplots(len(layers), len(names), squeeze=False, sharex=True, sharey="row")
    steps = sorted(coordinates["step"].unique())
    shades = np.linspace(0.35, 1.0, len(steps))
    for column, name in enumerate(names):
        for row, layer in enumerate(layers):
            axis = axes[row, column]
            for step, shade in zip(steps, shades, strict=True):
                some = coordinates[
                    (coordinates["parameterization"] == name)
                    & (coordinates["layer"] == layer)
                    & (coordinates["step"] == step)
                ]
                means = np.exp(np.log(some["change"]).groupby(some["width"]).mean())
                axis.plot(
                    means.index, means, marker=".", color=_COLOURS[name], alpha=shade, linewidth=1.1
                )
            axis.set_yscale("log")
            axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            _width_axis(axis, is_labelled=row == len(layers) - 1)
            finish_axis(axis)
            if row == 0:
                axis.set_title(_NAMES[name], fontsize=9)
            if column == 0:
                axis.set_ylabel(f"{layer}", fontsize=9)
    line = matplotlib.lines.Line2D
    figure.legend(
        [line([], [], color="0.1", alpha=shade, marker=".") for shade in shades],
        [f"step {step}" for step in steps],
        loc="outside lower center",
        ncols=len(steps),
        fontsize=8,
        frameon=False,
    )
    figure.supylabel("root mean square change of the units", fontsize=9)
    save(figure, path)


# ---------------------------------------------------------------------------------------------
# Parts


def _points(
    axis: Axes, rows: pd.DataFrame, quantity: str, colour: str, marker: str, label: str
) -> None:
    """Estimates with their intervals; hollow where they are not used."""
    value = rows[f"{quantity}_opt"].to_numpy(np.float64)
    errors = np.array(
        [
            value - rows[f"{quantity}_low"].to_numpy(np.float64),
            rows[f"{quantity}_high"].to_numpy(np.float64) - value,
        ]
    )
    axis.errorbar(
        rows["width"], value, np.clip(np.nan_to_num(errors), 0, None), color=colour, linestyle="",
        marker="", capsize=2, linewidth=1,
    )  # fmt: skip
    used = rows["used"].to_numpy(bool)
    axis.plot(rows["width"][used], value[used], marker, color=colour, markersize=5, label=label)
    axis.plot(
        rows["width"][~used], value[~used], marker, color=colour, markersize=5, fillstyle="none"
    )


def _line_through(axis: Axes, rows: pd.DataFrame, quantity: str, slope: float, colour: str) -> None:
    _prediction(axis, rows["width"], rows[f"{quantity}_opt"], slope, colour)


def _prediction(axis: Axes, x: pd.Series, y: pd.Series, slope: float, colour: str) -> None:
    """A line of this slope through the middle of points, in logarithms."""
    log_x, log_y = np.log(x.to_numpy(np.float64)), np.log(y.to_numpy(np.float64))
    ends = np.array([log_x.min(), log_x.max()])
    line = log_y.mean() + slope * (ends - log_x.mean())
    axis.plot(np.exp(ends), np.exp(line), "--", color=colour, linewidth=1, alpha=0.8, zorder=1)


def _batch_axis(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))


def _width_axis(axis: Axes, is_labelled: bool = True) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    if is_labelled:
        axis.set_xlabel("width (units of a hidden layer)", fontsize=9)


def _width_colours(widths: pd.Series) -> dict[int, tuple]:
    """The wider, the darker."""
    from matplotlib import colormaps

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
