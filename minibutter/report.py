"""Tables for people: what a summary says, in a few columns that fit a terminal.

Everything here turns a frame into a frame of short strings; how it is drawn is the caller's.
"""

import math
from collections.abc import Iterable

import pandas as pd

MAX_ROWS = 60
"""Rows of a table that a person will read; the Parquet files and --json have all of them."""

MAX_LINES = 5
"""Messages of one kind that a person will read."""


def results_table(experiments: pd.DataFrame) -> pd.DataFrame:
    """The end of a sweep on one screen, one row an experiment.

    Parameters
    ----------
    experiments : from `minibutter.store.summary.summarize_experiments`.

    Returns
    -------
    DataFrame of strings. "test loss" is the lowest of a run, "epoch" where it was, "accuracy"
    the highest on test data: medians over repetitions. Settings that all rows share are left out,
    energy where none was measured, and the parameters where they are near a size that is shown.
    """
    rows = []
    for _, row in experiments.sort_values(["dataset", "depth", "shape", "size"]).iterrows():
        descriptors = {
            "data set": str(row["dataset"]),
            "shape": str(row["shape"]),
            "depth": str(row["depth"]),
            "size": _integer(row["size"]),
            "activation": str(row["activation"]),
            "optimizer": str(row["optimizer"]),
            "lr": f"{row['learning_rate']:g}",
            "batch": str(row["batch_size"]),
            "l1": f"{row['l1']:g}",
            "l2": f"{row['l2']:g}",
            "noise": f"{row['label_noise']:g}",
            "dtype": str(row["dtype"]),
        }
        outcome = {
            "parameters": _integer(row["num_parameters"]),
            "runs": _runs(row),
            "test loss [quartiles]": _with_quartiles(row, "test_loss_min_value"),
            "epoch": _number(row["test_loss_min_epoch_median"], ".0f"),
            "accuracy": _number(row["test_accuracy_max_value_median"], ".3f"),
            "s/run": _number(row["duration_s_median"], ".2f"),
            "J/run": _number(row["energy_j_median"], ".1f"),
        }
        rows.append(descriptors | outcome)
    table = pd.DataFrame(rows)
    always = ("data set", "shape", "depth", "size")
    descriptors = list(table.columns[: table.columns.get_loc("parameters")])
    dull = [name for name in descriptors if name not in always and table[name].nunique() == 1]
    if (table["J/run"] == "-").all():
        dull.append("J/run")
    if (table["size"] != "-").all():
        dull.append("parameters")
    return table.drop(columns=dull)


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
    if not len(runs):
        return "energy: no runs"
    known = runs["energy_j"].notna()
    if known.any():
        sources = ", ".join(sorted(set(runs.loc[known, "energy_source"])))
        qualities = ", ".join(sorted(set(runs.loc[known, "energy_quality"])))
        total = runs.loc[known, "energy_j"].sum()
        if "measured_shared" in qualities:
            return (
                f"energy: {sources}, {qualities}: {known.sum()} of {len(runs)} runs; ranks shared "
                "the package, so their joules overlap and must not be added"
            )
        return f"energy: {total:.1f} J over {known.sum()} of {len(runs)} runs ({sources})"
    reason = runs["energy_reason"].dropna().mode()
    return f"energy: not measured: {reason.iloc[0] if len(reason) else 'reason unknown'}"


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


def _integer(value: float) -> str:
    return "-" if pd.isna(value) else str(int(value))


def _is_numeric(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("e-", "", 1).lstrip("-").isdigit()
