"""mpi_run.py that closes a shard after every run and pauses between runs, so that a kill hits the
middle of a sweep."""

import time
from functools import partial

from minibutter import launch, runs, store

execute = runs.execute


def execute_slowly(*arguments, **options):
    time.sleep(0.3)
    return execute(*arguments, **options)


runs.execute = execute_slowly
store.ShardWriter = partial(store.ShardWriter, interval_s=0.0)
raise SystemExit(launch.main())
