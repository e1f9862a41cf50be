"""Tables for people: what a summary says, in a few columns that fit a terminal.

Everything here turns a frame into a frame of short strings; how it is drawn is the caller's.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

MAX_ROWS = 60
"""Rows of a table that a person will read; the Parquet files and --json have all of them."""

_ALWAYS_SHOWN = ("dataset", "shape", "depth", "size")
_SHOWN_WHERE_DIFFERENT = (
    "target", "task_override", "activation", "initializer", "parameterization", "sigma0",
    "bias_multiplier", "base_width", "optimizer", "learning_rate",
    "learning_rate_step_epochs", "learning_rate_gamma",
    "momentum", "nesterov", "momentum_form", "perturbation", "batch_size",
    "batch_rule", "batch_exchange_rate", "batch_size_max", "sampling", "epochs",
    "l1", "l2", "label_noise", "test_split", "split_method",
    "dtype", "kernel", "tile_rows", "tile_columns", "block_rows", "block_depth", "block_columns",
    "cache_state", "slices",
    "seed", "evaluate_train", "measure", "on_divergence",
)  # fmt: skip
_LABELS = {"dataset": "data set", "learning_rate": "lr", "batch_size": "batch"}

MAX_FOREIGN_LOAD = 0.02
"""Of a node's processor time; what others take above that is worth a warning."""

MAX_IMBALANCE = 1e-6
"""Of a node's energy."""

MAX_LINES = 5
"""Messages of one kind that a person will read."""


def varying_settings(experiments: pd.DataFrame) -> pd.DataFrame:
    """Which experiment is which: settings as strings, one row an experiment, in a stable order.

    Data set, shape, depth and size always stand there; of the others only those that differ.

    Parameters
    ----------
    experiments : columns named like the fields of a specification; others are passed over.

    Returns
    -------
    DataFrame of strings with the index of `experiments`, sorted from left to right.
    """
    keys = [*_ALWAYS_SHOWN, *(key for key in _SHOWN_WHERE_DIFFERENT if key in experiments)]
    shown = [
        key for key in keys if key in _ALWAYS_SHOWN or experiments[key].astype(str).nunique() > 1
    ]
    ordered = experiments.sort_values(shown, kind="stable", na_position="last")
    return pd.DataFrame(
        {_LABELS.get(key, key.replace("_", " ")): ordered[key].map(_setting) for key in shown},
        index=ordered.index,
    )


def results_table(experiments: pd.DataFrame) -> pd.DataFrame:
    """The end of a sweep on one screen, one row an experiment.

    Parameters
    ----------
    experiments : from `minibutter.store.summary.summarize_experiments`.

    Returns
    -------
    DataFrame of strings. "test loss" is the lowest of a run, "epoch" where it was, "accuracy" the
    highest on test data: medians over repetitions. Energy is left out where none was measured, the
    parameters where they are near a size that is shown.
    """
    table = varying_settings(experiments)
    ordered = experiments.loc[table.index]
    if experiments["size"].isna().any():
        table["parameters"] = ordered["num_parameters"].map(_setting)
    for label, text in (
        ("runs", _runs),
        ("test loss [quartiles]", lambda row: _with_quartiles(row, "test_loss_min_value")),
        ("epoch", lambda row: _number(row["test_loss_min_epoch_median"], ".0f")),
        ("accuracy", lambda row: _number(row["test_accuracy_max_value_median"], ".3f")),
        ("s/run", lambda row: _number(row["duration_s_median"], ".3g")),
        ("J/run", lambda row: _number(row["energy_j_median"], ".3g")),
    ):
        table[label] = [text(row) for _, row in ordered.iterrows()]
    return table.drop(columns="J/run") if (table["J/run"] == "-").all() else table


def shorten(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The first rows of a table that is too long to read, and a line that says what is left out."""
    if len(table) <= MAX_ROWS:
        return table, ""
    return table.head(MAX_ROWS), f"... and {len(table) - MAX_ROWS} more rows; --json has all"


def shorten_list(lines: Iterable[str]) -> list[str]:
    """The first different lines, with a last one that counts the others."""
    different = list(dict.fromkeys(lines))
    if len(different) <= MAX_LINES:
        return different
    return [*different[:MAX_LINES], f"... and {len(different) - MAX_LINES} more like these"]


def plain_text(table: pd.DataFrame) -> str:
    """A frame of strings as lines of text, text to the left and numbers to the right."""
    table, more = shorten(table)
    widths = {name: max(len(name), *map(len, table[name])) for name in table}
    left = {name for name in table if not is_numeric_column(table[name])}

    def line(cells: dict[str, str]) -> str:
        padded = [
            cell.ljust(widths[name]) if name in left else cell.rjust(widths[name])
            for name, cell in cells.items()
        ]
        return "  ".join(padded).rstrip()

    header = line({name: name for name in table})
    rule = "  ".join("-" * widths[name] for name in table)
    rows = [line(row) for row in table.to_dict("records")]
    return "\n".join([header, rule, *rows, *([more] if more else [])])


def is_numeric_column(cells: pd.Series) -> bool:
    """Whether all cells are numbers or "-", so that the column is set flush right."""
    return all(_is_numeric(cell) for cell in cells)


def hours_text(hours: float) -> str:
    """Core-hours, or kilowatt-hours, with three digits or as a whole number: 0.0312, 17.1, 2460."""
    return f"{hours:.3g}" if hours < 1000 else f"{hours:.0f}"


def duration_text(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 20 s, 2 h 05 min."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def energy_text(runs: pd.DataFrame) -> str:
    """One sentence on the energy of the runs: how much, how measured, or why it is not known."""
    runs = runs[runs["status"] != "failed"]
    if not len(runs):
        return "energy: no run was trained"
    known = runs["energy_j"].notna()
    is_simulated = runs["energy_quality"] == "simulated"
    if is_simulated.any():
        joules = f"{runs.loc[is_simulated, 'energy_j'].sum():.1f} J"
        counted = f"{is_simulated.sum()} of {len(runs)} runs"
        note = f"energy: {counted} are simulated: {joules}, of which none was measured"
        return note if is_simulated.all() else f"{note}; {energy_text(runs[~is_simulated])}"
    if known.any():
        sources = ", ".join(sorted(set(runs.loc[known, "energy_source"])))
        qualities = ", ".join(sorted(set(runs.loc[known, "energy_quality"])))
        total = runs.loc[known, "energy_j"].sum()
        return (
            f"energy: {total:.1f} J over {known.sum()} of {len(runs)} runs ({sources}; {qualities})"
        )
    reason = runs["energy_reason"].dropna().mode()
    return f"energy: not measured: {reason.iloc[0] if len(reason) else 'reason unknown'}"


def account_text(account: Mapping[str, Any]) -> str:
    """One sentence on the energy of a node while a job trained.

    Parameters
    ----------
    account : as `energy.account.NodeAccount` has its columns.
    """
    node = f"energy of {account['hostname']}"
    if account["attributed_j"] is None:
        return f"{node}: not accounted for: {account['reason']}"
    idle = "idle power not measured"
    if account["idle_j"] is not None:
        idle = f"{account['idle_j']:.1f} J idle at {account['idle_before_w']:.1f} W"
        if account["idle_after_w"] is not None:
            idle += f" ({account['idle_after_w']:.1f} W afterwards)"
    text = (
        f"{node}: {account['total_j']:.1f} J = {account['attributed_j']:.1f} J in runs + {idle} + "
        f"{account['unattributed_j']:.1f} J between them"
    )
    if account["n_unknown"]:
        text += f"; {account['n_unknown']} runs without joules are between them"
    if abs(account["imbalance_j"]) > MAX_IMBALANCE * account["total_j"]:
        text += f"; {account['imbalance_j']:.3g} J do not add up: please report this"
    load = account["foreign_load"]
    if load is not None and load > MAX_FOREIGN_LOAD:
        text += f"; others took {load:.0%} of its processors, and their joules are in it"
    return text


def _runs(row: pd.Series) -> str:
    notes = [
        f"{row[column]} {word}"
        for column, word in (("num_failed", "failed"), ("num_diverged", "diverged"))
        if row[column]
    ]
    return f"{row['num_runs']}" + (f" ({', '.join(notes)})" if notes else "")


def _with_quartiles(row: pd.Series, name: str) -> str:
    median, q1, q3 = (row[f"{name}_{part}"] for part in ("median", "q1", "q3"))
    if pd.isna(median):
        return "-"
    return f"{median:.3g} [{q1:.3g}, {q3:.3g}]"


def _number(value: float, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)


def _setting(value: object) -> str:
    """A setting as short as it can be written; sizes come as floats where one is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return "-"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _is_numeric(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("e-", "", 1).lstrip("-").isdigit()
