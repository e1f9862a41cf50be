"""`Experiment`: a specification with its identity and all that follows from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibutter import datasets
from minibutter.datasets import DatasetInfo
from minibutter.experiments.resolved import (
    BUTTER_BATCH_SIZE,
    Resolved,
    predict_epoch_us,
    resolve,
)
from minibutter.nn.cost import BUILT_IN, CostModel
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.network import ACTIVATIONS, INITIALIZERS, Network
from minibutter.nn.optimizers import OPTIMIZERS
from minibutter.nn.parameterization import GAUSSIAN
from minibutter.nn.shapes import SHAPES, format_widths
from minibutter.nn.traffic import Workload
from minibutter.sweeps import identity
from minibutter.sweeps.spec import Checks, RunSpec, SweepError


def _one_of(known: Any) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        # Other types are refused with the type that is wanted, by the specification itself.
        if isinstance(value, str) and value not in known:
            raise ValueError(f"unknown; it must be one of {', '.join(known)}")

    return check


def _check_dataset(reference: Any) -> None:
    if isinstance(reference, str):
        datasets.check_reference(reference)


CHECKS: Checks = {
    "dataset": _check_dataset,
    "shape": _one_of(SHAPES),
    "activation": _one_of(ACTIVATIONS),
    "initializer": _one_of((*INITIALIZERS, GAUSSIAN)),
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
    stream_id : of the same experiment with warm caches, uncut batches, no perturbation and nothing
        measured beside the metrics: random streams follow from it, so that cold caches change
        durations and energies and no other number, slices change last digits only, perturbed runs
        start where the others do and see the same batches, and what is measured besides changes no
        metric.
    spec : as it was asked for.
    repetitions : runs wanted, numbered from 0.
    info : dimensions of the data set; None where it cannot be read.
    network : None where there can be none.
    n_train, n_test : rows after the split; None without `info`.
    problem : why no run can be done, with the remedy; None when all is well.
    cost_model : rates of the machine that is to run it; decides nothing but order and packing.
    is_packable : whether repetitions may be trained together in the lanes of one rank.
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
    cost_model: CostModel = BUILT_IN
    is_packable: bool = True

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

    def epoch_us(self, repetitions: int = 1) -> float:
        """Predicted microseconds of an epoch of repetitions that one rank trains together; 0 where
        none can be run."""
        if self.problem is not None:
            return 0.0
        return predict_epoch_us(
            self.network,
            self.n_train,
            self.n_test,
            self.spec.batch_size,
            repetitions,
            self.cost_model,
        )

    @property
    def flops_per_epoch(self) -> float:
        """Of an epoch's matrix products; 0 where there is no network."""
        return self.workload.flops if self.workload else 0.0


def plan_experiment(
    spec: RunSpec, repetitions: int = 1, data_dir: Path | None = None
) -> Experiment:
    """Identity and network of one specification; what stands in the way is kept as `problem`.

    Raises
    ------
    SweepError
        If a value names something that no room knows, or no machine has such tiles.
    """
    for key in CHECKS:
        check_name(key, getattr(spec, key))
    return make_experiment(spec, repetitions, resolve(spec, data_dir))


def check_name(key: str, value: Any) -> None:
    """Raise SweepError for a value that names something that no room knows."""
    try:
        CHECKS[key](value)
    except ValueError as error:
        raise SweepError(f"{key} = {value!r}: {error}") from None


def make_experiment(
    spec: RunSpec, repetitions: int, resolved: Resolved, experiment_id: str | None = None
) -> Experiment:
    """The experiment of a specification that was resolved, with its id if that is known."""
    content = None
    borrows_streams = any(getattr(spec, key) != usual for key, usual in _LEAVE_STREAMS.items())
    if experiment_id is None or borrows_streams:
        content = identity_content(spec, resolved)
    stream_id = experiment_id = experiment_id or identity.experiment_id(content)
    if borrows_streams:
        numbers = {key: value for key, value in content.items() if key not in _LEAVE_STREAMS}
        stream_id = identity.experiment_id(numbers)
    return Experiment(
        experiment_id=experiment_id,
        stream_id=stream_id,
        spec=spec,
        repetitions=repetitions,
        info=resolved.info,
        network=resolved.network,
        n_train=resolved.n_train,
        n_test=resolved.n_test,
        problem=resolved.problem,
        cost_model=resolved.cost_model,
        is_packable=resolved.is_packable,
    )


_LEAVE_STREAMS = {"cache_state": "warm", "slices": 1, "perturbation": 1, "measure": ()}
"""Keys that choose no other random numbers, with their usual values: runs that differ in them can
be compared."""

# Keys of a specification that decide on an entry of `identity_content`, where it is not that key
# alone.
CONTENT_DEPENDS_ON = {
    "dataset": ("dataset", "target", "task"),
    "target": ("dataset", "target", "task"),
    "task": ("dataset", "target", "task"),
    "shape": ("shape", "depth", "widths"),
    "momentum_form": ("momentum_form", "momentum", "nesterov"),
    "batch_size": ("batch_size", "dataset", "target", "task", "test_split", "split_method"),
}


def identity_content(spec: RunSpec, resolved: Resolved) -> dict[str, Any]:
    """All that can change a number of a run and nothing else, each in one spelling.

    Cold caches change no metric, but durations and energies, and these are what they are asked for:
    a sweep over both states must not do one of them only. What is measured beside the metrics
    changes none of them either, but fills columns: a directory that has the run without them does
    not have what is asked for.
    """
    info = resolved.info
    content = spec.canonical() | {"dataset": datasets.canonical_reference(spec.dataset)}
    if info is not None and info.digest is not None:
        # A local file is what it holds: inputs, targets and task, under any name.
        content |= {"dataset": info.digest, "target": None, "task": None}
    if resolved.n_train is not None and spec.batch_size == BUTTER_BATCH_SIZE:
        # The one size that is cut down to the training set, see `_check_batch_size`; others that
        # exceed it are refused, and must not share the id of a run that is not.
        content["batch_size"] = min(spec.batch_size, resolved.n_train)
    return content
