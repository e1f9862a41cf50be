"""Start a sweep again and again, and kill it every time: often_killed.py STARTS.json.

The file holds a list of [seconds, arguments of mpi_run.py]: the job that is started with the
arguments is killed after the seconds. Every job is a fork, for which all is imported and compiled
already, so that most kills hit its work. Prints the number of jobs that were killed before their
end.
"""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.mpi import frequent_writing


def do_job(arguments: list[str]) -> int:
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        return frequent_writing.launch.main(arguments)


starts = json.loads(Path(sys.argv[1]).read_text())
with tempfile.TemporaryDirectory() as folder:
    said = os.dup(1)
    do_job([starts[0][1][0], "--filter", "size < 1000", "--limit", "1", "--out", folder])
    os.dup2(said, 1)
n_killed = 0
for seconds, arguments in starts:
    job = os.fork()
    if job == 0:
        os._exit(do_job(arguments))
    time.sleep(seconds)
    os.kill(job, signal.SIGKILL)
    _, status = os.waitpid(job, 0)
    n_killed += os.WIFSIGNALED(status)
print(n_killed)
