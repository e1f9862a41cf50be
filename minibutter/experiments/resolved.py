"""From a specification to its data set, network and cost, and what stands in their way.

A sweep asks tens of thousands of times for a few thousand networks: what was made is kept.
"""

from collections import namedtuple
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path

from minibutter import datasets, hierarchy
from minibutter.datasets import DatasetInfo
from minibutter.nn import cost
from minibutter.nn.cost import BUILT_IN, CostModel
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.network import Network
from minibutter.nn.shapes import SizeUnreachable, find_outline
from minibutter.nn.slices import check_slices
from minibutter.sweeps.runspec import network_shape
from minibutter.sweeps.spec import SPEC_KEYS, RunSpec, SweepError

BUTTER_BATCH_SIZE = 256

TILING_SIZES = tuple(field.name for field in fields(Tiling))


@dataclass(frozen=True)
class Resolved:
    """What a specification means, but for its identity: many experiments of a sweep share it.

    Attributes
    ----------
    info, network, n_train, n_test, problem, is_packable : as in `Experiment`.
    is_unreachable : whether the problem is that no network has the size.
    epoch_us : predicted microseconds of an epoch on one rank; 0 where there is a problem.
    cost_model : rates that the prediction comes from.
    """

    info: DatasetInfo | None
    network: Network | None
    n_train: int | None
    n_test: int | None
    problem: str | None
    is_unreachable: bool
    epoch_us: float
    cost_model: CostModel = BUILT_IN
    is_packable: bool = True


# What `resolve` does not look at. A new key of a specification is looked at until it stands here.
UNRESOLVED_KEYS = (
    "initializer", "parameterization", "sigma0", "bias_multiplier", "base_width", "optimizer",
    "learning_rate", "momentum", "nesterov", "momentum_form", "perturbation", "sampling", "epochs",
    "learning_rate_step_epochs", "learning_rate_gamma", "batch_exchange_rate",
    "l1", "l2", "label_noise", "seed", "evaluate_train", "on_divergence",
)  # fmt: skip


RESOLVED_KEYS = tuple(key for key in SPEC_KEYS if key not in UNRESOLVED_KEYS)

Asked = namedtuple("Asked", RESOLVED_KEYS)
"""As much of a specification as `resolve` looks at; to make one whole takes ten times as long."""


def resolve(
    spec: RunSpec | Asked, data_dir: Path | None, cost_model: CostModel = BUILT_IN
) -> Resolved:
    """Find data set, split and network of a specification, and what stands in the way.

    Parameters
    ----------
    spec : what is asked for, its values checked.
    data_dir : where local data sets lie.
    cost_model : rates of the machine that is to run it.

    Raises
    ------
    SweepError
        If no machine has such tiles.
    """
    try:
        _check_tiling(_tiling(spec), spec.dtype)
    except ValueError as error:
        raise SweepError(str(error)) from None
    info = network = n_train = n_test = problem = None
    is_unreachable, epoch_us = False, 0.0
    try:
        info = _describe(spec.dataset, spec.target, spec.task, data_dir)
        n_train, n_test = datasets.split_sizes(info.n_rows, spec.test_split, spec.split_method)
        network = _build_network(spec, info)
        _check_batch_size(spec, info, n_train)
        check_slices(spec.slices, min(spec.batch_size, n_train), spec.kernel)
        _check_measure(spec, n_train)
        _check_batch_rule(spec, n_train)
        if spec.cache_state == "cold":
            hierarchy.flushed_bytes()  # refuses caches that it cannot empty
        epoch_us = predict_epoch_us(
            network, n_train, n_test, spec.batch_size, cost_model=cost_model
        )
    except ValueError as error:
        problem, is_unreachable = str(error), isinstance(error, SizeUnreachable)
    # Moments are those of a single run, whose lanes are the rows of its batch.
    is_packable = not spec.measure
    return Resolved(
        *(info, network, n_train, n_test, problem, is_unreachable, epoch_us, cost_model),
        is_packable,
    )


def predict_epoch_us(
    network: Network,
    n_train: int,
    n_test: int,
    batch_size: int,
    repetitions: int = 1,
    cost_model: CostModel = BUILT_IN,
) -> float:
    """Predicted microseconds of an epoch on one rank, of repetitions that are trained together."""
    return _epoch_us(network, n_train, n_test, min(batch_size, n_train), repetitions, cost_model)


_epoch_us = lru_cache(maxsize=2**16)(cost.epoch_us)


_sizes_of = attrgetter(*TILING_SIZES)
_make_tiling = lru_cache(maxsize=256)(Tiling)


def _tiling(spec: RunSpec | Asked) -> Tiling:
    """The sizes as they were asked for: every rank fills in its own machine's defaults."""
    return _make_tiling(*_sizes_of(spec))


@lru_cache(maxsize=256)
def _check_tiling(tiling: Tiling, dtype: str) -> None:
    tiling.resolved(dtype)


@lru_cache(maxsize=256)
def _describe(
    reference: str, target: str | None, task: str | None, data_dir: Path | None
) -> DatasetInfo:
    return datasets.describe(reference, target=target, task=task, data_dir=data_dir)


_make_network = lru_cache(maxsize=2**16)(Network)


def _build_network(spec: RunSpec | Asked, info: DatasetInfo) -> Network:
    shape = network_shape(spec.shape, spec.depth, spec.widths)
    if spec.widths is not None:
        widths = spec.widths
        if widths[-1] != info.n_outputs:
            raise ValueError(
                f"widths end with {widths[-1]}, but {info.name} has {info.n_outputs} outputs; "
                f"the output layer is listed too, so the last width must be {info.n_outputs}"
            )
    else:
        # That of the identity: one id is one network.
        outline = find_outline(shape, spec.size, spec.depth, info.n_inputs, info.n_outputs)
        widths = outline.widths
    return _make_network(
        info.n_inputs,
        widths,
        info.task,
        spec.activation,
        shape,
        spec.dtype,
        spec.kernel,
        _tiling(spec),
    )


def _check_batch_size(spec: RunSpec | Asked, info: DatasetInfo, n_train: int) -> None:
    """A batch is at most the training set, except that BUTTER's own 256 may be: Keras then takes
    all rows in one step, and so was 505_tecator with its 192 training rows trained."""
    if spec.batch_size > n_train and spec.batch_size != BUTTER_BATCH_SIZE:
        raise ValueError(
            f"batch_size is {spec.batch_size}, but {info.name} has {n_train} training rows; "
            f"it must be between 1 and {n_train}"
        )


def _check_batch_rule(spec: RunSpec, n_train: int) -> None:
    if spec.batch_rule == "fixed":
        return
    if not min(spec.batch_size, n_train) <= spec.batch_size_max <= n_train:
        raise ValueError(
            f"batch_size_max is {spec.batch_size_max}; it must be between batch_size, "
            f"{min(spec.batch_size, n_train)}, and the {n_train} training rows"
        )
    if spec.slices > 1:
        raise ValueError(
            f"batch_rule is {spec.batch_rule}, but slices is {spec.slices}, and a few slices tell "
            "too little of the noise to choose a batch size by; leave slices out"
        )


def _check_measure(spec: RunSpec, n_train: int) -> None:
    if spec.measure and min(spec.batch_size, n_train) < 2:
        raise ValueError(
            "measure is noise_scale, which compares the rows of a batch, but batch_size is "
            f"{min(spec.batch_size, n_train)}; give it 2 rows or more"
        )
