"""The command `minibutter`: it reads arguments, calls the library and draws what comes back.

No work is done here, and nothing can be done here that the library cannot do.
"""

import sys
from typing import Annotated

import typer

import minibutter
from minibutter import launch, store
from minibutter.cli import data, results, sweep, train
from minibutter.cli.options import Mistake
from minibutter.datasets import DatasetError
from minibutter.sweeps.spec import SweepError

MISTAKES = (Mistake, DatasetError, SweepError, store.StoreError, launch.LaunchRefused)
"""What a user can mend: one line, no traceback, exit code 2."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How fully connected networks train, measured on CPUs: the BUTTER studies.",
)
sweep_app = typer.Typer(no_args_is_help=True, help="Plan and run sweeps, which are TOML files.")
data_app = typer.Typer(no_args_is_help=True, help="Data sets: what there is, what it looks like.")

app.command()(train.train)
app.add_typer(sweep_app, name="sweep")
sweep_app.command("run")(sweep.run)
sweep_app.command("plan")(sweep.plan)
sweep_app.command("list")(sweep.list_catalogue)
app.command()(results.summarize)
app.command()(results.plot)
app.add_typer(data_app, name="data")
data_app.command("list")(data.list_names)
data_app.command("show")(data.show)
data_app.command("fetch")(data.fetch)


def main() -> None:
    """Run the command line; mistakes of the user end with their message and exit code 2."""
    try:
        app()
    except MISTAKES as mistake:
        if str(mistake):
            print(f"error: {mistake}", file=sys.stderr, flush=True)
        raise SystemExit(launch.EXIT_REFUSED) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(minibutter.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass
