"""Networks of the study: equal hidden layers, ReLU, softmax cross entropy, plain SGD, no penalty.

All measurements make them here, so that one width means the same network in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.network import Network
from minibutter.nn.parameterization import Parameterization, make_parameterization
from minibutter.nn.starts import Start
from minibutter.nn.training import TrainingGroup, compile_kernels, make_optimizer
from minibutter.studies.data import split_sizes
from minibutter.studies.width.data import BATCHES, INITIAL, SPLIT, load_rows, split_rows, stream


@dataclass(frozen=True)
class Model:
    """A network that can be drawn for any repetition.

    Attributes
    ----------
    network : what is trained.
    parameterization : its first weights and learning rates.
    """

    network: Network
    parameterization: Parameterization

    def start(self, data: object, seed: int, repetition: int) -> Start:
        """First parameters and batches of a repetition."""
        parameters = self.parameterization.initial_parameters(
            self.network, stream(seed, repetition, INITIAL)
        )
        return Start(parameters, data, stream(seed, repetition, BATCHES))


def make_model(
    n_inputs: int,
    n_outputs: int,
    *,
    parameterization: str,
    width: int,
    hidden_layers: int,
    sigma0: float,
    base_width: int | None = None,
) -> Model:
    """The network of a width; `base_width` is for muP only."""
    network = Network(n_inputs, (width,) * hidden_layers + (n_outputs,), "classification")
    return Model(
        network,
        make_parameterization(parameterization, network, "sgd", sigma0, 1.0, base_width),
    )


def make_starts(
    dataset: str,
    data_dir: Path | None,
    *,
    repetitions: Sequence[int],
    n_train: int,
    n_test: int,
    seed: int,
    **model: object,
) -> tuple[Model, list[Start]]:
    """The network and what every repetition starts from.

    Parameters
    ----------
    repetitions : numbers of the repetitions; each has rows, weights and batches of its own.
    n_train, n_test : rows, fewer where the data set is smaller (`data.split_sizes`).
    model : keywords of `make_model`.
    """
    _compile_once()
    x, y = load_rows(dataset, data_dir)
    sizes = split_sizes(len(x), n_train, n_test)
    made = make_model(x.shape[1], y.shape[1], **model)
    return made, [
        made.start(split_rows(x, y, *sizes, stream(seed, number, SPLIT)), seed, number)
        for number in repetitions
    ]


def make_fixed_starts(
    dataset: str,
    data_dir: Path | None,
    *,
    n_rows: int,
    n_repetitions: int,
    seed: int,
    **model: object,
) -> tuple[Model, list[Start]]:
    """What gradient descent starts from: `make_starts` of the first repetitions.

    Parameters
    ----------
    n_rows : training rows, all in every step; fewer where the data set is smaller.
    n_repetitions : at most 16.
    model : keywords of `make_model`.
    """
    return make_starts(
        *(dataset, data_dir),
        repetitions=range(n_repetitions),
        n_train=n_rows,
        n_test=1,
        seed=seed,
        **model,
    )


def descent(model: Model, starts: list[Start], learning_rate: float) -> TrainingGroup:
    """Gradient descent: a step an epoch, over all training rows."""
    return TrainingGroup(
        model.network,
        starts,
        sgd(learning_rate),
        batch_size=len(starts[0].data.x_train),
        parameterization=model.parameterization,
        records_metrics=False,
    )


@cache
def _compile_once() -> None:
    """One rank compiles, where nobody has before, and the others wait instead of doing the same."""
    compile_kernels("float32")


def sgd(learning_rate: float) -> epoch.Optimizer:
    """Plain SGD, before any parameterization is folded in."""
    return make_optimizer("sgd", learning_rate)


def rates(model: Model) -> np.ndarray:
    """Learning rate of every effective parameter (P,) over the optimizer's, float64."""
    size = model.network.num_parameters
    folded = model.parameterization.fold_into(sgd(1.0), model.network)
    stop = np.minimum(folded.part_stop, size)
    return np.repeat(folded.part_rate, np.diff(stop, prepend=0))
