"""Which part of each run's work falls into the interval of another."""

import numpy as np
import pandas as pd
import pytest

from minibutter.energy.model import concurrency
from minibutter.energy.model.concurrency import Paces, work_during


def make_table(*runs):
    """Runs as (begin, end, package, boot) in seconds, the last two 0 and "a" if left out."""
    rows = [(*run, *(0, "a")[len(run) - 2 :]) for run in runs]
    frame = pd.DataFrame(rows, columns=["begun_ns", "ended_ns", "package", "boot_id"])
    for name in ("begun_ns", "ended_ns"):
        frame[name] = (frame[name] * 10**9).astype("Int64")  # As the store hands them out.
    return frame.assign(package=frame["package"].astype("Int32"))


def fractions_of(table, is_wanted=None):
    """The fractions as a plain array, and the flags."""
    wanted = np.ones(len(table), bool) if is_wanted is None else np.array(is_wanted)
    fractions, is_beside_unbound = work_during(table, wanted)
    return fractions.toarray(), is_beside_unbound


def random_table(n, seed):
    """Runs of three boots, on two packages or on none in particular; some have no interval."""
    rng = np.random.default_rng(seed)
    begun_ns = rng.integers(0, 2000, n)
    table = pd.DataFrame(
        {
            "begun_ns": begun_ns,
            "ended_ns": begun_ns + rng.integers(1, 200, n),
            "package": rng.choice([0, 1, None], n, p=[0.45, 0.45, 0.1]),
            "boot_id": rng.choice(["a", "b", "c"], n),
        }
    ).astype({"begun_ns": "Int64", "ended_ns": "Int64", "package": "Int32"})
    table.loc[rng.random(n) < 0.05, ["begun_ns", "ended_ns"]] = pd.NA
    return table


def one_by_one(table):
    """The same by the definition, pair by pair."""
    expected, flags = np.eye(len(table)), np.zeros(len(table), bool)
    rows = list(table.itertuples())
    for i, own in enumerate(rows):
        for j, other in enumerate(rows):
            if i == j or own.boot_id != other.boot_id or own.begun_ns is pd.NA:
                continue
            if other.begun_ns is pd.NA:
                continue
            both = min(own.ended_ns, other.ended_ns) - max(own.begun_ns, other.begun_ns)
            if both <= 0:
                continue
            if own.package is not pd.NA and other.package is pd.NA:
                flags[i] = True
            elif own.package is pd.NA or own.package == other.package:
                expected[i, j] = both / (other.ended_ns - other.begun_ns)
    return expected, flags


def test_a_run_pays_for_the_part_of_its_neighbours_that_falls_into_its_interval():
    fractions, _ = fractions_of(make_table((0, 10), (5, 25), (8, 9), (30, 40)))
    expected = [[1, 5 / 20, 1, 0], [5 / 10, 1, 1, 0], [1 / 10, 1 / 20, 1, 0], [0, 0, 0, 1]]
    assert fractions == pytest.approx(np.array(expected), abs=1e-12)


def test_one_run_after_the_other_shares_nothing():
    table = make_table((0, 10), (10, 20, None), (20, 30))
    fractions, is_beside_unbound = fractions_of(table)
    assert (fractions == np.eye(3)).all()
    assert not is_beside_unbound.any()


def test_runs_of_the_same_interval_are_in_each_other_whole():
    fractions, _ = fractions_of(make_table((0, 10), (0, 10), (0, 10)))
    assert (fractions == 1).all()


def test_other_packages_and_other_boots_are_not_seen():
    table = make_table((0, 10, 0), (0, 10, 1), (0, 10, 0, "b"), (0, 20, 0))
    fractions, _ = fractions_of(table)
    assert fractions[0].tolist() == [1, 0, 0, 0.5]
    assert fractions[1].tolist() == [0, 1, 0, 0]
    assert fractions[2].tolist() == [0, 0, 1, 0]


def test_a_run_bound_to_no_package_pays_for_all_and_spoils_those_that_are():
    fractions, is_beside_unbound = fractions_of(make_table((0, 10, 0), (0, 10, 1), (5, 15, None)))
    assert fractions[2].tolist() == [0.5, 0.5, 1]
    assert is_beside_unbound.tolist() == [True, True, False]


def test_runs_that_are_not_wanted_have_their_own_work_alone_and_are_seen_by_others():
    fractions, _ = fractions_of(make_table((0, 10), (5, 25)), [False, True])
    assert fractions.tolist() == [[1, 0], [0.5, 1]]


@pytest.mark.parametrize("max_pairs", [1, 50, 2**22])
def test_fractions_are_those_of_all_pairs_one_by_one(monkeypatch, max_pairs):
    monkeypatch.setattr(concurrency, "_MAX_PAIRS", max_pairs)
    table = random_table(150, seed=4)
    fractions, flags = fractions_of(table)
    expected, expected_flags = one_by_one(table)
    assert 400 < (expected > 0).sum() < 4000
    assert np.abs(fractions - expected).max() < 1e-12
    assert (flags == expected_flags).all()
    assert 0 < flags.sum() < 150


def test_shifting_all_stamps_changes_no_bit():
    table = random_table(150, seed=5)
    days_since_boot = 400 * 86400 * 10**9
    shifted = table.assign(
        begun_ns=table["begun_ns"] + days_since_boot, ended_ns=table["ended_ns"] + days_since_boot
    )
    assert days_since_boot > 2**53  # Beyond what a float holds to the nanosecond.
    assert (fractions_of(table)[0] == fractions_of(shifted)[0]).all()


def test_without_stamps_every_run_has_its_own_work_alone():
    table = make_table((0, 10), (5, 25))
    for columns in ({"begun_ns": pd.NA}, {"boot_id": None}, {"ended_ns": 0}):
        assert (fractions_of(table.assign(**columns))[0] == np.eye(2)).all()
    assert (fractions_of(table.drop(columns="boot_id"))[0] == np.eye(2)).all()


def test_a_run_that_was_slow_at_first_has_done_less_by_then():
    """Four epochs, of which the first took as long as the others together; two slept after it."""
    table = make_table((0, 12), (3, 9)).set_axis(["a", "b"])
    epochs = pd.DataFrame({"run_id": list("baaaa"), "duration_s": [7.0, 3.0, 1.0, 1.0, 1.0]})
    paces = Paces(table.index, epochs)
    fractions, _ = work_during(table.reset_index(drop=True), np.ones(2, bool), paces)
    # Of a, the durations stretch over 12 s: the first epoch ends after 6, the second after 8.
    by_3_s, by_9_s = 0.25 * 3 / 6, 0.25 + 0.25 + 0.25 / 2
    assert fractions.toarray()[1, 0] == pytest.approx(by_9_s - by_3_s)
    assert fractions.toarray()[0, 1] == 1.0


def test_runs_without_epochs_and_epochs_without_runs_work_evenly():
    epochs = pd.DataFrame({"run_id": ["x", "b", "b"], "duration_s": [1.0, 0.0, 0.0]})
    paces = Paces(pd.Index(["a", "b", "c"]), epochs)
    assert paces.done(np.array([0, 2]), np.array([0.25, 0.75])).tolist() == [0.25, 0.75]
    assert paces.done(np.arange(3), np.ones(3)).tolist() == [1.0] * 3
    assert paces.done(np.arange(3), np.zeros(3))[[0, 2]].tolist() == [0.0] * 2


def test_paces_of_many_runs_are_those_of_each_alone():
    rng = np.random.default_rng(5)
    names = [f"r{i}" for i in range(50)]
    epochs = pd.DataFrame({"run_id": rng.choice(names, 2000), "duration_s": rng.random(2000)})
    paces = Paces(pd.Index(names), epochs)
    passed = rng.random(50)
    expected = []
    for name, fraction in zip(names, passed, strict=True):
        durations = epochs.loc[epochs["run_id"] == name, "duration_s"].to_numpy()
        times = np.concatenate([[0], np.cumsum(durations) / durations.sum()])
        expected.append(np.interp(fraction, times, np.linspace(0, 1, len(times))))
    assert paces.done(np.arange(50), passed) == pytest.approx(expected, abs=1e-12)
