"""What the width study measures, on small networks."""

import numpy as np
import pandas as pd
import pytest

from minibutter.studies.width.coordinates import (
    EXPECTED_SLOPES,
    measure_coordinates,
    slopes_of_changes,
)
from minibutter.studies.width.data import load_rows, split_rows, stream
from minibutter.studies.width.scales import normalised_noise, squared_scale
from minibutter.studies.width.training import look_steps, measure_late_accuracy

RUN = {
    "dataset": "digits",
    "parameterization": "ntk",
    "width": 8,
    "hidden_layers": 1,
    "sigma0": 1.0,
    "learning_rate": 2.0,
    "batch_size": 16,
    "n_steps": 200,
    "n_looks": 4,
    "first_repetition": 0,
    "n_repetitions": 3,
    "n_train": 200,
    "n_test": 300,
    "seed": 0,
}


def test_inputs_of_all_rows_are_scaled_as_one():
    x, y = load_rows("digits", None)
    assert x.mean() == pytest.approx(0, abs=1e-6)
    assert x.std() == pytest.approx(1, abs=1e-6)
    assert (x.dtype, y.shape) == (np.float32, (1797, 10))


def test_rows_are_split_anew_for_every_repetition():
    x = np.arange(50.0)[:, None]
    first, same, other = (split_rows(x, x, 20, 30, stream(0, n, 0)) for n in (0, 0, 1))
    assert sorted([*first.x_train[:, 0], *first.x_test[:, 0]]) == [*range(50)]
    np.testing.assert_array_equal(first.x_train, same.x_train)
    assert (first.x_train != other.x_train).any()


def test_noise_scales_follow_their_definitions():
    assert normalised_noise("ntk", 64, 1.4, 8.0, 16) == 0.5
    assert normalised_noise("standard", 64, 2.0, 0.1, 16) == pytest.approx(0.1 * 64 / (16 * 4))
    with pytest.raises(ValueError, match="standard and ntk"):
        squared_scale("mup", 8, 1.0)


def test_a_repetition_does_not_depend_on_its_companions():
    three = measure_late_accuracy(None, **RUN)
    alone = measure_late_accuracy(None, **{**RUN, "first_repetition": 2, "n_repetitions": 1})
    assert three["repetition"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(three.iloc[2:].reset_index(drop=True), alone)
    assert three["late_accuracy"].between(0.7, 1).all()
    assert three["train_error"].between(0, 0.2).all()
    assert three["train_loss"].between(1e-6, 1).all()


def test_ntk_and_standard_with_matched_rates_would_start_alike():
    """Both draw their weights from one stream, so a repetition starts from the same function."""
    slow = {**RUN, "learning_rate": 1e-9, "n_steps": 4, "n_looks": 1}
    ntk, standard = (
        measure_late_accuracy(None, **{**slow, "parameterization": name})
        for name in ("ntk", "standard")
    )
    np.testing.assert_allclose(ntk["late_accuracy"], standard["late_accuracy"], atol=0.01)


def test_a_batch_may_be_larger_than_the_training_set():
    table = measure_late_accuracy(None, **{**RUN, "batch_size": 300})
    assert table["n_train"].eq(200).all()
    assert table["late_accuracy"].gt(0.7).all()


def test_one_looks_at_equal_distances_in_the_last_quarter():
    assert look_steps(200, 4) == [162, 175, 187, 200]
    assert look_steps(4, 3) == [2, 3, 4]
    with pytest.raises(ValueError, match="n_looks is 6; of 4 steps there can be 1 to 4"):
        look_steps(4, 6)


def test_a_run_that_diverges_is_a_result():
    table = measure_late_accuracy(None, **{**RUN, "learning_rate": 1e30})
    assert not table["is_finite"].any()
    assert table["train_loss"].isna().all()
    assert (table["late_accuracy"] < 0.3).all()


def test_first_steps_move_the_units_as_each_parameterization_says():
    tables = []
    for name, rate in (("standard", 1e-3), ("ntk", 1e-2), ("mup", 1e-3)):
        for width in (64, 256):
            table = measure_coordinates(
                None, dataset="digits", parameterization=name, width=width, hidden_layers=2,
                sigma0=1.0, base_width=32, learning_rate=rate, steps=[1], n_rows=64,
                n_repetitions=4, seed=0,
            )  # fmt: skip
            tables.append(table.assign(parameterization=name, width=width))
    slopes = slopes_of_changes(pd.concat(tables))
    assert len(slopes) == 9
    assert set(EXPECTED_SLOPES) == set(slopes["parameterization"])
    # Hidden units of the standard parameterization are still moved by the first layer's, too.
    is_slow = (slopes["parameterization"] == "standard") & (slopes["layer"] == "hidden 2")
    assert slopes[is_slow]["slope"].between(0.1, 0.5).all()
    rest = slopes[~is_slow]
    np.testing.assert_allclose(rest["slope"], rest["predicted_slope"], atol=0.2)
