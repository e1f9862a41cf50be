"""`minibutter sweep`: large sweeps on one screen, and parts of sweeps."""

import json

import pandas as pd
import pytest

from minibutter import launch
from minibutter.sweeps.spec import catalogue

SWEEP = """
dataset = ["iris", "digits"]
size = [32, 100, 200]
depth = [2, 3]
epochs = 2
batch_size = 16
repetitions = 2
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "s.toml").write_text(SWEEP)
    return "s.toml"


def runs_in(folder):
    runs = pd.read_parquet(folder / "runs")
    return runs[runs["status"] == "completed"]


def test_a_large_sweep_is_planned_on_one_screen(call):
    code, out, _ = call("sweep", "plan", "primary")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) < 40
    assert "primary: 859950 runs of 28665 experiments (30576 cells), about" in out
    assert lines[-1].startswith("cannot run: 3265 experiments, because no network of their shape")
    assert ": 1108 of size 32, 888 of size 64, " in lines[-1]
    assert "rectangle, trapezoid, exponential, " in out
    sizes = [line.split() for line in lines if line.split()[:1] == ["1024"]]
    assert [row[:4] for row in sizes] == [["1024", "1365", "40950", "69"]]


def test_a_large_sweep_as_json_has_every_experiment(call):
    code, out, _ = call("sweep", "plan", "300_epoch", "--json")
    document = json.loads(out)
    assert code == 0
    n_experiments = 7 * 3 * (1 + 4 * 13)
    assert len(document["experiments"]) == n_experiments
    assert document["cells"] == 1176
    assert document["runs"] == n_experiments * 10
    assert document["unreachable_sizes"] == {}
    one = document["experiments"][-1]
    assert (one["dataset"], one["size"], one["epochs"]) == ("wine_quality_white", 2**27, 300)
    assert sum(row["work_core_h"] for row in document["experiments"]) == pytest.approx(
        document["work_core_h"]
    )


def test_a_small_sweep_names_each_problem_and_every_experiment(call, sweep):
    _, out, _ = call("sweep", "plan", sweep)
    assert "s: 24 runs of 12 experiments (12 cells), about" in out
    assert out.count("cannot run: size") == out.count("is unreachable") > 1
    document = json.loads(call("sweep", "plan", sweep, "--json")[1])
    assert document["cannot_run"] == sum(document["unreachable_sizes"].values())
    assert document["cannot_run"] == sum(
        row["problem"] is not None for row in document["experiments"]
    )


def test_the_catalogue_is_listed_with_its_cells_and_runs(call):
    code, out, _ = call("sweep", "list")
    rows = {line.split()[0]: line.split()[1:3] for line in out.splitlines()[2:]}
    assert code == 0
    assert set(rows) == set(catalogue())
    assert rows["primary"] == ["30576", "917280"]
    assert rows["quickstart"] == ["18", "72"]


def test_a_part_of_a_sweep_is_run_and_then_the_rest_in_the_same_directory(call, sweep, tmp_path):
    whole = json.loads(call("sweep", "plan", sweep, "--json")[1])
    n_runs = 2 * (12 - whole["cannot_run"])
    out = tmp_path / "results" / "s"
    condition = "dataset=iris and depth=3 and size>=100"
    code, text, _ = call("sweep", "run", sweep, "--filter", condition)
    assert code == 0
    assert f"chosen: 2 of 12 experiments (--filter '{condition}'), about" in text
    assert "4 runs of 2 experiments to do" in text
    done = runs_in(out)
    assert set(zip(done["dataset"], done["depth"], strict=True)) == {("iris", 3)}
    code, text, _ = call("sweep", "run", sweep, "--limit", 4)
    assert "it grows" not in text
    assert len(runs_in(out)) > 4
    code, text, _ = call("sweep", "run", sweep)
    assert code == 3  # sizes that cannot be reached
    assert "already done" in text
    assert len(runs_in(out)) == n_runs


def test_a_budget_is_spent_on_a_part_that_a_larger_one_extends(call, sweep):
    whole = json.loads(call("sweep", "plan", sweep, "--json")[1])
    parts = []
    for share in (0.2, 0.6):
        hours = f"{share * whole['work_core_h']}core-h"
        part = json.loads(call("sweep", "plan", sweep, "--budget", hours, "--json")[1])
        assert part["work_core_h"] <= share * whole["work_core_h"]
        parts.append({row["experiment_id"] for row in part["experiments"]})
    assert parts[0] < parts[1]


def test_keys_that_are_set_make_another_sweep(call, sweep, tmp_path):
    arguments = ("--set", "size=100", "--set", "repetitions=1", "--set", "dataset=iris,wine")
    planned = json.loads(call("sweep", "plan", sweep, *arguments, "--json")[1])
    assert [(row["dataset"], row["size"]) for row in planned["experiments"]] == [
        ("iris", 100), ("iris", 100), ("wine", 100), ("wine", 100),
    ]  # fmt: skip
    call("sweep", "run", sweep, "--limit", 1)
    code, _, err = call("sweep", "run", sweep, *arguments)
    assert code == 2
    assert "another sweep" in err


def test_mpi_run_takes_the_same_options(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [sweep, "--set", "repetitions=1", "--filter", "dataset=iris", "--limit", "2"]
    assert launch.main([*arguments, "--budget", "1core-h", "--out", "here"]) == 0
    assert len(runs_in(tmp_path / "here")) == 2
    assert "(--filter 'dataset=iris' --limit 2 --budget 1core-h)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--filter", "dataset=irsi"], "there is no data set 'irsi'; did you mean 'iris'"),
        (["--filter", "depht>3"], "--filter 'depht>3': depht: unknown key; did you mean depth?"),
        (["--filter", "depth>30"], "--filter 'depth>30' leaves nothing of s"),
        (["--set", "dept=3"], "--set: dept: unknown key; did you mean depth?"),
        (["--set", "depth=1"], "--set: depth = 1: must be greater than or equal to 2"),
        (["--limit", "0"], "--limit 0: must be at least 1"),
        (["--budget", "3"], "--budget 3: write core-hours"),
        (["--budget", "1e-15core-h"], "is too little: the cheapest experiment of s"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_option_that_cannot_be_met_is_one_line(call, sweep, command, arguments, message):
    code, _, err = call("sweep", command, sweep, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: ")
    assert message in err
