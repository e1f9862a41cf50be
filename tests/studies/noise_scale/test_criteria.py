"""What is concluded from planted tables."""

import numpy as np
import pandas as pd
import pytest

from minibutter.studies.noise_scale import criteria
from minibutter.studies.noise_scale.judging import judge_mean, on_these_data, rms_interval
from minibutter.studies.noise_scale.levels import geometric_mean

GOALS = (0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)


def fits_of(values, rms=0.05, spread=1.1):
    """Fits at goals 0.3, 0.2, ... with these critical batch sizes."""
    goals = GOALS[: len(values)]
    return pd.DataFrame(
        {
            "goal": goals,
            "n_batch_sizes": 11,
            "rms_log_residual": rms,
            "critical_batch_size": values,
            "critical_batch_size_low": np.array(values) / spread,
            "critical_batch_size_high": np.array(values) * spread,
            "critical_batch_size_state": "resolved",
        }
    )


def states(judged):
    return {criterion.name: criterion.state for criterion in judged}


def test_a_critical_batch_that_grows_as_in_the_paper_is_reproduced():
    judged = criteria.judge_growth(fits_of([20.0, 25, 40, 80, 120, 160, 200]), GOALS)
    assert set(states(judged).values()) == {"reproduced"}
    assert judged[0].measured == pytest.approx(10)
    assert judged[1].measured == pytest.approx(1.25)


def test_one_that_falls_is_not_reproduced_and_one_that_may_fall_is_unresolved():
    falling = [200.0, 150, 100, 60, 40, 30, 20]
    judged = criteria.judge_growth(fits_of(falling), GOALS)
    assert set(states(judged).values()) == {"not reproduced"}
    dips = fits_of([20.0, 25, 40, 80, 120, 115, 200])
    assert states(criteria.judge_growth(dips, GOALS))["critical batch rises"] == "unresolved"


def test_without_two_goals_nothing_is_said_of_growth():
    judged = states(criteria.judge_growth(fits_of([20.0]), GOALS))
    assert judged.pop("critical start") == "reproduced"
    assert set(judged.values()) == {"unresolved"}
    judged = criteria.judge_growth(pd.DataFrame(), GOALS)
    assert set(states(judged).values()) == {"unresolved"}
    assert criteria.judge_hyperbola(pd.DataFrame()).state == "unresolved"


def test_what_is_said_of_one_goal_is_not_taken_from_another():
    """B_crit up to a goal of 0.02 says nothing of that at 0.01."""
    judged = {c.name: c for c in criteria.judge_growth(fits_of([20.0, 25, 30, 33, 36, 40]), GOALS)}
    for name in ("critical batch grows", "critical end"):
        assert (judged[name].state, judged[name].measured) == ("unresolved", None)
        assert judged[name].reason == "B_crit is not resolved at train error 0.01"
    assert judged["critical start"].state == "reproduced"
    assert judged["critical batch rises"].state == "reproduced"


def test_a_single_seed_leaves_a_mean_open_whatever_it_says():
    for value, state in ((1.0, "unresolved"), (9.0, "unresolved")):
        judged = judge_mean("name", "statement", geometric_mean([value]), expected=(0, 2))
        assert (judged.state, judged.measured) == (state, pytest.approx(value))
        assert "no interval" in judged.reason
    two = judge_mean("name", "statement", geometric_mean([1.0, 1.1]), expected=(0, 2))
    assert two.state == "reproduced"
    assert judge_mean("name", "s", geometric_mean([]), expected=(0, 2)).measured is None


@pytest.mark.parametrize(
    ("rms", "state"), [(0.05, "reproduced"), (0.15, "unresolved"), (0.5, "not reproduced")]
)
def test_the_worst_hyperbola_decides(rms, state):
    fits = fits_of([20.0, 40.0])
    fits.loc[1, "rms_log_residual"] = rms
    judged = criteria.judge_hyperbola(fits)
    assert judged.state == state
    assert judged.measured == max(rms, 0.05)
    assert judged.low < judged.measured < judged.high


def test_intervals_of_a_root_mean_square_hold_its_expectation():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        residuals = rng.standard_normal(11)[2:]  # two are taken by a fit
        rms = np.sqrt(np.sum(residuals**2) / 11)
        low, high = rms_interval(rms, 11)
        held.append(low < np.sqrt(9 / 11) < high)
    assert 0.93 < np.mean(held) < 0.97


def routes_of(rng, bias=0.0, epochs=10):
    rows = []
    for seed in range(4):
        exact = {"route": "exact", "trace": 10.0, "squared_gradient": 1.0}
        rows.append(exact | {"trace_error": 0.0, "squared_gradient_error": 0.0, "seed": seed})
        for route in ("two batches", "by rank"):
            trace, signal = 10 + 0.1 * rng.standard_normal(epochs), rng.standard_normal(epochs)
            rows.append(
                {
                    "route": route,
                    "trace": trace.mean() + bias,
                    "squared_gradient": 1 + 0.2 * signal.mean(),
                    "trace_error": trace.std(ddof=1) / epochs**0.5,
                    "squared_gradient_error": 0.2 * signal.std(ddof=1) / epochs**0.5,
                    "seed": seed,
                }
            )
    return pd.DataFrame(rows).assign(step=7, epochs=epochs)


def test_unbiased_routes_agree_and_biased_ones_do_not():
    rng = np.random.default_rng(0)
    found = [criteria.judge_routes(routes_of(rng)).state for _ in range(200)]
    assert 0.9 < np.mean([state == "reproduced" for state in found]) <= 0.99
    assert criteria.judge_routes(routes_of(rng, bias=1.0)).state == "not reproduced"


def test_moving_averages_are_held_against_exact_values():
    assert criteria.judge_stream(np.array([0.95, 1.05, 1.1])).state == "reproduced"
    assert criteria.judge_stream(np.array([2.0, 2.1, 1.9])).state == "not reproduced"
    assert criteria.judge_stream(np.array([])).state == "unresolved"


def test_without_best_steps_both_criteria_of_them_are_open():
    judged = criteria.judge_step_law(pd.DataFrame())
    assert states(judged) == {"step law": "unresolved", "step prediction": "unresolved"}


def test_batches_that_follow_the_noise_are_held_against_the_frontier():
    def gains(values):
        return pd.DataFrame(
            {"seed": range(len(values)), "measured_gamma": values, "predicted_gamma": 0.9}
        )

    assert criteria.judge_adaptive(gains([0.9, 0.95, 0.85])).state == "reproduced"
    assert criteria.judge_adaptive(gains([2.0, 2.1, 1.9])).state == "not reproduced"
    assert criteria.judge_adaptive(gains([0.5, 3.0, 1.5])).state == "unresolved"
    assert criteria.judge_adaptive(gains([np.nan, np.nan])).state == "unresolved"
    assert criteria.judge_adaptive(None).state == "unresolved"


def test_ranges_of_other_data_are_left_open():
    judged = criteria.judge_growth(fits_of([20.0, 200.0]), GOALS[:2])[0]
    other = on_these_data(judged, is_paper_data=False)
    assert other.state == "unresolved"
    assert "other data" in other.reason
    assert other.measured == judged.measured
    assert on_these_data(judged, is_paper_data=True) is judged
