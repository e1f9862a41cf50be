"""Joules between two moments, or the reason why they are not known.

A `Meter` samples a source of counters at moments that are asked for (`stamp`) and, from a thread of
its own, often enough that no wrap is missed. From the samples it answers what was drawn `between`
two stamps, or in each of many short regions `along` a run.

The counters are those of whole packages. What else runs there, another rank or another user, is
inside the number; `shared` marks it, and attribution is not done here.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

from minibutter.energy.quantity import Cost, Energy, unavailable_energy
from minibutter.energy.series import TICK_NS, Series, Stretch
from minibutter.energy.simulated import SimulatedMachine
from minibutter.energy.source import CounterUnavailable, Domain, Source

MIN_TICKS = 10
"""A region of fewer updates is not measured alone: each end may be off by one of them."""

LONGEST_PERIOD_S = 30.0
"""Between two readings of the heartbeat, however slowly the counters wrap."""

Region = tuple[int, int]
"""Stamps of begin and end."""


class Meter:
    """Measures the energy of this machine; made by `open_meter`.

    May be used from several threads. After a fork the child has no heartbeat and no meter: all that
    it asks for is unavailable, with that reason.

    Parameters
    ----------
    source : the counters; None if there are none.
    unavailable : why there is nothing to read.
    shared : whether other ranks run on the same packages.
    clock : nanoseconds, monotonic; the same for all processes of a machine.
    boot_clock : nanoseconds that go on while the machine is suspended; None: it never is.
    machine : what drives the counters, if a model does.

    Attributes
    ----------
    period_s : between two readings of the heartbeat.
    """

    def __init__(
        self,
        source: Source | None,
        unavailable: str | None = None,
        *,
        shared: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
        boot_clock: Callable[[], int] | None = None,
        machine: SimulatedMachine | None = None,
    ) -> None:
        self._source = source
        self._unavailable = unavailable
        self._shared = shared
        self._clock = clock
        self._boot_clock = boot_clock
        self._machine = machine
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._reads = self._cpu_ns = 0
        self._newest_ns = clock() - 1
        self._checked_ns = self._newest_ns
        self._change: str | None = None
        self._slept_ns = self._asleep_ns()
        domains = source.domains if source else ()
        self._series = tuple(map(Series, domains))
        self._summed = tuple(series for series in self._series if series.domain.is_summed)
        wraps_s = [series.domain.wrap_s for series in self._series]
        self.period_s = min([LONGEST_PERIOD_S, *(wrap_s / 4 for wrap_s in wraps_s)])
        self._thread: threading.Thread | None = None
        if source is not None:
            self._sample(len(self._series))
            self._thread = threading.Thread(target=self._beat, name="energy meter", daemon=True)
            self._thread.start()

    # -----------------------------------------------------------------------------------------
    # What is measured

    @property
    def source(self) -> str | None:
        """Which counters are summed, or None if there are none."""
        if self._source is None:
            return None
        has_dram = any(series.domain.name.endswith("/dram") for series in self._summed)
        label = f"{self._source.name}:package{'+dram' if has_dram else ''}"
        return f"{label}, virtual machine" if self._source.is_virtual else label

    @property
    def unavailable(self) -> str | None:
        """Why no energy can be measured here, or None if it can."""
        return self._foreign_process() or self._unavailable

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
        return Cost(self._reads, self._cpu_ns / 1e9)

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the heartbeat and give the files back; what was sampled can still be asked for."""
        self._is_closed.set()
        if self._source is None:
            return
        if self._foreign_process() is not None:
            self._source.close()  # The lock may be held by a thread that the child does not have.
            return
        self._thread.join()
        with self._lock:
            self._source.close()

    # -----------------------------------------------------------------------------------------
    # Sampling

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
        if self._source is None or self._foreign_process() is not None:
            return self._clock()
        return self._sample(len(self._series) if apart else len(self._summed))

    def _sample(self, n_domains: int) -> int:
        with self._lock:
            cpu_ns = time.thread_time_ns()
            begun_ns = self._clock()
            if self._is_closed.is_set():
                closed = CounterUnavailable("the meter is closed")
                values = [closed] * n_domains
            else:
                values = self._source.read_uj(n_domains)
            ended_ns = self._clock()
            stamp_ns = max((begun_ns + ended_ns) // 2, self._newest_ns + 1)
            # Stops with the shorter: domains beside the total come last.
            for series, value in zip(self._series, values, strict=False):
                series.append(stamp_ns, ended_ns - begun_ns, value)
            if self._boot_clock is not None:
                self._look_for_sleep(stamp_ns)
            self._newest_ns = stamp_ns
            self._reads += 1
            self._cpu_ns += time.thread_time_ns() - cpu_ns
            return stamp_ns

    def _asleep_ns(self) -> int:
        return self._boot_clock() - self._clock() if self._boot_clock else 0

    def _look_for_sleep(self, stamp_ns: int) -> None:
        slept_ns = self._asleep_ns()
        asleep_ns, self._slept_ns = slept_ns - self._slept_ns, slept_ns
        if asleep_ns > 10 * TICK_NS:
            reason = f"the machine was suspended for {asleep_ns / 1e9:.1f} s"
            for series in self._series:
                series.add_break(self._newest_ns, stamp_ns, reason)

    def beat(self) -> None:
        """What the heartbeat does: read everything, and look whether the machine has changed."""
        if self._source is None or self._foreign_process() is not None:
            return
        stamp_ns = self._sample(len(self._series))
        with self._lock:
            if self._is_closed.is_set():
                return
            change = self._source.check()
            if change is not None:
                for series in self._summed:
                    series.add_break(self._checked_ns, stamp_ns, change)
            self._change, self._checked_ns = change, stamp_ns

    def _beat(self) -> None:
        while not self._is_closed.wait(self.period_s):
            # A reading that was missed shows as a gap; the thread must live to take the next.
            with suppress(Exception):
                self.beat()

    def _foreign_process(self) -> str | None:
        if os.getpid() == self._process:
            return None
        return (
            f"the meter was opened by process {self._process} and does not run in this child of "
            "it; open one here"
        )

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
        if end_ns > self._newest_ns:
            self._sample(len(self._summed))
        problem = _too_short(end_ns - begin_ns, self._shortest_ns)
        if problem is not None:
            return unavailable_energy(problem)
        with self._lock:
            try:
                self._check_change(end_ns)
                stretches = [_moving(series, begin_ns, end_ns) for series in self._summed]
            except CounterUnavailable as failure:
                return unavailable_energy(str(failure))
        return self._energy(stretches)

    def domains_between(self, begin_ns: int, end_ns: int) -> dict[str, Energy]:
        """Energy of every domain, also of those that are not part of the total.

        They overlap (`core` lies in its package, `psys` contains it) and must not be added. Those
        beside the total are read by the heartbeat and by `stamp(apart=True)`; between such readings
        their energies are interpolated.
        """
        unavailable = self.unavailable
        if unavailable is not None or self._source is None:
            return {}
        if self._series and end_ns > self._newest_ns:
            self._sample(len(self._series))
        energies = {}
        for series in self._series:
            name = series.domain.name
            problem = _too_short(end_ns - begin_ns, MIN_TICKS * series.tick_ns)
            if problem is not None:
                energies[name] = unavailable_energy(problem)
                continue
            try:
                with self._lock:
                    stretch = _moving(series, begin_ns, end_ns)
            except CounterUnavailable as failure:
                energies[name] = unavailable_energy(str(failure))
                continue
            energy = self._energy([stretch])
            energies[name] = replace(energy, source=f"{self._source.name}:{name}")
        return energies

    def along(self, regions: Sequence[Region]) -> list[Energy]:
        """Energy of each of the regions of a run, however short.

        Regions that are too short for the counters are put together with those that follow, until
        the window is long enough; its energy, pauses included, is shared out by time, and marked
        `interpolated`. What is left at the end joins the window before.

        Parameters
        ----------
        regions : begin and end of each, in the order of time, without overlap.
        """
        energies = []
        for window in self._windows(regions):
            begin_ns, end_ns = window[0][0], window[-1][1]
            whole = self.between(begin_ns, end_ns)
            if len(window) == 1 or whole.energy_j is None:
                energies += [whole] * len(window)
                continue
            quality = "interpolated" if whole.quality == "measured" else whole.quality
            for region in window:
                share = (region[1] - region[0]) / (end_ns - begin_ns)
                energies.append(
                    replace(
                        whole,
                        energy_j=whole.energy_j * share,
                        quality=quality,
                        window_s=(end_ns - begin_ns) / 1e9,
                    )
                )
        return energies

    def forget_before(self, stamp_ns: int) -> None:
        """Give the memory back that is only needed for regions that begin before this."""
        if self._foreign_process() is not None:
            return
        with self._lock:
            for series in self._series:
                series.forget_before(stamp_ns)

    @property
    def _shortest_ns(self) -> int:
        return MIN_TICKS * max((series.tick_ns for series in self._summed), default=TICK_NS)

    def _windows(self, regions: Sequence[Region]) -> Iterator[list[Region]]:
        ready: list[Region] = []
        window: list[Region] = []
        for region in regions:
            window.append(region)
            if window[-1][1] - window[0][0] >= self._shortest_ns:
                if ready:
                    yield ready
                ready, window = window, []
        if ready or window:
            yield ready + window

    def _check_change(self, end_ns: int) -> None:
        if self._change is not None and end_ns > self._checked_ns:
            raise CounterUnavailable(self._change)

    def _energy(self, stretches: Sequence[Stretch]) -> Energy:
        energy_uj = sum(stretch.energy_uj for stretch in stretches)
        if self.is_simulated:
            quality = "simulated"
        elif self._source.is_virtual:
            quality = "modelled"
        elif self._shared:
            quality = "measured_shared"
        elif not all(stretch.is_sampled for stretch in stretches):
            quality = "interpolated"
        else:
            quality = "measured"
        return Energy(
            energy_j=energy_uj / 1e6,
            source=self.source,
            quality=quality,
            resolution_j=sum(stretch.uncertainty_uj for stretch in stretches) / 1e6,
        )


def _too_short(duration_ns: int, shortest_ns: int) -> str | None:
    if duration_ns >= shortest_ns:
        return None
    return (
        f"{duration_ns / 1e6:.3f} ms is too short: the counters tick every "
        f"{shortest_ns / MIN_TICKS / 1e6:.0f} ms, and {shortest_ns / 1e6:.0f} ms are needed "
        "for 10 % at each end"
    )


def _moving(series: Series, begin_ns: int, end_ns: int) -> Stretch:
    """What a counter has counted; one that stands still for many updates is stuck, not at rest."""
    stretch = series.between(begin_ns, end_ns)
    if stretch.energy_uj == 0:
        duration_s = (end_ns - begin_ns) / 1e9
        raise CounterUnavailable(f"{series.domain.name} stood still for {duration_s:.3f} s")
    return stretch
