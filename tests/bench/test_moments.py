"""What the measurement of exact moments compares."""

import numpy as np
import pytest

from bench.moments import NETWORKS, make_trainers, measure


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_sides_make_the_same_steps(dtype):
    measured, plain = make_trainers(NETWORKS[0], dtype)
    before = plain.parameters.copy()
    steps, row = measured.run_epoch(), plain.run_epoch()
    np.testing.assert_array_equal(measured.parameters, plain.parameters)
    assert not np.array_equal(plain.parameters, before)
    assert np.mean(steps.loss) == pytest.approx(row.train[0])


def test_ratio_of_times_is_that_of_an_epoch_with_moments_to_one_without():
    low, median, high = measure(NETWORKS[0], "float32", rounds=5)
    assert 0.2 < low <= median <= high
