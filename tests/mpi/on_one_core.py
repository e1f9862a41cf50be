"""mpi_run.py with all ranks on the core that the first argument names."""

import os
import sys

from minibutter import launch

os.sched_setaffinity(0, {int(sys.argv[1])})
raise SystemExit(launch.main(sys.argv[2:]))
