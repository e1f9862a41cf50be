"""`minibutter train`: one experiment, from options."""

from typing import Annotated

import typer

from minibutter.cli.options import (
    DataDir,
    Energy,
    IdleSeconds,
    Json,
    Lanes,
    Out,
    Target,
    Task,
    TimeLimit,
)


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
    learning_rate_step_epochs: Annotated[
        int | None, typer.Option(help="Epochs after which the step size is multiplied by gamma.")
    ] = None,
    learning_rate_gamma: Annotated[float, typer.Option(help="See the option before.")] = 0.1,
    batch_size: Annotated[int, typer.Option(help="Rows per step.")] = 256,
    batch_rule: Annotated[
        str, typer.Option(help="fixed, or noise_scale: batches that grow with it.")
    ] = "fixed",
    batch_exchange_rate: Annotated[
        float | None, typer.Option(help="Of noise_scale: examples that a step is worth.")
    ] = None,
    batch_size_max: Annotated[
        int | None, typer.Option(help="Of noise_scale: the most rows of a step.")
    ] = None,
    sampling: Annotated[
        str, typer.Option(help="shuffle: every row once an epoch; replacement: rows by lot.")
    ] = "shuffle",
    optimizer: Annotated[str, typer.Option(help="adam, rmsprop or sgd.")] = "adam",
    momentum: Annotated[float, typer.Option(help="Of sgd and rmsprop.")] = 0.0,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov's, of sgd.")] = False,
    momentum_form: Annotated[
        str, typer.Option(help="keras or torch: where the learning rate of sgd enters.")
    ] = "keras",
    perturbation: Annotated[
        int, typer.Option(help="k of sgd's step (k η) (d / k), which changes its rounding.")
    ] = 1,
    activation: Annotated[str, typer.Option(help="relu, tanh, sigmoid, gelu or swish.")] = "relu",
    initializer: Annotated[
        str, typer.Option(help="glorot_uniform, he_uniform or gaussian.")
    ] = "glorot_uniform",
    parameterization: Annotated[str, typer.Option(help="standard, ntk or mup.")] = "standard",
    sigma0: Annotated[float, typer.Option(help="Of gaussian: variance sigma0² / fan_in.")] = 1.0,
    bias_multiplier: Annotated[float, typer.Option(help="Of the biases of ntk.")] = 1.0,
    base_width: Annotated[
        int | None, typer.Option(help="Of mup: hidden width at which it is standard.")
    ] = None,
    l1: Annotated[float, typer.Option(help="Penalty on Σ|w|.")] = 0.0,
    l2: Annotated[float, typer.Option(help="Penalty on Σw².")] = 0.0,
    label_noise: Annotated[float, typer.Option(help="Fraction of wrong training labels.")] = 0.0,
    test_split: Annotated[float, typer.Option(help="Fraction of rows for testing.")] = 0.2,
    split_method: Annotated[str, typer.Option(help="shuffled or last.")] = "shuffled",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    kernel: Annotated[str, typer.Option(help="naive, blocked, tiled or blas.")] = "tiled",
    tile_rows: Annotated[
        int | None, typer.Option(help="Rows of the register tile; of the machine if left out.")
    ] = None,
    tile_columns: Annotated[
        int | None, typer.Option(help="Columns of the register tile, whole cache lines.")
    ] = None,
    block_rows: Annotated[int | None, typer.Option(help="Rows of a cache block.")] = None,
    block_depth: Annotated[
        int | None, typer.Option(help="Products of a sum in a cache block.")
    ] = None,
    block_columns: Annotated[int | None, typer.Option(help="Columns of a cache block.")] = None,
    cache_state: Annotated[
        str, typer.Option(help="warm, or cold: caches are emptied before every epoch.")
    ] = "warm",
    data_parallel: Annotated[
        bool,
        typer.Option(
            "--data-parallel", help="One network over all ranks of mpirun, which share each batch."
        ),
    ] = False,
    slices: Annotated[
        int | None,
        typer.Option(
            help="Parts of a batch that ranks share; changes last digits. Left out: 1, or what "
            "suits the batch with --data-parallel."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Root of all random streams.")] = 0,
    evaluate_train: Annotated[
        bool, typer.Option("--evaluate-train", help="Evaluate the training set too.")
    ] = False,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="noise_scale: the noise of gradients, in columns of every epoch."),
    ] = None,
    on_divergence: Annotated[str, typer.Option(help="continue or stop at NaN.")] = "continue",
    target: Target = None,
    task: Task = None,
    out: Out = None,
    data_dir: DataDir = None,
    lanes: Lanes = "auto",
    energy: Energy = "auto",
    idle_seconds: IdleSeconds = 10.0,
    time_limit: TimeLimit = None,
    as_json: Json = False,
) -> None:
    """Train one network, several times, and keep its ten metrics of every epoch.

    Results go to --out, by default below `results/`; asked for again, finished runs are not redone.
    """
    asked = dict(locals())
    from minibutter.cli.running import choose_slices, run_and_show, single_experiment

    asked["slices"] = choose_slices(slices, data_parallel, batch_size)
    run_and_show(
        lambda: single_experiment(asked, repetitions, data_dir),
        out,
        data_dir,
        lanes,
        energy,
        idle_seconds,
        time_limit,
        as_json,
    )
