"""Figures of the study of finite precision: what rounding does to trainings."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter

from minibutter.plots.drawing import finish_axis, save

_COLOURS = colormaps["tab10"].colors
_MARKERS = "osD^vPX*<>ph"
_LEAST = 1e-9
"""Where differences of exactly 0 are drawn on a logarithmic axis, below a gap."""


def draw_divergence(
    ends: pd.DataFrame, kernels: pd.DataFrame, parted: float, together: float, path: Path
) -> None:
    """Relative L1 difference and test disagreement at the end against the learning rate.

    Parameters
    ----------
    ends : one row a pair: `label` of its network, `learning_rate`, `l1_hidden`, `disagreement`.
    kernels : the same of one network with `variant` as its label, k = 3 among them.
    parted, together : values above and below which a difference is called so.
    path : file to write; its ending chooses the format.
    """
    figure = Figure(figsize=(8.2, 5.8), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    scale = _scale_of(pd.concat([ends["l1_hidden"], kernels["l1_hidden"]]))
    for column, (table, title) in enumerate(
        ((ends, "perturbed step, k = 3, 5, ..."), (kernels, "other kernels, smooth deep network"))
    ):
        above, below = axes[:, column]
        for number, (label, rows) in enumerate(table.groupby("label", sort=False)):
            style = {
                "color": _COLOURS[number % 10],
                "marker": _MARKERS[number % len(_MARKERS)],
                "markersize": 4,
                "linewidth": 1.2,
                "label": label,
            }
            # Points that lie on each other are drawn side by side.
            shift = 1.03 ** (number - table["label"].nunique() / 2) if column else 1.0
            _draw_range(above, rows, "l1_hidden", (np.exp, np.log, _LEAST), shift, style)
            _draw_range(below, rows, "disagreement", (np.asarray, _percent, 0), shift, style)
        for level in (parted, together):
            above.axhline(level, color="0.4", linewidth=0.8, linestyle=":")
        above.set_title(title, fontsize=9)
        above.set_yscale(scale)
        above.set_xscale(scale)
        below.set_yscale("symlog", linthresh=0.1)
        below.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        below.set_ylim(-0.02, 120)
        below.set_xlabel("learning rate", fontsize=9)
        for axis in (above, below):
            finish_axis(axis)
        place = "lower center" if column else "lower right"
        above.legend(fontsize=6.5, framealpha=0.8, edgecolor="none", loc=place)
        if (table["l1_hidden"] == 0).any():
            rate = table.loc[table["l1_hidden"] == 0, "learning_rate"].max()
            above.annotate(
                *("no bit differs", (rate, _LEAST), (0, 7), "data", "offset points"),
                fontsize=6.5,
                ha="center",
            )
    axes[0, 0].set_ylabel("relative L1 of a hidden matrix", fontsize=9)
    axes[1, 0].set_ylabel("test rows of another class, %", fontsize=9)
    save(figure, path)


def _scale_of(values: pd.Series) -> str:
    """Of an axis; matplotlib refuses a logarithm of nothing, where all trainings diverged."""
    return "log" if values.notna().any() else "linear"


def _percent(share):
    return 100 * share


def _draw_range(axis: Axes, rows: pd.DataFrame, column: str, scale, shift: float, style) -> None:
    """Mean over the pairs of every rate, with bars from the smallest to the largest."""
    back, to, least = scale
    rows = rows.dropna(subset=[column])
    grouped = to(rows[column].clip(lower=least)).groupby(rows["learning_rate"])
    middle, low, high = (back(getattr(grouped, name)()) for name in ("mean", "min", "max"))
    bars = np.clip([middle - low, high - middle], 0, None)
    places = shift * np.array(list(grouped.groups))
    axis.errorbar(places, middle, yerr=bars, elinewidth=0.8, capsize=2, **style)


def draw_growth(divergence: pd.DataFrame, rates: pd.DataFrame, path: Path) -> None:
    """Relative L2 difference against time, and the slope where it is steepest.

    Parameters
    ----------
    divergence : `label`, `dtype`, `learning_rate`, `time`, `l2`: one pair a combination.
    rates : the same keys with `steepest`, a Lyapunov exponent, and the times `steepest_from` and
        `steepest_to` between which it was fitted; NaN where there is none.
    path : file to write.
    """
    labels = list(divergence["label"].unique())
    figure = Figure(figsize=(3.7 * len(labels), 3.9), layout="constrained")
    axes = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
    steps = np.sort(divergence["learning_rate"].unique())
    scale = colormaps["viridis_r"]
    colours = {
        step: scale(0.1 + 0.9 * number / max(len(steps) - 1, 1))
        for number, step in enumerate(steps)
    }
    for axis, label in zip(axes, labels, strict=True):
        panel = divergence[divergence["label"] == label]
        handles = []
        for (step, dtype), pair in panel.groupby(["learning_rate", "dtype"]):
            pair = pair[pair["l2"] > 0].sort_values("time")
            is_single = dtype == "float32"
            axis.plot(
                *(pair["time"], pair["l2"]),
                color=colours[step],
                marker="o" if is_single else "x",
                markersize=2.5 if is_single else 3.5,
                linewidth=1.1 if is_single else 0.6,
            )
            found = rates[
                (rates["label"] == label)
                & (rates["learning_rate"] == step)
                & (rates["dtype"] == dtype)
            ]
            text = f"{step:g}" if is_single else f"{step:g}, float64"
            if len(found) and np.isfinite(found["steepest"].iloc[0]):
                fit = found.iloc[0]
                text += f": {fit['steepest']:.2g}"
                burst = pair[pair["time"].between(fit["steepest_from"], fit["steepest_to"])]
                middle = np.log(burst["l2"]).mean(), burst["time"].mean()
                t = np.array([burst["time"].min(), burst["time"].max()])
                axis.plot(
                    *(t, np.exp(middle[0] + fit["steepest"] * (t - middle[1]))),
                    color="0.15",
                    linewidth=1.6,
                    linestyle=":",
                    zorder=3,
                )
            marker = "o" if is_single else "x"
            handles.append(
                Line2D([], [], color=colours[step], marker=marker, markersize=3, label=text)
            )
        axis.set_yscale(_scale_of(divergence["l2"]))
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("time: learning rate × steps", fontsize=9)
        finish_axis(axis)
        axis.legend(
            handles=handles,
            title="learning rate: steepest exponent",
            fontsize=6.5,
            title_fontsize=7,
            loc="lower right",
            framealpha=0.8,
            edgecolor="none",
        )
    axes[0].set_ylabel("relative L2 of all parameters, k = 1 and 3", fontsize=9)
    save(figure, path)


def draw_spreads(spreads: pd.DataFrame, path: Path) -> None:
    """Spread over perturbations and over batch orders, and what a finite test set makes alone.

    Parameters
    ----------
    spreads : one row a network: `label`, `over_k_unbiased`, `over_orders_unbiased` and their
        `_low` and `_high`, `finite_test_set`, `ratio`.
    path : file to write.
    """
    figure = Figure(figsize=(6.2, 1.2 + 0.75 * len(spreads)), layout="constrained")
    axis = figure.subplots()
    kinds = (
        ("over_k_unbiased", "over perturbations k, one batch order", "o", 0.16),
        ("over_orders_unbiased", "over batch orders, one k", "s", -0.16),
    )
    places = np.arange(len(spreads))[::-1]
    for number, (column, label, marker, shift) in enumerate(kinds):
        value, low, high = (spreads[column + ending] for ending in ("", "_low", "_high"))
        axis.errorbar(
            *(value, places + shift),
            xerr=[(value - low).clip(lower=0), (high - value).clip(lower=0)],
            fmt=marker,
            color=_COLOURS[number],
            markersize=5,
            capsize=3,
            linewidth=1.2,
            label=label,
        )
    axis.vlines(spreads["finite_test_set"], places - 0.3, places + 0.3, color="0.2", linewidth=1.6)
    names = [f"{row.label}\nratio {row.ratio:.2f}" for row in spreads.itertuples()]
    axis.set_yticks(places, names)
    axis.set_ylim(-0.6, len(spreads) - 0.4)
    axis.set_xlim(left=-0.02 * axis.get_xlim()[1])
    axis.set_xlabel("standard deviation of test accuracy, percentage points", fontsize=9)
    finish_axis(axis)
    handles, labels = axis.get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.2", linewidth=1.6))
    labels.append("independent errors on this test set")
    figure.legend(handles, labels, fontsize=7, loc="outside upper center", ncols=3, frameon=False)
    save(figure, path)
