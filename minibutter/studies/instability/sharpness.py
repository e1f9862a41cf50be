"""Pieces of the study in which curvature is measured."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.curvature import Hessian
from minibutter.nn.lanczos import largest_eigenpairs
from minibutter.studies.data import load_split
from minibutter.studies.instability.edge import TanhNetwork, descend, pool_images, threshold
from minibutter.studies.instability.trajectories import RULES, Recipe, follow, snapshot_epochs
from minibutter.studies.instability.variants import Variant


def measure_edge(
    data_dir: Path | None,
    *,
    label: str,
    dataset: str,
    n_rows: int,
    seed: int,
    learning_rate: float,
    rule: str,
    decay: float,
    batch_size: int | None,
    steps: int,
    every: int,
) -> pd.DataFrame:
    """Sharpness along the training of `TanhNetwork` on pooled images of mean 0 and variance 1.

    Returns
    -------
    One row a look: the fields of `edge.Point`, `threshold` of the sharpness, `has_ended` early.
    """
    data, _ = load_split(dataset, data_dir, n_rows, 1, seed, dtype="float64")
    x = pool_images(data.x_train)
    x = (x - x.mean()) / x.std()
    network = TanhNetwork(x, data.y_train)
    momentum, is_nesterov = RULES[rule]["momentum"], rule == "nesterov"
    points = descend(
        *(network, learning_rate, steps, every, np.random.default_rng([seed, 3])),
        momentum=momentum,
        nesterov=is_nesterov,
        decay=decay,
        batch_size=batch_size,
    )
    table = pd.DataFrame([asdict(point) for point in points])
    table = table.astype({"batch_sharpness": float, "batch_sharpness_error": float})
    limit = threshold(learning_rate, momentum, nesterov=is_nesterov, decay=decay)
    ended = table["step"].iloc[-1] < steps - steps % every
    return table.assign(threshold=limit, has_ended=ended, n_inputs=x.shape[1])


def measure_network_sharpness(
    data_dir: Path | None, *, network: str, snapshots: int, n_rows: int, **recipe: Any
) -> pd.DataFrame:
    """Sharpness along a training of the networks whose trajectories part.

    Returns
    -------
    One row an epoch that was looked at: `epoch`, `steps`, `time`, `sharpness` (of the mean loss of
    the first rows, decay not included), `residual`, `threshold` of the optimizer.
    """
    followed = Recipe(**recipe)
    data = followed.load(data_dir)
    built = followed.network(data)
    epochs = snapshot_epochs(followed.epochs, snapshots)
    x, y = data.x_train[:n_rows], data.y_train[:n_rows]
    rng, start, rows = np.random.default_rng([followed.seed, 4]), None, []
    rule = RULES[followed.rule]
    limit = threshold(
        followed.learning_rate,
        rule["momentum"],
        nesterov=rule.get("nesterov", False),
        decay=followed.decay,
    )
    trained = follow(followed, data, Variant(""), epochs)
    first = followed.first_weights(built)
    for epoch, weights in zip([0, *epochs.tolist()], [first, *trained], strict=True):
        if not np.isfinite(weights).all():
            break
        product = Hessian(built, weights, x, y).product
        found = largest_eigenpairs(
            product, weights.size, rng=rng, start=start, tolerance=1e-3, max_steps=60
        )
        start = found.vectors
        steps = epoch * followed.steps_of(data)
        rows.append(
            {
                "epoch": epoch,
                "steps": steps,
                "time": steps * followed.learning_rate,
                "sharpness": float(found.values[0]),
                "residual": float(found.residuals[0]),
                "threshold": limit,
            }
        )
    return pd.DataFrame(rows)
