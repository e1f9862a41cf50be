"""What repetitions are trained from: data, first parameters, or those that a state has kept.

`check_starts` says what can be trained together; the kernels rely on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minibutter.nn.kernels.layout import aligned_zeros, lanes_of
from minibutter.nn.network import Network
from minibutter.nn.state import TrainingState, check_array, digest_arrays, unpack_generator


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
    """What one repetition of an experiment starts from, or goes on from.

    Attributes
    ----------
    parameters : (num_parameters,).
    data : the split data set.
    shuffle : draws the order of the rows, once per epoch.
    slots : (2, num_parameters), the optimizer's memory; None: empty.
    steps, epochs : of training so far.
    """

    parameters: np.ndarray
    data: TrainingData
    shuffle: np.random.Generator
    slots: np.ndarray | None = None
    steps: int = 0
    epochs: int = 0

    def resumed(self, state: TrainingState) -> "Start":
        """The same repetition, going on from a state that it was in after some epochs.

        Raises
        ------
        ValueError
            If the state is that of another network or of other data.
        """
        n_parameters, dtype = self.parameters.size, self.parameters.dtype
        for name, shape in (("parameters", (n_parameters,)), ("slots", (2, n_parameters))):
            check_array(name, getattr(state, name), shape, dtype)
        if not np.array_equal(state.data, digest_arrays(vars(self.data).values())):
            raise ValueError("the state is that of a run with other data")
        # The memory of a file need not start on a cache line.
        parameters = aligned_zeros(n_parameters, dtype)
        parameters[:] = state.parameters
        return replace(
            self,
            parameters=parameters,
            shuffle=unpack_generator(state.shuffle),
            slots=np.ascontiguousarray(state.slots),
            steps=state.steps,
            epochs=state.epochs,
        )


def is_binary(targets: np.ndarray) -> bool:
    """Whether every target is 0 or 1, so that the hinge losses read 0 as -1."""
    return bool(np.all((targets == 0) | (targets == 1)))


class Rows:
    """A data set as the kernels take it: x (R, n_rows, n_inputs), y (R, n_rows, n_outputs)."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.n_rows = x.shape[1]
        self.order = np.tile(np.arange(self.n_rows), (len(x), 1))
        self.is_binary = is_binary(y)


def stack_rows(starts: Sequence[Start], name: str) -> np.ndarray:
    """An array of every repetition's data, one behind the other; of a single one, a view."""
    arrays = [getattr(start.data, name) for start in starts]
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def check_batch_size(batch_size: int, n_train: int) -> None:
    """Raise ValueError for a batch that is empty or larger than the training set."""
    if not 1 <= batch_size <= n_train:
        raise ValueError(
            f"batch_size is {batch_size}; it must be between 1 and the {n_train} training rows"
        )


def check_starts(network: Network, starts: Sequence[Start]) -> None:
    """What the kernels rely on."""
    lanes = lanes_of(network.dtype)
    if not 1 <= len(starts) <= lanes:
        raise ValueError(
            f"{len(starts)} repetitions; a group of {network.dtype} holds 1 to {lanes}"
        )
    for start in starts:
        _check_arrays(network, start.parameters, start.data)
        if start.slots is not None:
            network.check_array("slots", start.slots, (2, network.num_parameters))
    if len(starts) == 1:
        return
    if network.kernel != "tiled":
        raise ValueError(
            f"kernel is {network.kernel!r}, but repetitions are packed with the rounding of "
            "'tiled': train them one by one"
        )
    for start in starts:
        if any(
            len(getattr(start.data, name)) != len(getattr(starts[0].data, name))
            for name in ("x_train", "x_test")
        ):
            raise ValueError("repetitions that are packed together must have equally many rows")
        if (start.steps, start.epochs) != (starts[0].steps, starts[0].epochs):
            raise ValueError(
                f"some repetitions have done {start.epochs} epochs, others {starts[0].epochs}: "
                "train those together that have done equally many"
            )
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
