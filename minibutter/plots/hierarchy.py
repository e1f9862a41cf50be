"""A network against the caches: what it keeps and what it moves."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from minibutter.plots.drawing import bytes_text, finish_axis, save

_LEVEL_NAMES = {
    "traffic_l1_bytes": "registers - level 1",
    "traffic_l2_bytes": "level 1 - level 2",
    "traffic_l3_bytes": "level 2 - level 3",
    "traffic_dram_bytes": "last level - memory",
}


def draw_hierarchy(
    phases: list[dict], working_sets: dict[str, float], caches: dict[int, int], path: Path
) -> None:
    """Working sets against the sizes of the caches, and the bytes that every layer moves.

    Parameters
    ----------
    phases : parts of an epoch with `name`, `layer` and bytes by the columns `traffic_*_bytes`.
    working_sets : bytes by name.
    caches : bytes by level.
    path : file to write; its ending chooses the format.

    Raises
    ------
    ValueError
        If there are no phases, or the format is not known.
    """
    if not phases:
        raise ValueError("no bytes are known, so there is nothing to draw")
    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 2.2))
    upper.barh(list(working_sets), list(working_sets.values()), color="0.6", height=0.6)
    upper.set_xscale("log", base=2)
    largest = max(*working_sets.values(), *caches.values())
    upper.set_xlim(left=min(*working_sets.values(), *caches.values()) / 4, right=4 * largest)
    upper.invert_yaxis()
    for level, size in sorted(caches.items()):
        upper.axvline(size, color="tab:red", linewidth=1)
        upper.text(
            size, -0.5, f"level {level}", color="tab:red", fontsize=8, ha="center", va="bottom"
        )
    upper.set_xlabel("bytes of the working set", fontsize=9)
    upper.xaxis.set_major_formatter(FuncFormatter(bytes_text))
    parts: dict[str, dict[str, float]] = {}
    columns = [name for name in _LEVEL_NAMES if phases[0][name] is not None]
    for phase in phases:
        # What belongs to no layer is one part.
        label = "all else" if phase["layer"] is None else f"layer {phase['layer'] + 1}"
        part = parts.setdefault(label, dict.fromkeys(columns, 0.0))
        for column in columns:
            part[column] += phase[column]
    labels = [label for label in parts if label != "all else"] + ["all else"] * (
        "all else" in parts
    )
    width = 0.8 / len(columns)
    shades = colormaps["viridis_r"]
    for number, column in enumerate(columns):
        places = np.arange(len(labels)) + (number - (len(columns) - 1) / 2) * width
        values = [parts[label][column] for label in labels]
        shade = shades(0.2 + 0.8 * number / max(len(columns) - 1, 1))
        lower.bar(places, values, width, color=shade, label=_LEVEL_NAMES[column])
    lower.set_yscale("log")
    lower.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 10 else 0)
    lower.set_ylabel("bytes an epoch, predicted", fontsize=9)
    lower.legend(fontsize=8, frameon=False, ncols=len(columns), loc="lower center",
                 bbox_to_anchor=(0.5, 1.0))  # fmt: skip
    for axis in (upper, lower):
        finish_axis(axis)
    save(figure, path)
