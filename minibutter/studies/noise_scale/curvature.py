"""The noise scale that knows the curvature, from products with the Hessian.

B_noise = tr(HΣ) / GᵀHG (2.8) needs the curvature along the gradients of single examples. Each costs
one product, so some examples stand for all. The convention is the empirical one: the examples of
the Hessian are all there are.
"""

from typing import NamedTuple

import numpy as np

from minibutter.estimate import Estimate
from minibutter.nn.curvature import Hessian
from minibutter.noise_scale.intervals import NoiseCovariance, ratio_estimate


class CurvatureOfNoise(NamedTuple):
    """Slope, and curvature along the gradient and along the noise."""

    squared_gradient: float  # |G|²
    curvature: float  # GᵀHG
    curvature_of_noise: float  # tr(HΣ)
    standard_error: float  # of tr(HΣ), as only some examples were looked at


def measure_curvature_of_noise(
    hessian: Hessian, rng: np.random.Generator, examples: int = 100
) -> CurvatureOfNoise:
    """GᵀHG exactly, and tr(HΣ) as the mean of (g_i - G)ᵀH(g_i - G) over some examples.

    Centring each gradient keeps what they have in common out of the sampling error. G is the
    gradient of what is trained, penalty included.

    Parameters
    ----------
    hessian : at the point, of all n examples.
    rng : draws the examples, none twice.
    examples : how many, 2 to n; with n the trace is exact.

    Raises
    ------
    ValueError
        If there are not so many examples.
    """
    n = hessian.n
    if not 2 <= examples <= n:
        raise ValueError(f"examples is {examples}; it must be between 2 and the {n} that there are")
    gradient = hessian.gradient
    along = []
    for row in rng.choice(n, examples, replace=False):
        weights = np.full(n, -1 / n)
        weights[row] += 1
        centred = hessian.weighted_gradient(weights)
        along.append(float(centred @ hessian.product(centred)))
    error = np.std(along, ddof=1) * np.sqrt((1 - examples / n) / examples)
    return CurvatureOfNoise(
        squared_gradient=float(gradient @ gradient),
        curvature=float(gradient @ hessian.product(gradient)),
        curvature_of_noise=float(np.mean(along)),
        standard_error=float(error),
    )


def measure_curvature_of_noise_by_signs(
    hessian: Hessian, rng: np.random.Generator, probes: int = 24
) -> CurvatureOfNoise:
    """The same with tr(HΣ) as the mean of vᵀHv over random directions v of covariance Σ.

    v = Σ_i s_i (g_i - G) / √n with random signs s_i holds all examples. That is the better choice
    late in training, where a few examples have most of the noise and a sample may miss them
    (Hutchinson 1990; Girard 1989).

    Parameters
    ----------
    hessian : at the point, of all n examples.
    rng : draws the signs.
    probes : how many directions, at least 2; each costs one product.

    Raises
    ------
    ValueError
        If there are fewer than 2 probes.
    """
    if probes < 2:
        raise ValueError(f"probes is {probes}; an error takes at least 2")
    n, gradient = hessian.n, hessian.gradient
    along = []
    for _ in range(probes):
        signs = rng.integers(0, 2, n) * 2.0 - 1
        direction = hessian.weighted_gradient((signs - signs.mean()) / np.sqrt(n))
        along.append(float(direction @ hessian.product(direction)))
    return CurvatureOfNoise(
        squared_gradient=float(gradient @ gradient),
        curvature=float(gradient @ hessian.product(gradient)),
        curvature_of_noise=float(np.mean(along)),
        standard_error=float(np.std(along, ddof=1) / np.sqrt(probes)),
    )


def curvature_noise_scale(measured: CurvatureOfNoise, confidence: float = 0.95) -> Estimate:
    """B_noise with the interval that comes from looking at some examples only."""
    covariance = NoiseCovariance(measured.standard_error**2, 0.0, 0.0)
    if measured.curvature <= 0:
        return Estimate.unresolved(
            f"GᵀHG is {measured.curvature:.3g}: the loss does not curve up along its gradient"
        )
    return ratio_estimate(
        *(measured.curvature_of_noise, measured.curvature, covariance, confidence),
        names=("tr(HΣ)", "GᵀHG"),
    )
