"""Who gets which runs next: the longest first, in bundles, and nothing that cannot end in time.

Runs of a sweep differ by six decades in length. Dealt out in advance, whatever the order, they
leave most ranks waiting for a few; given out on request, those that are predicted to take longest
first (Graham 1969, *SIAM J. Appl. Math.* 17, 416), they keep all busy to the end, even where the
predictions are a third wrong. Short ones are given out several at a time, so that nobody asks more
often than every few seconds, in bundles that shrink with what is left (guided self-scheduling:
Polychronopoulos & Kuck 1987, *IEEE Trans. Comput.* C-36, 1425).

A `Schedule` knows nothing of MPI, clocks and files: a *task* is a number, whatever is trained in
one go, one run or a group of repetitions; a *worker* is a rank, or a gang of ranks that start and
end together, the ranks of a package, say, whose energy is then that of equal runs. What is given to
whom follows from the order of the calls alone.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import neg
from typing import NamedTuple

import numpy as np

BUNDLE_S = 5.0
"""Seconds that a bundle of short tasks takes while there is plenty: a thousand ranks then ask two
hundred times a second, of several thousand that a rank can answer."""

SLICES = 4
"""Towards the end a bundle is this part of a rank's share of what is left."""

LEAST_COST_S = 1e-3
"""What a task costs however little it trains: its rows are made, stored and reported."""


class Grant(NamedTuple):
    """What a worker is to do next, in this order; empty when there is nothing for it.

    Attributes
    ----------
    tasks : ndarray (n,), int32: numbers of tasks, those that take longest first.
    blocks : ndarray (n_blocks,), int32: how many of them, one after the other, form a block: one
        for a rank; for a gang, equal ones that are done at the same time, one on each rank.
    cost_s : seconds that all blocks are predicted to take.
    """

    tasks: np.ndarray
    blocks: np.ndarray
    cost_s: float


class Schedule:
    """The tasks of a sweep that nobody has begun, and those that somebody holds.

    Takes 17 bytes a task: eleven million runs are 190 MB, on the one rank that has it.

    Parameters
    ----------
    cost_s : array (n,): seconds that each task is predicted to take on one rank.
    widths : ranks of every worker: 1, or more for a gang. Workers are numbered from 0.
    kinds : array (n,) of int32: tasks of one kind are equal, repetitions of one experiment, so that
        a gang may do them side by side. Every task is of its own kind when left out.
    bundle_s : see `BUNDLE_S`.
    margin : by how much a task may take longer than predicted: where time is limited, none is
        begun that takes longer than what is left when it takes `margin` times its cost.
    least_s : array (n,): seconds after which a task that has to end early has got further, so that
        another job goes on there. With so much time left it is begun, however long it takes in all;
        otherwise the longest tasks of a sweep would never end. None: what ends early is lost.

    Raises
    ------
    ValueError
        If a cost is negative or not finite, a width is below 1, `kinds` or `least_s` do not fit, or
        there is a gang and no `kinds`.
    """

    def __init__(
        self,
        cost_s: np.ndarray,
        widths: Sequence[int],
        *,
        kinds: np.ndarray | None = None,
        bundle_s: float = BUNDLE_S,
        margin: float = 1.0,
        least_s: np.ndarray | None = None,
    ) -> None:
        self._widths = tuple(widths)
        if not self._widths or min(self._widths) < 1:
            raise ValueError(f"widths are {widths}; there must be a worker, of 1 rank or more")
        if kinds is None and max(self._widths) > 1:
            raise ValueError("a gang does equal tasks side by side: kinds must say which are equal")
        if kinds is not None and len(kinds) != len(cost_s):
            raise ValueError(f"there are {len(cost_s)} costs, but {len(kinds)} kinds")
        self._bundle_s, self._margin = bundle_s, margin
        if least_s is not None and len(least_s) != len(cost_s):
            raise ValueError(f"there are {len(cost_s)} costs, but {len(least_s)} of least_s")
        self._least_s = None if least_s is None else np.asarray(least_s, np.float32)
        self._shortest_s = (
            math.inf if self._least_s is None else float(self._least_s.min(initial=math.inf))
        )
        self._kinds = None if kinds is None else np.asarray(kinds, np.int32)
        self._held: list[list[int]] = [[] for _ in self._widths]
        self._has_stopped = [False] * len(self._widths)
        self.n_ranks = sum(self._widths)
        self.n_pending = len(cost_s)
        self.n_held = 0
        self._sort(cost_s, bytearray(b"\1") * len(cost_s))

    def _sort(self, cost_s: np.ndarray, is_pending: bytearray) -> None:
        """Lay the tasks out, longest first; positions in this order are what the rest works with.

        `is_pending` has a byte a task, so that the next pending one is found by `bytearray.find`,
        which looks at more bytes in a microsecond than there are holes in a row.
        """
        cost = np.maximum(np.asarray(cost_s, np.float32), np.float32(LEAST_COST_S))
        wrong = np.flatnonzero(~(np.asarray(cost_s) >= 0) | ~np.isfinite(cost))
        if len(wrong):
            raise ValueError(
                f"cost_s[{wrong[0]}] is {cost_s[wrong[0]]}; a cost is at least 0 and finite"
            )
        # Stable: tasks of equal cost and kind keep the order of the sweep.
        ties = () if self._kinds is None else (self._kinds,)
        self._order = np.lexsort((*ties, -cost)).astype(np.int32)
        self._is_pending = bytearray(np.frombuffer(is_pending, np.uint8)[self._order])
        sorted_cost = cost[self._order]
        self._costs = sorted_cost
        self._cost = memoryview(sorted_cost)  # reads Python floats, which NumPy does slowly
        self._least = None if self._least_s is None else self._least_s[self._order]
        self._head = 0
        self.pending_s = float(
            sorted_cost @ np.frombuffer(self._is_pending, np.uint8).astype(np.float64)
        )

    def request(self, worker: int, seconds_left: float = math.inf) -> Grant:
        """Give a worker its next tasks: the longest that it can end in time, or that can go on in
        another job, and some more while the bundle is short.

        A worker may ask while it still holds tasks; it then says how much time is left for more.

        Parameters
        ----------
        worker : number of one that has not stopped.
        seconds_left : until the worker must have ended.
        """
        self._check(worker)
        width = self._widths[worker]
        target_s = min(self._bundle_s, self.pending_s / (SLICES * self.n_ranks))
        affordable_s = seconds_left / self._margin
        taken: list[int] = []
        blocks: list[int] = []
        total_s = work_s = 0.0
        position = self._first_affordable(affordable_s)
        while position >= 0 and (not taken or total_s < target_s):
            cost_s = self._cost[position]
            if taken and total_s + cost_s > affordable_s:
                break
            block = [position] if width == 1 else self._block(position, width)
            for place in block:
                self._is_pending[place] = 0
            taken += block
            blocks.append(len(block))
            total_s += cost_s
            work_s += cost_s * len(block)
            position = self._is_pending.find(1, block[-1] + 1)
        self._held[worker] += taken
        self.n_held += len(taken)
        self.n_pending -= len(taken)
        self.pending_s = self.pending_s - work_s if self.n_pending else 0.0
        return Grant(self._order[taken], np.array(blocks, np.int32), total_s)

    def request_in_turn(
        self,
        workers: np.ndarray,
        seconds_left: np.ndarray,
        count: Callable[[np.ndarray], int],
    ) -> np.ndarray:
        """What it comes to that each of these workers has done all that it holds, and asks: in one
        go, as far as every one of them gets a single task. For replays, which ask a million times.

        Parameters
        ----------
        workers : int array (n,): numbers of different ones that have not stopped.
        seconds_left : float64 array (n,): of each; none is longer than the one before it.
        count : is told the tasks that the workers would get, int32 of shape (m,) with m <= n, and
            says how many of them do ask.

        Returns
        -------
        int32 array: what the first of the workers got; empty where the first one gets a bundle,
        nothing, or is a gang: `request` answers it.
        """
        nothing = np.empty(0, np.int32)
        affordable_s = seconds_left / self._margin
        first = self._first_affordable(affordable_s[0])
        if first < 0 or max(self._widths) > 1:
            return nothing
        steps = np.arange(len(workers))
        # Everybody takes the next one behind the last that was taken, or the first that it affords.
        places = np.maximum(self._positions_of(affordable_s), first) - steps
        positions = np.maximum.accumulate(places) + steps
        positions = positions[: np.searchsorted(positions, len(self._order))]
        target_s = min(self._bundle_s, self.pending_s / (SLICES * self.n_ranks))
        # Costs fall from one to the next, and so does the target.
        positions = positions[: np.count_nonzero(self._costs[positions] >= target_s)]
        if not len(positions) or self._is_pending.find(0, first, positions[-1] + 1) >= 0:
            return nothing
        positions = positions[: count(self._order[positions])]
        np.frombuffer(self._is_pending, np.uint8)[positions] = 0
        held, asking = self._held, workers[: len(positions)].tolist()
        self.n_held += len(positions) - sum(len(held[worker]) for worker in asking)
        for worker, position in zip(asking, positions.tolist(), strict=True):
            held[worker] = [position]
        self.n_pending -= len(positions)
        taken_s = float(np.sum(self._costs[positions], dtype=np.float64))
        self.pending_s = self.pending_s - taken_s if self.n_pending else 0.0
        return self._order[positions]

    def finish(self, worker: int, n_tasks: int) -> None:
        """A worker has done the first `n_tasks` of what it holds."""
        self._check(worker)
        held = self._held[worker]
        if not 0 <= n_tasks <= len(held):
            raise ValueError(f"worker {worker} says it did {n_tasks} tasks; it has {len(held)}")
        del held[:n_tasks]
        self.n_held -= n_tasks

    def stop(self, worker: int) -> int:
        """A worker ends and gives back what it has not done; returns how many tasks these are."""
        self._check(worker)
        given_back = self._held[worker]
        for position in given_back:
            self._is_pending[position] = 1
            self.pending_s += self._cost[position]
            self._head = min(self._head, position)
        self.n_held -= len(given_back)
        self.n_pending += len(given_back)
        self._held[worker] = []
        self._has_stopped[worker] = True
        self.n_ranks -= self._widths[worker]
        return len(given_back)

    def predict_again(self, cost_s: np.ndarray, margin: float | None = None) -> None:
        """Order what is pending by new predictions, of all tasks; what is held stays held.

        Parameters
        ----------
        cost_s : array (n,), as for a new schedule.
        margin : as for a new schedule; None for the one that there is.

        Raises
        ------
        ValueError
            As for a new schedule, or if there are more or fewer tasks than before.
        """
        if len(cost_s) != len(self._order):
            raise ValueError(f"there are {len(self._order)} tasks, but {len(cost_s)} costs")
        if margin is not None:
            self._margin = margin
        before = self._order
        is_pending = np.empty(len(before), np.uint8)
        is_pending[before] = np.frombuffer(self._is_pending, np.uint8)
        self._sort(cost_s, bytearray(is_pending))
        position_of = np.empty(len(before), np.int32)
        position_of[self._order] = np.arange(len(before), dtype=np.int32)
        self._held = [position_of[before[held]].tolist() for held in self._held]

    @property
    def pending(self) -> np.ndarray:
        """Tasks that nobody holds and nobody has done, longest first; (n_pending,), int32."""
        return self._order[np.frombuffer(self._is_pending, np.bool_)]

    def count_unaffordable(self, seconds: float) -> int:
        """Pending tasks that take longer than this, margin included, also to get any further: no
        such job can do them."""
        first = self._position_of(seconds / self._margin)
        if self._least is None:
            return self._is_pending.count(1, 0, first)
        is_pending = np.frombuffer(self._is_pending, np.bool_)[:first]
        return int(np.count_nonzero(is_pending & (self._least[:first] > seconds / self._margin)))

    @property
    def longest_s(self) -> float:
        """Seconds of the longest pending task; 0 where there is none."""
        position = self._first_affordable(math.inf)
        return self._cost[position] if position >= 0 else 0.0

    def _first_affordable(self, seconds: float) -> int:
        """Where the longest pending task stands that takes no longer than this, or gets further
        within this time; -1 for none."""
        self._head = self._is_pending.find(1, self._head)
        if self._head < 0:
            self._head = len(self._is_pending)
            return -1
        if self._cost[self._head] <= seconds:
            return self._head
        behind = self._position_of(seconds)
        if self._least is not None and self._shortest_s <= seconds:
            # Mostly the first one does; near the end of a job all are looked at, 1 ns each.
            if self._least[self._head] <= seconds:
                return self._head
            here = slice(self._head, behind)
            fits = np.frombuffer(self._is_pending, np.bool_)[here] & (self._least[here] <= seconds)
            if fits.any():
                return self._head + int(fits.argmax())
        return self._is_pending.find(1, behind)

    def _position_of(self, seconds: float) -> int:
        """The first position of a task, pending or not, that takes no longer than this."""
        return bisect_left(self._cost, -seconds, key=neg)

    def _positions_of(self, seconds: np.ndarray) -> np.ndarray:
        """The same for several, none of them longer than the one before it."""
        first, last = self._position_of(seconds[0]), self._position_of(seconds[-1])
        # As exact as the costs: a number between two of float32 affords the smaller one.
        rounded = seconds.astype(np.float32)
        above = rounded > seconds
        rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
        ascending = self._costs[first:last][::-1]
        return last - np.searchsorted(ascending, rounded, side="right")

    def _block(self, position: int, width: int) -> list[int]:
        """This task, and the next ones that are equal: as many as a gang has ranks, at most."""
        block = [position]
        kind = self._kinds[self._order[position]]
        while len(block) < width:
            position = self._is_pending.find(1, position + 1)
            if position < 0 or self._kinds[self._order[position]] != kind:
                break
            block.append(position)
        return block

    def _check(self, worker: int) -> None:
        if not 0 <= worker < len(self._widths) or self._has_stopped[worker]:
            raise ValueError(
                f"worker {worker} has stopped, or is none of the {len(self._widths)} workers"
            )
