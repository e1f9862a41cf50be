"""Energy of sweeps that have not been run."""

import dataclasses

import numpy as np
import pytest

from minibutter.energy.model import (
    ModelError,
    Planned,
    features_of,
    fit_energy,
    observe,
    predict_energy,
)


@pytest.fixture(scope="module")
def model(fabricate, caches):
    tables = fabricate(spread=0.1)
    return fit_energy(observe(tables.runs, tables.epochs), caches, n_replicates=100)


def plan(runs, epochs=10, repetitions=3):
    """Runs, one an experiment, as what is to be run."""
    n = len(runs)
    return Planned(
        titles=[f"experiment {i}" for i in range(n)],
        features=features_of(runs),
        epochs=np.full(n, epochs),
        repetitions=np.full(n, repetitions),
    )


@pytest.fixture
def unseen(make_runs):
    """Twelve networks that were not fitted."""
    return make_runs(12, np.random.default_rng(99), repetitions=1)


def test_a_prediction_is_labelled_modelled_and_is_the_sum_of_its_experiments(model, unseen):
    prediction = predict_energy(model, plan(unseen))
    assert prediction.energy_quality == "modelled"
    parts = [each.energy_kwh for each in prediction.experiments]
    assert prediction.energy_kwh == pytest.approx(sum(parts))
    assert prediction.duration_s == pytest.approx(
        sum(each.duration_s for each in prediction.experiments)
    )
    assert prediction.low_kwh < prediction.energy_kwh < prediction.high_kwh
    assert 0 < prediction.static_kwh < prediction.energy_kwh


def test_a_prediction_comes_near_the_truth(model, unseen, true_energy_j):
    prediction = predict_energy(model, plan(unseen))
    truth_kwh = true_energy_j(unseen).sum() * 30 / 3.6e6
    assert prediction.energy_kwh == pytest.approx(truth_kwh, rel=0.35)


def test_epochs_and_repetitions_multiply(model, unseen):
    once = predict_energy(model, plan(unseen, epochs=1, repetitions=1))
    often = predict_energy(model, plan(unseen, epochs=7, repetitions=3))
    assert often.energy_kwh == pytest.approx(21 * once.energy_kwh)
    assert often.high_kwh == pytest.approx(21 * once.high_kwh)


def test_like_networks_share_their_error_so_that_it_does_not_average_out(model, unseen):
    one = unseen.iloc[[4]]
    single = predict_energy(model, plan(one))
    many = predict_energy(model, plan(one.loc[one.index.repeat(50)]))
    width = single.high_kwh / single.energy_kwh - single.low_kwh / single.energy_kwh
    assert many.high_kwh / many.energy_kwh - many.low_kwh / many.energy_kwh == pytest.approx(
        width, rel=0.1
    )


def test_intervals_of_90_percent_cover_about_90_percent(fabricate, make_runs, true_energy_j):
    """Of unseen experiments and of whole sweeps, on machines that obey the model up to 15 %."""
    n_trials, n_unseen = 30, 12
    experiments = sweeps = 0
    for trial in range(n_trials):
        tables = fabricate(n_experiments=40, seed=trial, repetitions=1, spread=0.15, run_s=0.5)
        model = fit_energy(observe(tables.runs, tables.epochs), seed=trial, n_replicates=40)
        rng = np.random.default_rng(1000 + trial)
        runs = make_runs(n_unseen, rng, repetitions=1)
        truth_j = true_energy_j(runs) * rng.lognormal(0, 0.15, n_unseen)
        prediction = predict_energy(model, plan(runs, 1, 1), seed=trial)
        truth_kwh = truth_j / 3.6e6
        experiments += sum(
            each.low_kwh <= kwh <= each.high_kwh
            for each, kwh in zip(prediction.experiments, truth_kwh, strict=True)
        )
        sweeps += prediction.low_kwh <= truth_kwh.sum() <= prediction.high_kwh
    assert 0.86 <= experiments / (n_trials * n_unseen) <= 0.95
    # Of 30 sweeps 27 are expected; fewer than 23 have a probability of 1 %.
    assert sweeps >= 23


def test_what_lies_beyond_the_fit_is_named(model, unseen):
    runs = unseen.copy()
    runs["depth"] = 5.0
    runs.loc[3, "depth"] = 100.0
    prediction = predict_energy(model, plan(runs))
    assert prediction.experiments[3].outside == ("depth",)
    assert any("1 of 12 experiments lie beyond what was fitted" in n for n in prediction.notes)


def test_a_kernel_that_was_not_measured_is_refused(model, unseen):
    with pytest.raises(ModelError, match=r"not seen naive float32, only tiled float32; fit one"):
        predict_energy(model, plan(unseen.assign(kernel="naive")))


def test_a_level_that_is_not_there_is_refused_if_the_model_needs_it(model, unseen):
    with pytest.raises(ModelError, match="bytes of level l3, which this machine does not have"):
        predict_energy(model, plan(unseen.drop(columns="traffic_l3_bytes")))


def test_every_kernel_has_its_own_speed(fabricate, make_runs, caches):
    tables = fabricate(n_experiments=40, repetitions=1)
    runs, epochs = tables.runs.copy(), tables.epochs.copy()
    slow = runs["experiment_id"] < "e0020"
    factor = np.where(slow, 10.0, 1.0)
    runs["kernel"] = np.where(slow, "naive", "tiled")
    for name in ("duration_s", "energy_j"):
        runs[name] *= factor
        epochs[name] *= epochs["run_id"].map(dict(zip(runs["run_id"], factor, strict=True)))
    model = fit_energy(observe(runs, epochs), caches, n_replicates=20)
    unseen = make_runs(10, np.random.default_rng(5), repetitions=1)
    naive, tiled = (
        predict_energy(model, plan(unseen.assign(kernel=kernel))).duration_s
        for kernel in ("naive", "tiled")
    )
    assert 4 < naive / tiled < 20


def test_without_replicates_there_is_no_interval_and_a_note(model, unseen):
    prediction = predict_energy(dataclasses.replace(model, replicates=None), plan(unseen))
    assert (prediction.low_kwh, prediction.experiments[0].high_kwh) == (None, None)
    assert any("too few experiments for an interval" in note for note in prediction.notes)


def test_a_model_of_simulated_energies_says_so(model, unseen):
    prediction = predict_energy(dataclasses.replace(model, kind="simulated"), plan(unseen))
    assert prediction.kind == "simulated"
    assert any("says nothing about a machine" in note for note in prediction.notes)
