"""docs/results.md: its queries run in DuckDB, and the files that it names are there."""

import re
from pathlib import Path

import pandas as pd
import pytest

from minibutter import cli, launch, store
from minibutter.sweeps.spec import parse_sweep

TEXT = (Path(__file__).parents[1] / "docs" / "results.md").read_text()
QUERIES = re.findall(r"^```sql\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)

SMALL = {
    "name": "quickstart", "dataset": "digits", "shape": ["rectangle", "exponential"],
    "size": [1024, 4096], "depth": 3, "epochs": 6, "batch_size": 32, "learning_rate": 0.01,
    "repetitions": 3, "measure": ["noise_scale"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `results/quickstart`, where the queries look for it."""
    folder = tmp_path_factory.mktemp("queries")
    sweep = parse_sweep(SMALL, "s.toml")
    out = folder / "results" / "quickstart"
    launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out)
    return folder


@pytest.fixture
def ask(folder, monkeypatch):
    """A function: the answer to a query, as a frame."""
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed: pip install duckdb")
    monkeypatch.chdir(folder)
    return lambda query: duckdb.sql(query).df()


def test_there_are_four_queries():
    assert len(QUERIES) == 4


def test_lowest_losses_are_those_of_the_summary(ask, folder):
    answer = ask(QUERIES[0])
    experiments, _ = store.write_summary(folder / "results" / "quickstart")
    expected = experiments["test_loss_min_value_median"].sort_values()
    assert answer["test_loss_min_value_median"].tolist() == expected.tolist()
    assert answer["num_runs"].tolist() == [3] * 4


def test_last_epochs_of_repetitions_are_averaged(ask, folder):
    answer = ask(QUERIES[1])
    directory = folder / "results" / "quickstart"
    rows = store.read_epochs(directory).merge(store.read_runs(directory), on="run_id")
    last = rows[rows["epoch"] == 6].astype({"test_accuracy": float})
    expected = last.groupby(["shape", "num_parameters"])["test_accuracy"].agg(["mean", "std"])
    found = answer.set_index(["shape", "num_parameters"]).loc[expected.index]
    assert found["accuracy"].tolist() == pytest.approx(expected["mean"].tolist())
    assert found["deviation"].tolist() == pytest.approx(expected["std"].tolist())
    assert set(answer["repetitions"]) == {3}


def test_first_epoch_with_a_loss_is_that_of_the_best_so_far(ask, folder):
    answer = ask(QUERIES[2])
    directory = folder / "results" / "quickstart"
    runs = store.read_runs(directory)
    rows = store.read_epochs(directory).merge(runs, on="run_id")
    rows["best"] = rows.groupby("run_id")["test_loss"].cummin()
    medians = rows.groupby(["shape", "num_parameters", "epoch"])["best"].median().reset_index()
    reached = medians[medians["best"] <= 1].groupby(["shape", "num_parameters"])["epoch"].min()
    found = answer.set_index(["shape", "num_parameters"])["reached"]
    assert found.sort_index().to_dict() == reached.sort_index().to_dict()
    assert len(found) >= 2
    assert (answer["seconds"] > 0).all()


def test_first_epoch_whose_noise_scale_passes_its_batch_is_found(ask, folder):
    answer = ask(QUERIES[3])
    directory = folder / "results" / "quickstart"
    rows = store.read_epochs(directory).merge(store.read_runs(directory), on="run_id")
    passed = rows[rows["noise_simple_scale_low"] > rows["batch_size_used"]]
    expected = passed.groupby("num_parameters")["epoch"].min().sort_index()
    assert answer["epoch"].tolist() == expected.tolist()
    assert len(answer) >= 2


def test_compact_results_answer_alike(ask, folder):
    before = [ask(query) for query in QUERIES]
    store.compact(folder / "results" / "quickstart")
    for query, expected in zip(QUERIES, before, strict=True):
        pd.testing.assert_frame_equal(ask(query), expected)


def test_files_that_are_named_are_there(folder):
    (block,) = re.findall(r"^```\n(results.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    directory = folder / "results" / "quickstart"
    names = [line.split()[0] for line in block.splitlines()[1:]]
    assert len(names) == 7
    for name in names:
        assert name == "quarantine/" or list(directory.glob(name)), name


def test_commands_that_are_named_exist():
    known = {command.callback.__name__ for command in cli.app.registered_commands}
    assert set(re.findall(r"`minibutter (\w+)", TEXT)) <= known
