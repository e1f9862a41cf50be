"""From a network and its data to one row of metrics per epoch.

A `Trainer` owns what changes during a run: parameters, optimizer memory, the stream of shuffles.
It knows nothing of files, energy or ranks; whoever calls `run_epoch` may measure around it.
"""

from dataclasses import dataclass

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.jit import compile_once
from minibutter.nn.network import Network

OPTIMIZERS: dict[str, int] = {"adam": epoch.ADAM, "rmsprop": epoch.RMSPROP, "sgd": epoch.SGD}


def make_optimizer(rule: str, learning_rate: float, momentum: float = 0.0) -> epoch.Optimizer:
    """An update rule with Keras' constants.

    Parameters
    ----------
    rule : a key of `OPTIMIZERS`.
    learning_rate : positive and finite.
    momentum : in [0, 1), for "sgd" (not Nesterov) and "rmsprop".

    Raises
    ------
    ValueError
        For an unknown rule, an impossible constant, or a momentum that Adam cannot use.
    """
    if rule not in OPTIMIZERS:
        raise ValueError(f"optimizer is {rule!r}; it must be one of {', '.join(OPTIMIZERS)}")
    if not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive and finite")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be in [0, 1)")
    if rule == "adam" and momentum != 0:
        raise ValueError(
            f"momentum is {momentum}, but adam has its own (beta_1 = 0.9); "
            "leave momentum out, or use sgd or rmsprop"
        )
    return epoch.Optimizer(
        rule=OPTIMIZERS[rule],
        learning_rate=float(learning_rate),
        momentum=float(momentum),
        rho=0.9,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
    )


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
class EpochRow:
    """What one epoch measured: vectors of the ten `METRICS` followed by the weight penalty.

    Attributes
    ----------
    train : float64 (11,), running means over the epoch's batches, as in BUTTER.
    test : float64 (11,), at the end of the epoch.
    trained : float64 (11,), the training set at the end of the epoch; None unless asked for.
    is_finite : whether both losses and all parameters are finite.
    """

    train: np.ndarray
    test: np.ndarray
    trained: np.ndarray | None
    is_finite: bool


def is_binary(targets: np.ndarray) -> bool:
    """Whether every target is 0 or 1, so that the hinge losses read 0 as -1."""
    return bool(np.all((targets == 0) | (targets == 1)))


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
        if array.shape != shape or array.dtype != network.dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"{name} is a {array.dtype} array of shape {array.shape}, strides {array.strides}; "
                f"the network needs a C-contiguous {network.dtype} array of shape {shape}"
            )


class Trainer:
    """One run in progress.

    Parameters
    ----------
    network : what is trained.
    parameters : (num_parameters,), trained in place.
    optimizer : from `make_optimizer`.
    data : the split data set.
    batch_size : rows per step, at most n_train; the last batch of an epoch may be smaller.
    shuffle : draws the order of the rows, once per epoch.
    l1, l2 : penalty factors on the weights of every layer.
    evaluate_train : whether to evaluate the training set at the end of every epoch.

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
        l1: float = 0.0,
        l2: float = 0.0,
        evaluate_train: bool = False,
    ) -> None:
        _check_arrays(network, parameters, data)
        n_train = len(data.x_train)
        if not 1 <= batch_size <= n_train:
            raise ValueError(
                f"batch_size is {batch_size}; it must be between 1 and the {n_train} training rows"
            )
        for name, factor in (("l1", l1), ("l2", l2)):
            if not 0 <= factor < np.inf:
                raise ValueError(f"{name} is {factor}; a penalty factor is at least 0 and finite")
        self.network = network
        self.parameters = parameters
        self.optimizer = optimizer
        self.data = data
        self.steps = 0
        self._slots = np.zeros((2, network.num_parameters), dtype=network.dtype)
        self._work = network.workspace(batch_size)
        self._shuffle = shuffle
        self._penalty = (float(l1), float(l2))
        self._evaluate_train = evaluate_train
        self._train_is_binary = is_binary(data.y_train)
        self._test_is_binary = is_binary(data.y_test)

    def run_epoch(self) -> EpochRow:
        """Train on every row once, in a new random order, then evaluate."""
        data = self.data
        train = np.zeros(epoch.N_SUMS)
        self.steps = epoch.train_epoch(
            train,
            self.parameters,
            self._slots,
            self._work,
            self.network.topology,
            self.optimizer,
            data.x_train,
            data.y_train,
            self._shuffle.permutation(len(data.x_train)),
            self.steps,
            *self._penalty,
            self._train_is_binary,
        )
        test = self._evaluate(data.x_test, data.y_test, self._test_is_binary)
        trained = None
        if self._evaluate_train:
            trained = self._evaluate(data.x_train, data.y_train, self._train_is_binary)
        losses = train[0], test[0]
        is_finite = bool(np.isfinite(losses).all() and np.isfinite(self.parameters).all())
        return EpochRow(train, test, trained, is_finite)

    def _evaluate(self, x: np.ndarray, y: np.ndarray, targets_are_binary: bool) -> np.ndarray:
        sums = np.zeros(epoch.N_SUMS)
        epoch.evaluate(
            sums,
            self._work,
            self.network.topology,
            self.parameters,
            x,
            y,
            *self._penalty,
            targets_are_binary,
        )
        return sums


def compile_kernels(dtype: str) -> None:
    """Compile, or load from disk, everything that an epoch needs, so that no run is timed with it.

    Takes some 15 s where the kernels of this dtype were never compiled before; of several processes
    one does it, and the others sleep until it has.
    """
    network = Network(n_inputs=1, widths=(1, 1), task="regression", dtype=dtype)
    rows = np.zeros((1, 1), dtype=dtype)
    trainer = Trainer(
        network,
        np.zeros(network.num_parameters, dtype=dtype),
        make_optimizer("adam", 1e-3),
        TrainingData(rows, rows, rows, rows),
        batch_size=1,
        shuffle=np.random.default_rng(0),
    )
    with compile_once(dtype):
        trainer.run_epoch()
