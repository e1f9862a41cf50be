"""The sentence on energy that ends a sweep."""

import pandas as pd

from minibutter.report import energy_text


def runs(*rows):
    columns = ["energy_j", "energy_quality", "energy_source", "energy_reason", "n_ranks"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(status="completed", energy_j=frame["energy_j"].astype("Float64"))


MEASURED = (10.0, "measured", "powercap:package", None, 1)
SIMULATED = (5000.0, "simulated", "simulated:package", None, 1)
MISSING = (None, "unavailable", None, "no counters", 1)


def test_measured_joules_are_added_over_the_runs_that_have_them():
    assert energy_text(runs(MEASURED, MEASURED, MISSING)) == (
        "energy: 20.0 J over 2 of 3 runs (powercap:package)"
    )


def test_simulated_joules_are_never_added_to_measured_ones():
    assert energy_text(runs(MEASURED, SIMULATED)) == (
        "energy: 1 of 2 runs are simulated: 5000.0 J, of which none was measured; "
        "energy: 10.0 J over 1 of 1 runs (powercap:package)"
    )


def test_joules_that_ranks_shared_are_not_added():
    shared = (10.0, "measured_shared", "powercap:package", None, 2)
    assert "must not be added" in energy_text(runs(shared, shared))
    text = energy_text(runs((*SIMULATED[:-1], 2), (*SIMULATED[:-1], 2)))
    assert "2 of 2 runs are simulated: joules that overlap" in text
    assert "10000" not in text


def test_where_nothing_was_measured_the_reason_stands():
    assert energy_text(runs(MISSING)) == "energy: not measured: no counters"
