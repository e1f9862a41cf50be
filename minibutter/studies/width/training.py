"""Test accuracy late in training, for some repetitions at once.

The steps are counted, not the epochs: runs of every batch size make equally many. A sweep would
look at the test rows once an epoch, which at a batch of 256 is every eighth step and at a batch of
4 every 500th; most of the time would go into looking. So these are measurements.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from minibutter.nn.stepping import SteppedGroup
from minibutter.studies.width.networks import make_starts, sgd

LATE_SHARE = 0.25
"""Of the steps, at the end, over which test accuracy is averaged."""


def measure_late_accuracy(
    data_dir: Path | None,
    dataset: str,
    parameterization: str,
    width: int,
    hidden_layers: int,
    sigma0: float,
    learning_rate: float,
    batch_size: int,
    n_steps: int,
    n_looks: int,
    first_repetition: int,
    n_repetitions: int,
    n_train: int,
    n_test: int,
    seed: int,
) -> pd.DataFrame:
    """Train some repetitions, and look at the test rows at equal distances near the end.

    Parameters
    ----------
    batch_size : rows drawn with replacement for every step.
    n_steps : of training, of which the last quarter counts as late.
    n_looks : how often the test rows are evaluated in that quarter.
    first_repetition, n_repetitions : which are trained; at most 16 at once.

    Returns
    -------
    One row a repetition: `late_accuracy`, the mean over the looks; `train_error` and `train_loss`
    at the end; `is_finite`, without which accuracy is that of the class that NaN looks like.
    """
    repetitions = range(first_repetition, first_repetition + n_repetitions)
    model, starts = make_starts(
        dataset,
        data_dir,
        repetitions=repetitions,
        n_train=n_train,
        n_test=n_test,
        seed=seed,
        parameterization=parameterization,
        width=width,
        hidden_layers=hidden_layers,
        sigma0=sigma0,
        base_width=width,
    )
    group = SteppedGroup(
        model.network,
        starts,
        sgd(learning_rate),
        batch_size=batch_size,
        parameterization=model.parameterization,
    )
    late = max(round(LATE_SHARE * n_steps), n_looks)
    group.run_steps(n_steps - late)
    accuracies = []
    for stop, start in zip(*_spans(late, n_looks), strict=True):
        group.run_steps(stop - start)
        accuracies.append(group.evaluate_test()[:, 1])
    loss, accuracy = group.evaluate_train().T
    is_finite = np.array(
        [bool(np.isfinite(group.parameters(number)).all()) for number in range(n_repetitions)]
    )
    return pd.DataFrame(
        {
            "repetition": list(repetitions),
            "late_accuracy": np.mean(accuracies, axis=0),
            "train_error": 1 - accuracy,
            "train_loss": np.where(is_finite, loss, np.nan),
            "is_finite": is_finite,
            "n_train": len(starts[0].data.x_train),
            "n_test": len(starts[0].data.x_test),
        }
    )


def _spans(n_steps: int, n_parts: int) -> tuple[list[int], list[int]]:
    """Ends and beginnings of nearly equal parts of some steps."""
    ends = [n_steps * (part + 1) // n_parts for part in range(n_parts)]
    return ends, [0, *ends[:-1]]
