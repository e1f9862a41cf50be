"""How long a sweep will take: what a job would do, by the real schedule; and what a plan shows."""

import json
import re

import numpy as np
import pytest

from minibutter import launch
from minibutter.experiments import CHECKS, plan_experiments, read_sweep
from minibutter.launch import forecast as forecast_module
from minibutter.launch.dealer import MARGIN
from minibutter.launch.forecast import forecast, seconds_of_job
from minibutter.launch.stopping import seconds_for_work
from minibutter.store.shards import most_shards
from minibutter.store.volume import table_bytes
from minibutter.sweeps.replay import lower_bound_s, replay
from minibutter.sweeps.spec import parse_sweep

SWEEP = {
    "dataset": ["iris", "digits"],
    "size": [32, 256, 4096, 65536],
    "depth": [3, 5],
    "epochs": 20,
    "batch_size": 16,
    "repetitions": 11,
}


@pytest.fixture(scope="module")
def plan():
    return plan_experiments(parse_sweep(SWEEP, "s.toml", CHECKS))


@pytest.mark.parametrize("lanes", ["auto", 1, 4])
@pytest.mark.parametrize("n_ranks", [1, 7, 64])
def test_a_forecast_deals_out_the_groups_that_a_job_has(plan, tmp_path, n_ranks, lanes):
    sweep = parse_sweep(SWEEP, "s.toml", CHECKS)
    job = launch.prepare_job(sweep, tmp_path / "out", None, n_ranks, lanes)
    cost_s = np.array([job.work(group) / 1e6 for group in job.groups])
    cost_s = cost_s[cost_s > 0]
    expected = replay(cost_s, cost_s, [1] * n_ranks)
    found = forecast(plan, n_ranks, lanes)
    assert found.n_groups == len(cost_s)
    assert found.core_h == pytest.approx(cost_s.sum() / 3600)
    assert found.makespan_s == pytest.approx(expected.makespan_s)
    assert found.lower_bound_s == pytest.approx(expected.lower_bound_s)
    assert found.efficiency == pytest.approx(expected.efficiency)
    assert (found.n_jobs, found.is_sampled, found.too_long.sum()) == (1, False, 0)
    assert found.longest_s == pytest.approx(cost_s.max())


@pytest.mark.parametrize("limit_s", [100.0, 101.0, 10.1, 1000.7])
def test_no_piece_of_a_run_is_too_long_for_its_job(plan, limit_s):
    """Also where the seconds of a job are no float32."""
    long = plan_experiments(parse_sweep(SWEEP | {"epochs": 400_000}, "s.toml", CHECKS))
    found = forecast(long, 4, 1, time_limit_s=limit_s)
    assert found.too_long.sum() == 0
    assert found.n_jobs * seconds_for_work(limit_s) == pytest.approx(found.makespan_s, rel=0.1)
    assert found.efficiency > 0.9


def test_runs_that_take_longer_than_a_job_go_on_in_others(plan):
    whole = forecast(plan, 2, 1)
    limit_s = whole.longest_s / 2.5
    cut = forecast(plan, 2, 1, time_limit_s=limit_s)
    assert cut.too_long.sum() == 0
    assert cut.core_h == pytest.approx(whole.core_h)
    assert cut.makespan_s >= whole.lower_bound_s
    # Nine tenths of a short job are for work, and no rank waits for long.
    assert cut.n_jobs == pytest.approx(whole.makespan_s / (0.9 * limit_s), rel=0.1)
    alone = forecast(plan, 10_000, 1, time_limit_s=limit_s)
    assert alone.n_jobs == 3
    assert alone.makespan_s == pytest.approx(whole.longest_s)


def test_runs_of_which_no_epoch_fits_are_counted_and_what_they_need_is_told(plan):
    longest_s = forecast(plan, 2, 1).longest_s / plan.epochs.max()
    short = forecast(plan, 2, 1, time_limit_s=longest_s)
    is_large = plan.sizes == 65536
    assert (short.too_long[is_large] == 11).any()
    assert short.too_long.sum() % 11 == 0
    enough = forecast(plan, 2, 1, time_limit_s=short.needed_s * 1.001)
    assert enough.too_long.sum() == 0
    assert enough.n_jobs > 1
    assert forecast(plan, 2, 1, time_limit_s=short.needed_s * 0.98).too_long.sum() > 0


@pytest.mark.parametrize("seconds", [1.0, 500.0, 541.0, 1e5])
def test_a_limit_leaves_what_it_is_chosen_for(seconds):
    assert seconds_for_work(seconds_of_job(seconds)) == pytest.approx(seconds)


def test_what_is_tied_together_and_sampled_takes_as_long(monkeypatch):
    plan = plan_experiments(parse_sweep(SWEEP | {"repetitions": 400}, "s.toml", CHECKS))
    exact = forecast(plan, 3, 1)
    limit_s = 30 * exact.longest_s
    in_jobs = forecast(plan, 3, 1, limit_s)
    assert not in_jobs.is_sampled
    monkeypatch.setattr(forecast_module, "_MANY_TASKS", 100)
    tied = forecast(plan, 3, 1)
    assert tied.makespan_s == pytest.approx(exact.makespan_s, rel=0.01)
    assert tied.lower_bound_s == exact.lower_bound_s
    monkeypatch.setattr(forecast_module, "_MANY_TASKS", 10**6)
    monkeypatch.setattr(forecast_module, "_MANY_JOBS", in_jobs.n_jobs / 4)
    sampled = forecast(plan, 3, 1, limit_s)
    assert sampled.is_sampled
    assert sampled.n_jobs == pytest.approx(in_jobs.n_jobs, rel=0.25)
    assert sampled.makespan_s == pytest.approx(in_jobs.makespan_s, rel=0.25)


def test_a_bound_counts_equal_tasks_as_so_many():
    cost_s, counts = np.array([3.0, 8.0, 5.0, 1.0]), np.array([4, 1, 2, 30])
    for n_ranks in (1, 2, 3, 5, 40):
        each = lower_bound_s(np.repeat(cost_s, counts), n_ranks)
        assert lower_bound_s(cost_s, n_ranks, counts) == each


def test_nothing_that_can_be_run_takes_no_time():
    nothing = plan_experiments(parse_sweep(SWEEP | {"dataset": "digits", "size": 32}, "s.toml"))
    found = forecast(nothing, 4, time_limit_s=3600.0)
    assert (found.makespan_s, found.core_h, found.n_jobs, found.n_groups) == (0, 0, 0, 0)
    assert MARGIN > 1


def test_the_primary_sweep_is_dealt_out_in_a_second_or_two():
    import time

    plan = plan_experiments(read_sweep("primary"))
    begun_s = time.process_time()
    for n_ranks, limit_s in ((1, None), (1000, 86400.0)):
        found = forecast(plan, n_ranks, time_limit_s=limit_s)
        assert found.efficiency > 0.99
    assert time.process_time() - begun_s < 10


# ---------------------------------------------------------------------------------------------
# What a plan shows


def test_a_plan_says_how_long_how_many_jobs_and_how_many_bytes(call):
    arguments = ("--ranks", 1000, "--time-limit", "24h")
    code, out, _ = call("sweep", "plan", "primary", *arguments)
    assert code == 0
    assert re.search(r"^on 1000 ranks: [\d.]+ days, 9\d\.\d% busy|, 100\.0% busy", out, re.M)
    assert re.search(r"^  about \d\d\d jobs of 24 h 00 min$", out, re.M)
    assert "too long for a job" not in out
    assert re.search(r"^disk: about 1\d\d GB for 2,286,000,000 epochs$", out, re.M)
    assert "times are another processor's: `minibutter sweep calibrate`" in out


def test_a_plan_says_of_which_runs_no_epoch_fits_into_a_job(call):
    largest = ("--filter", "size > 10000000 and depth = 4")
    _, out, _ = call("sweep", "plan", "primary", *largest, "--ranks", 1000, "--time-limit", "20s")
    assert re.search(r"too long for a job: \d+ runs of \d+ experiments, not one epoch of w", out)


def test_a_plan_for_programs_has_the_same(call):
    document = json.loads(call("sweep", "plan", "--ranks", "2", "--json")[1])
    schedule = document["schedule"]
    assert schedule["lower_bound_s"] <= schedule["makespan_s"] < 1.2 * schedule["lower_bound_s"]
    assert schedule["time_limit_s"] is None
    assert document["epochs"] == 72 * 60
    # Two ranks close a shard every two seconds, and the last when all is done.
    n_shards = min(schedule["groups"], round(2 * most_shards(schedule["makespan_s"])) + 1)
    assert document["disk_bytes"] == table_bytes(72 * 60, 0, 72, n_shards)
    assert document["calibrated_at"] is document["energy"] is None
    assert json.loads(call("sweep", "plan", "--json")[1])["schedule"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "0"], "--ranks 0: must be at least 1"),
        (["--time-limit", "2h"], "--time-limit is the length of a job: --ranks must say how large"),
        (["--ranks", "2", "--time-limit", "soon"], "time limit = 'soon': must be written as in"),
        (["--ranks", "2", "--lanes", "17"], "lanes = '17': must be auto or a whole number"),
        (["--energy-model", "no.json"], "no.json cannot be read"),
    ],
)
def test_what_cannot_be_foreseen_is_one_line(call, arguments, message):
    code, _, err = call("sweep", "plan", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
