"""Test accuracy late in training, for some repetitions at once.

The steps are counted, not the epochs: runs of every batch size make equally many. A sweep would
look at the test rows once an epoch, which at a batch of 256 is every eighth step and at a batch of
4 every 500th; most of the time would go into looking. So these are measurements.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.steps import Evaluation, StepGroup
from minibutter.studies.width.networks import make_starts, sgd

LATE_SHARE = 0.25
"""Of the steps, at the end, over which test accuracy is averaged."""


def measure_late_accuracy(
    data_dir: Path | None,
    dataset: str,
    learning_rate: float,
    batch_size: int,
    n_steps: int,
    n_looks: int,
    first_repetition: int,
    n_repetitions: int,
    n_train: int,
    n_test: int,
    seed: int,
    **model: Any,
) -> pd.DataFrame:
    """Train some repetitions, and look at the test rows at equal distances near the end.

    Parameters
    ----------
    batch_size : rows drawn with replacement for every step.
    n_steps : of training, of which the last quarter counts as late.
    n_looks : how often the test rows are evaluated in that quarter.
    first_repetition, n_repetitions : which are trained; at most 16 at once.
    dataset, n_train, n_test, seed, model : as for `make_starts`.

    Returns
    -------
    One row a repetition: `late_accuracy`, the mean over the looks; `train_error` and `train_loss`
    at the end; `is_finite`, without which accuracy is that of the class that NaN looks like.
    """
    repetitions = range(first_repetition, first_repetition + n_repetitions)
    made, starts = make_starts(
        *(dataset, data_dir),
        repetitions=repetitions,
        n_train=n_train,
        n_test=n_test,
        seed=seed,
        **model,
    )
    group = StepGroup(
        made.network,
        starts,
        sgd(learning_rate),
        largest_batch=batch_size,
        parameterization=made.parameterization,
        records_metrics=False,
    )
    tests = [Evaluation(made.network, start.data.x_test, start.data.y_test) for start in starts]
    accuracies = []
    for stop in look_steps(n_steps, n_looks):
        n_rows = (stop - group.steps) * batch_size
        rows = [start.shuffle.integers(len(start.data.x_train), size=n_rows) for start in starts]
        group.run(rows, batch_size, learning_rate)
        parameters = [np.ascontiguousarray(group.parameters(i)) for i in range(n_repetitions)]
        looks = zip(tests, parameters, strict=True)
        accuracies.append([test.measure(vector).accuracy for test, vector in looks])
    trained = [
        Evaluation(made.network, start.data.x_train, start.data.y_train).measure(vector)
        for start, vector in zip(starts, parameters, strict=True)
    ]
    is_finite = np.array([bool(np.isfinite(vector).all()) for vector in parameters])
    return pd.DataFrame(
        {
            "repetition": list(repetitions),
            "late_accuracy": np.mean(accuracies, axis=0),
            "train_error": [means.error for means in trained],
            "train_loss": np.where(is_finite, [means.loss for means in trained], np.nan),
            "is_finite": is_finite,
            "n_train": len(starts[0].data.x_train),
            "n_test": len(starts[0].data.x_test),
        }
    )


def look_steps(n_steps: int, n_looks: int) -> list[int]:
    """After which steps one looks: at nearly equal distances, from late in training to its end."""
    if not 1 <= n_looks <= n_steps:
        raise ValueError(f"n_looks is {n_looks}; of {n_steps} steps there can be 1 to {n_steps}")
    late = max(round(LATE_SHARE * n_steps), n_looks)
    return [n_steps - late + late * (look + 1) // n_looks for look in range(n_looks)]
