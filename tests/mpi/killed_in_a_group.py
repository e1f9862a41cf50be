"""mpi_run.py that closes a shard after every group, and is killed within the second epoch of the
second group of repetitions, without a chance to clean up."""

import os
import signal
from functools import partial

from minibutter import launch, runs, store

run_epoch = runs.TrainingGroup.run_epoch
groups = []


def run_epoch_or_die(group):
    rows = run_epoch(group)
    if len(rows) > 1:
        if group not in groups:
            groups.append(group)
        elif len(groups) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return rows


runs.TrainingGroup.run_epoch = run_epoch_or_die
store.ShardWriter = partial(store.ShardWriter, interval_s=0.0)
raise SystemExit(launch.main())
