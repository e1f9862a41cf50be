"""mpi_run.py after the name of a signal, which rank 1 gets in a step that others wait to finish."""

import signal
import sys

from minibutter import launch
from minibutter.nn.shared_sum import SharedSum

add_up = SharedSum.add_up
number = signal.Signals[sys.argv[1]]
calls = []


def add_up_after_a_signal(shared):
    calls.append(shared)
    if shared._partners.rank == 1 and len(calls) == 20:
        signal.raise_signal(number)
    return add_up(shared)


SharedSum.add_up = add_up_after_a_signal
raise SystemExit(launch.main(sys.argv[2:]))
