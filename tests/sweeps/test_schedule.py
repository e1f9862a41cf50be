"""Who gets what: properties that hold for any costs, and small cases worked out by hand."""

import itertools
import tracemalloc

import numpy as np
import pytest

from minibutter.sweeps.schedule import BUNDLE_S, LEAST_COST_S, SLICES, Schedule


def grants_of(schedule, workers, seconds_left=float("inf")):
    """What workers get that ask in this order, each having done all that it got before."""
    given = []
    for worker in workers:
        grant = schedule.request(worker, seconds_left)
        schedule.finish(worker, len(grant.tasks))
        given.append(grant.tasks.tolist())
    return given


def sweep_of(seed, n_tasks=500, n_kinds=40):
    """Costs over four decades, a few tasks of each kind."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, n_kinds, n_tasks)
    return 10 ** rng.uniform(-2, 2, n_kinds)[kinds], kinds


def test_those_that_take_longest_come_first_and_equal_ones_in_the_order_of_the_sweep():
    schedule = Schedule(np.array([10, 30, 20, 30, 10]), [1, 1])
    assert grants_of(schedule, [0, 1, 0, 0, 1, 1]) == [[1], [3], [2], [0], [4], []]


@pytest.mark.parametrize("widths", [[1] * 7, [4, 1, 3]])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_task_is_given_to_somebody_once_whoever_asks_when(seed, widths):
    cost_s, kinds = sweep_of(seed)
    rng = np.random.default_rng(seed)
    schedule = Schedule(cost_s, widths, kinds=kinds)
    given = []
    while schedule.n_pending:
        given += grants_of(schedule, [int(rng.integers(len(widths)))])
    assert sorted(itertools.chain(*given)) == list(range(len(cost_s)))
    assert schedule.pending_s == schedule.n_held == 0
    assert grants_of(schedule, [0]) == [[]]


def test_the_order_of_requests_alone_decides():
    cost_s, kinds = sweep_of(4)
    asks = np.random.default_rng(5).integers(0, 3, 2000).tolist()
    first, second = (grants_of(Schedule(cost_s, [1, 4, 1], kinds=kinds), asks) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seed", range(8))
def test_workers_in_turn_get_what_they_get_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    cost_s, _ = sweep_of(seed)
    turns, each = (Schedule(cost_s, [1] * 40, margin=1.3) for _ in range(2))
    for schedule in (turns, each):
        # Some have left, and what they gave back is not there: others have it.
        for worker in range(30, 40):
            schedule.request(worker)
        for worker in range(35, 40):
            schedule.stop(worker)
    n_singles = 0
    for seconds in (200.0, 120.0, 40.0, 15.0):
        workers = rng.permutation(30)
        left_s = np.sort(rng.uniform(0.8, 1.0, 30))[::-1] * seconds
        told = []
        given = turns.request_in_turn(
            workers, left_s, lambda tasks, told=told: told.append(tasks) or max(len(tasks) - 2, 1)
        )
        assert not told or (told[0][: len(given)] == given).all()
        n_singles += len(given)
        for worker, seconds_left in zip(workers.tolist(), left_s.tolist(), strict=True):
            each.finish(worker, len(each._held[worker]))
            grant = each.request(worker, seconds_left).tasks.tolist()
            if len(given):
                assert grant == [given[0]]
                given = given[1:]
            else:
                turns.finish(worker, len(turns._held[worker]))
                assert grant == turns.request(worker, seconds_left).tasks.tolist()
        assert (turns.pending == each.pending).all()
        assert (turns.n_held, turns.n_pending) == (each.n_held, each.n_pending)
        assert turns.pending_s == pytest.approx(each.pending_s)
    assert n_singles > 40


# ---------------------------------------------------------------------------------------------
# Bundles


def test_short_tasks_come_in_bundles_that_shrink_towards_the_end():
    cost_s = np.full(100_000, 0.02)
    schedule = Schedule(cost_s, [1] * 10)
    lasting = []
    while schedule.n_pending:
        share_s = schedule.pending_s / (SLICES * 10)
        grant = schedule.request(0)
        assert grant.cost_s == pytest.approx(0.02 * len(grant.tasks))
        lasting.append(grant.cost_s)
        # A bundle ends with the task that fills it.
        assert min(BUNDLE_S, share_s) <= grant.cost_s + 1e-6 < min(BUNDLE_S, share_s) + 0.03
    assert lasting[0] == pytest.approx(BUNDLE_S, abs=0.03)
    assert lasting == sorted(lasting, reverse=True)
    assert lasting[-1] == pytest.approx(0.02)


def test_a_task_that_is_long_enough_comes_alone():
    schedule = Schedule(np.array([BUNDLE_S, 0.1, 0.1]), [1])
    assert grants_of(schedule, [0])[0] == [0]


def test_what_costs_nothing_still_costs_its_rows():
    schedule = Schedule(np.zeros(1_000_000), [1] * 4)
    assert schedule.pending_s == pytest.approx(1_000_000 * LEAST_COST_S)
    assert len(schedule.request(0).tasks) == pytest.approx(BUNDLE_S / LEAST_COST_S, rel=0.01)


# ---------------------------------------------------------------------------------------------
# Time limits


def test_the_largest_that_can_end_in_time_is_begun():
    schedule = Schedule(np.array([100, 50, 40, 30, 20]), [1, 1])
    assert grants_of(schedule, [0, 1, 0, 1], seconds_left=45) == [[2], [3], [4], []]
    assert grants_of(schedule, [0, 1], seconds_left=100) == [[0], [1]]


@pytest.mark.parametrize("margin", [1.0, 1.5])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_begun_that_cannot_end_in_time(seed, margin):
    cost_s, _ = sweep_of(seed)
    schedule = Schedule(cost_s, [1] * 3, margin=margin)
    rng = np.random.default_rng(seed)
    for seconds_left in rng.uniform(0, 120, 300):
        pending = schedule.pending
        fitting = pending[cost_s[pending] * margin <= seconds_left * (1 - 1e-6)]
        grant = schedule.request(int(rng.integers(3)), seconds_left)
        assert cost_s[grant.tasks].sum() * margin <= seconds_left * (1 + 1e-6)
        assert bool(len(grant.tasks)) == bool(len(fitting))
        if len(fitting):
            assert cost_s[grant.tasks[0]] == cost_s[fitting].max()


def test_a_bundle_ends_before_the_time_does():
    schedule = Schedule(np.full(1000, 1.0), [1])
    assert len(schedule.request(0, seconds_left=3.5).tasks) == 3
    assert len(schedule.request(0, seconds_left=0.5).tasks) == 0
    assert len(schedule.request(0, seconds_left=-1.0).tasks) == 0


def test_tasks_that_no_job_can_do_are_counted():
    schedule = Schedule(np.array([100, 50, 40, 30, 20]), [1], margin=2.0)
    assert schedule.count_unaffordable(80) == 2
    assert schedule.count_unaffordable(200) == 0
    schedule.request(0)
    assert schedule.count_unaffordable(80) == 1


def test_what_can_go_on_in_another_job_is_begun_however_long_it_takes():
    cost_s, least_s = np.array([100, 80, 60, 40]), np.array([30, 2, 90, 1])
    schedule = Schedule(cost_s, [1], least_s=least_s)
    # The first gets nowhere in 20 s, the third would end before it gets any further.
    assert grants_of(schedule, [0, 0, 0], seconds_left=20) == [[1], [3], []]
    assert schedule.count_unaffordable(20) == 2
    assert schedule.count_unaffordable(60) == 0
    assert grants_of(schedule, [0], seconds_left=65) == [[0]]
    assert grants_of(schedule, [0], seconds_left=65) == [[2]]


def test_nothing_is_begun_that_gets_nowhere_whatever_the_margin():
    schedule = Schedule(np.array([100]), [1], least_s=np.array([10]), margin=1.5)
    assert grants_of(schedule, [0], seconds_left=14) == [[]]
    schedule.predict_again(np.array([50]))
    assert grants_of(schedule, [0, 0], seconds_left=16) == [[0], []]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_longest_that_gets_further_comes_first(seed):
    cost_s, kinds = sweep_of(seed)
    rng = np.random.default_rng(seed)
    least_s = (cost_s * 10 ** rng.uniform(-3, 0.3, 40)[kinds]).astype(np.float32)
    schedule = Schedule(cost_s, [1, 2, 1], kinds=kinds, least_s=least_s)
    for seconds_left in rng.uniform(0, 20, 300):
        pending = schedule.pending
        fitting = pending[np.minimum(cost_s, least_s)[pending] <= seconds_left]
        grant = schedule.request(int(rng.integers(3)), seconds_left)
        assert bool(len(grant.tasks)) == bool(len(fitting))
        if len(fitting):
            assert cost_s[grant.tasks[0]] == cost_s[fitting].max()


def test_least_times_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="2 costs, but 1 of least_s"):
        Schedule(np.array([1, 2]), [1], least_s=np.array([1]))


# ---------------------------------------------------------------------------------------------
# Giving back


def test_what_a_worker_has_not_done_when_it_stops_goes_to_others():
    schedule = Schedule(np.array([9, 8, 2, 2, 2, 7]), [1, 1])
    assert grants_of(schedule, [0]) == [[0]]
    assert schedule.request(0).tasks.tolist() == [1]
    assert schedule.request(0).tasks.tolist() == [5]
    schedule.finish(0, 1)
    assert (schedule.n_held, schedule.n_pending) == (1, 3)
    assert schedule.stop(0) == 1
    assert (schedule.n_held, schedule.n_pending) == (0, 4)
    assert schedule.pending_s == pytest.approx(13)
    assert schedule.n_ranks == 1
    assert grants_of(schedule, [1, 1, 1, 1]) == [[5], [2], [3], [4]]


def test_what_comes_back_when_all_was_given_out_is_given_out_again():
    schedule = Schedule(np.array([3.0, 4.0]), [1, 1])
    assert [schedule.request(0).tasks.tolist() for _ in range(3)] == [[1], [0], []]
    schedule.stop(0)
    assert grants_of(schedule, [1, 1, 1]) == [[1], [0], []]


def test_whoever_has_stopped_asks_for_nothing_and_nobody_does_what_it_does_not_hold():
    schedule = Schedule(np.array([3.0, 4.0]), [1, 1])
    schedule.stop(0)
    for call in (lambda: schedule.request(0), lambda: schedule.stop(0)):
        with pytest.raises(ValueError, match="worker 0 has stopped, or is none of the 2 workers"):
            call()
    with pytest.raises(ValueError, match="worker -1 has stopped, or is none"):
        schedule.request(-1)
    schedule.request(1)
    with pytest.raises(ValueError, match="worker 1 says it did 2 tasks; it has 1"):
        schedule.finish(1, 2)


# ---------------------------------------------------------------------------------------------
# Gangs


def test_a_gang_gets_blocks_of_equal_repetitions_one_for_each_rank():
    kinds = np.repeat([0, 1], 10)
    schedule = Schedule(np.repeat([10.0, 30.0], 10), [4], kinds=kinds)
    given = []
    while schedule.n_pending:
        grant = schedule.request(0)
        assert grant.cost_s in (10, 30)  # side by side: as long as one of them
        given.append((grant.tasks.tolist(), grant.blocks.tolist()))
        left = schedule.pending
        assert schedule.pending_s == pytest.approx(np.where(left < 10, 10, 30).sum())
    assert given == [
        ([10, 11, 12, 13], [4]), ([14, 15, 16, 17], [4]), ([18, 19], [2]),
        ([0, 1, 2, 3], [4]), ([4, 5, 6, 7], [4]), ([8, 9], [2]),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_block_mixes_kinds_or_is_wider_than_its_gang(seed):
    cost_s, kinds = sweep_of(seed, n_tasks=3000)
    cost_s = np.round(cost_s, 1)  # so that some kinds cost the same
    schedule = Schedule(cost_s, [5, 1, 3], kinds=kinds)
    rng = np.random.default_rng(seed)
    n_bundles = 0
    while schedule.n_pending:
        worker = int(rng.integers(3))
        grant = schedule.request(worker, rng.choice([20.0, 1e9]))
        parts = np.split(grant.tasks, np.cumsum(grant.blocks)[:-1]) if len(grant.blocks) else []
        assert all(len(set(kinds[part].tolist())) == 1 for part in parts)
        assert grant.blocks.sum() == len(grant.tasks)
        assert grant.blocks.max(initial=0) <= (5, 1, 3)[worker]
        lasting_s = sum(max(cost_s[part].max(), LEAST_COST_S) for part in parts)
        assert grant.cost_s == pytest.approx(lasting_s)
        n_bundles += len(grant.blocks) > 1
    assert n_bundles > 20


def test_a_gang_takes_what_others_left_of_a_kind():
    kinds = np.zeros(6, int)
    schedule = Schedule(np.full(6, 10.0), [1, 4], kinds=kinds)
    assert grants_of(schedule, [0, 1, 0]) == [[0], [1, 2, 3, 4], [5]]


# ---------------------------------------------------------------------------------------------
# New predictions, many tasks, mistakes


def test_new_predictions_order_what_is_pending_and_leave_alone_what_is_held():
    schedule = Schedule(np.array([50, 40, 30, 20, 10]), [1, 1])
    assert [schedule.request(worker).tasks.tolist() for worker in (0, 1)] == [[0], [1]]
    schedule.predict_again(np.array([1, 2, 6, 7, 8]))
    assert schedule.pending.tolist() == [4, 3, 2]
    assert schedule.pending_s == pytest.approx(21)
    schedule.finish(0, 1)
    schedule.stop(1)
    assert schedule.pending.tolist() == [4, 3, 2, 1]
    assert grants_of(schedule, [0]) == [[4]]
    with pytest.raises(ValueError, match="there are 5 tasks, but 4 costs"):
        schedule.predict_again(np.ones(4))


def test_a_task_takes_thirteen_bytes():
    n_tasks = 1_000_000
    cost_s = np.random.default_rng(1).lognormal(1, 2, n_tasks).astype(np.float32)
    kinds = np.arange(n_tasks, dtype=np.int32)
    tracemalloc.start()
    try:
        schedule = Schedule(cost_s, [1] * 1000, kinds=kinds.copy())
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert schedule.n_pending == n_tasks
    assert kept < 13.5 * n_tasks


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_costs_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"cost_s\[1\] is {wrong}; a cost is at least 0"):
        Schedule(np.array([1.0, wrong]), [1])


@pytest.mark.parametrize(
    ("widths", "kinds", "message"),
    [
        ([], None, "there must be a worker"),
        ([1, 0], None, "of 1 rank or more"),
        ([1, 2], None, "kinds must say which are equal"),
        ([1], np.zeros(3, int), "there are 2 costs, but 3 kinds"),
    ],
)
def test_workers_that_cannot_be_are_refused(widths, kinds, message):
    with pytest.raises(ValueError, match=message):
        Schedule(np.ones(2), widths, kinds=kinds)


def test_a_sweep_of_which_all_is_done_has_nothing_to_give():
    schedule = Schedule(np.empty(0), [1])
    assert len(schedule.request(0).tasks) == len(schedule.request(0, 10).tasks) == 0
