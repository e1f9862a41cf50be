"""The whole study on scikit-learn's digits, as small as it can be."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from minibutter import launch
from minibutter.studies.catalogue import StudyError, find_study
from minibutter.studies.instability.sizes import (
    DEEP,
    EASY,
    QUICK,
    Case,
)
from minibutter.studies.instability.study import Instability
from minibutter.studies.study import Settings
from tests.studies.test_study import Heard


def replace_steps(run):
    """Four steps instead of some thousands."""
    return replace(run, judged_from=2, keywords=run.keywords | {"steps": 4, "every": 2})


TINY = replace(
    QUICK,
    n_train=150,
    n_test=50,
    epochs=2,
    snapshots=5,
    cases=(
        Case(DEEP, "nesterov", "float32", (0.1, 0.02), 2, ("k = 3",)),
        Case(DEEP, "nesterov", "float64", (0.1,), 1, ("k = 3",)),
        Case(EASY, "plain", "float32", (0.1,), 1, ("k = 3",)),
    ),
    kernel_rates=(0.1, 0.05),
    kernels=("rows reversed", "small blocks"),
    spread_networks=("relu 2x128",),
    spread_orders=2,
    spread_ks=(1, 3),
    spread_train=150,
    spread_epochs=5,
    edge_runs=(
        replace_steps(QUICK.edge_runs[0]),
        replace_steps(QUICK.edge_runs[-1]),
    ),
    band_points=3,
    sharpness_rates=(0.1,),
)


@pytest.fixture
def study(monkeypatch):
    """Without kernels for other processors, which take half a minute each to compile."""
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", dict)
    return Instability(quick=TINY)


def test_a_study_of_digits_ends_with_a_verdict(study, tmp_path):
    heard = Heard()
    outcome = launch.run_study(study, Settings("quick", "digits"), tmp_path, heard)
    assert [name for name, _ in heard.begun] == [
        *("self-check", "one-layer", "known-systems", "kernel-bits", "divergence"),
        *("kernel-divergence", "spread", "edge", "sharpness"),
    ]
    assert {path.name for path in outcome.figures} == {
        f"{name}.{ending}"
        for name in ("divergence", "growth", "spread", "sharpness", "band")
        for ending in ("png", "svg")
    }
    document = json.loads((tmp_path / "verdict.json").read_text())
    states = {criterion["name"]: criterion["state"] for criterion in document["criteria"]}
    for name in ("self-check", "one-layer classes", "known systems", "kernels, same bits"):
        assert states[name] == "reproduced", states
    assert states["divergence"] == "not reproduced"  # after four steps nothing has parted
    assert states["edge of stability"] == "unresolved"  # these images are not MNIST's
    assert set(document["context"]["kernels_not_run"]) >= set(TINY.processors)
    bits = pd.read_parquet(tmp_path / "tables" / "kernel_bits.parquet").set_index("variant")
    assert bits.loc["lanes", "share_differing"] == 0
    assert bits.loc["rows reversed", "share_differing"] > 0
    assert bits.loc["AVX2", "reason"] != ""
    again = Heard()
    launch.run_study(study, Settings("quick", "digits"), tmp_path, again)
    assert dict(again.begun)["divergence"] == 6  # all of it is there


def test_a_failed_self_check_ends_the_study_with_that_verdict(study):
    course = study.course(Settings("quick", "digits"))
    stage = next(course)
    assert stage.name == "self-check"
    bits = pd.DataFrame(
        {
            "variant": ["again", "k = 3"],
            "must_change": [False, True],
            "share_differing": [0.0, 0.0],
            "reason": "",
            "network": DEEP,
            "dtype": "float32",
        }
    )
    with pytest.raises(StopIteration) as end:
        course.send(bits)
    conclusion = end.value.value
    assert [criterion.state for criterion in conclusion.criteria] == ["not reproduced"]
    assert not conclusion.figures


def test_a_regression_is_refused(study):
    with pytest.raises(StudyError, match=r"diabetes is for regression.*needs classes"):
        next(study.course(Settings("quick", "diabetes")))


def test_data_that_do_not_fill_a_batch_are_refused(study):
    message = r"iris leaves 120 rows to train on and 30 to test with.*batches of 128: take a larger"
    with pytest.raises(StudyError, match=message):
        next(study.course(Settings("quick", "iris")))


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_the_outline_is_what_is_done(scale):
    study = find_study("instability")
    steps = study.outline(Settings(scale, "mnist"))
    assert len(steps) == 9
    assert all(step.pieces > 0 and step.core_s > 0 for step in steps)
    total_s = sum(step.core_s for step in steps)
    assert total_s < (20 * 60 if scale == "quick" else 12 * 3600)
    measured = study._stages(Settings(scale, "mnist"))
    identities = [(stage.name, piece.id) for stage in measured for piece in stage.pieces]
    assert len(set(identities)) == len(identities)


def test_other_learning_rates_train_for_the_same_time():
    assert [QUICK.epochs_at(rate) for rate in (0.1, 0.05, 0.01)] == [
        *(QUICK.epochs, 2 * QUICK.epochs, 10 * QUICK.epochs),
    ]
