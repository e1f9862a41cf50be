"""The study of the gradient noise scale: the order of its stages, and who is told what.

Source: McCandlish, Kaplan, Amodei et al. 2018, arXiv:1812.06162. `docs/studies/noise-scale.md` says
what is measured and why.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from minibutter.studies.noise_scale.conclusion import Findings, conclude
from minibutter.studies.noise_scale.frontier import fastest_rates, fit_frontier, rates_to_add
from minibutter.studies.noise_scale.levels import checkpoints_near
from minibutter.studies.noise_scale.problem import describe_problem, load_problem
from minibutter.studies.noise_scale.sizes import FULL, QUICK, Sizes
from minibutter.studies.noise_scale.stages import Point, Stages, refuse_few_rows
from minibutter.studies.study import Course, Measurements, Settings, Step

_PAPER_DATA = (8000, 784, 10)  # rows, inputs, classes of the numbers that are compared with


@dataclass(frozen=True)
class NoiseScaleStudy:
    """See `minibutter.studies.study.Study`.

    Attributes
    ----------
    quick, full : sizes of the two scales.
    """

    name: str = "noise-scale"
    question: str = "does the noise of gradients tell how large a batch may usefully be?"
    quick: Sizes = QUICK
    full: Sizes = FULL

    def _sizes(self, settings: Settings) -> Sizes:
        return self.full if settings.scale == "full" else self.quick

    def _stages(self, settings: Settings, n_rows: int) -> Stages:
        sizes = self._sizes(settings)
        problem = describe_problem(
            settings.dataset, sizes.n_train, sizes.n_test, settings.seed, sizes.hidden
        )
        return Stages(sizes, problem, n_rows, settings.seed)

    def outline(self, settings: Settings) -> list[Step]:
        """All stages with as many training rows as they want; those of checkpoints at likely ones,
        and of rates beyond the grid those of every batch size in one direction."""
        sizes = self._sizes(settings)
        stages = self._stages(settings, sizes.n_train)

        def points(seeds: int, levels: tuple[float, ...], count: int = 1) -> list[Point]:
            # A run reaches an error in about as many steps as that.
            steps = [round(10 / level) + i for level in levels for i in range(count)]
            return [(seed, step) for seed in range(seeds) for step in steps]

        start = [(seed, 0) for seed in range(sizes.curvature_seeds)]
        near = points(sizes.curvature_seeds, sizes.curvature_levels, sizes.curvature_count)
        factors = sizes.adaptive_factors
        planned: list[Measurements] = [
            stages.along(),
            stages.curvature(start + near),
            stages.routes(points(sizes.route_seeds, sizes.route_levels)),
            stages.sweep(),
            stages.wider({size: [max(sizes.multipliers) * 2] for size in sizes.batch_sizes}),
            stages.branches(points(sizes.branch_seeds, sizes.branch_levels)),
            stages.best_steps(points(sizes.step_seeds, sizes.step_levels)),
            stages.temperature(),
            stages.adaptive(factors),
        ]
        return [Step.of(stage) for stage in planned]

    def course(self, settings: Settings) -> Course:
        """The stages; where checkpoints and rates lie follows from those before."""
        sizes = self._sizes(settings)
        problem = load_problem(self._stages(settings, 0).problem, settings.data_dir)
        refuse_few_rows(settings.dataset, problem.n, sizes.trunk_batch)
        stages = self._stages(settings, problem.n)
        rng = np.random.default_rng(settings.seed)

        along: pd.DataFrame = yield stages.along()

        def points(n_seeds: int, levels: tuple[float, ...], count: int = 1) -> list[Point]:
            seeds = sorted(along["seed"].unique())[:n_seeds]
            return checkpoints_near(along[along["seed"].isin(seeds)], list(levels), count)

        start = [(int(seed), 0) for seed in along["seed"].unique()[: sizes.curvature_seeds]]
        near = points(sizes.curvature_seeds, sizes.curvature_levels, sizes.curvature_count)
        curvature = yield stages.curvature([*start, *near])
        routes = yield stages.routes(points(sizes.route_seeds, sizes.route_levels))

        sweep = yield stages.sweep()
        rates = rates_to_add(sweep)
        if rates:
            sweep = pd.concat([sweep, (yield stages.wider(rates))], ignore_index=True)

        branches = yield stages.branches(points(sizes.branch_seeds, sizes.branch_levels))
        best_steps = yield stages.best_steps(points(sizes.step_seeds, sizes.step_levels))
        temperature = yield stages.temperature()

        fits = fit_frontier(fastest_rates(sweep), np.random.default_rng(settings.seed))
        adaptive = None
        known = fits[fits["critical_batch_size_state"] == "resolved"] if len(fits) else fits
        if len(known):
            # Three digits: another processor must not make another piece of it.
            rate = float(f"{known.sort_values('goal')['critical_batch_size'].iloc[0]:.3g}")
            adaptive = yield stages.adaptive([factor * rate for factor in sizes.adaptive_factors])

        is_paper_data = (problem.n, problem.x.shape[1], problem.y.shape[1]) == _PAPER_DATA
        findings = Findings(
            along, curvature, routes, sweep, branches, best_steps, temperature, adaptive
        )
        return conclude(findings, sizes, problem.n, is_paper_data, rng)


STUDY = NoiseScaleStudy()
