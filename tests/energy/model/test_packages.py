"""Fits to energies of packages that several ranks used at once."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from minibutter.energy.model import (
    ModelError,
    Planned,
    features_of,
    fit_energy,
    model_from_json,
    observe,
    predict_energy,
    to_json,
)
from minibutter.energy.model.features import is_known
from minibutter.energy.model.forms import butter_e_design

FEW = {"n_replicates": 20}
NEW_COLUMNS = ["energy_mode", "energy_package_j", "boot_id", "package", "begun_ns", "ended_ns"]


@pytest.fixture(scope="module")
def shared(share_packages):
    """40 experiments on two packages with four ranks each; not to be changed."""
    return share_packages()


@pytest.fixture(scope="module")
def gangs(share_packages):
    """The repetitions of an experiment side by side, with unequal ends; not to be changed."""
    return share_packages(is_gang=True, repetitions=4)


@pytest.fixture(scope="module")
def model(shared, caches):
    return fit_energy(observe(shared.runs, shared.epochs), caches, **FEW)


def as_single_runs(runs):
    """The same energies as an older version stores them: a share counts as what was measured."""
    return runs.drop(columns=NEW_COLUMNS).assign(energy_quality="measured")


def errors_of(model, planted):
    """Relative errors of the coefficients."""
    return np.array([model.hierarchy.value(term) / value - 1 for term, value in planted.items()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_boots": 3},
        {"n_packages": 1, "n_ranks": 16},
        {"is_gang": True, "repetitions": 4},
        {"lanes": 3},
    ],
    ids=["packages", "boots", "many ranks", "gangs", "lanes"],
)
def test_planted_coefficients_come_back_to_the_last_digits_from_ranks_that_overlap(
    share_packages, planted, options
):
    tables = share_packages(**options)
    observed = observe(tables.runs, tables.epochs)
    assert observed.left_out == {}
    assert np.abs(errors_of(fit_energy(observed, **FEW), planted)).max() < 1e-8


@pytest.mark.parametrize(("name", "least"), [("shared", 0.5), ("gangs", 0.2)])
def test_a_fit_to_the_shares_of_the_same_ranks_is_far_off(request, planted, name, least):
    tables = request.getfixturevalue(name)
    naive = fit_energy(observe(as_single_runs(tables.runs), tables.epochs), **FEW)
    assert np.abs(errors_of(naive, planted)).max() > least


def test_ranks_that_are_bound_to_no_package_are_fitted_to_all_packages(share_packages, planted):
    tables = share_packages(n_packages=1)
    runs = tables.runs.assign(package=pd.NA).astype({"package": "Int32"})
    model = fit_energy(observe(runs, tables.epochs), **FEW)
    assert np.abs(errors_of(model, planted)).max() < 1e-8


def test_runs_of_several_packages_are_left_out_where_others_are_of_one(share_packages, planted):
    tables = share_packages(n_packages=1, n_boots=2)
    runs = tables.runs.astype({"package": "Int32"})
    is_unbound = runs["boot_id"] == "boot 1"
    runs.loc[is_unbound, "package"] = pd.NA
    # As the energies of two packages are, of which one is idle.
    idle_j = planted["static_power_w"] * runs.loc[is_unbound, "duration_s"]
    runs.loc[is_unbound, "energy_package_j"] += idle_j
    for mode in ("shared", "alone"):
        observed = observe(runs.assign(energy_mode=mode, energy_quality="measured"), tables.epochs)
        reason = "its energy is that of several packages, and others here are of one"
        assert observed.left_out == {reason: is_unbound.sum()}
    observed = observe(runs, tables.epochs)
    assert np.abs(errors_of(fit_energy(observed, **FEW), planted)).max() < 1e-8


def test_runs_alone_and_runs_side_by_side_are_fitted_together(fabricate, shared, planted):
    alone = fabricate(n_experiments=20, seed=8)
    runs = pd.concat(
        [
            alone.runs.assign(
                experiment_id="alone " + alone.runs["experiment_id"],
                run_id="alone " + alone.runs["run_id"],
                energy_mode="alone",
            ),
            shared.runs,
        ],
        ignore_index=True,
    )
    epochs = alone.epochs.assign(run_id="alone " + alone.epochs["run_id"])
    observed = observe(runs, epochs)
    assert observed.is_package.sum() == 40
    assert observed.composition.n_mixed[~observed.is_package] == pytest.approx(1)
    model = fit_energy(observed, **FEW)
    assert np.abs(errors_of(model, planted)).max() < 0.03  # Ticks of 1 ms are in those alone.
    assert {row.own_share for row in model.rows if row.experiment_id.startswith("alone")} == {1.0}


def test_an_observation_is_the_energy_of_the_package_beside_all_work_of_its_time(shared):
    runs = shared.runs.iloc[:2].copy()
    runs["boot_id"], runs["package"] = "a", 0
    runs["begun_ns"], runs["ended_ns"] = [0, 5 * 10**9], [10 * 10**9, 25 * 10**9]
    runs["experiment_id"] = ["first", "second"]
    runs["epochs_completed"], runs["duration_s"] = [10, 40], [10.0, 20.0]
    runs["flops_per_epoch"], runs["energy_package_j"] = [7e9, 3e9], [500.0, 900.0]
    observed = observe(runs, shared.epochs)
    work = observed.composition.work(observed.features)
    assert list(observed.energy_j) == [50.0, 22.5]
    assert list(observed.duration_s) == [1.0, 0.5]
    assert list(work.flops) == [(10 * 7e9 + 0.25 * 40 * 3e9) / 10, (40 * 3e9 + 0.5 * 70e9) / 40]
    assert list(observed.features.flops) == [7e9, 3e9]
    assert observed.qualities == {"measured_package": 2}


def test_shifting_all_stamps_of_a_boot_changes_nothing(shared, caches, model):
    moved = shared.runs.assign(
        begun_ns=shared.runs["begun_ns"] + 12345678901234567,
        ended_ns=shared.runs["ended_ns"] + 12345678901234567,
    )
    assert fit_energy(observe(moved, shared.epochs), caches, **FEW) == model


def test_a_neighbour_that_is_split_into_two_changes_nothing(shared):
    runs = shared.runs.copy()
    neighbours = runs.index[::3]
    runs.loc[neighbours, "energy_quality"] = "unavailable"
    runs.loc[neighbours, "epochs_completed"] *= 2
    whole = observe(runs, shared.epochs)
    halves = [runs.loc[neighbours].copy() for _ in range(2)]
    middle = (halves[0]["begun_ns"] + halves[0]["ended_ns"]) // 2
    halves[0]["ended_ns"], halves[1]["begun_ns"] = middle, middle
    for number, half in enumerate(halves):
        half["epochs_completed"] //= 2
        half["duration_s"] /= 2
        half["run_id"] += f" half {number}"
    split = observe(pd.concat([runs.drop(neighbours), *halves]), shared.epochs)
    assert (split.energy_j == whole.energy_j).all()
    before, after = (each.composition.work(each.features) for each in (whole, split))
    assert after.flops == pytest.approx(before.flops, rel=1e-8)  # Halves to the nanosecond.
    assert after.traffic_bytes["l1"] == pytest.approx(before.traffic_bytes["l1"], rel=1e-8)
    assert split.composition.n_mixed == pytest.approx(whole.composition.n_mixed, rel=1e-8)


def test_the_order_of_the_runs_changes_nothing_but_rounding(shared, planted):
    shuffled = shared.runs.sample(frac=1, random_state=3)
    model = fit_energy(observe(shuffled, shared.epochs), **FEW)
    assert np.abs(errors_of(model, planted)).max() < 1e-8


@pytest.mark.parametrize(
    ("column", "value", "own_reason", "neighbours_reason"),
    [
        (
            "traffic_l1_bytes",
            np.nan,
            "no FLOPs and bytes are stored with the run",
            "it ran beside a run whose FLOPs or bytes are not known",
        ),
        (
            "cache_state",
            "cold",
            "caches were emptied between its epochs, and joules of its package went there",
            "it ran beside a run whose FLOPs or bytes are not known",
        ),
        (
            "package",
            None,
            None,
            "it ran beside a run that could use other packages, too",
        ),
    ],
    ids=["blas", "cold", "unbound"],
)
def test_who_runs_beside_work_that_is_not_known_is_left_out_and_counted(
    shared, planted, column, value, own_reason, neighbours_reason
):
    runs = shared.runs.astype({"package": "Int32"})
    chosen = runs.index[5]
    begun_ns, ended_ns = runs["begun_ns"], runs["ended_ns"]
    beside = (
        (begun_ns < ended_ns[chosen])
        & (ended_ns > begun_ns[chosen])
        & (runs["package"] == runs.loc[chosen, "package"])
        & (runs.index != chosen)
    )
    either = (begun_ns < ended_ns[chosen]) & (ended_ns > begun_ns[chosen])
    n_beside = int(beside.sum() if column != "package" else either.sum() - 1)
    assert n_beside >= 3
    runs.loc[chosen, column] = value
    if column == "package":
        runs.loc[chosen, "energy_package_j"] = np.nan  # It would be that of both.
        own_reason = "the energy of its package, or its begin and end, are not known"
        runs.loc[chosen, "energy_quality"] = "measured"
    observed = observe(runs, shared.epochs)
    assert observed.left_out == {own_reason: 1, neighbours_reason: n_beside}
    assert observed.n_runs.sum() == len(runs) - 1 - n_beside
    assert np.abs(errors_of(fit_energy(observed, **FEW), planted)).max() < 1e-8


def test_a_table_of_which_nothing_can_be_explained_is_refused_with_the_reasons(shared):
    runs = shared.runs.assign(foreign_load=0.5)
    with pytest.raises(ModelError, match=r"no run is left to fit \(120 runs: other processes took"):
        observe(runs, shared.epochs)


def test_runs_beside_a_load_of_other_processes_are_left_out_and_counted(shared, tables):
    runs = shared.runs.copy()
    runs.loc[:6, "foreign_load"] = 0.03
    runs.loc[7:9, "foreign_load"] = np.nan  # Not known.
    reason = "other processes took more than 2 % of the processors"
    assert observe(runs, shared.epochs).left_out == {reason: 7}
    alone = tables.runs.assign(foreign_load=[0.03, *[0.02] * 119])
    assert observe(alone, tables.epochs).left_out == {reason: 1}


def test_simulated_energies_know_no_other_processes_and_tell_shares_by_their_mode(shared, planted):
    runs = shared.runs.assign(
        energy_source="simulated:package", energy_quality="simulated", foreign_load=0.5
    )
    observed = observe(runs, shared.epochs)
    assert (observed.kind, observed.left_out) == ("simulated", {})
    assert observed.qualities == {"simulated_package": 120}
    assert np.abs(errors_of(fit_energy(observed, **FEW), planted)).max() < 1e-8
    alone = observe(runs.assign(energy_mode="alone"), shared.epochs)
    assert alone.qualities == {"simulated": 120}
    assert not alone.is_package.any()


@pytest.mark.parametrize("column", ["energy_package_j", "boot_id", "begun_ns"])
def test_shares_of_packages_that_are_not_known_do_not_count(shared, column):
    runs = shared.runs.copy()
    runs["energy_quality"] = "measured_divided"
    runs[column] = runs[column].astype(object)
    runs.loc[0, column] = None
    left_out = observe(runs, shared.epochs).left_out
    assert left_out == {"the energy of its package, or its begin and end, are not known": 1}
    with pytest.raises(ModelError, match=r"\(120 runs\) are shares of packages, and the energy of"):
        observe(runs.drop(columns=column), shared.epochs)


def test_energies_of_shared_packages_without_the_new_columns_count_as_before(shared):
    runs = shared.runs.drop(columns=NEW_COLUMNS)
    with pytest.raises(ModelError, match=r"120 runs\) hold work of other ranks.*--with-shared"):
        observe(runs, shared.epochs)
    observed = observe(runs, shared.epochs, with_shared=True)
    assert observed.qualities == {"measured_shared": 120}
    assert not observed.is_package.any()
    unexplained = shared.runs.assign(energy_package_j=np.nan)
    assert observe(unexplained, shared.epochs, with_shared=True).qualities == observed.qualities


@pytest.mark.parametrize("quality", ["modelled", "unavailable"])
def test_packages_whose_energy_another_model_gave_do_not_count(shared, quality):
    runs = shared.runs.copy()
    runs.loc[:9, "energy_quality"] = quality
    assert observe(runs, shared.epochs).left_out == {f"energy is {quality}": 10}


def test_stopped_runs_have_worked_and_failed_runs_have_not(shared, planted):
    runs = shared.runs.copy()
    runs.loc[:4, "status"] = "stopped"
    failed = runs.iloc[:3].assign(
        run_id=["x", "y", "z"],
        status="failed",
        epochs_completed=0,
        energy_quality="unavailable",
        begun_ns=pd.NA,
        ended_ns=pd.NA,
    )
    runs = pd.concat([runs, failed.astype({"begun_ns": "Int64", "ended_ns": "Int64"})])
    observed = observe(runs, shared.epochs)
    assert observed.left_out == {"the run failed": 3}
    assert np.abs(errors_of(fit_energy(observed, **FEW), planted)).max() < 1e-8


def test_the_form_of_butter_e_adds_up_what_ran_side_by_side(shared, caches, package_energies):
    runs = shared.runs
    assert is_known(runs).all()
    design = butter_e_design(features_of(runs), caches)
    work_j = design.matrix @ np.linspace(1, 2, len(design.terms)) / design.matrix.mean(axis=0).sum()
    package_j, _ = package_energies(runs, work_j * runs["epochs_completed"].to_numpy(), 0.0)
    runs = runs.assign(energy_package_j=package_j)
    model = fit_energy(observe(runs, shared.epochs), caches, **FEW)
    hierarchy, butter_e = model.forms[:2]
    assert butter_e.fitted.mape < 1e-6 < 1e-3 < hierarchy.fitted.mape


def test_seconds_and_ranges_are_those_of_single_runs(shared, caches, model):
    alone = shared.runs.assign(energy_mode="alone", energy_quality="measured")
    expected = fit_energy(observe(alone, shared.epochs), caches, **FEW)
    assert model.ranges == expected.ranges
    for mine, other in zip(
        model.duration.coefficients, expected.duration.coefficients, strict=True
    ):
        assert mine == other


def test_the_experiments_in_an_energy_are_counted_by_their_time(shared, gangs):
    mixed = observe(shared.runs, shared.epochs).composition.n_mixed
    assert 3 < mixed.min() < mixed.max() < 13  # Three repetitions, each beside three others.
    assert observe(gangs.runs, gangs.epochs).composition.n_mixed == pytest.approx(1)


def test_intervals_are_wider_where_an_energy_holds_several_experiments(share_packages):
    tables = share_packages(spread=0.1)
    observed = observe(tables.runs, tables.epochs)
    one = np.zeros_like(observed.composition.experiments)
    as_one = dataclasses.replace(
        observed, composition=dataclasses.replace(observed.composition, experiments=one)
    )
    wide, narrow = (fit_energy(each, n_replicates=50) for each in (observed, as_one))
    factor = np.sqrt(observed.composition.n_mixed.mean())
    assert factor > 2
    for mine, other in zip(wide.hierarchy.coefficients, narrow.hierarchy.coefficients, strict=True):
        assert mine.value == other.value
        assert mine.high - mine.value == pytest.approx(factor * (other.high - other.value))
    assert wide.duration == narrow.duration
    # A model misses more of one experiment than of a package with many: predictions are told.
    more = np.subtract(wide.replicates.log_ratios, narrow.replicates.log_ratios)
    missed = np.array([np.log(row.energy_j / row.held_out_j) for row in wide.rows])
    assert more == pytest.approx(missed * (np.sqrt(observed.composition.n_mixed) - 1))


def test_a_share_of_a_gang_is_an_nth_and_what_a_row_has_of_a_package_is_less_than_all(
    gangs, model, caches
):
    of_gangs = fit_energy(observe(gangs.runs, gangs.epochs), caches, **FEW)
    shares = np.array([row.own_share for row in of_gangs.rows])
    assert shares.min() > 0.25  # The last to end was alone for a while.
    assert shares.mean() == pytest.approx(0.25, rel=0.3)
    shares = np.array([row.own_share for row in model.rows])
    assert ((shares > 0) & (shares < 1)).all()
    assert model_from_json(to_json(model)) == model


def test_shares_of_all_runs_add_up_to_what_the_package_took(shared, planted, package_energies):
    runs = shared.runs.assign(experiment_id=shared.runs["run_id"])  # A row a run.
    observed = observe(runs, shared.epochs)
    model = fit_energy(observed, **FEW)
    own_j = sum(
        row.energy_j * row.own_share * epochs
        for row, epochs in zip(model.rows, runs["epochs_completed"], strict=True)
    )
    busy_j = 0.0
    for _, of_package in runs.groupby(["boot_id", "package"]):
        stamps = np.unique(of_package[["begun_ns", "ended_ns"]])
        is_busy = [
            ((of_package["begun_ns"] <= stamp) & (of_package["ended_ns"] > stamp)).any()
            for stamp in stamps[:-1]
        ]
        busy_j += planted["static_power_w"] * (np.diff(stamps) * is_busy).sum() / 1e9
    columns = ["flops_per_epoch", *(f"traffic_{level}_bytes" for level in ("l1", "l2", "l3"))]
    columns.append("traffic_dram_bytes")
    per_epoch_j = runs[columns].to_numpy() @ np.array(list(planted.values())[1:])
    work_j = per_epoch_j @ runs["epochs_completed"]
    assert own_j == pytest.approx(busy_j + work_j, rel=0.02)  # Shares of time, not of moments.


def test_a_reader_is_told_what_was_fitted(model, gangs, caches):
    notes = " ".join(model.notes)
    assert "120 runs were not alone on their package: its whole energy is fitted" in notes
    assert "such an energy holds" in notes
    of_gangs = fit_energy(observe(gangs.runs, gangs.epochs), caches, **FEW)
    assert not any("such an energy holds" in note for note in of_gangs.notes)


def test_predictions_are_of_runs_alone_and_say_where_their_seconds_come_from(
    model, make_runs, planted
):
    unseen = make_runs(12, np.random.default_rng(99), repetitions=1)
    features = features_of(unseen)
    one = np.ones(12)
    prediction = predict_energy(model, Planned([""] * 12, features, one, one))
    seconds = np.array([each.duration_s for each in prediction.experiments])
    moved = np.column_stack([features.flops, *features.traffic_bytes.values()])
    joules = planted["static_power_w"] * seconds + moved @ np.array(list(planted.values())[1:])
    assert prediction.energy_kwh * 3.6e6 == pytest.approx(joules.sum(), rel=1e-6)
    assert any("seconds were measured of runs beside each other" in n for n in prediction.notes)
