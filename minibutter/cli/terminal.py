"""Drawing on a terminal: a bar that moves, tables, and JSON for programs."""

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from minibutter import launch, report


class Silent:
    """Says nothing: the caller prints JSON at the end."""

    def begin(self, job: launch.Job, n_ranks: int) -> None:
        pass

    def update(self, ranks: list[launch.Progress], elapsed_s: float, left_s: float | None) -> None:
        pass

    def end(self, outcome: launch.Outcome) -> None:
        pass

    def close(self) -> None:
        pass


class Bar:
    """A bar that moves with the work done, and a table at the end."""

    def __init__(self) -> None:
        self._console = Console()
        self._bar: Progress | None = None

    def begin(self, job: launch.Job, n_ranks: int) -> None:
        for line in launch.opening_lines(job, n_ranks):
            self._console.print(line, highlight=False, markup=False)
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[runs]} runs"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._n_runs = len(job.pending)
        self._total = job.total_work
        self._task = self._bar.add_task("", total=self._total or 1, runs="0", left="?")
        self._bar.start()

    def update(self, ranks: list[launch.Progress], elapsed_s: float, left_s: float | None) -> None:
        done = sum(progress.work for progress in ranks)
        if left_s is None:
            left_s = launch.remaining_s(done, self._total, elapsed_s)
        self._bar.update(
            self._task,
            completed=done,
            runs=f"{sum(progress.n_runs for progress in ranks)}/{self._n_runs}",
            left=report.duration_text(left_s),
            description=next((progress.current for progress in ranks if progress.current), ""),
        )

    def end(self, outcome: launch.Outcome) -> None:
        self.close()
        if outcome.experiments is not None:
            show_table(report.results_table(outcome.experiments), self._console)
        for line in launch.closing_lines(outcome):
            self._console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        """Give the cursor back, however it ended."""
        if self._bar is not None:
            self._bar.stop()


def show_table(table: pd.DataFrame, console: Console) -> None:
    """Fit a table to a terminal; elsewhere keep its lines whole, for `less -S` and `grep`."""
    if not console.is_terminal:
        print(report.plain_text(table))
        return
    table, more = report.shorten(table)
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for name in table:
        # On a narrow terminal words may break over lines, but numbers stay whole.
        is_words = any(cell[:1].isalpha() for cell in table[name])
        drawn.add_column(
            Text(name),
            justify="right" if report.is_numeric_column(table[name]) else "left",
            no_wrap=not is_words,
            min_width=None if is_words else max(map(len, table[name])),
            overflow="fold",
        )
    for row in table.itertuples(index=False):
        drawn.add_row(*map(Text, row))
    console.print(drawn)
    if more:
        console.print(more, highlight=False)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values: what is missing or not finite is null, as JSON has no NaN."""
    return json.loads(frame.to_json(orient="records", date_format="iso", double_precision=15))


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_json_rows(head: dict[str, Any], name: str, rows: Iterable[dict[str, Any]]) -> None:
    """An object with a last entry of many rows, which are written as they come, one a line."""
    for number, (key, value) in enumerate(head.items()):
        print("," if number else "{")
        print(f"  {json.dumps(key)}: {json.dumps(value)}", end="")
    print(f",\n  {json.dumps(name)}: [", end="")
    for number, row in enumerate(rows):
        print("," if number else "")
        print(f"    {json.dumps(row)}", end="")
    print("\n  ]\n}")
