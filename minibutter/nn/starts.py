"""What repetitions are trained from: data, first parameters, and a stream of orders.

`check_starts` says what can be trained together; the kernels rely on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.network import Network


@dataclass(frozen=True)
class TrainingData:
    """Arrays of a split data set, C-contiguous and of the network's dtype.

    Attributes
    ----------
    x_train, y_train : shapes (n_train, n_inputs) and (n_train, n_outputs).
    x_test, y_test : shapes (n_test, n_inputs) and (n_test, n_outputs).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Start:
    """What one repetition of an experiment starts from.

    Attributes
    ----------
    parameters : (num_parameters,).
    data : the split data set.
    shuffle : draws the order of the rows, once per epoch.
    """

    parameters: np.ndarray
    data: TrainingData
    shuffle: np.random.Generator


def is_binary(targets: np.ndarray) -> bool:
    """Whether every target is 0 or 1, so that the hinge losses read 0 as -1."""
    return bool(np.all((targets == 0) | (targets == 1)))


def check_starts(network: Network, starts: Sequence[Start], batch_size: int) -> None:
    """What the kernels rely on."""
    lanes = lanes_of(network.dtype)
    if not 1 <= len(starts) <= lanes:
        raise ValueError(
            f"{len(starts)} repetitions; a group of {network.dtype} holds 1 to {lanes}"
        )
    for start in starts:
        _check_arrays(network, start.parameters, start.data)
    n_train = len(starts[0].data.x_train)
    if not 1 <= batch_size <= n_train:
        raise ValueError(
            f"batch_size is {batch_size}; it must be between 1 and the {n_train} training rows"
        )
    if len(starts) == 1:
        return
    if network.kernel != "tiled":
        raise ValueError(
            f"kernel is {network.kernel!r}, but repetitions are packed with the rounding of "
            "'tiled': train them one by one"
        )
    for start in starts:
        if len(start.data.x_train) != n_train or len(start.data.x_test) != len(
            starts[0].data.x_test
        ):
            raise ValueError("repetitions that are packed together must have equally many rows")
        for name in ("y_train", "y_test"):
            first, other = getattr(starts[0].data, name), getattr(start.data, name)
            if is_binary(first) != is_binary(other):
                raise ValueError(
                    f"{name} of some repetitions is only 0 and 1, of others not, and the hinge "
                    "losses read 0 as -1 in the first: train them one by one"
                )


def _check_arrays(network: Network, parameters: np.ndarray, data: TrainingData) -> None:
    """The kernels check no bounds: a wrong shape would read memory that is not ours."""
    n_train, n_test = len(data.x_train), len(data.x_test)
    for name, array, shape in (
        ("parameters", parameters, (network.num_parameters,)),
        ("x_train", data.x_train, (n_train, network.n_inputs)),
        ("y_train", data.y_train, (n_train, network.n_outputs)),
        ("x_test", data.x_test, (n_test, network.n_inputs)),
        ("y_test", data.y_test, (n_test, network.n_outputs)),
    ):
        network.check_array(name, array, shape)
