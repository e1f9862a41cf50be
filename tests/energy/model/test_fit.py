"""The whole fit, on tables whose coefficients are known."""

import dataclasses
import json

import numpy as np
import pytest

from minibutter.energy.model import ModelError, fit_energy, model_from_json, observe, to_json
from minibutter.energy.model.forms import butter_e_design, level_of

FEW = {"n_replicates": 20}


@pytest.fixture(scope="module")
def observed(tables):
    return observe(tables.runs, tables.epochs)


@pytest.fixture(scope="module")
def model(observed, caches):
    return fit_energy(observed, caches, n_replicates=100)


def test_planted_coefficients_are_recovered_within_3_percent_with_ticks_of_1_ms(model, planted):
    for term, value in planted.items():
        assert model.hierarchy.value(term) == pytest.approx(value, rel=0.03), term


def test_intervals_hold_their_values(model):
    for coefficient in model.hierarchy.coefficients:
        assert 0 <= coefficient.low <= coefficient.value <= coefficient.high
        assert coefficient.reason is None


def test_the_hierarchy_predicts_experiments_left_out_better_than_the_forms_beside_it(model):
    names = [form.name for form in model.forms]
    assert names == ["hierarchy", "butter_e", "flops", "time"]
    errors = [form.held_out.mape for form in model.forms]
    assert errors[0] < 0.01 < 0.05 < min(errors[1:])
    assert model.hierarchy.held_out.r2 > 0.999
    assert model.hierarchy.held_out.within_10_percent == 1


def test_the_same_seed_gives_the_same_model(observed, caches):
    assert fit_energy(observed, caches, **FEW) == fit_energy(observed, caches, **FEW)


def test_a_model_survives_json_bit_for_bit(model):
    text = to_json(model)
    assert model_from_json(text) == model
    assert json.loads(text)["kind"] == "measured"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[:100], "no energy model"),
        (lambda text: "[1, 2]", "no energy model"),
        (lambda text: text.replace('"version": 2', '"version": 99'), "version 99, not 2"),
        (lambda text: text.replace('"n_runs": 120', '"n_runs": "many"'), "damaged.*'many'"),
        (lambda text: text.replace('"forms"', '"shapes"'), "damaged.*forms"),
    ],
    ids=["cut", "other", "version", "type", "key"],
)
def test_what_is_no_model_is_refused_with_the_remedy(model, spoil, message):
    with pytest.raises(ModelError, match=message) as refused:
        model_from_json(spoil(to_json(model)))
    assert "minibutter energy fit" in str(refused.value)


def test_an_experiment_left_out_leaves_no_trace_in_its_own_prediction(observed, caches):
    # Spoil the joules of one experiment in all its executions: its prediction must not move.
    chosen = observed.experiments[7]
    is_chosen = np.array([name == chosen for name in observed.experiments])
    spoilt = dataclasses.replace(
        observed, energy_j=np.where(is_chosen, 5 * observed.energy_j, observed.energy_j)
    )
    before, after = (
        {row.experiment_id: row for row in fit_energy(each, caches, **FEW).rows}
        for each in (observed, spoilt)
    )
    fold_of_60 = before[chosen].held_out_j
    assert after[chosen].held_out_j == pytest.approx(fold_of_60, rel=1e-9)
    assert after[chosen].predicted_j > 1.001 * before[chosen].predicted_j


def test_all_executions_of_an_experiment_are_left_out_together(tables, caches):
    runs = tables.runs.copy()
    runs.loc[runs.index % 2 == 1, "lanes"] = 8
    observed = observe(runs, tables.epochs)
    chosen = np.array(observed.experiments) == observed.experiments[0]
    assert chosen.sum() == 2
    one = np.flatnonzero(chosen)[0]
    factors = np.ones(len(observed))
    factors[one] = 5.0
    spoilt = dataclasses.replace(observed, energy_j=observed.energy_j * factors)
    before, after = (fit_energy(each, caches, **FEW).rows for each in (observed, spoilt))
    for row in np.flatnonzero(chosen):
        assert after[row].held_out_j == pytest.approx(before[row].held_out_j, rel=1e-9)


def test_ranks_that_share_a_package_share_its_static_power(
    fabricate, caches, planted, true_energy_j
):
    tables = fabricate(n_experiments=40, repetitions=1)
    runs = tables.runs.assign(energy_ranks=[1, 2] * 20)
    static_j = planted["static_power_w"] * runs["true_seconds"]
    total_j = static_j / runs["energy_ranks"] + true_energy_j(runs) - static_j
    factors = (total_j / true_energy_j(runs)).set_axis(runs["run_id"])
    epochs = tables.epochs.assign(
        energy_j=tables.epochs["energy_j"] * tables.epochs["run_id"].map(factors)
    )
    runs["energy_j"] *= factors.to_numpy()
    model = fit_energy(observe(runs, epochs), caches, **FEW)
    for term, value in planted.items():
        assert model.hierarchy.value(term) == pytest.approx(value, rel=0.03), term
    wrong = fit_energy(observe(runs.drop(columns="energy_ranks"), epochs), caches, **FEW)
    assert wrong.hierarchy.value("static_power_w") < 0.9 * planted["static_power_w"]


def test_static_power_and_flops_of_a_constant_speed_are_merged_and_said_so(fabricate, caches):
    tables = fabricate(n_experiments=30)
    flops = tables.runs["true_seconds"] * 40e9
    observed = observe(tables.runs.assign(flops_per_epoch=flops), tables.epochs)
    # Exactly, without the jitter of the clock.
    observed = dataclasses.replace(observed, duration_s=observed.features.flops / 40e9)
    model = fit_energy(observed, caches, **FEW)
    (merged,) = model.hierarchy.merged
    assert (merged.term, merged.into) == ("energy_per_flop_j", ("static_power_w",))
    flop = model.hierarchy.coefficients[1]
    assert (flop.value, flop.low, flop.high) == (None, None, None)
    assert flop.reason == "cannot be told from static_power_w"
    assert any("energy_per_flop_j cannot be told from the other" in n for n in model.notes)
    assert model.hierarchy.held_out.mape < 0.3


def test_terms_that_are_nearly_proportional_are_stated(observed, caches):
    rng = np.random.default_rng(1)
    speed = 40e9 * (1 + 0.02 * rng.uniform(-1, 1, len(observed)))
    alike = dataclasses.replace(observed, duration_s=observed.features.flops / speed)
    model = fit_energy(alike, caches, **FEW)
    assert model.hierarchy.merged == ()
    assert model.hierarchy.condition_index > 30
    (named,) = model.hierarchy.dependences
    assert named.terms == ("static_power_w", "energy_per_flop_j")
    assert any("hard to tell apart" in note for note in model.notes)


def test_one_configuration_gives_a_power_and_no_more(fabricate, caches):
    tables = fabricate(n_experiments=1, repetitions=5)
    model = fit_energy(observe(tables.runs, tables.epochs), caches)
    first, *others = model.hierarchy.coefficients
    mean_w = tables.runs["energy_j"].sum() / tables.runs["duration_s"].sum()
    assert first.value == pytest.approx(mean_w, rel=0.02)
    assert (first.low, first.high) == (None, None)
    assert "fewer than 5 experiments" in first.reason
    assert [other.value for other in others] == [None] * len(others)
    assert model.hierarchy.held_out is None
    assert model.replicates is None
    assert model.hierarchy.fitted.r2 is None
    assert model_from_json(to_json(model)) == model


def test_a_level_that_nothing_reaches_has_no_coefficient_and_a_reason(tables, caches):
    runs = tables.runs.assign(traffic_dram_bytes=0.0)
    model = fit_energy(observe(runs, tables.epochs), caches, **FEW)
    dram = model.hierarchy.coefficients[-1]
    assert (dram.term, dram.value) == ("energy_per_dram_byte_j", None)
    assert dram.reason == "none in any row"


def test_residuals_by_level_count_every_configuration_once(model, caches):
    assert [each.level for each in model.residuals] == ["l1", "l2", "l3", "dram"]
    assert sum(each.n_configurations for each in model.residuals) == 60
    for row in model.rows:
        assert (row.level == "l1") == (row.working_set_bytes <= caches["l1"])


def test_without_caches_what_needs_them_is_left_out_with_a_note(observed):
    model = fit_energy(observed, None, **FEW)
    assert [form.name for form in model.forms] == ["hierarchy", "flops", "time"]
    assert model.residuals == ()
    assert any("caches of the measured machine are not known" in note for note in model.notes)


def test_several_processors_and_shared_energies_are_noted(tables, caches):
    runs, epochs = tables.runs.copy(), tables.epochs
    runs.loc[:9, "cpu_model"] = "another processor"
    epochs = epochs.assign(
        energy_quality=epochs["energy_quality"].replace("measured", "measured_shared")
    )
    runs["energy_quality"] = runs["energy_quality"].replace("measured", "measured_shared")
    notes = " ".join(fit_energy(observe(runs, epochs, with_shared=True), caches, **FEW).notes)
    assert "2 processors are fitted together" in notes
    assert "ranks shared" in notes


def test_a_working_set_belongs_to_the_first_level_whose_caches_hold_it_together():
    caches = {"l1": 100, "l2": 1000}
    sizes = np.array([0.0, 100.0, 101.0, 1100.0, 1101.0])
    assert level_of(sizes, caches) == ("l1", "l1", "l2", "l2", "dram")


def test_the_form_of_butter_e_counts_the_bytes_beyond_the_nearer_caches(observed):
    caches = {"l1": 32768, "l2": 524288}
    design = butter_e_design(observed.features, caches)
    n_train, bytes_ = observed.features.n_train, observed.features.working_set_bytes["parameter"]
    columns = dict(zip(design.names, design.matrix.T, strict=True))
    assert len(columns) == 3 + 4 * 3
    assert (columns["energy_per_datum_and_layer_j"] == n_train * observed.features.depth).all()
    for level, nearer in (("l1", 0), ("l2", 32768), ("dram", 32768 + 524288)):
        expected = n_train * np.maximum(bytes_ - nearer, 0)
        assert columns[f"parameter_from_{level}_j"] == pytest.approx(expected)
