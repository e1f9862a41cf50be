"""The largest step at which gradient descent settles: 2 over the curvature, and with momentum.

On a quadratic loss of curvature λ each rule is a linear recurrence, stable as long as its roots
stay within the unit circle; the first to leave does so at -1. Source for the momenta: Cohen et al.
2021, *Gradient descent on neural networks typically occurs at the edge of stability*,
arXiv:2103.00065, section 2 and appendix B.
"""


def largest_stable_step(
    curvature: float, momentum: float = 0.0, *, nesterov: bool = False, decay: float = 0.0
) -> float:
    """Step below which a direction of this curvature does not grow.

    2 (1 + μ) / λ with momentum, v ← μ v + g and θ ← θ - ε v. Nesterov's, as libraries have it,
    moves by g + μ v instead, and is stable to (2 + 2 μ) / (λ (1 + 2 μ)): less than without.

    Parameters
    ----------
    curvature : λ, with the decay added positive.
    momentum : μ, in [0, 1).
    nesterov : whether g + μ v is subtracted instead of v.
    decay : α of a weight decay that is part of the gradient, α θ; it adds to the curvature. A
        penalty l2 Σ w² has α = 2 l2.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be in [0, 1)")
    if not decay >= 0:
        raise ValueError(f"decay is {decay}; it must not be negative")
    if not curvature + decay > 0:
        raise ValueError(
            f"curvature and decay are {curvature} and {decay}; where their sum is not positive, "
            "any step lets the direction grow"
        )
    widened = (2 + 2 * momentum) / (1 + 2 * momentum) if nesterov else 2 * (1 + momentum)
    return widened / (curvature + decay)
