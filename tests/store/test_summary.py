import math
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from minibutter.store import (
    METRICS,
    ShardWriter,
    StoreError,
    read_epochs,
    read_runs,
    summarize_epochs,
    summarize_experiments,
    write_summary,
)
from minibutter.store.summary import summarize_by_epoch, thin_epochs

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def write_sweep(tmp_path, make_run, make_epochs):
    """A function: store experiments {id: [test losses of each run]} and read both tables."""

    def write(experiments, **columns):
        with ShardWriter(tmp_path, "rank0", interval_s=1e9) as writer:
            for experiment_id, curves in experiments.items():
                for i, curve in enumerate(curves):
                    n = len(curve)
                    accuracy = [1 - 0.1 * value for value in curve]
                    epochs = make_epochs(n, test_loss=curve, test_accuracy=accuracy)
                    run_id = f"{experiment_id}-{i}"
                    writer.add(make_run(run_id, experiment_id, i, n, **columns), epochs)
        return read_runs(tmp_path), read_epochs(tmp_path)

    return write


def test_statistics_of_an_epoch_match_a_hand_computed_example(write_sweep):
    """Four runs: one diverges in epoch 2, one stops after epoch 1."""
    summary = summarize_epochs(
        *write_sweep({"e0": [[4.0, 2.0], [1.0, NAN], [3.0], [2.0, 1.0]], "e1": [[7.0]]})
    ).set_index(["experiment_id", "epoch"])
    assert summary.index.tolist() == [("e0", 1), ("e0", 2), ("e1", 1)]
    assert summary["num_runs"].tolist() == [4, 4, 1]
    assert summary["num"].tolist() == [4, 3, 1]
    # Epoch 1 sorts to 1, 2, 3, 4; epoch 2 to 1, 2, NaN, NaN; quantiles lie at 0.75, 1.5, 2.25.
    expected = {
        "num_finite": [4, 2, 1],
        "min": [1.0, 1.0, 7.0],
        "q1": [1.75, 1.75, 7.0],
        "median": [2.5, NAN, 7.0],
        "q3": [3.25, NAN, 7.0],
        "max": [4.0, 2.0, 7.0],
        "avg": [2.5, 1.5, 7.0],
        "stddev": [math.sqrt(5 / 3), math.sqrt(0.5), NAN],
    }
    for statistic, values in expected.items():
        assert_allclose(summary[f"test_loss_{statistic}"], values, rtol=1e-15, atol=0)


def test_noise_has_medians_in_which_a_scale_too_large_to_tell_is_the_largest(
    tmp_path, make_run, make_epochs
):
    scales = {"a": [4.0, 8.0], "b": [2.0, None], "c": [6.0, None]}
    with ShardWriter(tmp_path, "rank0", interval_s=1e9) as writer:
        for i, (run_id, of_run) in enumerate(scales.items()):
            noise = {"noise_trace": [9.0, float(i)], "noise_simple_scale": of_run}
            writer.add(make_run(run_id, "e0", i, 2), make_epochs(2, **noise))
        writer.add(make_run("d", "e1", 0, 2), make_epochs(2))
    _, epochs = write_summary(tmp_path)
    found = epochs.set_index(["experiment_id", "epoch"])
    assert_array_equal(found.loc["e0", "noise_simple_scale_median"], [4.0, NAN])
    assert_array_equal(found.loc["e0", "noise_trace_median"], [9.0, 1.0])
    assert_array_equal(found.loc["e1", "noise_trace_median"], [NAN, NAN])


def test_extrema_match_a_hand_computed_example(write_sweep):
    """Two runs attain their minimum twice, one is never finite, one has a single epoch."""
    curves = [[3.0, 1.0, 1.0], [NAN, 5.0, 2.0], [NAN, NAN, NAN], [4.0]]
    row = summarize_experiments(*write_sweep({"e0": curves})).iloc[0]
    # Minima 1, 2, 4, NaN at the epochs 2, 3, 1, none.
    expected = {
        "value": {"min": 1.0, "q1": 1.75, "median": 3.0, "q3": NAN, "max": 4.0, "avg": 7 / 3},
        "epoch": {"min": 1.0, "q1": 1.75, "median": 2.5, "q3": NAN, "max": 3.0, "avg": 2.0},
    }
    for what, statistics in expected.items():
        for statistic, value in statistics.items():
            actual = row[f"test_loss_min_{what}_{statistic}"]
            assert_allclose(actual, value, rtol=1e-15, atol=0, err_msg=f"{what} {statistic}")
    assert_allclose(row["test_accuracy_max_value_max"], 0.9, rtol=1e-7, atol=0)
    assert row["test_accuracy_max_epoch_min"] == 1.0


def percentile_cont(values, q):
    """As SQL has it, spelt out: NaN sorts as the largest, neighbours are interpolated."""
    ordered = sorted(values, key=lambda value: (math.isnan(value), value))
    position = q * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return low if low == high else low + (position - math.floor(position)) * (high - low)


def brute_statistics(values):
    numbers = [value for value in values if not math.isnan(value)]
    average = sum(numbers) / len(numbers) if numbers else NAN
    squares = sum((value - average) ** 2 for value in numbers)
    return {
        "num_finite": sum(map(math.isfinite, values)),
        "min": min(numbers, default=NAN),
        "q1": percentile_cont(values, 0.25),
        "median": percentile_cont(values, 0.5),
        "q3": percentile_cont(values, 0.75),
        "max": max(numbers, default=NAN),
        "avg": average,
        "stddev": math.sqrt(squares / (len(numbers) - 1)) if len(numbers) > 1 else NAN,
    }


def random_tables(seed):
    """Experiments with different numbers of runs, lengths, NaN and infinities, in random order."""
    rng = np.random.default_rng(seed)
    runs, epochs = [], []
    for e in range(12):
        for _ in range(rng.integers(1, 7)):
            run_id = f"{rng.integers(2**60):016x}"
            runs.append({"run_id": run_id, "experiment_id": f"e{e:02}", "status": "completed"})
            n = rng.integers(1, 9)
            rows = {f"{side}_{m}": rng.random(n) for side in ("test", "train") for m in METRICS}
            for values in rows.values():
                values[rng.random(n) < 0.2] = np.nan
                values[rng.random(n) < 0.1] = np.inf
            epochs.append(pd.DataFrame({"run_id": run_id, "epoch": np.arange(1, n + 1), **rows}))
    runs = pd.DataFrame(runs).sample(frac=1, random_state=seed, ignore_index=True)
    return runs, pd.concat(epochs).sample(frac=1, random_state=seed, ignore_index=True)


@pytest.mark.parametrize("seed", range(3))
def test_epoch_statistics_match_brute_force(seed):
    runs, epochs = random_tables(seed)
    summary = summarize_epochs(runs, epochs).set_index(["experiment_id", "epoch"])
    joined = epochs.merge(runs, on="run_id")
    assert len(summary) == len(joined.groupby(["experiment_id", "epoch"]))
    for (experiment_id, epoch), rows in joined.groupby(["experiment_id", "epoch"]):
        n_runs = (runs["experiment_id"] == experiment_id).sum()
        actual = summary.loc[(experiment_id, epoch)]
        assert actual["num_runs"] == n_runs
        for name in ("test_loss", "train_loss", "train_accuracy", "test_mean_squared_error"):
            values = [*rows[name].tolist(), *[NAN] * (n_runs - len(rows))]
            for statistic, expected in brute_statistics(values).items():
                if f"{name}_{statistic}" in summary:
                    assert_allclose(actual[f"{name}_{statistic}"], expected, rtol=1e-13, atol=0)


def test_epochs_of_a_logarithmic_axis_are_1_to_32_and_50_in_a_decade():
    grid = thin_epochs(30_000)
    assert grid[:34].tolist() == [*range(1, 33), 33, 35]
    assert grid[-1] == 28840 <= 30_000  # 10 ** (223 / 50)
    for decade in (100, 1000):
        assert ((grid >= decade) & (grid < 10 * decade)).sum() == 50
    assert thin_epochs(33).tolist() == list(range(1, 34))
    assert thin_epochs(5).tolist() == [1, 2, 3, 4, 5]
    assert thin_epochs(0).tolist() == []


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_and_best_so_far_match_brute_force(seed):
    runs, epochs = random_tables(seed)
    summary = summarize_by_epoch(runs, epochs).set_index(["experiment_id", "epoch"])
    joined = epochs.merge(runs, on="run_id").sort_values("epoch")
    assert len(summary) == len(joined.groupby(["experiment_id", "epoch"]))
    for (experiment_id, epoch), row in summary.iterrows():
        rows = joined[joined["experiment_id"] == experiment_id]
        n_runs = (runs["experiment_id"] == experiment_id).sum()
        reached = rows.loc[rows["epoch"] == epoch, "run_id"]
        assert (row["num_runs"], row["num"]) == (n_runs, len(reached))
        missing = [NAN] * (n_runs - len(reached))
        for name, pick in (("test_loss", min), ("test_accuracy", max)):
            values, best, best_epochs = [], [], []
            for run_id in reached:
                curve = rows.loc[rows["run_id"] == run_id, name].tolist()[:epoch]
                numbers = [value for value in curve if not math.isnan(value)]
                values.append(curve[-1])
                best.append(pick(numbers) if numbers else NAN)
                best_epochs.append(curve.index(best[-1]) + 1.0 if numbers else NAN)
            for what, of_runs in (("", values), ("_best", best)):
                for percent in (0, 25, 50, 75, 100):
                    expected = percentile_cont([*of_runs, *missing], percent / 100)
                    actual = row[f"{name}{what}_quantile_{percent}"]
                    assert_allclose(actual, expected, rtol=1e-13, atol=0)
            expected = percentile_cont([*best_epochs, *missing], 0.5)
            assert_allclose(row[f"{name}_best_epoch_quantile_50"], expected, rtol=1e-13, atol=0)


def test_thinned_summary_has_the_rows_of_its_epochs(write_sweep):
    """Two experiments of other lengths, beyond the epochs that all are shown."""
    lengths = {"e0": 50, "e1": 35}
    runs, epochs = write_sweep({key: [list(range(n, 0, -1))] for key, n in lengths.items()})
    summary = summarize_by_epoch(runs, epochs)
    for key, n in lengths.items():
        rows = summary[summary["experiment_id"] == key]
        assert rows["epoch"].tolist() == thin_epochs(n).tolist()
        assert rows["test_loss_quantile_50"].tolist() == [n + 1 - e for e in thin_epochs(n)]
        assert rows["test_loss_best_epoch_quantile_50"].tolist() == thin_epochs(n).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_extrema_match_brute_force(seed, make_run):
    runs, epochs = random_tables(seed)
    runs = pd.DataFrame([make_run(**run) for run in runs.to_dict("records")])
    summary = summarize_experiments(runs, epochs).set_index("experiment_id")
    joined = epochs.merge(runs[["run_id", "experiment_id"]], on="run_id").sort_values("epoch")
    for experiment_id, rows in joined.groupby("experiment_id"):
        for name, best in (("test_loss", min), ("test_accuracy", max)):
            values, best_epochs = [], []
            for _, run in rows.groupby("run_id"):
                curve = run[name].tolist()
                numbers = [value for value in curve if not math.isnan(value)]
                values.append(best(numbers) if numbers else NAN)
                best_epochs.append(curve.index(values[-1]) + 1.0 if numbers else NAN)
            for what, of_runs in (("value", values), ("epoch", best_epochs)):
                for statistic, expected in brute_statistics(of_runs).items():
                    column = f"{name}_{best.__name__}_{what}_{statistic}"
                    if statistic not in ("num_finite", "stddev"):
                        actual = summary.loc[experiment_id, column]
                        assert_allclose(actual, expected, rtol=1e-13, atol=0, err_msg=column)


def test_columns_are_those_of_butter(write_sweep):
    runs, epochs = write_sweep({"e0": [[1.0]]})
    columns = summarize_epochs(runs, epochs).columns
    for side in ("test", "train"):
        for statistic in ("num_finite", "min", "q1", "median", "q3", "max", "avg", "stddev"):
            assert f"{side}_loss_{statistic}" in columns
        for metric in ("accuracy", "mean_squared_error", "kullback_leibler_divergence"):
            for statistic in ("q1", "median", "q3", "avg", "stddev"):
                assert f"{side}_{metric}_{statistic}" in columns
    assert columns[:4].tolist() == ["experiment_id", "epoch", "num_runs", "num"]
    ours = ("noise_trace", "noise_squared_gradient", "noise_simple_scale")
    assert columns[4 + 2 * (8 + 3 * 5) :].tolist() == [f"{name}_median" for name in ours]
    experiments = summarize_experiments(runs, epochs)
    for extremum in (
        "test_loss_min",
        "test_accuracy_max",
        "test_mean_squared_error_min",
        "test_kullback_leibler_divergence_min",
    ):
        for statistic in ("min", "q1", "median", "q3", "max", "avg"):
            assert f"{extremum}_value_{statistic}" in experiments
            assert f"{extremum}_epoch_{statistic}" in experiments
    assert experiments["widths"][0].tolist() == [18, 18, 3]
    assert experiments["learning_rate"].tolist() == [1e-4]


def test_failed_runs_are_counted_and_enter_no_statistic(tmp_path, make_run, make_epochs):
    unmeasured = {
        "energy_j": None,
        "energy_source": None,
        "energy_quality": "unavailable",
        "energy_reason": "no counter",
        "energy_resolution_j": None,
    }
    failed = {"status": "failed", "error": "NaN in the data", **unmeasured}
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("a0", "a", energy_j=10.0), make_epochs())
        writer.add(
            make_run("a1", "a", energy_j=30.0, energy_quality="measured_shared", diverged=True),
            make_epochs(),
        )
        writer.add(make_run("a2", "a", duration_s=4.5, **unmeasured), make_epochs())
        writer.add(
            make_run("a3", "a", **failed, duration_s=99.0), make_epochs(test_loss=[-9.0] * 3)
        )
        writer.add(make_run("b0", "b", epochs_completed=0, widths=None, duration_s=None, **failed))
        writer.add(make_run("c0", "c", **unmeasured), make_epochs())
    experiments, by_epoch = write_summary(tmp_path)

    stored = pd.read_parquet(tmp_path / "summary" / "experiments.parquet")
    for frame in (experiments, stored):
        assert frame["experiment_id"].tolist() == ["a", "b", "c"]
        assert frame["num_runs"].tolist() == [3, 0, 1]
        assert frame["num_failed"].tolist() == [1, 1, 0]
        assert frame["num_diverged"].tolist() == [1, 0, 0]
        assert frame["energy_j_num_measured"].tolist() == [2, 0, 0]
        assert frame["energy_quality"].tolist() == [
            "measured_shared",
            "unavailable",
            "unavailable",
        ]
        assert frame["energy_j_median"].isna().tolist() == [False, True, True]
        assert frame["energy_j_median"][0] == 20.0
        assert frame["duration_s_median"].isna().tolist() == [False, True, False]
        assert frame["duration_s_median"][0] == 0.5
        assert (frame["test_loss_min_value_min"][[0, 2]] > 0).all()
        assert np.isnan(frame["test_loss_min_value_median"][1])
    assert by_epoch["experiment_id"].unique().tolist() == ["a", "c"]
    assert by_epoch["num_runs"].tolist() == [3] * 3 + [1] * 3
    assert (by_epoch["test_loss_min"] > 0).all()

    table = pq.read_table(tmp_path / "summary" / "experiments.parquet")
    assert table["energy_j_median"].is_valid().to_pylist() == [True, False, False]
    assert len(pd.read_parquet(tmp_path / "summary" / "epochs.parquet")) == 6


def test_simulated_energies_enter_no_median_of_measured_ones(tmp_path, make_run, make_epochs):
    simulated = {"energy_quality": "simulated", "energy_source": "simulated:package"}
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("a0", "a", energy_j=10.0), make_epochs())
        writer.add(make_run("a1", "a", energy_j=5000.0, **simulated), make_epochs())
        writer.add(make_run("b0", "b", energy_j=30.0, **simulated), make_epochs())
        writer.add(make_run("b1", "b", energy_j=50.0, **simulated), make_epochs())
    experiments, _ = write_summary(tmp_path)
    assert experiments["energy_j_median"].tolist() == [10.0, 40.0]
    assert experiments["energy_j_num_measured"].tolist() == [1, 2]
    assert experiments["energy_quality"].tolist() == ["measured", "simulated"]


def test_stored_summary_keeps_nan_as_a_value(tmp_path, write_sweep):
    write_sweep({"e0": [[1.0], [NAN], [NAN]]})
    write_summary(tmp_path)
    table = pq.read_table(tmp_path / "summary" / "epochs.parquet")
    assert table["test_loss_median"].null_count == 0
    assert np.isnan(table["test_loss_median"][0].as_py())
    assert sorted(p.name for p in (tmp_path / "summary").iterdir()) == [
        "by_epoch.parquet",
        "epochs.parquet",
        "experiments.parquet",
    ]


def test_equal_infinities_have_an_infinite_median(write_sweep):
    summary = summarize_epochs(*write_sweep({"e0": [[INF], [INF], [INF], [1.0]]}))
    assert summary["test_loss_median"].tolist() == [INF]
    assert summary["test_loss_q1"].tolist() == [INF]
    assert summary["test_loss_num_finite"].tolist() == [1]
    assert summary["test_loss_avg"].tolist() == [INF]


def test_summary_of_a_sweep_in_which_all_runs_failed_has_no_epochs(tmp_path, make_run):
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run(status="failed", error="no memory", epochs_completed=0))
    experiments, by_epoch = write_summary(tmp_path)
    assert experiments["num_failed"].tolist() == [1]
    assert len(by_epoch) == 0
    assert "test_loss_median" in by_epoch


def test_summary_of_nothing_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match="no finished run yet"):
        write_summary(tmp_path)


def test_problems_of_the_tables_reach_the_summary(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    (path,) = (tmp_path / "epochs").glob("*.parquet")
    store_runs(tmp_path, "r1")
    path.write_bytes(b"")
    for frame in write_summary(tmp_path):
        assert len(frame.attrs["problems"]) == 1


def test_summary_of_a_million_epochs_takes_seconds():
    n_experiments, n_runs, n_epochs = 50, 20, 1000
    rng = np.random.default_rng(0)
    run_ids = np.array([f"{i:032x}" for i in range(n_experiments * n_runs)])
    experiment_ids = np.repeat([f"e{i}" for i in range(n_experiments)], n_runs)
    runs = pd.DataFrame({"run_id": run_ids, "experiment_id": experiment_ids, "status": "completed"})
    columns = [f"{side}_{metric}" for side in ("test", "train") for metric in METRICS]
    values = rng.random((len(columns), len(run_ids) * n_epochs), dtype=np.float32)
    epochs = pd.DataFrame(
        {
            "run_id": np.repeat(run_ids, n_epochs),
            "epoch": np.tile(np.arange(1, n_epochs + 1, dtype=np.int32), len(run_ids)),
            **dict(zip(columns, values, strict=True)),
        }
    )
    start_s = time.perf_counter()
    summary = summarize_epochs(runs, epochs)
    duration_s = time.perf_counter() - start_s
    print(f"{duration_s:.1f} s for {len(epochs)} epochs")
    assert duration_s < 30  # Ten times what it takes, for a busy machine.
    expected = np.median(
        values[0].reshape(n_experiments, n_runs, n_epochs)[7].astype(float), axis=0
    )
    assert_array_equal(summary.loc[summary["experiment_id"] == "e7", "test_loss_median"], expected)
