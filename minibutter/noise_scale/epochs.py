"""The noise scale of an epoch: averages over its steps, and how far their ratio can be trusted.

A single step's |G|² may be negative and the mean of ratios is no ratio of means (footnote 12), so
the steps are averaged first, each with its weight, and divided then.
"""

import numpy as np
from scipy.special import stdtrit

from minibutter.estimate import Estimate, quantile_of_normal
from minibutter.noise_scale.estimators import GradientNoise
from minibutter.noise_scale.intervals import NoiseCovariance, ratio_estimate

_EXACT = NoiseCovariance(0.0, 0.0, 0.0)


def noise_of_epoch(
    squared_gradients: np.ndarray,
    traces: np.ndarray,
    weights: np.ndarray,
    is_exact: bool = False,
    confidence: float = 0.95,
) -> tuple[GradientNoise, Estimate]:
    """Average signal and noise of an epoch, and B_simple with its interval.

    The interval comes from how much neighbouring steps differ and not from the scatter of all, as
    it is no error that |G|² changes from the first step to the last. It is wide: batches that are
    drawn without replacement hold every row once, and taken together err less than one by one.

    Parameters
    ----------
    squared_gradients, traces : (steps,), |G|² and tr Σ of the steps, unbiased.
    weights : (steps,), not negative; steps of weight 0 do not count.
    is_exact : whether nothing was drawn, so that the averages have no error.
    confidence : between 0 and 1.

    Source: von Neumann et al. 1941, Annals of Mathematical Statistics 12(2), for the variance.
    """
    counts = weights > 0
    pairs = np.column_stack([traces, squared_gradients])[counts].astype(np.float64)
    weights = weights[counts]
    if not len(pairs):
        reason = "no batch has two parts that could be compared"
        return GradientNoise(np.nan, np.nan, "population"), Estimate.unresolved(reason)
    # Elementwise, as a product of matrices has an order of summation of its own.
    trace, signal = (pairs * weights[:, None]).sum(axis=0) / weights.sum()
    noise = GradientNoise(float(signal), float(trace), "population")
    if is_exact:
        return noise, ratio_estimate(noise.trace, noise.squared_gradient, _EXACT, confidence)
    n_differences = len(pairs) - 1
    if n_differences < 2:
        reason = f"there are {len(pairs)} steps; an interval takes three"
        return noise, Estimate.unresolved(reason)
    covariance = _covariance(pairs, weights)
    # As many degrees of freedom as give a χ² the variance of these squares, if normal.
    freedom = 2 * n_differences**2 / (3 * n_differences - 1)
    wider = stdtrit(freedom, (1 + confidence) / 2) / quantile_of_normal(confidence)
    covariance = NoiseCovariance(*(float(each * wider**2) for each in covariance))
    return noise, ratio_estimate(noise.trace, noise.squared_gradient, covariance, confidence)


def _covariance(pairs: np.ndarray, weights: np.ndarray) -> NoiseCovariance:
    """Of the weighted averages of pairs (steps, 2) whose variances are one over their weights."""
    differences = np.diff(pairs, axis=0)
    scaled = differences / np.sqrt(1 / weights[1:] + 1 / weights[:-1])[:, None]
    of_one = (scaled[:, :, None] * scaled[:, None, :]).mean(axis=0)
    of_mean = of_one / weights.sum()
    return NoiseCovariance(of_mean[0, 0], of_mean[1, 1], of_mean[0, 1])
