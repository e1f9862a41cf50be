"""How far an estimate of B_simple = tr Σ / |G|² can be trusted.

Two routes to the covariance of the estimates of tr Σ and |G|²: formulas for normal gradients, and a
block jackknife, which assumes nothing but independent blocks. Both lead to one interval of the
ratio, by the delta method on its logarithm. Where |G|² cannot be told from 0, the ratio has a lower
bound only, and says so.

All is of the population convention: what an exact computation over a whole data set says of that
data set (the empirical convention) has no sampling error.
"""

import math
from typing import NamedTuple

import numpy as np

from minibutter.estimate import Estimate, quantile_of_normal
from minibutter.noise_scale.estimators import noise_of_examples


class NoiseCovariance(NamedTuple):
    """Sampling errors of the estimates of tr Σ and |G|²."""

    variance_of_trace: float
    variance_of_signal: float
    covariance: float


def ratio_estimate(
    trace: float,
    signal: float,
    covariance: NoiseCovariance,
    confidence: float = 0.95,
    names: tuple[str, str] = ("tr Σ", "|G|²"),
) -> Estimate:
    """B_simple with its interval, from estimates of tr Σ and |G|².

    The value is corrected for the bias of a ratio to second order; the interval is that of a
    log-normal. A sum that lies within its error of 0, at this confidence, leaves a one-sided bound.

    Parameters
    ----------
    trace, signal : estimates of tr Σ and |G|².
    covariance : of the two.
    confidence : between 0 and 1.
    names : of numerator and denominator, for reasons.
    """
    width = quantile_of_normal(confidence)
    if not np.isfinite([trace, signal, *covariance]).all():
        return Estimate.unresolved(
            f"{names[0]} is {trace}, {names[1]} is {signal}; they or their errors are not finite"
        )
    trace_error = width * math.sqrt(covariance.variance_of_trace)
    signal_error = width * math.sqrt(covariance.variance_of_signal)
    if signal <= signal_error:
        reason = f"{names[1]} is {signal:.3g} ± {signal_error:.3g}: it cannot be told from 0"
        if signal + signal_error <= 0:
            return Estimate.unresolved(reason)
        return Estimate.at_least((trace - trace_error) / (signal + signal_error), reason)
    if trace <= trace_error:
        reason = f"{names[0]} is {trace:.3g} ± {trace_error:.3g}: it cannot be told from 0"
        return Estimate.at_most((trace + trace_error) / (signal - signal_error), reason)
    of_trace = covariance.variance_of_trace / trace**2
    of_signal = covariance.variance_of_signal / signal**2
    of_both = covariance.covariance / (trace * signal)
    # The squares cannot cancel below 0 but for rounding.
    factor = math.exp(width * math.sqrt(max(of_trace + of_signal - 2 * of_both, 0)))
    ratio = trace / signal
    bias = 1 + of_signal - of_both
    return Estimate.resolved(ratio / bias, ratio / factor, ratio * factor)


# ---------------------------------------------------------------------------------------------
# Normal gradients


def normal_covariance(
    trace_of_square: float, variance_along_gradient: float, n: int, block_size: int = 1
) -> NoiseCovariance:
    """Sampling errors of tr Σ and |G|² from n examples with normal gradients, in blocks.

    For blocks of b examples, m = n / b of them: Var tr Σ = 2 tr Σ² / (m - 1), Var |G|² =
    4 GᵀΣG / n + 2 tr Σ² / n² · m / (m - 1), and their covariance is -Var tr Σ / n. So single
    examples, b = 1, tell tr Σ best, and |G|² is hardly the worse for larger blocks.

    Parameters
    ----------
    trace_of_square : tr Σ².
    variance_along_gradient : GᵀΣG.
    n : examples, a multiple of the block size.
    block_size : b, of the smaller of two batch sizes; the larger one is n.

    Raises
    ------
    ValueError
        If there are less than two blocks, or parts of one.
    """
    blocks, rest = divmod(n, block_size)
    if rest or blocks < 2:
        raise ValueError(
            f"{n} examples in blocks of {block_size}: there must be at least two whole blocks"
        )
    of_trace = 2 * trace_of_square / (blocks - 1)
    of_signal = 4 * variance_along_gradient / n
    of_signal += 2 * trace_of_square / n**2 * blocks / (blocks - 1)
    return NoiseCovariance(of_trace, of_signal, -of_trace / n)


def trace_of_squared_covariance(gram: np.ndarray) -> float:
    """tr Σ² from the inner products of some gradients, without bias whatever their distribution.

    The sum of squares of a sample covariance would be too large by (tr Σ)² / n, which is most of it
    where there are more parameters than examples. Products of different examples are not.

    Parameters
    ----------
    gram : (n, n), g_i · g_j, n at least 4.

    Raises
    ------
    ValueError
        If the matrix is not square, or too small.

    Source: Chen, Zhang, Zhong 2010, JASA 105(490), equation 2.2 (T2n of section 2).
    """
    n = len(gram)
    if gram.shape != (n, n) or n < 4:
        raise ValueError(f"the Gram matrix has shape {gram.shape}; it must be square, from 4 rows")
    # Nothing below changes if all gradients move; centred ones cancel least.
    rows = gram.mean(axis=1)
    products = gram - rows[:, None] - rows + rows.mean()
    np.fill_diagonal(products, 0)
    # Sums over ordered pairs, triples and quadruples of different examples.
    pairs = float(np.sum(products**2))
    triples = float(np.sum(products.sum(axis=1) ** 2)) - pairs
    quadruples = float(products.sum()) ** 2 - 4 * triples - 2 * pairs
    return (
        pairs / (n * (n - 1))
        - 2 * triples / (n * (n - 1) * (n - 2))
        + quadruples / (n * (n - 1) * (n - 2) * (n - 3))
    )


def noise_scale_of_examples(
    squared_norms: np.ndarray,
    projections: np.ndarray,
    trace_of_square: float,
    confidence: float = 0.95,
) -> Estimate:
    """B_simple of the source of n examples, with an interval for normal gradients.

    Parameters
    ----------
    squared_norms : (n,), |g_i|².
    projections : (n,), g_i · Ĝ with their mean gradient Ĝ, so that |Ĝ|² is their mean.
    trace_of_square : tr Σ², from these examples or some of them.
    confidence : between 0 and 1.
    """
    n = len(squared_norms)
    noise = noise_of_examples(
        float(np.mean(squared_norms)), float(np.mean(projections)), n, "population"
    )
    # Along Ĝ, which holds the noise of n examples itself, gradients scatter by tr Σ² / n more.
    along = max(float(np.var(projections, ddof=1)) - trace_of_square / n, 0.0)
    covariance = normal_covariance(max(trace_of_square, 0.0), along, n)
    return ratio_estimate(noise.trace, noise.squared_gradient, covariance, confidence)


# ---------------------------------------------------------------------------------------------
# Jackknife


def jackknife_noise_scale(
    sizes: np.ndarray,
    mean_squared_norms: np.ndarray,
    squared_norms_of_means: np.ndarray,
    projections: np.ndarray,
    confidence: float = 0.95,
) -> Estimate:
    """B_simple with an interval from leaving out one block of examples after the other.

    Parameters
    ----------
    sizes : (m,), examples in each of at least 3 blocks; about equal.
    mean_squared_norms : (m,), mean of |g_i|² over each block.
    squared_norms_of_means : (m,), |g_b|² of each block's mean gradient.
    projections : (m,), g_b · Ĝ with the mean gradient of all examples.
    confidence : between 0 and 1.

    Raises
    ------
    ValueError
        If there are fewer than 3 blocks.

    Source: Efron & Stein 1981, Annals of Statistics 9(3); Künsch 1989, section 2, for blocks.
    """
    sizes = np.asarray(sizes, np.float64)
    blocks, n = len(sizes), sizes.sum()
    if blocks < 3:
        raise ValueError(f"there are {blocks} blocks; a jackknife takes at least 3")
    squares = sizes @ mean_squared_norms
    squared_mean = sizes @ projections / n
    rest = n - sizes
    # |n Ĝ - n_b g_b|², from inner products alone.
    squared_rest = n**2 * squared_mean - 2 * n * sizes * projections
    squared_rest = (squared_rest + sizes**2 * squared_norms_of_means) / rest**2
    left_out = noise_of_examples(
        (squares - sizes * mean_squared_norms) / rest, squared_rest, rest, "population"
    )
    pairs = np.column_stack([left_out.trace, left_out.squared_gradient])
    deviations = pairs - pairs.mean(axis=0)
    scatter = (blocks - 1) / blocks * deviations.T @ deviations
    covariance = NoiseCovariance(float(scatter[0, 0]), float(scatter[1, 1]), float(scatter[0, 1]))
    whole = noise_of_examples(squares / n, squared_mean, int(n), "population")
    return ratio_estimate(whole.trace, whole.squared_gradient, covariance, confidence)
