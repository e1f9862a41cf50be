"""Energy against the size of what is worked on, and against what a model says of it."""

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from minibutter.plots.drawing import bytes_text, finish_axis, save

_LEVEL_COLOURS = {"l1": "#2a9d8f", "l2": "#e9a43b", "l3": "#d1495b", "dram": "#4b4e6d"}
_UNKNOWN_COLOUR = "#4b4e6d"
_LEVEL_NAMES = {"l1": "L1", "l2": "L2", "l3": "L3", "dram": "memory"}


def draw_energy_per_datum(
    rows: pd.DataFrame, caches: Mapping[str, int] | None, what: str, path: Path
) -> None:
    """Joules a training datum against the working set of a step, with the boundaries of the caches.

    Parameters
    ----------
    rows : one a configuration, with `working_set_bytes`, `energy_j` and `predicted_j` an epoch,
        `n_train` and `level`.
    caches : bytes by level, nearest first; None draws no boundaries.
    what : what the energies are, for the title.
    path : file to write; its ending chooses the format.

    Raises
    ------
    ValueError
        If no row has a working set, or the format is not known.
    """
    rows = rows[rows["working_set_bytes"].notna()].sort_values("working_set_bytes")
    if rows.empty:
        raise ValueError("no configuration has a working set, so there is nothing to draw")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for level, members in _by_level(rows):
        axis.plot(
            members["working_set_bytes"],
            members["energy_j"] / members["n_train"],
            "o",
            color=_LEVEL_COLOURS.get(level, _UNKNOWN_COLOUR),
            markersize=4.5,
            alpha=0.75,
            markeredgewidth=0,
            label=f"{what}, fits into {_LEVEL_NAMES[level]}" if level else what,
        )
    axis.plot(
        rows["working_set_bytes"],
        rows["predicted_j"] / rows["n_train"],
        "_",
        color="black",
        markersize=7,
        markeredgewidth=0.8,
        label="model",
    )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    for level, boundary in zip(caches or (), accumulate((caches or {}).values()), strict=True):
        axis.axvline(boundary, color="grey", linewidth=0.9, linestyle="--")
        axis.annotate(
            f"{'+'.join(_LEVEL_NAMES[k] for k in list(caches)[: list(caches).index(level) + 1])}",
            (boundary, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color="dimgrey",
        )
    axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(bytes_text))
    axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    finish_axis(axis)
    axis.set_xlabel("working set of a training step (parameters, gradients, activations)")
    axis.set_ylabel("J / training datum")
    axis.legend(fontsize=8, frameon=False)
    save(figure, path)


def draw_predicted_energy(rows: pd.DataFrame, what: str, path: Path) -> None:
    """Predicted against measured joules an epoch, and the relative errors below.

    Where there are predictions of fits that had not seen the experiment, they are the ones drawn.

    Parameters
    ----------
    rows : one a configuration, with `energy_j`, `predicted_j`, `held_out_j` and `level`.
    what : what the energies are, for the label.
    path : file to write; its ending chooses the format.

    Raises
    ------
    ValueError
        If the format is not known.
    """
    is_held_out = rows["held_out_j"].notna().all()
    rows = rows.assign(shown_j=rows["held_out_j" if is_held_out else "predicted_j"])
    figure = Figure(figsize=(5.4, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
    for level, members in _by_level(rows):
        style = {
            "color": _LEVEL_COLOURS.get(level, _UNKNOWN_COLOUR),
            "markersize": 4.5,
            "alpha": 0.75,
            "markeredgewidth": 0,
            "label": f"fits into {_LEVEL_NAMES[level]}" if level else None,
        }
        errors = 100 * (members["shown_j"] / members["energy_j"] - 1)
        above.plot(members["energy_j"], members["shown_j"], "o", **style)
        below.plot(members["energy_j"], errors, "o", **style)
    low, high = rows["energy_j"].min(), rows["energy_j"].max()
    above.plot([low, high], [low, high], color="black", linewidth=0.8)
    above.set_xscale("log")
    above.set_yscale("log")
    below.axhline(0, color="black", linewidth=0.8)
    # The same room above and below nothing, so that a bias is seen as one.
    reach = max(1.15 * np.abs(100 * (rows["shown_j"] / rows["energy_j"] - 1)).max(), 0.1)
    below.set_ylim(-reach, reach)
    for axis in (above, below):
        finish_axis(axis)
    who = "experiment left out" if is_held_out else "fitted"
    above.set_ylabel(f"modelled J / epoch ({who})")
    below.set_ylabel("error, %")
    below.set_xlabel(f"{what} J / epoch")
    if above.get_legend_handles_labels()[1]:
        above.legend(title="working set", fontsize=8, title_fontsize=8, frameon=False)
    save(figure, path)


def _by_level(rows: pd.DataFrame) -> list[tuple[str | None, pd.DataFrame]]:
    """Parts of the rows, the nearest cache first; one part where levels are not known."""
    if rows["level"].isna().any():
        return [(None, rows)]
    return [
        (level, rows[rows["level"] == level])
        for level in _LEVEL_NAMES
        if level in set(rows["level"])
    ]
