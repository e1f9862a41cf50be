import pyarrow as pa
import pytest

from minibutter.store.schema import (
    COUNTERS,
    EPOCHS_SCHEMA,
    EXPERIMENT_COLUMNS,
    MEASURED_EPOCH_COLUMNS,
    METRICS,
    RUNS_SCHEMA,
    TILING_SIZES,
    columns_of_kind,
)

FIELDS = [*RUNS_SCHEMA, *EPOCHS_SCHEMA]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_column_says_its_kind_and_meaning_in_one_line(field):
    assert field.metadata[b"kind"] in (
        *(b"identity", b"computed", b"modelled", b"measured", b"provenance"),
    )
    description = field.metadata[b"description"].decode()
    assert description
    assert "\n" not in description
    assert len(description) <= 100


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_unit_of_a_measured_column_is_the_suffix_of_its_name(field):
    suffix = {b"s": "_s", b"J": "_j", b"1": "_load"}.get(field.metadata.get(b"unit"))
    is_quantity = field.metadata[b"kind"] == b"measured" and pa.types.is_floating(field.type)
    assert is_quantity == (suffix is not None)
    assert suffix is None or field.name.endswith(suffix)


def test_metrics_stand_in_the_order_of_butter_for_both_sides():
    names = EPOCHS_SCHEMA.names
    assert METRICS[0] == "loss"
    assert METRICS[-1] == "kullback_leibler_divergence"
    for side in ("train", "test", "trained"):
        start = names.index(f"{side}_loss")
        assert names[start : start + 10] == [f"{side}_{metric}" for metric in METRICS]


def test_only_durations_energies_and_counts_may_differ_between_executions():
    assert MEASURED_EPOCH_COLUMNS == (
        "duration_s",
        "energy_j",
        "energy_source",
        "energy_quality",
        "energy_reason",
        "energy_resolution_j",
        "energy_window_s",
        "cycles",
        "instructions",
        "l1d_loads",
        "l1d_load_misses",
        "llc_loads",
        "llc_load_misses",
    )


@pytest.mark.parametrize("size", TILING_SIZES)
def test_a_size_of_tiles_is_asked_for_by_an_experiment_and_used_by_a_run(size):
    """A default follows from the machine: it must not enter what all repetitions share."""
    asked, used = RUNS_SCHEMA.field(size), RUNS_SCHEMA.field(f"{size}_used")
    assert (asked.metadata[b"kind"], used.metadata[b"kind"]) == (b"identity", b"provenance")
    assert asked.nullable
    assert used.nullable
    assert size in EXPERIMENT_COLUMNS
    assert f"{size}_used" not in EXPERIMENT_COLUMNS


def test_only_what_may_be_unknown_is_nullable_in_epochs():
    nullable = {field.name for field in EPOCHS_SCHEMA if field.nullable}
    trained = {f"trained_{metric}" for metric in METRICS}
    energy = {f"energy_{name}" for name in ("j", "source", "reason", "resolution_j", "window_s")}
    scale = {f"noise_simple_scale{end}" for end in ("", "_low", "_high")}
    noise = {"noise_trace", "noise_squared_gradient", "noise_state"} | scale
    assert nullable == trained | noise | energy | set(COUNTERS)


def test_an_experiment_is_described_by_what_was_asked_for_without_keys():
    asked_for = set(columns_of_kind(RUNS_SCHEMA, "identity"))
    assert asked_for - set(EXPERIMENT_COLUMNS) == {"run_id", "experiment_id", "repetition"}
    assert {"widths", "num_parameters", "task"} <= set(EXPERIMENT_COLUMNS)
