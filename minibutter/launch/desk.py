"""The desk of a rank: where it gets its work, says how far it is, and hears that it is to end."""

import math

from minibutter.launch.dealer import Deal, Dealer
from minibutter.launch.node import Node
from minibutter.launch.ranks import Alone, Progress, Soon, Team
from minibutter.launch.stopping import Stopping

AHEAD_S = 0.03
"""So long before it asks, a rank says that it will: three looks of rank 0's thread."""


def find_workers(ranks: Alone | Team, node: Node) -> tuple[int, tuple[int, ...]]:
    """Number of this rank's gang, and how many ranks each has; without gangs, every rank is one."""
    leader = node.gang.meet(ranks.rank)[0]
    gangs = dict(ranks.everybody.meet((leader, node.gang.size)))
    leaders = sorted(gangs)
    return leaders.index(leader), tuple(gangs[each] for each in leaders)


class Desk:
    """Where a rank gets its work, says how far it is, and hears that it is to end.

    Parameters
    ----------
    worker : number of this rank's gang.
    dealer : on rank 0; the others write to it.
    """

    def __init__(
        self, worker: int, ranks: Alone | Team, stopping: Stopping, dealer: Dealer | None = None
    ) -> None:
        self._worker, self._ranks = worker, ranks
        self._stopping, self._dealer = stopping, dealer
        self._measured_s: list[float] = []
        self._newest = Progress(ranks.rank)
        self._epochs_left, self._behind_s = 0, math.inf

    def begin_group(self, n_epochs: int, behind_s: float) -> None:
        """A group of so many epochs begins, and what this rank has to do after it is predicted to
        take `behind_s`: `should_stop` then tells rank 0 when this rank is going to ask."""
        self._epochs_left, self._behind_s = n_epochs, behind_s

    def ask(self, n_done: int) -> Deal:
        """The next groups, once so many of the last ones are done."""
        measured_s, self._measured_s = self._measured_s, []
        if self._dealer is None:
            return self._ranks.ask((self._worker, n_done, measured_s))
        return self._dealer.deal(self._worker, n_done, measured_s)

    def note(self, seconds: float) -> None:
        """A group of this rank took so long, see `estimates.measured_s`: for the next question."""
        self._measured_s.append(seconds)

    def report(self, progress: Progress) -> None:
        """Say how far this rank is."""
        self._newest = progress
        progress.is_asked_to_stop = self._stopping.is_asked
        if self._dealer is None:
            self._ranks.send(progress)
        else:
            self._dealer.update(progress)

    def should_stop(self, epoch_s: float = 0.0) -> bool:
        """Whether to end here, before something that takes so many seconds; asked between any two
        epochs. A signal that only this rank has heard is passed on at once."""
        if self._dealer is not None:
            self._dealer.look(epoch_s or math.inf)
            return self._dealer.is_stopping or self._stopping.is_due_within(epoch_s)
        self._announce(epoch_s)
        if self._stopping.is_asked and not self._newest.is_asked_to_stop:
            self.report(self._newest)
        return self._stopping.is_due_within(epoch_s) or self._ranks.is_told_to_stop()

    def _announce(self, epoch_s: float) -> None:
        """Tell rank 0, once, that this rank is going to ask soon."""
        if not self._epochs_left or not epoch_s:
            return
        is_last_epoch = self._epochs_left == 1 and not self._behind_s
        if is_last_epoch or self._behind_s + self._epochs_left * epoch_s <= AHEAD_S:
            self._ranks.send(Soon(self._ranks.rank))
            self._behind_s, self._epochs_left = math.inf, 0
        else:
            self._epochs_left -= 1

    def end_training(self) -> None:
        """A group is trained: nobody asks `should_stop` for a while."""
        if self._dealer is not None:
            self._dealer.look()

    @property
    def seconds_left(self) -> float:
        """Until this rank is to end; none where it has been told to, infinite without a limit."""
        return 0.0 if self.should_stop() else self._stopping.seconds_left

    def stop(self) -> None:
        """All ranks have agreed to end: nothing more is dealt."""
        if self._dealer is not None:
            self._dealer.stop()
