"""`Plan`: the experiments of a sweep as columns, each of them made when it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from minibutter.experiments.experiment import Experiment, make_experiment
from minibutter.experiments.resolved import Resolved
from minibutter.sweeps.cells import Cells
from minibutter.sweeps.spec import SPEC_KEYS

US_PER_H = 3.6e9

_MAX_KEPT = 4096


@dataclass(frozen=True, eq=False)
class Plan(Sequence[Experiment]):
    """Experiments of a sweep, each once, in the order of the sweep.

    Arrays have the shape (n_experiments,).

    Attributes
    ----------
    name : of the sweep.
    sweep_cells : what the sweep asks for.
    experiment_ids : a list of str.
    cells : which of `sweep_cells` an experiment stands for, int64.
    n_cells : how many of `sweep_cells` ask for it, int64.
    repetitions : the largest number that one of these asks for, int64.
    epochs : of a run, int64.
    distinct : what many experiments share.
    codes : which of `distinct` each of them has, int64.
    notes : how the experiments were chosen from those of the sweep, a sentence each; empty where
        all are here.
    requested : by id the repetitions of all experiments of the sweep, of those too that were not
        chosen; but not of these where their data cannot be read, as their id is not known then.
    """

    name: str
    sweep_cells: Cells = field(repr=False)
    experiment_ids: list[str] = field(repr=False)
    cells: np.ndarray = field(repr=False)
    n_cells: np.ndarray = field(repr=False)
    repetitions: np.ndarray = field(repr=False)
    epochs: np.ndarray = field(repr=False)
    distinct: list[Resolved] = field(repr=False)
    codes: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()
    requested: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        counts = zip(self.experiment_ids, self.repetitions.tolist(), strict=True)
        object.__setattr__(self, "requested", dict(counts))

    def __len__(self) -> int:
        return len(self.experiment_ids)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        number = range(len(self))[number]
        spec, _ = self.sweep_cells[int(self.cells[number])]
        return make_experiment(
            spec,
            int(self.repetitions[number]),
            self.distinct[self.codes[number]],
            self.experiment_ids[number],
        )

    def chosen(self, numbers: np.ndarray, note: str) -> "Plan":
        """Some of the experiments; `requested` keeps the others.

        Parameters
        ----------
        numbers : of experiments, int64 of shape (n_chosen,), ascending.
        note : how they were chosen.
        """
        ids = [self.experiment_ids[number] for number in numbers.tolist()]
        part = replace(
            self,
            experiment_ids=ids,
            cells=self.cells[numbers],
            n_cells=self.n_cells[numbers],
            repetitions=self.repetitions[numbers],
            epochs=self.epochs[numbers],
            codes=self.codes[numbers],
            notes=(*self.notes, note),
        )
        lacking = {self.experiment_ids[number] for number in np.flatnonzero(self.lacks_data)}
        lacking -= set(ids)
        known = {key: n for key, n in self.requested.items() if key not in lacking}
        object.__setattr__(part, "requested", known)
        return part

    @cached_property
    def by_id(self) -> Mapping[str, Experiment]:
        """The same experiments by their ids."""
        return _ById(self)

    @property
    def epoch_us(self) -> np.ndarray:
        """Predicted microseconds of an epoch of one run that is trained alone on one rank, float64;
        0 where it cannot be run."""
        return np.array([each.epoch_us for each in self.distinct])[self.codes]

    @property
    def work_us(self) -> np.ndarray:
        """Predicted microseconds of all repetitions, each trained alone on one rank, float64."""
        return self.repetitions * self.epochs * self.epoch_us

    @property
    def core_h(self) -> float:
        """Predicted hours of one core for all repetitions of all experiments, one by one."""
        return float(self.work_us.sum()) / US_PER_H

    @property
    def lacks_data(self) -> np.ndarray:
        """Whether the data set of an experiment cannot be read, bool."""
        return np.array([each.info is None for each in self.distinct])[self.codes]

    @property
    def has_problem(self) -> np.ndarray:
        """Whether an experiment cannot be run, bool."""
        return np.array([each.problem is not None for each in self.distinct])[self.codes]

    @property
    def is_unreachable(self) -> np.ndarray:
        """Whether no network of an experiment's shape and depth has its size, bool."""
        return np.array([each.is_unreachable for each in self.distinct])[self.codes]

    @property
    def sizes(self) -> np.ndarray:
        """Trainable parameters that were asked for, float64, NaN where widths are given."""
        return self.sweep_cells.numbers_of("size")[self.cells]

    @property
    def num_parameters(self) -> np.ndarray:
        """Trainable parameters of the networks, int64; 0 where there is none."""
        counts = [each.network.num_parameters if each.network else 0 for each in self.distinct]
        return np.array(counts, np.int64)[self.codes]

    def problems(self, mask: np.ndarray) -> list[str]:
        """The different problems of some experiments: bool of shape (n_experiments,)."""
        problems = [self.distinct[code].problem for code in np.unique(self.codes[mask])]
        return list(dict.fromkeys(filter(None, problems)))

    def values(self) -> dict[str, list[Any]]:
        """The different values of every key of a specification, in the order of the sweep."""
        found: dict[str, dict[Any, None]] = {key: {} for key in SPEC_KEYS}
        for columns, _ in self.sweep_cells.columns_of(self.cells):
            for key in SPEC_KEYS:
                values = columns.values(key)
                # Not all of an axis need be left.
                codes = np.unique(columns.codes(key)) if len(values) > 1 else [0]
                found[key] |= dict.fromkeys(values[code] for code in codes)
        return {key: list(values) for key, values in found.items()}


class _ById(Mapping[str, Experiment]):
    """Makes experiments when they are asked for; those of late are kept."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._numbers = {each: number for number, each in enumerate(plan.experiment_ids)}
        self._kept: dict[str, Experiment] = {}

    def __getitem__(self, experiment_id: str) -> Experiment:
        if experiment_id not in self._kept:
            experiment = self._plan[self._numbers[experiment_id]]
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[experiment_id] = experiment
        return self._kept[experiment_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, experiment_id: object) -> bool:
        return experiment_id in self._numbers

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}
