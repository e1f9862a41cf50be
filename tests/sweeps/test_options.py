"""Options of the command line about a sweep, and the order in which a budget buys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibutter.sweeps.options import parse_assignments, read_selection
from minibutter.sweeps.runspec import SweepError
from minibutter.sweeps.selection import EVERYTHING, nested_order


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("depth=3", 3),
        ("depth = 3, 5", [3, 5]),
        ("dataset=mnist,201_pol", ["mnist", "201_pol"]),
        ("dataset='mnist',\"sleep\"", ["mnist", "sleep"]),
        ('dataset="blobs:rows=3,noise=1"', "blobs:rows=3,noise=1"),
        ("learning_rate=1e-3,0.5", [1e-3, 0.5]),
        ("evaluate_train=true", True),
        ("widths=[17,17,7]", [17, 17, 7]),
        ("widths=[17,7],[5,7]", [[17, 7], [5, 7]]),
        ("size={powers_of=2,first=5,last=8}", {"powers_of": 2, "first": 5, "last": 8}),
        ("repetitions=2", 2),
        ("shape=wide_first_2x", "wide_first_2x"),
    ],
)
def test_an_assignment_reads_values_as_a_file_does_and_words_without_quotes(text, value):
    assert parse_assignments([text]) == {text.partition("=")[0].strip(): value}


def test_the_last_of_two_assignments_counts():
    assert parse_assignments(["size=1", "depth=2", "size=3"]) == {"size": 3, "depth": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth", "--set depth: write a key and its values, as in --set depth=3,5"),
        ("depth=", "--set depth=: write a key"),
        ("dept=3", "--set: dept: unknown key; did you mean depth?"),
        ("zip=3", "--set: zip: unknown key"),
    ],
)
def test_what_is_no_assignment_is_refused(text, message):
    with pytest.raises(SweepError, match=message):
        parse_assignments([text])


@pytest.mark.parametrize(
    ("text", "hours"),
    [("100core-h", 100), ("0.5 core-h", 0.5), ("1e3coreh", 1000), ("2 core-hours", 2)],
)
def test_a_budget_is_a_number_of_core_hours(text, hours):
    assert read_selection(None, None, text, {}).budget_core_h == hours


@pytest.mark.parametrize(
    "text", ["100", "core-h", "0core-h", "-1core-h", "1.2.3core-h", "1e999core-h", "3 days"]
)
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(
        SweepError, match=r"--budget .*: write core-hours, as in --budget 100core-h"
    ):
        read_selection(None, None, text, {})


def test_a_selection_is_told_as_the_options_that_asked_for_it():
    selection = read_selection("depth<=5", 3, "2core-h", {})
    assert selection.text == "--filter 'depth<=5' --limit 3 --budget 2core-h"
    assert (read_selection(None, None, None, {}), EVERYTHING.text) == (EVERYTHING, "")
    with pytest.raises(SweepError, match="--limit 0: must be at least 1"):
        read_selection(None, 0, None, {})
    with pytest.raises(SweepError, match="--filter 'dept<=5': dept: unknown key"):
        read_selection("dept<=5", None, None, {})


# ---------------------------------------------------------------------------------------------
# What a budget buys


experiments = st.lists(
    st.tuples(st.floats(1e-3, 1e6), st.integers(0, 4), st.booleans(), st.integers(0, 2**60)),
    min_size=1,
    max_size=60,
    unique_by=lambda each: each[3],
)


def order_of(rows):
    cost, stratum, is_corner, number = map(np.array, zip(*rows, strict=True))
    return cost, nested_order(cost, stratum, is_corner, [f"{each:032x}" for each in number])


@given(experiments, st.randoms())
def test_every_experiment_is_bought_once_and_the_order_of_the_file_does_not_matter(rows, random):
    _, order = order_of(rows)
    assert sorted(order) == list(range(len(rows)))
    shuffled = random.sample(rows, len(rows))
    _, again = order_of(shuffled)
    assert [shuffled[number] for number in again] == [rows[number] for number in order]


@given(experiments)
def test_an_experiment_comes_before_one_of_half_its_cost_only_if_it_is_a_small_part_of_all(rows):
    cost, order = order_of(rows)
    spent = np.cumsum(cost[order]) - cost[order]
    for place, number in enumerate(order):
        later = cost[order[place + 1 :]]
        if (later <= cost[number] / 2).any():
            # A stage ends within a sixteenth of its bound, and the next one doubles it.
            assert cost[number] <= spent[place] * 2 / 15 * (1 + 1e-9)


def test_corners_come_first_then_sizes_take_turns():
    n = 40
    is_corner = np.arange(n) % 10 == 0
    stratum = np.arange(n) // 10
    order = nested_order(np.ones(n), stratum, is_corner, [f"{7 * i % n:032x}" for i in range(n)])
    # All cost the same: the first stage takes sixteen, the next as many again.
    assert is_corner[order[:4]].all()
    assert stratum[order[:4]].tolist() == [0, 1, 2, 3]
    others = order[4:]
    assert not is_corner[others].any()
    assert stratum[others].tolist() == [0, 1, 2, 3] * 9


def test_a_small_budget_buys_many_small_experiments_and_no_large_one():
    cost = np.array([1.0] * 100 + [1000.0] * 100)
    stratum = np.array([0] * 100 + [1] * 100)
    ids = [f"{i:032x}" for i in range(200)]
    order = nested_order(cost, stratum, np.zeros(200, bool), ids)
    assert set(order[:100]) == set(range(100))
    cost[100:] = 2.0
    order = nested_order(cost, stratum, np.zeros(200, bool), ids)
    assert {*stratum[order[16:40]]} == {0, 1}
