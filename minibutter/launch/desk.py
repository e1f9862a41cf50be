"""The desk of a rank: where it gets its work, says how far it is, and hears that it is to end."""

import math

from minibutter.launch.dealer import Deal, Dealer
from minibutter.launch.node import Node
from minibutter.launch.ranks import Alone, Progress, Team
from minibutter.launch.stopping import Stopping

AHEAD_S = 0.03
"""So long before it has nothing left to do a rank asks for more: three looks of rank 0's thread."""


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
        # Since the last question.
        self._n_done, self._measured_s = 0, list[float]()
        self._has_asked = False
        self._newest = Progress(ranks.rank)
        self._epochs_left, self._behind_s = 0, math.inf

    def begin_group(self, n_epochs: int, behind_s: float) -> None:
        """A group of so many epochs begins, and what this rank has to do after it is predicted to
        take `behind_s`: `should_stop` then asks for more a moment before the end of all that."""
        self._epochs_left, self._behind_s = n_epochs, behind_s

    def ask(self) -> Deal:
        """The next groups: at once, where rank 0 was asked in time."""
        if self._dealer is not None:
            return self._dealer.deal(*self._question())
        if self._has_asked:
            self._has_asked = False
            return self._ranks.receive_answer()
        return self._ranks.ask(self._question())

    def _question(self) -> tuple[int, int, list[float]]:
        """What `Dealer.deal` is to know; what was told is not told again."""
        question = self._worker, self._n_done, self._measured_s
        self._n_done, self._measured_s = 0, []
        return question

    def note(self, n_groups: int, seconds: float) -> None:
        """A block of so many groups is done, and this rank's took so long, see
        `estimates.measured_s`: for the next question."""
        self._n_done += n_groups
        self._measured_s.append(seconds)

    def leave(self) -> None:
        """This rank has ended, however: no answer may be left lying."""
        if self._has_asked:
            self._has_asked = False
            self._ranks.receive_answer()

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
        self._ask_ahead(epoch_s)
        if self._stopping.is_asked and not self._newest.is_asked_to_stop:
            self.report(self._newest)
        return self._stopping.is_due_within(epoch_s) or self._ranks.is_told_to_stop()

    def _ask_ahead(self, epoch_s: float) -> None:
        """Ask rank 0, once, if what this rank holds ends in a moment, or with this epoch."""
        if self._has_asked or not self._epochs_left or not epoch_s:
            return
        is_last_epoch = self._epochs_left == 1 and not self._behind_s
        if is_last_epoch or self._behind_s + self._epochs_left * epoch_s <= AHEAD_S:
            self._ranks.send(self._question())
            self._has_asked = True
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
