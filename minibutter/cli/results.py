"""`minibutter summarize` and `minibutter plot`: what a sweep came to."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from minibutter.cli.options import Json, Mistake, Results


def summarize(directory: Results, as_json: Json = False) -> None:
    """Statistics over repetitions, per experiment and per epoch, as BUTTER published them.

    Writes `summary/experiments.parquet` and `summary/epochs.parquet` into the directory.
    """
    from rich.console import Console

    from minibutter import report, store
    from minibutter.cli.terminal import print_json, records, show_table

    experiments, epochs = store.write_summary(directory)
    if as_json:
        print_json(records(experiments))
        return
    show_table(report.results_table(experiments), Console())
    print(f"\n{len(experiments)} experiments, {len(epochs)} epochs: {directory / 'summary'}")
    for problem in experiments.attrs.get("problems", []):
        print(f"warning: {problem}", file=sys.stderr)


def plot(
    directory: Results,
    out: Annotated[Path | None, typer.Option(help="PNG, SVG or PDF file.")] = None,
) -> None:
    """Draw the test loss of every experiment against the epochs."""
    from minibutter import plots, store

    experiments, epochs = store.write_summary(directory)
    path = out or directory / "summary" / "test_loss.png"
    try:
        plots.draw_learning_curves(experiments, epochs, path)
    except (ValueError, OSError) as error:
        # What the caller can mend: no trained run, a format that is not known, a folder closed.
        raise Mistake(f"cannot draw {path}: {error}") from None
    print(path)
