"""Figures of planted tables: they appear, and say what is drawn."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from minibutter.plots import edge as edge_figures
from minibutter.plots import instability as figures


@pytest.fixture
def draw(tmp_path):
    """Draws a figure as SVG whose text is text, and as PNG."""

    def draw_both(function, *arguments):
        with mpl.rc_context({"svg.fonttype": "none"}):
            for ending in ("svg", "png"):
                function(*arguments, tmp_path / "figures" / f"drawn.{ending}")
        assert (tmp_path / "figures" / "drawn.png").stat().st_size > 5000
        return (tmp_path / "figures" / "drawn.svg").read_text()

    return draw_both


def test_divergence_shows_every_network_and_kernel(draw):
    def ends(labels):
        return pd.DataFrame(
            {"label": label, "learning_rate": rate, "l1_hidden": level, "disagreement": level / 9}
            for label in labels
            for rate, level in ((0.1, 0.5), (0.1, 0.7), (0.01, 0.0), (0.001, np.nan))
        )

    text = draw(
        *(figures.draw_divergence, ends(["swish", "relu"]), ends(["k = 3", "blas"]), 0.1, 1e-4)
    )
    for label in ("swish", "relu", "k = 3", "blas", "learning rate", "test rows of another class"):
        assert label in text


def test_growth_names_exponents_and_types(draw):
    time = np.geomspace(1, 100, 12)
    pairs = pd.concat(
        pd.DataFrame(
            {
                "label": "swish 5x64",
                "dtype": dtype,
                "learning_rate": rate,
                "time": time,
                "l2": start * np.exp(rate * time),
            }
        )
        for dtype, start in (("float32", 1e-8), ("float64", 1e-16))
        for rate in (0.1, 0.02)
    )
    lines = pd.DataFrame(
        {
            "label": "swish 5x64",
            "dtype": dtype,
            "learning_rate": 0.1,
            "steepest": rate,
            "steepest_from": 1.0,
            "steepest_to": 30.0,
        }
        for dtype, rate in (("float32", 0.123), ("float64", np.nan))
    )
    text = draw(figures.draw_growth, pairs, lines)
    for label in (
        "0.1: 0.12",
        "0.1, float64<",
        "0.02<",
        "learning rate: steepest exponent",
        "swish 5x64",
    ):
        assert label in text


def test_trainings_that_all_diverged_leave_empty_figures(draw):
    nothing = pd.DataFrame(
        {"label": ["swish"], "learning_rate": 0.1, "dtype": "float32", "time": 1.0}
    ).assign(l1_hidden=np.nan, disagreement=np.nan, l2=np.nan, steepest=np.nan)
    draw(figures.draw_divergence, nothing, nothing, 0.1, 1e-4)
    assert "0.1<" in draw(figures.draw_growth, nothing, nothing)


def test_spreads_show_both_and_the_finite_test_set(draw):
    spreads = pd.DataFrame(
        {
            "label": ["relu 2x128", "swish 2x128"],
            "over_k_unbiased": [0.3, 0.1],
            "over_k_unbiased_low": [0.2, 0.05],
            "over_k_unbiased_high": [0.4, 0.2],
            "over_orders_unbiased": [0.3, 0.3],
            "over_orders_unbiased_low": [0.2, 0.2],
            "over_orders_unbiased_high": [0.4, 0.4],
            "finite_test_set": [0.35, 0.3],
            "ratio": [1.0, 0.33],
        }
    )
    text = draw(figures.draw_spreads, spreads)
    for label in ("relu 2x128", "ratio 0.33", "percentage points", "independent errors"):
        assert label in text


def test_sharpness_is_drawn_in_units_of_its_threshold(draw):
    whole = pd.DataFrame(
        {"label": "0.1", "step": [0, 100], "sharpness": [40.0, 20.0], "threshold": 20.0}
    )
    batches = whole.assign(batch_sharpness=[np.nan, 20.0], label="B = 16")
    networks = batches.assign(learning_rate=0.05, time=[0.0, 10.0])
    text = draw(edge_figures.draw_sharpness, whole, batches, networks)
    for label in ("B = 16", "learning rate 0.05", "threshold of the optimizer", "minibatches"):
        assert label in text


def test_the_band_is_named_with_its_ends(draw):
    one_layer = pd.DataFrame(
        {
            "step": [0.01, 0.05, 0.11],
            "behaviour": ["settled", "restrained", "blown up"],
            "loss_low": [0.29, 0.29, np.nan],
            "loss_high": [0.29, 1.5, np.nan],
            "l1": [0.0, 1.7, 1e-14],
        }
    )
    text = draw(edge_figures.draw_band, one_layer, (0.0323, 0.1))
    for label in ("settled", "restrained", "blown up", "0.0323 to 0.1"):
        assert label in text
