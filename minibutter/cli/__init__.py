"""The command `minibutter`: it reads arguments, calls the library and draws what comes back.

No work is done here, and nothing can be done here that the library cannot do. A command imports the
rooms that it needs when it is called: pandas, pyarrow and numba together take a second, for which
`--help` and a mistyped option shall not wait.
"""

import sys
from typing import Annotated

import typer

import minibutter
from minibutter.cli import (
    afterwards,
    data,
    energy,
    hierarchy,
    machine,
    results,
    study,
    submit,
    sweep,
    train,
    warmup,
)
from minibutter.cli.options import Mistake

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How fully connected networks train, measured on CPUs: the BUTTER studies.",
)
sweep_app = typer.Typer(no_args_is_help=True, help="Plan and run sweeps, which are TOML files.")
energy_app = typer.Typer(no_args_is_help=True, help="Where the joules go: models of energy.")
data_app = typer.Typer(no_args_is_help=True, help="Data sets: what there is, what it looks like.")

app.command()(train.train)
app.command()(warmup.warmup)
app.command()(machine.machine)
app.command()(hierarchy.hierarchy)
app.add_typer(sweep_app, name="sweep")
sweep_app.command("run")(sweep.run)
sweep_app.command("plan")(sweep.plan)
sweep_app.command("calibrate")(sweep.calibrate)
sweep_app.command("list")(sweep.list_catalogue)
app.command()(study.study)
app.command()(submit.submit)
app.command()(afterwards.status)
app.command()(afterwards.retry)
app.command()(afterwards.compact)
app.command()(afterwards.verify)
app.command()(afterwards.merge)
app.command()(results.summarize)
app.command()(results.plot)
app.command()(afterwards.export)
app.add_typer(energy_app, name="energy")
energy_app.command("fit")(energy.fit)
energy_app.command("predict")(energy.predict)
app.add_typer(data_app, name="data")
data_app.command("list")(data.list_names)
data_app.command("show")(data.show)
data_app.command("fetch")(data.fetch)


def main() -> None:
    """Run the command line; mistakes of the user end with their message and exit code 2."""
    try:
        app()
    except Exception as error:
        from minibutter.launch import EXIT_REFUSED

        if not isinstance(error, _mistakes()):
            raise
        if str(error):
            print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_REFUSED) from None


def _mistakes() -> tuple[type[Exception], ...]:
    """What a user can mend: one line, no traceback, exit code 2."""
    from minibutter.datasets import DatasetError
    from minibutter.energy.model import ModelError
    from minibutter.launch import LaunchRefused
    from minibutter.store import StoreError
    from minibutter.studies.catalogue import StudyError
    from minibutter.sweeps.spec import SweepError

    return Mistake, DatasetError, SweepError, StoreError, LaunchRefused, ModelError, StudyError


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
