"""mpi_run.py on ranks of which the second takes a second longer for every run."""

import time

from minibutter import launch, runs

execute_group = runs.execute_group


def execute_slowly_on_rank_1(experiment, repetitions, **options):
    results = execute_group(experiment, repetitions, **options)
    time.sleep(1.0 if options["rank"] == 1 else 0.0)
    return results


runs.execute_group = execute_slowly_on_rank_1
raise SystemExit(launch.main())
