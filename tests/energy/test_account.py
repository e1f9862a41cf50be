"""Total = attributed + idle + unattributed, each counted by itself."""

import pytest

from minibutter.energy.account import NodeAccount, RankShare, balance

NODE = NodeAccount(
    hostname="node-1", boot_id="b", source="powercap:package", mode="gang", ranks=(0, 1),
    reader_rank=0, begun_ns=0, ended_ns=10**9, idle_before_w=50.0, idle_after_w=51.0,
)  # fmt: skip


def test_a_balanced_account_adds_up():
    shares = [RankShare(28.0, 2.0, 0), RankShare(15.0, 5.0, 1)]
    joules = balance(100.0, shares, spare_j=10.0, idle_w=20.0, seconds=2.0)
    assert (joules.attributed_j, joules.idle_j, joules.unattributed_j) == (43.0, 40.0, 17.0)
    assert joules.imbalance_j == pytest.approx(0.0, abs=1e-12)
    assert joules.n_unknown == 1


def test_what_is_lost_or_counted_twice_shows_as_imbalance():
    shares = [RankShare(28.0, 2.0, 0)] * 2
    assert balance(100.0, shares, 0.0, None, 2.0).imbalance_j == 40.0
    assert balance(55.0, shares, 0.0, None, 2.0).imbalance_j == -5.0


def test_without_an_idle_power_idle_energy_is_null():
    joules = balance(30.0, [RankShare(28.0, 2.0, 0)], 0.0, None, 2.0)
    assert (joules.idle_j, joules.attributed_j, joules.unattributed_j) == (None, 28.0, 2.0)


def test_a_share_that_is_not_known_leaves_no_sum():
    answer = balance(30.0, [RankShare(1.0, 1.0, 0), RankShare(1.0, None, 0)], 0.0, 1.0, 1.0)
    assert answer == "the counters could not be read all the time for rank 1 of the node"


def test_drift_of_the_idle_power_is_relative():
    assert NODE.drift == pytest.approx(0.02)
    assert NODE.columns()["idle_drift"] == NODE.drift
    assert NODE.columns()["ranks"] == [0, 1]
