"""Coordinate check: how far the numbers in every layer move in a few steps, against the width.

In a parameterization that keeps learning features at every width, the change of every layer's
units stays of order one. In NTK hidden units change as 1 / √width, and outputs do not depend on
the width; in the standard parameterization with one learning rate for all widths, the change of the
outputs grows with the width. Source: Yang et al. 2022 (arXiv:2203.03466), appendix D.1, and the
tables of Yang & Hu (arXiv:2011.14522) for what is expected.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.network import Network
from minibutter.studies.width.networks import descent, make_fixed_starts

EXPECTED_SLOPES = {
    "standard": {"first": -0.5, "hidden": 0.5, "output": 1.0},
    "ntk": {"first": -0.5, "hidden": -0.5, "output": 0.0},
    "mup": {"first": 0.0, "hidden": 0.0, "output": 0.0},
}
"""d log change / d log width after the first step, by layer."""


def measure_coordinates(
    data_dir: Path | None, learning_rate: float, steps: list[int], **start: Any
) -> pd.DataFrame:
    """Make some steps of gradient descent on fixed rows and watch the units of every layer.

    Parameters
    ----------
    steps : after which one looks, increasing.
    start : `dataset` and keywords of `make_fixed_starts`; on their rows one looks as well.

    Returns
    -------
    A row a repetition, step and layer: `layer`, "hidden 1" to "output"; `change`, root mean square
    over units and rows of what the units before their activation (logits of the output) have moved.
    """
    model, starts = make_fixed_starts(data_dir=data_dir, **start)
    before = [units(model.network, start.parameters, start.data.x_train) for start in starts]
    group = descent(model, starts, learning_rate)
    rows = []
    for step in steps:
        while group.epochs < step:
            group.run_epoch()
        for repetition, start in enumerate(starts):
            now = units(model.network, group.parameters(repetition), start.data.x_train)
            for layer, (old, new) in enumerate(zip(before[repetition], now, strict=True)):
                is_output = layer == model.network.depth - 1
                rows.append(
                    {
                        "repetition": repetition,
                        "step": step,
                        "layer": "output" if is_output else f"hidden {layer + 1}",
                        "change": float(np.sqrt(np.mean((new - old) ** 2))),
                    }
                )
    return pd.DataFrame(rows)


def units(network: Network, parameters: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    """What every layer computes before its activation: float64 (n, width) each; ReLU networks."""
    parameters = np.ascontiguousarray(parameters, np.float64)
    below, found = x.astype(np.float64), []
    for layer in range(network.depth):
        z = below @ network.weights(parameters, layer) + network.biases(parameters, layer)
        found.append(z)
        below = np.maximum(z, 0)
    return found


def slopes_of_changes(coordinates: pd.DataFrame) -> pd.DataFrame:
    """d log change / d log width, of geometric means over repetitions.

    Returns
    -------
    A row a parameterization, step and layer: `slope`, and `predicted_slope` for the first step.
    """
    rows = []
    for (name, step, layer), some in coordinates.groupby(["parameterization", "step", "layer"]):
        logs = np.log(some["change"]).groupby(some["width"]).mean()
        if len(logs) < 2:
            continue
        slope = float(np.polyfit(np.log(logs.index.to_numpy(np.float64)), logs, 1)[0])
        kind = {"hidden 1": "first", "output": "output"}.get(layer, "hidden")
        predicted = EXPECTED_SLOPES[name][kind]
        rows.append(
            {
                "parameterization": name,
                "step": step,
                "layer": layer,
                "slope": slope,
                "predicted_slope": predicted,
            }
        )
    return pd.DataFrame(rows)
