"""Three systems, small enough for a pencil, in which every kind of instability can be seen.

heat equation       the classical one: forward Euler beyond its step blows up everywhere.
two scalar weights  an edge of stability: beyond 2 over the curvature the weights move to where the
                    curvature is less, and settle; with no such place they oscillate without end.
one-layer network   a convolution with Swish: locally unstable, globally held back ("restrained") in
                    a whole band of steps. Rounding errors grow there to the size of the weights.

Sources: Sun, Gong, Lao, Sundaramoorthi et al. 2022, *Surprising instabilities in training deep
networks and a theoretical analysis*, arXiv:2206.02001; Lewkowycz et al. 2020, *The large learning
rate phase of deep learning: the catapult mechanism*, arXiv:2003.02218, for the second.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Behaviour = Literal["settled", "restrained", "blown up"]
"""Settled: at rest. Blown up: without a bound, or not a number. Restrained: neither."""

OVERFLOW = 1e12
"""Numbers of these systems begin of order 1 to 10,000; from here on none comes back."""


def classify(tail: np.ndarray, tolerance: float = 1e-6) -> Behaviour:
    """What a quantity of a run does in the end.

    Parameters
    ----------
    tail : (n,), its last values, of many steps.
    tolerance : spread, in units of its size, below which it is at rest.
    """
    if not np.isfinite(tail).all() or np.abs(tail).max() > OVERFLOW:
        return "blown up"
    spread = tail.max() - tail.min()
    return "settled" if spread <= tolerance * max(np.abs(tail).max(), 1e-300) else "restrained"


# ---------------------------------------------------------------------------------------------
# The heat equation


def heat_steps(dt: float, steps: int, u: np.ndarray) -> np.ndarray:
    """Forward Euler on u_t = u_xx with distance 1 between points and fixed ends.

    The sawtooth is multiplied by 1 - 4 dt, nearly, in every step: stable for dt <= 1/2.

    Parameters
    ----------
    dt : step.
    steps : how many.
    u : (n,), at the start.

    Returns
    -------
    (steps + 1,), the largest |u| after every step, the start first; fewer where it overflows.
    """
    u = np.array(u, np.float64)
    largest = [np.abs(u).max()]
    for _ in range(steps):
        u[1:-1] = u[1:-1] + dt * (u[2:] - 2 * u[1:-1] + u[:-2])
        largest.append(np.abs(u).max())
        if not largest[-1] < OVERFLOW:
            break
    return np.array(largest)


# ---------------------------------------------------------------------------------------------
# Two scalar weights


@dataclass(frozen=True)
class ScalarRun:
    """Gradient descent on (u v - y)² / 2.

    Attributes
    ----------
    u, v : (steps + 1,).
    """

    u: np.ndarray
    v: np.ndarray

    @property
    def output(self) -> np.ndarray:
        """u v, (steps + 1,)."""
        return self.u * self.v

    @property
    def sharpness(self) -> np.ndarray:
        """u² + v², (steps + 1,): at a minimum the only curvature that is not 0, at least 2 |y|."""
        return self.u**2 + self.v**2


def train_two_scalars(u: float, v: float, step: float, steps: int, y: float = 1.0) -> ScalarRun:
    """The smallest network with two layers; it stops early where it overflows.

    It can settle only where u² + v² < 2 / ε, and nowhere unless ε < 1 / |y|.

    Parameters
    ----------
    u, v : weights at the start.
    step : ε.
    steps : how many.
    y : target of the input 1.
    """
    path = [(u, v)]
    for _ in range(steps):
        error = u * v - y
        u, v = u - step * error * v, v - step * error * u
        path.append((u, v))
        if not max(abs(u), abs(v)) < OVERFLOW:
            break
    us, vs = np.array(path).T
    return ScalarRun(us, vs)


# ---------------------------------------------------------------------------------------------
# A convolution of one layer


@dataclass(frozen=True)
class OneLayerNetwork:
    """One kernel on a chessboard image of ±1: convolution, Swish, mean of pixels, sigmoid, BCE.

    All patches of the image are v or -v with |v|² = d, so that the loss sees the kernel K through
    u = v · K alone; what is orthogonal to v only decays. No convolution is left:
    f(u) = Σ_± share_± swish(± u), K' = -(σ(f) - y) f'(u) v - α K.

    Attributes
    ----------
    squared_patch : d, pixels of a patch.
    share : of the patches that are +v.
    decay : α, of the penalty α |K|² / 2.
    sharpness : β of swish(z) = z σ(β z).
    """

    squared_patch: int = 1024
    share: float = 25313 / 50625
    decay: float = 20.0
    sharpness: float = 1.0

    def output(self, u: np.ndarray | float) -> np.ndarray | float:
        """f(u), the logit of label 1."""
        beta = self.sharpness
        return self.share * u * _sigmoid(beta * u) - (1 - self.share) * u * _sigmoid(-beta * u)

    def slope(self, u: np.ndarray | float) -> np.ndarray | float:
        """f'(u)."""
        return self.share * self._swish_slope(u) - (1 - self.share) * self._swish_slope(-u)

    def _swish_slope(self, z: np.ndarray | float) -> np.ndarray | float:
        gate = _sigmoid(self.sharpness * z)
        return gate + self.sharpness * z * gate * (1 - gate)

    def loss(self, kernels: np.ndarray) -> np.ndarray:
        """Cross-entropy of label 1 and penalty, (...).

        Parameters
        ----------
        kernels : (..., 2): K along v / |v|, and the length of what is orthogonal to it.
        """
        u = kernels[..., 0] * np.sqrt(self.squared_patch)
        squares = np.sum(kernels**2, axis=-1)
        return np.logaddexp(0, -self.output(u)) + self.decay / 2 * squares

    def force(self, u: np.ndarray | float) -> np.ndarray | float:
        """-du/dt of gradient flow, without the orthogonal part: (σ(f) - 1) f'(u) d + α u."""
        pull = (_sigmoid(self.output(u)) - 1) * self.slope(u) * self.squared_patch
        return pull + self.decay * u

    def stiffness(self, u: float, h: float = 1e-5) -> float:
        """J = d force / du; gradient descent leaves u where step > 2 / J, or J < 0."""
        return float((self.force(u + h) - self.force(u - h)) / (2 * h))

    def fixed_point(self) -> float:
        """The u > 0 where the force is 0, by bisection.

        Raises
        ------
        ValueError
            If there is none: the decay pulls everything to 0.
        """
        low, high = 1e-3, 1e3
        if not self.force(low) < 0 < self.force(high):
            raise ValueError(f"with decay {self.decay} the only fixed point is 0")
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self.force(middle) < 0 else (low, middle)
        return (low + high) / 2

    def restrained_band(self) -> tuple[float, float]:
        """Steps between which the network is locally unstable and does not blow up: 2/J to 2/α."""
        return 2 / self.stiffness(self.fixed_point()), 2 / self.decay

    def train(
        self, kernel: np.ndarray, step: float, steps: int, perturbation: int = 1
    ) -> np.ndarray:
        """Gradient descent; kernels (steps + 1, 2) as `loss` takes them, fewer where it overflows.

        Parameters
        ----------
        kernel : (2,), at the start.
        step, steps : size and number.
        perturbation : k; the update is made as (k ε) (g / k), which is the same but for rounding,
            and has the same bits where k is a power of two.
        """
        root = np.sqrt(self.squared_patch)
        path = [np.array(kernel, np.float64)]
        for _ in range(steps):
            along, rest = path[-1]
            gradient = np.array([self.force(along * root) / root, self.decay * rest])
            path.append(path[-1] - (perturbation * step) * (gradient / perturbation))
            if not np.abs(path[-1]).max() < OVERFLOW:
                break
        return np.array(path)


def linear_amplification(
    dt: float, decay: float, slope: float, eigenvalues: np.ndarray
) -> np.ndarray:
    """Factors by which one step multiplies the modes of the network linearised where u is near 0.

    There dK/dt = -(a/2) (Ī + β PᵀP K) - α K, with the patches P and their sum Ī: the factor of a
    mode is 1 - dt (α + a β λ / 2), at a < 0 larger than 1 unless α exceeds -a β λ / 2 (table 3).

    Parameters
    ----------
    dt : step.
    decay : α.
    slope : a β: a is σ - y, the slope of the loss, -1/2 where the logit is 0 and y is 1.
    eigenvalues : (n,), λ of PᵀP.
    """
    return 1 - dt * (decay + slope / 2 * np.asarray(eigenvalues))


def _sigmoid(z: np.ndarray | float) -> np.ndarray | float:
    """1 / (1 + e^-z) without overflow."""
    return (1 + np.tanh(np.asarray(z) / 2)) / 2
