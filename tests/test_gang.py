"""Ranks of a gang, as threads that meet: who gets what of a block, and when they are no gang."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from minibutter.courses import Course, Ending, RunResult
from minibutter.energy import Cost
from minibutter.energy.attribution import GANG
from minibutter.energy.profiles import Profile, ZoneSpec
from minibutter.launch.gang import Gang
from minibutter.launch.ranks import Circle
from minibutter.nn.groups import EpochRow
from minibutter.nn.kernels.metrics import METRICS
from tests.energy.conftest import Machine
from tests.energy.test_attribution import Ranks, nobody_reads_unasked

__all__ = ["nobody_reads_unasked"]


class Threads(Circle):
    """One of several threads that meet."""

    def __init__(self, rank, barrier, words):
        self.rank, self.size = rank, barrier.parties
        self._barrier, self._words = barrier, words

    def meet(self, value=None, meanwhile=None):
        self._words[self.rank] = value
        self._barrier.wait(20)
        heard = list(self._words)
        self._barrier.wait(20)
        return heard


def result_of_one_epoch(begun_ns, ended_ns, energy, foreign_load, lanes):
    """Of a run that a gang has trained."""
    course, nothing = Course("run"), np.zeros(len(METRICS) + 1)
    course.add(1, EpochRow(nothing, nothing, None, True, batch_size=8, steps=1), 1.0)
    ending = Ending(
        duration_s=1.0,
        begun_ns=begun_ns,
        ended_ns=ended_ns,
        energy=energy,
        energies=[energy],
        mode=GANG,
        foreign_load=foreign_load,
        cost=Cost(0, 0.0),
        counts=SimpleNamespace(columns=dict, reason=lambda: None),
        regions=((begun_ns, ended_ns),),
    )
    course.end(SimpleNamespace(epochs=1), ending)
    return RunResult(course.outcome | {"lanes": lanes}, course.columns.columns(), course)


@pytest.fixture
def train_block(tmp_path):
    """A function: train a block on a gang of simulated ranks; returns results and claimed joules.

    `script` is called when all have begun, with the node and the moment; it lets time pass and
    returns the end of every rank, None where it has failed before it was trained.
    """
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0")
    stack = ExitStack()

    def run(n_ranks, script, members=None, problem=None, foreign=None, lanes=1):
        machine = Machine(tmp_path / "machine", Profile((zone,), ("package-0",)))
        ranks = stack.enter_context(Ranks(machine, n_ranks, mode=GANG))
        ranks.sample()
        opened = ranks.open_accounts()
        barrier, words = threading.Barrier(n_ranks), [None] * n_ranks
        done, failures, shared = [None] * n_ranks, [], {}
        fails = getattr(script, "fails", ())
        shared["fails"] = [rank in fails for rank in range(n_ranks)]
        n_training = (n_ranks if members is None else members) - len(fails)
        has_begun, has_ended = threading.Barrier(n_training), threading.Event()

        def train(rank, on_ready):
            if shared["fails"][rank]:
                return [RunResult({"status": "failed", "energy_j": None, "lanes": lanes}, {})]
            on_ready()
            begun_ns = machine.clock()
            has_begun.wait(20)
            if rank == 0:
                shared["ends"] = script(ranks, begun_ns)
                has_ended.set()
            has_ended.wait(20)
            end_ns = shared["ends"][rank]
            energy = ranks.meters[rank].between(begun_ns, end_ns).divided(lanes)
            return [result_of_one_epoch(begun_ns, end_ns, energy, foreign, lanes)]

        def live(rank):
            try:
                gang = Gang(Threads(rank, barrier, words), ranks.meters[rank], problem)
                has_part = members is None or rank < members
                if not has_part:
                    # It goes to the same meetings, and nowhere else.
                    done[rank] = gang.train(None, lambda: None)
                else:
                    done[rank] = gang.train(lambda ready: train(rank, ready), lambda: None)
            except BaseException as error:
                failures.append(error)
                barrier.abort()
                has_begun.abort()

        threads = [threading.Thread(target=live, args=(rank,)) for rank in range(n_ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not failures, failures
        ranks.close_accounts()
        assert opened < machine.clock()
        return done, [meter.claimed_j for meter in ranks.meters], ranks.node.claimed_j

    with stack:
        yield run


def test_ranks_that_end_together_get_equal_parts(train_block):
    def work(ranks, begun_ns):
        first = ranks.pass_time(0.99, [1.0, 0.5], energy_j=29.7)
        return [first, ranks.pass_time(0.01, [0.0, 0.0], energy_j=0.3)]

    (one, other), claimed, whole = train_block(2, work)
    assert one[0].run["energy_quality"] == other[0].run["energy_quality"] == "measured_divided"
    assert other[0].run["energy_j"] == pytest.approx(15.0)
    assert one[0].run["energy_j"] == pytest.approx(14.85)
    assert one[0].run["finish_spread_s"] == pytest.approx(0.01)
    assert one[0].run["energy_tail_j"] == pytest.approx(0.3, rel=1e-3)
    assert sum(claimed) == pytest.approx(whole)


def test_ranks_that_end_apart_get_parts_by_processor_time_and_so_do_their_epochs(train_block):
    """As where one diverges at once: the other has done the rest alone."""

    def work(ranks, begun_ns):
        first = ranks.pass_time(0.5, [0.5, 0.5], energy_j=10.0)
        return [first, ranks.pass_time(1.0, [0.0, 1.0], energy_j=20.0)]

    (one, other), claimed, whole = train_block(2, work)
    for result, energy_j in ((one[0], 5.0), (other[0], 25.0)):
        assert result.run["energy_j"] == pytest.approx(energy_j)
        assert result.run["energy_quality"] == "measured_shared"
        assert result.epochs["energy_quality"] == ["measured_shared"]
        assert result.epochs["energy_j"] == [pytest.approx(energy_j)]
        assert result.run["energy_tail_j"] == pytest.approx(20.0)
    assert sum(claimed) == pytest.approx(whole)


def test_a_rank_whose_run_fails_before_it_is_trained_leaves_all_to_the_other(train_block):
    def work(ranks, begun_ns):
        end = ranks.pass_time(1.0, [1.0, 0.0], energy_j=30.0)
        return [end, None]

    work.fails = {1}
    (one, other), claimed, whole = train_block(2, work)
    assert one[0].run["energy_j"] == pytest.approx(30.0)
    assert (one[0].run["energy_ranks"], one[0].run["energy_quality"]) == (1, "measured")
    assert one[0].run["finish_spread_s"] == 0.0
    assert other[0].run["energy_j"] is None
    assert sum(claimed) == pytest.approx(whole)


def test_a_rank_without_a_part_sleeps_and_gets_nothing(train_block):
    def work(ranks, begun_ns):
        end = ranks.pass_time(1.0, [1.0, 1.0, 0.0], energy_j=30.0)
        return [end, end, None]

    done, claimed, whole = train_block(3, work, members=2)
    assert done[2] == []
    assert [done[i][0].run["energy_j"] for i in (0, 1)] == pytest.approx([15.0, 15.0])
    assert {done[i][0].run["energy_ranks"] for i in (0, 1)} == {2}
    assert sum(claimed) == pytest.approx(whole)


@pytest.mark.parametrize("why", [{"problem": "ranks share a core"}, {"foreign": 0.1}])
def test_ranks_that_are_disturbed_or_share_cores_are_no_gang(train_block, why):
    def work(ranks, begun_ns):
        end = ranks.pass_time(1.0, [0.9, 0.3], energy_j=30.0)
        return [end, end]

    (one, other), claimed, whole = train_block(2, work, **why)
    assert one[0].run["energy_j"] == pytest.approx(22.5)
    assert other[0].run["energy_j"] == pytest.approx(7.5)
    assert one[0].run["energy_quality"] == "measured_shared"
    assert sum(claimed) == pytest.approx(whole)


def test_packed_repetitions_of_a_gang_share_the_part_of_their_rank(train_block):
    def work(ranks, begun_ns):
        end = ranks.pass_time(1.0, [1.0, 1.0], energy_j=32.0)
        return [end, end]

    (one, _), _, _ = train_block(2, work, lanes=4)
    assert one[0].run["energy_j"] == pytest.approx(4.0)


def test_a_rank_alone_needs_no_meeting():
    gang = Gang(Circle())
    assert gang.train(None, lambda: None) == []
    assert gang.train(lambda ready: [ready()], lambda: None) == [None]
    assert (gang.rank, gang.size, gang.meet("word")) == (0, 1, ["word"])
