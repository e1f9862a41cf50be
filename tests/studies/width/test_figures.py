"""Figures of the width study: that they are drawn, and say what they show."""

import numpy as np
import pandas as pd

from minibutter.plots import width as figures
from minibutter.plots.width.axes import error_bars
from minibutter.studies.width import rates
from minibutter.studies.width.optima import find_optima, optima_table, slopes_table
from minibutter.studies.width.peak import draw_repetitions
from minibutter.studies.width.scales import PREDICTED_RATE_SLOPE
from minibutter.studies.width.stability import summarise_stability
from tests.studies.width.planted import plant_accuracies, plant_coordinates, plant_stability

DRAWS = draw_repetitions(16, 40, np.random.default_rng(5))


def text_of(path):
    """All words of a figure: an SVG whose text is text."""
    return path.read_text()


def test_every_figure_is_drawn_with_its_labels(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    accuracies = plant_accuracies(train_errors={8: 0.1})
    found = find_optima(accuracies, DRAWS)
    optima, slopes = optima_table(found, 1.0), slopes_table(found, len(DRAWS))
    stability = plant_stability()
    batches, _ = rates.largest_batches(found, stability, 1.0, DRAWS)
    summary = summarise_stability(stability, DRAWS)
    for name, draw, words in (
        (
            "accuracy",
            lambda path: figures.draw_accuracy(accuracies, optima, path),
            ("NTK, learning rate 8", "batch size (rows)", "late test accuracy (%)", "width"),
        ),
        (
            "optima",
            lambda path: figures.draw_optima(optima, slopes, path),
            ("best batch size (rows)", "predicted slope", "standard, rate 0.05"),
        ),
        (
            "largest_rates",
            lambda path: figures.draw_largest_rates(
                summary, batches, 32, PREDICTED_RATE_SLOPE, path
            ),
            ("learning rate", "largest that trains", "largest without a rise of the loss"),
        ),
        (
            "best_accuracy",
            lambda path: figures.draw_best_accuracy(optima, path),
            ("test accuracy at the best batch size (%)", "NTK, rate 4"),
        ),
        (
            "coordinates",
            lambda path: figures.draw_coordinates(plant_coordinates(), path),
            ("hidden 2", "output", "step 2", "root mean square change of the units"),
        ),
    ):
        draw(tmp_path / f"{name}.svg")
        drawn = text_of(tmp_path / f"{name}.svg")
        for word in words:
            assert word in drawn, (name, word)
        draw(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_optima_beyond_the_grid_leave_a_figure_whole(tmp_path):
    accuracies = plant_accuracies(ntk_slope=-3)
    found = find_optima(accuracies, DRAWS)
    optima, slopes = optima_table(found, 1.0), slopes_table(found, len(DRAWS))
    batches, _ = rates.largest_batches({}, plant_stability(), 1.0, DRAWS)
    figures.draw_accuracy(accuracies, optima, tmp_path / "accuracy.png")
    figures.draw_optima(optima, slopes, tmp_path / "optima.png")
    figures.draw_best_accuracy(optima, tmp_path / "best.png")
    summary = summarise_stability(plant_stability(), DRAWS)
    rates_path = tmp_path / "rates.png"
    figures.draw_largest_rates(summary, batches, 32, PREDICTED_RATE_SLOPE, rates_path)


def test_bars_end_where_an_interval_is_open_or_leaves_its_value_out():
    rows = pd.DataFrame(
        {"x_opt": [2.0, 2.0, 2.0], "x_low": [1.5, np.nan, 2.1], "x_high": [3.0, 2.5, 2.2]}
    )
    np.testing.assert_allclose(error_bars(rows, "x_opt", "x"), [[0.5, 0, 0], [1, 0.5, 0.2]])
