"""Joules between two moments, or the reason why they are not known.

A `Meter` samples a source of counters at moments that are asked for (`stamp`) and, from a thread of
its own, often enough that no wrap is missed. From the samples it answers what was drawn `between`
two stamps, or in each of many short regions `along` a run.

The counters are those of whole packages. What else runs there is inside the number; ranks that
share packages read them together (`reader`, `attribution`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from minibutter.energy.quantity import Cost, Energy, unavailable_energy
from minibutter.energy.regions import MIN_TICKS, Region, along, moving, too_short
from minibutter.energy.sampler import Owner, Sampler
from minibutter.energy.series import TICK_NS, Series, Stretch
from minibutter.energy.simulated import SimulatedMachine
from minibutter.energy.source import CounterUnavailable, Domain, Source, quality_of


class Meter:
    """Measures the energy of this machine; made by `open_meter`.

    May be used from several threads. After a fork the child has no heartbeat and no meter: all that
    it asks for is unavailable, with that reason.

    Parameters
    ----------
    source : the counters; None if there are none.
    unavailable : why there is nothing to read.
    clock : nanoseconds, monotonic; the same for all processes of a machine.
    boot_clock : nanoseconds that go on while the machine is suspended; None: it never is.
    machine : what drives the counters, if a model does.
    """

    def __init__(
        self,
        source: Source | None,
        unavailable: str | None = None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        boot_clock: Callable[[], int] | None = None,
        machine: SimulatedMachine | None = None,
    ) -> None:
        self._source, self._unavailable = source, unavailable
        self._clock, self._machine = clock, machine
        self._owner = Owner()
        self._series = tuple(map(Series, source.domains if source else ()))
        self._summed = tuple(series for series in self._series if series.domain.is_summed)
        self._change: str | None = None
        self._checked_ns = 0
        self._sampler: Sampler | None = None
        if source is not None:
            self._sampler = Sampler(source, self, clock=clock, boot_clock=boot_clock)
            self._sampler.sample(len(self._series))
            self._sampler.start()

    mode, package, reader_rank = "alone", None, None
    """See `regions.RegionMeter`."""

    # -----------------------------------------------------------------------------------------
    # What is measured

    @property
    def source(self) -> str | None:
        """Which counters are summed, or None if there are none."""
        return None if self._source is None else describe_source(self._source)

    @property
    def unavailable(self) -> str | None:
        """Why no energy can be measured here, or None if it can."""
        return self._owner.problem or self._unavailable

    @property
    def domains(self) -> tuple[Domain, ...]:
        """All counters, those of the total first."""
        return tuple(series.domain for series in self._series)

    @property
    def is_simulated(self) -> bool:
        """Whether a model drives the counters."""
        return self._source is not None and self._source.is_simulated

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and left out, or is odd, for people."""
        notes = self._source.notes if self._source else ()
        return (*notes, self._change) if self._change else notes

    @property
    def cost(self) -> Cost:
        """What measuring has taken so far."""
        return self._sampler.cost if self._sampler else Cost(0, 0.0)

    @property
    def period_s(self) -> float | None:
        """Between two readings of the heartbeat; None if there are none."""
        return self._sampler.period_s if self._sampler else None

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the heartbeat and give the files back; what was sampled can still be asked for."""
        if self._sampler is not None:
            self._sampler.close(is_owner=self._owner.problem is None)

    # -----------------------------------------------------------------------------------------
    # Sampling

    def begin(self) -> int:
        """Read the counters at the begin of a run, and forget what lies before it."""
        stamp_ns = self.stamp()
        self.forget_before(stamp_ns)
        return stamp_ns

    def end(self) -> int:
        """Read the counters at the end of a run."""
        return self.stamp()

    def stamp(self, apart: bool = False) -> int:
        """Read the counters now.

        Failures are kept and never raised; the regions that begin or end here will say so.

        Parameters
        ----------
        apart : whether to read what stands beside the total, too, see `domains_between`.

        Returns
        -------
        The moment of the reading: nanoseconds of the meter's clock, greater than all before.
        """
        if self._sampler is None or self._owner.problem is not None:
            return self._clock()
        return self._sampler.sample(len(self._series) if apart else len(self._summed))

    def beat(self) -> None:
        """What the heartbeat does: read everything, and look whether the machine has changed."""
        if self._sampler is not None and self._owner.problem is None:
            self._sampler.beat()

    def append(
        self, stamp_ns: int, width_ns: int, values: Sequence[int | CounterUnavailable]
    ) -> None:
        """See `sampler.Sink`."""
        # Stops with the shorter: domains beside the total come last.
        for series, value in zip(self._series, values, strict=False):
            series.append(stamp_ns, width_ns, value)

    def add_break(self, begin_ns: int, end_ns: int, reason: str) -> None:
        """See `sampler.Sink`."""
        for series in self._series:
            series.add_break(begin_ns, end_ns, reason)

    def set_change(self, change: str | None, checked_ns: int, stamp_ns: int) -> None:
        """See `sampler.Sink`."""
        if change is not None:
            for series in self._summed:
                series.add_break(checked_ns, stamp_ns, change)
        self._change, self._checked_ns = change, stamp_ns

    def working(
        self,
        flops: float,
        bytes_by_level: Mapping[str, float] | None = None,
        expected_s: float | None = None,
    ) -> AbstractContextManager[None]:
        """Around work that is measured: tells simulated counters what it is; real ones know.

        Parameters
        ----------
        flops, bytes_by_level, expected_s : see `SimulatedMachine.working`.
        """
        if self._machine is None:
            return nullcontext()
        return self._machine.working(flops, bytes_by_level, expected_s=expected_s)

    # -----------------------------------------------------------------------------------------
    # Asking

    def between(self, begin_ns: int, end_ns: int) -> Energy:
        """Energy from one moment to a later one.

        Parameters
        ----------
        begin_ns, end_ns : results of `stamp`, or other moments of the meter's clock, between whose
            neighbouring samples the energy is then shared out by time.
        """
        unavailable = self.unavailable
        if unavailable is not None:
            return unavailable_energy(unavailable)
        if end_ns > self._sampler.newest_ns:
            self._sampler.sample(len(self._summed))
        problem = too_short(end_ns - begin_ns, self._shortest_ns)
        if problem is not None:
            return unavailable_energy(problem)
        with self._sampler.lock:
            try:
                self._check_change(end_ns)
                stretches = [moving(series, begin_ns, end_ns) for series in self._summed]
            except CounterUnavailable as failure:
                return unavailable_energy(str(failure))
        return self._energy(stretches)

    def domains_between(self, begin_ns: int, end_ns: int) -> dict[str, Energy]:
        """Energy of every domain, also of those that are not part of the total.

        They overlap (`core` lies in its package, `psys` contains it) and must not be added. Those
        beside the total are read by the heartbeat and by `stamp(apart=True)`; between such readings
        their energies are interpolated.
        """
        if self.unavailable is not None:
            return {}
        if self._series and end_ns > self._sampler.newest_ns:
            self._sampler.sample(len(self._series))
        energies = {}
        for series in self._series:
            name = series.domain.name
            problem = too_short(end_ns - begin_ns, MIN_TICKS * series.tick_ns)
            if problem is not None:
                energies[name] = unavailable_energy(problem)
                continue
            try:
                with self._sampler.lock:
                    stretch = moving(series, begin_ns, end_ns)
            except CounterUnavailable as failure:
                energies[name] = unavailable_energy(str(failure))
                continue
            energy = self._energy([stretch])
            energies[name] = replace(energy, source=f"{self._source.name}:{name}")
        return energies

    def along(self, regions: Sequence[Region]) -> list[Energy]:
        """Energy of each of the regions of a run, however short; see `regions.along`."""
        return along(regions, self._shortest_ns, self.between)

    def foreign_load(self, begin_ns: int, end_ns: int) -> None:
        """Not known: a meter of one process does not look at others; see `reader`."""

    def forget_before(self, stamp_ns: int) -> None:
        """Give the memory back that is only needed for regions that begin before this."""
        if self._sampler is None or self._owner.problem is not None:
            return
        with self._sampler.lock:
            for series in self._series:
                series.forget_before(stamp_ns)

    @property
    def _shortest_ns(self) -> int:
        return MIN_TICKS * max((series.tick_ns for series in self._summed), default=TICK_NS)

    def _check_change(self, end_ns: int) -> None:
        if self._change is not None and end_ns > self._checked_ns:
            raise CounterUnavailable(self._change)

    def _energy(self, stretches: Sequence[Stretch]) -> Energy:
        energy_j = sum(stretch.energy_uj for stretch in stretches) / 1e6
        is_sampled = all(stretch.is_sampled for stretch in stretches)
        return Energy(
            energy_j=energy_j,
            source=self.source,
            quality=quality_of(self._source, "measured" if is_sampled else "interpolated"),
            resolution_j=sum(stretch.uncertainty_uj for stretch in stretches) / 1e6,
            package_j=energy_j,
            n_ranks=1,
        )


def describe_source(source: Source) -> str:
    """Which counters of a source are summed: `powercap:package+dram`."""
    has_dram = any(d.is_summed and d.name.endswith("/dram") for d in source.domains)
    label = f"{source.name}:package{'+dram' if has_dram else ''}"
    return f"{label}, virtual machine" if source.is_virtual else label
