"""`minibutter submit`: a sweep as a job of a batch system."""

from typing import Annotated

import typer

from minibutter.cli.options import (
    Budget,
    DataDir,
    Energy,
    Filter,
    Lanes,
    Limit,
    Mistake,
    Out,
    Set,
    SweepSource,
)


def submit(
    sweep: SweepSource,
    slurm: Annotated[bool, typer.Option("--slurm", help="Write a batch script for Slurm.")] = False,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the script; nothing is submitted.")
    ] = False,
    nodes: Annotated[int, typer.Option(help="Nodes of a job.")] = 1,
    ranks_per_node: Annotated[
        int, typer.Option("--ntasks-per-node", help="Ranks of a node: as many as it has cores.")
    ] = 32,
    time: Annotated[str, typer.Option(help="Length of a job: 24h, 90m, 1-12:00:00.")] = "24h",
    partition: Annotated[str | None, typer.Option(help="Where Slurm is to run it.")] = None,
    account: Annotated[str | None, typer.Option(help="Who Slurm is to charge.")] = None,
    out: Out = None,
    set_: Set = None,
    filter_: Filter = None,
    limit: Limit = None,
    budget: Budget = None,
    data_dir: DataDir = None,
    lanes: Lanes = "auto",
    energy: Energy = "auto",
) -> None:
    """Print a script that runs a sweep as a chain of jobs: `... --slurm --print SWEEP > job.sh`.

    Read it, and submit it with `sbatch job.sh`. A job whose time is up queues itself again and goes
    on where it stopped.
    """
    if not (slurm and print_):
        raise Mistake(
            "nothing is submitted from here: --slurm --print prints a script for Slurm, to be read "
            "and submitted with sbatch"
        )
    import sys

    from minibutter.experiments import read_sweep
    from minibutter.launch import find_mpi_library
    from minibutter.launch.job import read_lanes
    from minibutter.launch.node import ENERGY_MODES
    from minibutter.sweeps.slurm import make_script

    # What cannot be understood is to be said now and not when the job begins.
    read_sweep(sweep, set_ or (), filter_, limit, budget)
    read_lanes(lanes)
    if energy not in ENERGY_MODES:
        raise Mistake(f"--energy {energy}: must be one of {', '.join(ENERGY_MODES)}")
    options: list[str] = [part for text in set_ or () for part in ("--set", text)]
    for name, value, usual in (
        ("--out", out, None),
        ("--filter", filter_, None),
        ("--limit", limit, None),
        ("--budget", budget, None),
        ("--data-dir", data_dir, None),
        ("--lanes", lanes, "auto"),
        ("--energy", energy, "auto"),
    ):
        if value != usual:
            options += [name, str(value)]
    script = make_script(
        sweep,
        python=sys.executable,
        time_limit=time,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        partition=partition,
        account=account,
        options=tuple(options),
        library=find_mpi_library(),
    )
    print(script, end="")
