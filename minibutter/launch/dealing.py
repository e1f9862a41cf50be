"""Dealing out numbered pieces to ranks, one at a time, to whoever has nothing left to do."""

import threading
import time
from collections.abc import Iterator, Sequence

from minibutter.launch.dealer import POLL_S
from minibutter.launch.ranks import Alone, Team


def deal_pieces(order: Sequence[int], ranks: Alone | Team) -> Iterator[int]:
    """The numbers that fall to this rank; together the ranks get each of them once.

    Rank 0 works as well, and answers from a thread meanwhile; where MPI allows no threads, it
    answers between two pieces of its own.

    Parameters
    ----------
    order : the numbers in the order in which they are begun; the same on all ranks.
    """
    if ranks.rank != 0:
        while (number := ranks.ask((ranks.rank,))) is not None:
            yield number
        return
    counter = _Counter(order, ranks)
    with counter:
        while (number := counter.take()) is not None:
            yield number
            counter.look()
        # Everybody has to hear that there is nothing left.
        while counter.n_waiting:
            counter.look()
            time.sleep(POLL_S)


class _Counter:
    """On rank 0: what is next, for this rank and for who writes."""

    def __init__(self, order: Sequence[int], ranks: Alone | Team) -> None:
        self._left = list(reversed(order))
        self._ranks = ranks
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._problem: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.n_waiting = ranks.size - 1

    def take(self) -> int | None:
        """The next number; None if there is none."""
        with self._lock:
            return self._left.pop() if self._left else None

    def look(self) -> None:
        """Fail if the thread has, and serve where there is none."""
        if self._problem is not None:
            raise self._problem
        if self._thread is None:
            self._serve()

    def __enter__(self) -> "_Counter":
        if self._ranks.size > 1 and self._ranks.has_threads:
            self._thread = threading.Thread(target=self._serve_on, name="pieces", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _serve_on(self) -> None:
        try:
            while not self._is_over.is_set():
                self._serve()
                time.sleep(POLL_S)
        except BaseException as problem:
            self._problem = problem

    def _serve(self) -> None:
        for rank, _ in self._ranks.receive_mail():
            number = self.take()
            self.n_waiting -= number is None
            self._ranks.answer(rank, number)
