"""`minibutter train`: one experiment, from options."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from minibutter import runs
from minibutter.cli.options import DataDir, Json, Out, Target, Task
from minibutter.cli.sweep import run_and_show
from minibutter.sweeps.spec import RunSpec, Sweep, SweepError, explain


def train(
    dataset: Annotated[str, typer.Option(help="Data set: see `minibutter data list`.")],
    shape: Annotated[str, typer.Option(help="Outline of the network.")] = "rectangle",
    size: Annotated[int | None, typer.Option(help="Trainable parameters wanted.")] = None,
    depth: Annotated[int | None, typer.Option(help="Dense layers, output included.")] = None,
    widths: Annotated[
        str | None, typer.Option(help="Units of every layer, instead of size and depth: 17,17,7.")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs with other seeds.")] = 1,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 3000,
    learning_rate: Annotated[float, typer.Option(help="Step size.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 256,
    optimizer: Annotated[str, typer.Option(help="adam, rmsprop or sgd.")] = "adam",
    momentum: Annotated[float, typer.Option(help="Of sgd and rmsprop.")] = 0.0,
    activation: Annotated[str, typer.Option(help="relu, tanh, sigmoid or gelu.")] = "relu",
    initializer: Annotated[
        str, typer.Option(help="glorot_uniform or he_uniform.")
    ] = "glorot_uniform",
    l1: Annotated[float, typer.Option(help="Penalty on Σ|w|.")] = 0.0,
    l2: Annotated[float, typer.Option(help="Penalty on Σw².")] = 0.0,
    label_noise: Annotated[float, typer.Option(help="Fraction of wrong training labels.")] = 0.0,
    test_split: Annotated[float, typer.Option(help="Fraction of rows for testing.")] = 0.2,
    split_method: Annotated[str, typer.Option(help="shuffled or last.")] = "shuffled",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    kernel: Annotated[str, typer.Option(help="naive, tiled or blas.")] = "tiled",
    seed: Annotated[int, typer.Option(help="Root of all random streams.")] = 0,
    evaluate_train: Annotated[
        bool, typer.Option("--evaluate-train", help="Evaluate the training set too.")
    ] = False,
    on_divergence: Annotated[str, typer.Option(help="continue or stop at NaN.")] = "continue",
    target: Target = None,
    task: Task = None,
    out: Out = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train one network, several times, and keep its ten metrics of every epoch.

    Results go to --out, by default below `results/`; asked for again, finished runs are not redone.
    """
    asked = dict(locals())
    values = {key: asked[key] for key in RunSpec.model_fields}
    run_and_show(lambda: _single_experiment(values, repetitions, data_dir), out, data_dir, as_json)


def _single_experiment(values: dict[str, Any], repetitions: int, data_dir: Path | None) -> Sweep:
    """A sweep of one experiment, refused at once if it cannot run."""
    try:
        spec = RunSpec(**(values | {"widths": _parse_widths(values["widths"])}))
    except ValidationError as error:
        raise SweepError(explain(error)) from None
    experiment = runs.plan_experiment(spec, repetitions, data_dir)
    if experiment.problem is not None:
        raise SweepError(experiment.problem)
    # A name for a folder: of a generator its kind, of a file its name without odd characters.
    stem = re.sub(r"[^\w.-]", "_", Path(spec.dataset).name.partition(":")[0])[:40].lstrip(".")
    name = f"{stem}-{experiment.experiment_id[:8]}"
    document = spec.model_dump(mode="json", exclude_none=True) | {"repetitions": repetitions}
    return Sweep(name, "a single experiment", ((spec, repetitions),), document)


def _parse_widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("-", ",").split(","))
    except ValueError:
        raise SweepError(
            f"--widths {text}: write whole numbers separated by commas, as in 17,17,7"
        ) from None
