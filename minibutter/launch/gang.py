"""The ranks of a package train repetitions of one experiment between two meetings.

Only so an equal part of a package's energy is that of the experiment. Ranks that do not end
together, have no core of their own, or are disturbed by others, are no gang: their runs get parts
by processor time instead, and say so (`measured_shared`).
"""

from collections.abc import Callable
from typing import NamedTuple

from minibutter.energy.attribution import BY_TIME, RankMeter
from minibutter.launch.ranks import Circle
from minibutter.report import MAX_FOREIGN_LOAD
from minibutter.runs import RunResult

MAX_SPREAD = 0.05
"""A gang whose ranks end further apart, as a part of the shortest of its runs, is none."""

Training = Callable[[Callable[[], None]], list[RunResult]]
"""Trains, and calls what it is given when it is about to."""


class Finish(NamedTuple):
    """How a rank's part of a block went; None where it has trained nothing."""

    finish_ns: int | None
    duration_ns: int | None
    foreign_load: float | None


class Gang:
    """The ranks that train together; one that is alone needs no meetings.

    Parameters
    ----------
    circle : of these ranks.
    meter : of this rank.
    problem : why equal parts would be wrong whatever they train; None if they would not.
    """

    def __init__(
        self, circle: Circle, meter: RankMeter | None = None, problem: str | None = None
    ) -> None:
        self._circle, self._meter, self._problem = circle, meter, problem
        self.rank, self.size = circle.rank, circle.size

    def meet(self, value: object = None) -> list:
        """See `Circle.meet`."""
        return self._circle.meet(value)

    def train(self, train: Training | None, meanwhile: Callable[[], None]) -> list[RunResult]:
        """Train this rank's part of a block.

        Parameters
        ----------
        train : None where the block has no part for this rank.
        meanwhile : called now and then while this rank waits for the others.
        """
        if self.size == 1:
            return [] if train is None else train(lambda: None)
        begun_ns: int | None = None

        def begin(is_training: bool = True) -> None:
            """Meet once: not again where repetitions are trained one by one, and also where all
            have failed before they were trained."""
            nonlocal begun_ns
            if begun_ns is None:
                words = self._circle.meet((self._meter.stamp(), is_training), meanwhile)
                begun_ns = max(moment_ns for moment_ns, _ in words)
                n_training = sum(trains for _, trains in words)
                self._meter.claim(begun_ns, is_training / n_training if n_training else BY_TIME)

        results = [] if train is None else train(begin)
        begin(is_training=False)
        finishes = self._circle.meet(_finish_of(results), meanwhile)
        # The same moment on every rank, and later than any of its work.
        ended_ns = max(self._circle.meet(self._meter.stamp(), meanwhile))
        ends_ns = [each.finish_ns for each in finishes if each.finish_ns is not None]
        if ends_ns:
            first_ns, last_ns = min(ends_ns), max(ends_ns)
            tail_j = self._meter.package_j_between(first_ns, last_ns) if last_ns > first_ns else 0.0
            if not self._is_true(finishes, last_ns - first_ns):
                self._meter.claim(begun_ns, BY_TIME)
                for result in results:
                    result.measure_again(self._meter)
            for result in results:
                if result.run["energy_j"] is not None:
                    result.run["finish_spread_s"] = (last_ns - first_ns) / 1e9
                    result.run["energy_tail_j"] = tail_j
        self._meter.claim_as_usual(ended_ns)
        return results

    def _is_true(self, finishes: list[Finish], spread_ns: int) -> bool:
        """Whether equal parts are right; the same on all ranks."""
        durations_ns = [each.duration_ns for each in finishes if each.duration_ns is not None]
        if len(durations_ns) == 1:
            return True  # A rank alone has all of it.
        is_disturbed = any((each.foreign_load or 0) > MAX_FOREIGN_LOAD for each in finishes)
        is_apart = spread_ns > MAX_SPREAD * min(durations_ns)
        return self._problem is None and not is_disturbed and not is_apart


def _finish_of(results: list[RunResult]) -> Finish:
    parts = [result.part for result in results if result.part is not None]
    if not parts:
        return Finish(None, None, None)
    finish_ns = max(part.ended_ns for part in parts)
    loads = [part.foreign_load for part in parts if part.foreign_load is not None]
    begun_ns = min(part.begun_ns for part in parts)
    return Finish(finish_ns, finish_ns - begun_ns, max(loads, default=None))
