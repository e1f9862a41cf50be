import errno
import os
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minibutter.store import (
    EPOCHS_SCHEMA,
    METRICS,
    RUNS_SCHEMA,
    ShardWriter,
    StoreError,
    shards,
)
from minibutter.store.schema import COUNTERS


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def only_file(folder):
    (path,) = folder.glob("*.parquet")
    return path


def read_only_shard(directory, table):
    return pq.read_table(only_file(directory / table))


def same_bits(actual, expected):
    width = f"u{np.asarray(expected).dtype.itemsize}"
    return np.array_equal(np.asarray(actual).view(width), np.asarray(expected).view(width))


def test_run_and_epochs_return_as_they_were_added(tmp_path, make_run, make_epochs):
    run, epochs = make_run("r0", epochs=5), make_epochs(5)
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(run, epochs)
    runs_table = read_only_shard(tmp_path, "runs")
    epochs_table = read_only_shard(tmp_path, "epochs")
    assert runs_table.schema.equals(RUNS_SCHEMA, check_metadata=True)
    assert epochs_table.schema.equals(EPOCHS_SCHEMA, check_metadata=True)
    assert runs_table.to_pylist() == [run]
    assert epochs_table["run_id"].to_pylist() == ["r0"] * 5
    for name, values in epochs.items():
        expected = [None] * 5 if values is None else list(values)
        assert epochs_table[name].to_pylist() == expected


def test_nan_infinity_and_null_stay_apart_bit_for_bit(tmp_path, make_run, make_epochs):
    # A quiet NaN of negative sign and with a payload: nobody may tidy it up.
    odd_nan = np.array([0xFFC01234], np.uint32).view(np.float32)[0]
    values = np.array([np.nan, np.inf, -np.inf, -0.0, odd_nan, 1e-45], np.float32)
    columns = {
        "test_loss": values,
        "trained_loss": [float("nan"), None, float("inf"), 1.5, None, float("-inf")],
        "trained_hinge": values,
        "energy_j": [None, 2.5, 2.5, 2.5, 2.5, 2.5],
        "energy_source": [None] + ["powercap:package"] * 5,
        "energy_quality": ["unavailable"] + ["measured"] * 5,
        "energy_reason": ["too short"] + [None] * 5,
        "energy_resolution_j": [None] + [0.1] * 5,
    }
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run(epochs=6), make_epochs(6, **columns))
    table = read_only_shard(tmp_path, "epochs")
    assert same_bits(table["test_loss"], values)
    assert same_bits(table["trained_hinge"], values)
    assert table["trained_hinge"].null_count == 0
    assert table["trained_loss"].is_valid().to_pylist() == [True, False, True, True, False, True]
    assert np.isnan(table["trained_loss"][0].as_py())
    assert table["energy_j"].to_pylist() == columns["energy_j"]


@settings(max_examples=30, deadline=None)
@given(
    curves=arrays(np.uint32, st.tuples(st.just(20), st.integers(0, 40))),
    data=st.data(),
)
def test_any_bits_survive_the_disk(tmp_path_factory, make_run, make_epochs, curves, data):
    n = curves.shape[1]
    metrics = [f"{side}_{metric}" for side in ("train", "test") for metric in METRICS]
    columns = {name: bits.view(np.float32) for name, bits in zip(metrics, curves, strict=True)}
    columns["duration_s"] = data.draw(arrays(np.float64, n))
    directory = tmp_path_factory.mktemp("sweep")
    with ShardWriter(directory, "rank0") as writer:
        writer.add(make_run(epochs=n), make_epochs(n, **columns))
    table = read_only_shard(directory, "epochs")
    for name, expected in columns.items():
        assert same_bits(table[name], expected)


def test_epoch_row_takes_at_most_62_bytes(tmp_path, make_run, make_epochs):
    with ShardWriter(tmp_path, "rank0") as writer:
        for i in range(8):
            writer.add(make_run(f"{i:032x}", epochs=3000), make_epochs(3000, seed=i))
    bytes_per_row = only_file(tmp_path / "epochs").stat().st_size / (8 * 3000)
    print(f"{bytes_per_row:.1f} bytes an epoch row")
    assert bytes_per_row <= 62


def test_counters_that_do_not_exist_take_next_to_nothing(tmp_path, make_run, make_epochs):
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run("r0", epochs=100_000), make_epochs(100_000))
    group = pq.ParquetFile(only_file(tmp_path / "epochs")).metadata.row_group(0)
    sizes = {
        c.path_in_schema: c.total_compressed_size
        for c in map(group.column, range(len(EPOCHS_SCHEMA)))
    }
    assert group.num_rows == 100_000
    assert sum(sizes[name] for name in COUNTERS) < 0.02 * 100_000


def test_floats_without_nulls_are_split_and_nullable_floats_are_not(tmp_path, store_runs):
    store_runs(tmp_path, "r0")
    metadata = pq.ParquetFile(only_file(tmp_path / "epochs")).metadata.row_group(0)
    columns = [metadata.column(i) for i in range(metadata.num_columns)]
    encodings = {column.path_in_schema: column.encodings for column in columns}
    for field in EPOCHS_SCHEMA:
        if str(field.type) in ("float", "double"):
            assert ("BYTE_STREAM_SPLIT" in encodings[field.name]) == (not field.nullable)
    assert {column.compression for column in columns} == {"ZSTD"}


def test_failed_run_needs_no_epochs(tmp_path, make_run):
    run = make_run(
        epochs_completed=0,
        status="failed",
        error="size 32 is unreachable",
        widths=None,
        diverged=None,
        duration_s=None,
        energy_j=None,
        energy_source=None,
        energy_quality=None,
        energy_resolution_j=None,
    )
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(run)
    assert read_only_shard(tmp_path, "runs").to_pylist() == [run]
    assert len(pd.read_parquet(tmp_path / "epochs")) == 0


def test_short_runs_share_a_shard_and_a_long_run_is_written_at_once(
    tmp_path, make_run, make_epochs
):
    clock = Clock()
    count = lambda: len(list((tmp_path / "runs").glob("*.parquet")))  # noqa: E731
    with ShardWriter(tmp_path, "rank0", interval_s=10.0, clock=clock) as writer:
        for i in range(4):
            clock.now_s += 3.0
            writer.add(make_run(f"short{i}"), make_epochs())
        assert count() == 1  # The fourth came after 12 s.
        clock.now_s += 3600.0
        writer.add(make_run("long"), make_epochs())
        assert count() == 2
        writer.add(make_run("last"), make_epochs())
        clock.now_s += 180.0
        writer.flush_if_due()
        assert count() == 2  # A twentieth of an hour and three minutes is more.
        clock.now_s += 11.0
        writer.flush_if_due()
        assert count() == 3
        writer.flush()
        assert count() == 3  # Nothing to write, no file.
    shards_in_order = sorted((tmp_path / "runs").glob("*.parquet"))
    assert [len(pq.read_table(path)) for path in shards_in_order] == [4, 1, 1]


@pytest.mark.parametrize("seconds", [30.0, 1000.0, 86400.0])
def test_shards_of_a_long_job_hold_more_time_each(tmp_path, monkeypatch, seconds):
    clock, flushed_s = Clock(), []
    writer = ShardWriter(tmp_path, "rank0", clock=clock)

    def flush():
        writer._last_flush_s = clock.now_s
        flushed_s.append(clock.now_s)

    monkeypatch.setattr(writer, "flush", flush)
    begun_s = clock.now_s
    while clock.now_s < begun_s + seconds:
        clock.now_s += 0.5
        writer.flush_if_due()
    assert len(flushed_s) == pytest.approx(shards.most_shards(seconds), rel=0.1)
    assert max(np.diff(flushed_s)) <= 300.5


def test_many_epochs_close_a_shard_before_the_time(tmp_path, make_run, make_epochs, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BUFFERED_EPOCHS", 6)
    writer = ShardWriter(tmp_path, "rank0", interval_s=1e9)
    writer.add(make_run("r0"), make_epochs())
    assert not list((tmp_path / "runs").glob("*.parquet"))
    writer.add(make_run("r1"), make_epochs())
    assert len(read_only_shard(tmp_path, "runs")) == 2


def test_exception_in_the_block_keeps_the_runs_finished_before(tmp_path, make_run, make_epochs):
    with suppress(ZeroDivisionError), ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run(), make_epochs())
        raise ZeroDivisionError
    assert len(read_only_shard(tmp_path, "runs")) == 1


def test_shard_name_says_who_wrote_it(tmp_path, store_runs, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "login-node-3.site")
    store_runs(tmp_path, "r0")
    path = only_file(tmp_path / "runs")
    assert path.name.startswith(f"part-rank0-login-node-3.site-{os.getpid()}-")
    assert shards.Shard(tmp_path, path.stem).owner() == ("login-node-3.site", os.getpid())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown: \\['colour'\\]"),
        ({"status": "ready"}, "status is 'ready'"),
        ({"status": "failed"}, "'error'"),
        ({"dataset": None}, "'dataset' has nulls"),
        ({"depth": 2.5}, "'depth' must be int32"),
        ({"depth": 2**40}, "'depth' must be int32"),
        ({"dataset": 7}, "'dataset' must be string"),
        ({"started_at": datetime(2026, 1, 1)}, "time zone"),
        ({"schema_version": 0}, "schema_version is 0"),
        ({"energy_quality": "guessed"}, "energy_quality must be one of"),
        ({"energy_j": None}, "energy must either"),
        ({"energy_quality": "unavailable"}, "energy must either"),
        (
            {"energy_j": None, "energy_quality": "unavailable", "energy_reason": "none"},
            "energy_resolution_j must be null",
        ),
        (
            {
                "energy_j": None,
                "energy_quality": "unavailable",
                "energy_reason": "none",
                "energy_resolution_j": None,
                "energy_package_j": 1.0,
            },
            "energy_package_j must be null",
        ),
        ({"epochs_completed": 4}, "has 3 values; the run has 4"),
        ({"counters_reason": None}, "counts are missing of cycles, .* must say why"),
    ],
)
def test_wrong_run_is_refused(tmp_path, make_run, make_epochs, change, message):
    writer = ShardWriter(tmp_path, "rank0")
    writer.add(make_run(**change), make_epochs())
    with pytest.raises((TypeError, ValueError), match=message):
        writer.flush()
    writer.flush()
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian_loss": [1, 2, 3]}, "unknown: \\['trian_loss'\\]"),
        ({"run_id": ["a", "b", "c"]}, "unknown: \\['run_id'\\]"),
        ({"epoch": [0, 1, 2]}, "count 1, 2"),
        ({"test_loss": [1.0, 2.0]}, "has 2 values; the run has 3"),
        ({"test_loss": [1.0, None, 2.0]}, "'test_loss' has nulls"),
        ({"test_loss": None}, "'test_loss' has nulls"),
        ({"energy_j": [1.0, None, 1.0]}, "energy must either"),
        ({"energy_quality": ["measured", "guessed", "measured"]}, "energy_quality must be one of"),
        ({name: [1, 2, 3] for name in COUNTERS}, "missing of nothing, .* is 'nobody counted'"),
    ],
)
def test_wrong_epochs_are_refused(tmp_path, make_run, make_epochs, change, message):
    writer = ShardWriter(tmp_path, "rank0")
    writer.add(make_run(), make_epochs(**change))
    with pytest.raises((TypeError, ValueError), match=message):
        writer.flush()


def test_missing_column_is_refused(tmp_path, make_run, make_epochs):
    writer = ShardWriter(tmp_path, "rank0")
    run, epochs = make_run(), make_epochs()
    del run["kernel"], epochs["test_hinge"]
    writer.add(run, make_epochs())
    with pytest.raises(ValueError, match="columns missing: \\['kernel'\\]"):
        writer.flush()
    writer.add(make_run(), epochs)
    with pytest.raises(ValueError, match="columns missing: \\['test_hinge'\\]"):
        writer.flush()


def test_a_wrong_run_takes_no_others_with_it(tmp_path, make_run, make_epochs):
    writer = ShardWriter(tmp_path, "rank0", interval_s=1e9)
    for name, status in (("a-0000", "completed"), ("b-0000", "ready"), ("c-0000", "completed")):
        writer.add(make_run(run_id=name, status=status), make_epochs())
    with pytest.raises(ValueError, match="status is 'ready'"), writer:
        pass
    assert read_only_shard(tmp_path, "runs")["run_id"].to_pylist() == ["a-0000", "c-0000"]
    assert read_only_shard(tmp_path, "epochs")["run_id"].to_pylist() == 3 * ["a-0000"] + 3 * [
        "c-0000"
    ]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_while_runs_are_laid_out_costs_none_of_them(
    tmp_path, make_run, make_epochs, monkeypatch, interrupt
):
    def epoch_table(*arguments, real=shards.epoch_table):
        monkeypatch.setattr(shards, "epoch_table", real)
        raise interrupt

    monkeypatch.setattr(shards, "epoch_table", epoch_table)
    writer = ShardWriter(tmp_path, "rank0", interval_s=1e9)
    for name in ("a-0000", "b-0000"):
        writer.add(make_run(run_id=name), make_epochs())
    with pytest.raises(interrupt), writer:
        writer.flush()
    assert read_only_shard(tmp_path, "runs")["run_id"].to_pylist() == ["a-0000", "b-0000"]


def test_runs_that_fit_alone_but_not_together_are_all_kept(tmp_path, make_run, make_epochs):
    with ShardWriter(tmp_path, "rank0", interval_s=1e9) as writer:
        writer.add(make_run(run_id="a-0000", seed=1), make_epochs())
        writer.add(make_run(run_id="b-0000", seed=True), make_epochs())
    assert len(read_only_shard(tmp_path, "runs")) == 2


def test_many_runs_of_different_lengths_are_laid_out_like_single_ones(
    tmp_path, make_run, make_epochs
):
    """Arrays, lists and columns of nulls side by side, and a run without epochs in between."""
    runs = [
        make_run(run_id="a-0000"),
        make_run(run_id="b-0000", epochs_completed=0, status="failed", error="why"),
        make_run(run_id="c-0000"),
    ]
    first, last = make_epochs(), make_epochs(trained_loss=None)
    epochs = [first | {"trained_loss": np.array([1.0, np.nan, 3.0])}, None, last]
    together, alone = ShardWriter(tmp_path / "1", "r"), ShardWriter(tmp_path / "2", "r")
    for run, columns in zip(runs, epochs, strict=True):
        together.add(run, columns)
        alone.add(run, columns)
        alone._take_in()
    together.flush()
    alone.flush()
    for table in ("runs", "epochs"):
        found = read_only_shard(tmp_path / "1", table)
        pd.testing.assert_frame_equal(
            found.to_pandas(), read_only_shard(tmp_path / "2", table).to_pandas(), check_exact=True
        )
    assert np.isnan(found["trained_loss"].to_pylist()[1])
    assert found["trained_loss"].to_pylist()[3:] == [None] * 3


@pytest.mark.parametrize("failing_call", [1, 2])
def test_full_disk_leaves_nothing_half_written_and_keeps_the_runs(
    tmp_path, make_run, make_epochs, monkeypatch, failing_call
):
    """The first rename (of epochs) or the second (of runs) fails once; the next flush succeeds."""
    n_calls = 0

    def replace(self, target, real=Path.replace):
        nonlocal n_calls
        n_calls += 1
        if n_calls == failing_call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    writer = ShardWriter(tmp_path, "rank0", interval_s=1e9)
    writer.add(make_run(), make_epochs())
    with pytest.raises(StoreError, match=r"No space left on device.*: free some space"):
        writer.flush()
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [".lock"]
    writer.flush()
    assert len(read_only_shard(tmp_path, "runs")) == 1
    assert len(read_only_shard(tmp_path, "epochs")) == 3


def test_writer_does_not_mind_that_another_rank_finished_its_commit(
    tmp_path, make_run, make_epochs, monkeypatch
):
    def replace(self, target, real=Path.replace):
        if self.parent.name == "runs":
            real(self, target)  # Somebody recovers the directory at this very moment.
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with ShardWriter(tmp_path, "rank0") as writer:
        writer.add(make_run(), make_epochs())
    assert len(read_only_shard(tmp_path, "runs")) == 1
    assert len(read_only_shard(tmp_path, "epochs")) == 3
