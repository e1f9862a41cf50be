"""Dealing while predictions are corrected: with a clock of our own, and nothing trained."""

import math
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from minibutter import launch, store
from minibutter.experiments import CHECKS
from minibutter.launch import estimates as estimates_module
from minibutter.launch.dealer import CORRECTION_S, MARGIN, SOON_S, Deal, Dealer
from minibutter.launch.desk import Desk
from minibutter.launch.estimates import Estimates, measured_s
from minibutter.launch.ranks import Alone
from minibutter.nn import cost
from minibutter.nn.cost import BUILT_IN, CostModel, Rates
from minibutter.provenance import read_cpu_model
from minibutter.sweeps.spec import parse_sweep

SWEEP = {
    "dataset": ["iris", "digits", "wine"],
    "size": [2**10, 2**11, 2**12, 2**13, 2**14, 2**15, 2**16],
    "depth": [3, 4, 5, 6],
    "epochs": 3000,
    "batch_size": 32,
    "repetitions": 3,
}


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class Endless:
    seconds_left, is_asked, is_due = math.inf, False, False

    def is_due_within(self, seconds):
        return False


@pytest.fixture
def job(tmp_path):
    sweep = parse_sweep(SWEEP, "s.toml", CHECKS)
    return launch.prepare_job(sweep, tmp_path / "out", None, lanes=1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def dealer(job, clock):
    return Dealer(job, (1, 1), Alone(), Endless(), lambda *shown: None, clock)


SLOW = CostModel(*(Rates(*(2 * rate for rate in rates)) for rates in BUILT_IN))
SLOW = SLOW._replace(alone=SLOW.alone._replace(flop=3.5 * BUILT_IN.alone.flop))


def takes_s(job, group):
    """A machine that takes twice as long as predicted, and longer still for products."""
    experiment = job.experiments[group.experiment_id]
    n_train, n_test = experiment.n_train, experiment.n_test
    epoch_us = cost.epoch_us(experiment.network, n_train, n_test, 32, 1, SLOW)
    return 3000 * epoch_us / 1e6


def work_through(dealer, job, clock, n_groups):
    """One worker does so many groups, one deal after the other; returns what it was dealt."""
    dealt, n_done, took_s = [], 0, []
    while len(dealt) < n_groups:
        groups = [group for block in dealer.deal(0, n_done, took_s).blocks for group in block]
        if not groups:
            return dealt
        dealt += groups
        took_s = [takes_s(job, group) for group in groups]
        clock.now_s += sum(took_s)
        n_done = len(groups)
        dealer.look()
    dealer.deal(0, n_done, took_s)
    return dealt


def errors(job, dealer):
    cost_s = dealer._estimates.cost_s
    actual_s = np.array([takes_s(job, group) for group in job.groups])
    return np.abs(np.log(cost_s / actual_s))


def test_predictions_of_waiting_runs_are_corrected_while_others_are_done(dealer, job, clock):
    before = errors(job, dealer)
    dealt = work_through(dealer, job, clock, 60)
    clock.now_s += CORRECTION_S
    dealer.look()
    waiting = dealer._schedule.pending
    assert len(waiting) < len(job.groups) - 40
    assert errors(job, dealer)[waiting].mean() < 0.4 * before[waiting].mean()
    assert dealer._schedule._margin != MARGIN
    # The longest by what is known now comes next.
    next_group = dealer.deal(0, 0).blocks[0][0]
    assert next_group == job.groups[waiting[0]]
    costs = dealer._estimates.cost_s[waiting]
    assert (np.diff(costs.astype(np.float32)) <= 0).all()
    assert len(set(dealt)) == len(dealt)


def test_every_group_is_dealt_once_however_often_predictions_change(dealer, job, clock):
    dealt = work_through(dealer, job, clock, math.inf)
    assert sorted(dealt) == sorted(job.groups)
    assert dealer._schedule.n_pending == 0


def test_nothing_is_corrected_before_some_time_has_passed(job, clock, dealer):
    group = dealer.deal(0, 0).blocks[0][0]
    clock.now_s += CORRECTION_S - 1
    dealer.deal(0, 1, [10 * takes_s(job, group)])
    dealer.look()
    assert dealer._estimates.n_runs == 0
    assert dealer.left_s() is None
    clock.now_s += 2
    dealer.look()
    assert dealer._estimates.n_runs == 1
    # And then not before there is news.
    clock.now_s += 10 * CORRECTION_S
    corrected_s = dealer._corrected_s
    dealer.look()
    assert dealer._corrected_s == corrected_s


def test_the_time_that_is_left_is_that_of_the_work_or_of_the_longest_run(job, clock, dealer):
    first = dealer.deal(0, 0).blocks[0][0]
    clock.now_s += CORRECTION_S + 1
    dealer.deal(0, 1, [job.work(first) / 1e6])
    dealer.look()
    schedule = dealer._schedule
    assert dealer.left_s() == pytest.approx(
        schedule.pending_s / 2 + dealer._held_s[0] / 2, rel=0.05
    )
    # The other rank takes the rest; what the first holds is then all that is left.
    held_s = dealer._held_s[0]
    while dealer._schedule.n_pending:
        n_held = len(schedule._held[1])
        dealer.deal(1, n_held, [math.nan] * n_held)
    n_held = len(schedule._held[1])
    dealer.deal(1, n_held, [math.nan] * n_held)
    clock.now_s = dealer._end_s[0] - 0.5 * held_s
    assert dealer.left_s() == pytest.approx(0.5 * held_s)
    clock.now_s += 3 * held_s
    assert dealer.left_s() == pytest.approx(0.05 * held_s)


def test_what_stands_in_the_directory_teaches_too(job, monkeypatch, clock):
    keys = [group for group in job.groups if group.repetitions == (0,)]
    rows = [
        {
            "experiment_id": group.experiment_id,
            "status": "completed",
            "lanes": 1,
            "duration_s": 3 * job.work(group) / 1e6 / 2,
            "epochs_completed": 1500,
            "cpu_model": read_cpu_model(),
        }
        for group in keys
    ]
    elsewhere = [row | {"cpu_model": "another", "duration_s": 1e9} for row in rows]
    failed = rows[0] | {"status": "failed", "lanes": None, "duration_s": None}
    frame = pd.DataFrame([*rows, *elsewhere, failed])
    monkeypatch.setattr(store, "read_runs", lambda out, columns: frame[columns])
    object.__setattr__(job, "n_done", len(rows))
    dealer = Dealer(job, (1,), Alone(), Endless(), lambda *shown: None, clock)
    predicted_s = np.array([job.work(group) / 1e6 for group in job.groups])
    np.testing.assert_allclose(dealer._estimates.cost_s / predicted_s, 3.0, rtol=0.1)
    assert dealer.left_s() == pytest.approx(3 * predicted_s.sum(), rel=0.05)


def test_what_a_group_took_follows_from_its_runs():
    done = {"status": "completed", "lanes": 2, "duration_s": 5.0, "epochs_completed": 100}
    early = {"status": "stopped", "lanes": 2, "duration_s": 0.5, "epochs_completed": 10}
    failed = {"status": "failed", "lanes": None, "duration_s": None, "epochs_completed": 0}
    assert measured_s([done], 100) == 10.0
    assert measured_s([early, done], 100) == 10.0
    assert measured_s([early], 100) == 10.0
    assert math.isnan(measured_s([done, failed], 100))
    assert math.isnan(measured_s([], 100))


def test_groups_that_cannot_be_run_cost_nothing_and_teach_nothing(tmp_path):
    sweep = parse_sweep(SWEEP | {"dataset": "digits", "size": [32, 4096]}, "s.toml", CHECKS)
    job = launch.prepare_job(sweep, tmp_path / "out", None, lanes=1)
    estimates = Estimates(job)
    free = np.array([job.work(group) == 0 for group in job.groups])
    assert free.any()
    for task in np.flatnonzero(free):
        estimates.add(task, math.nan)
    estimates.correct()
    assert (estimates.cost_s[free] == 0).all()
    assert (estimates.cost_s[~free] > 0).all()
    assert estimates.n_runs == 0
    assert estimates_module.measured_s is measured_s


def test_what_was_kept_of_a_group_is_not_counted_as_left(job, clock):
    """The longest group has a tenth left to do, and another a half."""
    (experiment_id, (first,)), (other_id, (second,)) = job.groups[0], job.groups[40]
    epochs = job.experiments[experiment_id].spec.epochs
    kept = {
        f"{experiment_id}-{first:04d}": epochs * 9 // 10,
        f"{other_id}-{second:04d}": epochs // 2,
    }

    def left_s(job):
        dealer = Dealer(job, (1, 1), Alone(), Endless(), lambda *shown: None, clock)
        dealer._n_known = 1
        lefts = [dealer.left_s()]
        assert dealer.deal(0, 0).blocks[0][0] == job.groups[0]
        return np.array([*lefts, dealer.left_s()]), dealer

    whole_s, dealer = left_s(job)
    some_s, _ = left_s(replace(job, kept=kept))
    cost_s = dealer._estimates.cost_s
    spared_s = 0.9 * cost_s[0] + 0.5 * cost_s[40]
    assert whole_s - some_s == pytest.approx(spared_s / 2, rel=1e-3)


# ---------------------------------------------------------------------------------------------
# Who answers, and how soon


class Letters(Alone):
    """Rank 0 of two, whose mailbox holds what a test puts there."""

    size, has_threads = 2, True

    def __init__(self, rank=0):
        self.rank, self.mail, self.sent, self.readers, self.answers = rank, [], [], [], []
        self.posted = []  # answers to this rank

    def send(self, message):
        self.sent.append(message)

    def ask(self, question):
        self.send(question)
        return self.receive_answer()

    def receive_answer(self):
        return self.posted.pop(0)

    def is_told_to_stop(self):
        return False

    def receive_mail(self):
        self.readers.append(threading.current_thread().name)
        while self.mail:
            yield 1, self.mail.pop(0)

    def answer(self, rank, value):
        self.answers.append((rank, value, threading.current_thread().name))


@pytest.mark.parametrize(
    ("n_epochs", "epoch_s", "behind_s", "asks_before_epoch"),
    [
        (100, 0.01, 0.0, 98),  # 30 ms are three epochs
        (5, 10.0, 0.0, 5),  # the last one, however long
        (3, 0.001, 0.0, 1),
        (3, 0.001, 0.02, 1),  # a short group behind a short one
        (5, 10.0, 1.0, None),
        (5, 0.001, math.inf, None),
    ],
)
def test_a_rank_asks_once_a_moment_before_it_has_nothing_left(
    n_epochs, epoch_s, behind_s, asks_before_epoch
):
    ranks = Letters(rank=1)
    desk = Desk(1, ranks, Endless())
    desk.note(2, 0.5)
    desk.begin_group(n_epochs, behind_s)
    found = None
    for epoch in range(1, n_epochs + 1):
        assert not desk.should_stop(epoch_s)
        found = found or (epoch if ranks.sent else None)
    assert found == asks_before_epoch
    assert ranks.sent == ([] if found is None else [(1, 2, [0.5])])
    # What is done after the question is told with the next one.
    desk.note(1, 0.25)
    ranks.posted.append(Deal(()))
    desk.ask()
    ranks.posted.append(Deal(()))
    desk.ask()
    told = [(1, 3, [0.5, 0.25]), (1, 0, [])]
    assert ranks.sent == (told if found is None else [(1, 2, [0.5]), (1, 1, [0.25])])


def test_a_rank_that_ends_with_a_question_takes_the_answer():
    ranks = Letters(rank=1)
    desk = Desk(1, ranks, Endless())
    desk.leave()
    desk.begin_group(1, 0.0)
    desk.should_stop(0.5)
    ranks.posted.append(Deal(()))
    desk.leave()
    assert not ranks.posted
    desk.leave()


def test_who_asks_ahead_gets_more_and_keeps_what_it_holds(dealer, job, clock):
    ((first,),) = dealer.deal(0, 0).blocks
    held_s = dealer._held_s[0]
    clock.now_s += 0.9 * held_s
    blocks = dealer.deal(0, 0).blocks
    assert first not in {group for block in blocks for group in block}
    assert dealer._schedule.n_held == 1 + sum(map(len, blocks))
    cost_s = dealer._estimates.cost_s
    ahead = [job.groups.index(group) for group, *_ in blocks]
    assert dealer._held_s[0] == pytest.approx(0.1 * held_s + cost_s[ahead].sum(), rel=1e-3)
    assert dealer._end_s[0] == pytest.approx(clock.now_s + dealer._held_s[0])
    # The first group's duration is of the first group, not of the second.
    told = []
    dealer._estimates.add = lambda task, seconds: told.append((job.groups[task], seconds))
    dealer.deal(0, 1, [7.0])
    assert told == [(first, 7.0)]
    assert dealer._schedule.n_held >= sum(map(len, blocks))


def test_time_that_is_spent_on_what_a_rank_holds_is_not_dealt_twice(job, clock):
    limit = Endless()
    dealer = Dealer(job, (1,), Alone(), limit, lambda *shown: None, clock)
    asked = []
    request = dealer._schedule.request
    dealer._schedule.request = lambda worker, left_s: (
        asked.append(left_s) or request(worker, left_s)
    )
    dealer.deal(0, 0)
    held_s = dealer._end_s[0] - clock.now_s
    limit.seconds_left = 1000.0
    dealer.deal(0, 0)
    assert held_s > 0
    assert asked == [math.inf, 1000 - held_s]


def test_questions_are_answered_by_the_thread_while_a_long_epoch_is_trained(job):
    ranks = Letters()
    with Dealer(job, (1, 1), ranks, Endless(), lambda *shown: None) as dealer:
        dealer.look(10.0)
        ranks.mail.append((1, 0, []))
        deadline_s = time.monotonic() + 10
        while not ranks.answers and time.monotonic() < deadline_s:
            time.sleep(0.001)
    ((rank, deal, reader),) = ranks.answers
    assert (rank, reader) == (1, "dealer")
    assert deal.blocks


def test_the_thread_rests_while_rank_0_looks_often_enough(job):
    ranks = Letters()
    with Dealer(job, (1, 1), ranks, Endless(), lambda *shown: None) as dealer:
        dealer.look(SOON_S)
        time.sleep(0.05)  # The thread may be in the middle of a look.
        ranks.readers.clear()
        end_s = time.monotonic() + 0.4
        while time.monotonic() < end_s:
            if not ranks.answers:
                ranks.mail.append((1, 0, []))
            dealer.look(SOON_S)
        main = threading.current_thread().name
        assert ranks.readers.count(main) > 100
        assert ranks.readers.count("dealer") < 30
    assert ranks.answers


def test_the_thread_looks_again_once_a_group_is_trained(job):
    """Rank 0 keeps the results then, and does not look between epochs."""
    ranks = Letters()
    with Dealer(job, (1, 1), ranks, Endless(), lambda *shown: None) as dealer:
        desk = Desk(0, ranks, Endless(), dealer)
        desk.should_stop(SOON_S / 2)
        assert not dealer._is_needed.is_set()
        desk.end_training()
        assert dealer._is_needed.is_set()


def test_two_readers_do_not_see_the_same_message(job):
    ranks = Letters()
    dealer = Dealer(job, (1, 1), ranks, Endless(), lambda *shown: None)
    ranks.mail.append((1, 0, []))
    with dealer._serving:
        assert not dealer._serve()
    assert ranks.mail
    assert dealer._serve()
    assert not ranks.mail
