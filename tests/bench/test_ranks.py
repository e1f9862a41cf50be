"""What the comparison of two ranks with one says of figures that are known."""

import tomllib

from bench.markers import read_table
from bench.ranks import DOCUMENT, NAME, SWEEPS, make_table
from minibutter.experiments import CHECKS, plan_experiments
from minibutter.sweeps.spec import parse_sweep


def test_a_row_of_the_table_has_seconds_ratios_and_milliseconds():
    row = {
        "sweep": "3 runs", "one_rank_s": 3.04, "two_ranks_s": 1.6, "speedup": 1.9,
        "speedup_of_two_jobs": 1.956, "wait_median_ms": 1.31, "wait_p99_ms": 1.96,
        "outside": 0.0291,
    }  # fmt: skip
    assert make_table([row]).splitlines()[-1] == (
        "| 3 runs | 3.0 s | 1.6 s | 1.90 | 1.96 | 1.3, 2.0 ms | 2.9% |"
    )


def test_every_run_of_its_sweeps_can_be_trained_and_there_are_as_many_as_it_says():
    for name, text in SWEEPS.items():
        plan = plan_experiments(parse_sweep(tomllib.loads(text), "s.toml", CHECKS))
        assert not plan.has_problem.any()
        assert plan.repetitions.sum() == int(name.split()[0].replace(",", ""))


def test_the_document_has_the_table():
    assert read_table(NAME, DOCUMENT)
