"""`minibutter sweep`: run, plan and list sweeps, and measure what they cost here."""

from pathlib import Path
from typing import Annotated

import typer

from minibutter.cli.options import (
    Budget,
    DataDir,
    Energy,
    Filter,
    IdleSeconds,
    Json,
    Lanes,
    Limit,
    Out,
    Set,
    Shard,
    SweepSource,
    TimeLimit,
)
from minibutter.sweeps import QUICKSTART

Ranks = Annotated[int | None, typer.Option(help="Ranks that it would be run on.")]
JobLength = Annotated[
    str | None,
    typer.Option("--time-limit", help="Length of a job, as 24h: how many jobs does it take?"),
]
EnergyModel = Annotated[
    Path | None,
    typer.Option(help="model.json of `energy fit`: how many kWh does it take?"),
]


def run(
    sweep: SweepSource = QUICKSTART,
    out: Out = None,
    set_: Set = None,
    filter_: Filter = None,
    limit: Limit = None,
    budget: Budget = None,
    data_dir: DataDir = None,
    lanes: Lanes = "auto",
    energy: Energy = "auto",
    idle_seconds: IdleSeconds = 10.0,
    time_limit: TimeLimit = None,
    shard: Shard = None,
    as_json: Json = False,
) -> None:
    """Do all runs of a sweep that are not done yet; `mpirun -n N` spreads them over ranks.

    --filter, --limit and --budget say what of it is done now: the directory takes the rest, too,
    when it is asked for.
    """
    from minibutter.cli.running import run_and_show
    from minibutter.experiments import read_sweep

    run_and_show(
        lambda: read_sweep(sweep, set_ or (), filter_, limit, budget),
        out,
        data_dir,
        lanes,
        energy,
        idle_seconds,
        time_limit,
        as_json,
        shard,
    )


def plan(
    sweep: SweepSource = QUICKSTART,
    set_: Set = None,
    filter_: Filter = None,
    limit: Limit = None,
    budget: Budget = None,
    data_dir: DataDir = None,
    ranks: Ranks = None,
    time_limit: JobLength = None,
    lanes: Lanes = "auto",
    energy_model: EnergyModel = None,
    as_json: Json = False,
) -> None:
    """Show what a sweep would run and what it would take, without running it.

    With --ranks its runs are dealt out as they would be, by predicted times. Times are those of
    this machine once `minibutter sweep calibrate` has measured it.
    """
    from minibutter.cli.planning import show_plan
    from minibutter.experiments import read_sweep

    show_plan(
        read_sweep(sweep, set_ or (), filter_, limit, budget),
        data_dir,
        ranks,
        time_limit,
        lanes,
        energy_model,
        as_json,
    )


def calibrate(as_json: Json = False) -> None:
    """Measure what training costs on this machine, for plans and for the order of runs.

    Takes half a minute of one core, beside compiling. The rates are kept in the user's cache folder
    for this model of processor and these kernels, and used from then on. No number of a run depends
    on them.
    """
    from minibutter.cli.calibrating import calibrate_and_show

    calibrate_and_show(as_json)


def list_catalogue() -> None:
    """The sweeps that come with minibutter."""
    from minibutter.cli.planning import show_catalogue

    show_catalogue()
