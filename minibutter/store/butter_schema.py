"""Columns, types, partitions and folders of the published BUTTER data set (OEDI 5708)."""

import pyarrow as pa

from minibutter.store.butter_sweeps import SWEEPS
from minibutter.store.schema import METRICS
from minibutter.store.summary import EXTREMA

CURVE = pa.list_(pa.float32())
"""One number an epoch."""

_TEXT, _FLOAT = pa.string(), pa.float32()

_PARAMETERS = {
    "activation": _TEXT,
    "batch": _TEXT,
    "batch_size": pa.uint32(),
    "dataset": _TEXT,
    "depth": pa.uint8(),
    "epochs": pa.uint32(),
    "input_activation": _TEXT,
    "kernel_regularizer": _TEXT,
    "kernel_regularizer_l1": _FLOAT,
    "kernel_regularizer_l2": _FLOAT,
    "kernel_regularizer_type": _TEXT,
    "label_noise": _FLOAT,
    "learning_rate": _FLOAT,
    "optimizer": _TEXT,
    "momentum": _FLOAT,
    "output_activation": _TEXT,
    "shape": _TEXT,
    "size": pa.uint64(),
    "task": _TEXT,
    "test_split": _FLOAT,
}
_NETWORK = {
    "num_free_parameters": pa.uint64(),
    "widths": pa.list_(pa.uint32()),
    "network_structure": _TEXT,
}
_FLAGS = dict.fromkeys(SWEEPS, pa.bool_())
_ALWAYS_KNOWN = ("run_id", "experiment_id", *SWEEPS, "num_free_parameters", "num_runs")


def _schema(columns: dict[str, pa.DataType]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, type_, name not in _ALWAYS_KNOWN) for name, type_ in columns.items()]
    )


REPETITIONS = _schema(
    _PARAMETERS
    | {"python_version": _TEXT, "task_version": pa.uint16(), "tensorflow_version": _TEXT}
    | {"run_id": _TEXT, "experiment_id": pa.uint32()}
    | _FLAGS
    | _NETWORK
    | dict.fromkeys(("platform", "git_hash", "hostname"), _TEXT)
    | dict.fromkeys(("seed", "start_time", "update_time"), pa.int64())
    | {"command": _TEXT}
    | {f"{side}_{metric}": CURVE for metric in METRICS for side in ("test", "train")}
)

_EXECUTIVE = (
    _PARAMETERS
    | {"experiment_id": pa.uint32()}
    | _FLAGS
    | _NETWORK
    | {"num_runs": pa.uint8()}
    | {
        f"{name}_{end}_{what}_{statistic}": pa.uint32()
        if what == "epoch" and statistic in ("min", "max")
        else _FLOAT
        for name, end in EXTREMA.items()
        for what in ("epoch", "value")
        for statistic in ("min", "max", "avg", "q1", "median", "q3")
    }
    | dict.fromkeys(("test_loss_median", "test_loss_q1", "test_loss_q3"), CURVE)
)
EXECUTIVE_SUMMARY = _schema(_EXECUTIVE)

_LOSS_CURVES = ("num_finite", "avg", "stddev", "min", "max", "median", "q1", "q3")
_CURVES = ("avg", "stddev", "median", "q1", "q3")
SUMMARY = _schema(
    _EXECUTIVE
    | {"num": pa.list_(pa.uint8())}
    | {
        f"{side}_{metric}_{statistic}": CURVE
        for metric in ("loss", "accuracy", "mean_squared_error", "kullback_leibler_divergence")
        for side in ("test", "train")
        for statistic in (_LOSS_CURVES if metric == "loss" else _CURVES)
    }
)

_PARTITIONS = ("dataset", "learning_rate", "batch_size", "kernel_regularizer_type", "label_noise",
               "epochs", "shape", "depth")  # fmt: skip
_SUMMARY_PARTITIONS = (*_PARTITIONS, "optimizer", "momentum")
FOLDERS = {
    "all_repetitions": (REPETITIONS, (*SWEEPS, *_PARTITIONS), 64),
    "complete_summary": (SUMMARY, (*SWEEPS, *_SUMMARY_PARTITIONS), 256),
    "complete_executive_summary": (EXECUTIVE_SUMMARY, (*SWEEPS, *_SUMMARY_PARTITIONS), 256),
    **{f"{sweep}_summary": (SUMMARY, _SUMMARY_PARTITIONS, 256) for sweep in SWEEPS},
}
"""Schema, partition keys from the outermost, and rows of a file, of every folder."""
