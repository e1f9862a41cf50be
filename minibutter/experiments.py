"""From a sweep to its experiments: identity, network, and what stands in their way.

Nothing is trained here and no data are read but to learn their shape. `runs` executes what is
planned.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from minibutter import datasets, hierarchy
from minibutter.datasets import DatasetInfo
from minibutter.nn import cost
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.network import ACTIVATIONS, INITIALIZERS, Network
from minibutter.nn.shapes import SHAPES, find_outline, format_widths
from minibutter.nn.traffic import Workload
from minibutter.nn.training import OPTIMIZERS
from minibutter.sweeps import identity
from minibutter.sweeps.spec import Checks, RunSpec, Sweep, SweepError

BUTTER_BATCH_SIZE = 256


def _one_of(known: Any) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        # Other types are refused with the type that is wanted, by the specification itself.
        if isinstance(value, str) and value not in known:
            raise ValueError(f"unknown; it must be one of {', '.join(known)}")

    return check


def _check_dataset(reference: Any) -> None:
    if isinstance(reference, str):
        datasets.check_reference(reference)


TILING_SIZES = tuple(field.name for field in fields(Tiling))

CHECKS: Checks = {
    "dataset": _check_dataset,
    "shape": _one_of(SHAPES),
    "activation": _one_of(ACTIVATIONS),
    "initializer": _one_of(INITIALIZERS),
    "optimizer": _one_of(OPTIMIZERS),
    "kernel": _one_of(RUNGS),
}
"""What the other rooms know about the keys of a specification."""


@dataclass(frozen=True)
class Experiment:
    """A specification with its identity and the network that it means.

    Attributes
    ----------
    experiment_id : 128-bit hash of the canonical content.
    stream_id : of the same experiment with warm caches: random streams follow from it, so that cold
        caches change durations and energies and no other number.
    spec : as it was asked for.
    repetitions : runs wanted, numbered from 0.
    info : dimensions of the data set; None where it cannot be read.
    network : None where there can be none.
    n_train, n_test : rows after the split; None without `info`.
    problem : why no run can be done, with the remedy; None when all is well.
    """

    experiment_id: str
    stream_id: str
    spec: RunSpec
    repetitions: int
    info: DatasetInfo | None
    network: Network | None
    n_train: int | None
    n_test: int | None
    problem: str | None

    @property
    def title(self) -> str:
        """The experiment in a few words, for people."""
        spec = self.spec
        outline = (
            f"{spec.shape} {spec.size} depth {spec.depth}"
            if spec.widths is None
            else format_widths(spec.widths)
        )
        return f"{spec.dataset} {outline}"

    @property
    def depth(self) -> int:
        """Dense layers, the output layer included."""
        return self.spec.depth if self.spec.widths is None else len(self.spec.widths)

    @property
    def trains_in_one_batch(self) -> bool:
        """Whether the batch was cut down to the training set."""
        return self.n_train is not None and self.spec.batch_size > self.n_train

    @property
    def workload(self) -> Workload | None:
        """What an epoch does; None where there is no network."""
        if self.network is None:
            return None
        return Workload(
            network=self.network,
            n_train=self.n_train,
            n_test=self.n_test,
            batch_size=min(self.spec.batch_size, self.n_train),
            optimizer=self.spec.optimizer,
            evaluate_train=self.spec.evaluate_train,
            has_penalty=self.spec.l1 > 0 or self.spec.l2 > 0,
        )

    def predicted_epoch_us(self, n_repetitions: int = 1) -> float:
        """What an epoch of repetitions that are trained together takes, in microseconds of a rank;
        0 where there is no network."""
        if self.network is None:
            return 0.0
        n_evaluated = self.n_test + (self.n_train if self.spec.evaluate_train else 0)
        batch_size = min(self.spec.batch_size, self.n_train)
        return cost.epoch_us(self.network, self.n_train, n_evaluated, batch_size, n_repetitions)

    @property
    def flops_per_epoch(self) -> float:
        """Of an epoch's matrix products; 0 where there is no network."""
        return self.workload.flops if self.workload else 0.0


def plan_experiments(sweep: Sweep, data_dir: Path | None = None) -> list[Experiment]:
    """Give every experiment of a sweep its identity and its network; nothing is trained.

    The same experiment asked for twice is listed once, with the larger number of repetitions.

    Parameters
    ----------
    sweep : from `minibutter.sweeps.spec`.
    data_dir : where local data sets lie; only files are read, registered sets are known.
    """
    planned: dict[str, Experiment] = {}
    for spec, repetitions in sweep.experiments:
        experiment = plan_experiment(spec, repetitions, data_dir)
        before = planned.get(experiment.experiment_id)
        if before is None or before.repetitions < repetitions:
            planned[experiment.experiment_id] = experiment
    return list(planned.values())


def plan_experiment(
    spec: RunSpec, repetitions: int = 1, data_dir: Path | None = None
) -> Experiment:
    """Identity and network of one specification; what stands in the way is kept as `problem`.

    Raises
    ------
    SweepError
        If a value names something that no room knows, or no machine has such tiles.
    """
    for key, check in CHECKS.items():
        try:
            check(getattr(spec, key))
        except ValueError as error:
            raise SweepError(f"{key} = {getattr(spec, key)!r}: {error}") from None
    try:
        _tiling(spec).resolved(spec.dtype)
    except ValueError as error:
        raise SweepError(str(error)) from None
    info = network = n_train = n_test = problem = None
    try:
        info = _describe(spec.dataset, spec.target, spec.task, data_dir)
        n_train, n_test = datasets.split_sizes(info.n_rows, spec.test_split, spec.split_method)
        network = _build_network(spec, info)
        _check_batch_size(spec, info, n_train)
        if spec.cache_state == "cold":
            hierarchy.flushed_bytes()  # refuses caches that it cannot empty
    except ValueError as error:
        problem = str(error)
    content = _identity_content(spec, info, n_train)
    numbers = {key: value for key, value in content.items() if key != "cache_state"}
    return Experiment(
        experiment_id=identity.experiment_id(content),
        stream_id=identity.experiment_id(numbers),
        spec=spec,
        repetitions=repetitions,
        info=info,
        network=network,
        n_train=n_train,
        n_test=n_test,
        problem=problem,
    )


def _tiling(spec: RunSpec) -> Tiling:
    """The sizes as they were asked for: every rank fills in its own machine's defaults."""
    return Tiling(**{size: getattr(spec, size) for size in TILING_SIZES})


def _identity_content(
    spec: RunSpec, info: DatasetInfo | None, n_train: int | None
) -> dict[str, Any]:
    """All that can change a number of a run and nothing else, each in one spelling.

    Cold caches change no metric, but durations and energies, and these are what they are asked for:
    a sweep over both states must not do one of them only.
    """
    content = spec.canonical() | {"dataset": datasets.canonical_reference(spec.dataset)}
    if info is not None and info.digest is not None:
        # A local file is what it holds: inputs, targets and task, under any name.
        content |= {"dataset": info.digest, "target": None, "task": None}
    if n_train is not None and spec.batch_size == BUTTER_BATCH_SIZE:
        # The one size that is cut down to the training set, see `_check_batch_size`; others that
        # exceed it are refused, and must not share the id of a run that is not.
        content["batch_size"] = min(spec.batch_size, n_train)
    return content


@lru_cache(maxsize=256)
def _describe(
    reference: str, target: str | None, task: str | None, data_dir: Path | None
) -> DatasetInfo:
    return datasets.describe(reference, target=target, task=task, data_dir=data_dir)


def _build_network(spec: RunSpec, info: DatasetInfo) -> Network:
    if spec.widths is not None:
        widths = spec.widths
        if widths[-1] != info.n_outputs:
            raise ValueError(
                f"widths end with {widths[-1]}, but {info.name} has {info.n_outputs} outputs; "
                f"the output layer is listed too, so the last width must be {info.n_outputs}"
            )
    else:
        # That of the identity: one id is one network.
        outline = find_outline(
            spec.network_shape, spec.size, spec.depth, info.n_inputs, info.n_outputs
        )
        widths = outline.widths
    return Network(
        n_inputs=info.n_inputs,
        widths=widths,
        task=info.task,
        activation=spec.activation,
        shape=spec.network_shape,
        dtype=spec.dtype,
        kernel=spec.kernel,
        tiling=_tiling(spec),
    )


def _check_batch_size(spec: RunSpec, info: DatasetInfo, n_train: int) -> None:
    """A batch is at most the training set, except that BUTTER's own 256 may be: Keras then takes
    all rows in one step, and so was 505_tecator with its 192 training rows trained."""
    if spec.batch_size > n_train and spec.batch_size != BUTTER_BATCH_SIZE:
        raise ValueError(
            f"batch_size is {spec.batch_size}, but {info.name} has {n_train} training rows; "
            f"it must be between 1 and {n_train}"
        )
