"""Figures of largest learning rates, and of how far units move."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd
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


def draw_largest_rates(
    stability: pd.DataFrame,
    batches: pd.DataFrame,
    n_inputs: int,
    predicted: Mapping[str, float],
    path: Path,
) -> None:
    """Largest stable learning rate beside 2 / λ0, and the largest batch size, against the width.

    Parameters
    ----------
    stability : a row a parameterization and width, with `linear_rate`, `largest_rate` and
        `largest_rate_that_trains`.
    batches : likewise, with `largest_batch`; may be empty.
    n_inputs : width from which on a prediction for wide networks is drawn.
    predicted : slopes of the largest rate by parameterization; that of the largest batch is -1.
    """
    figure = Figure(figsize=(7.0, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, some in stability.groupby("parameterization"):
        some = some.sort_values("width")
        colour = COLOURS[name]
        for column, style, marker in (
            ("largest_rate", "-", "o"),
            ("largest_rate_that_trains", ":", "s"),
            ("linear_rate", "", "x"),
        ):
            left.errorbar(
                some["width"], some[column], error_bars(some, column, column), color=colour,
                marker=marker, linestyle=style, markersize=4, linewidth=1, capsize=2,
            )  # fmt: skip
        wide = some[some["width"] >= n_inputs]
        if name in predicted and len(wide) > 1:
            draw_prediction(left, wide["width"], wide["largest_rate"], predicted[name], "0.3")
    for name, some in batches.groupby("parameterization"):
        errors = error_bars(some, "largest_batch", "largest_batch")
        right.errorbar(
            some["width"], some["largest_batch"], errors, color=COLOURS[name],
            marker="o", linestyle="", markersize=4, capsize=2, label=NAMES[name],
        )  # fmt: skip
        if len(some) > 1:
            draw_prediction(right, some["width"], some["largest_batch"], -1.0, COLOURS[name])
    left.set_yscale("log", base=10)
    powers_of_two(right, "y")
    left.set_ylabel("learning rate", fontsize=9)
    right.set_ylabel("batch size at the largest rate (rows)", fontsize=9)
    for axis in (left, right):
        width_axis(axis)
        finish_axis(axis)
    line = matplotlib.lines.Line2D
    handles = [
        *(line([], [], color=COLOURS[name], lw=3) for name in COLOURS),
        line([], [], color="0.3", marker="o", markersize=4),
        line([], [], color="0.3", marker="s", linestyle=":", markersize=4),
        line([], [], color="0.3", marker="x", linestyle="", markersize=4),
        line([], [], color="0.4", linestyle="--", lw=1),
    ]
    labels = [
        *NAMES.values(), "largest without a rise of the loss", "largest that trains",
        r"$2 / \lambda_0$", "predicted slope",
    ]  # fmt: skip
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save(figure, path)


def draw_coordinates(coordinates: pd.DataFrame, path: Path) -> None:
    """How far the units of every layer have moved after some steps, against the width."""
    names = [name for name in NAMES if (coordinates["parameterization"] == name).any()]
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
                    means.index, means, marker=".", color=COLOURS[name], alpha=shade, linewidth=1.1
                )
            axis.set_yscale("log")
            axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            width_axis(axis, is_labelled=row == len(layers) - 1)
            finish_axis(axis)
            if row == 0:
                axis.set_title(NAMES[name], fontsize=9)
            if column == 0:
                axis.set_ylabel(layer, fontsize=9)
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
