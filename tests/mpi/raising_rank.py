"""mpi_run.py with a planted bug: the second group of rank 1 raises what nobody foresees."""

from minibutter import launch, runs

execute_group = runs.execute_group
calls = []


def execute_with_a_bug(experiment, repetitions, **options):
    calls.append(repetitions)
    if options["rank"] == 1 and len(calls) == 2:
        raise ZeroDivisionError("the planted bug")
    return execute_group(experiment, repetitions, **options)


runs.execute_group = execute_with_a_bug
raise SystemExit(launch.main())
