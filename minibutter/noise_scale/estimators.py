"""Signal and noise of gradients: |G|² and tr Σ from squared norms, and the noise scales they make.

G is the mean gradient and Σ the covariance of the gradients of single examples. Whose mean is a
choice that the caller must make, as the two differ by a lot once |G|² is below tr Σ / n:

empirical    the n examples are all there is, and their mean loss is what is trained on. Σ is
             divided by n, nothing is subtracted from |G|². This drives training on that set.
population   they are a sample, and the mean over all of its source is meant. Σ is divided by n - 1,
             and |G|² loses what the noise of n examples adds to it; it can come out negative.

A batch that is drawn without replacement from D examples has less noise than one that is drawn
from their source: 1/B - 1/D in place of 1/B (footnote 6). It matters from B/D = 0.05 or so.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Convention = Literal["empirical", "population"]


@dataclass(frozen=True)
class GradientNoise:
    """Signal and noise of gradients: numbers, or arrays with one entry a layer or step.

    Attributes
    ----------
    squared_gradient : |G|²; an estimate of it may be negative.
    trace : tr Σ.
    convention : whose mean and covariance these are.
    """

    squared_gradient: np.ndarray | float
    trace: np.ndarray | float
    convention: Convention

    @property
    def simple_noise_scale(self) -> np.ndarray | float:
        """B_simple = tr Σ / |G|² (2.9), NaN where |G|² is not positive; layers do not add up."""
        signal = np.asarray(self.squared_gradient, np.float64)
        ratio = np.full(signal.shape, np.nan)
        np.divide(self.trace, signal, out=ratio, where=signal > 0)
        return ratio if ratio.ndim else float(ratio)

    @property
    def total(self) -> "GradientNoise":
        """Of the whole gradient, where the entries of the last axis are layers."""
        signal, trace = (np.sum(part, axis=-1) for part in (self.squared_gradient, self.trace))
        return GradientNoise(signal, trace, self.convention)


def noise_of_examples(
    mean_squared_norm: np.ndarray | float,
    squared_norm_of_mean: np.ndarray | float,
    n: np.ndarray | int,
    convention: Convention,
) -> GradientNoise:
    """Signal and noise from the gradients of n single examples.

    Parameters
    ----------
    mean_squared_norm : Σ_i |g_i|² / n.
    squared_norm_of_mean : |Σ_i g_i / n|², of the same shape.
    n : examples; a number, or one for every entry.
    convention : see the module.

    Raises
    ------
    ValueError
        If the convention is unknown, or there are too few examples for it.
    """
    _check_convention(convention)
    least = 2 if convention == "population" else 1
    if np.any(np.asarray(n) < least):
        raise ValueError(f"n is {n}; the {convention} convention needs at least {least} examples")
    trace = np.asarray(mean_squared_norm, np.float64) - squared_norm_of_mean
    signal = np.asarray(squared_norm_of_mean, np.float64)
    if convention == "population":
        trace = trace * (n / (n - 1))
        signal = signal - trace / n
    return GradientNoise(signal[()], trace[()], convention)


def noise_of_two_batches(
    small_squared_norm: np.ndarray | float,
    big_squared_norm: np.ndarray | float,
    small: int,
    big: int,
    dataset_size: int | None = None,
) -> GradientNoise:
    """Signal and noise from squared norms of mean gradients at two batch sizes (A.2).

    Both are unbiased, their ratio is not. Without a data set its size they are the population's;
    with one, those of the mean gradient over the D examples, from which batches are drawn without
    replacement, and Σ is still divided by D - 1, for which 1/B - 1/D is exact. The trace is the
    same either way: the finite size only moves |G|².

    Parameters
    ----------
    small_squared_norm : mean of |g|² over batches of `small` examples.
    big_squared_norm : of |g|² over batches of `big` examples, at the same parameters.
    small, big : batch sizes, small < big.
    dataset_size : D, or None.

    Raises
    ------
    ValueError
        If the sizes do not differ, or a batch is larger than the data set.
    """
    if not 1 <= small < big:
        raise ValueError(f"batch sizes are {small} and {big}; the first must be smaller")
    excess = noise_of_a_batch(1.0, big, dataset_size)
    trace = (np.asarray(small_squared_norm, np.float64) - big_squared_norm) / (1 / small - 1 / big)
    signal = np.asarray(big_squared_norm, np.float64) - trace * excess
    return GradientNoise(signal[()], trace[()], "population")


def noise_of_a_batch(
    trace: np.ndarray | float, batch_size: int, dataset_size: int | None = None
) -> np.ndarray | float:
    """E|g - G|² of a batch's mean gradient g: tr Σ (1/B - 1/D), or tr Σ / B without a D.

    Parameters
    ----------
    trace : tr Σ, divided by D - 1 if there is a D: the population convention.
    batch_size : B examples, drawn without replacement.
    dataset_size : D, or None for a source without end.

    Raises
    ------
    ValueError
        If the batch is empty or larger than the data set.
    """
    if batch_size < 1 or (dataset_size is not None and batch_size > dataset_size):
        limit = "" if dataset_size is None else f" and at most the data set, {dataset_size}"
        raise ValueError(f"the batch size is {batch_size}; it must be at least 1{limit}")
    return trace * (1 / batch_size - (0 if dataset_size is None else 1 / dataset_size))


def _check_convention(convention: str) -> None:
    if convention not in ("empirical", "population"):
        raise ValueError(f"convention is {convention!r}; it must be empirical or population")
