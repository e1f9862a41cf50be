"""The width study: which SGD noise generalises best, at every width of a network.

Stages: the largest stable learning rates and a coordinate check; then late test accuracy on a
coarse grid of batch sizes; then, around the best of every network, on a fine one. All are
measurements, not sweeps (see `training`): runs of all batch sizes make equally many steps and are
looked at equally often.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from minibutter.plots import width as figures
from minibutter.studies.data import split_sizes
from minibutter.studies.study import (
    Conclusion,
    Course,
    Measurement,
    Measurements,
    Settings,
    Step,
)
from minibutter.studies.width import cost, criteria, rates
from minibutter.studies.width.coordinates import measure_coordinates, slopes_of_changes
from minibutter.studies.width.data import load_rows
from minibutter.studies.width.optima import (
    Optimum,
    Setting,
    find_optima,
    optima_table,
    slopes_table,
)
from minibutter.studies.width.peak import HALF_WINDOW, Slope, draw_repetitions
from minibutter.studies.width.sizes import (
    BASE_WIDTH,
    COORDINATE_LAYERS,
    COORDINATE_RATES,
    FULL,
    PARAMETERIZATIONS,
    QUICK,
    Scan,
    Sizes,
)
from minibutter.studies.width.stability import measure_stability, summarise_stability
from minibutter.studies.width.training import measure_late_accuracy

LANES = 16
"""Repetitions of float32 that are trained at once."""


@dataclass(frozen=True)
class WidthStudy:
    """Optimal batch sizes and largest learning rates against width.

    Attributes
    ----------
    name, question : for people.
    sizes : by scale.
    """

    name: str = "width"
    question: str = "does the best SGD noise grow with the width of a network?"
    sizes: Mapping[str, Sizes] = field(default_factory=lambda: {"quick": QUICK, "full": FULL})

    def outline(self, settings: Settings) -> list[Step]:
        """All four stages; of the fine grid as many runs as it may need."""
        sizes = self.sizes[settings.scale]
        stages = [
            _stability(settings, sizes),
            _coordinates(settings, sizes),
            _runs("coarse", _coarse_grid(sizes), settings, sizes),
            _runs("fine", _largest_fine_grid(sizes), settings, sizes),
        ]
        return [
            Step(
                stage.name,
                stage.description,
                len(stage.pieces),
                sum(piece.predicted_s for piece in stage.pieces),
            )
            for stage in stages
        ]

    def course(self, settings: Settings) -> Course:
        """Measure, and conclude."""
        sizes = self.sizes[settings.scale]
        x, _ = load_rows(settings.dataset, settings.data_dir)
        n_train, n_test = split_sizes(len(x), sizes.n_train, sizes.n_test)
        stability = yield _stability(settings, sizes)
        coordinates = yield _coordinates(settings, sizes)
        coarse = yield _runs("coarse", _coarse_grid(sizes), settings, sizes)
        fine = yield _runs("fine", _fine_grid(sizes, coarse), settings, sizes)
        accuracies = pd.concat([coarse, fine], ignore_index=True)
        rng = np.random.default_rng([settings.seed, sizes.n_repetitions])
        draws = draw_repetitions(sizes.n_repetitions, sizes.n_draws, rng)
        rate_draws = draw_repetitions(sizes.stability_repetitions, sizes.n_draws, rng)
        return _conclude(
            sizes,
            (n_train, n_test),
            x.shape[1],
            stability,
            coordinates,
            accuracies,
            draws,
            rate_draws,
        )


def _stability(settings: Settings, sizes: Sizes) -> Measurements:
    pieces = [
        Measurement(
            measure_stability,
            {
                "dataset": settings.dataset,
                "parameterization": name,
                "width": width,
                "hidden_layers": sizes.hidden_layers,
                "sigma0": sizes.sigma0,
                "base_width": BASE_WIDTH,
                "n_steps": sizes.stability_steps,
                "n_rows": sizes.stability_rows,
                "n_repetitions": sizes.stability_repetitions,
                "seed": settings.seed,
            },
            cost.stability_s(
                width, sizes.hidden_layers, sizes.stability_rows, sizes.stability_steps
            ),
        )
        for name in PARAMETERIZATIONS
        for width in sizes.stability_widths
    ]
    return Measurements("stability", "largest stable learning rates, and 2 / λ0", tuple(pieces))


def _coordinates(settings: Settings, sizes: Sizes) -> Measurements:
    pieces = [
        Measurement(
            measure_coordinates,
            {
                "dataset": settings.dataset,
                "parameterization": name,
                "width": width,
                "hidden_layers": COORDINATE_LAYERS,
                "sigma0": sizes.sigma0,
                "base_width": BASE_WIDTH,
                "learning_rate": COORDINATE_RATES[name],
                "steps": list(sizes.coordinate_steps),
                "n_rows": sizes.coordinate_rows,
                "n_repetitions": sizes.stability_repetitions,
                "seed": settings.seed,
            },
            cost.coordinates_s(width, sizes.coordinate_rows, max(sizes.coordinate_steps)),
        )
        for name in PARAMETERIZATIONS
        for width in sizes.coordinate_widths
    ]
    return Measurements("coordinates", "how far units move in a few steps", tuple(pieces))


Run = tuple[Scan, int, int]
"""A scan, a width and a batch size."""


def _coarse_grid(sizes: Sizes) -> Iterator[Run]:
    for scan in sizes.scans:
        for width in scan.widths:
            for batch_size in scan.batch_sizes:
                yield scan, width, batch_size


def _fine_grid(sizes: Sizes, coarse: pd.DataFrame) -> Iterator[Run]:
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


def _largest_fine_grid(sizes: Sizes) -> Iterator[Run]:
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


def _runs(name: str, grid: Iterator[Run], settings: Settings, sizes: Sizes) -> Measurements:
    pieces = []
    for scan, width, batch_size in grid:
        for first in range(0, sizes.n_repetitions, LANES):
            arguments = {
                "dataset": settings.dataset,
                "parameterization": scan.parameterization,
                "width": width,
                "hidden_layers": sizes.hidden_layers,
                "sigma0": sizes.sigma0,
                "learning_rate": scan.learning_rate,
                "batch_size": batch_size,
                "n_steps": scan.n_steps,
                "n_looks": sizes.n_looks,
                "first_repetition": first,
                "n_repetitions": min(LANES, sizes.n_repetitions - first),
                "n_train": sizes.n_train,
                "n_test": sizes.n_test,
                "seed": settings.seed,
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


def _conclude(
    sizes: Sizes,
    n_rows: tuple[int, int],
    n_inputs: int,
    stability: pd.DataFrame,
    coordinates: pd.DataFrame,
    accuracies: pd.DataFrame,
    draws: np.ndarray,
    rate_draws: np.ndarray,
) -> Conclusion:
    optima = find_optima(accuracies, draws)
    of_rates, rate_slopes = rates.judge_rates(stability, n_inputs, rate_draws)
    largest, largest_slopes = rates.largest_batches(optima, stability, sizes.sigma0, rate_draws)
    of_batches = [
        *criteria.judge_slopes(optima, len(draws)),
        criteria.judge_collapse(optima, "ntk"),
        criteria.judge_collapse(optima, "standard"),
        criteria.judge_accuracy(optima, "ntk"),
        criteria.judge_accuracy(optima, "standard"),
        *rates.judge_largest_batches(largest_slopes),
    ]
    if n_rows[0] < sizes.n_train:
        of_batches = criteria.doubt(
            of_batches,
            f"learning rates and batch sizes are chosen for {sizes.n_train} training rows; the "
            f"data set leaves {n_rows[0]}",
        )
    tables = {
        "accuracies": accuracies,
        "optima": optima_table(optima, sizes.sigma0),
        "slopes": slopes_table(optima, len(draws)),
        "stability": stability,
        "stability_by_width": summarise_stability(stability, rate_draws),
        "rate_slopes": rate_slopes,
        "largest_batches": largest,
        "coordinates": coordinates,
        "coordinate_slopes": slopes_of_changes(coordinates),
    }
    return Conclusion(
        (*of_batches, *of_rates),
        tables,
        {
            "accuracy": partial(figures.draw_accuracy, accuracies, tables["optima"]),
            "optima": partial(figures.draw_optima, tables["optima"], tables["slopes"]),
            "largest_rates": partial(
                figures.draw_largest_rates, tables["stability_by_width"], largest, n_inputs
            ),
            "best_accuracy": partial(figures.draw_best_accuracy, tables["optima"]),
            "coordinates": partial(figures.draw_coordinates, coordinates),
        },
        _context(sizes, n_rows, optima, largest_slopes),
    )


def _context(
    sizes: Sizes,
    n_rows: tuple[int, int],
    optima: dict[Setting, Optimum],
    largest_slopes: dict[str, Slope],
) -> dict[str, object]:
    return {
        "convention": "noise of the mean loss, batches with replacement: g = rate / batch size",
        "n_train": n_rows[0],
        "n_test": n_rows[1],
        "n_repetitions": sizes.n_repetitions,
        "hidden_layers": sizes.hidden_layers,
        "sigma0": sizes.sigma0,
        "scans": [
            {
                "parameterization": scan.parameterization,
                "learning_rate": scan.learning_rate,
                "n_steps": scan.n_steps,
                "widths": list(scan.widths),
            }
            for scan in sizes.scans
        ],
        "left_out": [
            f"{s.parameterization}, rate {s.learning_rate:g}, width {s.width}"
            for s, optimum in optima.items()
            if not optimum.interpolates or optimum.log2_batch is None
        ],
        "largest_batch_slopes": {name: slope.value for name, slope in largest_slopes.items()},
    }


STUDY = WidthStudy()
