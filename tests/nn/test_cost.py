"""What is worth packing: properties of the choice that hold whatever the constants are."""

import numpy as np
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


def test_amounts_are_counted_as_the_kernels_do_them():
    """By hand: 40 rows are 3 blocks of 16, and 5 units one; weights with their biases."""
    network = Network(7, (5, 3), "classification")
    alone, packed = (cost.step_amounts(network, 40, repetitions) for repetitions in (1, 16))
    forward, inner = 8 * 5 + 6 * 3, 6 * 3
    assert alone.flop == 2 * 48 * (forward + inner + 8 * 16 + 6 * 16)
    assert packed.flop == 16 * 2 * 40 * (2 * forward + inner)
    assert alone._replace(flop=0) == (1, 2, 40, 40 * 7, 0, 40 * 8, 40 * 3, 58, 0)
    assert packed._replace(flop=0) == (1, 2, 640, 640 * 7, 0, 640 * 8, 640 * 3, 16 * 58, 0)


def test_numbers_of_float64_count_twice_in_arithmetic_alone():
    single, double = (
        cost.step_amounts(Network(8, (16, 16), "classification", dtype=dtype), 32)
        for dtype in ("float32", "float64")
    )
    for name, amount in single._asdict().items():
        is_arithmetic = name in ("row", "flop", "activation", "output", "parameter")
        assert getattr(double, name) == (2 if is_arithmetic else 1) * amount


def test_parameters_are_distant_as_far_as_they_exceed_the_cache(monkeypatch):
    network = Network(9, (10, 10), "classification")  # 210 parameters, 16 bytes each
    for near_bytes, distant in ((210 * 16, 0), (110 * 16, 100), (0, 210)):
        monkeypatch.setattr(cost, "_NEAR_BYTES", near_bytes)
        assert cost.step_amounts(network, 1).distant == distant
    monkeypatch.setattr(cost, "_NEAR_BYTES", 210 * 16)
    assert cost.step_amounts(network, 1, 16).distant == 15 * 210
    double = Network(9, (10, 10), "classification", dtype="float64")
    assert cost.step_amounts(double, 1).distant == 210


def test_other_rates_give_other_times_and_other_choices():
    slow_packed = cost.CostModel(cost.ALONE, cost.Rates(*(100 * rate for rate in cost.PACKED)))
    assert cost.step_us(NARROW, 32, 16, slow_packed) == pytest.approx(
        100 * cost.step_us(NARROW, 32, 16)
    )
    assert cost.step_us(NARROW, 32, 1, slow_packed) == cost.step_us(NARROW, 32)
    assert cost.choose_group_size(NARROW, 32, 16, 1, slow_packed) == 1


def test_an_epoch_is_its_steps_and_a_third_of_one_for_each_batch_that_is_evaluated():
    beside_us = cost.EPOCH_US + cost.REPETITION_US
    step_us = cost.step_us(NARROW, 32)
    assert cost.epoch_us(NARROW, 320, 96, 32) == pytest.approx(beside_us + 11 * step_us)
    beside_us = cost.EPOCH_US + 5 * cost.REPETITION_US
    packed_us = cost.step_us(NARROW, 32, 16)
    assert cost.epoch_us(NARROW, 320, 0, 32, 5) == pytest.approx(beside_us + 10 * packed_us)


@pytest.mark.parametrize("repetitions", [1, 16])
def test_shares_are_the_parts_of_a_step_that_each_rate_makes(repetitions):
    shares = cost.step_shares(WIDE, 256, repetitions)
    n_rates = len(cost.Rates._fields)
    mine, others = shares[:n_rates], shares[n_rates:]
    if repetitions > 1:
        mine, others = others, mine
    assert shares.sum() == pytest.approx(1)
    assert not others.any()
    doubled = cost.CostModel(*(rates._replace(flop=2 * rates.flop) for rates in cost.BUILT_IN))
    more = cost.step_us(WIDE, 256, repetitions, doubled) / cost.step_us(WIDE, 256, repetitions)
    assert mine[cost.Rates._fields.index("flop")] == pytest.approx(more - 1)
    assert (mine >= 0).all()
    assert np.isfinite(mine).all()
