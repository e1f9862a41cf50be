"""Studies at work: led from stage to stage, and shown on the terminal."""

import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from minibutter import launch, report
from minibutter.cli.running import ending_as_told
from minibutter.cli.terminal import Bar, Silent, print_json, show_table
from minibutter.studies.data import describe_data
from minibutter.studies.study import Measurements, Settings, Study, SweepStage
from minibutter.studies.verdict import Criterion
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP


def show_outline(study: Study, settings: Settings, as_json: bool) -> None:
    """What a study would do, without doing it."""
    describe_data(settings.dataset, settings.data_dir)
    steps = study.outline(settings)
    if as_json:
        print_json({"study": study.name, "scale": settings.scale, "steps": [*map(asdict, steps)]})
        return
    print(f"{study.name}, {settings.scale}: {study.question}\n")
    table = pd.DataFrame(
        {
            "stage": [step.name for step in steps],
            "pieces": [str(step.pieces) for step in steps],
            "core time": [report.duration_text(step.core_s) for step in steps],
            "what": [step.description for step in steps],
        }
    )
    show_table(table, Console())
    total_s = sum(step.core_s for step in steps)
    print(f"\nabout {report.duration_text(total_s)} of one core; nothing was run")


def run_and_show(study: Study, settings: Settings, out: Path, as_json: bool) -> None:
    """Do what is missing of a study, show how it goes, and end with its exit code."""
    shown = _Quiet() if as_json else _Lines(study, settings, out)
    with ending_as_told(shown.close):
        outcome = launch.run_study(study, settings, out, shown)
    if isinstance(outcome, int):
        if outcome == EXIT_TIME_IS_UP and not as_json:
            print("ended early; the same command goes on from here", flush=True)
        raise typer.Exit(outcome)
    if as_json:
        print(outcome.verdict.to_json(), end="")
        return
    print()
    show_table(_criteria_table(outcome.verdict.criteria), Console())
    print()
    for criterion in outcome.verdict.criteria:
        if criterion.reason:
            print(f"{criterion.name}: {criterion.reason}")
    print(f"\n{study.name}: {outcome.verdict.state}\n")
    for label, paths in (("tables", outcome.tables), ("figures", outcome.figures)):
        for folder in sorted({path.parent for path in paths}):
            print(f"{label + ':':<9}{folder}")
    print(f"verdict: {out / 'verdict.json'}")


def _criteria_table(criteria: tuple[Criterion, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "criterion": [criterion.name for criterion in criteria],
            "expected": [
                _span(criterion.expected_low, criterion.expected_high) for criterion in criteria
            ],
            "measured": [_number(criterion.measured) for criterion in criteria],
            "interval": [_span(criterion.low, criterion.high) for criterion in criteria],
            "unit": [criterion.unit for criterion in criteria],
            "verdict": [criterion.state for criterion in criteria],
        }
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _span(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "-"
    if low is None:
        return f"<= {high:.3g}"
    if high is None:
        return f">= {low:.3g}"
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


class _Quiet:
    """Says nothing: the caller prints JSON at the end."""

    def sweep_reporter(self) -> launch.Reporter:
        return Silent()

    def begin(self, stage: Measurements | SweepStage, n_done: int, n_ranks: int) -> None:
        pass

    def measured(self, n_done: int, n_pieces: int) -> None:
        pass

    def end(self, stage: Measurements | SweepStage, duration_s: float) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    """A line before and after every stage, and on a terminal a bar meanwhile."""

    def __init__(self, study: Study, settings: Settings, out: Path) -> None:
        self._study, self._settings, self._out = study, settings, out
        self._has_begun = False
        self._bar: Progress | None = None

    def sweep_reporter(self) -> launch.Reporter:
        return Bar() if sys.stdout.isatty() else launch.PlainReporter()

    def begin(self, stage: Measurements | SweepStage, n_done: int, n_ranks: int) -> None:
        if not self._has_begun:
            self._has_begun = True
            ranks = "1 rank" if n_ranks == 1 else f"{n_ranks} ranks"
            _say(f"{self._study.name}, {self._settings.scale}: {self._study.question}")
            _say(f"{ranks}; data set {self._settings.dataset}; results in {self._out}")
        if isinstance(stage, SweepStage):
            _say(f"\n{stage.name}: {stage.description}")
            return
        n_pieces = len(stage.pieces)
        found = f", {n_done} already done" if n_done else ""
        _say(f"\n{stage.name}: {stage.description}; {n_pieces} measurements{found}")
        if sys.stdout.isatty() and n_done < n_pieces:
            self._bar = Progress(
                BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), transient=True
            )
            self._task = self._bar.add_task("", total=n_pieces, completed=n_done)
            self._bar.start()

    def measured(self, n_done: int, n_pieces: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=min(n_done, n_pieces))

    def end(self, stage: Measurements | SweepStage, duration_s: float) -> None:
        self.close()
        _say(f"{stage.name}: {report.duration_text(duration_s)}")

    def close(self) -> None:
        """Give the cursor back, however it ended."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _say(line: str) -> None:
    print(line, flush=True)
