"""Normalised noise scales, and what they predict.

SGD with learning rate ε and batches of B rows moves as dw/dt = -dL/dw + noise, in units of time
t = ε · steps; the noise has covariance g F(w) with F the covariance of single examples' gradients
and g the noise scale. L is the MEAN loss here and batches are drawn with replacement, so that
g = ε / B exactly. (Smith & Le, arXiv:1710.06451, take the sum over N examples, and have ε N / B;
that is N times ours.) Momentum m would make it ε / ((1 - m) B); the study has none.

Weights of scale s, w = s v, follow the same path in v with the learning rate ε / s²; so the noise
scale that does not depend on how weights are written is ḡ = g / s². Standard: s² = σ0² / n with n
the width, hence ḡ = ε n / (B σ0²). NTK: the trained V has s = 1, hence ḡ = ε / B. Park et al. 2019
(arXiv:1905.03776) find that the best ḡ is proportional to the width. At a fixed ε the best B then
falls as 1 / width in NTK, and does not change with the width in the standard parameterization.
"""

import numpy as np

PREDICTED_BATCH_SLOPE = {"ntk": -1.0, "standard": 0.0}
"""d log B_opt / d log width at a fixed learning rate."""

PREDICTED_RATE_SLOPE = {"ntk": 0.0, "standard": -1.0}
"""d log ε_max / d log width."""


def squared_scale(
    parameterization: str, width: int | np.ndarray, sigma0: float
) -> float | np.ndarray:
    """s² of the layers above a hidden one: variance of the numbers that are trained.

    Raises
    ------
    ValueError
        For a parameterization without a normalised noise scale here.
    """
    if parameterization == "ntk":
        return 1.0
    if parameterization == "standard":
        return sigma0**2 / width
    raise ValueError(
        f"parameterization is {parameterization!r}; noise scales are of standard and ntk"
    )


def normalised_noise(
    parameterization: str,
    width: int | np.ndarray,
    sigma0: float,
    learning_rate: float | np.ndarray,
    batch_size: float | np.ndarray,
) -> float | np.ndarray:
    """ḡ = ε / (B s²), for the mean loss."""
    return learning_rate / (batch_size * squared_scale(parameterization, width, sigma0))
