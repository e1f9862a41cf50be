"""Runs that all ranks train together, one after the other: those whose batches are cut into slices.

The ranks share out the slices; where there are more ranks than slices, those that are left over
sleep. Rank 0 writes the result down, with what all have measured.
"""

import math
from collections.abc import Callable
from functools import partial

from minibutter.experiments import Experiment
from minibutter.launch.contributions import add_up, measured_by
from minibutter.launch.job import Group, Job
from minibutter.launch.node import Node
from minibutter.launch.ranks import Alone, Circle, LaunchRefused, Team
from minibutter.nn import cost
from minibutter.provenance import read_provenance
from minibutter.runs import RunResult

SHORTEST_STEP_US = 3000.0
"""Of an ordinary run; ranks that share out shorter steps take longer than one alone
(`python -m bench.data_parallel`)."""


class Together:
    """All ranks as they train a run together.

    Parameters
    ----------
    job : the same on all ranks.
    ranks : all of them.
    node : of this rank.

    Raises
    ------
    LaunchRefused
        On all ranks, if their sums would differ.
    """

    def __init__(self, job: Job, ranks: Alone | Team, node: Node) -> None:
        self._job, self._ranks, self._node = job, ranks, node
        self._circles: dict[int, Circle] = {}
        if job.together:
            self._refuse_mixed_processors()

    def _refuse_mixed_processors(self) -> None:
        """Ranks must round alike, or the result depends on who computes which slice."""
        cpu_model = read_provenance().cpu_model
        networks = [
            self._job.experiments[group.experiment_id].network for group in self._job.together
        ]
        sizes = {net and (net.tiling, net.dtype) for net in networks} - {None}
        used = sorted(str(tiling.resolved(dtype)) for tiling, dtype in sizes)
        kinds = self._ranks.everybody.meet((cpu_model, used))
        other = next((rank for rank, kind in enumerate(kinds) if kind != kinds[0]), None)
        if other is not None:
            raise LaunchRefused(
                f"runs with slices need processors of one kind, which round alike, but rank 0 has "
                f"{kinds[0][0]} and rank {other} {kinds[other][0]}, with tiles {kinds[0][1]} and "
                f"{kinds[other][1]}: start the job on nodes of one kind"
                if self._ranks.rank == 0
                else ""
            )

    def train(
        self,
        group: Group,
        train: Callable[[Group, Circle, Callable[[], None]], list[RunResult]],
        meanwhile: Callable[[], None],
    ) -> list[RunResult]:
        """Train a group on all ranks; its results on rank 0, and none on the others.

        Parameters
        ----------
        group : a run with slices.
        train : trains it with the ranks of a circle, and calls what it is given when it is about
            to.
        meanwhile : called now and then while this rank waits for the others.
        """
        ranks, n_members = self._ranks, self._n_members(group)
        circle = self._circle(n_members)
        own = partial(train, group, circle) if ranks.rank < n_members else None
        results = self._node.train(own, meanwhile)
        measured = [measured_by(result) for result in results]
        of_ranks = ranks.everybody.meet(measured, self._while_waiting(meanwhile))
        if ranks.rank != 0:
            return []
        of_runs = zip(*filter(None, of_ranks), strict=True)
        return [add_up(result, of_run) for result, of_run in zip(results, of_runs, strict=True)]

    def predict_s(self, group: Group) -> float:
        """Seconds of a group, if its ranks were as fast as so many alone."""
        return self._job.work(group) / 1e6 / self._n_members(group)

    def _n_members(self, group: Group) -> int:
        """Ranks that have slices of a group."""
        return min(self._job.experiments[group.experiment_id].spec.slices, self._ranks.size)

    def _while_waiting(self, meanwhile: Callable[[], None]) -> Callable[[], None]:
        """What ranks without slices do for as long as the others train."""

        def wait() -> None:
            self._node.follow()
            meanwhile()

        return wait

    def _circle(self, size: int) -> Circle:
        """The first ranks; made once, as an MPI has few communicators."""
        if size not in self._circles:
            self._circles[size] = self._ranks.everybody.split(self._ranks.rank < size)
        return self._circles[size]


def explain(job: Job, n_ranks: int) -> list[str]:
    """What people should know about the runs that many ranks train together."""
    if n_ranks == 1 or not job.together:
        return []
    n_runs = len(job.together)
    lines = [
        f"{'1 run is' if n_runs == 1 else f'{n_runs} runs are'} trained by all ranks together, "
        "before the others"
    ]
    fewest = min(job.experiments[group.experiment_id].spec.slices for group in job.together)
    if fewest < n_ranks:
        left_over = n_ranks - fewest
        lines.append(
            f"{'1 rank sleeps' if left_over == 1 else f'{left_over} ranks sleep'} in runs of "
            f"{fewest} slices, which are too few for {n_ranks} ranks"
        )
    shortest_us = min(_step_us(job.experiments[group.experiment_id]) for group in job.together)
    if shortest_us < SHORTEST_STEP_US:
        lines.append(
            f"steps of about {shortest_us / 1e3:.2g} ms are too short to be shared out, and take "
            "longer on many ranks than on one"
        )
    return lines


def _step_us(experiment: Experiment) -> float:
    """Predicted microseconds of a step on one rank."""
    if experiment.problem is not None:
        return math.inf
    batch_size = min(experiment.spec.batch_size, experiment.n_train)
    return cost.step_us(experiment.network, batch_size)
