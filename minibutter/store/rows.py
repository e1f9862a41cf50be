"""What may enter the tables: runs and their epochs, checked and turned into Arrow tables.

Everything is refused that a reader of the tables could misunderstand: a column too many or too few,
a null where a value is always known, a number that its type would cut, a time without time zone,
and an energy or a count that is missing without a reason. NaN is a value and is not touched.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minibutter.store.schema import (
    COUNTERS,
    ENERGY_QUALITIES,
    EPOCHS_SCHEMA,
    RUNS_SCHEMA,
    SCHEMA_VERSION,
    STATUSES,
)


def run_table(runs: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of `runs`, one a run: many at once, as Arrow takes as long for one value as for fifty.

    Raises
    ------
    ValueError, TypeError
        If a column is missing, unknown or of another type, or contradicts another.
    """
    for run in runs:
        _check_names(run, RUNS_SCHEMA)
    columns = {name: [run[name] for run in runs] for name in RUNS_SCHEMA.names}
    table = typed_table(columns, RUNS_SCHEMA, len(runs))
    for run in runs:
        _check_run(run)
    _check_energy(table)
    return table


def _check_run(run: Mapping[str, Any]) -> None:
    if run["status"] not in STATUSES:
        raise ValueError(f"status is {run['status']!r}; it must be one of {', '.join(STATUSES)}")
    if run["status"] == "failed" and not run["error"]:
        raise ValueError("a failed run must say why in 'error'")
    if run["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {run['schema_version']}, not {SCHEMA_VERSION}")
    if run["started_at"].tzinfo is None:
        raise ValueError("started_at has no time zone; use datetime.now(timezone.utc)")
    if run["energy_j"] is None:
        known = [name for name in _PARTS_OF_ENERGY if run[name] is not None]
        if known:
            raise ValueError(f"{', '.join(known)} must be null where energy_j is")


_PARTS_OF_ENERGY = (
    *("energy_idle_j", "energy_dynamic_j", "energy_package_j"),
    *("energy_mode", "energy_ranks", "energy_tail_j", "finish_spread_s"),
)


def epoch_table(
    runs: Sequence[Mapping[str, Any]], epochs: Sequence[Mapping[str, Any] | None]
) -> pa.Table:
    """The rows of runs in `epochs`, one run after the other; see `ShardWriter.add`.

    Raises
    ------
    ValueError, TypeError
        As `run_table`; also if a column has not the length `epochs_completed` of its run.
    """
    n_epochs = np.array([run["epochs_completed"] for run in runs], dtype=np.int64)
    stops = np.cumsum(n_epochs)
    starts = stops - n_epochs
    nothing = dict.fromkeys(_EPOCHS_OF_A_RUN.names, ())
    parts = [nothing if columns is None else columns for columns in epochs]
    for columns in parts:
        _check_names(columns, _EPOCHS_OF_A_RUN)
    arrays = [
        _joined([columns[field.name] for columns in parts], field, n_epochs.tolist())
        for field in _EPOCHS_OF_A_RUN
    ]
    table = pa.table(arrays, schema=_EPOCHS_OF_A_RUN)
    n_rows = len(table)
    if not np.array_equal(table["epoch"], np.arange(1, n_rows + 1) - np.repeat(starts, n_epochs)):
        raise ValueError("column 'epoch' must count 1, 2, ... epochs_completed")
    _check_energy(table)
    _check_counts(runs, table, starts, stops)
    run_ids = pa.array([run["run_id"] for run in runs], pa.string())
    places = pa.array(np.repeat(np.arange(len(runs)), n_epochs))
    return table.add_column(0, EPOCHS_SCHEMA.field("run_id"), run_ids.take(places))


_EPOCHS_OF_A_RUN = EPOCHS_SCHEMA.remove(0)


def typed_table(columns: Mapping[str, Any], schema: pa.Schema, n_rows: int) -> pa.Table:
    """Columns as a table of exactly this schema; None stands for a column of nulls.

    Raises
    ------
    ValueError, TypeError
        If a column is missing, unknown, or of another type or length.
    """
    _check_names(columns, schema)
    return pa.table([_array(columns[field.name], field, n_rows) for field in schema], schema=schema)


def _check_names(columns: Mapping[str, Any], schema: pa.Schema) -> None:
    names = schema.names
    if len(columns) == len(names) and all(name in columns for name in names):
        return
    missing = sorted(set(names).difference(columns))
    unknown = sorted(set(columns).difference(names))
    raise ValueError(f"columns missing: {missing or 'none'}; unknown: {unknown or 'none'}")


def _joined(parts: Sequence[Any], field: pa.Field, n_rows: Sequence[int]) -> pa.Array:
    """The values of several runs in one column, each with its number of rows."""
    for values, n in zip(parts, n_rows, strict=True):
        if values is not None and len(values) != n:
            raise ValueError(
                f"column {field.name!r} has {len(values)} values; the run has {n} epochs"
            )
    if all(values is None for values in parts):
        return _array(None, field, sum(n_rows))
    if all(isinstance(values, np.ndarray) for values in parts):
        return _array(np.concatenate(parts), field, sum(n_rows))
    if all(isinstance(values, list) for values in parts):
        return _array([*chain.from_iterable(parts)], field, sum(n_rows))
    arrays = [_array(values, field, n) for values, n in zip(parts, n_rows, strict=True)]
    return pa.concat_arrays(arrays)


def _array(values: Any, field: pa.Field, n_rows: int) -> pa.Array:
    try:
        if values is None:
            array = pa.nulls(n_rows, field.type)
        elif pa.types.is_integer(field.type):
            # With a type given, Arrow would cut the 2.5 of a list to 2; its cast refuses to.
            array = pa.array(values, from_pandas=False).cast(field.type)
        else:
            array = pa.array(values, field.type, from_pandas=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise TypeError(f"column {field.name!r} must be {field.type}: {error}") from error
    if len(array) != n_rows:
        raise ValueError(f"column {field.name!r} has {len(array)} values; the run has {n_rows}")
    if array.null_count and not field.nullable:
        raise ValueError(f"column {field.name!r} has nulls, but is always known")
    return array


def _check_energy(table: pa.Table) -> None:
    quality = table["energy_quality"]
    known = pc.is_in(quality, value_set=pa.array([None, *ENERGY_QUALITIES], pa.string()))
    if not pc.all(known, min_count=0).as_py():
        raise ValueError(f"energy_quality must be one of {', '.join(ENERGY_QUALITIES)}")
    has_energy = table["energy_j"].is_valid()
    is_known = pc.fill_null(pc.not_equal(quality, "unavailable"), False)
    has_reason = table["energy_reason"].is_valid()
    is_unavailable = pc.fill_null(pc.equal(quality, "unavailable"), False)
    if not has_energy.equals(is_known) or not has_reason.equals(is_unavailable):
        raise ValueError(
            "energy must either have energy_j and an energy_quality that says what it is worth, or "
            "have no energy_j, energy_quality 'unavailable' and an energy_reason"
        )
    has_resolution = table["energy_resolution_j"].is_valid()
    if pc.any(pc.and_not(has_resolution, has_energy), min_count=0).as_py():
        raise ValueError("energy_resolution_j must be null where energy_j is")


def _check_counts(
    runs: Sequence[Mapping[str, Any]], epochs: pa.Table, starts: np.ndarray, stops: np.ndarray
) -> None:
    """Nulls among the counts of a run, and a reason for them, must come together."""
    is_missing = np.zeros((len(COUNTERS), len(epochs) + 1), np.int64)
    for row, name in enumerate(COUNTERS):
        is_null = pc.is_null(epochs[name]).to_numpy()
        np.cumsum(is_null, out=is_missing[row, 1:])
    n_missing = is_missing[:, stops] - is_missing[:, starts]
    for number, run in enumerate(runs):
        if starts[number] == stops[number]:
            continue
        if n_missing[:, number].any() == bool(run["counters_reason"]):
            continue
        missing = [name for row, name in enumerate(COUNTERS) if n_missing[row, number]]
        raise ValueError(
            f"counts are missing of {', '.join(missing) or 'nothing'}, and counters_reason is "
            f"{run['counters_reason']!r}; it must say why counts are missing, and be null where "
            "none is"
        )
