"""Exports that the readers of others take: the notebooks of BUTTER, and whatever reads CSV."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from minibutter.store import (
    EPOCHS_SCHEMA,
    METRICS,
    RUNS_SCHEMA,
    ShardWriter,
    StoreError,
    export,
    exporting,
    read_epochs,
)
from minibutter.store.butter import experiment_numbers
from minibutter.store.butter_sweeps import SWEEPS, sweep_flags
from minibutter.store.exporting import FORMATS
from tests.store.test_compaction import FAILED, flip_a_page, names

PRIMARY = {"dataset": "mnist", "shape": "rectangle", "depth": 8, "size": 32768, "epochs": 3000}


@pytest.fixture
def results(tmp_path, make_run, make_epochs):
    """Three experiments: one of BUTTER's primary sweep, one with L2 and SGD, one explicit."""
    odd = {"l2": 0.01, "optimizer": "sgd", "momentum": 0.9, "sweep": "penalties"}
    explicit = {"size": None, "task": "binary", "n_outputs": 1, "learning_rate": 1e-5}
    directory = tmp_path / "results"
    with ShardWriter(directory, "rank0") as writer:
        for experiment_id, columns, n_runs in (
            ("c0ffee00", PRIMARY, 3),
            ("0badcafe", odd, 2),
            ("deadbeef", explicit, 1),
        ):
            for i in range(n_runs):
                run = make_run(f"{experiment_id}-{i}", experiment_id, i, epochs_completed=4)
                run |= columns | ({} if columns is PRIMARY else {"epochs": 4})
                penalties = {"train_penalty": [0.5, 0.25, 0.125, 0.0], "test_penalty": [2.0] * 4}
                writer.add(run, make_epochs(4, seed=i, **(penalties if columns is odd else {})))
        writer.add(make_run("0badcafe-2", "0badcafe", 2, **odd | FAILED))
    return directory


@pytest.fixture
def exported(results, tmp_path):
    export(results, tmp_path / "butter", "butter")
    return tmp_path / "butter"


def read_pandas(path: Path, filters, columns):
    """What the published notebooks do with a local copy of the data set."""
    with (path / "_common_metadata").open("rb") as file:
        schema = pq.read_schema(file)
    return pq.read_table(path, filters=filters, schema=schema, columns=columns).to_pandas()


def test_folders_are_those_of_the_data_set(results, tmp_path):
    done = export(results, tmp_path / "out", "butter")
    assert (done.n_runs, done.n_experiments, done.n_left_out) == (6, 3, 1)
    assert done.problems == []
    assert [path.name for path in done.paths] == [
        "all_repetitions", "batch_size_sweep_summary", "complete_executive_summary",
        "complete_summary", "label_noise_sweep_summary", "learning_rate_sweep_summary",
        "primary_sweep_summary", "regularization_sweep_summary",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        path.name for path in done.paths
    ]
    for path in done.paths:
        assert (path / "_common_metadata").is_file()


def test_partitions_stand_in_the_paths_in_the_published_order(exported):
    of_it = {"primary", "learning_rate", "label_noise", "batch_size", "regularization"}
    flags = "/".join(
        f"{sweep}={str(sweep.removesuffix('_sweep') in of_it).lower()}" for sweep in SWEEPS
    )
    keys = (
        "dataset=mnist/learning_rate=0.0001/batch_size=256/"
        "kernel_regularizer_type=__HIVE_DEFAULT_PARTITION__/label_noise=0/epochs=3000/"
        "shape=rectangle/depth=8"
    )
    assert len(list((exported / "all_repetitions" / flags / keys).glob("*.parquet"))) == 1
    more = f"{keys}/optimizer=adam/momentum=__HIVE_DEFAULT_PARTITION__"
    assert len(list((exported / "complete_summary" / flags / more).glob("*.parquet"))) == 1
    assert len(list((exported / "primary_sweep_summary" / more).glob("*.parquet"))) == 1
    (odd,) = (exported / "complete_summary").rglob("kernel_regularizer_type=l2/**/*.parquet")
    assert odd.parent.name == "momentum=0.9"
    assert odd.parent.parent.name == "optimizer=SGD"


def test_notebook_reads_its_slice_and_explodes_the_curves(exported, results):
    columns = ["test_loss_median", "test_loss_stddev", "test_loss_avg", "experiment_id", "size",
               "num_free_parameters", "dataset", "epochs", "shape", "depth"]  # fmt: skip
    filters = [
        ("dataset", "in", ["mnist", "sleep"]), ("shape", "==", "rectangle"),
        ("learning_rate", "<=", 0.00011), ("learning_rate", ">=", 0.00009),
        ("depth", "in", [2, 5, 8]), ("label_noise", "==", 0.0), ("num_runs", ">=", 3),
    ]  # fmt: skip
    frame = read_pandas(exported / "primary_sweep_summary", filters, columns)
    assert len(frame) == 1
    frame["epoch"] = frame["test_loss_median"].apply(lambda x: list(range(1, 1 + len(x))))
    long = frame.explode(["test_loss_median", "test_loss_avg", "test_loss_stddev", "epoch"])
    assert long["epoch"].tolist() == [1, 2, 3, 4]
    epochs = read_epochs(results, run_ids=[f"c0ffee00-{i}" for i in range(3)])
    expected = epochs.groupby("epoch")["test_loss"].median()
    np.testing.assert_allclose(long["test_loss_median"].astype(float), expected, rtol=1e-6)
    assert long[["size", "num_free_parameters"]].drop_duplicates().to_numpy().tolist() == [
        [32768, 489]
    ]


def test_repetition_is_a_run_with_its_curves(exported, results):
    filters = [("experiment_id", "==", 0x0BADCAFE)]
    rows = read_pandas(exported / "all_repetitions", filters, None).sort_values("run_id")
    assert rows["run_id"].tolist() == ["0badcafe-0", "0badcafe-1"]
    epochs = read_epochs(results, run_ids=["0badcafe-1"])
    row = rows.iloc[1]
    for metric in METRICS:
        for side in ("train", "test"):
            expected = epochs[f"{side}_{metric}"].to_numpy()
            if metric == "loss":
                expected = expected + epochs[f"{side}_penalty"].to_numpy()
            np.testing.assert_array_equal(row[f"{side}_{metric}"], expected)
    assert row["train_loss"][0] == epochs["train_loss"][0] + np.float32(0.5)
    expected = {
        "batch": "penalties", "optimizer": "SGD", "activation": "relu", "input_activation": "relu",
        "output_activation": "softmax", "kernel_regularizer": '{"type": "l2", "l2": 0.01}',
        "kernel_regularizer_type": "l2", "hostname": "node-1", "num_free_parameters": 489,
        "seed": 0, "start_time": 1767323045, "update_time": 1767323045, "batch_size": 256,
        "optimizer_sweep": False, "size": 512, "depth": 3, "python_version": "3.11.7",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["momentum"] == np.float32(0.9)
    assert row["kernel_regularizer_l2"] == np.float32(0.01)
    assert row["widths"].tolist() == [18, 18, 3]
    for name in ("tensorflow_version", "task_version", "git_hash", "kernel_regularizer_l1"):
        assert pd.isna(row[name])
    command = json.loads(row["command"])
    assert (command["learning_rate"], command["repetition"]) == (1e-4, 1)
    assert json.loads(row["network_structure"])["widths"] == [18, 18, 3]


def test_what_took_long_ended_later(tmp_path, make_run, make_epochs):
    """Four lanes shared 60 s: each was charged 15, and all ended after 60."""
    with ShardWriter(tmp_path / "results", "rank0") as writer:
        started_at = datetime(2026, 1, 1, tzinfo=UTC)
        run = make_run("ab-0", "ab", duration_s=15.0, lanes=4, started_at=started_at)
        writer.add(run, make_epochs())
    export(tmp_path / "results", tmp_path / "out", "butter")
    row = read_pandas(tmp_path / "out" / "all_repetitions", None, None).iloc[0]
    assert row["update_time"] - row["start_time"] == 60
    assert row["start_time"] == started_at.timestamp()


def test_types_are_the_published_ones(exported):
    def types(folder):
        schema = pq.read_schema(exported / folder / "_common_metadata")
        return {field.name: str(field.type) for field in schema}

    runs, summary, executive = map(
        types, ("all_repetitions", "complete_summary", "complete_executive_summary")
    )
    shared = {
        "experiment_id": "uint32", "batch_size": "uint32", "depth": "uint8", "epochs": "uint32",
        "size": "uint64", "num_free_parameters": "uint64", "learning_rate": "float",
        "label_noise": "float", "momentum": "float", "test_split": "float", "dataset": "string",
        "kernel_regularizer_l1": "float", "primary_sweep": "bool", "30k_epoch_sweep": "bool",
        "widths": "list<element: uint32>",
    }  # fmt: skip
    for found in (runs, summary, executive):
        assert {name: found[name] for name in shared} == shared
    assert runs["task_version"] == "uint16"
    assert runs["start_time"] == runs["seed"] == "int64"
    curves = {f"{side}_{metric}" for metric in METRICS for side in ("test", "train")}
    assert {name for name in runs if runs[name] == "list<element: float>"} == curves
    assert len(runs) == 20 + 3 + 2 + 8 + 3 + 3 + 3 + 1 + 20
    assert summary["num_runs"] == "uint8"
    assert summary["num"] == "list<element: uint8>"
    assert summary["test_loss_min_epoch_min"] == "uint32"
    assert summary["test_loss_min_epoch_median"] == "float"
    assert summary["train_accuracy_q3"] == "list<element: float>"
    lists = {name for name in summary if "list" in summary[name]} - {"widths", "num"}
    assert len(lists) == 2 * 8 + 6 * 5
    in_both = {"test_loss_median", "test_loss_q1", "test_loss_q3"}
    assert {name for name in executive if "list" in executive[name]} == in_both | {"widths"}
    assert set(executive) <= set(summary)


PUBLISHED_PARAMETERS = {
    "string": "activation batch dataset input_activation kernel_regularizer "
    "kernel_regularizer_type optimizer output_activation shape task network_structure",
    "float": "kernel_regularizer_l1 kernel_regularizer_l2 label_noise learning_rate momentum "
    "test_split",
    "uint32": "experiment_id batch_size epochs",
    "uint64": "size num_free_parameters",
    "uint8": "depth",
    "bool": "primary_sweep 300_epoch_sweep 30k_epoch_sweep learning_rate_sweep label_noise_sweep "
    "batch_size_sweep regularization_sweep optimizer_sweep",
    "list<element: uint32>": "widths",
}
PUBLISHED_METRICS = (
    "loss accuracy mean_squared_error mean_absolute_error root_mean_squared_error "
    "mean_squared_logarithmic_error hinge squared_hinge cosine_similarity "
    "kullback_leibler_divergence"
)
PUBLISHED_RUNS = {
    "string": "run_id python_version tensorflow_version platform git_hash hostname command",
    "uint16": "task_version",
    "int64": "seed start_time update_time",
    "list<element: float>": " ".join(
        f"{side}_{metric}" for side in ("test", "train") for metric in PUBLISHED_METRICS.split()
    ),
}
PUBLISHED_EXTREMA = (
    "test_loss_min test_accuracy_max test_mean_squared_error_min "
    "test_kullback_leibler_divergence_min"
)
PUBLISHED_EXECUTIVE = {
    "uint8": "num_runs",
    "uint32": " ".join(
        f"{extremum}_epoch_{end}"
        for extremum in PUBLISHED_EXTREMA.split()
        for end in ("min", "max")
    ),
    "float": " ".join(
        f"{extremum}_{statistic}"
        for extremum in PUBLISHED_EXTREMA.split()
        for statistic in (
            *("epoch_avg", "epoch_q1", "epoch_median", "epoch_q3"),
            *("value_min", "value_max", "value_avg", "value_q1", "value_median", "value_q3"),
        )
    ),
    "list<element: float>": "test_loss_q1 test_loss_median test_loss_q3",
}
PUBLISHED_SUMMARY = {
    "list<element: uint8>": "num",
    "list<element: float>": " ".join(
        [
            f"{side}_{metric}_{statistic}"
            for side in ("test", "train")
            for metric, statistics in (
                ("loss", "num_finite min q1 median q3 max avg stddev"),
                ("accuracy", "q1 median q3 avg stddev"),
                ("mean_squared_error", "q1 median q3 avg stddev"),
                ("kullback_leibler_divergence", "q1 median q3 avg stddev"),
            )
            for statistic in statistics.split()
        ]
    ),
}


@pytest.mark.parametrize(
    ("folder", "parts"),
    [
        ("all_repetitions", (PUBLISHED_PARAMETERS, PUBLISHED_RUNS)),
        ("complete_executive_summary", (PUBLISHED_PARAMETERS, PUBLISHED_EXECUTIVE)),
        ("complete_summary", (PUBLISHED_PARAMETERS, PUBLISHED_EXECUTIVE, PUBLISHED_SUMMARY)),
        ("primary_sweep_summary", (PUBLISHED_PARAMETERS, PUBLISHED_EXECUTIVE, PUBLISHED_SUMMARY)),
    ],
)
def test_columns_are_exactly_the_published_ones(exported, folder, parts):
    """Also those of the files: all but the keys, which are in the names of their folders."""
    expected = {name: type_ for part in parts for type_, names in part.items()
                for name in names.split()}  # fmt: skip
    schema = pq.read_schema(exported / folder / "_common_metadata")
    assert {field.name: str(field.type) for field in schema} == expected
    keys = (
        *("dataset", "learning_rate", "batch_size", "kernel_regularizer_type", "label_noise"),
        *("epochs", "shape", "depth"),
    )
    if folder != "primary_sweep_summary":
        keys = (*PUBLISHED_PARAMETERS["bool"].split(), *keys)
    if folder != "all_repetitions":
        keys += ("optimizer", "momentum")
    paths = list((exported / folder).rglob("*.parquet"))
    assert paths
    for path in paths:
        of_path = [part.split("=")[0] for part in path.parent.relative_to(exported / folder).parts]
        assert tuple(of_path) == keys
        in_file = pq.ParquetFile(path).schema_arrow
        assert set(in_file.names) == set(expected) - set(keys)
        assert {name: str(in_file.field(name).type) for name in in_file.names}.items() <= (
            expected.items()
        )
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "BROTLI"


def test_folders_open_without_their_schema(exported):
    """As pandas and Arrow open them, which tell the partitions from the names."""
    frame = pd.read_parquet(exported / "all_repetitions", columns=["run_id", "dataset", "shape"])
    assert sorted(frame["run_id"])[0] == "0badcafe-0"
    assert len(frame) == 6
    summary = pq.read_table(
        exported / "complete_summary", filters=[("kernel_regularizer_type", "=", "l2")]
    ).to_pylist()
    assert [(row["optimizer"], row["num_runs"]) for row in summary] == [("SGD", 2)]


def test_values_that_no_folder_can_have_as_name_come_back(tmp_path, make_run, make_epochs):
    with ShardWriter(tmp_path / "results", "rank0") as writer:
        writer.add(make_run("ab-0", "ab", dataset="häuser/a=b %41"), make_epochs())
    export(tmp_path / "results", tmp_path / "out", "butter")
    frame = read_pandas(tmp_path / "out" / "complete_summary", None, ["dataset"])
    assert frame["dataset"].tolist() == ["häuser/a=b %41"]


def test_process_that_has_exported_ends_well(results, tmp_path):
    script = "import sys; from minibutter.store import export; export(*sys.argv[1:], 'butter')"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, results, tmp_path / str(n)])
        for n in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4


def test_summary_counts_the_loss_with_its_penalty(exported, results):
    filters = [("experiment_id", "==", 0x0BADCAFE)]
    row = read_pandas(exported / "complete_summary", filters, None).iloc[0]
    epochs = read_epochs(results, run_ids=["0badcafe-0", "0badcafe-1"])
    loss = epochs["test_loss"] + epochs["test_penalty"]
    minima = loss.groupby(epochs["run_id"]).min()
    assert row["num_runs"] == 2
    assert row["num"].tolist() == [2] * 4
    assert row["test_loss_min_value_min"] == minima.min()
    np.testing.assert_allclose(row["test_loss_avg"], loss.groupby(epochs["epoch"]).mean(), 1e-6)


def test_parts_hold_whole_experiments(results, tmp_path, monkeypatch):
    export(results, tmp_path / "whole", "butter")
    monkeypatch.setattr(exporting, "_MAX_EPOCHS", 5)
    export(results, tmp_path / "parts", "butter")
    for folder, key in (("all_repetitions", "run_id"), ("complete_summary", "experiment_id")):
        one, other = (
            read_pandas(tmp_path / name / folder, None, None).sort_values(key, ignore_index=True)
            for name in ("whole", "parts")
        )
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"primary", "learning_rate", "label_noise", "batch_size", "regularization"}),
        ({"depth": 6}, {"primary", "optimizer"}),
        ({"depth": 12}, {"primary", "learning_rate", "label_noise"}),
        ({"depth": 3, "batch_size": 64}, {"batch_size", "optimizer"}),
        ({"depth": 3}, {"primary", "learning_rate", "label_noise", "batch_size", "regularization",
                        "optimizer"}),
        ({"shape": "wide_first_16x"}, {"primary"}),
        ({"dataset": "adult", "depth": 7}, {"primary", "learning_rate", "batch_size",
                                            "regularization"}),
        ({"dataset": "banana", "depth": 4}, {"primary", "optimizer"}),
        ({"learning_rate": 1e-3, "label_noise": 0.05}, {"label_noise"}),
        ({"learning_rate": 1e-3, "label_noise": 0.1}, set()),
        ({"l1": 0.32}, {"regularization"}),
        ({"l2": 7.8125e-5}, {"regularization"}),
        ({"l1": 0.32, "l2": 0.32}, set()),
        ({"epochs": 300, "size": 2**26}, {"300_epoch"}),
        ({"epochs": 30000}, {"30k_epoch"}),
        ({"optimizer": "sgd", "momentum": 0.9, "depth": 2}, {"optimizer"}),
        ({"optimizer": "sgd", "momentum": 0.5, "depth": 2}, set()),
        ({"size": 1000}, set()),
        ({"dtype": "float64"}, set()),
        ({"dataset": "digits"}, set()),
        ({"initializer": "he_uniform"}, set()),
        ({"learning_rate_step_epochs": 100}, set()), ({"nesterov": True}, set()),
    ],
)  # fmt: skip
def test_specification_belongs_to_the_sweeps_that_have_its_values(make_run, changes, expected):
    runs = pd.DataFrame([make_run() | PRIMARY | changes])
    flags = {name.removesuffix("_sweep") for name, is_in in sweep_flags(runs).items() if is_in[0]}
    assert flags == expected


def test_numbers_of_experiments_differ_even_where_their_ids_begin_alike():
    ids = ["00000001ff", "00000001aa", "00000002bb", "ffffffff01", "ffffffff00"]
    numbers = experiment_numbers(ids)
    assert len(set(numbers.values())) == 5
    assert numbers["00000001aa"] == 1
    assert max(numbers.values()) < 2**32
    assert numbers == experiment_numbers(ids[::-1])


def test_csv_has_all_columns_and_tells_null_from_nan(tmp_path, make_run, make_epochs):
    with ShardWriter(tmp_path / "results", "rank0") as writer:
        loss = np.array([1.5, np.nan, np.inf], np.float32)
        writer.add(make_run("ab-1", "ab", size=None), make_epochs(test_loss=loss))
        writer.add(make_run("ab-0", "ab", widths=None, **FAILED))
    done = export(tmp_path / "results", tmp_path / "out", "csv")
    assert [path.name for path in done.paths] == ["runs.csv", "epochs.csv"]
    assert (done.n_runs, done.n_left_out) == (2, 0)
    runs = pd.read_csv(tmp_path / "out" / "runs.csv", dtype=str, keep_default_na=False)
    assert runs.columns.tolist() == RUNS_SCHEMA.names
    assert runs["run_id"].tolist() == ["ab-0", "ab-1"]
    assert runs["widths"].tolist() == ["", "18-18-3"]
    assert runs["size"].tolist() == ["512", ""]
    assert runs["started_at"][1].startswith("2026-01-02 03:04:05")
    epochs = pd.read_csv(tmp_path / "out" / "epochs.csv", dtype=str, keep_default_na=False)
    assert epochs.columns.tolist() == EPOCHS_SCHEMA.names
    assert epochs["test_loss"].tolist() == ["1.5", "nan", "inf"]
    assert epochs["trained_loss"].tolist() == [""] * 3


def test_damaged_runs_are_left_out_and_said(results, tmp_path, make_run, make_epochs):
    (name,) = names(results)
    with ShardWriter(results, "rank1") as writer:
        writer.add(make_run("ab-0", "ab"), make_epochs())
    flip_a_page(results / "epochs" / name)
    done = export(results, tmp_path / "out", "butter")
    assert (done.n_runs, done.n_left_out) == (1, 7)
    assert name in done.problems[0]
    rows = read_pandas(tmp_path / "out" / "all_repetitions", None, ["run_id"])
    assert rows["run_id"].tolist() == ["ab-0"]


def test_numbers_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path, make_run, make_epochs):
    with ShardWriter(tmp_path / "results", "rank0") as writer:
        writer.add(make_run("ab-0", "ab", depth=300), make_epochs())
    with pytest.raises(
        StoreError, match=r"the data set has depth as uint8, .*; export them as csv"
    ):
        export(tmp_path / "results", tmp_path / "out", "butter")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_target_that_holds_something_is_refused(results, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"out exists; give a folder that does not"):
        export(results, tmp_path / "out", "csv")
    with pytest.raises(StoreError, match=r"format 'hdf5': must be one of butter, csv"):
        export(results, tmp_path / "other", "hdf5")
    assert tuple(FORMATS) == ("butter", "csv")
    (tmp_path / "out" / "thesis.tex").unlink()
    assert export(results, tmp_path / "out", "csv").n_runs == 7


def test_interrupted_export_leaves_nothing(results, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_metadata", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(results, tmp_path / "out", "butter")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_all_failed_leaves_nothing_to_export(tmp_path, make_run):
    with ShardWriter(tmp_path / "results", "rank0") as writer:
        writer.add(make_run("ab-0", "ab", **FAILED))
    with pytest.raises(StoreError, match="there is nothing to export"):
        export(tmp_path / "results", tmp_path / "out", "butter")
