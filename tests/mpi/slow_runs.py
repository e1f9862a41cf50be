"""mpi_run.py whose runs take half a second longer each."""

import time

from minibutter import launch, runs

execute_group = runs.execute_group


def execute_slowly(experiment, repetitions, **options):
    results = execute_group(experiment, repetitions, **options)
    time.sleep(0.5)
    return results


runs.execute_group = execute_slowly
raise SystemExit(launch.main())
