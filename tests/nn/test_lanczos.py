"""The largest eigenvalues of matrices whose spectrum is known."""

import numpy as np
import pytest

from minibutter.nn.lanczos import largest_eigenpairs


def rotated(values, seed=0):
    """A symmetric matrix with these eigenvalues, and its vectors in columns."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return vectors * np.asarray(values, float) @ vectors.T, vectors


def test_the_largest_eigenvalues_and_their_vectors_are_found():
    values = np.concatenate([np.linspace(-30, 1, 195), [2, 3, 5, 8, 13]])
    matrix, vectors = rotated(values)
    found = largest_eigenpairs(matrix.dot, 200, 4, rng=np.random.default_rng(1))
    assert found.is_converged
    np.testing.assert_allclose(found.values, [13, 8, 5, 3], rtol=1e-10)
    overlaps = np.abs(np.sum(found.vectors * vectors.T[::-1][:4], axis=1))
    np.testing.assert_allclose(overlaps, 1, rtol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-12)


def test_residuals_are_those_of_the_vectors():
    matrix, _ = rotated(np.linspace(0, 1, 100) ** 3)
    found = largest_eigenpairs(matrix.dot, 100, 3, rng=np.random.default_rng(1), max_steps=12)
    assert not found.is_converged
    assert found.steps == 12
    residuals = np.linalg.norm(
        found.vectors @ matrix - found.values[:, None] * found.vectors, axis=1
    )
    np.testing.assert_allclose(found.residuals, residuals, rtol=1e-6)
    assert found.residuals.max() > 1e-6


def test_no_eigenvalue_appears_twice_however_long_the_recurrence():
    """Without reorthogonalisation the largest one would come again and again."""
    values = np.concatenate([np.linspace(0, 1, 300), [1e6]])
    matrix, _ = rotated(values)
    found = largest_eigenpairs(matrix.dot, 301, 3, rng=np.random.default_rng(1), tolerance=1e-13)
    np.testing.assert_allclose(found.values, [1e6, *values[299:297:-1]], rtol=1e-7)


def test_a_warm_start_saves_products_and_finds_the_same():
    matrix, _ = rotated(np.linspace(0, 10, 200) ** 2)
    nudge, _ = rotated(np.linspace(-1, 1, 200) * 1e-4, seed=5)
    cold = largest_eigenpairs(matrix.dot, 200, 2, rng=np.random.default_rng(1), tolerance=1e-4)
    warm = largest_eigenpairs(
        (matrix + nudge).dot, 200, 2,
        rng=np.random.default_rng(2), tolerance=1e-4, start=cold.vectors,
    )  # fmt: skip
    assert warm.is_converged
    np.testing.assert_allclose(warm.values, np.linalg.eigvalsh(matrix + nudge)[:-3:-1], rtol=1e-6)
    assert warm.steps < cold.steps / 2


def test_a_start_that_is_no_longer_the_largest_does_not_stop_the_search():
    values = [*np.linspace(0, 1, 60), 4, 5]
    matrix, vectors = rotated(values)
    nearly = vectors[:, -2] + 1e-10 * np.random.default_rng(2).standard_normal(62)
    found = largest_eigenpairs(matrix.dot, 62, 1, rng=np.random.default_rng(1), start=nearly)
    assert found.values[0] == pytest.approx(5, rel=1e-10)


def test_a_matrix_of_few_eigenvalues_is_searched_beyond_its_first_invariant_subspace():
    matrix, _ = rotated([3, 3, 3, 1, 1, 0, 0, 0])
    found = largest_eigenpairs(matrix.dot, 8, 5, rng=np.random.default_rng(1))
    assert found.is_converged
    np.testing.assert_allclose(found.values, [3, 3, 3, 1, 1], rtol=1e-12)


def test_all_eigenvalues_of_a_small_matrix_are_exact():
    matrix, _ = rotated([-2, 0, 7])
    found = largest_eigenpairs(matrix.dot, 3, 3, rng=np.random.default_rng(1))
    np.testing.assert_allclose(found.values, [7, 0, -2], atol=1e-13)
    np.testing.assert_array_equal(found.residuals, 0)
    assert found.is_converged


def test_the_zero_matrix_has_eigenvalue_zero():
    found = largest_eigenpairs(np.zeros_like, 5, 2, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(found.values, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; it must be at least 1, and at most 4"),
        ({"k": 5}, "k is 5; it must be at least 1, and at most 4"),
        ({"start": np.zeros(4)}, "start has shape .* length 0"),
        ({"start": np.ones(3)}, r"start has shape \(3,\)"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        largest_eigenpairs(np.eye(4).dot, 4, rng=np.random.default_rng(0), **options)


def test_a_product_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"product 1 has shape .* not finite"):
        largest_eigenpairs(lambda v: v * np.nan, 4, rng=np.random.default_rng(0))
