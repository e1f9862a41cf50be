"""Hardware counters: what an epoch has of them, and every way in which they can be missing."""

import errno
import importlib.util
import resource
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from minibutter.energy import counters as counters_module
from minibutter.energy.counters import (
    COUNTERS,
    EpochCounts,
    HardwareCounters,
    counters_of_this_thread,
    open_counters,
)
from tests.counters import STEP, FakePackage, refusal

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("py_perf_event") is None,
    reason="py-perf-event is not installed; the extra `counters` has it",
)


@pytest.fixture
def package():
    return FakePackage()


@pytest.fixture
def root(make_tree):
    """Where perf is closed to all but root, as Debian has it."""
    machine = make_tree()
    machine.write("proc/sys/kernel/perf_event_paranoid", 3)
    return machine.root


def count(counters, n_epochs=1, n_repetitions=1, before=lambda epoch: None):
    """Counts of some epochs; `before` is called with the number of each, from 1."""
    counts = EpochCounts(counters, n_repetitions)
    for epoch in range(1, n_epochs + 1):
        before(epoch)
        counts.begin()
        counts.end()
    return counts


def test_every_epoch_has_the_counts_between_its_two_readings(package):
    counts = count(open_counters(importer=package), n_epochs=3)
    assert counts.columns() == {name: [STEP[name]] * 3 for name in COUNTERS}
    assert counts.reason() is None


def test_repetitions_trained_together_share_a_count_in_whole_events(package):
    columns = count(open_counters(importer=package), n_repetitions=16).columns()
    assert columns["cycles"] == [62]  # of 62.5
    assert columns["llc_load_misses"] == [375]
    assert all(type(n) is int for column in columns.values() for n in column)


def test_without_the_package_nothing_is_counted_and_its_name_is_told():
    def importer():
        raise ModuleNotFoundError("No module named 'py_perf_event'")

    counters = open_counters(importer=importer)
    assert (counters.names, counters.read()) == ((), ())
    counts = count(counters)
    assert counts.columns() == dict.fromkeys(COUNTERS)
    assert counts.reason() == (
        f"{', '.join(COUNTERS)}: the package py-perf-event is not installed "
        "(No module named 'py_perf_event'): pip install py-perf-event"
    )


@pytest.mark.skipif(
    importlib.util.find_spec("py_perf_event") is not None, reason="py-perf-event is installed"
)
def test_the_absent_package_is_truly_looked_for():
    assert all("pip install py-perf-event" in why for why in open_counters().reasons.values())


def test_another_version_of_the_package_is_no_error_of_the_run(package):
    """In version 0.2 a reading was a list of counts, without times."""

    class Older(FakePackage):
        def Measure(self, events):
            return SimpleNamespace(enable=lambda: None, read=lambda: [1])

    reasons = set(open_counters(importer=Older()).reasons.values())
    assert len(reasons) == 1
    assert "of another version" in reasons.pop()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.EPERM, "EPERM: a filter of system calls"),
        (errno.EACCES, "and it is 3: sudo sysctl kernel.perf_event_paranoid=2"),
        (errno.ENOENT, "ENOENT: the kernel does not have it; a virtual machine"),
        (errno.EINVAL, "EINVAL: the kernel knows the PMU but not this event"),
        (errno.EBUSY, "EBUSY: another program has the counter to itself; stop other profilers"),
    ],
)
def test_fault_34_every_refusal_of_the_kernel_is_told_apart(package, root, code, text):
    package.refused = dict.fromkeys(COUNTERS, code)
    counts = count(open_counters(root, package))
    assert counts.columns() == dict.fromkeys(COUNTERS)
    # Once for all six.
    assert counts.reason().startswith(f"{', '.join(COUNTERS)}: {errno.errorcode[code]}: ")
    assert text in counts.reason()
    assert counts.reason().count(errno.errorcode[code]) == 1


def test_an_error_without_a_number_keeps_its_words(package):
    class Odd(FakePackage):
        def Measure(self, events):
            raise OSError("options not valid for the current kernel")

    assert set(open_counters(importer=Odd()).reasons.values()) == {
        "options not valid for the current kernel"
    }


def test_an_event_that_the_processor_lacks_takes_no_other_with_it(package):
    package.refused = dict.fromkeys(("llc_loads", "llc_load_misses"), errno.ENOENT)
    counts = count(open_counters(importer=package), n_epochs=2)
    columns = counts.columns()
    assert [name for name in COUNTERS if columns[name] is None] == ["llc_loads", "llc_load_misses"]
    assert columns["cycles"] == [STEP["cycles"]] * 2
    assert counts.reason().startswith("llc_loads, llc_load_misses: ENOENT: ")


def test_fault_34_a_full_pmu_gives_up_loads_before_misses(package):
    package.n_free = 4
    counters = open_counters(importer=package)
    assert counters.names == ("cycles", "instructions", "l1d_load_misses", "llc_load_misses")
    assert package.running == set(counters.names)
    counts = count(counters)
    assert counts.columns()["cycles"] == [STEP["cycles"]]
    assert counts.reason().startswith("l1d_loads, llc_loads: no counter is left for it: stop other")


def test_fault_34_an_epoch_in_which_an_event_was_off_its_counter_has_no_count(package):
    """A scaled number would be 1000 * 0.6 / 0.6: right here, and a guess in an epoch of phases."""

    def before(epoch):
        package.off = {"instructions", "llc_loads"} if epoch in (2, 3) else set()

    counts = count(open_counters(importer=package), n_epochs=4, before=before)
    columns = counts.columns()
    assert columns["instructions"] == [STEP["instructions"], None, None, STEP["instructions"]]
    assert columns["cycles"] == [STEP["cycles"]] * 4
    assert counts.reason().startswith(
        "instructions, llc_loads: in 2 of 4 epochs off its counter for part of the time"
    )
    assert "kernel.nmi_watchdog=0" in counts.reason()


def test_an_event_that_cannot_be_read_has_no_count_for_this_epoch_and_the_error(package):
    def before(epoch):
        package.unreadable = {"cycles"} if epoch == 1 else set()

    counts = count(open_counters(importer=package), n_epochs=2, before=before)
    assert counts.columns()["cycles"] == [None, STEP["cycles"]]
    assert counts.reason() == (
        "cycles: in 1 of 2 epochs cannot be read (Input/output error (os error 5))"
    )


def test_counters_of_a_thread_that_slept_have_no_counts_instead_of_zero(package):
    counters = open_counters(importer=package)
    package.is_asleep = True
    counts = count(counters)
    assert counts.columns()["cycles"] == [None]
    assert "count in the thread that opens them" in counts.reason()


@pytest.fixture
def openings(monkeypatch):
    """Counters of threads are opened anew, and nothing is; a list with an entry for each time."""
    seen = []
    monkeypatch.setattr(
        counters_module, "open_counters", lambda: seen.append(1) or HardwareCounters({}, {})
    )
    counters_module._open_once.cache_clear()
    yield seen
    counters_module._open_once.cache_clear()


def test_counters_are_opened_once_a_thread_whether_they_can_be_or_not(openings):
    assert counters_of_this_thread() is counters_of_this_thread()
    others = []
    thread = threading.Thread(target=lambda: others.append(counters_of_this_thread()))
    thread.start()
    thread.join()
    assert others[0] is not counters_of_this_thread()
    assert len(openings) == 2


# ---------------------------------------------------------------------------------------------
# The true package and the true kernel


class TaskClock:
    """The package's software event, whose time is that of its thread; it has no other event.

    Hardware events do not exist in most virtual machines.
    """

    def __init__(self):
        import py_perf_event

        self._measure = py_perf_event.Measure([])

    def enable(self):
        self._measure.enable()

    def read(self):
        read = self._measure.read()
        return SimpleNamespace(
            measurements=[read.time_enabled_ns],
            time_enabled_ns=read.time_enabled_ns,
            time_running_ns=read.time_running_ns,
        )


@pytest.fixture
def clocks():
    """Opens counters of which one, named `cycles`, is the clock of the calling thread."""

    def open_clock():
        clock = TaskClock()
        try:
            clock.enable()
        except OSError as error:
            pytest.skip(f"this kernel opens no software event: {error}")
        return HardwareCounters({"cycles": clock}, {})

    return open_clock


@needs_package
def test_a_true_event_counts_the_work_of_its_thread_and_not_its_sleep(clocks):
    counts = EpochCounts(clocks(), 1)
    sum(range(200_000))
    on_the_wall_ns = time.monotonic_ns()
    counts.begin()
    worked_ns = time.thread_time_ns()
    sum(range(10_000))
    asleep_ns = time.monotonic_ns()
    time.sleep(0.01)
    asleep_ns = time.monotonic_ns() - asleep_ns
    worked_ns = time.thread_time_ns() - worked_ns
    counts.end()
    on_the_wall_ns = time.monotonic_ns() - on_the_wall_ns
    (nanoseconds,) = counts.columns()["cycles"]
    # The clocks of the kernel agree to some microseconds, and falling asleep takes some.
    assert worked_ns - 50_000 <= nanoseconds <= on_the_wall_ns - asleep_ns + 200_000
    assert counts.reason() is None


@needs_package
def test_a_true_event_of_a_thread_that_is_gone_counts_nothing_instead_of_zero(clocks):
    opened = []
    thread = threading.Thread(target=lambda: opened.append(clocks()))
    thread.start()
    task = Path(f"/proc/self/task/{thread.native_id}")
    thread.join()
    while task.exists():
        pass
    counts = count(opened[0])
    assert counts.columns()["cycles"] == [None]
    assert "count in the thread that opens them" in counts.reason()


@needs_package
def test_the_true_package_counts_or_says_why_not():
    counters = open_counters()
    for name, why in counters.reasons.items():
        assert (why is None) == (name in counters.names)
        assert why is None or why.startswith(("E", "no counter"))
    counts = EpochCounts(counters, 1)
    counts.begin()
    sum(range(100_000))
    counts.end()
    for name in counters.names:
        (n,) = counts.columns()[name]
        assert n is None or n > 0


@needs_package
def test_a_true_refusal_is_understood_though_its_error_has_no_number():
    import py_perf_event

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        reasons = set(open_counters(importer=lambda: py_perf_event).reasons.values())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert reasons == {"EMFILE: too many files are open: ulimit -n 4096"}


@needs_package
def test_errors_of_the_fake_package_are_those_of_the_true_one():
    import py_perf_event

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="os error") as caught:
            py_perf_event.Measure([])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fake = refusal(errno.EMFILE)
    assert (caught.value.args, caught.value.errno) == (fake.args, fake.errno)
