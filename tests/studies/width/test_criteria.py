"""The statements of the width study, held against planted tables."""

import numpy as np
import pytest

from minibutter.studies.width import criteria, rates
from minibutter.studies.width.optima import (
    Setting,
    find_optima,
    left_out,
    optima_table,
    slopes_table,
)
from minibutter.studies.width.peak import draw_repetitions
from tests.studies.width.planted import GRID, WIDTHS, plant_accuracies, plant_stability

DRAWS = draw_repetitions(16, 100, np.random.default_rng(5))


def optima_of(**planted):
    return find_optima(plant_accuracies(**planted), DRAWS)


def states(found):
    return {criterion.name: criterion.state for criterion in found}


def test_the_papers_slopes_are_reproduced():
    found = criteria.judge_slopes(optima_of(), len(DRAWS))
    assert set(states(found).values()) == {"reproduced"}
    assert found[0].measured == pytest.approx(-1, abs=0.05)
    assert found[0].low <= found[0].measured <= found[0].high < 0


def test_rates_need_not_have_the_same_widths():
    optima = optima_of()
    del optima[Setting("ntk", 4.0, 8)], optima[Setting("ntk", 4.0, 16)]
    found = criteria.judge_slopes(optima, len(DRAWS))
    assert found[0].measured == pytest.approx(-1, abs=0.05)


def test_other_slopes_are_not():
    flat = states(criteria.judge_slopes(optima_of(ntk_slope=0), len(DRAWS)))
    assert flat["ntk batch slope"] == "not reproduced"
    assert flat["standard batch slope"] == "reproduced"
    assert flat["slopes differ"] != "reproduced"
    steep = states(criteria.judge_slopes(optima_of(standard_slope=-1), len(DRAWS)))
    assert steep["standard batch slope"] == "not reproduced"


def test_a_flat_slope_in_noise_cannot_be_told_from_another():
    found = states(criteria.judge_slopes(optima_of(ntk_slope=-0.5, noise=2e-2), len(DRAWS)))
    assert found["ntk batch slope"] == "unresolved"


def test_a_number_without_an_interval_judges_nothing():
    found = criteria.judge_estimate("a", "b", -1.0, expected=(-2, 0), reason="few draws")
    assert (found.state, found.measured) == ("unresolved", None)
    assert found.reason == "-1, without an interval: few draws"


def test_widths_whose_largest_rate_is_not_known_are_left_out():
    draws = draw_repetitions(16, 100, np.random.default_rng(6))
    stability = plant_stability()
    stability.loc[stability["width"] == 8, "largest_learning_rate"] = np.nan
    logs = rates.log2_by_width(stability, "ntk", "largest_learning_rate")
    assert sorted(logs) == [16, 32, 64, 128]
    stability["largest_learning_rate"] = np.nan
    found, _ = rates.judge_rates(stability, 8, draws)
    assert set(states(found).values()) == {"unresolved"}


def test_widths_that_do_not_interpolate_are_left_out_and_named():
    optima = optima_of(train_errors={8: 0.02})
    found = criteria.judge_slopes(optima, len(DRAWS))
    assert "not interpolating at rate 8: 8" in found[0].reason
    assert "not interpolating" in left_out(optima)
    table = optima_table(optima, sigma0=1.0)
    assert table.loc[table["width"] == 8, "used"].sum() == 0
    assert (table.loc[table["width"] == 8, "why_not"].str.contains("2.00%")).all()
    assert slopes_table(optima, len(DRAWS))["n_widths"].eq(len(WIDTHS) - 1).all()


def test_rates_that_share_their_noise_collapse_and_others_do_not():
    assert criteria.judge_collapse(optima_of(), "ntk").measured == pytest.approx(1, abs=0.1)
    apart = criteria.judge_collapse(optima_of(shift=2), "ntk")
    assert apart.state == "not reproduced"
    assert apart.measured == pytest.approx(2, rel=0.1)
    assert "8: 2." in apart.reason


def test_noise_scales_are_those_of_the_optima():
    table = optima_table(optima_of(), sigma0=2.0).set_index(
        ["parameterization", "learning_rate", "width"]
    )
    row = table.loc["ntk", 8.0, 16]
    assert row["batch_opt"] == pytest.approx(32, rel=0.05)
    assert row["noise_opt"] == pytest.approx(8 / row["batch_opt"])
    assert row["noise_low"] < row["noise_opt"] < row["noise_high"]
    row = table.loc["standard", 0.1, 16]
    assert row["noise_opt"] == pytest.approx(0.1 * 16 / 4 / row["batch_opt"])


def test_slopes_of_the_noise_are_those_predicted_in_both_parameterizations():
    table = slopes_table(optima_of(), len(DRAWS))
    assert table["predicted_noise_slope"].tolist() == [1.0] * 6
    np.testing.assert_allclose(table["noise_slope"], 1, atol=0.1)
    assert table["learning_rate"].isna().sum() == 2


def test_accuracy_is_judged_by_its_smallest_gain():
    optima = optima_of()
    found = criteria.judge_accuracy(optima, "ntk")
    assert found.state == "reproduced"
    assert found.measured == pytest.approx(1, abs=0.1)
    assert found.unit == "percent"
    only = {s: o for s, o in optima.items() if s.width == 8}
    assert criteria.judge_accuracy(only, "ntk").state == "unresolved"


def test_largest_rates_are_judged_with_their_definitions_side_by_side():
    draws = draw_repetitions(16, 100, np.random.default_rng(6))
    found, table = rates.judge_rates(plant_stability(), 8, draws)
    assert states(found) == {
        "standard largest rate": "reproduced",
        "ntk largest rate": "reproduced",
    }
    assert "2 / λ0 -1.0" in found[0].reason
    of_standard = table[table["parameterization"] == "standard"]
    np.testing.assert_allclose(of_standard["slope"], -1, atol=0.05)
    assert (of_standard["slope_low"] <= of_standard["slope_high"]).all()
    slow, _ = rates.judge_rates(plant_stability(standard_slope=-0.4), 8, draws)
    assert slow[0].state == "not reproduced"


def test_the_interval_of_a_rate_is_not_narrower_than_the_grid_of_rates():
    stability = plant_stability().query("width >= 32")
    stability["largest_learning_rate"] = 8 / stability["width"]
    draws = draw_repetitions(16, 100, np.random.default_rng(6))
    slope = rates.rate_slope(stability, "ntk", "largest_learning_rate", draws)
    # Two octaves: half a step of a quarter of an octave at either end, in opposite directions.
    assert (slope.low, slope.value, slope.high) == pytest.approx((-1.125, -1, -0.875))


def test_without_wide_networks_the_largest_rate_says_so():
    draws = draw_repetitions(16, 100, np.random.default_rng(6))
    found, _ = rates.judge_rates(plant_stability(), 3072, draws)
    assert set(states(found).values()) == {"unresolved"}
    assert "0 points, without two different widths" in found[0].reason
    assert "over all widths -1.0" in found[0].reason


def test_largest_rates_are_judged_in_wide_networks_only():
    draws = draw_repetitions(16, 100, np.random.default_rng(6))
    stability = plant_stability()
    narrow = stability["width"] < 32
    stability.loc[narrow, "largest_learning_rate"] = 1e-3
    found, table = rates.judge_rates(stability, 32, draws)
    assert found[0].measured == pytest.approx(-1, abs=0.05)
    of_all = table[(table["networks"] == "all") & (table["rate"] == "largest_learning_rate")]
    assert of_all["slope"].min() > 0


def test_the_largest_batch_is_the_best_one_at_the_largest_rate():
    draws = draw_repetitions(16, 100, np.random.default_rng(6))
    table, slopes = rates.largest_batches(optima_of(), plant_stability(), 1.0, draws)
    row = table[(table["parameterization"] == "ntk") & (table["width"] == 8)].iloc[0]
    # The best batch is 64 at a rate of 8; the largest rate is planted at 4.
    assert row["largest_batch"] == pytest.approx(32, rel=0.1)
    assert row["largest_batch_low"] < row["largest_batch"] < row["largest_batch_high"]
    for name in ("standard", "ntk"):
        assert slopes[name].value == pytest.approx(-1, abs=0.1)
    assert set(states(rates.judge_largest_batches(slopes)).values()) == {"reproduced"}


def test_ranges_that_are_not_of_this_data_set_judge_nothing():
    found = criteria.doubt(criteria.judge_slopes(optima_of(), len(DRAWS)), "too few rows")
    assert set(states(found).values()) == {"unresolved"}
    assert {criterion.reason for criterion in found} == {"too few rows"}


def test_an_optimum_beyond_the_grid_is_a_bound_in_the_table():
    optima = optima_of(ntk_slope=-3)
    table = optima_table(optima, 1.0).set_index(["parameterization", "learning_rate", "width"])
    row = table.loc["ntk", 8.0, 64]
    assert np.isnan(row["batch_opt"])
    assert row["batch_high"] == GRID[0]
    assert np.isnan(row["noise_opt"])
    assert row["noise_low"] == 8 / GRID[0]
    assert not row["used"]
