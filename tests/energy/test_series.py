"""Laws of the cumulative energy, for any counter, any moments and any faults."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibutter.energy.meter import Meter
from minibutter.energy.series import TICK_NS, Series
from minibutter.energy.simulated import Clock
from minibutter.energy.source import CounterUnavailable, Domain

SECOND_NS = 10**9
MODULUS_UJ = 65_532_611_002

steps = st.lists(
    st.tuples(st.integers(1_000_000, 50 * SECOND_NS), st.floats(0.0, 0.999)),
    min_size=2,
    max_size=20,
)
"""Time to the next reading, and the power until then as a part of the bound."""


def true_course(steps):
    """Stamps and true cumulative energies, which never exceed the bound of 1 kW."""
    stamps, energies_uj = [0], [0]
    for elapsed_ns, load in steps:
        stamps.append(stamps[-1] + elapsed_ns)
        energies_uj.append(energies_uj[-1] + int(load * 1000 * elapsed_ns / 1000))
    return stamps, energies_uj


def observe(stamps, energies_uj, start_uj):
    series = Series(Domain("package-0", MODULUS_UJ, True))
    for stamp_ns, energy_uj in zip(stamps, energies_uj, strict=True):
        series.append(stamp_ns, 0, (start_uj + energy_uj) % MODULUS_UJ)
    return series


@given(steps, st.integers(0, MODULUS_UJ - 1), st.data())
def test_total_over_any_cut_of_time_is_the_total_over_the_whole(steps, start_uj, data):
    stamps, energies_uj = true_course(steps)
    series = observe(stamps, energies_uj, start_uj)
    inner = data.draw(st.lists(st.integers(0, stamps[-1]), max_size=10))
    cuts = sorted({0, stamps[-1], *inner})
    parts = [series.between(begin, end).energy_uj for begin, end in pairwise(cuts)]
    assert sum(parts) == series.between(0, stamps[-1]).energy_uj == energies_uj[-1]
    assert min(parts) >= 0


@given(steps, st.integers(0, MODULUS_UJ - 1))
def test_unwrapped_energy_is_the_truth_at_every_reading_and_never_falls(steps, start_uj):
    stamps, energies_uj = true_course(steps)
    series = observe(stamps, energies_uj, start_uj)
    seen = [0] + [series.between(0, stamp).energy_uj for stamp in stamps[1:]]
    assert seen == energies_uj == sorted(seen)
    assert series.breaks == ()
    assert series.n_wraps == (start_uj + energies_uj[-1]) // MODULUS_UJ


@given(steps, st.data())
def test_interpolation_is_never_further_off_than_it_says(steps, data):
    stamps, energies_uj = true_course(steps)
    series = observe(stamps, energies_uj, 0)
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, stamps[-1])] * 2)))
    stretch = series.between(begin, end)
    assert stretch.is_sampled == (begin in stamps and end in stamps)
    # The least and most that any course through the readings can have between the two moments.
    least = max(energies_uj[i] for i in range(len(stamps)) if stamps[i] <= end) - min(
        energies_uj[i] for i in range(len(stamps)) if stamps[i] >= begin
    )
    most = min(energies_uj[i] for i in range(len(stamps)) if stamps[i] >= end) - max(
        energies_uj[i] for i in range(len(stamps)) if stamps[i] <= begin
    )
    assert stretch.energy_uj - stretch.uncertainty_uj <= max(least, 0)
    assert stretch.energy_uj + stretch.uncertainty_uj >= most


values = st.one_of(st.integers(0, MODULUS_UJ - 1), st.just(CounterUnavailable("EINVAL")))


@given(st.lists(st.tuples(st.integers(1, 300 * SECOND_NS), values), min_size=2, max_size=20))
def test_whatever_a_counter_shows_energy_is_plausible_or_a_reason(readings):
    """Random numbers are mostly resets: no stretch between two stamps exceeds the bound."""
    series, stamp_ns, stamps = Series(Domain("package-0", MODULUS_UJ, True)), 0, []
    for elapsed_ns, value in readings:
        stamp_ns += elapsed_ns
        series.append(stamp_ns, 0, value)
        stamps.append(stamp_ns)
    for begin, end in pairwise(stamps):
        try:
            stretch = series.between(begin, end)
        except CounterUnavailable:
            continue
        # Evenly shared, a part keeps the power of its whole; the slack is ten ticks a reading.
        whole_ns = stamps[-1] - stamps[0]
        assert 0 <= stretch.energy_uj <= 1000 * (whole_ns + 20 * TICK_NS) / 1000


class Scripted:
    """A source that shows what it is told."""

    name, notes, is_simulated, is_virtual = "scripted", (), False, False

    def __init__(self, names):
        self.domains = tuple(Domain(name, MODULUS_UJ, True) for name in names)
        self.values = dict.fromkeys(names, 0)

    def read_uj(self, n_domains):
        return [self.values[domain.name] for domain in self.domains[:n_domains]]

    def check(self):
        return None

    def close(self):
        pass


counters = st.dictionaries(
    st.sampled_from([f"package-{i}" for i in range(6)]),
    st.lists(
        st.one_of(st.integers(0, 10**9), st.just(CounterUnavailable("EINVAL"))),
        min_size=4,
        max_size=4,
    ),
    min_size=1,
)


@given(counters, st.randoms(use_true_random=False))
def test_a_total_does_not_depend_on_the_order_of_the_zones(counters, random):
    def total(names):
        source, clock = Scripted(names), Clock()
        with Meter(source, clock=clock) as meter:
            stamps = []
            for moment in range(4):
                clock.advance(1.0)
                source.values = {name: counters[name][moment] for name in names}
                stamps.append(meter.stamp())
            energies = [meter.between(begin, stamps[-1]) for begin in stamps[:-1]]
            return [(energy.energy_j, energy.quality) for energy in energies]

    names = sorted(counters)
    shuffled = random.sample(names, len(names))
    assert total(names) == total(shuffled)


@given(counters)
def test_what_could_not_be_read_never_becomes_zero(counters):
    source, clock = Scripted(sorted(counters)), Clock()
    with Meter(source, clock=clock) as meter:
        begin = meter.stamp()
        clock.advance(1.0)
        source.values = {name: values[0] for name, values in counters.items()}
        energy = meter.between(begin, meter.stamp())
    shown = [values[0] for values in counters.values()]
    if any(isinstance(value, CounterUnavailable) or value == 0 for value in shown):
        assert energy.energy_j is None
        assert energy.reason
    elif all(value <= 10**9 for value in shown):
        assert energy.energy_j == sum(shown) / 1e6 > 0


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(20, 2000), st.integers(1, 10**8)), min_size=2, max_size=30),
)
def test_energies_of_ranks_that_take_turns_add_up_to_the_node(n_ranks, turns):
    """Each turn belongs to one rank, which logs its stamps; one reader serves all."""
    source, clock = Scripted(["package-0"]), Clock()
    with Meter(source, clock=clock) as meter:
        begin = end = meter.stamp()
        regions = [[] for _ in range(n_ranks)]
        for i, (duration_ms, energy_uj) in enumerate(turns):
            clock.advance(duration_ms / 1000)
            source.values["package-0"] += min(energy_uj, duration_ms * 10**6)
            before, end = end, meter.stamp()
            regions[i % n_ranks].append((before, end))
        node = meter.between(begin, end)
        shares = [meter.between(*region).energy_j for own in regions for region in own]
    assert sum(round(share * 1e6) for share in shares) == round(node.energy_j * 1e6)


def test_forgetting_keeps_what_later_regions_need():
    stamps = [i * SECOND_NS for i in range(10)]
    whole, short = (observe(stamps, [i**2 * 10**6 for i in range(10)], 5) for _ in range(2))
    short.forget_before(5 * SECOND_NS + 1)
    assert len(short) == 5
    for begin_ns in (5 * SECOND_NS, 5 * SECOND_NS + 1, 7 * SECOND_NS):
        assert short.between(begin_ns, stamps[-1]) == whole.between(begin_ns, stamps[-1])
    with pytest.raises(CounterUnavailable, match="before the first reading of package-0"):
        short.between(4 * SECOND_NS, stamps[-1])
    short.forget_before(100 * SECOND_NS)
    assert len(short) == 1
