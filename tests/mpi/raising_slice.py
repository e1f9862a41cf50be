"""mpi_run.py with a planted bug: rank 1 raises in a step that others wait to finish."""

from minibutter import launch
from minibutter.nn.shared_sum import SharedSum

add_up = SharedSum.add_up
calls = []


def add_up_with_a_bug(shared):
    calls.append(shared)
    if shared._partners.rank == 1 and len(calls) == 20:
        raise ZeroDivisionError("the planted bug")
    return add_up(shared)


SharedSum.add_up = add_up_with_a_bug
raise SystemExit(launch.main())
