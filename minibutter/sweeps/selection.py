"""What of a sweep is to be done now: where a condition holds, the first few, what hours pay for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibutter.sweeps.conditions import Condition


@dataclass(frozen=True)
class Selection:
    """Experiments where `condition` holds, of these the first `limit`, of these what a budget buys.

    Attributes
    ----------
    condition : None for all.
    limit : number of experiments, in the order of the sweep; None for all.
    budget_core_h : predicted time of one core, in hours; None without bound. See `nested_order`.
    """

    condition: Condition | None = None
    limit: int | None = None
    budget_core_h: float | None = None

    @property
    def text(self) -> str:
        """The selection as options of the command line; empty for everything."""
        options = []
        if self.condition is not None:
            options.append(f"--filter {self.condition.text!r}")
        if self.limit is not None:
            options.append(f"--limit {self.limit}")
        if self.budget_core_h is not None:
            options.append(f"--budget {self.budget_core_h:g}core-h")
        return " ".join(options)


EVERYTHING = Selection()

_SHARE = 1 / 16
"""A budget is not spent on a single experiment: none may take more of it than this."""


def nested_order(
    cost: np.ndarray, stratum: np.ndarray, is_corner: np.ndarray, ids: Sequence[str]
) -> np.ndarray:
    """An order of experiments of which a budget pays for the first so many.

    So a larger budget buys what a smaller one buys, and more. The order comes in stages, each of
    which doubles what was spent before, and takes what costs at most a sixteenth of that: corners
    first, then the others, of each the strata in turn; within a stratum in the order of the ids,
    which is as good as random and the same everywhere.

    Parameters
    ----------
    cost : of each experiment, positive, shape (n,).
    stratum : its size on a coarse scale: integers of shape (n,).
    is_corner : whether it stands at the ends of all axes: bool of shape (n,).
    ids : hexadecimal digits.

    Returns
    -------
    Numbers of the experiments: int64 of shape (n,).
    """
    at_random = np.argsort(np.array(ids), kind="stable")
    in_groups = at_random[np.lexsort((stratum[at_random], ~is_corner[at_random]))]
    group = np.stack([~is_corner, stratum])[:, in_groups]
    begins = np.concatenate([[True], (group[:, 1:] != group[:, :-1]).any(axis=0)])
    starts = np.flatnonzero(begins)
    turn = np.arange(len(ids)) - starts[np.cumsum(begins) - 1]
    left = in_groups[np.lexsort((stratum[in_groups], turn, ~is_corner[in_groups]))]
    spent, limit, taken = 0.0, cost.min() / _SHARE, []
    while len(left):
        candidates = np.flatnonzero(cost[left] <= limit * _SHARE)
        total = spent + np.cumsum(cost[left[candidates]])
        n_taken = int(np.searchsorted(total, limit, side="right"))
        if n_taken:
            taken.append(left[candidates[:n_taken]])
            spent = total[n_taken - 1]
            left = np.delete(left, candidates[:n_taken])
        limit *= 2
    return np.concatenate(taken)
