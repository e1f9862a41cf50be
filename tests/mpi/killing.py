"""Killing a job as the system would: all of it, without a word."""

import os
import signal
from contextlib import suppress
from pathlib import Path


def kill_family(ancestor: int) -> None:
    """SIGKILL a process and all that descend from it: mpirun, its proxy and the ranks."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
    family = [ancestor]
    for member in family:
        family += [pid for pid, parent in parents.items() if parent == member]
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
