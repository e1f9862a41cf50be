"""Learning curves from summaries."""

from pathlib import Path

import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from minibutter.plots.drawing import save

_PANEL_INCHES = (3.1, 2.6)
_MAX_COLUMNS = 4
_MAX_PANELS = 64

_SETTINGS = (
    "activation", "initializer", "parameterization", "sigma0", "bias_multiplier", "base_width",
    "optimizer", "learning_rate", "learning_rate_step_epochs", "learning_rate_gamma",
    "momentum", "nesterov",
    "momentum_form", "perturbation", "batch_size",
    "batch_rule", "batch_exchange_rate", "batch_size_max", "sampling", "epochs",
    "l1", "l2", "label_noise", "test_split", "split_method", "dtype", "kernel",
    "cache_state", "slices", "seed",
)  # fmt: skip


def draw_learning_curves(experiments: pd.DataFrame, epochs: pd.DataFrame, path: Path) -> None:
    """Median test loss against the epoch, with its quartiles: a curve per network, the darker the
    larger, in a panel for every combination of the settings in which the experiments differ.

    Parameters
    ----------
    experiments, epochs : summaries of `minibutter.store`, one row an experiment and one row an
        experiment and epoch.
    path : file to write; its ending chooses the format.

    Raises
    ------
    ValueError
        If nothing was trained, there are more panels than anybody can read, or the format is not
        known.
    """
    drawn = experiments[experiments["num_runs"] > 0]
    differing = [key for key in _SETTINGS if drawn[key].nunique(dropna=False) > 1]
    panels = list(drawn.groupby(["dataset", "depth", "shape", *differing], dropna=False))
    if not panels:
        raise ValueError("no experiment has a trained run, so there is nothing to draw")
    if len(panels) > _MAX_PANELS:
        raise ValueError(
            f"the experiments differ in {', '.join(differing) or 'shape and depth'} and would fill "
            f"{len(panels)} panels (limit {_MAX_PANELS}); draw a part of summary/*.parquet"
        )
    n_columns = min(_MAX_COLUMNS, len(panels))
    for candidate in range(_MAX_COLUMNS, 1, -1):
        if len(panels) % candidate == 0:
            n_columns = candidate
            break
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(
        figsize=(_PANEL_INCHES[0] * n_columns, _PANEL_INCHES[1] * n_rows + 0.4),
        layout="constrained",
    )
    share_y = drawn["dataset"].nunique() == 1
    axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=share_y, squeeze=False).ravel()
    curves = {key: rows.sort_values("epoch") for key, rows in epochs.groupby("experiment_id")}
    colours = _colours(drawn["num_parameters"])
    for axis, ((dataset, depth, shape, *settings), members) in zip(axes, panels, strict=False):
        for member in members.sort_values("num_parameters").itertuples():
            curve = curves.get(member.experiment_id)
            if curve is None:
                continue
            colour = colours[member.num_parameters]
            x, median = curve["epoch"], curve["test_loss_median"]
            axis.plot(x, median, color=colour, linewidth=1.4)
            axis.fill_between(
                x,
                curve["test_loss_q1"],
                curve["test_loss_q3"],
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
        lines = [f"{dataset.partition(':')[0]}, {shape}, depth {depth}"]
        if differing:
            named = zip(differing, settings, strict=True)
            lines.append(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in named))
        axis.set_title("\n".join(lines), fontsize=9)
        axis.set_xscale("log")
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        # Less than a factor of 4 holds too few of 1, 2, 5, 10, ... to read a value from.
        is_narrow = high < 4 * low
        locator = (
            matplotlib.ticker.MaxNLocator(5)
            if is_narrow
            else matplotlib.ticker.LogLocator(subs=(1, 2, 5))
        )
        axis.yaxis.set_major_locator(locator)
        axis.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.tick_params(labelsize=8)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("test loss, median and quartiles", fontsize=9)
    _add_legend(figure, colours)
    save(figure, path)


def _colours(num_parameters: pd.Series) -> dict[int, tuple]:
    """A colour for every number of parameters, on a logarithmic scale: the larger, the darker."""
    from matplotlib import colormaps

    sizes = np.sort(num_parameters.unique())
    low, high = np.log(sizes[0]), np.log(sizes[-1])
    scale = colormaps["viridis_r"]
    return {
        size: scale(0.15 + 0.85 * ((np.log(size) - low) / (high - low) if high > low else 1.0))
        for size in sizes
    }


def _add_legend(figure: Figure, colours: dict[int, tuple]) -> None:
    """One entry a size; networks of nearly the same size share the entry of the power of two."""
    from matplotlib.lines import Line2D

    entries: dict[int, tuple] = {}
    for size, colour in colours.items():
        entries.setdefault(round(np.log2(size)), colour)
    handles = [Line2D([], [], color=colour, linewidth=2) for colour in entries.values()]
    labels = [f"$2^{{{power}}}$" for power in entries]
    figure.legend(
        handles,
        labels,
        title="parameters",
        loc="outside right upper",
        fontsize=8,
        title_fontsize=8,
        frameon=False,
    )
