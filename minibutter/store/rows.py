"""What may enter the tables: a run and its epochs, checked and turned into Arrow tables.

Everything is refused that a reader of the tables could misunderstand: a column too many or too few,
a null where a value is always known, a number that its type would cut, a time without time zone,
and an energy or a count that is missing without a reason. NaN is a value and is not touched.
"""

from collections.abc import Mapping
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


def run_table(run: Mapping[str, Any]) -> pa.Table:
    """One row of `runs`.

    Raises
    ------
    ValueError, TypeError
        If a column is missing, unknown or of another type, or contradicts another.
    """
    table = typed_table({name: [value] for name, value in run.items()}, RUNS_SCHEMA, 1)
    if run["status"] not in STATUSES:
        raise ValueError(f"status is {run['status']!r}; it must be one of {', '.join(STATUSES)}")
    if run["status"] == "failed" and not run["error"]:
        raise ValueError("a failed run must say why in 'error'")
    if run["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {run['schema_version']}, not {SCHEMA_VERSION}")
    if run["started_at"].tzinfo is None:
        raise ValueError("started_at has no time zone; use datetime.now(timezone.utc)")
    _check_energy(table)
    if run["energy_j"] is None:
        known = [name for name in _PARTS_OF_ENERGY if run[name] is not None]
        if known:
            raise ValueError(f"{', '.join(known)} must be null where energy_j is")
    return table


_PARTS_OF_ENERGY = (
    *("energy_idle_j", "energy_dynamic_j", "energy_package_j"),
    *("energy_mode", "energy_ranks", "energy_tail_j", "finish_spread_s"),
)


def epoch_table(run: Mapping[str, Any], epochs: Mapping[str, Any] | None) -> pa.Table:
    """The rows of one run in `epochs`; see `ShardWriter.add`.

    Raises
    ------
    ValueError, TypeError
        As `run_table`; also if a column has not the length `run["epochs_completed"]`.
    """
    n_epochs = run["epochs_completed"]
    if epochs is None:
        epochs = dict.fromkeys(EPOCHS_SCHEMA.names[1:], ())
    table = typed_table(epochs, EPOCHS_SCHEMA.remove(0), n_epochs)
    if not np.array_equal(table["epoch"], np.arange(1, n_epochs + 1)):
        raise ValueError("column 'epoch' must count 1, 2, ... epochs_completed")
    _check_energy(table)
    _check_counts(run, table)
    run_ids = pa.repeat(pa.scalar(run["run_id"], pa.string()), n_epochs)
    return table.add_column(0, EPOCHS_SCHEMA.field("run_id"), run_ids)


def typed_table(columns: Mapping[str, Any], schema: pa.Schema, n_rows: int) -> pa.Table:
    """Columns as a table of exactly this schema; None stands for a column of nulls.

    Raises
    ------
    ValueError, TypeError
        If a column is missing, unknown, or of another type or length.
    """
    missing = sorted(set(schema.names).difference(columns))
    unknown = sorted(set(columns).difference(schema.names))
    if missing or unknown:
        raise ValueError(f"columns missing: {missing or 'none'}; unknown: {unknown or 'none'}")
    return pa.table([_array(columns[field.name], field, n_rows) for field in schema], schema=schema)


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


def _check_counts(run: Mapping[str, Any], epochs: pa.Table) -> None:
    if len(epochs) == 0:
        return
    missing = [name for name in COUNTERS if epochs[name].null_count]
    if bool(missing) != bool(run["counters_reason"]):
        raise ValueError(
            f"counts are missing of {', '.join(missing) or 'nothing'}, and counters_reason is "
            f"{run['counters_reason']!r}; it must say why counts are missing, and be null where "
            "none is"
        )
