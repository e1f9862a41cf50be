"""Figures of the study of finite precision: where training is held, and its band of steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from minibutter.plots.drawing import finish_axis, save

_COLOURS = colormaps["tab10"].colors
_MARKERS = "osD"


def draw_sharpness(
    whole: pd.DataFrame, batches: pd.DataFrame, networks: pd.DataFrame, path: Path
) -> None:
    """Sharpness along training, in units of the optimizer's threshold.

    Parameters
    ----------
    whole : descent on all rows: `label`, `step`, `sharpness`, `threshold`.
    batches : minibatches: the same with `batch_sharpness`, NaN where nothing was stepped on.
    networks : those whose trajectories part: `learning_rate`, `time`, `sharpness`, `threshold` and
        `batch_sharpness`.
    path : file to write.
    """
    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for number, (label, rows) in enumerate(whole.groupby("label", sort=False)):
        share = rows["sharpness"] / rows["threshold"]
        axes[0].plot(rows["step"], share, color=_COLOURS[number], linewidth=1.1, label=label)
    axes[0].set_title("gradient descent on all rows", fontsize=9)
    for number, (label, rows) in enumerate(batches.groupby("label", sort=False)):
        colour = _COLOURS[number]
        share = rows["batch_sharpness"] / rows["threshold"]
        axes[1].plot(
            *(rows["step"], share),
            color=colour,
            linewidth=1.1,
            linestyle="--",
            label=f"{label}: of batches",
        )
        share = rows["sharpness"] / rows["threshold"]
        axes[1].plot(
            rows["step"], share, color=colour, linewidth=1.1, label=f"{label}: of all rows"
        )
    axes[1].set_title("minibatches, plain descent", fontsize=9)
    steps = np.sort(networks["learning_rate"].unique()) if len(networks) else []
    scale = colormaps["viridis_r"]
    for number, step in enumerate(steps):
        rows = networks[networks["learning_rate"] == step].sort_values("time")
        colour = scale(0.1 + 0.9 * number / max(len(steps) - 1, 1))
        share = rows["sharpness"] / rows["threshold"]
        axes[2].plot(
            *(rows["time"], share),
            color=colour,
            marker="o",
            markersize=2.5,
            linewidth=1.1,
            label=f"learning rate {step:g}",
        )
        share = rows["batch_sharpness"] / rows["threshold"]
        axes[2].plot(rows["time"], share, color=colour, linewidth=0.9, linestyle="--")
    axes[2].set_title("smooth deep network (dashed: of batches)", fontsize=9)
    for axis in axes:
        axis.axhline(1, color="0.2", linewidth=0.9, linestyle=":")
        finish_axis(axis)
        axis.legend(fontsize=6.5, framealpha=0.8, edgecolor="none", loc="upper right")
        axis.set_xlabel("step", fontsize=9)
    axes[1].legend(fontsize=6, frameon=False, loc="lower center", ncols=2)
    axes[2].set_xlabel("time: learning rate × steps", fontsize=9)
    axes[0].set_ylabel("sharpness / threshold of the optimizer", fontsize=9)
    axes[0].set_yscale("log")
    axes[0].set_ylim(0.02, 3)
    save(figure, path)


def draw_band(one_layer: pd.DataFrame, band: Sequence[float], path: Path) -> None:
    """Where the one-layer network ends, and what rounding does to it, against the step.

    Parameters
    ----------
    one_layer : `step`, `behaviour`, `loss_low`, `loss_high`, `l1`.
    band : from the local threshold to the one where it blows up.
    path : file to write.
    """
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    rows = one_layer.sort_values("step")
    held = rows[rows["behaviour"] != "blown up"]
    above.vlines(
        held["step"], held["loss_low"], held["loss_high"], color=_COLOURS[0], linewidth=1.5
    )
    above.plot(held["step"], held["loss_low"], ".", color=_COLOURS[0], markersize=3)
    above.set_ylabel("loss, last 200 of 1000 steps", fontsize=9)
    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    above.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    above.yaxis.set_minor_formatter(NullFormatter())
    for number, (behaviour, part) in enumerate(rows.groupby("behaviour", sort=False)):
        below.plot(
            *(part["step"], part["l1"].clip(lower=1e-17)),
            _MARKERS[number],
            color=_COLOURS[number],
            markersize=3.5,
            label=behaviour,
        )
    below.set_yscale("log")
    below.set_ylabel("largest relative L1, k = 1 and 3", fontsize=9)
    below.set_xlabel("step", fontsize=9)
    for axis in (above, below):
        axis.axvspan(*band, color="0.5", alpha=0.12, linewidth=0)
        finish_axis(axis)
    below.legend(fontsize=7, loc="center right", frameon=False)
    above.set_title(f"restrained from {band[0]:.4f} to {band[1]:g} (grey)", fontsize=9)
    save(figure, path)
