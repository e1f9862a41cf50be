"""Which runs a fit may use."""

import numpy as np
import pandas as pd
import pytest

from minibutter.energy.model import ModelError, features_of, observe


@pytest.fixture
def small(fabricate):
    """Six experiments, two repetitions each; may be changed."""
    return fabricate(n_experiments=6, seed=3)


def label(tables, is_chosen, **columns):
    """The same tables with other columns in some runs and in their epochs."""
    runs, epochs = tables.runs.copy(), tables.epochs.copy()
    ids = runs.loc[is_chosen, "run_id"]
    for name, value in columns.items():
        runs.loc[is_chosen, name] = value
        epochs.loc[epochs["run_id"].isin(ids), name] = value
    return runs, epochs


def test_a_row_is_the_mean_epoch_of_all_repetitions(small):
    observed = observe(small.runs, small.epochs)
    assert observed.experiments == tuple(sorted(set(small.runs["experiment_id"])))
    assert set(observed.n_runs) == {2}
    for row, experiment_id in enumerate(observed.experiments):
        ids = small.runs.loc[small.runs["experiment_id"] == experiment_id, "run_id"]
        epochs = small.epochs[small.epochs["run_id"].isin(ids) & small.epochs["energy_j"].notna()]
        if len(epochs):
            assert observed.energy_j[row] == pytest.approx(epochs["energy_j"].mean())
            assert observed.duration_s[row] == pytest.approx(epochs["duration_s"].mean())


def test_epochs_too_short_for_the_counter_count_as_a_whole_run(small):
    unresolved = small.epochs.assign(
        energy_j=np.nan, energy_source=None, energy_quality="unavailable"
    )
    observed = observe(small.runs, unresolved)
    groups = small.runs.groupby("experiment_id")
    per_epoch = groups["energy_j"].sum() / groups["epochs_completed"].sum()
    assert observed.energy_j == pytest.approx(per_epoch.to_numpy())


@pytest.mark.parametrize("quality", ["unavailable", "modelled", "measured_shared"])
def test_energies_that_do_not_count_are_left_out_and_counted(small, quality):
    observed = observe(*label(small, [True, *[False] * 11], energy_quality=quality))
    assert observed.n_runs.sum() == 11
    assert observed.left_out == {f"energy is {quality}": 1}


@pytest.mark.parametrize("quality", ["measured_divided", "interpolated"])
def test_shares_and_interpolations_count(small, quality):
    observed = observe(*label(small, [True, *[False] * 11], energy_quality=quality))
    assert observed.n_runs.sum() == 12
    assert observed.qualities == {quality: 1, "measured": 11}


def test_shared_energies_count_only_if_asked_for(small):
    runs, epochs = label(small, slice(None), energy_quality="measured_shared")
    with pytest.raises(ModelError, match=r"12 runs\) hold work of other ranks.*--with-shared"):
        observe(runs, epochs)
    assert observe(runs, epochs, with_shared=True).n_runs.sum() == 12


def test_nothing_measured_is_refused_with_the_reason_of_the_runs(small):
    runs, epochs = label(
        small, slice(None), energy_j=np.nan, energy_source=None, energy_quality="unavailable"
    )
    runs["energy_reason"] = "there is no /sys/class/powercap"
    with pytest.raises(ModelError, match=r"no energy was measured in 12 runs \(there is no /sys"):
        observe(runs, epochs)


def test_zero_joules_are_no_measurement(small):
    runs, epochs = label(small, slice(None), energy_j=0.0)
    with pytest.raises(ModelError, match="no energy was measured"):
        observe(runs, epochs)


@pytest.mark.parametrize(
    "columns",
    [{"energy_source": "simulated:package"}, {"energy_quality": "simulated"}],
    ids=["source", "quality"],
)
def test_measured_and_simulated_are_not_mixed(small, columns):
    is_simulated = small.runs["experiment_id"] == "e0001"
    runs, epochs = label(small, is_simulated, **columns)
    with pytest.raises(ModelError, match=r"mixed \(10 measured, 2 simulated runs\); choose one"):
        observe(runs, epochs)
    measured = observe(runs, epochs, kind="measured")
    assert (measured.kind, "e0001" in measured.experiments) == ("measured", False)
    assert measured.left_out == {"energy is simulated, not measured": 2}
    simulated = observe(runs, epochs, kind="simulated")
    assert (simulated.kind, simulated.experiments) == ("simulated", ("e0001",))
    assert all(source.startswith("simulated") for source in simulated.sources)


def test_a_kind_that_is_not_there_is_refused(small):
    with pytest.raises(ModelError, match="no simulated energy here, only measured"):
        observe(small.runs, small.epochs, kind="simulated")
    with pytest.raises(ModelError, match="must be one of measured, simulated"):
        observe(small.runs, small.epochs, kind="guessed")


@pytest.mark.parametrize("column", ["flops_per_epoch", "traffic_l1_bytes"])
@pytest.mark.parametrize("is_absent", [True, False], ids=["absent", "null"])
def test_results_without_flops_or_bytes_are_refused_with_the_remedy(small, column, is_absent):
    runs = small.runs.drop(columns=column) if is_absent else small.runs.assign(**{column: np.nan})
    with pytest.raises(ModelError, match=r"older version.*run the sweep with this version"):
        observe(runs, small.epochs)


def test_single_runs_without_bytes_are_left_out_and_counted(small):
    runs = small.runs.copy()
    runs.loc[:1, "traffic_l1_bytes"] = np.nan
    observed = observe(runs, small.epochs)
    assert (len(observed), observed.n_runs.sum()) == (5, 10)
    assert observed.qualities == {"measured": 10}
    assert observed.left_out == {"no FLOPs and bytes are stored with the run": 2}


def test_failed_runs_are_left_out(small):
    runs = small.runs.copy()
    runs.loc[0, "status"] = "failed"
    assert observe(runs, small.epochs).left_out == {"the run failed": 1}


def test_a_level_that_the_machine_does_not_have_is_no_feature(small):
    runs = small.runs.assign(traffic_l3_bytes=np.nan)
    assert list(observe(runs, small.epochs).features.traffic_bytes) == ["l1", "l2", "dram"]


def test_other_executions_of_an_experiment_are_other_rows_of_it(small):
    runs = small.runs.copy()
    runs.loc[runs.index % 2 == 1, "lanes"] = 16
    observed = observe(runs, small.epochs)
    assert len(observed) == 12
    assert len(set(observed.experiments)) == 6
    shared = observe(small.runs.assign(energy_ranks=[1, 4] * 6), small.epochs)
    assert sorted(shared.static_ratio) == [0.25] * 6 + [1.0] * 6


def test_steps_follow_from_rows_and_batch(small):
    frame = small.runs.iloc[:3].assign(n_train=[100, 101, 50], batch_size=[50, 50, 256])
    frame["n_train"] = frame["n_train"].astype("Int32")  # As the store hands them out.
    assert list(features_of(frame).n_steps) == [2, 3, 1]


def test_plans_whose_bytes_are_not_known_are_refused(small):
    frame = small.runs.iloc[:3].assign(kernel=["tiled", "blas", "blas"])
    frame.loc[frame["kernel"] == "blas", "traffic_l1_bytes"] = np.nan
    with pytest.raises(ModelError, match=r"2 of 3 experiments are not known \(kernel blas\)"):
        features_of(frame)
    with pytest.raises(ModelError, match="3 of 3 experiments"):
        features_of(pd.DataFrame({"kernel": ["tiled"] * 3}))
