"""What a step of gradient descent gains, on a loss that is quadratic within the step.

With G the gradient, H the Hessian, Σ the covariance of single examples' gradients and a batch of B
examples, E L(θ - ε g) = L - ε |G|² + ε²/2 (GᵀHG + tr(HΣ) / B) (2.5).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_discrete_lyapunov


@dataclass(frozen=True)
class LocalModel:
    """Slope, curvature and noise of a loss at a point.

    Attributes
    ----------
    squared_gradient : |G|².
    curvature : GᵀHG, positive.
    curvature_of_noise : tr(HΣ).
    """

    squared_gradient: float
    curvature: float
    curvature_of_noise: float

    def __post_init__(self) -> None:
        if not self.curvature > 0 or not self.squared_gradient > 0:
            raise ValueError(
                f"|G|² is {self.squared_gradient} and GᵀHG is {self.curvature}; the loss has a "
                "best step only where both are positive"
            )

    @property
    def noise_scale(self) -> float:
        """B_noise = tr(HΣ) / GᵀHG (2.8)."""
        return self.curvature_of_noise / self.curvature

    @property
    def largest_optimal_step(self) -> float:
        """ε_max = |G|² / GᵀHG, the best step of the whole gradient."""
        return self.squared_gradient / self.curvature

    @property
    def largest_gain(self) -> float:
        """ΔL_max = |G|⁴ / (2 GᵀHG)."""
        return self.squared_gradient**2 / (2 * self.curvature)

    def optimal_step(self, batch_size: float) -> float:
        """ε_opt(B) = ε_max / (1 + B_noise / B) (2.6); twice as long a step gains nothing."""
        return self.largest_optimal_step / (1 + self.noise_scale / batch_size)

    def optimal_gain(self, batch_size: float) -> float:
        """ΔL_opt(B) = ΔL_max / (1 + B_noise / B) (2.7)."""
        return self.largest_gain / (1 + self.noise_scale / batch_size)

    def gain(self, step: float, batch_size: float) -> float:
        """By how much a step lowers the loss in the mean (2.5)."""
        curved = self.curvature + self.curvature_of_noise / batch_size
        return step * self.squared_gradient - step**2 / 2 * curved


class NoiseScales(NamedTuple):
    """B_simple and B_noise."""

    simple: float
    noise: float


def equilibrium_noise_scales(
    hessian: np.ndarray, covariance: np.ndarray, batch_size: float, step: float
) -> NoiseScales:
    """Noise scales where gradient descent on a quadratic loss has settled, for small steps.

    B_simple = (2B/ε) tr Σ / tr(HΣ) and B_noise = (2B/ε) tr(HΣ) / tr(H²Σ). The paper prints H²Σ over
    tr Σ and H³Σ over tr(HΣ), which are not numbers without a dimension; these follow from its own
    equation for the stationary covariance M of the parameters, MH + HM = (ε/B) Σ, with
    |G|² = tr(H²M) and GᵀHG = tr(H³M) (appendix C). With momentum μ, ε is ε / (1 - μ).

    Parameters
    ----------
    hessian : (d, d), positive definite.
    covariance : (d, d), Σ, the same everywhere.
    batch_size : B.
    step : ε; far below 2 over the largest curvature.
    """
    noise = np.trace(covariance)
    curved, twice = np.trace(hessian @ covariance), np.trace(hessian @ hessian @ covariance)
    scale = 2 * batch_size / step
    return NoiseScales(float(scale * noise / curved), float(scale * curved / twice))


def stationary_noise_scales(
    hessian: np.ndarray, covariance: np.ndarray, batch_size: float, step: float
) -> NoiseScales:
    """The same for steps of any stable length: M = (1 - εH) M (1 - εH) + (ε²/B) Σ.

    Raises
    ------
    ValueError
        If the step is not below 2 over the largest curvature.
    """
    largest = float(np.linalg.eigvalsh(hessian)[-1])
    if not 0 < step < 2 / largest:
        raise ValueError(
            f"step is {step}; below {2 / largest:.6g}, 2 over the curvature, it would settle"
        )
    shrink = np.eye(len(hessian)) - step * hessian
    m = solve_discrete_lyapunov(shrink, step**2 / batch_size * covariance)
    simple = np.trace(covariance) / np.trace(hessian @ m @ hessian)
    noise = np.trace(hessian @ covariance) / np.trace(hessian @ m @ hessian @ hessian)
    return NoiseScales(float(simple), float(noise))
