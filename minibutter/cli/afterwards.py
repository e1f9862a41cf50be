"""Commands on a directory of results: how far it is, what to do again, what to keep, and how."""

from pathlib import Path
from typing import Annotated

import typer

from minibutter.cli.options import DataDir, Json, Mistake, Results


def status(
    directory: Results,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Ranks that will do the rest; as before if left out.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Runs by state, failures by message, core-hours done and left; the sweep may be running."""
    from minibutter.cli.findings import show_status
    from minibutter.launch.status import read_status

    show_status(directory, read_status(directory, ranks, data_dir), as_json)


def retry(directory: Results, as_json: Json = False) -> None:
    """Forget failed runs, so that the next `minibutter sweep run` does them again.

    It tries by itself what failed although nothing in its specification stands in the way, for want
    of memory, say; this lets it try the others too. The rows are kept in `quarantine/`.
    """
    from minibutter import store
    from minibutter.cli.findings import show_forgotten

    forgotten = store.forget(directory, lambda runs: runs["status"] == "failed")
    show_forgotten(directory, forgotten, as_json)


def compact(directory: Results, as_json: Json = False) -> None:
    """Gather many shards in few large files; the sweep may be running, and be read.

    Rows stay the same to the last bit, but that a run which was done twice is kept once.
    """
    from minibutter import store
    from minibutter.cli.findings import show_compaction

    show_compaction(directory, store.compact(directory), as_json)


def verify(
    directory: Results,
    sample: Annotated[str, typer.Option(help="How many runs: 1%, or 20.")] = "1%",
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Do a sample of finished runs again and compare every bit of their numbers.

    Exit code 0: all are the same; 5: some differ; 6: some differ, and all of these were done on
    another processor or with other versions; 3: some could not be done again. Nothing is written.
    """
    from minibutter.cli.findings import show_repeated, show_verification
    from minibutter.launch.verify import verify

    on_run = (lambda repeated: None) if as_json else show_repeated
    found = verify(directory, sample, seed, data_dir, on_run)
    show_verification(found, as_json)
    raise typer.Exit(found.exit_code)


def merge(
    out: Annotated[Path, typer.Argument(help="Directory of the union: created, or grown.")],
    directories: Annotated[list[Path], typer.Argument(help="Directories that sweeps wrote.")],
    prefer: Annotated[
        Path | None,
        typer.Option(help="Directory that counts where a run has other numbers in another."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy all runs of other directories into one; merging twice is merging once.

    Where two have the same run with other numbers, these are shown and nothing is merged, unless
    --prefer says which of them counts.
    """
    from minibutter import store
    from minibutter.cli.findings import show_union

    union = store.merge(out, directories, prefer)
    show_union(out, union, as_json)
    if union.is_refused:
        n_runs = len({conflict.difference.run_id for conflict in union.conflicts})
        raise Mistake(
            f"nothing was merged into {out}: {n_runs} of the runs have other numbers in another "
            "directory; say with --prefer which directory counts"
        )


def export(
    directory: Results,
    out: Annotated[Path, typer.Argument(help="Folder to create.")],
    format_: Annotated[
        str, typer.Option("--format", help="butter: as the published data set; or csv.")
    ] = "butter",
    as_json: Json = False,
) -> None:
    """Write all results in the format of others: the BUTTER data set, or CSV."""
    from minibutter import store
    from minibutter.cli.findings import show_export

    show_export(store.export(directory, out, format_), as_json)
