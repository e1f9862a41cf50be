"""Figures of the width study."""

from minibutter.plots.width.batches import draw_accuracy, draw_best_accuracy, draw_optima
from minibutter.plots.width.networks import draw_coordinates, draw_largest_rates

__all__ = [
    "draw_accuracy",
    "draw_best_accuracy",
    "draw_coordinates",
    "draw_largest_rates",
    "draw_optima",
]
