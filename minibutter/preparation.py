"""From an experiment to what can be trained: its data, its first weights, its groups.

Everything random of a run is drawn here, each from a stream of its own. What the user of a run can
mend comes as one of the `FORESEEN` errors, on all ranks that train it together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from minibutter import datasets
from minibutter.datasets import Dataset, DatasetError
from minibutter.experiments import Experiment
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.measured import MeasuredGroup
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.parameterization import GAUSSIAN, Parameterization, make_parameterization
from minibutter.nn.partners import Partners
from minibutter.nn.schedules import StepSchedule
from minibutter.nn.slices import SlicedGroup
from minibutter.nn.starts import Start, TrainingData
from minibutter.noise_scale.adaptive import AdaptiveBatch
from minibutter.sweeps import identity


@lru_cache(maxsize=16)
def _load(reference: str, target: str | None, task: str | None, data_dir: Path | None) -> Dataset:
    """Encoded data, kept for the runs that follow; all 13 BUTTER sets take 0.4 GB."""
    return datasets.load(reference, target=target, task=task, data_dir=data_dir)


FORESEEN = (DatasetError, ValueError, MemoryError)
"""What the user of a run can mend."""


@contextmanager
def all_or_none(partners: Partners) -> Iterator[None]:
    """Around what every rank does for itself: where one fails, all do, or the others would wait.

    Raises
    ------
    DatasetError, ValueError, MemoryError
        The problem of the first rank that has one.
    """
    problem = None
    try:
        yield
    except FORESEEN as error:
        problem = error
    for found in partners.meet(problem):
        if found is not None:
            raise found


def find_data(experiment: Experiment, data_dir: Path | None) -> Dataset:
    """The encoded data of an experiment; a `FORESEEN` error where it cannot be run."""
    if experiment.problem is not None:
        raise ValueError(experiment.problem)
    spec = experiment.spec
    return _load(spec.dataset, spec.target, spec.task, data_dir)


def prepare(experiment: Experiment, repetition: int, dataset: Dataset) -> Start:
    """Split, spoil labels, draw the first weights: everything random, each from its own stream.

    Parameters
    ----------
    experiment : without a problem.
    repetition : number, from 0.
    dataset : from `find_data`.
    """
    spec, network = experiment.spec, experiment.network

    def stream(name: str) -> np.random.Generator:
        return identity.random_stream(experiment.stream_id, repetition, name, spec.seed)

    train, test = datasets.split_dataset(
        dataset.info.n_rows, spec.test_split, spec.split_method, stream("split")
    )
    y_train = dataset.y[train]
    if spec.label_noise > 0:
        y_train = datasets.add_label_noise(
            y_train, dataset.info.task, spec.label_noise, stream("label_noise")
        )

    def as_network_type(rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(rows, dtype=spec.dtype)

    data = TrainingData(
        x_train=as_network_type(dataset.x[train]),
        y_train=as_network_type(y_train),
        x_test=as_network_type(dataset.x[test]),
        y_test=as_network_type(dataset.y[test]),
    )
    scales = _parameterization(experiment)
    if scales is None:
        parameters = network.initial_parameters(spec.initializer, stream("init"))
    else:
        parameters = scales.initial_parameters(network, stream("init"))
    return Start(parameters, data, stream("shuffle"))


def _parameterization(experiment: Experiment) -> Parameterization | None:
    """Of Gaussian first weights; uniform ones have one learning rate for all."""
    spec = experiment.spec
    if spec.initializer != GAUSSIAN:
        return None
    return make_parameterization(
        spec.parameterization,
        experiment.network,
        spec.optimizer,
        spec.sigma0,
        spec.bias_multiplier,
        spec.base_width,
    )


def _schedule(experiment: Experiment) -> StepSchedule | None:
    spec = experiment.spec
    if spec.learning_rate_step_epochs is None:
        return None
    return StepSchedule(spec.learning_rate_step_epochs, spec.learning_rate_gamma)


def make_adaptive_batch(experiment: Experiment) -> AdaptiveBatch | None:
    """What chooses the batch size of a run from epoch to epoch; None where it stays the same."""
    spec = experiment.spec
    if spec.batch_rule == "fixed":
        return None
    least, most = (min(size, experiment.n_train) for size in (spec.batch_size, spec.batch_size_max))
    return AdaptiveBatch(spec.batch_exchange_rate, least, most)


def make_groups(
    experiment: Experiment, starts: dict[int, Start], partners: Partners
) -> Iterator[tuple[list[int], TrainingGroup | Exception]]:
    """One group of all repetitions that have done equally many epochs or, where they cannot be
    packed, one of each.

    Where there can be no group, not even of one repetition, its error comes in its place. What has
    entered a group is taken out of `starts`: packed data are a copy, and one is enough.
    """
    for epochs in sorted({start.epochs for start in starts.values()}, reverse=True):
        equals = [key for key, start in starts.items() if start.epochs == epochs]
        yield from _pack(experiment, {key: starts.pop(key) for key in equals}, partners)


def _pack(
    experiment: Experiment, starts: dict[int, Start], partners: Partners
) -> Iterator[tuple[list[int], TrainingGroup | Exception]]:
    """`make_groups` of repetitions that have done equally many epochs, and of at least one."""
    try:
        with all_or_none(partners):
            group = _make_group(experiment, list(starts.values()), partners)
    except FORESEEN as error:
        # Its traceback would keep what the group has allocated.
        failure = error.with_traceback(None)
    else:
        members = list(starts)
        starts.clear()
        yield members, group
        return
    if len(starts) == 1:
        yield list(starts), failure
        return
    while starts:
        repetition = next(iter(starts))
        yield from _pack(experiment, {repetition: starts.pop(repetition)}, partners)


def _make_group(experiment: Experiment, starts: list[Start], partners: Partners) -> TrainingGroup:
    spec = experiment.spec
    optimizer = make_optimizer(
        spec.optimizer,
        spec.learning_rate,
        spec.momentum,
        nesterov=spec.nesterov,
        momentum_form=spec.momentum_form,
        perturbation=spec.perturbation,
    )
    options = {
        "batch_size": min(spec.batch_size_max or spec.batch_size, experiment.n_train),
        "l1": spec.l1,
        "l2": spec.l2,
        "evaluate_train": spec.evaluate_train,
        "parameterization": _parameterization(experiment),
        "schedule": _schedule(experiment),
        "sampling": spec.sampling,
    }
    if spec.slices == 1 and not spec.measure:
        return TrainingGroup(experiment.network, starts, optimizer, **options)
    if len(starts) > 1:
        raise ValueError(
            "slices, and what is measured of single examples, fill the lanes with rows of one run: "
            "train them one by one"
        )
    if spec.slices == 1:
        return MeasuredGroup(experiment.network, starts[0], optimizer, **options)
    options |= {"slices": spec.slices, "records_norms": bool(spec.measure)}
    return SlicedGroup(experiment.network, starts[0], optimizer, partners=partners, **options)
