"""Tables as the measurements would give them, with known answers."""

import numpy as np
import pandas as pd

WIDTHS = (8, 16, 32, 64)
GRID = [round(2 ** (half / 2)) for half in range(2, 19)]
RATES = {"ntk": (8.0, 4.0), "standard": (0.1, 0.05)}


def plant_accuracies(ntk_slope=-1.0, standard_slope=0.0, noise=2e-4, shift=1.0, train_errors=None):
    """Parabolas with tops at rate * c * width^slope; `shift` moves those of the second rate."""
    rng = np.random.default_rng(0)
    tables = []
    for name, slope in (("ntk", ntk_slope), ("standard", standard_slope)):
        for rate in RATES[name]:
            for width in WIDTHS:
                top = 64 * rate / RATES[name][0] * (width / 8) ** slope
                if rate != RATES[name][0]:
                    top *= shift
                batch = np.array(GRID, np.float64)
                mean = 0.85 + 0.01 * np.log2(width) - 0.004 * np.log2(batch / top) ** 2
                accuracy = mean + noise * rng.standard_normal((16, len(batch)))
                tables.append(
                    pd.DataFrame(
                        {
                            "parameterization": name,
                            "learning_rate": rate,
                            "width": width,
                            "batch_size": np.tile(GRID, 16),
                            "repetition": np.repeat(range(16), len(GRID)),
                            "late_accuracy": accuracy.ravel(),
                            "train_error": (train_errors or {}).get(width, 0.0),
                        }
                    )
                )
    return pd.concat(tables, ignore_index=True)


def plant_stability(standard_slope=-1.0, ntk_slope=0.0):
    """Largest rates twice 2 / λ0, with a few percent of scatter."""
    rng = np.random.default_rng(1)
    tables = []
    for name, slope in (("standard", standard_slope), ("ntk", ntk_slope), ("mup", 0.0)):
        for width in (*WIDTHS, 128):
            linear = (width / 8) ** slope * np.exp(0.02 * rng.standard_normal(16))
            tables.append(
                pd.DataFrame(
                    {
                        "parameterization": name,
                        "width": width,
                        "repetition": range(16),
                        "sharpness": 2 / linear,
                        "largest_learning_rate": 4 * linear,
                        "largest_learning_rate_that_trains": 6 * linear,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def plant_coordinates():
    """Changes that do not depend on the width."""
    return pd.DataFrame(
        [
            {
                "parameterization": name,
                "width": width,
                "repetition": repetition,
                "step": step,
                "layer": layer,
                "change": 0.1 * step,
            }
            for name in ("standard", "ntk", "mup")
            for width in WIDTHS
            for repetition in range(2)
            for step in (1, 2)
            for layer in ("hidden 1", "hidden 2", "output")
        ]
    )
