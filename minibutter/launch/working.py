"""What a rank does from the beginning to the end of a sweep: it trains, and keeps what comes."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from minibutter import report, runs, store
from minibutter.launch.dealer import MARGIN
from minibutter.launch.desk import Desk
from minibutter.launch.estimates import measured_s
from minibutter.launch.job import Group, Job
from minibutter.launch.node import Node
from minibutter.launch.ranks import Alone, Circle, Team
from minibutter.launch.together import Together
from minibutter.launch.tracking import Tracker
from minibutter.provenance import read_provenance
from minibutter.runs import RunResult


def work_through(
    desk: Desk,
    job: Job,
    ranks: Alone | Team,
    node: Node,
    together: Together,
    data_dir: Path | None,
) -> None:
    """Train what all ranks train together, then this rank's part of what its gang is dealt, until
    there is nothing more, or it is to end: what a rank trains alone is then kept for the next
    start, and what it trains with others is finished."""
    with (
        # One rank is one core; BLAS is loaded by now, with the kernels.
        threadpool_limits(1),
        store.ShardWriter(job.out, f"rank{ranks.rank}") as writer,
    ):
        tracker = Tracker(job, ranks.rank, writer, desk.report)

        # Ranks that train a run together would have to keep their parts of one checkpoint.
        keeping = {"checkpoint_dir": job.out, "should_stop": desk.should_stop}

        def train(group: Group, partners: Circle, on_ready: Callable[[], None]) -> list[RunResult]:
            results = runs.execute_group(
                job.experiments[group.experiment_id],
                group.repetitions,
                meter=node.meter,
                provenance=read_provenance(),
                sweep=job.name,
                data_dir=data_dir,
                rank=ranks.rank,
                n_ranks=ranks.size,
                partners=partners,
                on_ready=on_ready,
                # One of those who train a run together says how far it is.
                on_epoch=partial(tracker.on_epoch, group)
                if partners.rank == 0
                else lambda *_: tracker.on_waiting(),
                on_note=partial(_print_note, ranks.rank),
                **({} if partners.size > 1 else keeping),
            )
            desk.end_training()
            return results

        def keep(group: Group, results: list[RunResult]) -> list[RunResult]:
            over = [result for result in results if not result.is_interrupted]
            for result in over:
                writer.add(result.run, result.epochs)
            tracker.on_group(group, over)
            return over

        for group in job.together:
            # The same on all ranks: none begins what another leaves.
            left_s = min(ranks.everybody.meet(desk.seconds_left))
            if left_s <= 0:
                desk.stop()
                break
            # What one rank trains is kept when time is up; what several train is finished.
            if ranks.size == 1 or MARGIN * together.predict_s(group) <= left_s:
                results = together.train(group, train, tracker.on_waiting)
                if ranks.rank == 0:
                    keep(group, results)
            elif ranks.rank == 0:
                needed = report.duration_text(MARGIN * together.predict_s(group))
                title = job.experiments[group.experiment_id].title
                _print_note(0, f"{title} takes up to {needed} on all ranks: left for a longer job")
        for block, behind in _blocks(desk, node):
            group = block[node.gang.rank] if node.gang.rank < len(block) else None
            if group is not None and node.gang.rank == 0:
                n_epochs = job.experiments[group.experiment_id].spec.epochs
                n_epochs -= job.epochs_kept(group)
                desk.begin_group(n_epochs, sum(job.length(first) for first in behind) / 1e6)
            results = node.train(
                None if group is None else partial(train, group, Circle()), tracker.on_waiting
            )
            if group is not None:
                over = keep(group, results)
                epochs = job.experiments[group.experiment_id].spec.epochs
                desk.note(len(block), measured_s([result.run for result in over], epochs))
        desk.leave()
    tracker.on_end()


def _blocks(desk: Desk, node: Node) -> Iterator[tuple[tuple[Group, ...], list[Group]]]:
    """What the first rank of the gang is dealt, on all of its ranks, until there is nothing more or
    one of them is to end: block after block, with the first groups of those that are to follow."""
    while blocks := node.gang.meet(desk.ask().blocks if node.gang.rank == 0 else ())[0]:
        for number, block in enumerate(blocks, 1):
            if any(node.gang.meet(desk.should_stop())):
                return
            yield block, [first for first, *_ in blocks[number:]]


def _print_note(rank: int, note: str) -> None:
    print(f"rank {rank}: {note}", file=sys.stderr, flush=True)
