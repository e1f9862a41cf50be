"""Where gradient descent is held: sharpness, batch sharpness and 2 over the step.

The network of the literature on the edge of stability (tanh, linear outputs, half the squared
error, no biases), with its exact Hessian. Everything is float64 and NumPy: this loss is not one of
those that `minibutter.nn` trains.

Sources: Cohen et al. 2021, arXiv:2103.00065, for the whole data set; Andreyev & Beneventano 2024,
*Edge of stochastic stability*, arXiv:2412.20553, for batches: what is held at 2 / ε there is the
curvature of a batch along its own gradient, and the sharpness of the whole data lies below.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minibutter.nn.lanczos import Eigenpairs, largest_eigenpairs
from minibutter.studies.instability.thresholds import largest_stable_step

OVERFLOW = 1e6
"""Weights begin of order 1/10 and stay below 10; from here on none comes back."""


class TanhNetwork:
    """196-64-64-10, from N(0, 1 / fan_in); half the squared error, summed over the outputs.

    Parameters
    ----------
    x, y : (n, n_inputs) and (n, n_outputs).
    width : units of both hidden layers.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, width: int = 64) -> None:
        self.x, self.y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        sizes = (x.shape[1], width, width, y.shape[1])
        self.shapes = tuple(pairwise(sizes))
        self._cuts = np.cumsum([a * b for a, b in self.shapes])
        self.num_parameters = int(self._cuts[-1])

    def first_weights(self, rng: np.random.Generator) -> np.ndarray:
        """(P,), drawn layer by layer."""
        return np.concatenate([rng.standard_normal(a * b) / np.sqrt(a) for a, b in self.shapes])

    def _matrices(self, vector: np.ndarray) -> list[np.ndarray]:
        parts = np.split(vector, self._cuts[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def loss_and_gradient(
        self, vector: np.ndarray, rows: np.ndarray | slice = slice(None)
    ) -> tuple[float, np.ndarray]:
        """Mean loss of some rows, and its gradient (P,)."""
        w1, w2, w3 = self._matrices(vector)
        x, y = self.x[rows], self.y[rows]
        a = np.tanh(x @ w1)
        b = np.tanh(a @ w2)
        residual = b @ w3 - y
        error = residual / len(x)
        db = error @ w3.T * (1 - b * b)
        da = db @ w2.T * (1 - a * a)
        parts = (x.T @ da, a.T @ db, b.T @ error)
        loss = float(np.sum(residual * error)) / 2
        return loss, np.concatenate([part.ravel() for part in parts])

    def hessian_product(
        self, vector: np.ndarray, direction: np.ndarray, rows: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """Hessian of that loss times a direction, both (P,), exactly (Pearlmutter 1994)."""
        w1, w2, w3 = self._matrices(vector)
        v1, v2, v3 = self._matrices(direction)
        x, y = self.x[rows], self.y[rows]
        a = np.tanh(x @ w1)
        b = np.tanh(a @ w2)
        slope_a, slope_b = 1 - a * a, 1 - b * b
        error = (b @ w3 - y) / len(x)
        ra = slope_a * (x @ v1)
        rb = slope_b * (ra @ w2 + a @ v2)
        rerror = (rb @ w3 + b @ v3) / len(x)
        db, rdb = error @ w3.T, rerror @ w3.T + error @ v3.T
        dz2, rdz2 = db * slope_b, rdb * slope_b - 2 * db * b * rb
        da, rda = dz2 @ w2.T, rdz2 @ w2.T + dz2 @ v2.T
        rdz1 = rda * slope_a - 2 * da * a * ra
        parts = (x.T @ rdz1, ra.T @ dz2 + a.T @ rdz2, rb.T @ error + b.T @ rerror)
        return np.concatenate([part.ravel() for part in parts])

    def sharpness(
        self, vector: np.ndarray, rng: np.random.Generator, start: np.ndarray | None = None
    ) -> Eigenpairs:
        """Largest eigenvalue of the Hessian of all rows, with a warm start."""
        return largest_eigenpairs(
            lambda direction: self.hessian_product(vector, direction),
            *(vector.size,),
            rng=rng,
            start=start,
            tolerance=1e-4,
            max_steps=100,
        )

    def along_gradient(
        self, vector: np.ndarray, gradient: np.ndarray, rows: np.ndarray | slice
    ) -> tuple[float, float]:
        """gᵀ H g and |g|² of the gradient (P,) of these rows, with their own Hessian."""
        product = self.hessian_product(vector, gradient, rows)
        return float(gradient @ product), float(gradient @ gradient)


@dataclass(frozen=True)
class BatchSharpness:
    """Curvature of batches along their own gradients.

    Attributes
    ----------
    value : E[gᵀ H g / |g|²] over batches, each with its own g and H; None where all rows are the
        batch, and before the first step.
    error : standard error of this mean, of batches as if they were independent.
    of_means : E[gᵀ H g] / E[|g|²], in which batches with large gradients count more. It is 2 / ε
        where a step on a batch leaves the loss of that batch as it is, on average, to second order.
    """

    value: float | None = None
    error: float | None = None
    of_means: float | None = None


def mean_sharpness(products: np.ndarray) -> BatchSharpness:
    """From gᵀ H g and |g|² of every batch, (n, 2)."""
    along, squares = products.T
    ratios = along / squares
    error = ratios.std(ddof=1) / np.sqrt(len(ratios))
    return BatchSharpness(float(ratios.mean()), float(error), float(along.sum() / squares.sum()))


@dataclass(frozen=True)
class Point:
    """One look at a training.

    Attributes
    ----------
    step : done so far.
    learning_rate : of the steps since the last look.
    loss : of all rows.
    sharpness : largest eigenvalue of the Hessian of all rows; that of the decay not included.
    batches : curvature of the batches of the steps since the last look, each where it was stepped
        from: it differs by a factor of two between single points of a training that oscillates.
    """

    step: int
    learning_rate: float
    loss: float
    sharpness: float
    batches: BatchSharpness


def descend(
    network: TanhNetwork,
    learning_rate: float,
    steps: int,
    every: int,
    rng: np.random.Generator,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    decay: float = 0.0,
    batch_size: int | None = None,
    growth: float = 1.0,
    n_batches: int = 200,
) -> Iterator[Point]:
    """Train, and look every so many steps; it ends early where it diverges.

    Parameters
    ----------
    learning_rate, steps, momentum, nesterov, decay : of SGD in PyTorch's form.
    every : steps between two looks, the first before any.
    rng : of first weights, batches and eigenvalues.
    batch_size : rows of a step, without replacement within an epoch; None: all.
    growth : factor of the learning rate after every look but the first. Steps that grow press a
        training against its edge, which a smaller one need not come to.
    n_batches : of the mean of the batch sharpness, at the least, where there are so many steps.
    """
    # Streams of their own: how often anybody looks must not change what is seen.
    of_weights, of_orders, of_looks = rng.spawn(3)
    vector = network.first_weights(of_weights)
    n_rows = len(network.x)
    velocity, found, order = np.zeros_like(vector), None, np.empty(0, int)
    products: list[tuple[float, float]] = []
    for step in range(steps + 1):
        if step % every == 0:
            loss, _ = network.loss_and_gradient(vector)
            found = network.sharpness(vector, of_looks, None if found is None else found.vectors)
            of_batches = mean_sharpness(np.array(products)) if products else BatchSharpness()
            yield Point(step, learning_rate, loss, float(found.values[0]), of_batches)
            products.clear()
            if step > 0:
                learning_rate *= growth
        if batch_size is None:
            rows: np.ndarray | slice = slice(None)
        else:
            if len(order) < batch_size:
                order = of_orders.permutation(n_rows)
            rows, order = order[:batch_size], order[batch_size:]
        _, gradient = network.loss_and_gradient(vector, rows)
        if batch_size is not None and step % max(every // n_batches, 1) == 0:
            products.append(network.along_gradient(vector, gradient, rows))
        gradient = gradient + decay * vector
        velocity = momentum * velocity + gradient
        vector = vector - learning_rate * (gradient + momentum * velocity if nesterov else velocity)
        if not np.abs(vector).max() < OVERFLOW:
            return


def threshold(
    learning_rate: float, momentum: float = 0.0, *, nesterov: bool = False, decay: float = 0.0
) -> float:
    """Sharpness, without the decay's part, from which on this rule does not settle."""
    return largest_stable_step(1.0, momentum, nesterov=nesterov) / learning_rate - decay
