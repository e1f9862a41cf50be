"""Whether a run that was done twice has the same numbers, to the last bit.

Only columns of the kind `computed` count: durations, energies and provenance may differ. One NaN is
as good as another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from minibutter.store.bits import differing_rows
from minibutter.store.files import StoreError
from minibutter.store.rows import epoch_table, run_table
from minibutter.store.schema import EPOCHS_SCHEMA, RUNS_SCHEMA, columns_of_kind
from minibutter.store.tables import epoch_rows, run_rows

COMPUTED_RUN_COLUMNS = columns_of_kind(RUNS_SCHEMA, "computed")
COMPUTED_EPOCH_COLUMNS = columns_of_kind(EPOCHS_SCHEMA, "computed")


@dataclass(frozen=True)
class Difference:
    """What is not the same in two versions of a run.

    Attributes
    ----------
    run_id : of both.
    columns : computed columns, those of `runs` first.
    first_epoch : the first in which one of them differs; None if no epoch can be compared.
    """

    run_id: str
    columns: tuple[str, ...]
    first_epoch: int | None


class Version(NamedTuple):
    """Computed columns of some runs: rows of both tables, ordered by `run_id` and `epoch`."""

    runs: pa.Table
    epochs: pa.Table


def difference(
    directory: str | Path, run: Mapping[str, Any], epochs: Mapping[str, Any]
) -> Difference | None:
    """Compare a run that has just been done with the one that is stored.

    Parameters
    ----------
    directory : directory of the sweep that has it.
    run, epochs : as `ShardWriter.add` takes them.

    Raises
    ------
    StoreError
        If the stored run cannot be read.
    """
    run_id = run["run_id"]
    stored = Version(
        run_rows(Path(directory), COMPUTED_RUN_COLUMNS, [run_id])[0],
        epoch_rows(Path(directory), COMPUTED_EPOCH_COLUMNS, [run_id])[0],
    )
    if not len(stored.runs) or len(stored.epochs) != stored.runs["epochs_completed"][0].as_py():
        raise StoreError(f"{directory} has no run {run_id} that can be read")
    found = differences(stored, Version(run_table([run]), epoch_table([run], [epochs])))
    return found[0] if found else None


def differences(one: Version, other: Version) -> list[Difference]:
    """The runs that differ, of two versions of the same runs, each with all its epochs."""
    columns: dict[str, list[str]] = {}
    for name in COMPUTED_RUN_COLUMNS:
        for row in differing_rows(one.runs[name], other.runs[name], any_nan=True):
            columns.setdefault(one.runs["run_id"][row].as_py(), []).append(name)
    longer = [run_id for run_id, names in columns.items() if "epochs_completed" in names]
    epochs, other_epochs = (
        epochs.filter(pc.invert(pc.is_in(epochs["run_id"], pa.array(longer, pa.string()))))
        for epochs in (one.epochs, other.epochs)
    )
    first: dict[str, int] = {}
    for name in COMPUTED_EPOCH_COLUMNS:
        rows = pa.array(differing_rows(epochs[name], other_epochs[name], any_nan=True))
        run_ids = epochs["run_id"].take(rows).to_pylist()
        numbers = epochs["epoch"].take(rows).to_pylist()
        for run_id, epoch in zip(run_ids, numbers, strict=True):
            if name not in columns.setdefault(run_id, []):
                columns[run_id].append(name)
            first[run_id] = min(epoch, first.get(run_id, epoch))
    return [
        Difference(run_id, tuple(columns[run_id]), first.get(run_id)) for run_id in sorted(columns)
    ]
