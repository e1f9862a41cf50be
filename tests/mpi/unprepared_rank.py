"""mpi_run.py on ranks of which the second has no room for the rows of runs with slices."""

from minibutter import launch, runs
from minibutter.launch.ranks import find_ranks

prepare, rank = runs.prepare, find_ranks().rank


def prepare_or_fail(experiment, repetition, dataset):
    if rank == 1 and experiment.spec.slices > 1:
        raise MemoryError("rank 1 has no room")
    return prepare(experiment, repetition, dataset)


runs.prepare = prepare_or_fail
raise SystemExit(launch.main())
