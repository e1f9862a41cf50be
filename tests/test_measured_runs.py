"""Runs with `measure` and `batch_rule`: columns of their noise, and batches that follow it."""

import re

import numpy as np
import pandas as pd
import pytest

from minibutter import launch, runs, store
from minibutter.experiments import plan_experiments
from minibutter.launch import sweep as sweep_module
from minibutter.launch.node import Node
from minibutter.launch.verify import verify
from minibutter.nn.moments import ExampleMoments
from minibutter.noise_columns import NOISE_COLUMNS
from minibutter.noise_scale.adaptive import AdaptiveBatch
from minibutter.studies.noise_scale.measure import measure_noise
from minibutter.sweeps.spec import parse_sweep
from tests.executions import bits, execute, execute_group
from tests.partners import on_ranks

MEASURED = {"measure": ("noise_scale",)}
ADAPTIVE = MEASURED | {
    "batch_rule": "noise_scale",
    "batch_exchange_rate": 300.0,
    "batch_size": 8,
    "batch_size_max": 100,
    "learning_rate": 0.02,
    "epochs": 6,
}
FROZEN = {"optimizer": "sgd", "learning_rate": 1e-12, "dtype": "float64"}


def without_noise(epochs):
    kept = {
        name: column
        for name, column in epochs.items()
        if name not in (*store.MEASURED_EPOCH_COLUMNS, *NOISE_COLUMNS)
    }
    return {
        name: column if isinstance(column, list) else column.tobytes()
        for name, column in kept.items()
    }


# ---------------------------------------------------------------------------------------------
# Columns


OPTIONS = {
    "usual": {},
    "float64": {"dtype": "float64"},
    "evaluated": {"evaluate_train": True, "label_noise": 0.2, "l2": 0.001},
    "by lot": {"sampling": "replacement"},
    "widths": {"initializer": "gaussian", "parameterization": "ntk", "learning_rate": 0.1},
    "schedule": {"learning_rate_step_epochs": 1},
    "rung": {"kernel": "blocked"},
    "sliced": {"slices": 4},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_measuring_changes_no_bit_of_another_column(plan, name):
    plain, measured = plan(**OPTIONS[name]), plan(**OPTIONS[name], **MEASURED)
    assert measured.experiment_id != plain.experiment_id
    without, beside = execute(plain, 1), execute(measured, 1)
    assert without_noise(beside.epochs) == without_noise(without.epochs)
    assert (without.run["measure"], beside.run["measure"]) == (None, "noise_scale")
    assert all(without.epochs[column] == [None] * 3 for column in NOISE_COLUMNS)
    assert set(beside.epochs["noise_state"]) <= {"resolved", "lower bound", "upper bound"}
    assert np.isfinite(beside.epochs["noise_trace"]).all()


def test_every_run_says_how_many_rows_and_steps_its_epochs_had(plan):
    epochs = execute(plan(epochs=2)).epochs
    assert epochs["batch_size_used"].tolist() == [16, 16]
    assert epochs["steps"].tolist() == [8, 8]


@pytest.mark.parametrize("changes", [{}, {"slices": 4}], ids=["rows", "slices"])
def test_columns_agree_with_a_measurement_at_the_same_parameters(plan, changes):
    network = {"dataset": "digits", "size": None, "depth": None, "widths": (32, 10)}
    experiment = plan(**network, batch_size=32, epochs=20, **FROZEN, **MEASURED, **changes)
    start = runs.prepare(experiment, 0, runs.find_data(experiment, None))
    rows = start.data.x_train, start.data.y_train
    found = measure_noise(ExampleMoments(experiment.network), start.parameters, *rows)
    trace = found.population.total.trace
    signal = found.empirical.total.squared_gradient
    epochs = pd.DataFrame({name: execute(experiment).epochs[name] for name in NOISE_COLUMNS})
    # Every epoch draws other batches of the same rows.
    for name, expected in (("noise_trace", trace), ("noise_squared_gradient", signal)):
        assert abs(epochs[name].mean() - expected) < 4 * epochs[name].sem()
        assert epochs[name].sem() < 0.1 * expected
    low = epochs["noise_simple_scale_low"].fillna(0.0)
    high = epochs["noise_simple_scale_high"].fillna(np.inf)
    assert low.lt(trace / signal).sum() >= 18
    assert high.gt(trace / signal).sum() >= 18
    ratio = epochs["noise_trace"] / epochs["noise_squared_gradient"]
    assert epochs["noise_simple_scale"].tolist() == ratio.tolist()


@pytest.fixture
def with_zero_parameters(monkeypatch):
    """Then nothing but the biases of the output have gradients, and these estimate a mean: that of
    the example i is a constant times 1/2 - y_i."""
    prepare = runs.prepare

    def prepare_zeros(*arguments):
        start = prepare(*arguments)
        start.parameters[:] = 0
        return start

    monkeypatch.setattr(runs, "prepare", prepare_zeros)
    return prepare


def planted_scale(experiment, prepare):
    """Σ of the targets around their mean, over how far this is from 1/2."""
    y = prepare(experiment, 0, runs.find_data(experiment, None)).data.y_train
    return y.var(ddof=1) / (0.5 - y.mean()) ** 2


def test_the_noise_scale_of_estimating_a_mean_is_found(plan, with_zero_parameters):
    task = {"dataset": "breast_cancer", "epochs": 1, **FROZEN, **MEASURED}
    whole = plan(**task, batch_size=455)
    scale = planted_scale(whole, with_zero_parameters)
    assert 5 < scale < 50
    epochs = execute(whole).epochs
    assert epochs["noise_simple_scale"] == [pytest.approx(scale, rel=1e-9)]
    assert epochs["noise_simple_scale_low"] == epochs["noise_simple_scale_high"]
    assert (epochs["noise_state"], epochs["steps"].tolist()) == (["resolved"], [1])
    parts = plan(**task, batch_size=35)
    scale = planted_scale(parts, with_zero_parameters)
    (low,), (high,) = (
        execute(parts).epochs[f"noise_simple_scale_{end}"] for end in ("low", "high")
    )
    assert low < scale < high


def test_a_run_that_diverges_is_measured_to_its_end(plan):
    wild = {"optimizer": "sgd", "learning_rate": 1e19, "l2": 1.0, "epochs": 4}
    epochs = execute(plan(**wild, **MEASURED)).epochs
    assert not np.isfinite(epochs["noise_trace"][-1])
    assert epochs["noise_simple_scale"][-1] is None
    assert epochs["noise_state"][-1] == "unresolved"


@pytest.mark.parametrize(
    "changes", [MEASURED | {"epochs": 5}, ADAPTIVE], ids=["measured", "adaptive"]
)
def test_a_run_that_was_stopped_after_every_epoch_has_the_same_columns(plan, tmp_path, changes):
    experiment = plan(**changes)
    undisturbed = execute(experiment)
    for _ in range(experiment.spec.epochs - 1):
        asked = iter(range(100))
        execute_group(
            experiment, [0], checkpoint_dir=tmp_path, checkpoint_s=0.0,
            should_stop=lambda epoch_s, asked=asked: next(asked) >= 1,
        )  # fmt: skip
    notes = []
    (result,) = execute_group(experiment, [0], checkpoint_dir=tmp_path, on_note=notes.append)
    assert notes == []
    assert result.run["parts"] == experiment.spec.epochs
    assert bits(result) == bits(undisturbed)


def test_ranks_that_share_out_slices_measure_what_one_does(plan):
    experiment = plan(slices=5, **MEASURED)
    alone = execute(experiment)
    for result in on_ranks(3, lambda partners: execute(experiment, partners=partners)):
        assert {name: result.epochs[name] for name in NOISE_COLUMNS} == {
            name: alone.epochs[name] for name in NOISE_COLUMNS
        }


def test_traffic_of_a_step_that_measures_is_not_known(plan):
    assert execute(plan(**MEASURED)).run["traffic_l1_bytes"] is None


# ---------------------------------------------------------------------------------------------
# Batches that follow the noise scale


def test_batches_follow_the_noise_of_the_epochs_before(plan):
    experiment = plan(**ADAPTIVE)
    epochs = execute(experiment).epochs
    batch, seen, expected = AdaptiveBatch(300.0, 8, 100), [], []
    for pair in zip(epochs["noise_trace"], epochs["noise_squared_gradient"], strict=True):
        expected.append(batch.size)
        seen.append(pair)
        batch.follow(seen)
    sizes = epochs["batch_size_used"].tolist()
    assert sizes == expected
    assert len(set(sizes)) > 2
    assert (sizes[0], max(sizes) <= 100) == (8, True)
    assert epochs["steps"].tolist() == [-(-experiment.n_train // size) for size in sizes]


def test_a_batch_that_butter_cuts_to_the_training_set_is_the_least(plan):
    changes = ADAPTIVE | {"batch_size": 256, "batch_size_max": 120, "epochs": 2}
    assert execute(plan(**changes)).epochs["batch_size_used"].tolist() == [120, 120]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (MEASURED | {"batch_size": 1}, "compares the rows of a batch, but batch_size is 1; give"),
        (ADAPTIVE | {"batch_size_max": 7}, "batch_size_max is 7; it must be between batch_size, 8"),
        (ADAPTIVE | {"batch_size_max": 121}, "batch_size_max is 121; .* the 120 training rows"),
        (ADAPTIVE | {"batch_size": 1}, "compares the rows of a batch"),
        (
            ADAPTIVE | {"slices": 2},
            "batch_rule is noise_scale, but slices is 2, .*leave slices out",
        ),
    ],
)
def test_what_cannot_be_measured_or_followed_is_said_before_anything_is_trained(
    plan, changes, message
):
    experiment = plan(**changes)
    run = execute(experiment).run
    assert run["status"] == "failed"
    assert run["error"] == experiment.problem
    assert re.search(message, experiment.problem)


# ---------------------------------------------------------------------------------------------
# Sweeps

SWEEP = {
    "dataset": "iris",
    "size": 100,
    "depth": 3,
    "epochs": 3,
    "batch_size": 16,
    "repetitions": 3,
    "grid": [
        {"measure": [[], ["noise_scale"]]},
        {key: list(value) if key == "measure" else value for key, value in ADAPTIVE.items()},
    ],
}


def test_repetitions_that_are_measured_are_not_packed(plan, tmp_path):
    job = launch.prepare_job(parse_sweep(SWEEP, "s.toml"), tmp_path / "out", None, 1, lanes=16)
    sizes = {}
    for group in job.groups:
        measure = job.experiments[group.experiment_id].spec.measure
        sizes.setdefault(measure, []).append(len(group.repetitions))
    assert sizes == {(): [3], ("noise_scale",): [1] * 6}
    together = execute_group(plan(**MEASURED), [0, 1])
    assert [result.run["lanes"] for result in together] == [1, 1]
    assert [bits(result) for result in together] == [
        bits(execute(plan(**MEASURED), r)) for r in (0, 1)
    ]


def test_a_directory_without_the_columns_does_not_have_the_runs(tmp_path):
    plain = {key: value for key, value in SWEEP.items() if key != "grid"}
    measured = plain | {"measure": ["noise_scale"]}
    (one,), (other,) = (plan_experiments(parse_sweep(each, "s.toml")) for each in (plain, measured))
    assert one.experiment_id != other.experiment_id
    assert one.stream_id == other.stream_id


def test_kernels_of_moments_are_compiled_before_anything_is_metered_and_only_where_asked_for(
    tmp_path, monkeypatch
):
    order, begin = [], Node.begin
    monkeypatch.setattr(sweep_module, "compile_moment_kernels", order.append)
    monkeypatch.setattr(Node, "begin", lambda self: (order.append("meter"), begin(self))[1])
    for name, grid in (("plain", {}), ("measured", {"measure": ["noise_scale"]})):
        sweep = parse_sweep({**SWEEP, "name": name, "grid": [grid]}, "s.toml")
        launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=tmp_path / name)  # noqa: B023
    assert order == ["meter", "float32", "meter"]


def test_measured_sweeps_are_stored_summed_up_and_come_back_bit_for_bit(tmp_path):
    sweep, out = parse_sweep(SWEEP, "s.toml"), tmp_path / "out"
    launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out)
    stored = store.read_runs(out)
    assert stored["measure"].isna().sum() == 3
    assert stored["batch_rule"].value_counts().to_dict() == {"fixed": 6, "noise_scale": 3}
    epochs = store.read_epochs(out).merge(stored[["run_id", "measure"]], on="run_id")
    assert epochs["noise_trace"].notna().tolist() == epochs["measure"].notna().tolist()
    assert verify(out, "100%").exit_code == 0
