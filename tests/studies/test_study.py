"""Studies as such: stages one after the other, on any number of ranks, and again after a kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from minibutter import launch, store
from minibutter.cli.studying import show_outline
from minibutter.studies.catalogue import StudyError, find_study
from minibutter.studies.study import Settings
from minibutter.studies.verdict import Verdict, judge
from tests.datasets.test_idx import images, write_pair
from tests.studies import toy

MPIRUN = Path(sys.executable).with_name("mpirun")


class Heard:
    """A reporter that remembers."""

    def __init__(self):
        self.begun = []

    def sweep_reporter(self):
        return launch.PlainReporter()

    def begin(self, stage, n_done, n_ranks):
        self.begun.append((stage.name, n_done))

    def measured(self, n_done, n_pieces):
        pass

    def end(self, stage, duration_s):
        pass


def study_toy(out, dataset="iris"):
    heard = Heard()
    return launch.run_study(toy.Toy(), Settings("quick", dataset), out, heard), heard


def test_a_study_writes_its_tables_figures_and_verdict(tmp_path):
    outcome, _ = study_toy(tmp_path)
    assert outcome.verdict.state == "reproduced"
    table = pd.read_parquet(tmp_path / "tables" / "squares.parquet")
    assert table["square"].tolist() == [0, 1, 4, 9, 16, 25]
    assert table["number"].tolist() == [*range(6)]
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "tables" / "squares.csv"))
    assert {path.name for path in outcome.figures} == {"squares.png", "squares.svg"}
    document = json.loads((tmp_path / "verdict.json").read_text())
    assert document["state"] == "reproduced"
    assert document["criteria"][0]["measured"] == 55
    assert document["context"]["n_runs"] == 2
    assert document["context"]["provenance"]["cpu_model"]


def test_a_second_start_measures_nothing_again(tmp_path):
    study_toy(tmp_path)
    files = sorted((tmp_path / "measurements" / "squares").iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    outcome, heard = study_toy(tmp_path)
    assert heard.begun[0] == ("squares", 6)
    assert [file.stat().st_mtime_ns for file in files] == written
    assert outcome.verdict.state == "reproduced"


def test_a_damaged_measurement_is_done_again(tmp_path):
    study_toy(tmp_path)
    first, second, *_ = sorted((tmp_path / "measurements" / "squares").iterdir())
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    outcome, heard = study_toy(tmp_path)
    assert heard.begun[0] == ("squares", 4)
    assert outcome.verdict.criteria[0].measured == 55


def test_an_unknown_data_set_is_refused_in_one_line(tmp_path):
    with pytest.raises(launch.LaunchRefused, match="no-such-set"):
        study_toy(tmp_path, "no-such-set")


def test_a_directory_of_other_results_is_refused_and_stays_as_it_is(tmp_path):
    study_toy(tmp_path)
    verdict = (tmp_path / "verdict.json").read_bytes()
    for settings, other in (
        (Settings("quick", "digits"), "dataset digits"),
        (Settings("quick", "iris", seed=1), "seed 1"),
        (Settings("full", "iris"), "scale full"),
    ):
        with pytest.raises(launch.LaunchRefused, match=f"holds .*iris.*and this is .*{other}"):
            launch.run_study(toy.Toy(), settings, tmp_path, Heard())
    with pytest.raises(launch.LaunchRefused, match="and this is study other"):
        launch.run_study(toy.Toy(name="other"), Settings("quick", "iris"), tmp_path, Heard())
    assert (tmp_path / "verdict.json").read_bytes() == verdict


def test_a_data_set_that_changed_under_its_name_is_another_one(tmp_path):
    folder, out = tmp_path / "images", tmp_path / "out"
    write_pair(folder, "t10k", *images(60, seed=0))
    study_toy(out, str(folder))
    write_pair(folder, "t10k", *images(60, seed=1))
    with pytest.raises(launch.LaunchRefused, match=r"digest .*, and this is .*digest"):
        study_toy(out, str(folder))


def test_a_study_that_was_refused_has_not_claimed_the_directory(tmp_path):
    refusing = toy.Toy(refusal="too few rows")
    with pytest.raises(launch.LaunchRefused, match="too few rows"):
        launch.run_study(refusing, Settings("quick", "digits"), tmp_path, Heard())
    assert not list(tmp_path.iterdir())
    study_toy(tmp_path)


def test_what_another_version_has_measured_is_measured_again(tmp_path, monkeypatch):
    outcome, _ = study_toy(tmp_path)
    assert outcome.verdict.context["pieces"] == 6
    assert len(outcome.verdict.context["measured_by"]) == 1
    monkeypatch.setattr("minibutter.__version__", "99.0")
    _, heard = study_toy(tmp_path)
    assert heard.begun[0] == ("squares", 0)


@pytest.mark.parametrize("taken", [".", "tables", "measurements"])
def test_a_directory_that_cannot_be_written_is_one_line(tmp_path, taken):
    out = tmp_path / "out"
    if taken != ".":
        out.mkdir()
    (out / taken).write_text("a file")
    error = launch.LaunchRefused if taken == "." else store.StoreError
    with pytest.raises(error, match=r"cannot write .*out.*choose another directory"):
        study_toy(out)


def test_time_of_all_starts_is_counted_together(tmp_path):
    first = study_toy(tmp_path)[0].verdict.context
    second = study_toy(tmp_path)[0].verdict.context
    assert second["measured_s"] == first["measured_s"] > 0


def start_toy(out, n_ranks, **environment):
    command = [sys.executable, "-m", "tests.studies.toy", str(out)]
    if n_ranks > 1:
        command = [MPIRUN, "-n", str(n_ranks), *command]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_killed_study_goes_on_where_it_was(tmp_path, n_ranks):
    killed = start_toy(tmp_path, n_ranks, **{toy.KILL_AT: "4"})
    assert killed.returncode != 0
    assert not (tmp_path / "verdict.json").exists()
    # Those with a longer prediction were begun before, and those that were finished are kept.
    kept = {file.name for file in (tmp_path / "measurements" / "squares").iterdir()}
    again = start_toy(tmp_path, n_ranks)
    assert again.returncode == 0, again.stderr
    assert f"6 measurements, {len(kept)} already done" in again.stdout
    assert "toy: reproduced" in again.stdout


def test_ranks_share_the_measurements_and_agree_with_one(tmp_path):
    assert start_toy(tmp_path / "two", 2).returncode == 0
    study_toy(tmp_path / "one")
    two, one = (
        pd.read_parquet(tmp_path / name / "tables" / "squares.parquet") for name in ("two", "one")
    )
    assert two["square"].tolist() == one["square"].tolist()


def test_an_outline_says_what_would_be_done(capsys):
    show_outline(toy.Toy(), Settings("quick", "iris"), as_json=False)
    printed = capsys.readouterr().out
    assert "squares of numbers" in printed
    assert "nothing was run" in printed
    show_outline(toy.Toy(), Settings("quick", "iris"), as_json=True)
    assert json.loads(capsys.readouterr().out)["steps"][0]["pieces"] == 6


def test_a_study_that_does_not_exist_is_refused_with_the_names_of_those_that_do():
    with pytest.raises(StudyError, match="noise-scale, width, instability"):
        find_study("depth")


@pytest.mark.parametrize(
    ("measured", "interval", "state"),
    [
        (1.0, (0.5, 1.5), "reproduced"),
        (1.0, (None, None), "reproduced"),
        (2.5, (1.5, 3.5), "unresolved"),
        (2.5, (2.1, 3.5), "not reproduced"),
        (2.5, (None, None), "not reproduced"),
        (2.5, (2.1, None), "not reproduced"),
        (2.5, (None, 3.0), "unresolved"),
        (None, (None, None), "unresolved"),
        (float("nan"), (None, None), "unresolved"),
    ],
)
def test_a_number_is_held_against_its_range(measured, interval, state):
    criterion = judge("name", "statement", measured, interval, expected=(0.0, 2.0))
    assert criterion.state == state


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([1.0, 1.0], "reproduced"),
        ([1.0, None], "unresolved"),
        ([3.0, None], "not reproduced"),
        ([], "unresolved"),
    ],
)
def test_one_criterion_that_fails_decides(states, expected):
    criteria = tuple(judge("name", "statement", value, expected=(0, 2)) for value in states)
    assert Verdict("toy", "quick", criteria, {}).state == expected
