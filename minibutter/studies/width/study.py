"""The width study: which SGD noise generalises best, at every width of a network.

Stages: the largest stable learning rates and a coordinate check; then late test accuracy on a
coarse grid of batch sizes; then, around the best of every network, on a fine one. All are
measurements, not sweeps (see `training`): runs of all batch sizes make equally many steps and are
looked at equally often.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from minibutter.plots import width as figures
from minibutter.studies.data import split_sizes
from minibutter.studies.study import Conclusion, Course, Settings, Step
from minibutter.studies.width import criteria, rates, stages
from minibutter.studies.width.coordinates import slopes_of_changes
from minibutter.studies.width.data import load_rows
from minibutter.studies.width.optima import (
    Optimum,
    Setting,
    find_optima,
    optima_table,
    slopes_table,
)
from minibutter.studies.width.peak import Slope, draw_repetitions
from minibutter.studies.width.scales import PREDICTED_RATE_SLOPE
from minibutter.studies.width.sizes import FULL, QUICK, Sizes
from minibutter.studies.width.stability import summarise_stability


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
        planned = (
            stages.stability(settings, sizes),
            stages.coordinates(settings, sizes),
            stages.runs("coarse", stages.coarse_grid(sizes), settings, sizes),
            stages.runs("fine", stages.largest_fine_grid(sizes), settings, sizes),
        )
        return [Step.of(stage) for stage in planned]

    def course(self, settings: Settings) -> Course:
        """Measure, and conclude."""
        sizes = self.sizes[settings.scale]
        x, _ = load_rows(settings.dataset, settings.data_dir)
        n_train, n_test = split_sizes(len(x), sizes.n_train, sizes.n_test)
        stability = yield stages.stability(settings, sizes)
        coordinates = yield stages.coordinates(settings, sizes)
        coarse = yield stages.runs("coarse", stages.coarse_grid(sizes), settings, sizes)
        fine = yield stages.runs("fine", stages.fine_grid(sizes, coarse), settings, sizes)
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
                figures.draw_largest_rates,
                *(tables["stability_by_width"], largest, n_inputs, PREDICTED_RATE_SLOPE),
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
) -> dict[str, Any]:
    caveats = []
    if sizes.n_repetitions < criteria.WANTED_REPETITIONS:
        caveats.append(
            f"{sizes.n_repetitions} repetitions; the statements ask for "
            f"{criteria.WANTED_REPETITIONS} or more"
        )
    return {
        "caveats": caveats,
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
