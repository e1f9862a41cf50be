"""Doing some finished runs again, to see whether every bit of their numbers comes back.

The same specification on the same processor and versions promises the same bits, whatever the
number of ranks, lanes, kills and resumes. On another processor or version nothing is promised, and
that is said.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from minibutter import datasets, runs, store
from minibutter.datasets import DatasetError
from minibutter.energy import open_meter
from minibutter.experiments import Experiment, plan_experiment
from minibutter.provenance import Provenance, read_provenance
from minibutter.store import Difference, StoreError
from minibutter.sweeps.spec import RunSpec, SweepError, explain

EXIT_SAME, EXIT_NOT_REPEATED, EXIT_DIFFERENT, EXIT_DIFFERENT_ELSEWHERE = 0, 3, 5, 6
"""All bits came back; some runs could not be done again; some have other bits; some have, but all
of these were done on another processor or with other versions."""

_BITS_DEPEND_ON = ("cpu_model", "minibutter_version", "git_commit", "python_version",
                   "numpy_version", "numba_version", "llvmlite_version", "blas")  # fmt: skip


@dataclass(frozen=True)
class Repeated:
    """One run that was done again.

    Attributes
    ----------
    run_id : of the run. title : its experiment in a few words.
    difference : what is not the same; None if all bits came back, or it could not be repeated.
    elsewhere : what its bits may depend on and was another: name, value then, value now.
    problem : why it could not be repeated; else None.
    """

    run_id: str
    title: str
    difference: Difference | None
    elsewhere: dict[str, tuple[str | None, str | None]]
    problem: str | None = None


@dataclass(frozen=True)
class Verification:
    """What came of a sample.

    Attributes
    ----------
    n_finished : runs that could have been drawn.
    repeated : one for every run of the sample, in the order in which they were done.
    problems : shards that were ignored.
    """

    n_finished: int
    repeated: list[Repeated]
    problems: list[str]

    @property
    def exit_code(self) -> int:
        """One of `EXIT_SAME`, `EXIT_NOT_REPEATED`, `EXIT_DIFFERENT`, `EXIT_DIFFERENT_ELSEWHERE`."""
        different = [each for each in self.repeated if each.difference is not None]
        if any(not each.elsewhere for each in different):
            return EXIT_DIFFERENT
        if different:
            return EXIT_DIFFERENT_ELSEWHERE
        return EXIT_NOT_REPEATED if any(each.problem for each in self.repeated) else EXIT_SAME


def sample_size(sample: str, n: int) -> int:
    """How many of `n` runs "1%" or "20" are: at least one, at most all.

    Raises
    ------
    SweepError
        If the text is neither a percentage from 0 to 100 nor a whole number from 1.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", sample.strip())
    number = float(match[1]) if match else 0.0
    if match and match[2] and 0 < number <= 100:
        return max(1, min(n, math.ceil(n * number / 100 - 1e-9)))
    if match and not match[2] and number == int(number) >= 1:
        return min(n, int(number))
    raise SweepError(
        f"--sample {sample}: write a percentage, as in 1%, or a number of runs, as in 20"
    )


def verify(
    directory: Path,
    sample: str = "1%",
    seed: int = 0,
    data_dir: Path | None = None,
    on_run: Callable[[Repeated], None] = lambda repeated: None,
) -> Verification:
    """Do a sample of finished runs again and compare all computed columns bit by bit.

    Nothing is written. The sample follows from the seed and the run ids, so that the same one can
    be drawn again.

    Parameters
    ----------
    directory : of the sweep; runs that failed are not drawn.
    sample : see `sample_size`.
    seed : of the draw.
    data_dir : where local data sets lie.
    on_run : called after every run.

    Raises
    ------
    StoreError, SweepError
        If there is no finished run, or `sample` means nothing.
    """
    stored = store.read_runs(directory)
    finished = stored[stored["status"] != "failed"].reset_index(drop=True)
    if not len(finished):
        raise StoreError(f"{directory} holds no run that did not fail: there is nothing to verify")
    size = sample_size(sample, len(finished))
    drawn = np.random.default_rng(seed).choice(len(finished), size=size, replace=False)
    here = read_provenance()
    repeated = []
    with threadpool_limits(1), open_meter() as meter:
        for position in drawn:
            row = finished.iloc[position]
            elsewhere = _elsewhere(row, here)
            try:
                experiment = _experiment_of(row, data_dir)
                result = runs.execute(
                    experiment,
                    int(row["repetition"]),
                    meter=meter,
                    provenance=here,
                    sweep=row["sweep"],
                    data_dir=data_dir,
                )
                if result.run["status"] == "failed":
                    raise SweepError(result.run["error"])
                found = store.difference(directory, result.run, result.epochs)
                each = Repeated(row["run_id"], experiment.title, found, elsewhere)
            except (SweepError, DatasetError, StoreError) as problem:
                each = Repeated(row["run_id"], row["dataset"], None, elsewhere, str(problem))
            repeated.append(each)
            on_run(each)
    return Verification(len(finished), repeated, stored.attrs["problems"])


def _experiment_of(row: pd.Series, data_dir: Path | None) -> Experiment:
    """The experiment that a row of `runs` belongs to.

    Raises
    ------
    SweepError, DatasetError
        If it is another one today: the content of a data file has changed, say.
    """
    try:
        spec = RunSpec(**_specification(row))
    except ValidationError as error:
        raise SweepError(explain(error)) from None
    datasets.ensure_available(spec.dataset, data_dir=data_dir)
    experiment = plan_experiment(spec, data_dir=data_dir)
    if experiment.problem is not None:
        raise SweepError(experiment.problem)
    if experiment.experiment_id != row["experiment_id"]:
        raise SweepError(
            f"its specification means another experiment here, {experiment.experiment_id}: the "
            f"content of {spec.dataset} has changed, or another version of minibutter gave the id"
        )
    return experiment


def _specification(row: pd.Series) -> Mapping[str, Any]:
    """The keys of `RunSpec` from the columns of `runs`."""
    values = {key: _plain(row[key]) for key in RunSpec.model_fields if key in row.index}
    values["task"] = _plain(row["task_override"])
    values["measure"] = tuple(filter(None, (_plain(row["measure"]) or "").split(",")))
    if values["size"] is None:
        values |= {"depth": None, "widths": tuple(int(width) for width in row["widths"])}
    else:
        del values["widths"]
    return values


def _plain(value: Any) -> Any:
    """A value of a frame as a specification takes it."""
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _elsewhere(row: pd.Series, here: Provenance) -> dict[str, tuple[str | None, str | None]]:
    known = {field.name for field in fields(here)}
    pairs = {
        name: (_plain(row[name]), getattr(here, name)) for name in _BITS_DEPEND_ON if name in known
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
