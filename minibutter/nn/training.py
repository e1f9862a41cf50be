"""A single run in progress, and the kernels that it needs, compiled ahead of it."""

from typing import Any

import numpy as np

from minibutter.nn.groups import EpochRow, TrainingGroup
from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.jit import compile_once
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.kernels.tiling import DEFAULT_TILING, Tiling
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import Start, TrainingData


class Trainer:
    """One run in progress.

    Parameters
    ----------
    network : what is trained.
    parameters : (num_parameters,), trained in place.
    optimizer : from `optimizers.make_optimizer`.
    data : the split data set.
    batch_size : rows per step, at most n_train; the last batch of an epoch may be smaller.
    shuffle : draws the order of the rows, once per epoch.
    l1, l2 : penalty factors on the weights of every layer.
    evaluate_train : whether to evaluate the training set at the end of every epoch.
    records_metrics : whether to measure all ten metrics, or only the loss; the others are NaN then.
    parameterization, schedule, sampling : see `TrainingGroup`.

    Raises
    ------
    ValueError
        If an array does not fit the network, the batch not the training set, or a penalty factor
        is negative or not finite.
    """

    def __init__(
        self,
        network: Network,
        parameters: np.ndarray,
        optimizer: epoch.Optimizer,
        data: TrainingData,
        *,
        batch_size: int,
        shuffle: np.random.Generator,
        **options: Any,
    ) -> None:
        start = Start(parameters, data, shuffle)
        self.network, self.data = network, data
        self._group = TrainingGroup(network, [start], optimizer, batch_size=batch_size, **options)
        self.parameters = parameters

    def run_epoch(self) -> EpochRow:
        """Train on every row once, in a new random order, then evaluate."""
        return self._group.run_epoch()[0]


def compile_kernels(dtype: str, kernel: str = "tiled", tiling: Tiling = DEFAULT_TILING) -> None:
    """Compile, or load from disk, everything that an epoch needs, so that no run is timed with it.

    Takes about half a minute where the kernels of this dtype were never compiled before, and
    seconds for another rung or shape of tile; of several processes one does it, and the others
    sleep until it has. A BLAS that the rung calls is loaded afterwards.

    Parameters
    ----------
    dtype : "float32" or "float64".
    kernel : rung of the matrix product.
    tiling : of the runs; only the shape of the register tile decides what is compiled.
    """
    network = Network(
        n_inputs=1, widths=(1, 1), task="regression", dtype=dtype, kernel=kernel, tiling=tiling
    )
    shape, usual_shape = (
        f"{sizes.tile_rows}x{sizes.tile_columns}"
        for sizes in (tiling.resolved(dtype), DEFAULT_TILING.resolved(dtype))
    )
    is_usual = kernel == "tiled" and shape == usual_shape
    rows = np.zeros((1, 1), dtype=dtype)
    with compile_once(dtype if is_usual else f"{dtype}-{kernel}-{shape}"):
        Trainer(
            network,
            np.zeros(network.num_parameters, dtype=dtype),
            make_optimizer("adam", 1e-3),
            TrainingData(rows, rows, rows, rows),
            batch_size=1,
            shuffle=np.random.default_rng(0),
        ).run_epoch()
        if kernel == "tiled":
            network.workspace(batch_size=1, repetitions=lanes_of(dtype))
