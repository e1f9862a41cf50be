"""What runs teach: a faster machine, a rate that is wrong, and not a run that was disturbed."""

import numpy as np
import pytest

from minibutter.sweeps.correction import TYPICAL_SPREAD, FinishedRuns

N_CLASSES, N_PARTS = 60, 5


@pytest.fixture
def shares():
    """Parts of sixty classes; each is mostly one or two things."""
    return np.random.default_rng(1).dirichlet([0.4] * N_PARTS, N_CLASSES)


@pytest.fixture
def predicted_s():
    return 10 ** np.random.default_rng(2).uniform(-1, 4, N_CLASSES)


def learn(shares, predicted_s, measured_s, classes, times=1):
    finished = FinishedRuns(shares, predicted_s)
    for number in classes:
        for _ in range(times):
            finished.add(number, measured_s[number])
    return finished.correct()


def test_nobody_knows_anything_before_the_first_run(shares, predicted_s):
    correction = FinishedRuns(shares, predicted_s).correct()
    assert (correction.factors == 1).all()
    assert (correction.spread, correction.n_runs) == (TYPICAL_SPREAD, 0)
    assert correction.margin == pytest.approx(1.469, abs=0.001)  # nine of ten, log-normal


def test_a_machine_that_is_twice_as_slow_is_found_out_by_a_few_runs(shares, predicted_s):
    correction = learn(shares, predicted_s, 2 * predicted_s, range(8), times=3)
    np.testing.assert_allclose(correction.factors, 2, rtol=0.1)
    assert correction.n_runs == 24
    assert correction.spread < TYPICAL_SPREAD


def test_a_rate_that_is_wrong_is_found_in_classes_that_nobody_has_run(shares, predicted_s):
    true_factors = 1 + 1.5 * shares[:, 2]  # that part takes 2.5 times as long
    correction = learn(shares, predicted_s, predicted_s * true_factors, range(40))
    unseen = slice(40, None)
    before = np.log(true_factors[unseen])
    after = before - np.log(correction.factors[unseen])
    assert np.sqrt(np.mean(after**2)) < 0.35 * np.sqrt(np.mean(before**2))


def test_runs_that_were_disturbed_change_little(shares, predicted_s):
    measured_s = 1.5 * predicted_s
    measured_s[[3, 11, 17, 25]] *= 50
    correction = learn(shares, predicted_s, measured_s, range(40))
    np.testing.assert_allclose(correction.factors[40:], 1.5, rtol=0.15)


def test_an_experiment_is_told_best_by_its_own_runs(shares, predicted_s):
    measured_s = predicted_s.copy()
    measured_s[7] *= 3
    once = learn(shares, predicted_s, measured_s, range(40))
    often = learn(shares, predicted_s, measured_s, range(40), times=20)
    assert 1.5 < once.factors[7] < often.factors[7]
    assert often.factors[7] == pytest.approx(3, rel=0.1)
    assert often.factors[50] == pytest.approx(1, rel=0.1)


def test_the_order_in_which_runs_end_does_not_matter(shares, predicted_s):
    rng = np.random.default_rng(3)
    runs = [(number, s * rng.lognormal(0, 0.3)) for number, s in enumerate(predicted_s[:40])] * 2
    corrections = []
    for order in (range(80), reversed(range(80)), rng.permutation(80)):
        finished = FinishedRuns(shares, predicted_s)
        for place in order:
            finished.add(*runs[place])
        corrections.append(finished.correct().factors)
    np.testing.assert_allclose(corrections[1], corrections[0], rtol=1e-9)
    np.testing.assert_allclose(corrections[2], corrections[0], rtol=1e-9)
    again = learn(shares, predicted_s, predicted_s * 1.1, range(40))
    assert (again.factors == learn(shares, predicted_s, predicted_s * 1.1, range(40)).factors).all()


def test_the_spread_is_what_predictions_are_wrong_by_when_there_is_enough_to_tell(predicted_s):
    rng = np.random.default_rng(4)
    shares = rng.dirichlet([0.4] * N_PARTS, 2000)
    finished = FinishedRuns(shares, np.ones(2000))
    for number in range(2000):
        finished.add(number, rng.lognormal(0.4, 0.15))
    correction = finished.correct()
    assert correction.spread == pytest.approx(0.15, rel=0.1)
    assert correction.margin == pytest.approx(np.exp(1.2816 * 0.15), rel=0.03)


def test_a_run_that_took_no_time_says_nothing(shares, predicted_s):
    finished = FinishedRuns(shares, predicted_s)
    for nonsense in (0.0, -1.0, float("nan"), float("inf")):
        finished.add(0, nonsense)
    assert finished.correct().n_runs == 0


@pytest.mark.parametrize(
    ("shares", "predicted_s", "message"),
    [
        (np.ones((3, 2)), np.ones(4), "do not belong to the same classes"),
        (np.ones(3), np.ones(3), "do not belong to the same classes"),
        (np.ones((2, 2)), np.array([1.0, np.inf]), "not above 0 and finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(shares, predicted_s, message):
    with pytest.raises(ValueError, match=message):
        FinishedRuns(shares, predicted_s)
