"""What the study measures: the pieces of every stage, with what each is predicted to take."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from minibutter.nn.kernels.layout import lanes_of
from minibutter.studies.study import Measurement, Measurements, Settings
from minibutter.studies.width import cost
from minibutter.studies.width.coordinates import measure_coordinates
from minibutter.studies.width.peak import HALF_WINDOW
from minibutter.studies.width.sizes import (
    BASE_WIDTH,
    COORDINATE_LAYERS,
    COORDINATE_RATES,
    PARAMETERIZATIONS,
    Scan,
    Sizes,
)
from minibutter.studies.width.stability import measure_stability
from minibutter.studies.width.training import measure_late_accuracy

LANES = lanes_of("float32")
"""Repetitions that are trained at once."""


def stability(settings: Settings, sizes: Sizes) -> Measurements:
    pieces = [
        Measurement(
            measure_stability,
            {
                **_model(settings, sizes, name, width, sizes.hidden_layers),
                "base_width": BASE_WIDTH,
                "n_steps": sizes.stability_steps,
                "n_rows": sizes.stability_rows,
                "n_repetitions": sizes.stability_repetitions,
            },
            cost.stability_s(
                width, sizes.hidden_layers, sizes.stability_rows, sizes.stability_steps
            ),
        )
        for name in PARAMETERIZATIONS
        for width in sizes.stability_widths
    ]
    return Measurements("stability", "largest stable learning rates, and 2 / λ0", tuple(pieces))


def coordinates(settings: Settings, sizes: Sizes) -> Measurements:
    pieces = [
        Measurement(
            measure_coordinates,
            {
                **_model(settings, sizes, name, width, COORDINATE_LAYERS),
                "base_width": BASE_WIDTH,
                "learning_rate": COORDINATE_RATES[name],
                "steps": list(sizes.coordinate_steps),
                "n_rows": sizes.coordinate_rows,
                "n_repetitions": sizes.stability_repetitions,
            },
            cost.coordinates_s(width, sizes.coordinate_rows, max(sizes.coordinate_steps)),
        )
        for name in PARAMETERIZATIONS
        for width in sizes.coordinate_widths
    ]
    return Measurements("coordinates", "how far units move in a few steps", tuple(pieces))


def _model(
    settings: Settings, sizes: Sizes, parameterization: str, width: int, hidden_layers: int
) -> dict[str, Any]:
    """What all measurements are told of data, seed and network."""
    return {
        "dataset": settings.dataset,
        "seed": settings.seed,
        "parameterization": parameterization,
        "width": width,
        "hidden_layers": hidden_layers,
        "sigma0": sizes.sigma0,
    }


Run = tuple[Scan, int, int]
"""A scan, a width and a batch size."""


def coarse_grid(sizes: Sizes) -> Iterator[Run]:
    for scan in sizes.scans:
        for width in scan.widths:
            for batch_size in scan.batch_sizes:
                yield scan, width, batch_size


def fine_grid(sizes: Sizes, coarse: pd.DataFrame) -> Iterator[Run]:
    """Half octaves around the best of the coarse grid."""
    for scan in sizes.scans:
        of_scan = coarse[
            (coarse["parameterization"] == scan.parameterization)
            & (coarse["learning_rate"] == scan.learning_rate)
        ]
        for width in scan.widths:
            means = of_scan[of_scan["width"] == width].groupby("batch_size")["late_accuracy"].mean()
            for batch_size in _between(scan.batch_sizes, int(means.idxmax())):
                yield scan, width, batch_size


def largest_fine_grid(sizes: Sizes) -> Iterator[Run]:
    """For the outline: as if the best batch size were that which has the most around it."""
    for scan in sizes.scans:
        around = (_between(scan.batch_sizes, best) for best in scan.batch_sizes)
        most = max(around, key=lambda found: (len(found), sum(found)))
        for width in scan.widths:
            for batch_size in most:
                yield scan, width, batch_size


def _between(grid: tuple[int, ...], best: int) -> list[int]:
    """Batch sizes half an octave from those of a grid of octaves, near the best."""
    halves = [round(size * 2**0.5) for size in grid[:-1]]
    near = [size for size in halves if abs(np.log2(size / best)) <= HALF_WINDOW + 0.1]
    return [size for size in near if size not in grid]


def runs(name: str, grid: Iterator[Run], settings: Settings, sizes: Sizes) -> Measurements:
    pieces = []
    for scan, width, batch_size in grid:
        for first in range(0, sizes.n_repetitions, LANES):
            arguments = {
                **_model(settings, sizes, scan.parameterization, width, sizes.hidden_layers),
                "learning_rate": scan.learning_rate,
                "batch_size": batch_size,
                "n_steps": scan.n_steps,
                "n_looks": sizes.n_looks,
                "first_repetition": first,
                "n_repetitions": min(LANES, sizes.n_repetitions - first),
                "n_train": sizes.n_train,
                "n_test": sizes.n_test,
            }
            predicted_s = cost.accuracy_s(
                width,
                sizes.hidden_layers,
                batch_size,
                scan.n_steps,
                sizes.n_looks * sizes.n_test,
            )
            pieces.append(Measurement(measure_late_accuracy, arguments, predicted_s))
    return Measurements(
        name, f"late test accuracy on the {name} grid of batch sizes", tuple(pieces)
    )
