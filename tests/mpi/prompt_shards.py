"""mpi_run.py that closes a shard after every run and pauses between groups, so that a kill hits the
middle of a sweep."""

import time
from functools import partial

from minibutter import launch, runs, store

execute_group = runs.execute_group


def execute_slowly(*arguments, **options):
    time.sleep(0.3)
    return execute_group(*arguments, **options)


runs.execute_group = execute_slowly
store.ShardWriter = partial(store.ShardWriter, interval_s=0.0)
raise SystemExit(launch.main())
