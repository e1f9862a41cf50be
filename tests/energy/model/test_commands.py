"""`minibutter energy fit` and `predict`, on tables as a sweep leaves them."""

import json
import re

import numpy as np
import pytest

from minibutter import plots, store
from minibutter.cli import forecasting
from minibutter.provenance import read_provenance

SWEEP = 'dataset = "digits"\nsize = [1024, 4096]\ndepth = [3, 5]\nepochs = 10\nrepetitions = 3\n'


@pytest.fixture
def results(tables, tmp_path, monkeypatch):
    """A directory of results; what is stored there is read as `store` hands it out."""
    directory = tmp_path / "results"
    directory.mkdir()
    known = tables.runs.assign(cpu_model=read_provenance().cpu_model)
    kept = {"runs": known, "epochs": tables.epochs}
    monkeypatch.setattr(store, "read_runs", lambda _: kept["runs"])
    monkeypatch.setattr(store, "read_epochs", lambda _: kept["epochs"])
    return directory, kept


@pytest.fixture
def sweep(tmp_path):
    """A sweep file."""
    path = tmp_path / "s.toml"
    path.write_text(SWEEP)
    return path


def test_fit_prints_coefficients_scores_and_residuals_and_writes_model_and_figures(call, results):
    directory, _ = results
    code, out, _ = call("energy", "fit", directory)
    assert code == 0
    assert "fitted to measured energy (powercap:package): 120 runs (120 measured)" in out
    assert "static power" in out
    assert "35" in next(line for line in out.splitlines() if line.startswith("static power"))
    for name in ("BUTTER-E", "FLOPs alone", "time alone", "per byte of memory", "pJ/FLOP"):
        assert name in out
    assert json.loads((directory / "energy" / "model.json").read_text())["n_runs"] == 120
    for figure in ("predicted.png", "per_datum.png"):
        assert (directory / "energy" / figure).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_of_a_fit_fit_a_terminal(call, results, columns):
    _, out, _ = call("energy", "fit", results[0])
    tables = out.split("\n\n")[1:-1]
    assert len(tables) == 3
    table_lines = [line for table in tables for line in table.splitlines()]
    assert max(map(len, table_lines)) <= columns + 6  # The line below the second is a sentence.
    assert max(len(line) for line in table_lines if "MAPE:" not in line) <= 80


def test_fit_as_json_is_the_model_and_nothing_else(call, results, tmp_path):
    code, out, _ = call("energy", "fit", results[0], "--json", "--out", tmp_path / "elsewhere")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "elsewhere" / "model.json").read_text())
    assert json.loads(out)["forms"][0]["coefficients"][0]["unit"] == "W"


@pytest.mark.usefixtures("server_caches")
def test_caches_are_those_given_else_of_this_machine_if_it_is_the_one_measured(call, results):
    directory, kept = results
    given = json.loads(call("energy", "fit", directory, "--json", "--caches", "32K,1M")[1])
    assert given["caches"] == {"l1": 32768, "l2": 1048576}
    here = json.loads(call("energy", "fit", directory, "--json")[1])
    assert here["caches"] == {"l1": 32 * 2**10, "l2": 2**20, "l3": 4 * 2**20}
    kept["runs"] = kept["runs"].assign(cpu_model="another processor")
    elsewhere = json.loads(call("energy", "fit", directory, "--json")[1])
    assert elsewhere["caches"] is None


@pytest.mark.usefixtures("unknown_caches")
def test_unknown_caches_are_not_made_up_for_a_fit_and_forbid_a_prediction(call, results, sweep):
    directory, _ = results
    reason = "sysfs tells of no data cache of level 1 of CPU 0-1"
    code, out, err = call("energy", "fit", directory)
    assert code == 0
    assert err == f"warning: {reason}; --caches can say how large they are\n"
    assert "no form of BUTTER-E" in out
    code, out, err = call("energy", "predict", sweep, "--model", directory)
    assert (code, out) == (2, "")
    assert f"error: the bytes that a sweep moves cannot be predicted: {reason}; predict on" in err


def test_without_working_sets_there_is_no_figure_against_them(call, results):
    directory, kept = results
    sets = [name for name in kept["runs"] if name.startswith("working_set_")]
    kept["runs"] = kept["runs"].drop(columns=sets)
    code, out, _ = call("energy", "fit", directory)
    assert code == 0
    assert "note: results have no working sets" in out
    assert {path.name for path in (directory / "energy").iterdir()} == {
        "model.json",
        "predicted.png",
    }


@pytest.mark.usefixtures("server_caches")
def test_predict_takes_a_model_or_the_results_themselves(call, results, sweep):
    directory, _ = results
    call("energy", "fit", directory)
    code, out, _ = call("energy", "predict", sweep, "--model", directory / "energy" / "model.json")
    assert code == 0
    assert "12 runs: " in out
    assert "kWh [" in out
    assert "(modelled from measured energies)" in out
    assert out.count("assumed: ") == 4
    document, again = (
        json.loads(call("energy", "predict", sweep, "--json", "--model", model)[1])
        for model in (directory / "energy" / "model.json", directory)
    )
    assert document == again
    assert document["energy_quality"] == "modelled"
    assert document["low_kwh"] < document["energy_kwh"] < document["high_kwh"]
    assert [each["n_runs"] for each in document["experiments"]] == [3] * 4


@pytest.mark.usefixtures("server_caches")
def test_predict_counts_what_can_be_run_and_names_what_cannot(call, results, sweep):
    sweep.write_text(SWEEP.replace("[1024,", "[32,"))
    code, out, _ = call("energy", "predict", sweep, "--model", results[0])
    assert code == 0
    assert "6 runs: " in out
    assert "cannot run, and not counted: size 32 is unreachable" in out


def test_results_without_energy_are_a_mistake_and_never_0_j(call, tmp_path):
    # What CI does: a sweep on a machine without counters, stored and read as it is.
    arguments = ("--dataset", "iris", "--size", 100, "--depth", 3, "--batch-size", 16)
    call("train", *arguments, "--epochs", 1, "--out", "here")
    code, out, err = call("energy", "fit", "here")
    assert (code, out) == (2, "")
    assert err.startswith("error: no energy was measured in 1 runs (")
    assert err.count("\n") == 1
    assert not (tmp_path / "here" / "energy").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere"], "nowhere does not exist"),
        (["fit", ".", "--caches", "32K;1M"], "--caches 32K;1M: write one to three sizes"),
        (["fit", ".", "--caches", "1K,1K,1K,1K"], "write one to three sizes"),
        (["predict", "quickstart", "--model", "nowhere.json"], "nowhere.json cannot be read"),
        (["predict", "quickstart", "--model", "no.json"], "no.json: this is no energy model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_exit_code_2(call, tmp_path, arguments, message):
    (tmp_path / "no.json").write_text("{}")
    code, out, err = call("energy", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_mixed_kinds_are_refused_until_one_is_chosen(call, results):
    directory, kept = results
    is_simulated = kept["runs"]["experiment_id"] < "e0020"
    ids = set(kept["runs"].loc[is_simulated, "run_id"])
    for name, frame in kept.items():
        simulated = frame["run_id"].isin(ids) & frame["energy_j"].notna()
        kept[name] = frame.assign(
            energy_source=np.where(simulated, "simulated:package", frame["energy_source"])
        )
    code, _, err = call("energy", "fit", directory)
    assert (code, "80 measured, 40 simulated runs" in err) == (2, True)
    code, out, _ = call("energy", "fit", directory, "--source", "simulated")
    assert (code, "fitted to simulated energy (simulated:package): 40 runs" in out) == (0, True)
    assert "left out: 80 runs: energy is measured, not simulated" in out


def test_runs_of_many_ranks_are_fitted_by_whole_packages_and_the_report_says_so(
    call, results, share_packages
):
    directory, kept = results
    tables = share_packages()
    kept["runs"] = tables.runs.assign(
        cpu_model=kept["runs"]["cpu_model"].iloc[0], foreign_load=[0.5, 0.3, *[0.0] * 118]
    )
    kept["epochs"] = tables.epochs
    code, out, _ = call("energy", "fit", directory)
    assert code == 0
    assert "118 runs (118 measured_package)" in out
    assert "35" in next(line for line in out.splitlines() if line.startswith("static power"))
    assert "note: 118 runs were not alone on their package" in out
    assert "left out: 2 runs: other processes took more than 2 % of the processors" in out
    for figure in ("predicted.png", "per_datum.png"):
        assert (directory / "energy" / figure).read_bytes().startswith(b"\x89PNG")


def test_the_figure_against_the_working_set_shows_what_each_run_took_of_its_package(
    call, results, share_packages, monkeypatch
):
    directory, kept = results
    tables = share_packages(is_gang=True, repetitions=4)
    kept["runs"], kept["epochs"] = tables.runs, tables.epochs
    drawn = {}

    def keep(name):
        return lambda rows, *rest: drawn.update({name: (rows, rest[-2])})

    monkeypatch.setattr(plots, "draw_predicted_energy", keep("predicted"))
    monkeypatch.setattr(plots, "draw_energy_per_datum", keep("per_datum"))
    assert call("energy", "fit", directory)[0] == 0
    (packages, what), (own, what_own) = drawn["predicted"], drawn["per_datum"]
    assert what == "measured package with all its runs,"
    assert what_own == "measured package, modelled share"
    share = (own["energy_j"] / packages["energy_j"]).to_numpy()
    assert share == pytest.approx(packages["own_share"].to_numpy())
    assert (own["predicted_j"] / own["energy_j"]).to_numpy() == pytest.approx(1)
    assert 0.2 < share.mean() < 0.35


def test_a_folder_that_cannot_be_written_is_refused_with_the_remedy(call, results):
    code, _, err = call("energy", "fit", results[0], "--out", "/proc/model")
    assert (code, "/proc/model cannot take the model" in err, "--out" in err) == (2, True, True)


@pytest.mark.usefixtures("server_caches")
def test_a_plan_says_what_energy_a_sweep_takes_by_a_model(call, results, sweep, monkeypatch):
    directory, _ = results
    call("energy", "fit", directory)
    model = directory / "energy" / "model.json"
    predicted = json.loads(call("energy", "predict", sweep, "--model", model, "--json")[1])
    planned = json.loads(call("sweep", "plan", sweep, "--energy-model", model, "--json")[1])
    for key in ("energy_kwh", "low_kwh", "high_kwh"):
        assert planned["energy"][key] == pytest.approx(predicted[key], rel=1e-6)
    _, out, _ = call("sweep", "plan", sweep, "--energy-model", model)
    assert re.search(r"^energy: [\d.e-]+ kWh \[.*\] in 90 % \(modelled from ", out, re.M)
    monkeypatch.setattr(forecasting, "_MOST_MODELLED", 2)
    sampled = json.loads(call("sweep", "plan", sweep, "--energy-model", model, "--json")[1])
    assert sampled["energy"]["sampled_experiments"] == 2
    assert sampled["energy"]["energy_kwh"] == pytest.approx(predicted["energy_kwh"], rel=0.5)
    _, out, _ = call("sweep", "plan", sweep, "--energy-model", model)
    assert "from a sample of 2 experiments)" in out
