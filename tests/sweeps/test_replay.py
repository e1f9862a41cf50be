"""Replays: a few that can be followed by hand, and the primary sweep of BUTTER on many ranks."""

import numpy as np
import pytest

from minibutter.nn import cost
from minibutter.nn.network import Network
from minibutter.nn.shapes import SizeUnreachable, find_outline
from minibutter.sweeps import replay as replay_module
from minibutter.sweeps.replay import lower_bound_s, misjudge, replay

DATASETS = {
    # inputs, outputs, rows for training and for testing, task: `datasets.references` has them too.
    "529_pollen": (4, 1, 3078, 770, "regression"),
    "537_houses": (8, 1, 16512, 4128, "regression"),
    "201_pol": (26, 11, 12000, 3000, "classification"),
    "connect_4": (126, 3, 54045, 13512, "classification"),
    "mnist": (784, 10, 56000, 14000, "classification"),
    "sleep": (141, 5, 84726, 21182, "classification"),
    "wine_quality_white": (11, 7, 3918, 980, "classification"),
    "nursery": (26, 4, 10366, 2592, "classification"),
    "adult": (81, 1, 39073, 9769, "binary"),
    "505_tecator": (124, 1, 192, 48, "regression"),
    "294_satellite_image": (36, 6, 5148, 1287, "classification"),
    "splice": (287, 3, 2550, 638, "classification"),
    "banana": (2, 1, 4240, 1060, "regression"),
}
SHAPES = (
    "rectangle", "trapezoid", "exponential", "rectangle_residual",
    "wide_first_2x", "wide_first_4x", "wide_first_8x", "wide_first_16x",
)  # fmt: skip
DEPTHS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20)
SIZES = tuple(2**exponent for exponent in range(5, 26))
REPETITIONS = 30


@pytest.fixture(scope="module")
def primary_s():
    """Predicted seconds of a run of every cell of the primary sweep that has a network."""
    seconds = []
    for n_inputs, n_outputs, n_train, n_test, task in DATASETS.values():
        for shape in SHAPES:
            for depth in DEPTHS:
                for size in SIZES:
                    try:
                        outline = find_outline(shape, size, depth, n_inputs, n_outputs)
                    except SizeUnreachable:
                        continue
                    network = Network(n_inputs, outline.widths, task, shape=shape)
                    epoch_us = cost.epoch_us(network, n_train, n_test, min(256, n_train))
                    seconds.append(3000 * epoch_us / 1e6)
    return np.array(seconds)


@pytest.mark.parametrize("n_ranks", [1_000, 10_000])
def test_butters_primary_sweep_keeps_all_ranks_busy_with_predictions_a_third_wrong(
    primary_s, n_ranks
):
    assert len(primary_s) == 30_576 - 3_435
    runs_s = np.repeat(primary_s, REPETITIONS)
    duration_s = misjudge(runs_s, 0.3, np.random.default_rng(n_ranks))
    result = replay(runs_s, duration_s, [1] * n_ranks)
    assert result.n_unfinished == 0
    assert result.makespan_s <= 1.05 * result.lower_bound_s
    assert result.n_grants <= len(runs_s)


def test_gangs_do_the_primary_sweep_almost_as_fast(primary_s):
    """Four blocks of eight ranks do thirty repetitions: 2 of 32 places are empty."""
    kinds = np.repeat(np.arange(len(primary_s)), REPETITIONS)
    of_experiments_s = misjudge(primary_s, 0.3, np.random.default_rng(8))
    result = replay(primary_s[kinds], of_experiments_s[kinds], [8] * 125, kinds=kinds)
    assert result.n_unfinished == 0
    assert 32 / 30 <= result.makespan_s / result.lower_bound_s <= 1.05 * 32 / 30


def test_an_order_that_knows_nothing_takes_longer(primary_s):
    duration_s = primary_s[::10]
    ranks = [1] * 30
    informed = replay(duration_s, duration_s, ranks)
    ignorant = replay(np.ones_like(duration_s), duration_s, ranks)
    assert informed.makespan_s < 1.02 * informed.lower_bound_s
    assert ignorant.makespan_s > 1.1 * informed.makespan_s


@pytest.mark.parametrize("time_limit_s", [np.inf, 4000.0, 900.0])
@pytest.mark.parametrize("error", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_workers_that_ask_in_waves_get_what_they_get_one_by_one(
    monkeypatch, seed, error, time_limit_s
):
    rng = np.random.default_rng(seed)
    n_ranks = int(rng.integers(8, 120))
    cost_s = np.repeat(10 ** rng.uniform(-1, 3.2, 400), 5)
    duration_s = misjudge(cost_s, error, rng)
    waves = []
    do_waves = replay_module._do_waves
    monkeypatch.setattr(
        replay_module, "_do_waves", lambda *job: waves.append(do_waves(*job)) or waves[-1]
    )
    limits = {"time_limit_s": time_limit_s, "margin": 1.1}
    in_waves = replay(cost_s, duration_s, [1] * n_ranks, **limits)
    assert sum(waves) > 0.2 * in_waves.n_grants
    monkeypatch.setattr(replay_module, "_SMALLEST_WAVE", n_ranks + 1)
    assert in_waves == pytest.approx(replay(cost_s, duration_s, [1] * n_ranks, **limits), rel=1e-9)


# ---------------------------------------------------------------------------------------------
# By hand


def test_two_ranks_and_five_tasks():
    """0: 5 3; 1: 4 3 2, as Graham's rule has it."""
    duration_s = np.array([3.0, 4.0, 5.0, 2.0, 3.0])
    result = replay(duration_s, duration_s, [1, 1], bundle_s=0.0)
    assert result.makespan_s == 9
    assert result.lower_bound_s == 8.5
    assert result.efficiency == pytest.approx(17 / 18)
    assert (result.n_jobs, result.n_grants, result.n_unfinished, result.lost_s) == (1, 5, 0, 0)


@pytest.mark.parametrize(
    ("duration_s", "n_ranks", "bound_s"),
    [
        ([], 3, 0),
        ([5, 5], 3, 5),
        ([3, 3, 3], 2, 6),  # two of three meet: the second longest and the third
        ([8, 5, 4, 1], 2, 9),
        ([8, 1, 1], 2, 8),
        ([1] * 100, 10, 10),
    ],
)
def test_no_schedule_is_shorter_than_the_bound(duration_s, n_ranks, bound_s):
    assert lower_bound_s(np.array(duration_s, float), n_ranks) == bound_s


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_is_never_better_than_its_bound_nor_twice_as_bad(seed):
    """Graham 1969: any order is below 2 - 1/m times the shortest; here without bundles."""
    rng = np.random.default_rng(seed)
    n_ranks = int(rng.integers(1, 9))
    cost_s = rng.lognormal(3, 2, int(rng.integers(1, 60)))
    duration_s = misjudge(cost_s, 1.0, rng)
    result = replay(cost_s, duration_s, [1] * n_ranks, bundle_s=0.0)
    assert result.lower_bound_s <= result.makespan_s * (1 + 1e-9)
    sum_and_longest_s = duration_s.sum() / n_ranks + (1 - 1 / n_ranks) * duration_s.max()
    assert result.makespan_s <= sum_and_longest_s * (1 + 1e-9)


def test_a_time_limit_cuts_a_sweep_into_jobs():
    """In 10 s a rank does 6 and 4 or 4 and 6; the third job has what is left."""
    duration_s = np.array([6.0] * 4 + [4.0] * 5)
    result = replay(duration_s, duration_s, [1, 1], time_limit_s=10, bundle_s=0.0)
    assert (result.n_jobs, result.n_unfinished, result.lost_s) == (3, 0, 0)
    assert result.makespan_s == 10 + 10 + 4
    assert result.efficiency == pytest.approx(44 / 48)


def test_what_no_job_can_end_is_left_over():
    duration_s = np.array([20.0, 6.0, 4.0])
    result = replay(duration_s, duration_s, [1], time_limit_s=10, bundle_s=0.0)
    assert (result.n_jobs, result.n_unfinished, result.makespan_s) == (1, 1, 10)
    assert result.efficiency == 1


def test_a_task_that_takes_longer_than_predicted_is_cut_off_and_begun_again():
    """The first job ends with a task of 7 s in which it has got 3; the margin would have saved
    them."""
    cost_s, duration_s = np.array([6.0, 2.0]), np.array([7.0, 7.0])
    result = replay(cost_s, duration_s, [1], time_limit_s=10, bundle_s=0.0)
    assert (result.n_jobs, result.makespan_s, result.lost_s) == (2, 17, 3)
    assert result.efficiency == pytest.approx(14 / 17)
    result = replay(cost_s, duration_s, [1], time_limit_s=10, bundle_s=0.0, margin=1.6)
    assert (result.n_jobs, result.makespan_s, result.lost_s) == (2, 14, 0)


def test_of_a_bundle_that_is_cut_off_the_tasks_that_ended_count():
    """A job of 4 s takes bundles of four, ends two of their tasks, and is 1 s into the third."""
    cost_s, duration_s = np.full(40, 1.0), np.full(40, 1.5)
    result = replay(cost_s, duration_s, [1], time_limit_s=4.0)
    assert (result.n_jobs, result.makespan_s, result.n_unfinished) == (20, 19 * 4.0 + 3.0, 0)
    assert result.lost_s == pytest.approx(19 * 1.0)


def test_a_gang_waits_for_the_slowest_of_a_block():
    kinds = np.array([0, 0, 0, 1])
    duration_s = np.array([5.0, 7.0, 6.0, 2.0])
    result = replay(np.array([5.0, 5, 5, 2]), duration_s, [2], kinds=kinds, bundle_s=0.0)
    assert result.makespan_s == 7 + 6 + 2
    assert result.n_grants == 3
    # Cut off after 10 s, both ranks have waited from the 7th on.
    cut = replay(
        np.array([5.0, 5, 5, 2]), duration_s, [2], kinds=kinds, bundle_s=0.0, time_limit_s=12
    )
    assert (cut.n_jobs, cut.makespan_s, cut.lost_s) == (2, 12 + 8, 2 * 5)


def test_misjudged_durations_are_as_wrong_as_asked():
    duration_s = misjudge(np.full(100_000, 4.0), 0.3, np.random.default_rng(1))
    assert np.median(duration_s) == pytest.approx(4.0, rel=0.01)
    assert np.log(duration_s / 4).std() == pytest.approx(0.3, rel=0.02)


def test_nothing_to_do_takes_no_time():
    result = replay(np.empty(0), np.empty(0), [1, 1])
    assert (result.makespan_s, result.lower_bound_s, result.n_jobs) == (0, 0, 0)
    assert result.efficiency == 1
