"""Sums over ranks: the same bits on all of them, whatever their number."""

import numpy as np
import pytest

from minibutter.nn.shared_sum import SharedSum, collect
from minibutter.nn.summation import cut
from tests.partners import on_ranks

DTYPES = ("float32", "float64")


def draw_vectors(n, size, dtype, seed=0):
    """Numbers of all magnitudes, so that another order of additions shows."""
    rng = np.random.default_rng([seed, n, size])
    return (rng.standard_normal((n, size)) * 10.0 ** rng.integers(-6, 6, (n, size))).astype(dtype)


def add_up(vectors, partners, times=1):
    """The shared sum, as often as asked for; the memory is used again."""
    shared = SharedSum(vectors.shape[1], str(vectors.dtype), len(vectors), partners)
    for _ in range(times):
        shared.vectors[:, : vectors.shape[1]] = vectors[slice(*shared.own)]
        total = shared.add_up()
    return total.copy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 64, 2500])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_sums_have_the_same_bits_on_every_rank_of_any_number(n, size, dtype):
    vectors = draw_vectors(n, size, dtype)
    (alone,) = on_ranks(1, lambda partners: add_up(vectors, partners))
    for n_ranks in (2, 3, 5, 9):
        for total in on_ranks(n_ranks, lambda partners: add_up(vectors, partners, times=2)):
            np.testing.assert_array_equal(total, alone)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_is_that_of_the_tree(dtype):
    v = draw_vectors(7, 300, dtype)
    expected = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + v[6])
    (total,) = on_ranks(1, lambda partners: add_up(v, partners))
    np.testing.assert_array_equal(total, expected)
    assert not np.array_equal(total, v.sum(axis=0))


def test_nan_and_infinity_come_through():
    vectors = draw_vectors(4, 40, "float32")
    vectors[2, 7], vectors[0, 9], vectors[3, 9] = np.nan, np.inf, -np.inf
    for total in on_ranks(3, lambda partners: add_up(vectors, partners)):
        assert np.isnan(total[[7, 9]]).all()
        assert np.isfinite(np.delete(total, [7, 9])).all()


@pytest.mark.parametrize("n_ranks", [2, 4, 8])
def test_a_rank_sends_about_two_vectors_whatever_the_number_of_ranks(n_ranks):
    vectors = draw_vectors(8, 1600, "float32")

    def count(partners):
        add_up(vectors, partners)
        return partners.n_sent

    for n_sent in on_ranks(n_ranks, count):
        assert n_sent == pytest.approx(2 * 1600 * (n_ranks - 1) / n_ranks, rel=0.05)


def test_rows_of_all_ranks_are_collected_on_all_ranks():
    rows = draw_vectors(5, 3, "float64")
    for n_ranks in (1, 2, 7):
        for got in on_ranks(
            n_ranks,
            lambda partners, n=n_ranks: collect(
                rows[slice(*cut(5, n)[partners.rank])], 5, partners
            ),
        ):
            np.testing.assert_array_equal(got, rows)
