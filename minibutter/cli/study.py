"""`minibutter study`: a question, its measurements, a figure and a verdict."""

from pathlib import Path
from typing import Annotated

import typer

from minibutter.cli.options import DataDir, Json, Mistake

Name = Annotated[str, typer.Argument(help="noise-scale, width or instability.")]
Quick = Annotated[bool, typer.Option("--quick", help="Some minutes on two cores (default).")]
Full = Annotated[bool, typer.Option("--full", help="All that its page promises: hours.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and end.")]
DataSet = Annotated[
    str,
    typer.Option(help="A name as in a sweep, or a path of IDX images; digits is built in."),
]
_LARGEST_SEED = 10**15  # of which a thousand fit a column of integers
Seed = Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="Of everything random.")]
StudyOut = Annotated[
    Path | None, typer.Option(help="Directory of everything (default: results/study-NAME-SCALE).")
]


def study(
    name: Name,
    quick: Quick = False,
    full: Full = False,
    dry_run: DryRun = False,
    dataset: DataSet = "mnist",
    data_dir: DataDir = None,
    seed: Seed = 0,
    out: StudyOut = None,
    as_json: Json = False,
) -> None:
    """Measure what a paper claims, draw it, and say whether it holds here.

    `mpirun -n N` spreads it over ranks; the same command goes on where it was stopped. Ends with
    code 0 when there is a verdict, whatever it is: `verdict.json` holds it.
    """
    if quick and full:
        raise Mistake("--quick and --full: choose one of them")
    from minibutter.cli.studying import run_and_show, show_outline
    from minibutter.studies.catalogue import find_study
    from minibutter.studies.study import Settings

    found = find_study(name)
    settings = Settings("full" if full else "quick", dataset, data_dir, seed)
    if dry_run:
        show_outline(found, settings, as_json)
        return
    run_and_show(found, settings, out or Path(f"results/study-{name}-{settings.scale}"), as_json)
