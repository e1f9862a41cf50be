"""Studies as such: stages one after the other, on any number of ranks, and again after a kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from minibutter import launch
from minibutter.cli.studying import show_outline
from minibutter.studies.catalogue import StudyError, find_study
from minibutter.studies.study import Settings
from minibutter.studies.verdict import Verdict, judge
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
