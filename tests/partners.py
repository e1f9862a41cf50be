"""Ranks as threads of one process, for tests of what ranks do together."""

import queue
import threading
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 120


class Threads:
    """One of several threads that move arrays between each other; see `nn.partners.Partners`."""

    def __init__(self, rank: int, size: int, boxes: dict[Any, queue.Queue]) -> None:
        self.rank, self.size, self._boxes = rank, size, boxes
        self.n_sent = 0

    def exchange(self, outgoing, incoming) -> None:
        for rank, array in outgoing:
            assert array.flags.c_contiguous
            self.n_sent += array.size
            self._boxes[self.rank, rank].put(array.copy())
        for rank, array in incoming:
            sent = self._boxes[rank, self.rank].get(timeout=TIMEOUT_S)
            assert (sent.shape, sent.dtype) == (array.shape, array.dtype)
            array[...] = sent

    def meet(self, value: Any = None) -> list[Any]:
        for rank in range(self.size):
            self._boxes["meeting", self.rank, rank].put(value)
        return [
            self._boxes["meeting", rank, self.rank].get(timeout=TIMEOUT_S)
            for rank in range(self.size)
        ]


def on_ranks(size: int, work: Callable[[Threads], Any]) -> list[Any]:
    """What `work` returns on each of the ranks; the first exception of any is raised again."""
    pairs = [(one, other) for one in range(size) for other in range(size)]
    boxes = {key: queue.Queue() for pair in pairs for key in (pair, ("meeting", *pair))}
    results: list[Any] = [None] * size
    errors: list[BaseException | None] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, size, boxes))
        except BaseException as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if error is not None:
            raise error
    assert all(box.empty() for box in boxes.values()), "somebody sent what nobody took"
    return results
