"""The width study as a whole, shrunk to seconds."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from minibutter import launch
from minibutter.studies.catalogue import find_study
from minibutter.studies.study import Settings
from minibutter.studies.width.criteria import WANTED_REPETITIONS
from minibutter.studies.width.sizes import Scan, Sizes
from minibutter.studies.width.study import STUDY, WidthStudy
from tests.studies.test_study import Heard

TINY = Sizes(
    scans=(
        Scan("ntk", 4.0, 60, (4, 8), (4, 8, 16, 32)),
        Scan("ntk", 2.0, 120, (4, 8), (2, 4, 8, 16)),
        Scan("standard", 0.1, 60, (4, 8), (4, 8, 16, 32)),
    ),
    n_repetitions=3,
    stability_widths=(4, 8),
    coordinate_widths=(4, 8),
    n_looks=2,
    stability_steps=8,
    stability_rows=40,
    stability_repetitions=3,
    coordinate_steps=(1, 2),
    coordinate_rows=40,
    n_train=200,
    n_test=100,
    n_draws=20,
)
CRITERIA = [
    "ntk batch slope",
    "ntk slope below 0",
    "standard batch slope",
    "slopes differ",
    "ntk collapse",
    "standard collapse",
    "ntk accuracy",
    "standard accuracy",
    "standard largest batch",
    "ntk largest batch",
    "standard largest rate",
    "ntk largest rate",
]


def tiny_study(**changes):
    return WidthStudy(sizes={"quick": replace(TINY, **changes)})


def test_the_study_goes_from_measurements_to_a_verdict(tmp_path):
    outcome = launch.run_study(tiny_study(), Settings("quick", "digits"), tmp_path, Heard())
    document = json.loads((tmp_path / "verdict.json").read_text())
    assert [criterion["name"] for criterion in document["criteria"]] == CRITERIA
    assert document["context"]["n_train"] == 200
    assert document["context"]["caveats"] == ["3 repetitions; the statements ask for 20 or more"]
    accuracies = pd.read_parquet(tmp_path / "tables" / "accuracies.parquet")
    coarse = accuracies["batch_size"].isin([2, 4, 8, 16, 32])
    assert len(accuracies[coarse]) == 3 * 2 * 4 * 3
    assert (~coarse).any()
    assert accuracies["late_accuracy"].between(0, 1).all()
    optima = pd.read_parquet(tmp_path / "tables" / "optima.parquet")
    assert len(optima) == 6
    assert {path.stem for path in outcome.figures} == {
        *("accuracy", "optima", "largest_rates", "best_accuracy", "coordinates"),
    }
    heard = Heard()
    again = launch.run_study(tiny_study(), Settings("quick", "digits"), tmp_path, heard)
    assert again.verdict.criteria == outcome.verdict.criteria
    pieces = dict(heard.begun)
    outlined = {step.name: step.pieces for step in tiny_study().outline(Settings("quick", "x"))}
    assert {name: pieces[name] for name in ("stability", "coordinates", "coarse")} == {
        name: outlined[name] for name in ("stability", "coordinates", "coarse")
    }
    assert 0 < pieces["fine"] <= outlined["fine"]
    assert pieces["stability"] == 6
    assert pieces["coarse"] == 24


def test_criteria_of_accuracy_are_unresolved_where_rows_are_missing(tmp_path):
    study = tiny_study(n_train=1700)
    outcome = launch.run_study(study, Settings("quick", "digits"), tmp_path, Heard())
    states = {c.name: (c.state, c.reason) for c in outcome.verdict.criteria}
    assert states["ntk batch slope"][0] == "unresolved"
    assert "chosen for 1700 training rows; the data set leaves 1438" in states["ntk accuracy"][1]
    assert (
        states["ntk largest rate"][0] != "unresolved"
        or "chosen" not in states["ntk largest rate"][1]
    )


@pytest.mark.parametrize(("scale", "limit_s"), [("quick", 1000), ("full", 8 * 3600)])
def test_the_outline_counts_pieces_of_seconds(scale, limit_s):
    steps = STUDY.outline(Settings(scale, "mnist"))
    assert [step.name for step in steps] == ["stability", "coordinates", "coarse", "fine"]
    assert sum(step.core_s for step in steps) < limit_s
    for step in steps:
        assert step.core_s / step.pieces < 60
    assert find_study("width") is STUDY


def test_rates_of_a_parameterization_have_the_same_time_of_training():
    for sizes in STUDY.sizes.values():
        for name in ("ntk", "standard"):
            scans = [scan for scan in sizes.scans if scan.parameterization == name]
            assert len(scans) >= 2
            assert len({scan.learning_rate * scan.n_steps for scan in scans}) == 1
            for scan in scans:
                assert max(scan.batch_sizes) >= 8
    assert STUDY.sizes["full"].n_repetitions >= WANTED_REPETITIONS
