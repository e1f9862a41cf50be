"""The largest eigenvalues of a symmetric matrix of which only products are known.

Lanczos' recurrence with full reorthogonalisation: every new direction is made orthogonal to all
before it, twice, so that no eigenvalue appears as a ghost of another. The price is memory for all
directions. Source: Golub & Van Loan, *Matrix Computations* (4th edition, 2013), section 10.3;
Daniel, Gragg, Kaufman, Stewart 1976, Mathematics of Computation 30(136): twice is enough.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_RANDOM_PART = 0.01
"""Of a given start: what was an eigenvector may have lost its place to one orthogonal to it."""


@dataclass(frozen=True)
class Eigenpairs:
    """The k largest eigenvalues, the largest first.

    Attributes
    ----------
    values : (k,).
    vectors : (k, size), of length 1.
    residuals : (k,), |A v - λ v|: at least one eigenvalue lies within it of λ.
    steps : products with the matrix.
    is_converged : whether every residual is below the tolerance.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    steps: int
    is_converged: bool


def largest_eigenpairs(
    product: Callable[[np.ndarray], np.ndarray],
    size: int,
    k: int = 1,
    *,
    rng: np.random.Generator,
    start: np.ndarray | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 300,
) -> Eigenpairs:
    """The k largest eigenvalues (not of magnitude) and their vectors.

    Parameters
    ----------
    product : v (size,) -> A v (size,), float64.
    size : of the matrix.
    k : how many; further copies of one that stands several times are found only where the search
        comes to an end of its directions.
    rng : draws the start, or a small part of it.
    start : (size,) or (j, size), near the eigenvectors: those of a point of training a little
        before, for a warm start.
    tolerance : of residuals, in units of the largest eigenvalue's magnitude.
    max_steps : products at most; as many vectors are kept.

    Raises
    ------
    ValueError
        If k or max_steps cannot be, the start does not fit, or a product is not finite.
    """
    if not 1 <= k <= min(size, max_steps):
        raise ValueError(f"k is {k}; it must be at least 1, and at most {min(size, max_steps)}")
    max_steps = min(max_steps, size)
    basis = np.empty((max_steps, size))
    basis[0] = _first(size, start, rng)
    diagonal, below = np.zeros(max_steps), np.zeros(max_steps)
    before_restart: np.ndarray | None = None
    for step in range(max_steps):
        moved = np.asarray(product(basis[step]), np.float64)
        if moved.shape != (size,) or not np.isfinite(moved).all():
            raise ValueError(
                f"product {step + 1} has shape {moved.shape} or is not finite; ({size},) is due"
            )
        diagonal[step] = basis[step] @ moved
        known = basis[: step + 1]
        for _ in range(2):
            moved = moved - known.T @ (known @ moved)
        below[step] = np.linalg.norm(moved)
        values, coordinates = _tridiagonal_eigenpairs(diagonal[: step + 1], below[:step])
        scale = np.abs(values).max()
        is_exhausted = below[step] <= 10 * np.finfo(np.float64).eps * scale * np.sqrt(size)
        residuals = below[step] * np.abs(coordinates[-1])
        if is_exhausted:
            # The directions span an invariant subspace, which holds one copy of an eigenvalue. What
            # is left has another start, until one finds nothing that belongs to the k largest.
            below[step] = 0.0
            is_converged = before_restart is not None and np.allclose(
                values[:k], before_restart, rtol=0, atol=tolerance * scale
            )
            before_restart = values[:k] if len(values) >= k else None
        else:
            is_converged = before_restart is None and step + 1 >= k
            is_converged = is_converged and bool(np.all(residuals[:k] <= tolerance * scale))
        if is_converged or step + 1 == max_steps:
            break
        basis[step + 1] = _orthogonal(rng, known) if is_exhausted else moved / below[step]
    vectors = coordinates[:, :k].T @ basis[: step + 1]
    if step + 1 == size:
        residuals[:], is_converged = 0.0, True
    return Eigenpairs(values[:k], vectors, residuals[:k], step + 1, is_converged)


def _first(size: int, start: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """A direction of length 1, with a part in every other."""
    drawn = rng.standard_normal(size)
    drawn /= np.linalg.norm(drawn)
    if start is None:
        return drawn
    given = np.atleast_2d(np.asarray(start, np.float64)).sum(axis=0)
    length = np.linalg.norm(given)
    if given.shape != (size,) or not 0 < length < np.inf:
        raise ValueError(
            f"start has shape {np.shape(start)} and length {length}; it must be directions of "
            f"{size} numbers"
        )
    mixed = given / length + _RANDOM_PART * drawn
    return mixed / np.linalg.norm(mixed)


def _orthogonal(rng: np.random.Generator, known: np.ndarray) -> np.ndarray:
    """A random direction of length 1, orthogonal to some."""
    drawn = rng.standard_normal(known.shape[1])
    for _ in range(2):
        drawn -= known.T @ (known @ drawn)
    return drawn / np.linalg.norm(drawn)


def _tridiagonal_eigenpairs(
    diagonal: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, the largest first, and vectors in columns."""
    matrix = np.diag(diagonal) + np.diag(below, 1) + np.diag(below, -1)
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]
