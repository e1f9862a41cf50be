"""The whole study, on digits and so small that it takes seconds."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from minibutter import launch
from minibutter.studies.noise_scale.along import measure_along_training
from minibutter.studies.noise_scale.problem import (
    begin_run,
    describe_problem,
    load_problem,
    run_to,
)
from minibutter.studies.noise_scale.routes import measure_routes
from minibutter.studies.noise_scale.sizes import FULL, Sizes
from minibutter.studies.noise_scale.stages import Stages
from minibutter.studies.noise_scale.study import STUDY, NoiseScaleStudy
from minibutter.studies.study import Settings
from tests.studies.test_study import Heard

TINY = Sizes(
    n_train=600,
    n_test=100,
    hidden=12,
    goals=(0.5, 0.3, 0.2),
    evaluated_rows=300,
    trunk_batch=32,
    along_seeds=2,
    last_step=60,
    checkpoint_ratio=1.3,
    decay=0.9,
    curvature_seeds=1,
    curvature_levels=(0.5, 0.3),
    curvature_count=1,
    probes=4,
    route_seeds=1,
    route_levels=(0.5,),
    route_epochs=3,
    slices=4,
    sweep_seeds=2,
    batch_sizes=(4, 16, 64, 128),
    multipliers=(1.0, 2.0),
    branch_levels=(0.5,),
    branch_seeds=1,
    branch_batches=(4, 16, 64),
    branch_multipliers=(1.0,),
    branch_examples=128,
    step_levels=(0.5,),
    step_seeds=1,
    step_batches=(4, 16, 32, 64),
    sampled_batches=8,
    step_rows=300,
    temperature_seeds=2,
    temperature_begin=40,
    temperature_end=60,
    temperature_interval=5,
    adaptive_seeds=1,
    adaptive_factors=(1.0,),
    adaptive_multipliers=(1.0,),
    adaptive_rows=200,
)

CRITERIA = (
    "hyperbola", "critical batch grows", "critical batch rises", "critical start", "critical end",
    "simple start", "simple late", "simple over critical", "simple over noise", "routes agree",
    "moving averages agree", "step law", "step prediction", "temperature rise",
    "temperature return", "adaptive batch",
)  # fmt: skip


TABLES = (
    "along", "layers", "routes", "runs", "frontier", "critical-batch", "noise-scales", "branches",
    "best-steps", "temperature", "temperature-response",
)  # fmt: skip


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return launch.run_study(NoiseScaleStudy(quick=TINY), Settings("quick", "digits"), out, Heard())


def test_a_small_study_ends_with_every_criterion(outcome):
    found = {criterion.name: criterion for criterion in outcome.verdict.criteria}
    assert tuple(found) == CRITERIA
    # What needs no size: three routes to the same numbers agree, and B_simple is above B_noise.
    assert found["routes agree"].state == "reproduced"
    for name in ("critical start", "critical end", "simple start", "simple late"):
        assert found[name].state == "unresolved"
        assert "other data" in found[name].reason


def test_its_tables_have_what_the_page_names(outcome):
    tables = {path.stem: pd.read_parquet(path) for path in outcome.tables}
    assert set(TABLES) <= set(tables)
    along = tables["along"]
    np.testing.assert_allclose(
        along["trace"], along["layer_0_trace"] + along["layer_1_trace"], rtol=1e-12
    )
    layers = tables["layers"]
    assert set(layers["layer"]) == {-1, 0, 1}
    assert along["population_squared_gradient"].lt(along["squared_gradient"]).all()
    assert along["stream_state"].iloc[0] == "unresolved"
    runs = tables["runs"].dropna(subset=["steps"])
    assert (runs.groupby(["seed", "batch_size", "multiplier"])["steps"].diff().dropna() >= 0).all()
    assert {"B_simple", "B_noise", "B_crit"} >= set(tables["noise-scales"]["scale"])


def test_its_figures_are_there_with_their_labels(outcome):
    texts = {path.stem: path.read_text() for path in outcome.figures if path.suffix == ".svg"}
    assert {"noise-scales", "temperature", "frontier", "smoothing"} <= set(texts)
    assert all(path.stat().st_size > 5000 for path in outcome.figures if path.suffix == ".png")
    for figure, label in (
        ("noise-scales", "train error"),
        ("frontier", "steps S"),
        ("temperature", "learning rate"),
        ("smoothing", "moving average of the batches"),
    ):
        assert label in texts[figure]


def test_a_study_that_goes_on_from_part_of_its_pieces_has_the_same_bits(outcome, tmp_path):
    written = sorted((outcome.out / "measurements").rglob("*.parquet"))
    kept = written[::2]
    for path in kept:
        copy = tmp_path / path.relative_to(outcome.out)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    heard = Heard()
    again = launch.run_study(
        NoiseScaleStudy(quick=TINY), Settings("quick", "digits"), tmp_path, heard
    )
    assert sum(n_done for _, n_done in heard.begun) == len(kept)
    assert again.verdict.criteria == outcome.verdict.criteria
    assert [path.name for path in again.tables] == [path.name for path in outcome.tables]
    for one, other in zip(again.tables, outcome.tables, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_what_can_be_planned_is_what_is_done(outcome):
    steps = {step.name: step for step in STUDY.outline(Settings("full", "mnist"))}
    assert [*steps] == [
        "along", "curvature", "routes", "sweep", "wider", "branches", "best-steps", "temperature",
        "adaptive",
    ]  # fmt: skip
    assert steps["sweep"].pieces == FULL.sweep_seeds * len(FULL.batch_sizes)
    assert all(step.core_s > 0 for step in steps.values())
    quick = sum(step.core_s for step in STUDY.outline(Settings("quick", "mnist")))
    assert 120 < quick < 1800


def problem_of(dataset="digits"):
    return describe_problem(dataset, 400, 100, 0, 8)


def test_a_run_is_the_same_wherever_it_is_asked_for():
    problem = load_problem(problem_of(), None)
    first, again = (run_to(problem, 3, 20, 16, 0.1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, run_to(problem, 4, 20, 16, 0.1))
    begin = begin_run(problem, 3).parameters
    np.testing.assert_array_equal(run_to(problem, 3, 0, 16, 0.1), begin)
    assert not np.array_equal(begin, begin_run(problem, 4).parameters)


def test_three_routes_agree_at_one_point_within_their_errors():
    # So late that |G|² of the source would be another number: the rows are a small sample.
    table = measure_routes(None, problem_of(), 0, 32, 0.1, 300, 300, 4).set_index("route")
    exact = table.loc["exact"]
    for route in ("two batches", "by rank"):
        for quantity in ("trace", "squared_gradient"):
            found, error = table.loc[route, quantity], table.loc[route, f"{quantity}_error"]
            assert abs(found - exact[quantity]) < 4 * error
            assert error < 0.2 * exact[quantity]


def test_batches_that_are_most_of_the_rows_are_left_out():
    stages = Stages(TINY, problem_of(), 150, 0)
    assert {piece.arguments["batch_size"] for piece in stages.sweep().pieces} == {4, 16}
    assert {piece.arguments["batch_size"] for piece in stages.branches([(0, 5)]).pieces} == {4, 16}


def study_of(dataset, out, **sizes):
    study = NoiseScaleStudy(quick=replace(TINY, **sizes))
    return launch.run_study(study, Settings("quick", dataset), out, Heard()).verdict


def test_too_few_rows_for_a_batch_to_be_a_sample_are_refused(tmp_path):
    with pytest.raises(launch.LaunchRefused, match="iris has 120 rows for training; this study ne"):
        study_of("iris", tmp_path, trunk_batch=128)


def test_labels_that_nobody_can_learn_leave_everything_open(tmp_path):
    """The error stays above all goals, so that no stage finds a checkpoint to look at."""
    data = "gaussian_classification:classes=5,dimension=2,rows=300,noise=1000"
    verdict = study_of(data, tmp_path, evaluated_rows=200, last_step=8)
    found = {criterion.name: criterion for criterion in verdict.criteria}
    assert tuple(found) == CRITERIA
    for name in ("routes agree", "hyperbola", "step law", "adaptive batch", "simple over critical"):
        assert (found[name].state, found[name].measured) == ("unresolved", None)
        assert found[name].reason


def test_a_run_that_diverges_is_measured_up_to_there(tmp_path):
    table = measure_along_training(None, problem_of(), 0, 32, 1e8, [0, 1, 50, 60], 0.9)
    assert table["step"].iloc[0] == 0
    assert len(table) < 4
    assert np.isfinite(table[["loss", "trace", "squared_gradient"]]).all(axis=None)


def test_a_regression_is_refused(tmp_path):
    with pytest.raises(launch.LaunchRefused, match="diabetes is for regression"):
        launch.run_study(
            NoiseScaleStudy(quick=TINY), Settings("quick", "diabetes"), tmp_path, Heard()
        )
