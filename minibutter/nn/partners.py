"""Ranks that train one network together, as far as this room has to know them.

Who starts ranks implements `Partners` (`launch`, with MPI); `Alone` is for one process.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Parcels = Sequence[tuple[int, np.ndarray]]
"""Ranks, each with a C-contiguous array to send to it or to fill from it."""


class Partners(Protocol):
    """Ranks that move arrays between each other; they never add them.

    Attributes
    ----------
    rank, size : this one, and how many there are.
    """

    rank: int
    size: int

    def exchange(self, outgoing: Parcels, incoming: Parcels) -> None:
        """Send arrays and fill others; all ranks call it, and it returns when this one is done.

        What one rank sends to another arrives in the order in which it is listed; arrays that
        belong together have the same size and type on both sides.
        """

    def meet(self, value: Any = None) -> list[Any]:
        """Wait until all have come, and hear what each says, in the order of ranks."""


class Alone:
    """A single rank, to which nobody talks."""

    rank, size = 0, 1

    def exchange(self, outgoing: Parcels, incoming: Parcels) -> None:
        """There is nobody."""

    def meet(self, value: Any = None) -> list[Any]:
        return [value]


ALONE = Alone()
