"""The critical batch size: what more examples a step save in steps.

Runs at many batch sizes B that reach the same goal in S steps lie on S = S_min (1 + B_crit / B), or
(S / S_min - 1) (E / E_min - 1) = 1 with E = B S examples (2.11, 2.12). The best step of a batch has
the same form upside down: 1 / ε_opt = (1 + B_noise / B) / ε_max (2.6). What is fitted are the
logarithms.
"""

from dataclasses import dataclass

import numpy as np

from minibutter.estimate import Estimate

_DECADES = 4  # that the search goes beyond the smallest and the largest batch size
_GRID = 400
_NEWTON_STEPS = 60


@dataclass(frozen=True)
class ParetoFit:
    """Steps against batch size at one goal.

    Attributes
    ----------
    critical_batch_size : B_crit = E_min / S_min.
    least_steps : S_min.
    least_examples : E_min.
    rms_log_residual : of the steps.
    """

    critical_batch_size: Estimate
    least_steps: Estimate
    least_examples: Estimate
    rms_log_residual: float


@dataclass(frozen=True)
class StepLawFit:
    """Best step against batch size at one point of training.

    Attributes
    ----------
    noise_scale : B_noise.
    largest_step : ε_max.
    rms_log_residual : of the steps.
    """

    noise_scale: Estimate
    largest_step: Estimate
    rms_log_residual: float


def fit_pareto(
    batch_sizes: np.ndarray,
    steps: np.ndarray,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> ParetoFit:
    """B_crit, S_min and E_min from the steps that runs took to one goal.

    Parameters
    ----------
    batch_sizes : (n,), at least 3 different ones; a size may stand there several times, with seeds.
    steps : (n,), positive.
    rng : draws the resamples.
    confidence : of the intervals.
    resamples : of the bootstrap.

    Raises
    ------
    ValueError
        If there are too few sizes, or a number is not positive and finite.
    """
    batch_sizes = np.asarray(batch_sizes, np.float64)
    fit = _Bootstrap(batch_sizes, np.asarray(steps, np.float64), rng, resamples)
    return ParetoFit(
        critical_batch_size=fit.estimate(fit.scales, confidence, "B_crit"),
        least_steps=fit.estimate(fit.leasts, confidence, "S_min"),
        least_examples=fit.estimate(fit.leasts * fit.scales, confidence, "E_min"),
        rms_log_residual=fit.rms_log_residual,
    )


def fit_step_law(
    batch_sizes: np.ndarray,
    best_steps: np.ndarray,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> StepLawFit:
    """B_noise and ε_max from the steps that lower the loss most, as `fit_pareto`."""
    with np.errstate(divide="ignore"):
        inverse = 1 / np.asarray(best_steps, np.float64)
    fit = _Bootstrap(np.asarray(batch_sizes, np.float64), inverse, rng, resamples)
    return StepLawFit(
        noise_scale=fit.estimate(fit.scales, confidence, "B_noise"),
        largest_step=fit.estimate(1 / fit.leasts, confidence, "ε_max"),
        rms_log_residual=fit.rms_log_residual,
    )


class _Bootstrap:
    """The fit to the values, and to resamples of its residuals.

    Residuals of logarithms are taken to be of one distribution at all batch sizes, and are grown by
    √(n / (n - 2)) for the two numbers that were fitted (Davison & Hinkley 1997, section 6.2.3).

    Attributes
    ----------
    scales, leasts : (1 + resamples,), B_0 and v_min, those of the values themselves first.
    """

    def __init__(
        self, batch_sizes: np.ndarray, values: np.ndarray, rng: np.random.Generator, resamples: int
    ) -> None:
        _check(batch_sizes, values)
        self._batch_sizes = batch_sizes
        logs = np.log(values)
        (least,), (scale,) = _fit(batch_sizes, logs[None])
        fitted = np.log(least) + np.log1p(scale / batch_sizes)
        residuals, n = logs - fitted, len(logs)
        self.rms_log_residual = float(np.sqrt(np.mean(residuals**2)))
        grown = residuals * np.sqrt(n / (n - 2))
        drawn = fitted + rng.choice(grown, (resamples, n))
        leasts, scales = _fit(batch_sizes, drawn)
        self.leasts, self.scales = np.append(least, leasts), np.append(scale, scales)

    def estimate(self, values: np.ndarray, confidence: float, name: str) -> Estimate:
        """Percentiles of the resamples; a fit that ran to the end of the search leaves it open."""
        low, high = np.quantile(values[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
        smallest, largest = self._batch_sizes.min(), self._batch_sizes.max()
        tails = np.quantile(self.scales[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
        is_flat = min(self.scales[0], tails[0]) <= smallest * 10.0 ** (1 - _DECADES)
        is_straight = max(self.scales[0], tails[1]) >= largest * 10.0 ** (_DECADES - 1)
        if not is_flat and not is_straight:
            return Estimate.resolved(values[0], low, high)
        if is_flat and is_straight:
            return Estimate.unresolved(f"{name}: the values do not tell how they depend on B")
        if is_flat:
            reason = f"{name}: no batch is small enough to cost more steps than the largest"
            is_scale = values is self.scales
            return Estimate.at_most(high, reason) if is_scale else Estimate.unresolved(reason)
        reason = f"{name}: the values still fall as 1 / B at the largest batch, {largest:g}"
        is_scale = values is self.scales
        return Estimate.at_least(low, reason) if is_scale else Estimate.unresolved(reason)


def _check(batch_sizes: np.ndarray, values: np.ndarray) -> None:
    if batch_sizes.ndim != 1 or batch_sizes.shape != values.shape:
        raise ValueError(
            f"shapes are {batch_sizes.shape} and {values.shape}; each batch size has one value"
        )
    for name, array in (("a batch size", batch_sizes), ("a value", values)):
        if not np.all((array > 0) & np.isfinite(array)):
            raise ValueError(f"{name} is not positive and finite: leave runs without a result out")
    if len(np.unique(batch_sizes)) < 3:
        raise ValueError("there are fewer than 3 different batch sizes; two fit any hyperbola")


def _fit(batch_sizes: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """v_min and B_0 (resamples,) that fit logs (resamples, n) of values best.

    At a given B_0 the best log v_min is a mean, so that one number is left: the best of a grid,
    then Gauss-Newton steps.
    """
    low, high = np.log(batch_sizes.min()), np.log(batch_sizes.max())
    reach = _DECADES * np.log(10)
    grid = np.linspace(low - reach, high + reach, _GRID)
    curves = np.logaddexp(0, grid[:, None] - np.log(batch_sizes))  # log(1 + B_0 / B)
    curves -= curves.mean(axis=1, keepdims=True)
    centred = logs - logs.mean(axis=1, keepdims=True)
    # |centred - curve|² without the part that no B_0 changes.
    misfit = np.sum(curves**2, axis=1) - 2 * centred @ curves.T
    log_scale = grid[np.argmin(misfit, axis=1)]
    nearest = (grid[1] - grid[0]) * 2
    bounds = log_scale - nearest, log_scale + nearest
    for _ in range(_NEWTON_STEPS):
        ratios = np.exp(log_scale[:, None] - np.log(batch_sizes))
        curve, slope = np.log1p(ratios), ratios / (1 + ratios)
        slope = slope - slope.mean(axis=1, keepdims=True)
        residual = centred - (curve - curve.mean(axis=1, keepdims=True))
        squares = np.maximum(np.sum(slope**2, axis=1), np.finfo(float).tiny)
        before = log_scale
        log_scale = np.clip(before + np.sum(residual * slope, axis=1) / squares, *bounds)
        if np.abs(log_scale - before).max() < 1e-14:
            break
    log_scale = np.clip(log_scale, grid[0], grid[-1])
    scale = np.exp(log_scale)
    least = np.exp(np.mean(logs - np.log1p(scale[:, None] / batch_sizes), axis=1))
    return least, scale
