"""Pieces of the study in which networks are trained: each a function of plain numbers.

`network` is a name for the tables; `recipe` are the arguments of `Recipe`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.studies.instability.differences import disagreement, relative_l1, relative_l2
from minibutter.studies.instability.trajectories import (
    Recipe,
    follow_named,
    outputs_of,
    snapshot_epochs,
)
from minibutter.studies.instability.variants import VARIANTS, why_impossible


def measure_bits(
    data_dir: Path | None, *, network: str, variants: list[str], epochs: int, **recipe: Any
) -> pd.DataFrame:
    """Which bits of a short training depend on which knob.

    Returns
    -------
    One row a variant: `variant`, `what`, `must_change`, `share_differing` of the weights, of which
    one bit or more is another, `relative_l2`, and `reason` where the machine cannot run it; then
    the numbers are None.
    """
    followed = Recipe(epochs=epochs, **recipe)
    ends = np.array([epochs])
    usual = follow_named(followed, data_dir, None, ends)[0]
    rows = []
    for name in variants:
        variant = VARIANTS[name]
        row = {
            "variant": name,
            "what": variant.what,
            "must_change": variant.changes,
            "share_differing": None,
            "relative_l2": None,
            "reason": why_impossible(variant),
        }
        if not row["reason"]:
            weights = follow_named(followed, data_dir, name, ends)[0]
            row["share_differing"] = _share_differing(weights, usual)
            row["relative_l2"] = float(relative_l2(weights, usual))
        rows.append(row)
    return pd.DataFrame(rows).astype({"share_differing": float, "relative_l2": float})


def measure_divergence(
    data_dir: Path | None, *, network: str, variants: list[str], snapshots: int, **recipe: Any
) -> pd.DataFrame:
    """How far other roundings of one training get from the usual one.

    Returns
    -------
    One row a variant and epoch that was looked at: `variant`, `epoch`, `steps`, `time` (learning
    rate times steps), `share_differing`, `l1_hidden` (relative, of the middle matrix between hidden
    layers), `l1`, `l2` (of all parameters), `disagreement` (share of the test rows), `accuracy`,
    `accuracy_usual`, `reason`. Numbers are NaN where a training diverged, or cannot be had here.
    """
    followed = Recipe(**recipe)
    data = followed.load(data_dir)
    built = followed.network(data)
    epochs = snapshot_epochs(followed.epochs, snapshots)
    usual = follow_named(followed, data_dir, None, epochs)
    usual_outputs = outputs_of(followed, data, usual)
    right = data.y_test.argmax(axis=1)
    steps = epochs * followed.steps_of(data)
    tables = []
    for name in variants:
        reason = why_impossible(VARIANTS[name])
        table = pd.DataFrame(
            {
                "variant": name,
                "epoch": epochs,
                "steps": steps,
                "time": steps * followed.learning_rate,
                "reason": reason,
            }
        )
        if not reason:
            weights = follow_named(followed, data_dir, name, epochs)
            outputs = outputs_of(followed, data, weights)
            pairs = list(zip(weights, usual, strict=True))
            middle = followed.depth // 2
            hidden = [[built.weights(w, middle).ravel() for w in pair] for pair in pairs]
            table["share_differing"] = [_share_differing(*pair) for pair in pairs]
            table["l1_hidden"] = [float(relative_l1(*pair)) for pair in hidden]
            table["l1"] = [float(relative_l1(*pair)) for pair in pairs]
            table["l2"] = [float(relative_l2(*pair)) for pair in pairs]
            table["disagreement"] = [
                disagreement(*both) for both in zip(outputs, usual_outputs, strict=True)
            ]
            for column, found in (("accuracy", outputs), ("accuracy_usual", usual_outputs)):
                table[column] = (found.argmax(axis=2) == right).mean(axis=1)
            is_lost = ~np.isfinite([w.sum() + u.sum() for w, u in pairs])
            table.loc[is_lost, table.columns[5:]] = np.nan
        tables.append(table)
    numbers = ["share_differing", "l1_hidden", "l1", "l2", "disagreement", "accuracy"]
    return pd.concat(tables, ignore_index=True).reindex(
        columns=["variant", "epoch", "steps", "time", *numbers, "accuracy_usual", "reason"]
    )


def measure_accuracy(
    data_dir: Path | None, *, network: str, k: int, orders: list[int], last: int, **recipe: Any
) -> pd.DataFrame:
    """Test accuracy of one perturbation with several orders of the batches.

    Returns
    -------
    One row an order: `order`, `accuracy` (mean of the last epochs), `right`: which test rows are
    right in the end, a bit each in hexadecimal digits.
    """
    rows = []
    for order in orders:
        followed = Recipe(order=order, **recipe)
        data = followed.load(data_dir)
        epochs = np.arange(followed.epochs - last, followed.epochs) + 1
        weights = follow_named(followed, data_dir, None if k == 1 else f"k = {k}", epochs)
        classes = outputs_of(followed, data, weights).argmax(axis=2)
        is_right = classes == data.y_test.argmax(axis=1)
        is_right &= np.isfinite(weights).all(axis=1)[:, None]
        rows.append(
            {
                "order": order,
                "accuracy": float(is_right.mean()),
                "right": np.packbits(is_right[-1]).tobytes().hex(),
                "n_test": is_right.shape[1],
            }
        )
    return pd.DataFrame(rows)


def _share_differing(first: np.ndarray, second: np.ndarray) -> float:
    """Of numbers that have another bit; 0.0 and -0.0 differ, as NaN of other payloads do."""
    bits = np.dtype(f"i{first.dtype.itemsize}")
    return float(np.mean(first.view(bits) != second.view(bits)))
