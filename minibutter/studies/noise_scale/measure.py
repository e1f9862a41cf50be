"""The noise scale of a network: at one point over a data set, or at every step of training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minibutter.estimate import Estimate
from minibutter.nn.moments import ExampleMoments, StepMoments
from minibutter.noise_scale.estimators import (
    GradientNoise,
    noise_of_examples,
    noise_of_two_batches,
)
from minibutter.noise_scale.intervals import jackknife_noise_scale


@dataclass(frozen=True)
class MeasuredNoise:
    """Signal and noise at one point, by layers (depth,), in both conventions.

    Attributes
    ----------
    empirical : of the mean loss over these examples; exact.
    population : of the source that they are a sample of; estimated.
    simple_noise_scale : B_simple of the source and of the whole gradient, with its interval.
    """

    empirical: GradientNoise
    population: GradientNoise
    simple_noise_scale: Estimate


def measure_noise(
    tool: ExampleMoments,
    parameters: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    confidence: float = 0.95,
) -> MeasuredNoise:
    """Signal and noise over all rows; the interval leaves out one example after the other.

    Two passes: the jackknife needs how much of each gradient points along their mean.

    Parameters
    ----------
    tool : moments of the network.
    parameters : (P,).
    x, y : (n, n_inputs) and (n, n_outputs), n at least 3, of the network's dtype.
    confidence : of the interval.

    Raises
    ------
    ValueError
        If an array does not fit the network, or there are fewer than 3 rows.
    """
    moments = tool.moments(parameters, x, y)
    if moments.n < 3:
        raise ValueError(f"there are {moments.n} rows; noise with an interval takes at least 3")
    along = tool.projections(parameters, x, y, moments.mean_gradient).sum(axis=1)
    squares = moments.squared_norms.sum(axis=1)
    empirical, population = (
        noise_of_examples(
            moments.squared_norms.mean(axis=0), moments.mean_squared_norms, moments.n, convention
        )
        for convention in ("empirical", "population")
    )
    return MeasuredNoise(
        empirical,
        population,
        jackknife_noise_scale(np.ones(moments.n), squares, squares, along, confidence),
    )


def noise_of_steps(steps: StepMoments, dataset_size: int | None = None) -> Iterator[GradientNoise]:
    """Signal and noise of every step by layers (depth,): single examples beside their batch (A.2).

    Of a batch of one row nothing is yielded: it has no second size.

    Parameters
    ----------
    steps : of an epoch.
    dataset_size : examples from which the batches are drawn without replacement, to get the signal
        of their mean loss; None for the signal of their source.
    """
    for n, of_examples, of_batch in zip(
        steps.batch_sizes.tolist(),
        steps.example_squared_norms,
        steps.batch_squared_norms,
        strict=True,
    ):
        if n > 1:
            yield noise_of_two_batches(of_examples, of_batch, 1, n, dataset_size)
