"""What is worth packing: properties of the choice that hold whatever the constants are."""

import pytest

from minibutter.nn import cost
from minibutter.nn.network import Network

NARROW = Network(8, (4, 4, 4, 1), "regression")
WIDE = Network(64, (256, 256, 10), "classification")


def test_narrow_networks_are_packed_and_wide_ones_are_not():
    assert cost.choose_group_size(NARROW, 32, 16, 1) == 16
    assert cost.choose_group_size(WIDE, 256, 16, 1) == 1


def test_a_group_is_never_larger_than_what_is_missing_or_fits_the_lanes():
    for n_pending in range(40):
        assert cost.choose_group_size(NARROW, 32, n_pending, 1) <= max(min(n_pending, 16), 1)
    narrow = Network(8, (4, 4, 4, 1), "regression", dtype="float64")
    assert cost.choose_group_size(narrow, 32, 100, 1) <= 8


def test_one_repetition_is_not_packed_and_none_neither():
    assert cost.choose_group_size(NARROW, 32, 1, 1) == 1
    assert cost.choose_group_size(NARROW, 32, 0, 1) == 1


def test_packing_ends_no_later_than_spreading_single_runs_over_the_ranks():
    """Groups are dealt to the ranks in turn; a rank may stand idle where that costs no time."""

    def last_rank_us(n_pending, size, n_ranks):
        groups = [min(size, n_pending - start) for start in range(0, n_pending, size)]
        times = [cost.step_us(NARROW, 32, group) for group in groups]
        return max(sum(times[rank::n_ranks]) for rank in range(n_ranks))

    for n_pending in (2, 3, 7, 16, 17, 33, 100):
        for n_ranks in (1, 2, 3, 4, 8, 100):
            size = cost.choose_group_size(NARROW, 32, n_pending, n_ranks)
            chosen_us = last_rank_us(n_pending, size, n_ranks)
            every_us = [last_rank_us(n_pending, other, n_ranks) for other in range(1, 17)]
            assert chosen_us == pytest.approx(min(every_us), rel=1e-12)


@pytest.mark.parametrize("kernel", ["naive", "blocked", "blas"])
def test_other_rungs_cannot_be_packed(kernel):
    network = Network(8, (4, 4, 4, 1), "regression", kernel=kernel)
    assert cost.max_group_size(network) == 1
    assert cost.choose_group_size(network, 32, 16, 1) == 1


def test_a_step_costs_more_with_more_rows_and_more_units():
    for repetitions in (1, 16):
        step_us = cost.step_us(NARROW, 32, repetitions)
        assert step_us < cost.step_us(NARROW, 256, repetitions)
        assert step_us < cost.step_us(WIDE, 32, repetitions)


def test_a_group_costs_the_same_however_many_of_its_lanes_are_asked_for():
    assert cost.step_us(NARROW, 32, 2) == cost.step_us(NARROW, 32, 16) > cost.step_us(NARROW, 32)
