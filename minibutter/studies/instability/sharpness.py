"""Pieces of the study in which curvature is measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.curvature import Hessian
from minibutter.nn.lanczos import largest_eigenpairs
from minibutter.nn.network import Network
from minibutter.nn.training import TrainingData
from minibutter.studies.data import load_split, pool_images, scale_globally
from minibutter.studies.instability.edge import (
    BatchSharpness,
    TanhNetwork,
    descend,
    mean_sharpness,
    threshold,
)
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
    momentum: float,
    decay: float,
    batch_size: int | None,
    growth: float,
    steps: int,
    every: int,
) -> pd.DataFrame:
    """Sharpness along the training of `TanhNetwork` on pooled images of mean 0 and variance 1.

    Returns
    -------
    One row a look: `step`, `learning_rate` of the steps before it, `loss`, `sharpness`,
    `batch_sharpness` of these steps with its `_error` and `_of_means` (see `edge.BatchSharpness`),
    `threshold` of the sharpness at this rate, `has_ended` early.
    """
    data = load_split(dataset, data_dir, n_rows, 1, seed, dtype="float64")
    x = pool_images(data.x_train)
    network = TanhNetwork(scale_globally(x, x), data.y_train)
    is_nesterov = rule == "nesterov"
    points = descend(
        *(network, learning_rate, steps, every, np.random.default_rng([seed, 3])),
        momentum=momentum,
        nesterov=is_nesterov,
        decay=decay,
        batch_size=batch_size,
        growth=growth,
    )
    table = pd.DataFrame(
        {
            "step": point.step,
            "learning_rate": point.learning_rate,
            "loss": point.loss,
            "sharpness": point.sharpness,
            **_columns(point.batches),
            "threshold": threshold(
                point.learning_rate, momentum, nesterov=is_nesterov, decay=decay
            ),
        }
        for point in points
    )
    ended = table["step"].iloc[-1] < steps - steps % every
    return table.assign(has_ended=ended, n_inputs=x.shape[1])


def measure_network_sharpness(
    data_dir: Path | None, *, network: str, snapshots: int, n_rows: int, **recipe: Any
) -> pd.DataFrame:
    """Sharpness along a training of the networks whose trajectories part.

    Returns
    -------
    One row an epoch that was looked at: `epoch`, `steps`, `time`, `sharpness` (of the mean loss of
    the first rows, decay not included), `residual`, the same of batches as in `measure_edge`,
    `threshold` of the optimizer.
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
                **_columns(_of_batches(built, weights, data, followed.batch_size, rng)),
                "threshold": limit,
            }
        )
    return pd.DataFrame(rows)


def _of_batches(
    network: Network,
    weights: np.ndarray,
    data: TrainingData,
    batch_size: int,
    rng: np.random.Generator,
    n_batches: int = 40,
) -> BatchSharpness:
    """Curvature of random batches of the training rows along their own gradients."""
    products = []
    for _ in range(n_batches):
        rows = rng.permutation(len(data.x_train))[:batch_size]
        hessian = Hessian(network, weights, data.x_train[rows], data.y_train[rows])
        gradient = hessian.gradient
        products.append((gradient @ hessian.product(gradient), gradient @ gradient))
    return mean_sharpness(np.array(products))


def _columns(batches: BatchSharpness) -> dict[str, float]:
    """As columns of a table; NaN for what there is not."""
    named = {
        "batch_sharpness": batches.value,
        "batch_sharpness_error": batches.error,
        "batch_sharpness_of_means": batches.of_means,
    }
    return {name: np.nan if value is None else value for name, value in named.items()}
