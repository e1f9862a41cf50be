"""mpi_run.py with a planted bug: the second run of rank 1 raises what nobody foresees."""

from minibutter import launch, runs

execute = runs.execute
calls = []


def execute_with_a_bug(experiment, repetition, **options):
    calls.append(repetition)
    if options["rank"] == 1 and len(calls) == 2:
        raise ZeroDivisionError("the planted bug")
    return execute(experiment, repetition, **options)


runs.execute = execute_with_a_bug
raise SystemExit(launch.main())
