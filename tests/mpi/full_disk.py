"""mpi_run.py on ranks of which the last finds the disk full when it closes its files."""

import errno
import os

from minibutter import launch
from minibutter.store import shards

commit = shards.commit


def commit_unless_full(shard, runs, epochs):
    if os.environ.get("PMI_RANK", "0") == str(int(os.environ.get("PMI_SIZE", "1")) - 1):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    commit(shard, runs, epochs)


shards.commit = commit_unless_full
raise SystemExit(launch.main())
