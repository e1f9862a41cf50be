"""The figures: what a step takes by size of the network, how fast a product is by its size."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLOURS = {
    "minibutter": "#c2410c",
    "minibutter_metrics": "#c2410c",
    "numpy": "#8a8f98",
    "scikit_learn": "#7c5cbf",
    "pytorch": "#2563a8",
    "pytorch_compiled": "#5fa3d9",
    "jax": "#2f8f5b",
}
RUNG_COLOURS = {
    "naive": "#8a8f98",
    "blocked": "#7c5cbf",
    "tiled": "#c2410c",
    "openblas": "#2563a8",
}


def spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Heights in the same order, moved apart as little as needed to be `gap` from each other.

    Labels that are too close are pushed from their common middle, group by group.
    """
    order = np.argsort(heights)
    groups = [[i] for i in order]

    def middles() -> list[float]:
        return [float(np.mean(heights[group])) for group in groups]

    def is_crowded(k: int) -> bool:
        needed = gap * (len(groups[k]) + len(groups[k + 1])) / 2
        return middles()[k + 1] - middles()[k] < needed

    while crowded := [k for k in range(len(groups) - 1) if is_crowded(k)]:
        k = crowded[0]
        groups[k : k + 2] = [groups[k] + groups[k + 1]]
    moved = np.empty(len(heights))
    for group, middle in zip(groups, middles(), strict=True):
        moved[group] = middle + gap * (np.arange(len(group)) - (len(group) - 1) / 2)
    return moved


def _format_time(microseconds: float, position: int) -> str:
    """Ticks in the unit that keeps them short."""
    return f"{microseconds:g} µs" if microseconds < 1000 else f"{microseconds / 1000:g} ms"


def draw_peers(document: dict, labels: dict[str, str], path: Path) -> None:
    """A line per side through the single networks, ours thick; 16x18 is a marker beside its line.

    Parameters
    ----------
    document : of the JSON.
    labels : names as they are written, by side.
    path : file to write.
    """
    rows = [row for row in document["networks"] if row["repetitions"] == 1]
    rows.sort(key=lambda row: row["num_parameters"])
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axis = figure.subplots()
    names = [name for name in labels if any(name in row["sides"] for row in rows)]
    starts: dict[str, tuple[float, float]] = {}
    for name in names:
        done = [row for row in rows if row["sides"][name]["us_per_step"] is not None]
        if not done:
            continue
        is_ours = name.startswith("minibutter")
        style = {"color": COLOURS[name], "zorder": 3 if is_ours else 2}
        dashes = "--" if name == "minibutter_metrics" and "minibutter" in names else "-"
        line = [_point(row, name) for row in done if not is_deep(row)]
        axis.plot(*zip(*line, strict=True), dashes, marker="o", markersize=5 if is_ours else 3.5,
                  linewidth=2.6 if is_ours else 1.3, **style)  # fmt: skip
        for row in filter(is_deep, done):
            axis.plot(*_point(row, name), "D", markersize=5, markerfacecolor="white", **style)
        starts[name] = line[0]
    _draw_ceiling(axis, rows)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    _label_lines(axis, starts, labels)
    _label_networks(axis, rows)
    axis.set_xlabel("parameters")
    axis.set_title(
        f"One training step, batch {document['batch_size']}, Adam, one core",
        fontsize=10,
        loc="left",
    )
    exponents = [round(np.log2(row["num_parameters"])) for row in rows]
    axis.set_xticks([2**k for k in range(min(exponents), max(exponents) + 1)])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(LogLocator(numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(_format_time))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def is_deep(row: dict) -> bool:
    """Whether a network has more layers than those that a line goes through."""
    return len(row["widths"]) > 4


def _point(row: dict, name: str) -> tuple[float, float]:
    """Parameters and microseconds."""
    return row["num_parameters"], row["sides"][name]["us_per_step"]


def _draw_ceiling(axis, rows: list[dict]) -> None:
    """What the matrix products alone would take at the ceiling of the core."""
    line = [
        (row["num_parameters"], row["flops_per_step"] / row["ceiling_gflops"] / 1e3)
        for row in rows
        if not is_deep(row)
    ]
    axis.plot(*zip(*line, strict=True), ":", color="#444444", linewidth=1)
    x, y = line[min(1, len(line) - 1)]
    axis.annotate(
        "matrix products at the FMA ceiling", (x, y), (10, -6), textcoords="offset points",
        fontsize=8, color="#444444",
    )  # fmt: skip


def _label_lines(axis, starts: dict[str, tuple[float, float]], labels: dict[str, str]) -> None:
    """Names to the left of the lines' first points, moved apart, with a thin pointer."""
    first = min(x for x, _ in starts.values())
    axis.set_xlim(left=first / 24)
    low, high = np.log(axis.get_ylim())
    heights = np.log([y for _, y in starts.values()])
    for (name, (x, y)), height in zip(
        starts.items(), spread(heights, 0.042 * (high - low)), strict=True
    ):
        axis.annotate(
            labels[name], (x, y), (x / 1.5, np.exp(height)), ha="right", va="center",
            fontsize=8.5, color=COLOURS[name],
            weight="bold" if name.startswith("minibutter") else "normal",
            arrowprops={"arrowstyle": "-", "color": COLOURS[name], "linewidth": 0.6},
        )  # fmt: skip


def _label_networks(axis, rows: list[dict]) -> None:
    """What the columns of points are, along the upper edge."""
    for row in rows:
        axis.annotate(
            row["name"] + (" ◇" if is_deep(row) else ""),
            (row["num_parameters"], 0.95 if is_deep(row) else 1.0),
            xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=8, color="#444444",
        )  # fmt: skip


def draw_ladder(document: dict, labels: dict[str, str], path: Path) -> None:
    """A point per product and rung, and a line through the medians of the octaves of flops.

    Parameters
    ----------
    document : of the JSON.
    labels : names as they are written, by rung.
    path : file to write.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axis = figure.subplots()
    ends: dict[str, tuple[float, float]] = {}
    for rung in labels:
        points = np.array(
            [
                (row["flops"], row["gflops_quartiles"][rung][1])
                for row in document["products"]
                if row["gflops_quartiles"][rung]
            ]
        )
        style = {"color": RUNG_COLOURS[rung], "zorder": 3 if rung == "tiled" else 2}
        axis.plot(*points.T, "o", markersize=3, alpha=0.45, markeredgewidth=0, **style)
        line = _medians_by_octave(points)
        axis.plot(*line.T, linewidth=2.4 if rung == "tiled" else 1.4, **style)
        ends[rung] = tuple(line[-1])
    ceiling = document["ceiling_gflops"]
    axis.axhline(ceiling, color="#444444", linewidth=1, linestyle=":")
    axis.set_xscale("log")
    axis.set_yscale("log")
    left, right = axis.get_xlim()
    axis.set_xlim(left, right * 4)
    axis.annotate(
        f"FMA ceiling, {ceiling:.0f} GFLOP/s", (left, ceiling), (4, 3),
        textcoords="offset points", fontsize=8, color="#444444",
    )  # fmt: skip
    low, high = np.log(axis.get_ylim())
    heights = spread(np.log([y for _, y in ends.values()]), 0.05 * (high - low))
    for (rung, (x, _)), height in zip(ends.items(), heights, strict=True):
        axis.annotate(
            labels[rung], (x, np.exp(height)), (6, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=RUNG_COLOURS[rung], weight="bold" if rung == "tiled" else "normal",
        )  # fmt: skip
    axis.set_xlabel("floating-point operations of the product")
    axis.set_title(
        f"GFLOP/s of the products in BUTTER's layers, batch {document['batch_size']}, "
        f"{document['dtype']}, one core",
        fontsize=10,
        loc="left",
    )
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def _medians_by_octave(points: np.ndarray) -> np.ndarray:
    """(x, y) medians of the points in every second octave of x, in the order of x."""
    groups = np.floor(np.log2(points[:, 0]) / 2)
    return np.array([np.median(points[groups == group], axis=0) for group in np.unique(groups)])
