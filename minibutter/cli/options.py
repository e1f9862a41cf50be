"""Options that several commands share, and the error that they all end with."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of local BUTTER files (NAME.tsv.gz).",
        envvar="MINIBUTTER_DATA",
        file_okay=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the results (default: results/NAME).")]
SweepSource = Annotated[str, typer.Argument(help="TOML file, or a name from the catalogue.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=V1,V2", help="Give a key other values, in all grids; can be repeated."
    ),
]
Filter = Annotated[
    str | None,
    typer.Option("--filter", help='Only where this holds: "dataset=mnist and depth<=5".'),
]
Limit = Annotated[
    int | None, typer.Option(help="Only the first so many experiments that can be run.")
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Only what so many core-hours pay for: 100core-h. A larger budget buys the same, "
        "and more."
    ),
]
Results = Annotated[Path, typer.Argument(help="Directory that a sweep wrote.")]
Lanes = Annotated[
    str,
    typer.Option(
        help="Repetitions to train together: 1 to 16, or auto, which packs where it pays."
    ),
]
Energy = Annotated[
    str,
    typer.Option(
        "--energy",
        help="Joules of ranks that share a node. shared: a part by processor time; gang: the ranks "
        "of a package train the same at the same time, and get equal parts; auto: shared, without "
        "idle power.",
    ),
]
IdleSeconds = Annotated[
    float,
    typer.Option(
        "--idle-seconds",
        help="Sleep before and after, which tells the idle power; with shared and gang.",
    ),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        help="End in good order before, with code 75: 2h, 90m, 02:00:00, or auto, which asks Slurm "
        "or PBS.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/K",
        help="Only part I of K of the runs, from 0 or from 1: for job arrays, "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT. All may share a directory.",
    ),
]
Target = Annotated[str | None, typer.Option(help="Target column of a local file.")]
Task = Annotated[str | None, typer.Option(help="regression or classification, for a local file.")]


class Mistake(Exception):
    """What was asked for cannot be done; the message says what to do."""
