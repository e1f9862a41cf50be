"""Results in the columns, types, partitions and files of the published BUTTER data set.

OEDI submission 5708 has a row a run in `all_repetitions/` and a row an experiment in
`complete_summary/`, in `complete_executive_summary/`, which has few of its curves, and in a folder
for each sweep. Curves are lists, one number an epoch. Every folder has its schema in
`_common_metadata`, and the values of its partitions in the names of its subfolders.

What is theirs and not ours is made from what we have: the loss contains the penalty, as Keras'
does; ids of experiments are numbers of 32 bits; the flags say to which of BUTTER's sweeps a
specification belongs. What we do not have (`task_version`, `tensorflow_version`) is null.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minibutter.store.butter_schema import (
    CURVE,
    EXECUTIVE_SUMMARY,
    FOLDERS,
    REPETITIONS,
    SUMMARY,
)
from minibutter.store.butter_sweeps import SWEEPS, sweep_flags
from minibutter.store.files import StoreError
from minibutter.store.schema import METRICS, RUNS_SCHEMA, columns_of_kind
from minibutter.store.summary import summarize_epochs, summarize_experiments

LOSSES = {"train_loss": "train_penalty", "test_loss": "test_penalty"}
"""Columns that Keras adds a penalty to, and the penalty."""

EPOCH_COLUMNS = (
    *(f"{side}_{metric}" for metric in METRICS for side in ("test", "train")),
    *LOSSES.values(),
)
"""Columns of `epochs` that are exported."""

_OPTIMIZERS = {"adam": "adam", "rmsprop": "RMSprop", "sgd": "SGD"}
_OUTPUTS = {"regression": "sigmoid", "binary": "sigmoid", "classification": "softmax"}
_NULL = "__HIVE_DEFAULT_PARTITION__"
_TASK = "AspectTestTask"
"""The one task that all published runs have."""


def write_butter(
    experiment_ids: Sequence[str], parts: Iterator[tuple[pd.DataFrame, pd.DataFrame]], out: Path
) -> list[str]:
    """Write all folders.

    Parameters
    ----------
    experiment_ids : of all parts.
    parts : whole experiments with all columns of `runs`, of runs that did not fail and that have
        epochs, and `EPOCH_COLUMNS` of these; both ordered by run.
    out : an empty folder.

    Returns
    -------
    list of str
        Names of the folders.

    Raises
    ------
    StoreError
        If a number does not fit into the published type.
    """
    numbers = experiment_numbers(experiment_ids)
    written: list[str] = []

    def write(name: str, table: pa.Table, piece: int) -> None:
        if name not in written:
            (out / name).mkdir()
            pq.write_metadata(FOLDERS[name][0], out / name / "_common_metadata")
            written.append(name)
        _write_folder(out / name, table, piece)

    for piece, (some, epochs) in enumerate(parts):
        if not len(some):
            continue
        epochs = _with_penalties(epochs)
        write("all_repetitions", _repetitions(some, epochs, numbers), piece)
        summary = _summary(some, epochs, numbers)
        write("complete_summary", summary, piece)
        write("complete_executive_summary", summary.select(EXECUTIVE_SUMMARY.names), piece)
        for sweep in SWEEPS:
            members = summary.filter(summary[sweep])
            if len(members):
                write(f"{sweep}_summary", members, piece)
    return sorted(written)


def experiment_numbers(experiment_ids: Sequence[str]) -> dict[str, int]:
    """Different numbers of 32 bits, the first 32 of each id wherever these differ."""
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for experiment_id in sorted(experiment_ids):
        number = int(experiment_id[:8], 16)
        while number in taken:
            number = (number + 1) % 2**32
        taken.add(number)
        numbers[experiment_id] = number
    return numbers


def _with_penalties(epochs: pd.DataFrame) -> pd.DataFrame:
    return epochs.assign(
        **{loss: epochs[loss] + epochs[penalty] for loss, penalty in LOSSES.items()}
    )


def _parameters(rows: pd.DataFrame, numbers: dict[str, int]) -> dict[str, Any]:
    """Columns that a run and its experiment share, from columns of `runs`."""
    regularizers = [_regularizer(l1, l2) for l1, l2 in zip(rows["l1"], rows["l2"], strict=True)]
    outputs = [_OUTPUTS[task] for task in rows["task"]]
    optimizers = [_OPTIMIZERS[name] for name in rows["optimizer"]]
    columns = ("activation", "batch_size", "dataset", "depth", "epochs", "label_noise",
               "learning_rate", "shape", "size", "test_split", "widths")  # fmt: skip
    return {
        **{name: rows[name] for name in columns},
        "batch": rows["sweep"],
        "input_activation": rows["activation"],
        "kernel_regularizer": [json.dumps(each) if each else None for each in regularizers],
        "kernel_regularizer_l1": [each.get("l1") for each in regularizers],
        "kernel_regularizer_l2": [each.get("l2") for each in regularizers],
        "kernel_regularizer_type": [each.get("type") for each in regularizers],
        "optimizer": optimizers,
        "momentum": [
            None if name == "adam" else momentum
            for name, momentum in zip(optimizers, rows["momentum"], strict=True)
        ],
        "output_activation": outputs,
        "task": [_TASK] * len(rows),
        "experiment_id": [numbers[experiment_id] for experiment_id in rows["experiment_id"]],
        "num_free_parameters": rows["num_parameters"],
        "network_structure": [
            json.dumps(
                {
                    "inputs": int(row.n_inputs),
                    "widths": [int(width) for width in row.widths],
                    "shape": row.shape,
                    "activation": row.activation,
                    "output_activation": output,
                }
            )
            for row, output in zip(rows.itertuples(), outputs, strict=True)
        ],
        **sweep_flags(rows),
    }


def _regularizer(l1: float, l2: float) -> dict[str, Any]:
    weights = {name: weight for name, weight in (("l1", l1), ("l2", l2)) if weight}
    return {"type": "_".join(weights), **weights} if weights else {}


def _repetitions(runs: pd.DataFrame, epochs: pd.DataFrame, numbers: dict[str, int]) -> pa.Table:
    second = pd.Timedelta("1s")
    started_s = (runs["started_at"] - pd.Timestamp(0, tz="UTC")) // second
    # Repetitions in lanes started together, and each has a share of the time that all took.
    took_s = (runs["duration_s"] * runs["lanes"].astype(float)).round()
    identity = list(columns_of_kind(RUNS_SCHEMA, "identity"))
    commands = json.loads(runs[identity].to_json(orient="records", double_precision=15))
    columns = _parameters(runs, numbers) | {
        "python_version": runs["python_version"],
        "task_version": [None] * len(runs),
        "tensorflow_version": [None] * len(runs),
        "run_id": runs["run_id"],
        "platform": runs["platform"],
        "git_hash": runs["git_commit"],
        "hostname": runs["hostname"],
        "seed": runs["seed"],
        "start_time": started_s,
        "update_time": (started_s + took_s).astype("Int64"),
        "command": [json.dumps(command) for command in commands],
    }
    curves = _curves(epochs, "run_id", runs["run_id"], REPETITIONS)
    return _table(REPETITIONS, columns | curves)


def _summary(runs: pd.DataFrame, epochs: pd.DataFrame, numbers: dict[str, int]) -> pa.Table:
    experiments = summarize_experiments(runs, epochs)
    names = runs.groupby("experiment_id")["sweep"].first()
    experiments["sweep"] = experiments["experiment_id"].map(names)
    columns = {name: experiments[name] for name in SUMMARY.names if name in experiments}
    columns |= _parameters(experiments, numbers)
    by_epoch = summarize_epochs(runs, epochs)
    curves = _curves(by_epoch, "experiment_id", experiments["experiment_id"], SUMMARY)
    return _table(SUMMARY, columns | curves)


def _curves(
    rows: pd.DataFrame, key: str, keys: pd.Series, schema: pa.Schema
) -> dict[str, pa.Array]:
    """Lists of the values of every key, which stand together and in the order of `keys`."""
    lengths = rows[key].value_counts().reindex(keys, fill_value=0)
    offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())
    curves = {}
    for field in schema:
        if pa.types.is_list(field.type) and field.name in rows:
            values = rows[field.name].to_numpy()
            if field.type == CURVE:
                with np.errstate(over="ignore"):
                    values = values.astype(np.float32)
            curves[field.name] = pa.ListArray.from_arrays(offsets, pa.array(values))
    return curves


def _table(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    arrays = []
    for field in schema:
        values = columns[field.name]
        try:
            if not isinstance(values, pa.Array):
                # Where a whole number is not known pandas has NaN.
                is_float = pa.types.is_floating(field.type)
                values = pa.array(values, from_pandas=not is_float)
            arrays.append(values.cast(field.type))
        except pa.ArrowInvalid as error:
            raise StoreError(
                f"the data set has {field.name} as {field.type}, which these results exceed "
                f"({error}); export them as csv"
            ) from error
    return pa.table(arrays, schema)


def _write_folder(folder: Path, table: pa.Table, piece: int) -> None:
    # Arrow's own writer of partitions leaves threads behind that may abort the interpreter when it
    # ends, with all files written.
    _, partitions, rows_of_a_file = FOLDERS[folder.name]
    subfolders = pd.Series(_subfolders(table.select(partitions)))
    columns = table.drop_columns(list(partitions))
    for subfolder, places in subfolders.groupby(subfolders).indices.items():
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(range(0, len(places), rows_of_a_file)):
            pq.write_table(
                columns.take(places[start : start + rows_of_a_file]),
                folder / subfolder / f"part-{piece}-{number}.parquet",
                compression="brotli",
                compression_level=9,
            )


def _subfolders(keys: pa.Table) -> list[str]:
    """The partition of every row as hive names it: `dataset=mnist/learning_rate=0.0001/...`."""
    parts = []
    for name in keys.column_names:
        texts = keys[name].cast(pa.string()).to_pylist()
        parts.append(
            [f"{name}={_NULL if text is None else quote(text, safe='')}" for text in texts]
        )
    return ["/".join(of_row) for of_row in zip(*parts, strict=True)]
