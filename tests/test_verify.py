"""Finished runs that are done again: all their bits come back, and what does not is named."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minibutter import launch, runs, store
from minibutter.experiments.resolved import _describe
from minibutter.launch import verify as module
from minibutter.launch.verify import (
    EXIT_DIFFERENT,
    EXIT_DIFFERENT_ELSEWHERE,
    EXIT_NOT_REPEATED,
    EXIT_SAME,
    sample_size,
    verify,
)
from minibutter.provenance import read_provenance
from minibutter.store.parquet import write_table
from minibutter.sweeps.spec import SweepError, parse_sweep

VARIED = {
    "name": "varied",
    "dataset": "iris",
    "epochs": 3,
    "batch_size": 16,
    "repetitions": 2,
    "grid": [
        {"size": 100, "depth": 3, "shape": ["rectangle", "exponential"], "evaluate_train": True},
        {"widths": [5, 4, 3], "optimizer": "sgd", "momentum": 0.9, "l2": 0.01, "dtype": "float64"},
        {"size": 200, "depth": 2, "label_noise": 0.2, "seed": 2**40, "tile_rows": 3},
        {"size": 300, "depth": 4, "learning_rate": 1e30, "on_divergence": ["stop", "continue"]},
    ],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of many kinds of runs, trained in lanes; copy it to change it."""
    out = tmp_path_factory.mktemp("verify") / "varied"
    return train(VARIED, out)


def train(document, out):
    sweep = parse_sweep(document, "s.toml")
    launch.run_sweep(lambda: sweep, reporter=launch.PlainReporter(), out=out, lanes=2)
    store.compact(out)
    return out


@pytest.fixture
def results(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "results")


def change(directory, table, column, values):
    """Replace values of the only file of a table, by a function."""
    (path,) = (directory / table).glob("*.parquet")
    stored = pq.read_table(path)
    place, field = stored.column_names.index(column), stored.field(column)
    changed = pa.array(values(stored), field.type)
    write_table(stored.set_column(place, field, changed), path)


def test_all_bits_of_every_kind_of_run_come_back(finished):
    said = []
    found = verify(finished, "100%", on_run=said.append)
    assert found.n_finished == len(found.repeated) == 12
    assert [each.problem for each in found.repeated if each.problem] == []
    assert [each.difference for each in found.repeated if each.difference] == []
    assert {each.run_id for each in found.repeated} == set(store.finished_runs(finished)[0])
    assert said == found.repeated
    assert found.exit_code == EXIT_SAME
    statuses = store.read_runs(finished)["status"].value_counts().to_dict()
    assert statuses == {"completed": 10, "stopped": 2}


def test_nothing_is_written(finished):
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*"))
    verify(finished, "1")
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*")) == before


def test_sample_follows_from_its_seed(finished):
    def drawn(seed):
        return [each.run_id for each in verify(finished, "3", seed).repeated]

    assert drawn(0) == drawn(0)
    assert len({*map(tuple, map(drawn, range(4)))}) > 1
    assert len(set(drawn(0))) == 3


@pytest.mark.parametrize(
    ("sample", "n", "size"),
    [("1%", 1000, 10), ("1%", 12, 1), ("0.1%", 5000, 5), ("50%", 3, 2), ("100%", 7, 7),
     ("7%", 100, 7), ("20", 100, 20), ("20", 12, 12), ("1", 12, 1)],
)  # fmt: skip
def test_sample_is_a_percentage_or_a_number(sample, n, size):
    assert sample_size(sample, n) == size


@pytest.mark.parametrize("sample", ["", "0", "0%", "101%", "1.5", "-1", "many", "1 %%"])
def test_sample_that_means_nothing_is_refused(sample, finished):
    with pytest.raises(SweepError, match=r"--sample .*: write a percentage, as in 1%, or a number"):
        verify(finished, sample)


def test_column_and_epoch_of_another_bit_are_named(results):
    (path,) = (results / "epochs").glob("*.parquet")
    rows = pq.read_table(path, columns=["run_id", "epoch", "test_hinge"]).to_pandas()
    run_id = rows["run_id"][(rows["epoch"] == 3) & rows["test_hinge"].notna()].iloc[0]
    place = rows.index[(rows["run_id"] == run_id) & (rows["epoch"] == 2)][0]

    def flip(table):
        values = table["test_hinge"].to_numpy().copy()
        values[place] = np.nextafter(values[place], np.float32(-1))
        return values

    change(results, "epochs", "test_hinge", flip)
    found = verify(results, "100%")
    (other,) = [each for each in found.repeated if each.difference]
    assert other.run_id == run_id
    assert other.difference.columns == ("test_hinge",)
    assert other.difference.first_epoch == 2
    assert other.elsewhere == {}
    assert found.exit_code == EXIT_DIFFERENT


def test_column_of_runs_that_differs_is_named(results):
    change(results, "runs", "num_parameters", lambda table: [1] * len(table))
    found = verify(results, "2")
    assert {each.difference.columns for each in found.repeated} == {("num_parameters",)}
    assert {each.difference.first_epoch for each in found.repeated} == {None}


@pytest.mark.parametrize("column", ["cpu_model", "numba_version", "minibutter_version", "blas"])
def test_another_processor_or_version_is_said_and_ends_otherwise(results, column):
    change(results, "runs", column, lambda table: ["another"] * len(table))
    found = verify(results, "1")
    assert found.exit_code == EXIT_SAME
    here = getattr(read_provenance(), column)
    assert found.repeated[0].elsewhere == {column: ("another", here)}
    change(results, "runs", "num_parameters", lambda table: [1] * len(table))
    assert verify(results, "1").exit_code == EXIT_DIFFERENT_ELSEWHERE


def test_failed_runs_are_not_drawn(tmp_path):
    document = {"dataset": "digits", "size": [32, 700], "depth": 3, "epochs": 1}
    out = train(document, tmp_path / "out")
    found = verify(out, "100%")
    assert found.n_finished == 1
    assert found.exit_code == EXIT_SAME
    nothing = train(document | {"size": 32}, tmp_path / "nothing")
    with pytest.raises(store.StoreError, match="there is nothing to verify"):
        verify(nothing)


def test_data_that_have_changed_cannot_be_repeated(tmp_path):
    path = tmp_path / "data.csv"
    rows = [f"{i},{i * i % 17},{i % 2}\n" for i in range(60)]
    path.write_text("a,b,y\n" + "".join(rows))
    document = {"dataset": str(path), "target": "y", "size": 60, "depth": 3, "epochs": 1,
                "batch_size": 16}  # fmt: skip
    out = train(document, tmp_path / "out")
    assert verify(out).exit_code == EXIT_SAME
    path.write_text("a,b,y\n" + "".join(rows[::-1]))
    _describe.cache_clear()
    found = verify(out)
    assert found.exit_code == EXIT_NOT_REPEATED
    assert "means another experiment here" in found.repeated[0].problem
    path.unlink()
    _describe.cache_clear()
    found = verify(out)
    assert found.exit_code == EXIT_NOT_REPEATED
    assert "data.csv" in found.repeated[0].problem


def test_run_that_fails_here_is_said(finished, monkeypatch):
    def exhaust(experiment, repetition, dataset):
        raise MemoryError("Unable to allocate 3.00 TiB")

    monkeypatch.setattr(runs, "prepare", exhaust)
    found = verify(finished, "1")
    assert found.exit_code == EXIT_NOT_REPEATED
    assert "out of memory" in found.repeated[0].problem


def test_damaged_shards_are_said(results):
    (path,) = (results / "epochs").glob("*.parquet")
    path.write_bytes(b"")
    with pytest.raises(store.StoreError, match=r"no finished run yet(.|\n)*is damaged"):
        verify(results)


def test_versions_are_read_from_the_process_that_repeats(finished, monkeypatch):
    other = replace(read_provenance(), numpy_version="9.9")
    monkeypatch.setattr(module, "read_provenance", lambda: other)
    found = verify(finished, "1")
    then = read_provenance().numpy_version
    assert found.repeated[0].elsewhere == {"numpy_version": (then, "9.9")}
