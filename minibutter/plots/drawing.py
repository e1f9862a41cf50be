"""What all figures share."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def finish_axis(axis: Axes) -> None:
    """A light grid behind the data and small labels."""
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)


def bytes_text(value: float, _: int) -> str:
    """A tick in bytes, KiB, MiB or GiB; takes what matplotlib's formatters are given."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:g} {unit}"
        value /= 1024
    return f"{value:g} GiB"


def save(figure: Figure, path: Path) -> None:
    """Write a figure and the folder that it is for; the ending of the name chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)
