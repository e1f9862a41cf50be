"""Figures; the only room that knows matplotlib, which is drawn to files, never to a window."""

from minibutter.plots.energy import draw_energy_per_datum, draw_predicted_energy
from minibutter.plots.hierarchy import draw_hierarchy
from minibutter.plots.learning import draw_learning_curves

__all__ = [
    "draw_energy_per_datum",
    "draw_hierarchy",
    "draw_learning_curves",
    "draw_predicted_energy",
]
