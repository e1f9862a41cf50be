"""Noise scales at levels of the error, from checkpoints that scatter."""

import numpy as np
import pandas as pd
import pytest

from minibutter.studies.noise_scale.levels import (
    checkpoints_near,
    geometric_mean,
    ratios_of_seeds,
    scale_by_level,
)

CHECKPOINTS = pd.DataFrame(
    {
        "seed": [0, 0, 0, 0, 1, 1, 1],
        "step": [0, 10, 12, 99, 0, 10, 99],
        "error": [0.9, 0.11, 0.09, 0.0, 0.9, 0.1, 0.01],
        "trace": [30.0, 20.0, 10.0, 1.0, 30.0, 40.0, 1.0],
        "squared_gradient": [1.0, 0.05, 0.25, 1.0, 1.0, 0.1, 0.0],
    }
)


def test_numerator_and_denominator_are_averaged_before_they_are_divided():
    ratios = ratios_of_seeds(CHECKPOINTS, "trace", "squared_gradient", 0.1)
    assert ratios.to_dict() == {0: pytest.approx(100.0), 1: pytest.approx(400.0)}


def test_a_level_without_checkpoints_or_with_nothing_to_divide_by_has_no_value():
    table = scale_by_level(CHECKPOINTS, "trace", "squared_gradient", [0.1, 0.3, 0.01])
    assert table["value"].iloc[0] == pytest.approx(200.0)
    assert table["n_seeds"].tolist() == [2, 0, 0]
    assert table["value"].iloc[1:].isna().all()


def test_the_interval_of_a_geometric_mean_is_students():
    mean = geometric_mean(np.array([1.0, 4.0]))
    assert mean.value == pytest.approx(2.0)
    # Two logarithms, ± ln 2: t at 1 degree of freedom is 12.706, and ln 2 is their error.
    assert np.log(mean.high / mean.value) == pytest.approx(12.706 * np.log(2), rel=1e-4)
    assert mean.low * mean.high == pytest.approx(mean.value**2)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert geometric_mean(np.array([3.0])).value == pytest.approx(3.0)
    assert np.isnan(geometric_mean(np.array([3.0])).low)
    assert np.isnan(geometric_mean(np.array([])).value)


def test_intervals_of_geometric_means_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    means = [geometric_mean(np.exp(rng.standard_normal(4))) for _ in range(1000)]
    assert 0.93 < np.mean([mean.low < 1 < mean.high for mean in means]) < 0.97


def test_the_nearest_checkpoints_of_every_seed_are_chosen():
    assert checkpoints_near(CHECKPOINTS, [0.1], 1) == [(0, 10), (1, 10)]
    assert checkpoints_near(CHECKPOINTS, [0.1, 0.105], 2) == [(0, 10), (0, 12), (1, 10)]
    assert checkpoints_near(CHECKPOINTS, [0.4], 2) == []
