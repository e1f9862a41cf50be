"""`minibutter sweep`: run, plan and list sweeps."""

from minibutter.cli.options import (
    DataDir,
    Energy,
    IdleSeconds,
    Json,
    Lanes,
    Out,
    SweepSource,
    TimeLimit,
)
from minibutter.sweeps import QUICKSTART


def run(
    sweep: SweepSource = QUICKSTART,
    out: Out = None,
    data_dir: DataDir = None,
    lanes: Lanes = "auto",
    energy: Energy = "auto",
    idle_seconds: IdleSeconds = 10.0,
    time_limit: TimeLimit = None,
    as_json: Json = False,
) -> None:
    """Do all runs of a sweep that are not done yet; `mpirun -n N` spreads them over ranks."""
    from minibutter.cli.running import run_and_show
    from minibutter.experiments import CHECKS
    from minibutter.sweeps.spec import load_sweep

    run_and_show(
        lambda: load_sweep(sweep, CHECKS),
        out,
        data_dir,
        lanes,
        energy,
        idle_seconds,
        time_limit,
        as_json,
    )


def plan(
    sweep: SweepSource = QUICKSTART,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show what a sweep would run, without running it."""
    from minibutter.cli.running import show_plan
    from minibutter.experiments import CHECKS
    from minibutter.sweeps.spec import load_sweep

    show_plan(load_sweep(sweep, CHECKS), data_dir, as_json)


def list_catalogue() -> None:
    """The sweeps that come with minibutter."""
    from minibutter.sweeps.spec import catalogue

    for name, description in catalogue().items():
        print(f"{name:12} {description}")
