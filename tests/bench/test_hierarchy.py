"""Our cache simulator against cachegrind, and the table that compares them."""

from pathlib import Path

import numba
import pytest

from bench import hierarchy
from bench.cachegrind import Counts, _read_summary, why_not
from bench.cachegrind_products import prepare


@pytest.mark.cachegrind
@pytest.mark.timeout(1200)  # under valgrind, and the kernels are compiled for AVX2 first
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
@pytest.mark.parametrize("rung", hierarchy.RUNGS)
def test_simulator_counts_the_misses_of_cachegrind(rung):
    widths = tuple(sorted({*hierarchy.AROUND_D1, *hierarchy.AROUND_LL}))
    cases = [case for case in hierarchy.make_cases(widths) if case.kernel == rung]
    n_missing = 0
    for row in hierarchy.compare(cases):
        for ours, measured in zip(
            row.simulated, (row.measured.d1_misses, row.measured.ll_misses), strict=True
        ):
            assert hierarchy.agrees(ours, measured), row
            n_missing += measured > 1000
        # Nothing is known of the stack of its callers.
        assert row.measured.accesses > 0
        for predicted, ours, margin in zip(row.predicted, row.simulated, row.margins, strict=True):
            if margin >= 2:
                assert predicted == pytest.approx(ours, rel=0.1, abs=hierarchy.UNSEEN), row
    assert n_missing >= 12  # or nothing was compared


@pytest.mark.cachegrind
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("product", hierarchy.PRODUCTS)
def test_kernels_tell_where_their_stack_lies(product):
    (case,) = (
        case
        for case in hierarchy.make_cases((16,))
        if (case.kernel, case.product) == ("blocked", product)
    )
    _, addresses = prepare(case)
    (stack,) = (
        line for line in Path("/proc/self/maps").read_text().splitlines() if "[stack]" in line
    )
    start, end = (int(bound, 16) for bound in stack.split()[0].split("-"))
    assert start < addresses["stack"] < end
    assert addresses["stack"] % 8 == 0


def test_the_table_shows_what_each_source_says():
    (case, *_) = hierarchy.make_cases((96,))
    row = hierarchy.Row(
        case, Counts(9e5, 3100.0, 2.0, {}), (3100.0, 0.0), (2790.0, 0.0), (2.5, float("inf"))
    )
    table = hierarchy.make_table([row])
    assert (
        "| naive | z = x w | 96 | D1 | 3,100 | 3,100 | +0.0 % | 2,790 | -10.0 % | x 2.50 |" in table
    )
    assert "| LL |" not in table
    assert "2 of 2 counts" in table


def test_counts_agree_within_a_share_or_a_few_lines():
    assert hierarchy.agrees(960, 1000)
    assert hierarchy.agrees(10_400, 10_000)
    assert not hierarchy.agrees(10_600, 10_000)
    assert not hierarchy.agrees(0, 200)
    assert hierarchy.agrees(0, 100)


def test_totals_are_read_by_the_names_of_their_events(tmp_path):
    path = tmp_path / "1.out"
    path.write_text(
        "cmd: python -m x\nevents: Ir Dr D1mr\nfn=(below main)\n1 2 3\nsummary: 10 20 30\n"
    )
    assert _read_summary(path) == {"Ir": 10, "Dr": 20, "D1mr": 30}
