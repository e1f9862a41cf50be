"""A part of a sweep for each task of a job array: many jobs share a directory without a word.

Which runs are in which part follows from their ids alone, so that it does not matter in which order
a file lists them, or which of them are done: all parts together are the sweep, each run in one.
"""

import re
from typing import NamedTuple

from minibutter.sweeps.spec import SweepError


class SweepShard(NamedTuple):
    """One of `count` parts of a sweep, from 0."""

    index: int
    count: int

    def has(self, experiment_id: str, repetition: int) -> bool:
        """Whether a run belongs to this part.

        Repetitions of an experiment go to one part after the other, so that all have about as much
        to do where there are many; which part gets the first is as good as random.
        """
        return (int(experiment_id, 16) + repetition) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def read_shard(text: str) -> SweepShard:
    """A part as people write it, I/K: which one of how many.

    Arrays are numbered from 0 or from 1, and I may be: K/K is the same part as 0/K.

    Examples
    --------
    >>> read_shard("1/4"), str(read_shard("4/4"))
    (SweepShard(index=1, count=4), '0/4')

    Raises
    ------
    SweepError
        If it is none.
    """
    written = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if written is None:
        raise SweepError(
            f"shard = {text!r}: must be written I/K, which part of how many, as in 2/4 or "
            "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
        )
    index, count = map(int, written.groups())
    if count < 1 or index > count:
        raise SweepError(
            f"shard = {text!r}: there must be a part or more, and I must be from 1 to {count}, or "
            f"from 0 to {max(count - 1, 0)}"
        )
    return SweepShard(index % count, count)
