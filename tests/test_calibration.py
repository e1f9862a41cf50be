"""Fitting a machine's rates: planted ones are found, and what is no good is no calibration."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from minibutter import calibration as calibration_module
from minibutter import launch
from minibutter.calibration import (
    Calibration,
    calibrate,
    calibration_path,
    find_calibration,
    fit_model,
    kernels_digest,
    machine_cost_model,
    read_calibration,
    write_calibration,
)
from minibutter.experiments import CHECKS, plan_experiments
from minibutter.nn import cost
from minibutter.nn.cost import CostModel, Rates
from minibutter.nn.kernels import jit
from minibutter.nn.network import Network
from minibutter.nn.probes import PROBES, Probe, measure_step_us
from minibutter.sweeps.options import read_selection
from minibutter.sweeps.spec import parse_sweep

PLANTED = CostModel(
    Rates(6.0, 2.6, 0.018, 4.6e-4, 5.2e-6, 7e-4, 3.8e-3, 1.4e-3, 2.9e-3),
    Rates(9.6, 5.0, 0.0175, 8e-4, 9.5e-6, 2.6e-4, 6e-3, 2.6e-4, 1.2e-3),
)
UNSEEN = [
    (Network(11, (18, 18, 18, 7), "classification"), 256),
    (Network(4, (*[12] * 19, 1), "regression"), 256),
    (Network(784, (76, 38, 38, 38, 10), "classification"), 256),
    (Network(2, (*[480] * 18, 1), "regression"), 256),
    (Network(11, (900, 900, 7), "classification"), 32),
    (Network(26, (41, 41, 41, 4), "classification", dtype="float64"), 64),
]


def timed_with(model, error=0.0, seed=1):
    """A clock for a machine with these rates, that is wrong now and then."""
    rng = np.random.default_rng(seed)

    def measure(probe):
        us = cost.step_us(probe.network, probe.batch_size, probe.repetitions, model)
        return us * np.exp(error * rng.standard_normal())

    return measure


def errors_of(model):
    """Of the unseen networks, alone and packed: log of predicted over planted."""
    return np.array(
        [
            np.log(
                cost.step_us(network, batch_size, repetitions, model)
                / cost.step_us(network, batch_size, repetitions, PLANTED)
            )
            for network, batch_size in UNSEEN
            for repetitions in (1, 16)
        ]
    )


def test_planted_rates_are_found():
    calibration = calibrate("a CPU", timed_with(PLANTED))
    assert np.abs(errors_of(calibration.model)).max() < 0.05
    assert np.abs(errors_of(cost.BUILT_IN)).max() > 0.5
    assert np.abs(calibration.errors).max() < 0.05


def test_a_clock_that_is_wrong_by_a_twentieth_costs_little():
    calibration = calibrate("a CPU", timed_with(PLANTED, error=0.05))
    assert np.sqrt(np.mean(errors_of(calibration.model) ** 2)) < 0.1
    assert np.median(np.abs(calibration.errors)) < 0.05


def test_no_rate_is_negative_whatever_was_measured():
    for seed in range(5):
        model = calibrate("a CPU", timed_with(PLANTED, error=0.5, seed=seed)).model
        assert all(rate >= 0 for rates in model for rate in rates)


def test_a_machine_that_is_only_faster_has_the_same_rates_divided():
    model = fit_model(PROBES, [timed_with(cost.BUILT_IN)(probe) / 3 for probe in PROBES])
    for rates, before in zip(model, cost.BUILT_IN, strict=True):
        np.testing.assert_allclose(rates, np.array(before) / 3, rtol=1e-5, atol=1e-12)


def test_rates_that_no_probe_knows_stay_in_proportion():
    only = [probe for probe in PROBES if not probe.is_packed][:1]
    model = fit_model(only, [timed_with(cost.BUILT_IN)(only[0]) / 2])
    np.testing.assert_allclose(model.alone, np.array(cost.ALONE) / 2, rtol=1e-3)
    assert model.packed == cost.PACKED


def test_probes_tell_all_rates_apart():
    """Columns scaled to one length: how much louder the clock's errors come out of the fit."""
    for is_packed in (False, True):
        amounts = np.array(
            [
                cost.step_amounts(probe.network, probe.batch_size, probe.repetitions)
                for probe in PROBES
                if probe.is_packed == is_packed
            ]
        )
        relative = amounts / (amounts @ np.array(PLANTED[is_packed]))[:, None]
        assert np.linalg.cond(relative / np.linalg.norm(relative, axis=0)) < 30


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_step_is_timed_with_the_clock_that_is_given(is_packed):
    ticks = iter(np.arange(0.0, 100.0, 0.25).tolist())
    probe = Probe(Network(3, (2, 1), "binary"), 4, is_packed)
    # 8 steps of training and an evaluation, which is a third of one.
    assert measure_step_us(probe, lambda: next(ticks)) == pytest.approx(0.25e6 / (8 + 1 / 3))


def test_the_epoch_that_took_least_counts():
    ticks = iter([0.0, 0.6, 1.0, 1.1, 2.0, 2.3, 99.0])
    probe = Probe(Network(3, (2, 2), "classification"), 4, False)
    assert measure_step_us(probe, lambda: next(ticks)) == pytest.approx(0.1e6 / (8 + 1 / 3))


def test_every_probe_is_announced():
    said = []
    calibrate("a CPU", timed_with(PLANTED), on_probe=lambda *numbers: said.append(numbers))
    assert said == [(number, len(PROBES)) for number in range(1, len(PROBES) + 1)]


# ---------------------------------------------------------------------------------------------
# Keeping it


@pytest.fixture
def calibration():
    return calibrate("Some(R) CPU @ 2.10GHz", timed_with(PLANTED, error=0.05))


def test_what_is_written_is_read(calibration, tmp_path):
    path = tmp_path / "cache" / "calibration.json"
    write_calibration(calibration, path)
    assert read_calibration(path) == calibration
    other = calibrate("Some(R) CPU @ 2.10GHz", timed_with(PLANTED))
    write_calibration(other, path)
    assert read_calibration(path) == other
    assert [entry.name for entry in path.parent.iterdir()] == ["calibration.json"]


def test_the_file_belongs_to_a_processor_and_to_kernels(monkeypatch, tmp_path):
    monkeypatch.setattr(jit.kept, "directory", Path("/somewhere/0123abcd"))
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    path = calibration_path("Some(R) CPU @ 2.10GHz", cache)
    assert path == tmp_path / "minibutter/calibration/some-r-cpu-2-10ghz-0123abcd.json"
    assert calibration_path("Another CPU", cache) != path
    home = calibration_path("CPU", {"XDG_CACHE_HOME": ""})
    assert home == Path.home() / ".cache/minibutter/calibration/cpu-0123abcd.json"
    monkeypatch.setattr(jit.kept, "directory", Path("/somewhere/ffffffff"))
    assert calibration_path("Some(R) CPU @ 2.10GHz", cache) != path


def test_where_no_kernels_are_kept_no_calibration_is(monkeypatch):
    monkeypatch.setattr(jit.kept, "directory", None)
    assert kernels_digest() is None
    assert calibration_path("CPU") is None
    assert read_calibration(None) is None


def test_a_user_without_a_home_has_no_calibration(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(jit.kept, "directory", Path("/somewhere/0123abcd"))
    monkeypatch.setattr(Path, "home", fail)
    assert calibration_path("CPU", {}) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace('"flop"', '"flips"'),
        lambda text: text.replace('"widths"', '"breadths"'),
        lambda text: text.replace('"batch_size": 256', '"batch_size": 255'),
    ],
)
def test_a_file_that_is_no_good_is_no_calibration(calibration, tmp_path, damage):
    path = tmp_path / "calibration.json"
    assert read_calibration(path) is None
    write_calibration(calibration, path)
    path.write_text(damage(path.read_text()))
    assert read_calibration(path) is None


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), "fast", None])
def test_a_rate_that_cannot_be_is_no_calibration(calibration, tmp_path, rate):
    path = tmp_path / "calibration.json"
    write_calibration(calibration, path)
    document = json.loads(path.read_text())
    document["alone"]["flop"] = rate
    path.write_text(json.dumps(document))
    assert read_calibration(path) is None


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(calibration, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_calibration(calibration, tmp_path / "file" / "calibration.json")
    taken = tmp_path / "taken.json"
    taken.mkdir()
    with pytest.raises(OSError, match="taken"):
        write_calibration(calibration, taken)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "taken.json"]


def test_a_calibration_says_what_it_is_of(calibration):
    assert isinstance(calibration, Calibration)
    assert calibration.cpu_model == "Some(R) CPU @ 2.10GHz"
    assert calibration.kernels == kernels_digest()
    assert calibration.measured_at.endswith("+00:00")
    assert len(calibration.measured_us) == len(PROBES)


# ---------------------------------------------------------------------------------------------
# Using it

SWEEP = {
    "dataset": "iris",
    "size": [64, 512, 4096, 32768],
    "depth": [3, 6],
    "epochs": 2,
    "batch_size": 16,
    "repetitions": 4,
}


@pytest.fixture
def slow_machine(kept_calibration):
    """A calibration of a machine that takes ten times as long for everything."""
    rates = (Rates(*(10 * rate for rate in rates)) for rates in cost.BUILT_IN)
    model = CostModel(*rates)
    slow = Calibration(model, "CPU", None, "2026-01-02T03:04:05+00:00", (1.0,) * len(PROBES))
    write_calibration(slow, kept_calibration)
    return model


def test_what_is_kept_is_used_by_plans_and_by_jobs(slow_machine, tmp_path):
    assert machine_cost_model() == find_calibration().model == slow_machine
    sweep = parse_sweep(SWEEP, "s.toml", CHECKS)
    plan = plan_experiments(sweep, cost_model=slow_machine)
    usual = plan_experiments(sweep)
    assert (plan.epoch_us > 5 * usual.epoch_us).all()
    assert plan[0].epoch_us(4) > 5 * usual[0].epoch_us(4)
    assert plan.experiment_ids == usual.experiment_ids
    job = launch.prepare_job(sweep, tmp_path / "out", None, lanes=1)
    assert job.total_work == pytest.approx(plan.work_us.sum())


def test_without_a_calibration_rates_are_those_that_come_along():
    assert find_calibration() is None
    assert machine_cost_model() == cost.BUILT_IN


def test_budgets_buy_in_the_same_order_on_every_machine():
    steps_are_dear = CostModel(*(rates._replace(step=500.0) for rates in cost.BUILT_IN))
    bought = []
    for model in (cost.BUILT_IN, steps_are_dear):
        whole = plan_experiments(parse_sweep(SWEEP, "s.toml", CHECKS), cost_model=model)
        for part in (0.25, 0.5, 0.8, 1.0):
            budget = f"{part * whole.core_h}core-h"
            selection = read_selection(None, None, budget, CHECKS)
            sweep = parse_sweep(SWEEP, "s.toml", CHECKS, selection=selection)
            plan = plan_experiments(sweep, cost_model=model)
            assert plan.core_h <= part * whole.core_h
            bought.append(set(plan.experiment_ids))
    bought.sort(key=len)
    assert len(set(map(len, bought))) > 2
    assert all(less <= more for less, more in itertools.pairwise(bought))


def test_the_command_keeps_what_it_measured(call, kept_calibration, monkeypatch):
    monkeypatch.setattr(
        calibration_module, "calibrate", lambda cpu_model, on_probe: calibrate(
            cpu_model, timed_with(PLANTED), on_probe
        )
    )  # fmt: skip
    code, out, _ = call("sweep", "calibrate")
    assert code == 0
    assert "fitted rates:   half of the steps within" in out
    assert out.splitlines()[-1] == str(kept_calibration)
    assert np.abs(errors_of(machine_cost_model())).max() < 0.05
    document = json.loads(call("sweep", "calibrate", "--json")[1])
    assert document["median_error"] < 0.05 < document["built_in_median_error"]
    assert document["alone"] == machine_cost_model().alone._asdict()


def test_a_calibration_that_cannot_be_kept_is_one_line(call, kept_calibration, monkeypatch):
    monkeypatch.setattr(
        calibration_module, "calibrate", lambda cpu_model, on_probe: calibrate(
            cpu_model, timed_with(PLANTED), on_probe
        )
    )  # fmt: skip
    kept_calibration.mkdir(parents=True)
    code, _, err = call("sweep", "calibrate")
    assert code == 2
    assert "cannot be written (Is a directory); let XDG_CACHE_HOME name a folder" in err
    monkeypatch.setattr(calibration_module, "calibration_path", lambda *_: None)
    code, _, err = call("sweep", "calibrate")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no folder for compiled kernels" in err
