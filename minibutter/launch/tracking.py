"""How far a rank is: kept up to date while it trains, and passed on, not too often."""

import time
from collections.abc import Callable, Sequence

from minibutter import store
from minibutter.launch.job import Group, Job
from minibutter.launch.ranks import Progress
from minibutter.nn.groups import EpochRow
from minibutter.runs import RunResult

_SNAPSHOT_INTERVAL_S = 0.5


class Tracker:
    """Keeps a rank's progress up to date, passes it on, not too often, and sees to it that
    finished runs do not wait for the disk while a long one is trained."""

    def __init__(
        self,
        job: Job,
        rank: int,
        writer: store.ShardWriter,
        pass_on: Callable[[Progress], None],
    ) -> None:
        self.progress = Progress(rank)
        self._job = job
        self._writer = writer
        self._pass_on = pass_on
        self._finished_work = 0.0
        self._last_s = time.perf_counter()

    def on_epoch(self, group: Group, epoch: int, row: EpochRow) -> None:
        """An epoch of a group is over; `row` holds the metrics of one run, the loss first."""
        now_s = time.perf_counter()
        if now_s - self._last_s < _SNAPSHOT_INTERVAL_S:
            return
        self._last_s = now_s
        experiment = self._job.experiments[group.experiment_id]
        self.progress.work = self._finished_work + self._job.work(group, epoch)
        self.progress.current = (
            f"{experiment.title} #{_span(group.repetitions)} "
            f"epoch {epoch}/{experiment.spec.epochs} test loss {row.test[0]:.4f}"
        )
        self._writer.flush_if_due()
        self._pass_on(self.progress)

    def on_waiting(self) -> None:
        """This rank waits for others of its gang."""
        now_s = time.perf_counter()
        if now_s - self._last_s >= _SNAPSHOT_INTERVAL_S:
            self._last_s = now_s
            self._writer.flush_if_due()
            self._pass_on(self.progress)

    def on_group(self, group: Group, results: list[RunResult]) -> None:
        """The runs of a group are over, one way or another; those that were interrupted are not."""
        if len(results) == len(group.repetitions):
            self._finished_work += self._job.work(group)
            self.progress.work = self._finished_work
        self.progress.n_runs += len(results)
        self.progress.n_failed += sum(result.run["status"] == "failed" for result in results)
        self.progress.n_diverged += sum(bool(result.run["diverged"]) for result in results)

    def on_end(self) -> None:
        """All runs of the rank are over and stored."""
        self.progress.is_done, self.progress.current = True, ""
        self._pass_on(self.progress)


def _span(repetitions: Sequence[int]) -> str:
    """Numbers of repetitions for people: 4, 0-15, or 0,3,7 where some are missing."""
    first, last = repetitions[0], repetitions[-1]
    if len(repetitions) > 1 and last - first == len(repetitions) - 1:
        return f"{first}-{last}"
    return ",".join(map(str, repetitions))
