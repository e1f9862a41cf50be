"""The sentence on energy that ends a sweep."""

import pandas as pd

from minibutter.report import account_text, energy_text


def runs(*rows):
    columns = ["energy_j", "energy_quality", "energy_source", "energy_reason", "n_ranks"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(status="completed", energy_j=frame["energy_j"].astype("Float64"))


MEASURED = (10.0, "measured", "powercap:package", None, 1)
SIMULATED = (5000.0, "simulated", "simulated:package", None, 1)
MISSING = (None, "unavailable", None, "no counters", 1)


def test_measured_joules_are_added_over_the_runs_that_have_them():
    assert energy_text(runs(MEASURED, MEASURED, MISSING)) == (
        "energy: 20.0 J over 2 of 3 runs (powercap:package; measured)"
    )


def test_simulated_joules_are_never_added_to_measured_ones():
    assert energy_text(runs(MEASURED, SIMULATED)) == (
        "energy: 1 of 2 runs are simulated: 5000.0 J, of which none was measured; "
        "energy: 10.0 J over 1 of 1 runs (powercap:package; measured)"
    )


def test_parts_of_ranks_add_up_and_say_what_they_are_worth():
    shared = (10.0, "measured_shared", "powercap:package", None, 2)
    assert energy_text(runs(shared, shared)) == (
        "energy: 20.0 J over 2 of 2 runs (powercap:package; measured_shared)"
    )


ACCOUNT = {
    "hostname": "node-1", "total_j": 100.0, "attributed_j": 50.0, "idle_j": 40.0,
    "unattributed_j": 10.0, "idle_before_w": 20.0, "idle_after_w": 21.5, "foreign_load": 0.004,
    "reason": None, "n_unknown": 0, "imbalance_j": 1e-6,
}  # fmt: skip


def test_the_account_of_a_node_is_a_sum():
    assert account_text(ACCOUNT) == (
        "energy of node-1: 100.0 J = 50.0 J in runs + 40.0 J idle at 20.0 W (21.5 W afterwards) + "
        "10.0 J between them"
    )
    assert "idle power not measured + 10.0 J" in account_text(ACCOUNT | {"idle_j": None})
    assert "2 runs without joules" in account_text(ACCOUNT | {"n_unknown": 2})
    assert "-3 J do not add up" in account_text(ACCOUNT | {"imbalance_j": -3.0})
    loaded = account_text(ACCOUNT | {"foreign_load": 0.13})
    assert "others took 13% of its processors" in loaded


def test_an_account_that_is_not_known_says_why():
    text = account_text(dict.fromkeys(ACCOUNT) | {"hostname": "node-1", "reason": "a gap"})
    assert text == "energy of node-1: not accounted for: a gap"


def test_where_nothing_was_measured_the_reason_stands():
    assert energy_text(runs(MISSING)) == "energy: not measured: no counters"
