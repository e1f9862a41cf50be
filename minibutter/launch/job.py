"""What is to do: rank 0 reads the sweep, looks for what is done, and lists what is missing."""

from dataclasses import dataclass, replace
from pathlib import Path

import minibutter
from minibutter import datasets, runs, store
from minibutter.runs import Experiment
from minibutter.sweeps import identity
from minibutter.sweeps.spec import Sweep, SweepError

_EPOCH_OVERHEAD_FLOPS = 1e6  # what an epoch costs however small the network is


@dataclass(frozen=True)
class Job:
    """What rank 0 decided and every rank knows.

    Attributes
    ----------
    name : of the sweep.
    out : directory of the results.
    experiments : by id.
    pending : (experiment id, repetition) of the runs to do, largest first.
    n_done : runs that stood in the directory already.
    notes : what was found and mended in the directory.
    """

    name: str
    out: Path
    experiments: dict[str, Experiment]
    pending: tuple[tuple[str, int], ...]
    n_done: int
    notes: tuple[str, ...]

    def work(self, experiment: str, n_epochs: int | None = None) -> float:
        """Predicted cost of a run, or of its first epochs, in flops; unreachable ones are free."""
        planned = self.experiments[experiment]
        if planned.problem is not None:
            return 0.0
        epochs = planned.spec.epochs if n_epochs is None else n_epochs
        return epochs * (planned.flops_per_epoch + _EPOCH_OVERHEAD_FLOPS)


def prepare_job(sweep: Sweep, out: Path | None, data_dir: Path | None) -> Job:
    """Decide what is to do: plan, make sure that the data are there, look for finished runs.

    Raises
    ------
    SweepError, DatasetError, StoreError
        If the sweep, its data or its directory cannot be used.
    """
    out = Path("results") / sweep.name if out is None else out
    for reference in dict.fromkeys(spec.dataset for spec, _ in sweep.experiments):
        datasets.ensure_available(reference, data_dir=data_dir)
    experiments = {
        experiment.experiment_id: experiment
        for experiment in runs.plan_experiments(sweep, data_dir)
    }
    for experiment in experiments.values():
        if experiment.info is None:
            raise SweepError(f"{experiment.spec.dataset} cannot be used: {experiment.problem}")
    requested = {key: experiment.repetitions for key, experiment in experiments.items()}
    document = {"sweep": sweep.document, "minibutter_version": minibutter.__version__}
    notes = store.open_directory(out, sweep.name, requested, document)
    notes += store.recover(out)
    finished, _ = store.finished_runs(out)
    wanted = [(key, repetition) for key, count in requested.items() for repetition in range(count)]
    pending = [pair for pair in wanted if not _is_done(experiments[pair[0]], pair[1], finished)]
    job = Job(
        name=sweep.name,
        out=out,
        experiments=experiments,
        pending=(),
        n_done=len(wanted) - len(pending),
        notes=tuple(notes),
    )
    # Python's sort is stable: runs of equal cost keep the order of the file.
    pending.sort(key=lambda pair: job.work(pair[0]), reverse=True)
    return replace(job, pending=tuple(pending))


def _is_done(experiment: Experiment, repetition: int, finished: dict[str, str]) -> bool:
    """Whether a run need not be done again.

    A run that failed although nothing in its specification stands in its way, for want of memory,
    say, is tried again; one that can never succeed is not.
    """
    status = finished.get(identity.run_id(experiment.experiment_id, repetition))
    return status is not None and (status != "failed" or experiment.problem is not None)
