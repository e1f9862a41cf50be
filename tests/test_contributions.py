"""What ranks that trained a run together have measured, added up."""

import pytest

from minibutter import runs
from minibutter.energy import open_meter
from minibutter.launch.contributions import add_up, measured_by
from minibutter.provenance import read_provenance
from minibutter.runs import RunResult
from minibutter.store.rows import epoch_table, run_table
from minibutter.store.schema import COUNTERS

KNOWN = {
    "energy_j": 8.0, "energy_source": "powercap:package", "energy_quality": "measured_shared",
    "energy_reason": None, "energy_resolution_j": 0.25,
}  # fmt: skip
KNOWN_OF_RUN = KNOWN | {
    "energy_idle_j": 3.0, "energy_dynamic_j": 5.0, "energy_package_j": 20.0, "energy_ranks": 2,
    "energy_mode": "shared", "energy_tail_j": None, "finish_spread_s": None, "foreign_load": 0.01,
    "meter_reads": 4, "meter_cpu_s": 0.125, "boot_id": "a", "hostname": "node-a", "package": 0,
}  # fmt: skip
UNKNOWN = {
    "energy_j": None, "energy_source": None, "energy_quality": "unavailable",
    "energy_reason": "the counter stood still", "energy_resolution_j": None,
}  # fmt: skip


@pytest.fixture
def trained(plan):
    """A result of three epochs."""
    with open_meter() as meter:
        return runs.execute(plan(), 0, meter=meter, provenance=read_provenance(), sweep="test")


@pytest.fixture
def make_part(trained):
    """What a rank has measured: joules of the run and every epoch; keywords replace columns."""

    def make(run=None, **epochs):
        known = {name: [value] * 3 for name, value in KNOWN.items()}
        windows = {"energy_window_s": [None] * 3}
        return RunResult(
            trained.run | KNOWN_OF_RUN | (run or {}), trained.epochs | known | windows | epochs
        )

    return make


def together(*results):
    """The result that the first rank writes down, which the store must take."""
    result = add_up(results[0], [measured_by(result) for result in results])
    run_table([result.run])
    epoch_table([result.run], [result.epochs])
    return result


def test_joules_and_readings_of_ranks_are_added(make_part):
    result = together(make_part(), make_part({"energy_j": 10.0, "energy_idle_j": 5.0}))
    assert result.run["energy_j"] == 18.0
    assert (result.run["energy_idle_j"], result.run["energy_dynamic_j"]) == (8.0, 10.0)
    assert result.run["energy_resolution_j"] == 0.5
    assert (result.run["meter_reads"], result.run["meter_cpu_s"]) == (8, 0.25)
    assert result.epochs["energy_j"] == [16.0] * 3


def test_what_belongs_to_a_package_counts_once(make_part):
    same, other = make_part(), make_part({"package": 1, "energy_package_j": 7.0})
    elsewhere = make_part({"boot_id": "b", "hostname": "node-b", "energy_ranks": 3})
    later = make_part({"energy_package_j": 19.0})
    run = together(same, later, other, elsewhere).run
    assert run["energy_package_j"] == 20.0 + 7.0 + 20.0
    assert run["energy_ranks"] == 2 + 2 + 3


def test_a_sum_is_worth_what_its_weakest_part_is(make_part):
    alone = {"energy_quality": "measured", "energy_mode": "alone", "energy_source": "perf:pkg"}
    run = together(make_part(alone), make_part()).run
    assert run["energy_quality"] == "measured_shared"
    assert run["energy_mode"] == "shared"
    assert run["energy_source"] == "perf:pkg+powercap:package"
    assert together(make_part(alone), make_part(alone)).run["energy_mode"] == "alone"


def test_energy_that_one_rank_does_not_know_is_not_known_and_says_why(make_part):
    second = {name: [KNOWN[name], UNKNOWN[name], KNOWN[name]] for name in KNOWN}
    result = together(make_part(), make_part(UNKNOWN, **second))
    assert (result.run["energy_j"], result.run["energy_quality"]) == (None, "unavailable")
    assert result.run["energy_reason"] == "the counter stood still"
    assert result.run["energy_package_j"] is result.run["energy_mode"] is None
    assert result.epochs["energy_j"] == [16.0, None, 16.0]
    assert result.epochs["energy_reason"] == [None, "the counter stood still", None]


def test_events_of_ranks_are_added_where_all_have_counted_them(make_part):
    counted = {name: [5, 6, 7] for name in COUNTERS}
    every = {"counters_reason": None}
    result = together(make_part(every, **counted), make_part(every, **counted))
    assert result.epochs["cycles"] == [10, 12, 14]
    assert result.run["counters_reason"] is None
    gap = counted | {"cycles": [5, None, 7], "llc_loads": None}
    reason = {"counters_reason": "llc_loads: nobody counts them"}
    result = together(make_part(every, **counted), make_part(reason, **gap))
    assert result.epochs["cycles"] == [10, None, 14]
    assert result.epochs["llc_loads"] is None
    assert result.run["counters_reason"] == "llc_loads: nobody counts them"


def test_the_rest_is_that_of_the_first_rank(make_part):
    first, second = make_part({"duration_s": 1.0, "rank": 0}), make_part({"duration_s": 2.0})
    result = together(first, second)
    assert result.run["duration_s"] == 1.0
    assert result.epochs["test_loss"] is first.epochs["test_loss"]
    assert list(result.run) == list(first.run)
    assert list(result.epochs) == list(first.epochs)


def test_the_widest_window_and_the_largest_spread_and_load_are_kept(make_part):
    one = make_part({"finish_spread_s": 0.5, "foreign_load": 0.2}, energy_window_s=[0.1, None, 1.0])
    result = together(make_part(), one)
    assert (result.run["finish_spread_s"], result.run["foreign_load"]) == (0.5, 0.2)
    assert result.epochs["energy_window_s"] == [0.1, None, 1.0]


def test_a_run_that_failed_before_its_first_epoch_has_nothing_to_add(trained):
    failed = RunResult(
        trained.run
        | dict.fromkeys(KNOWN_OF_RUN)
        | UNKNOWN
        | {"status": "failed", "error": "no room", "epochs_completed": 0}
        | {name: trained.run[name] for name in ("boot_id", "hostname", "package")},
        {name: [] for name in trained.epochs},
    )
    run = together(failed, failed).run
    assert (run["energy_j"], run["meter_reads"], run["foreign_load"]) == (None, None, None)
