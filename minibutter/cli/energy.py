"""`minibutter energy`: where the joules of a sweep went, and what another will take."""

from pathlib import Path
from typing import Annotated

import typer

from minibutter.cli.options import DataDir, Json, Mistake, Results, SweepSource

Source = Annotated[
    str | None,
    typer.Option(help="measured or simulated, where results hold both."),
]
WithShared = Annotated[
    bool,
    typer.Option(
        "--with-shared",
        help="Also use energies that hold other ranks' work (measured_shared) where it is not "
        "stored what ran there.",
    ),
]
Caches = Annotated[
    str | None,
    typer.Option(
        help="Data caches of a core of the measured machine, as 32K,512K,4M (default: this "
        "machine's, if it has the same processor)."
    ),
]


def fit(
    directory: Results,
    out: Annotated[
        Path | None, typer.Option(help="Folder of model and figures (default: RESULTS/energy).")
    ] = None,
    source: Source = None,
    with_shared: WithShared = False,
    caches: Caches = None,
    as_json: Json = False,
) -> None:
    """Fit joules an epoch to time, FLOPs and bytes of each level of the memory.

    Beside the model stand BUTTER-E's form, FLOPs alone and time alone.

    Where ranks shared a package, its whole energy is fitted to the work of all that ran there.
    Runs beside much work of other processes are left out. Writes `model.json` and two figures.
    """
    from minibutter.cli.energy_models import fit_results, show_model, write_model

    model = fit_results(directory, source, with_shared, caches)
    paths = write_model(model, out or directory / "energy")
    if as_json:
        from minibutter.energy.model import to_json

        print(to_json(model))
        return
    show_model(model, paths)


def predict(
    sweep: SweepSource,
    model: Annotated[
        Path,
        typer.Option(
            help="model.json of `energy fit`, or results to fit.", exists=False, show_default=False
        ),
    ],
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Modelled kWh, with a 90 % interval, of a sweep that has not been run."""
    from minibutter.cli.energy_models import load_model, plan_energy, show_prediction
    from minibutter.energy.model import predict_energy, to_json
    from minibutter.experiments import CHECKS, plan_experiments
    from minibutter.sweeps.spec import load_sweep

    fitted = load_model(model)
    experiments = plan_experiments(load_sweep(sweep, CHECKS), data_dir)
    runnable = [experiment for experiment in experiments if experiment.problem is None]
    if not runnable:
        raise Mistake(f"nothing of {sweep} can be run: {experiments[0].problem}")
    prediction = predict_energy(fitted, plan_energy(runnable))
    if as_json:
        print(to_json(prediction))
        return
    show_prediction(prediction, runnable)
    for experiment in experiments:
        if experiment.problem is not None:
            print(f"cannot run, and not counted: {experiment.problem}")
