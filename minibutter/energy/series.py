"""The energy of one counter since the first look at it, as a function of time.

A counter counts microjoules modulo some number and says nothing else. From samples of it, a
`Series` makes the cumulative energy E(t): integers that never fall, at strictly growing stamps.
Between two samples E grows evenly. The energy of a region is E(end) - E(begin), so that the parts
of any cut of time add up to the whole, to the last microjoule; energy is never turned into power
and back.

Between two samples a counter may have wrapped once, wrapped more often, or been reset. The bound on
power of its domain tells them apart: with `step` the difference modulo one wrap,

* step above what the domain can have drawn: it was reset (or is broken);
* step and one wrap more are both possible: ambiguous, it was read too seldom;
* else step is the energy.

In the first two cases the stretch is a break, whose energy is not known: no region that touches it
has an energy. What comes before and after is not spoilt.

Stamps are nanoseconds of one monotonic clock, energies microjoules; both are integers, so that
nothing is rounded however long a machine is watched.
"""

from bisect import bisect_left
from typing import NamedTuple

from minibutter.energy.source import SMALLEST_MODULUS_UJ, CounterUnavailable, Domain

TICK_NS = 1_000_000
"""RAPL counters are updated about every millisecond (Intel SDM, volume 3, section 15.10)."""

LONGEST_TICK_NS = 1_100_000_000
"""A counter that stands still for longer is stuck, not slow; emulated ones take a second."""

_SLACK_NS = 10 * TICK_NS
"""Updates jitter: what a counter shows may be this much older or younger than a sample."""


class Stretch(NamedTuple):
    """Energy between two stamps."""

    energy_uj: int
    uncertainty_uj: float  # of both ends together: a tick and half a sweep at mean power
    is_sampled: bool  # whether both ends are samples; else E was interpolated


class Break(NamedTuple):
    """A stretch whose energy is not known."""

    begin_ns: int
    end_ns: int
    reason: str


class Series:
    """E(t) of one domain.

    Parameters
    ----------
    domain : what is counted.

    Attributes
    ----------
    tick_ns : time between two updates: a millisecond, or longer where it often stood still.
    n_wraps : wraps that were counted.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.tick_ns = TICK_NS
        self.n_wraps = 0
        # Lists, because an array makes a new integer of every number that is looked at.
        self._stamps_ns: list[int] = []
        self._widths_ns: list[int] = []
        self._energies_uj: list[int] = []
        self._breaks: list[Break] = []
        self._newest_ns: int | None = None
        self._raw_uj = self._energy_uj = 0
        self._changed_ns = 0
        self._standstills_ns = [0, 0, 0]
        self._bound_uw = int(domain.max_power_w * 1e6)
        self._safe_ns = int(domain.wrap_s * 1e9 / 2)
        self._failure: str | None = None

    def __len__(self) -> int:
        return len(self._stamps_ns)

    @property
    def breaks(self) -> tuple[Break, ...]:
        """Stretches whose energy is not known."""
        return tuple(self._breaks)

    @property
    def newest_uj(self) -> int:
        """E at the last sample; 0 before the first."""
        return self._energies_uj[-1] if self._energies_uj else 0

    @property
    def failure(self) -> str | None:
        """Why the newest sample failed; None if it did not."""
        return self._failure

    def append(self, stamp_ns: int, width_ns: int, value: int | CounterUnavailable) -> None:
        """Add a sample, or the failure to take one.

        Parameters
        ----------
        stamp_ns : middle of the sweep over all counters; later than every stamp before.
        width_ns : length of the sweep; the counter was read somewhere within.
        value : microjoules that the counter showed.
        """
        if isinstance(value, CounterUnavailable):
            self._failure = str(value)
            return
        self._failure = None
        before_ns, raw_uj = self._newest_ns, self._raw_uj
        if before_ns is None:
            self._changed_ns = stamp_ns
        elif value != raw_uj:
            step_uj, elapsed_ns = value - raw_uj, stamp_ns - before_ns
            # Nearly always: it rose, by no more than it may, and there was no time for a wrap.
            is_plain = 0 < step_uj * 10**9 <= self._bound_uw * elapsed_ns
            if not (is_plain and elapsed_ns < self._safe_ns):
                step_uj = self._step(stamp_ns, width_ns, value)
            self._energy_uj += step_uj
            if self._changed_ns != before_ns:
                self._learn_tick(before_ns - self._changed_ns)
            self._changed_ns = stamp_ns
        elif stamp_ns - before_ns >= self._safe_ns:
            self._energy_uj += self._step(stamp_ns, width_ns, value)
        self._newest_ns, self._raw_uj = stamp_ns, value
        self._stamps_ns.append(stamp_ns)
        self._widths_ns.append(width_ns)
        self._energies_uj.append(self._energy_uj)

    def _learn_tick(self, standstill_ns: int) -> None:
        """A counter that often stands still for longer than a millisecond is updated less often.

        Once may be an accident; the third longest time counts.
        """
        if self._standstills_ns[0] < standstill_ns <= LONGEST_TICK_NS:
            self._standstills_ns = sorted([*self._standstills_ns, standstill_ns])[-3:]
            self.tick_ns = max(TICK_NS, self._standstills_ns[0])

    def _step(self, stamp_ns: int, width_ns: int, value: int) -> int:
        """Energy since the sample before; 0, and a break, where it is not known."""
        before_ns = self._stamps_ns[-1]
        elapsed_ns = stamp_ns - before_ns + (width_ns + self._widths_ns[-1]) // 2
        slack_ns = max(_SLACK_NS, self.tick_ns)
        bound_uj = self._bound_uw * (elapsed_ns + slack_ns) // 10**9
        name, modulus_uj = self.domain.name, self.domain.modulus_uj
        step_uj = value - self._raw_uj
        has_fallen = step_uj < 0
        if modulus_uj is not None:
            step_uj %= modulus_uj
        at_most = f"{name} draws at most {self.domain.max_power_w:.0f} W"
        if has_fallen and modulus_uj is None:
            reason = f"{name} fell: wrapped or reset, but its range cannot be read"
        elif step_uj + (modulus_uj or SMALLEST_MODULUS_UJ) <= bound_uj:
            reason = (
                f"{elapsed_ns / 1e9:.0f} s between two readings is too long: {at_most}, and can "
                f"wrap every {self.domain.wrap_s:.0f} s; read more often"
            )
        elif step_uj > bound_uj:
            what = "was reset, not wrapped" if has_fallen else "jumped or was reset"
            reason = f"{name} {what}: {at_most}, and {elapsed_ns / 1e9:.3f} s are too short for it"
        else:
            self.n_wraps += has_fallen
            return step_uj
        self._breaks.append(Break(before_ns, stamp_ns, reason))
        return 0

    def add_break(self, begin_ns: int, end_ns: int, reason: str) -> None:
        """Say that the energy of a stretch is not known, for a reason that no counter tells."""
        self._breaks.append(Break(begin_ns, end_ns, reason))

    def between(self, begin_ns: int, end_ns: int) -> Stretch:
        """E(end) - E(begin).

        Raises
        ------
        CounterUnavailable
            If E is not known at one of the ends, or the counter broke between them.
        """
        (begin_uj, begin_error), (end_uj, end_error) = self._at(begin_ns), self._at(end_ns)
        for broken in self._breaks:
            if broken.begin_ns < end_ns and broken.end_ns > begin_ns:
                raise CounterUnavailable(broken.reason)
        energy_uj = end_uj - begin_uj
        uncertainty_uj, is_sampled = 0.0, True
        for interpolation_uj, width_ns in (begin_error, end_error):
            if interpolation_uj is None:
                end_error_ns = self.tick_ns + width_ns / 2
                uncertainty_uj += energy_uj / max(end_ns - begin_ns, 1) * end_error_ns
            else:
                uncertainty_uj += interpolation_uj
                is_sampled = False
        return Stretch(energy_uj, uncertainty_uj, is_sampled)

    def _at(self, stamp_ns: int) -> tuple[int, tuple[int | None, int]]:
        """E; how wrong interpolation may be (None at a sample); the width of the sample."""
        stamps = self._stamps_ns
        i = bisect_left(stamps, stamp_ns)
        if i < len(stamps) and stamps[i] == stamp_ns:
            return self._energies_uj[i], (None, self._widths_ns[i])
        if not 0 < i < len(stamps):
            side = "after the last" if i else "before the first"
            raise CounterUnavailable(self._failure or f"{side} reading of {self.domain.name}")
        before_uj, after_uj = self._energies_uj[i - 1], self._energies_uj[i]
        share_uj = (after_uj - before_uj) * (stamp_ns - stamps[i - 1])
        share_uj //= stamps[i] - stamps[i - 1]
        # All of it may have been drawn on one side of the stamp.
        error_uj = max(share_uj, after_uj - before_uj - share_uj)
        return before_uj + share_uj, (error_uj, 0)

    def forget_before(self, stamp_ns: int) -> None:
        """Give the memory of samples back that no region from `stamp_ns` on needs."""
        i = bisect_left(self._stamps_ns, stamp_ns)
        is_sampled = i < len(self._stamps_ns) and self._stamps_ns[i] == stamp_ns
        # Else its neighbour is needed, to interpolate from.
        keep = i if is_sampled else max(i - 1, 0)
        for column in (self._stamps_ns, self._widths_ns, self._energies_uj):
            del column[:keep]
        self._breaks = [broken for broken in self._breaks if broken.end_ns > stamp_ns]
