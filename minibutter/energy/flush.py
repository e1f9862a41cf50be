"""Cold caches: everything that was in them is driven out by reading something else."""

from functools import lru_cache

import numpy as np

from minibutter.energy.sysfs import format_cpus
from minibutter.energy.topology import Topology

_LINE_BYTES = 64

_FLUSHED_TIMES = 2
"""How many times the last level is read: caches need not drop the least recently used line first.
On a core of a Xeon with 260 MiB, 8 MiB take 3.7 ns a line to read again, and behind a flush of a
half, once, twice and four times the level 5.3, 6.9, 8.2 and 8.3 ns; twice takes 34 ms."""


def flushed_bytes(topology: Topology) -> int:
    """Bytes to read so that nothing of before is left in any cache.

    It follows from the whole of the largest last-level cache that the CPUs reach, not from a share
    of it: where the other CPUs are idle, lines of this process may lie in all of it.

    Parameters
    ----------
    topology : of the CPUs that the process may use.

    Raises
    ------
    ValueError
        If sysfs does not tell the size of the last level. No size is assumed: if it were too small,
        warm caches would pass for cold ones.
    """
    problem = _why_unknown(topology)
    if problem is not None:
        raise ValueError(
            f"cache_state is 'cold', but how much must be read to empty the caches is not known: "
            f"{problem}; run it where sysfs tells the caches, or with cache_state = 'warm'"
        )
    last = topology.data_levels[-1]
    return _FLUSHED_TIMES * max(cache.size_bytes for cache in topology.data_caches(last))


def _why_unknown(topology: Topology) -> str | None:
    without = topology.cpus_without_caches
    if without:
        return f"sysfs tells of no data cache of CPU {format_cpus(without)}"
    problems = (cache.problem for cache in topology.data_caches(topology.data_levels[-1]))
    return next((problem for problem in problems if problem is not None), None)


class CacheFlusher:
    """A buffer that is walked through, a number of every line.

    Lines are only read: what was written would still have to be written back in the time that is
    measured next. Flushers of one size share their memory, and it is kept for those that follow:
    to get it takes longer than many a run.

    Parameters
    ----------
    n_bytes : of the buffer, see `flushed_bytes`.
    """

    def __init__(self, n_bytes: int) -> None:
        self._buffer = _allocate(max(n_bytes, _LINE_BYTES) // 8)

    def flush(self) -> int:
        """Walk through the buffer; returns the number of lines that were read."""
        return int(self._buffer[:: _LINE_BYTES // 8].sum())


@lru_cache(maxsize=1)
def _allocate(n_numbers: int) -> np.ndarray:
    # Ones, because pages that were never written are all the same page of zeros.
    ones = np.ones(n_numbers, dtype=np.int64)
    ones.flags.writeable = False
    return ones
