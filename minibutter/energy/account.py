"""What a job has done with a node's energy: who got it, what idling took, what nobody got.

    total = attributed + idle + unattributed

Attributed is what runs were given above the idle power (`energy_dynamic_j`). Idle is the idle power
times the time; it is null where no baseline was taken, and then part of the others. Unattributed is
what ranks were entitled to while they trained nothing: between runs, while they waited for others
of their gang, in runs whose energy is not known, and packages of the node that no rank ran on. Each
of the three is counted by itself, over stretches of time of its own, so that `imbalance_j`, by
which the sum misses the total, says whether anything was lost or counted twice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class RankShare:
    """What one rank has to say at the end of a job.

    Attributes
    ----------
    attributed_j : what its runs were given above the idle power.
    spare_j : what no run was given of its part, see `RankMeter.spare_j`; None where it is not
        known.
    n_unknown : runs whose energy is not known; it is in `spare_j`.
    """

    attributed_j: float
    spare_j: float | None
    n_unknown: int


@dataclass(frozen=True)
class NodeAccount:
    """The energy of one node while a job trained; joules are None where they are not known.

    Attributes
    ----------
    hostname, boot_id : the node. source : the counters. mode : gang or shared.
    ranks : numbers of its ranks in the job. reader_rank : the one that read.
    begun_ns, ended_ns : CLOCK_MONOTONIC of the node.
    total_j : of all packages and their memory.
    attributed_j, idle_j, unattributed_j : see above.
    imbalance_j : total less the three.
    n_unknown : runs without a known energy.
    idle_before_w, idle_after_w : idle power of the node before and after.
    foreign_load : part of the node's processor time that others than the ranks took.
    meter_reads, meter_cpu_s : what reading has cost.
    reason : why joules are None.
    """

    hostname: str
    boot_id: str | None
    source: str | None
    mode: str
    ranks: tuple[int, ...]
    reader_rank: int
    begun_ns: int
    ended_ns: int
    total_j: float | None = None
    attributed_j: float | None = None
    idle_j: float | None = None
    unattributed_j: float | None = None
    imbalance_j: float | None = None
    n_unknown: int | None = None
    idle_before_w: float | None = None
    idle_after_w: float | None = None
    foreign_load: float | None = None
    meter_reads: int | None = None
    meter_cpu_s: float | None = None
    reason: str | None = None

    @property
    def drift(self) -> float | None:
        """How much higher the idle power was after the job than before, of 1."""
        if self.idle_before_w is None or self.idle_after_w is None:
            return None
        return self.idle_after_w / self.idle_before_w - 1

    def columns(self) -> dict[str, Any]:
        """The fields by name, and `idle_drift`."""
        return asdict(self) | {"ranks": list(self.ranks), "idle_drift": self.drift}


@dataclass(frozen=True)
class Balance:
    """The joules of a node, each counted by itself."""

    attributed_j: float
    idle_j: float | None
    unattributed_j: float
    imbalance_j: float
    n_unknown: int


def balance(
    total_j: float,
    shares: Sequence[RankShare],
    spare_j: float,
    idle_w: float | None,
    seconds: float,
) -> Balance | str:
    """Add up what ranks say, and compare it with what the node has drawn.

    Parameters
    ----------
    total_j : of the node.
    shares : of all its ranks.
    spare_j : drawn above the idle power by packages that no rank ran on.
    idle_w : idle power of the node; None where it was not measured.
    seconds : that the job trained.

    Returns
    -------
    A sentence where a share is not known.
    """
    for rank, share in enumerate(shares):
        if share.spare_j is None:
            return f"the counters could not be read all the time for rank {rank} of the node"
    attributed_j = sum(share.attributed_j for share in shares)
    unattributed_j = sum(share.spare_j for share in shares) + spare_j
    idle_j = None if idle_w is None else idle_w * seconds
    return Balance(
        attributed_j=attributed_j,
        idle_j=idle_j,
        unattributed_j=unattributed_j,
        imbalance_j=total_j - attributed_j - unattributed_j - (idle_j or 0.0),
        n_unknown=sum(share.n_unknown for share in shares),
    )
