"""Energies that are put together from parts."""

from dataclasses import replace

import pytest

from minibutter.energy import Energy, add_up, unavailable_energy
from minibutter.energy.quantity import QUALITIES
from minibutter.store.schema import ENERGY_QUALITIES

WHOLE = Energy(
    energy_j=10.0,
    source="powercap:package",
    quality="measured",
    resolution_j=0.5,
    idle_j=4.0,
    package_j=20.0,
    n_ranks=2,
)


def test_one_part_is_the_whole():
    assert add_up([WHOLE]) is WHOLE
    unknown = unavailable_energy("no counters")
    assert add_up([unknown]) is unknown


def test_parts_add_up_with_their_uncertainties():
    total = add_up([WHOLE, replace(WHOLE, energy_j=2.5, resolution_j=0.25, idle_j=1.0)])
    assert total == replace(WHOLE, energy_j=12.5, resolution_j=0.75, idle_j=5.0, package_j=40.0)
    assert total.dynamic_j == 7.5


def test_energy_is_not_known_where_that_of_a_part_is_not():
    total = add_up([WHOLE, unavailable_energy("no counters"), WHOLE])
    assert (total.energy_j, total.quality) == (None, "unavailable")
    assert total.reason == "of part 2 of 3: no counters"
    assert total.package_j is None


def test_idle_energy_is_not_known_where_that_of_a_part_is_not():
    total = add_up([WHOLE, replace(WHOLE, idle_j=None)])
    assert (total.energy_j, total.idle_j, total.dynamic_j) == (20.0, None, None)


@pytest.mark.parametrize("weaker", QUALITIES[1:])
def test_whole_is_worth_what_its_weakest_part_is(weaker):
    parts = [WHOLE, replace(WHOLE, quality=weaker), WHOLE]
    assert add_up(parts).quality == weaker


def test_parts_of_different_counters_name_both_and_no_number_of_ranks():
    total = add_up([WHOLE, replace(WHOLE, source="perf:package", n_ranks=1), WHOLE])
    assert total.source == "powercap:package, perf:package"
    assert total.n_ranks is None


def test_qualities_are_those_of_the_tables():
    assert QUALITIES == ENERGY_QUALITIES
