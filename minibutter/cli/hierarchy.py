"""`minibutter hierarchy`: what a network computes, keeps and moves, before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer

from minibutter.cli.options import DataDir, Json, Mistake, Target, Task


def hierarchy(
    dataset: Annotated[
        str | None, typer.Option(help="Data set; or give --inputs, --outputs and --rows.")
    ] = None,
    inputs: Annotated[int | None, typer.Option(min=1, help="Inputs, without a data set.")] = None,
    outputs: Annotated[int | None, typer.Option(min=1, help="Outputs, without a data set.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="Rows, without a data set.")] = 10_000,
    shape: Annotated[str, typer.Option(help="Outline of the network.")] = "rectangle",
    size: Annotated[int | None, typer.Option(help="Trainable parameters wanted.")] = None,
    depth: Annotated[int | None, typer.Option(help="Dense layers, output included.")] = None,
    widths: Annotated[
        str | None, typer.Option(help="Units of every layer, instead of size and depth: 17,17,7.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 256,
    optimizer: Annotated[str, typer.Option(help="adam, rmsprop or sgd.")] = "adam",
    activation: Annotated[str, typer.Option(help="relu, tanh, sigmoid, gelu or swish.")] = "relu",
    test_split: Annotated[float, typer.Option(help="Fraction of rows for testing.")] = 0.2,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    kernel: Annotated[str, typer.Option(help="naive, blocked, tiled or blas.")] = "tiled",
    tile_rows: Annotated[int | None, typer.Option(help="Rows of the register tile.")] = None,
    tile_columns: Annotated[int | None, typer.Option(help="Columns of the register tile.")] = None,
    block_rows: Annotated[int | None, typer.Option(help="Rows of a cache block.")] = None,
    block_depth: Annotated[
        int | None, typer.Option(help="Products of a sum in a cache block.")
    ] = None,
    block_columns: Annotated[int | None, typer.Option(help="Columns of a cache block.")] = None,
    evaluate_train: Annotated[
        bool, typer.Option("--evaluate-train", help="Evaluate the training set too.")
    ] = False,
    cache_state: Annotated[
        str, typer.Option(help="warm or cold, at the start of epochs.")
    ] = "warm",
    target: Target = None,
    task: Task = None,
    plot: Annotated[Path | None, typer.Option(help="Figure to draw, such as it.png.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show working sets against this machine's caches, flops, and predicted bytes of an epoch.

    Bytes are modelled, never measured. Nothing is trained.
    """
    asked = dict(locals())
    if (dataset is None) == (inputs is None or outputs is None):
        raise Mistake("give either --dataset, or --inputs and --outputs")
    from minibutter.cli.footprint import show_hierarchy

    show_hierarchy(asked)
