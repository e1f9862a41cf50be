"""`minibutter data`: what data sets there are, and what they look like."""

from typing import Annotated

import typer

from minibutter.cli.options import DataDir, Json, Target, Task


def list_names(data_dir: DataDir = None, as_json: Json = False) -> None:
    """All data sets that have a name; local files need none."""
    import pandas as pd
    from rich.console import Console

    from minibutter import datasets
    from minibutter.cli.terminal import print_json, show_table

    entries = datasets.catalog(data_dir)
    if as_json:
        print_json(
            [
                {**vars(entry.info), "kind": entry.kind, "origin": entry.origin,
                 "is_local": entry.is_local}
                for entry in entries
            ]
        )  # fmt: skip
        return
    table = pd.DataFrame(
        [
            {
                "data set": entry.info.name.partition(":")[0],
                "kind": entry.kind,
                "task": entry.info.task,
                "rows": str(entry.info.n_rows),
                "inputs": str(entry.info.n_inputs),
                "outputs": str(entry.info.n_outputs),
                "from": entry.origin,
                "here": "yes" if entry.is_local else "no",
            }
            for entry in entries
        ]
    )
    show_table(table, Console())
    print("\nLocal files: a path to .csv, .tsv, .parquet (with --target) or to IDX images.")


def show(
    dataset: Annotated[str, typer.Argument(help="Name, generator or path.")],
    target: Target = None,
    task: Task = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Read and encode a data set, and say what came of it."""
    from minibutter import datasets
    from minibutter.cli.terminal import print_json

    loaded = datasets.load(dataset, target=target, task=task, data_dir=data_dir)
    facts = {
        **vars(loaded.info),
        "source": loaded.source,
        "sha256": loaded.sha256,
        "input_range": [float(loaded.x.min()), float(loaded.x.max())],
        "target_mean": [round(float(value), 4) for value in loaded.y.mean(axis=0)],
    }
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if value is not None:
            print(f"{key:12} {value}")


def fetch(
    names: Annotated[list[str], typer.Argument(help="BUTTER data sets, or `all`.")],
    data_dir: DataDir = None,
) -> None:
    """Download data sets of BUTTER from PMLB, with checksum."""
    from minibutter import datasets

    butter = [entry.info.name for entry in datasets.catalog() if entry.kind == "BUTTER"]
    for name in butter if names == ["all"] else names:
        print(datasets.fetch(name, data_dir=data_dir), flush=True)
