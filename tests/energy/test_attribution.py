"""One reader for many ranks: what each of them gets, and that nothing is lost or counted twice."""

import os
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibutter.energy import open_rank_meter, open_reader
from minibutter.energy.attribution import GANG, SHARED, RankMeter, watch
from minibutter.energy.board import BoardGone, BoardReader
from minibutter.energy.powercap import PowercapSource
from minibutter.energy.profiles import AMD_RANGE_UJ, Profile, ZoneSpec
from minibutter.energy.reader import NodeReader, read_busy, read_process_cpu_ns
from tests.energy.conftest import EINVAL, JOULE, FaultyFiles, Machine, assert_unavailable

SECOND_NS = 10**9


class Ranks:
    """A node of ranks in one process: counters, clock and processor times are moved by hand.

    Attributes
    ----------
    cpu_ns : processor time of every rank.
    busy_ns : of the whole node.
    """

    def __init__(self, machine, n_ranks=2, packages=None, mode=SHARED, files=None):
        self.machine, self.cpu_ns, self.busy_ns = machine, [0] * n_ranks, 0
        source = PowercapSource(machine.root, files or FaultyFiles(), machine.clock)
        self.reader = NodeReader(
            source,
            packages or [None] * n_ranks,
            range(n_ranks),
            clock=machine.clock,
            process_cpu_ns=lambda process: self.cpu_ns[process],
            busy=lambda: (self.busy_ns, 4),
        )
        self.meters = [
            RankMeter(self.reader.counters, i, mode, clock=machine.clock) for i in range(n_ranks)
        ]
        self.node = watch(self.reader.counters)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for meter in (*self.meters, self.node):
            meter.close()
        self.reader.close()

    def open_accounts(self):
        now_ns = self.machine.clock()
        for meter in (*self.meters, self.node):
            meter.open_account(now_ns)
        return now_ns

    def close_accounts(self):
        now_ns = self.machine.clock()
        for meter in (*self.meters, self.node):
            meter.close_account(now_ns)
        return now_ns

    def pass_time(self, seconds, cpu_s, energy_j=10.0, foreign_s=0.0):
        """Time passes: every counter draws, and every rank has used its processor."""
        for rank, used_s in enumerate(cpu_s):
            self.cpu_ns[rank] += round(used_s * 1e9)
        self.busy_ns += round((sum(cpu_s) + foreign_s) * 1e9)
        self.machine.draw_all(seconds, round(energy_j * JOULE))
        return self.sample()

    def sample(self):
        """Have the counters read; the moment."""
        return self.reader._sampler.sample(self.reader._sampler.n_summed)


@pytest.fixture(autouse=True)
def nobody_reads_unasked(monkeypatch):
    """Only who asks has the counters read: what a test sees does not depend on the real time."""
    monkeypatch.setattr("minibutter.energy.reader.PERIOD_S", 3600.0)
    monkeypatch.setattr("minibutter.energy.reader.SHORTEST_PERIOD_S", 0.0)


# ---------------------------------------------------------------------------------------------
# Shared: by processor time


def test_ranks_share_what_was_drawn_above_idling_by_processor_time(single):
    with Ranks(single, 3) as ranks:
        begin = ranks.sample()
        idle_end = ranks.pass_time(1.0, [0, 0, 0], energy_j=6.0)
        assert {m.set_idle_between(begin, idle_end) for m in ranks.meters} == {None}
        ranks.open_accounts()
        ranks.pass_time(1.0, [1.0, 0.5, 0.0], energy_j=36.0)
        end = ranks.pass_time(1.0, [0.0, 0.5, 0.5], energy_j=16.0)
        energies = [meter.between(idle_end, end) for meter in ranks.meters]
    # 30 J and 10 J above idling; 6 W idle for 2 s, a third each.
    assert [e.dynamic_j for e in energies] == pytest.approx([20.0, 10.0 + 5.0, 5.0])
    assert [e.idle_j for e in energies] == pytest.approx([4.0] * 3)
    assert sum(e.energy_j for e in energies) == pytest.approx(52.0)
    assert {e.package_j for e in energies} == {52.0}
    assert {(e.quality, e.n_ranks) for e in energies} == {("measured_shared", 3)}


def test_without_an_idle_power_all_is_shared_by_processor_time_and_idle_is_not_known(single):
    with Ranks(single) as ranks:
        begin = ranks.sample()
        ranks.open_accounts()
        end = ranks.pass_time(1.0, [0.25, 0.75], energy_j=40.0)
        energies = [meter.between(begin, end) for meter in ranks.meters]
    assert [e.energy_j for e in energies] == pytest.approx([10.0, 30.0])
    assert {(e.idle_j, e.dynamic_j) for e in energies} == {(None, None)}


def test_ranks_of_a_package_share_its_energy_and_not_that_of_others(server):
    with Ranks(server, 3, packages=[0, 0, 1]) as ranks:
        begin = ranks.sample()
        server.draw(1.0, package_0=80 * JOULE, package_0__dram=20 * JOULE, package_1=7 * JOULE,
                    package_1__dram=1 * JOULE)  # fmt: skip
        ranks.cpu_ns[:] = [3 * SECOND_NS, SECOND_NS, SECOND_NS]
        end = ranks.sample()
        energies = [meter.between(begin, end) for meter in ranks.meters]
    assert [meter.package for meter in ranks.meters] == [0, 0, 1]
    assert [e.energy_j for e in energies] == pytest.approx([75.0, 25.0, 8.0])
    assert [e.package_j for e in energies] == [100.0, 100.0, 8.0]
    # A rank alone on its package has all of it, and that is measured.
    assert [e.quality for e in energies] == ["measured_shared"] * 2 + ["measured"]


def test_a_rank_that_may_run_on_several_packages_shares_all_with_all(server):
    with Ranks(server, 2, packages=[0, None]) as ranks:
        begin = ranks.sample()
        end = ranks.pass_time(1.0, [0.5, 0.5])
        energies = [meter.between(begin, end) for meter in ranks.meters]
    assert [meter.package for meter in ranks.meters] == [None, None]
    assert [e.energy_j for e in energies] == pytest.approx([20.0, 20.0])


def test_a_processor_time_that_cannot_be_read_makes_no_share(single):
    with Ranks(single) as ranks:
        begin = ranks.sample()

        def refuse(process):
            raise OSError(22, "Invalid argument")

        ranks.reader._process_cpu_ns = refuse
        end = ranks.pass_time(1.0, [0.5, 0.5])
        assert_unavailable(ranks.meters[1].between(begin, end), "processor time of rank 0")


# ---------------------------------------------------------------------------------------------
# Gangs: equal parts


def test_ranks_of_a_gang_get_equal_parts_while_they_work(single):
    with Ranks(single, 2, mode=GANG) as ranks:
        begin = ranks.sample()
        idle_end = ranks.pass_time(1.0, [0, 0], energy_j=6.0)
        for meter in ranks.meters:
            meter.set_idle_between(begin, idle_end)
            meter.claim(idle_end, 1 / 2)
        end = ranks.pass_time(1.0, [0.3, 0.9], energy_j=26.0)
        energies = [meter.between(idle_end, end) for meter in ranks.meters]
    assert [(e.energy_j, e.idle_j, e.dynamic_j) for e in energies] == [
        pytest.approx((13.0, 3.0, 10.0))
    ] * 2
    assert {(e.quality, e.n_ranks) for e in energies} == {("measured_divided", 2)}


def test_a_rank_without_a_part_in_a_block_gets_nothing_of_it(single):
    with Ranks(single, 3, mode=GANG) as ranks:
        begin = ranks.sample()
        for meter, part in zip(ranks.meters, (1 / 2, 1 / 2, 0.0), strict=True):
            meter.claim(begin, part)
        end = ranks.pass_time(1.0, [1, 1, 0], energy_j=30.0)
        energies = [meter.between(begin, end) for meter in ranks.meters]
    assert [e.energy_j for e in energies] == [15.0, 15.0, 0.0]
    assert [e.n_ranks for e in energies[:2]] == [2, 2]


# ---------------------------------------------------------------------------------------------
# Nothing is lost, nothing counted twice


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_parts_of_all_ranks_add_up_to_the_node_in_both_modes(tmp_path_factory, data):
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0")
    folder = tmp_path_factory.mktemp("machine")
    machine = Machine(folder / "m", Profile((zone,), ("package-0",)))
    n_ranks = data.draw(st.integers(1, 4))
    mode = data.draw(st.sampled_from([SHARED, GANG]))
    with Ranks(machine, n_ranks, mode=mode) as ranks:
        begin = ranks.sample()
        idle_end = ranks.pass_time(1.0, [0] * n_ranks, energy_j=data.draw(st.integers(1, 50)))
        for meter in (*ranks.meters, ranks.node):
            meter.set_idle_between(begin, idle_end)
        opened = ranks.open_accounts()
        drawn_j = 0.0
        for _ in range(data.draw(st.integers(1, 6))):
            if mode == GANG:
                members = data.draw(st.integers(1, n_ranks))
                for i, meter in enumerate(ranks.meters):
                    meter.claim(machine.clock(), 1 / members if i < members else 0.0)
            cpu_s = data.draw(st.lists(st.floats(0, 1), min_size=n_ranks, max_size=n_ranks))
            seconds = data.draw(st.floats(0.02, 2.0))
            energy_j = round(seconds * data.draw(st.integers(1, 300)), 6)
            drawn_j += energy_j
            ranks.pass_time(seconds, cpu_s, energy_j)
        closed = ranks.close_accounts()
        idle_j = ranks.node.idle_w * (closed - opened) / 1e9
    assert ranks.node.claimed_j + idle_j == pytest.approx(drawn_j, rel=1e-9)
    claimed_j = sum(meter.claimed_j for meter in ranks.meters)
    assert claimed_j == pytest.approx(ranks.node.claimed_j, rel=1e-9, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(1, 3_999), min_size=1, max_size=8, unique=True))
def test_parts_of_any_cut_of_time_add_up_to_the_whole(tmp_path_factory, cuts):
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0")
    machine = Machine(tmp_path_factory.mktemp("m") / "m", Profile((zone,), ("package-0",)))
    with Ranks(machine) as ranks:
        begin = ranks.sample()
        meter = ranks.meters[1]
        ranks.open_accounts()
        for seconds, cpu_s, energy_j in ((1.0, (1, 1), 20), (1.0, (0, 1), 5), (2.0, (1, 0), 31)):
            end = ranks.pass_time(seconds, cpu_s, energy_j)
        stamps = [begin, *(begin + cut * 1_000_000 for cut in sorted(cuts)), end]
        whole_j = meter.between(begin, end).energy_j
        parts_j = [meter._dynamic_j(a, b) for a, b in pairwise(stamps)]
    assert whole_j == pytest.approx(10.0 + 5.0, abs=1e-5)
    assert sum(parts_j) == pytest.approx(whole_j, rel=1e-9)


# ---------------------------------------------------------------------------------------------
# Faults


def test_fault_29_many_ranks_have_one_reader(server):
    """Whoever adds the ranks' joules gets those of the node, once."""
    files, alone = FaultyFiles(), FaultyFiles()
    server.meter(files=alone).close()
    with Ranks(server, 64, files=files) as ranks:
        begin = ranks.sample()
        end = ranks.pass_time(1.0, [1.0] * 64)
        total_j = sum(meter.between(begin, end).energy_j for meter in ranks.meters)
    assert len(files.opened) == len(alone.opened)
    assert total_j == pytest.approx(40.0)


def test_fault_29_two_jobs_on_a_node_see_each_other_as_foreign_load(single):
    with Ranks(single) as ranks:
        begin = ranks.sample()
        end = ranks.pass_time(2.0, [2.0, 2.0], foreign_s=0.4)
        assert ranks.meters[1].foreign_load(begin, end) == pytest.approx(0.4 / (2.0 * 4))
        begin, end = end, ranks.pass_time(2.0, [2.0, 2.0])
        assert ranks.meters[1].foreign_load(begin, end) == pytest.approx(0.0)


def test_fault_29_ranks_in_containers_without_common_memory_say_so(single, tmp_path):
    with Ranks(single) as ranks:
        elsewhere = replace(ranks.reader.counters, folder=tmp_path / "not here")
        with RankMeter(elsewhere, 1, clock=single.clock) as meter:
            stamp = meter.begin()
            assert_unavailable(meter.between(stamp, stamp + SECOND_NS), "not here", "/dev/shm")
            assert meter.along([(stamp, stamp + SECOND_NS)])[0].energy_j is None
            meter.open_account(stamp)
            assert meter.claimed_j is None


def test_fault_30_what_the_reader_read_before_it_ended_is_known_and_the_rest_is_not(single):
    with Ranks(single) as ranks:
        begin = ranks.sample()
        end = ranks.pass_time(1.0, [1.0, 1.0])
        meter = ranks.meters[1]
        meter.stamp()
        ranks.reader.close()
        single.draw_all(1.0)
        after = meter.stamp()
        assert meter.between(begin, end).energy_j == pytest.approx(5.0)
        assert_unavailable(meter.between(end, after), "has ended")
        assert_unavailable(meter.between(end, after), "has ended")
        meter.open_account(begin)
        meter.close_account(after)


def test_fault_30_a_reader_that_does_not_answer_is_not_waited_for_for_ever(single, monkeypatch):
    monkeypatch.setattr("minibutter.energy.follower.PATIENCE_S", 0.05)
    with Ranks(single) as ranks:
        begin = ranks.sample()
        monkeypatch.setattr(ranks.reader._sampler, "sample", lambda n: None)
        single.draw_all(1.0)
        started_s = time.monotonic()
        end = ranks.meters[1].stamp()
        assert_unavailable(ranks.meters[1].between(begin, end), "has not answered")
        assert time.monotonic() - started_s < 5.0
        # It is not asked a second time: the next run must not wait as well.
        started_s = time.monotonic()
        ranks.meters[1].begin()
        assert time.monotonic() - started_s < 0.04


def test_a_counter_that_cannot_be_read_is_named_to_all_ranks(server):
    files = FaultyFiles()
    with Ranks(server, files=files) as ranks:
        begin = ranks.sample()
        files.reading["intel-rapl:1:0/energy_uj"] = EINVAL
        failed = ranks.pass_time(1.0, [1.0, 1.0])
        for meter in ranks.meters:
            assert_unavailable(meter.between(begin, failed), "intel-rapl:1:0", "Invalid argument")
        del files.reading["intel-rapl:1:0/energy_uj"]
        end = ranks.pass_time(1.0, [1.0, 1.0])
        assert ranks.meters[1].between(begin, end).energy_j == pytest.approx(40.0)


def test_breaks_and_changes_of_the_machine_reach_all_ranks(single):
    with Ranks(single) as ranks:
        begin = ranks.sample()
        single.set("package-0", 0)
        reset = ranks.pass_time(0.1, [0.1, 0.1], energy_j=1.0)
        assert_unavailable(ranks.meters[1].between(begin, reset), "reset")
        single.plug(ZoneSpec("intel-rapl:1", "package-1", "package-1"))
        ranks.reader._sampler.beat()
        end = ranks.pass_time(1.0, [1.0, 1.0])
        assert_unavailable(ranks.meters[1].between(reset, end), "package-1 has appeared")


def test_a_wrap_is_a_wrap_for_all_ranks(make_machine):
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0", AMD_RANGE_UJ)
    machine = make_machine(Profile((zone,), ("package-0",)))
    machine.set("package-0", AMD_RANGE_UJ - JOULE)
    with Ranks(machine) as ranks:
        begin = ranks.sample()
        end = ranks.pass_time(1.0, [1.0, 1.0], energy_j=10.0)
        energies = [meter.between(begin, end) for meter in ranks.meters]
    assert [e.energy_j for e in energies] == pytest.approx([5.0, 5.0])


def test_a_rank_that_looks_away_for_longer_than_the_board_lasts_misses_no_joule(
    single, monkeypatch
):
    monkeypatch.setattr("minibutter.energy.board.CAPACITY", 8)
    with Ranks(single) as ranks:
        begin = ranks.sample()
        ranks.meters[1].stamp()
        for _ in range(50):
            end = ranks.pass_time(0.1, [0.1, 0.1], energy_j=1.0)
        energy = ranks.meters[1].between(begin, end)
    assert energy.package_j == 50.0
    assert energy.energy_j == pytest.approx(25.0)


def test_epochs_between_samples_share_windows(single):
    with Ranks(single, 1) as ranks:
        meter = ranks.meters[0]
        begin = ranks.sample()
        end = ranks.pass_time(1.0, [1.0], energy_j=50.0)
        regions = [(begin + i * 10**7, begin + (i + 1) * 10**7) for i in range(100)]
        regions[-1] = (regions[-1][0], end)
        energies = meter.along(regions)
    assert sum(energy.energy_j for energy in energies) == pytest.approx(50.0, rel=1e-5)
    assert energies[0].window_s == pytest.approx(0.2)
    assert {energy.quality for energy in energies} == {"interpolated"}


def test_where_nothing_can_be_read_every_rank_says_why(tmp_path):
    reader = open_reader([None, None], [os.getpid()] * 2, 0, tmp_path)
    assert "powercap" in reader
    with open_rank_meter(reader, 1, GANG, root=tmp_path) as meter:
        stamp = meter.begin()
        meter.claim(stamp, 0.5)
        assert_unavailable(meter.between(stamp, stamp + SECOND_NS), "powercap")
        assert meter.foreign_load(stamp, stamp + SECOND_NS) is None
        assert (meter.package, meter.reader_rank) == (None, None)
        meter.close_account(stamp)
        assert meter.claimed_j is None


# ---------------------------------------------------------------------------------------------
# The parts


def test_processor_time_of_another_process_is_read_by_its_number():
    assert 0 < read_process_cpu_ns(os.getpid()) <= time.process_time_ns()
    assert read_process_cpu_ns(1) >= 0
    with pytest.raises(OSError, match="Invalid argument"):
        read_process_cpu_ns(2**22 - 3)


def test_busy_time_of_the_node_leaves_out_idling_waiting_and_stolen_time(tmp_path):
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc/stat"
    stat.write_text("cpu  100 10 50 9999 888 7 3 777 0 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n")
    assert read_busy(tmp_path) == (1_700_000_000, 2)
    stat.write_text("nothing of the kind\n")
    assert read_busy(tmp_path) is None
    assert read_busy(tmp_path / "nowhere") is None
    busy_ns, n_cpus = read_busy()
    assert busy_ns > 0
    assert n_cpus == os.cpu_count()


def test_a_board_leaves_nothing_behind_once_all_have_opened_it(single):
    with Ranks(single) as ranks:
        folder = ranks.reader.counters.folder
        assert folder.exists()
        ranks.reader.hide()
        assert not folder.exists()
        begin = ranks.sample()
        end = ranks.pass_time(1.0, [1.0, 1.0])
        assert ranks.meters[1].between(begin, end).energy_j == pytest.approx(5.0)
        with pytest.raises(BoardGone, match="cannot be opened here"):
            BoardReader(folder, 1, 2)


def test_ranks_that_ask_at_once_are_answered_by_few_readings(single, monkeypatch):
    monkeypatch.setattr("minibutter.energy.reader.SHORTEST_PERIOD_S", 0.02)
    with Ranks(single, 4) as ranks:
        before, started_s = ranks.reader.cost.reads, time.monotonic()

        def ask(meter):
            for _ in range(5):
                single.clock.advance(1e-3)
                meter.begin()

        threads = [threading.Thread(target=ask, args=(meter,)) for meter in ranks.meters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed_s = time.monotonic() - started_s
        assert ranks.reader.cost.reads - before <= elapsed_s / 0.02 + 2


def test_a_reader_of_its_own_accord_reads_ten_times_a_second(single, monkeypatch):
    monkeypatch.setattr("minibutter.energy.reader.PERIOD_S", 0.005)
    with Ranks(single) as ranks:
        deadline_s = time.monotonic() + 30
        while ranks.reader.cost.reads < 6 and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert ranks.reader.cost.reads >= 6
        assert ranks.meters[1].cost.reads == 0


def test_a_sample_that_comes_while_a_run_begins_does_not_make_its_begin_forgotten(
    single, monkeypatch
):
    with Ranks(single) as ranks:
        ranks.open_accounts()
        meter = ranks.meters[1]
        wait_for = meter._wait_for

        def wait_and_be_overtaken(stamp_ns):
            answer = wait_for(stamp_ns)
            ranks.pass_time(0.05, [0.05, 0.05], energy_j=1.0)
            return answer

        monkeypatch.setattr(meter, "_wait_for", wait_and_be_overtaken)
        begin = meter.begin()
        monkeypatch.setattr(meter, "_wait_for", wait_for)
        end = ranks.pass_time(1.0, [1.0, 1.0])
        assert meter.between(begin, end).energy_j == pytest.approx(5.5)


def test_a_reading_that_lost_its_processor_in_the_middle_is_repeated(single, monkeypatch):
    with Ranks(single) as ranks:
        read, waits = ranks.reader._sampler.source.read_uj, [0.05, 0.05, 0.0, 0.05]

        def interrupted(n_domains):
            values = read(n_domains)
            single.clock.advance(waits.pop(0))
            return values

        begin = ranks.sample()
        monkeypatch.setattr(ranks.reader._sampler.source, "read_uj", interrupted)
        single.draw_all(1.0)
        end = ranks.sample()
        assert waits == [0.05]
        assert ranks.meters[0].between(begin, end).resolution_j < 0.05


def test_memory_of_settled_samples_is_given_back(single):
    with Ranks(single, mode=GANG) as ranks:
        ranks.open_accounts()
        meter = ranks.meters[1]
        for _ in range(100):
            meter.claim(single.clock(), 0.5)
            ranks.pass_time(1.5, [1.0, 1.0])
            meter.settle()
        assert len(meter._follower._series[0]) == 1
        assert len(meter._stamps_ns) == len(meter._shares_uj) == 1
        assert len(meter._claims) == 1
        assert len(meter._follower._foreign) == 1
        assert meter.claimed_j == pytest.approx(500.0)


def test_numbers_on_the_board_survive_a_week_of_microjoules(single):
    """2^53 microjoules do not fit a float to the last digit; the board holds integers."""
    with Ranks(single, 1) as ranks:
        values = np.array([2**53 + 1], dtype=np.int64)
        ranks.reader._board.write(
            next(row for row in BoardReader(ranks.reader.counters.folder, 1, 1).news())._replace(
                values_uj=tuple(map(int, values))
            )
        )
        rows = list(BoardReader(ranks.reader.counters.folder, 1, 1).news())
    assert rows[-1].values_uj == (2**53 + 1,)
