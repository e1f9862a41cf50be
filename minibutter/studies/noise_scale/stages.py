"""The stages of the study as pieces of work, with what each is predicted to take."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from minibutter.studies.catalogue import StudyError
from minibutter.studies.noise_scale.along import measure_along_training, measure_noise_curvature
from minibutter.studies.noise_scale.best_steps import GRID, measure_best_steps
from minibutter.studies.noise_scale.branching import measure_branches
from minibutter.studies.noise_scale.following import measure_adaptive_run
from minibutter.studies.noise_scale.goals import measure_steps_to_goals
from minibutter.studies.noise_scale.problem import checkpoints
from minibutter.studies.noise_scale.routes import measure_routes
from minibutter.studies.noise_scale.sizes import Sizes
from minibutter.studies.noise_scale.temperature import measure_temperature_response
from minibutter.studies.study import Measurement, Measurements

Point = tuple[int, int]
"""A seed and a step: a checkpoint of a run."""

# Seconds on one core with AVX-512, of the network of the study; they only choose what is begun
# first, and what a dry run says.
_TRAIN_S, _STEP_S, _EVALUATE_S, _MOMENTS_S = 5e-6, 100e-6, 1.5e-6, 14e-6
_PRODUCT_S, _START_S = 22e-6, 0.1
_REACH = 1500  # steps of whole gradients that are enough for the last goal
_REACH_BATCH = 200  # and the batch at which it takes twice as many


def refuse_few_rows(dataset: str, n_rows: int, trunk_batch: int) -> None:
    """Of fewer than three batches of the run that all is measured along, nothing is a sample.

    Raises
    ------
    StudyError
        If there are fewer training rows.
    """
    if n_rows < 3 * trunk_batch:
        raise StudyError(
            f"{dataset} has {n_rows} rows for training; this study needs {3 * trunk_batch}, three "
            f"batches of {trunk_batch}: take a larger data set, as in --dataset digits"
        )


class Stages:
    """Every stage, for some sizes and a problem.

    Parameters
    ----------
    sizes : how many of everything.
    problem : of `describe_problem`.
    n_rows : training rows that there are.
    seed : of the whole study.
    """

    def __init__(self, sizes: Sizes, problem: Mapping[str, Any], n_rows: int, seed: int) -> None:
        self.sizes, self.problem, self.n_rows = sizes, dict(problem), n_rows
        self._first_seed = 1000 * seed
        self._trunk = {"batch_size": sizes.trunk_batch, "learning_rate": sizes.trunk_rate}
        self._base = {"trunk_batch": sizes.trunk_batch, "trunk_rate": sizes.trunk_rate}

    def _seeds(self, count: int) -> range:
        return range(self._first_seed, self._first_seed + count)

    def _fitting(self, batch_sizes: Iterable[int]) -> list[int]:
        """Batches that are a sample of the rows and not nearly all of them."""
        return [size for size in batch_sizes if 3 * size <= self.n_rows]

    def _stage(
        self,
        name: str,
        description: str,
        function: Callable[..., pd.DataFrame],
        pieces: Iterable[tuple[Mapping[str, Any], float]],
    ) -> Measurements:
        return Measurements(
            name,
            description,
            tuple(
                Measurement(function, {"problem": self.problem, **arguments}, _START_S + duration_s)
                for arguments, duration_s in pieces
            ),
        )

    def _train_s(self, steps: float, batch_size: float) -> float:
        return steps * (_STEP_S + _TRAIN_S * batch_size)

    @property
    def _rows_evaluated(self) -> int:
        return min(self.sizes.evaluated_rows, self.n_rows)

    # -----------------------------------------------------------------------------------------

    def along(self) -> Measurements:
        """Statistics of all examples at checkpoints of the trunk, a run a seed."""
        sizes = self.sizes
        steps = checkpoints(sizes.last_step, sizes.checkpoint_ratio)
        duration_s = self._train_s(steps[-1], sizes.trunk_batch)
        duration_s += len(steps) * self.n_rows * (_EVALUATE_S + 2 * _MOMENTS_S)
        pieces = (
            ({"seed": seed, **self._trunk, "steps": steps, "decay": sizes.decay}, duration_s)
            for seed in self._seeds(sizes.along_seeds)
        )
        return self._stage(
            "along", "signal and noise along training", measure_along_training, pieces
        )

    def curvature(self, points: Sequence[Point]) -> Measurements:
        """B_noise at checkpoints."""
        probes = self.sizes.probes
        pieces = (
            (
                {"seed": seed, **self._trunk, "step": step, "probes": probes},
                self._train_s(step, self.sizes.trunk_batch)
                + (probes + 2) * self.n_rows * _PRODUCT_S,
            )
            for seed, step in points
        )
        return self._stage(
            "curvature", "noise seen through the Hessian", measure_noise_curvature, pieces
        )

    def routes(self, points: Sequence[Point]) -> Measurements:
        """Three routes to the same numbers at checkpoints."""
        sizes = self.sizes
        pieces = (
            (
                {
                    "seed": seed,
                    **self._trunk,
                    "step": step,
                    "epochs": sizes.route_epochs,
                    "slices": sizes.slices,
                },
                self._train_s(step, sizes.trunk_batch)
                + 3 * sizes.route_epochs * self.n_rows * _MOMENTS_S,
            )
            for seed, step in points
        )
        return self._stage("routes", "three routes to tr Σ and |G|²", measure_routes, pieces)

    def sweep(self) -> Measurements:
        """Steps to all goals, a piece a seed and batch size."""
        rates = {
            size: list(self.sizes.multipliers) for size in self._fitting(self.sizes.batch_sizes)
        }
        return self._goals("sweep", "steps to goals at many batch sizes and rates", rates)

    def wider(self, rates: Mapping[int, Sequence[float]]) -> Measurements:
        """The same at rates beyond the grid, where the best one was at its end."""
        return self._goals("wider", "rates beyond an end of the grid that was best", rates)

    def _goals(
        self, name: str, description: str, rates: Mapping[int, Sequence[float]]
    ) -> Measurements:
        sizes = self.sizes
        pieces = []
        for batch_size, multipliers in rates.items():
            most_steps = round(_REACH * (1 + _REACH_BATCH / batch_size))
            arguments = {
                "batch_size": batch_size,
                "multipliers": list(multipliers),
                "goals": list(sizes.goals),
                "evaluated_rows": self._rows_evaluated,
                "spacing": sizes.spacing,
                "most_steps": most_steps,
            }
            duration_s = self._train_s(most_steps / 8, batch_size)
            duration_s += 120 * self._rows_evaluated * _EVALUATE_S
            pieces += [
                ({"seed": seed, **arguments}, len(multipliers) * duration_s)
                for seed in self._seeds(sizes.sweep_seeds)
            ]
        return self._stage(name, description, measure_steps_to_goals, pieces)

    def branches(self, points: Sequence[Point]) -> Measurements:
        """Branches from checkpoints, a piece a checkpoint and batch size."""
        sizes = self.sizes
        pieces = [
            (
                {
                    "seed": seed,
                    "step": step,
                    **self._base,
                    "batch_size": size,
                    "multipliers": list(sizes.branch_multipliers),
                    "examples": sizes.branch_examples,
                },
                self._train_s(step, sizes.trunk_batch)
                + len(sizes.branch_multipliers)
                * (self._train_s(sizes.branch_examples / size, size) + self.n_rows * _EVALUATE_S),
            )
            for seed, step in points
            for size in self._fitting(sizes.branch_batches)
        ]
        return self._stage(
            "branches", "the critical batch size seen by branches", measure_branches, pieces
        )

    def best_steps(self, points: Sequence[Point]) -> Measurements:
        """The best step of every batch size at checkpoints."""
        sizes = self.sizes
        rows = min(sizes.step_rows, self.n_rows)
        batch_sizes = self._fitting(sizes.step_batches)
        losses = len(batch_sizes) * sizes.sampled_batches * len(GRID)
        arguments = {
            **self._base,
            "batch_sizes": batch_sizes,
            "batches": sizes.sampled_batches,
            "evaluated_rows": rows,
            "probes": sizes.probes,
        }
        duration_s = losses * rows * _EVALUATE_S + sizes.probes * rows * _PRODUCT_S
        pieces = (
            (
                {"seed": seed, "step": step, **arguments},
                self._train_s(step, sizes.trunk_batch) + duration_s,
            )
            for seed, step in points
        )
        return self._stage(
            "best-steps", "where the expected loss is lowest after one step",
            measure_best_steps, pieces,
        )  # fmt: skip

    def temperature(self) -> Measurements:
        """Runs whose learning rate is lower for a while."""
        sizes = self.sizes
        half = (sizes.temperature_end - sizes.temperature_begin) // 2
        last = sizes.temperature_end + half
        arguments = {
            **self._trunk,
            "factor": sizes.temperature_factor,
            "begin": sizes.temperature_begin,
            "end": sizes.temperature_end,
            "last": last,
            "interval": sizes.temperature_interval,
        }
        duration_s = self._train_s(last, sizes.trunk_batch)
        duration_s += last / sizes.temperature_interval * self.n_rows * (_EVALUATE_S + _MOMENTS_S)
        pieces = (
            ({"seed": seed, **arguments}, duration_s)
            for seed in self._seeds(sizes.temperature_seeds)
        )
        return self._stage(
            "temperature", "noise while the learning rate is 16 times lower",
            measure_temperature_response, pieces,
        )  # fmt: skip

    def adaptive(self, exchange_rates: Sequence[float]) -> Measurements:
        """Runs whose batch follows the noise scale, a piece a seed, exchange rate and multiple."""
        sizes = self.sizes
        largest = max(self._fitting(sizes.batch_sizes))
        most_examples = 4 * _REACH * _REACH_BATCH
        arguments = {
            "goals": list(sizes.goals),
            "evaluated_rows": self._rows_evaluated,
            "measured_rows": min(sizes.adaptive_rows, self.n_rows),
            "spacing": sizes.spacing,
            "smallest_batch": 2,
            "largest_batch": largest,
            "most_examples": most_examples,
        }
        duration_s = self._train_s(_REACH, 2 * _REACH_BATCH) / 4
        duration_s += 60 * (
            self._rows_evaluated * _EVALUATE_S + sizes.adaptive_rows * _MOMENTS_S / 2
        )
        pieces = (
            (
                {"seed": seed, "exchange_rate": rate, "multiplier": multiplier, **arguments},
                duration_s,
            )
            for rate in exchange_rates
            for multiplier in sizes.adaptive_multipliers
            for seed in self._seeds(sizes.adaptive_seeds)
        )
        return self._stage(
            "adaptive", "batches that follow the noise scale", measure_adaptive_run, pieces
        )
