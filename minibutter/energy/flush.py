"""Cold caches: everything that was in them is driven out by reading something else."""

import numpy as np

_LINE_BYTES = 64


class CacheFlusher:
    """A buffer that is walked through, a number of every line.

    Lines are only read: what was written would still have to be written back in the time that is
    measured next.

    Parameters
    ----------
    n_bytes : of the buffer; several times the last level, which need not drop the least recently
        used line first.
    """

    def __init__(self, n_bytes: int) -> None:
        # Ones, because pages that were never written are all the same page of zeros.
        self._buffer = np.ones(max(n_bytes, _LINE_BYTES) // 8, dtype=np.int64)

    def flush(self) -> int:
        """Walk through the buffer; returns the number of lines that were read."""
        return int(self._buffer[:: _LINE_BYTES // 8].sum())
