"""A machine whose energy is known: a powercap tree that a stated power model drives.

`build` lays a tree out in a folder. Its counters are functions of time and of the work that was
declared: static watts at every moment, and joules per FLOP and per byte of each level of the
memory, spread evenly over the time that the work took. They show that energy as hardware does: in
whole units, modulo 2^32 of them, and as it was at the last tick, about every millisecond.

So the whole chain can be tried where there are no counters, and what comes out compared with what
was put in. Nothing drives the counters but who reads and who works: a counter is worked out when it
is read, from the clock and a ledger of work in the folder. Any number of processes of one host may
read and work at the same time (a lock on the ledger keeps them apart), and no daemon is needed. Two
ways to work:

* `spend` says how long work takes, and moves a `Clock` that stands still otherwise: for tests and
  lessons, in one process;
* `working` is put around real work, with the clock of the machine: for sweeps, under mpirun, too.

Only readers that go through a `SimulatedMachine` see the counters move; for others
(`cat energy_uj`), `write_counters` writes what they show now.

Examples
--------
>>> import tempfile
>>> clock = Clock()
>>> machine = build(Path(tempfile.mkdtemp()) / "machine", "intel_server2", clock=clock)
>>> before_j = machine.energy_j("package-0")
>>> machine.spend(2.0, flops=10**12)
>>> round(machine.energy_j("package-0") - before_j, 6)  # 2 s x 40 W + 1e12 x 20 pJ
100.0
"""

import errno
import itertools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from minibutter.energy import tree
from minibutter.energy.ledger import EMPTY, Ledger, Work
from minibutter.energy.profiles import PROFILES, ZoneSpec
from minibutter.energy.zones import POWERCAP, Files, open_read_only

_MARKER, _LEDGER = "simulated.json", "ledger.json"
_UNITS = 2**32
_PICO, _NANO = 10**12, 10**9


@dataclass(frozen=True)
class PowerModel:
    """Where the joules go.

    Attributes
    ----------
    package_w, dram_w : static power of every package (or die), and of the memory of every package.
    joules_per_flop : of a package.
    joules_per_byte : by level; `dram` is drawn by the memory where it has a counter, all other
        levels, and memory without a counter, by the package.
    tick_s : time between two updates of the counters.
    jitter_s : how much earlier or later an update may come; less than half a tick.
    wraps_after_j : energy after which each counter wraps for the first time; None: at least 65 kJ.
    """

    package_w: float = 40.0
    dram_w: float = 4.0
    joules_per_flop: float = 20e-12
    joules_per_byte: Mapping[str, float] = field(
        default_factory=lambda: {"l1": 1e-12, "l2": 4e-12, "l3": 15e-12, "dram": 60e-12}
    )
    tick_s: float = 1e-3
    jitter_s: float = 0.0
    wraps_after_j: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.jitter_s < self.tick_s:
            raise ValueError(
                f"jitter_s is {self.jitter_s} and tick_s {self.tick_s}; the jitter must be at "
                "least 0 and less than half a tick"
            )


class Clock:
    """Nanoseconds that pass only when told to.

    Parameters
    ----------
    now_ns : where it starts.
    """

    def __init__(self, now_ns: int = 10**9) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += round(seconds * 1e9)


def is_simulated(root: Path) -> bool:
    """Whether a folder that stands for `/` was made by `build`."""
    return (root / _MARKER).is_file()


def build(
    root: Path,
    profile: str = "intel_server2",
    model: PowerModel | None = None,
    clock: Callable[[], int] = time.monotonic_ns,
) -> "SimulatedMachine":
    """Make a machine in a folder.

    Parameters
    ----------
    root : folder that will stand for `/`; must not be there, or be empty.
    profile : one of `profiles.PROFILES`.
    model : where the joules go.
    clock : nanoseconds; a `Clock`, or that of the machine.

    Raises
    ------
    ValueError
        If there is no such profile, or the folder is not empty.
    """
    if profile not in PROFILES:
        raise ValueError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise ValueError(f"{root} is not empty; a machine needs a folder of its own")
    description = {"profile": profile, "model": asdict(model or PowerModel()), "begun_ns": clock()}
    (root / _MARKER).write_text(json.dumps(description, indent=1) + "\n")
    (root / _LEDGER).write_text(EMPTY)
    starts = {zone.link: 0 for zone in PROFILES[profile].zones}
    tree.build_tree(root, PROFILES[profile], starts)
    machine = SimulatedMachine(root, clock)
    if not PROFILES[profile].is_masked:
        machine.write_counters()
    return machine


class SimulatedMachine(Files):
    """A folder made by `build`: reads its counters, and takes the work that drives them.

    Parameters
    ----------
    root : the folder.
    clock : nanoseconds; the same for all who use the folder.
    """

    def __init__(self, root: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        description = json.loads((root / _MARKER).read_text())
        self.root, self.clock = root, clock
        self.model = PowerModel(**description["model"])
        self.profile = PROFILES[description["profile"]]
        self._begun_ns = description["begun_ns"]
        self._zones = {zone.link: zone for zone in self.profile.zones}
        self._packages = [c for c in self.profile.true_counters if not c.endswith("/dram")]
        self._links: dict[int, str] = {}
        self._names = itertools.count()
        self._ledger = Ledger(root / _LEDGER, clock, 3 * round(self.model.tick_s * 1e9))
        super().__init__(self._open, self._pread)

    # -----------------------------------------------------------------------------------------
    # Reading, as the kernel would let it be read

    def _open(self, path: Path) -> int:
        descriptor = open_read_only(path)
        if path.name == "energy_uj":
            self._links[descriptor] = path.parent.name
        else:
            self._links.pop(descriptor, None)  # The number may be that of a closed counter.
        return descriptor

    def _pread(self, descriptor: int, n_bytes: int, offset: int) -> bytes:
        link = self._links.get(descriptor)
        if link is None:
            return os.pread(descriptor, n_bytes, offset)
        if not (self.root / POWERCAP / link).exists():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return f"{self.counter_uj(self._zones[link])}\n".encode()[offset : offset + n_bytes]

    def counter_uj(self, zone: ZoneSpec) -> int:
        """What the counter of a zone shows now, in microjoules."""
        unit_nj = round(zone.range_uj * 1000 / (_UNITS - 1))
        if self.model.wraps_after_j is None:
            start = zlib.crc32(zone.counter.encode()) // 2 % (_UNITS - int(65e12) // unit_nj)
        else:
            start = _UNITS - int(self.model.wraps_after_j * _NANO) // unit_nj
        units = start + self._energy_pj(zone.counter, at_tick=True) // (unit_nj * 1000)
        return units % _UNITS * unit_nj // 1000

    def energy_j(self, counter: str) -> float:
        """The truth: joules that a counter's domain has drawn since the machine was built.

        Parameters
        ----------
        counter : as in the profile, `package-0` or `package-0/dram`.
        """
        return self._energy_pj(counter, at_tick=False) / _PICO

    @property
    def total_j(self) -> float:
        """The truth: joules of all packages and their memory since the machine was built."""
        counters = self.profile.true_counters
        return sum(self._energy_pj(counter, at_tick=False) for counter in counters) / _PICO

    def write_counters(self) -> None:
        """Write what the counters show now into their files, for readers that know only files."""
        for link, zone in self._zones.items():
            if zone.counter is not None and (self.root / POWERCAP / link).exists():
                tree.write_counter(self.root, link, self.counter_uj(zone))

    # -----------------------------------------------------------------------------------------
    # Working

    def spend(
        self,
        duration_s: float,
        flops: float = 0,
        bytes_by_level: Mapping[str, float] | None = None,
        package: int = 0,
    ) -> None:
        """Work for so long, and let the `Clock` pass.

        Parameters
        ----------
        duration_s : how long; all of it in the future.
        flops, bytes_by_level : what is done in it; the levels are those of the model.
        package : who does it, counted from 0.
        """
        begin_ns = self.clock()
        end_ns = begin_ns + round(duration_s * 1e9)
        energies_pj = self._energies_pj(flops, bytes_by_level or {}, package)
        self._ledger.record(self._new_name(), begin_ns, end_ns, energies_pj)
        self.clock.advance(duration_s)

    def draw(self, counter: str, energy_j: float) -> None:
        """Let a counter's domain draw energy at once."""
        now_ns = self.clock()
        self._ledger.record(self._new_name(), now_ns, now_ns, {counter: round(energy_j * _PICO)})

    @contextmanager
    def working(
        self,
        flops: float,
        bytes_by_level: Mapping[str, float] | None = None,
        package: int = 0,
        expected_s: float | None = None,
    ) -> Iterator[None]:
        """Around real work: its energy is spread over the time that it takes.

        Parameters
        ----------
        flops, bytes_by_level, package : as for `spend`.
        expected_s : how long it will take: the counters move at that pace while it lasts, and take
            the rest when it ends. None: they take all when it ends, and who reads meanwhile sees
            nothing of it.
        """
        energies_pj = self._energies_pj(flops, bytes_by_level or {}, package)
        name, begin_ns = self._new_name(), self.clock()
        planned_ns = None
        if expected_s is not None:
            planned_ns = begin_ns + round(expected_s * 1e9)
            self._ledger.record(name, begin_ns, planned_ns, energies_pj, goes_on=True)
        try:
            yield
        finally:
            end_ns = self.clock()
            # A counter must not fall: work that takes longer than expected has been counted.
            if planned_ns is not None:
                end_ns = min(end_ns, planned_ns)
            self._ledger.record(name, begin_ns, end_ns, energies_pj)

    def unplug(self, link: str) -> None:
        """Take a zone and what lies in it away, as when a package goes offline."""
        tree.remove_zone(self.root, link)

    def plug(self, zone: ZoneSpec) -> None:
        """Register a zone, perhaps in another slot than before."""
        self._zones[zone.link] = zone
        tree.add_zone(self.root, zone, self.counter_uj(zone))

    # -----------------------------------------------------------------------------------------
    # Energy as integers, so that nothing is lost however long the machine runs

    def _energies_pj(
        self, flops: float, bytes_by_level: Mapping[str, float], package: int
    ) -> dict[str, int]:
        name = self._packages[package]
        memory = f"{name}/dram"
        energies_j = {name: flops * self.model.joules_per_flop}
        for level, n_bytes in bytes_by_level.items():
            if level not in self.model.joules_per_byte:
                known = ", ".join(self.model.joules_per_byte)
                raise ValueError(f"the power model has no level {level!r}; it has {known}")
            has_counter = level == "dram" and memory in self.profile.true_counters
            drawn_by = memory if has_counter else name
            energy_j = n_bytes * self.model.joules_per_byte[level]
            energies_j[drawn_by] = energies_j.get(drawn_by, 0.0) + energy_j
        return {counter: round(energy_j * _PICO) for counter, energy_j in energies_j.items()}

    def _energy_pj(self, counter: str, at_tick: bool) -> int:
        with self._ledger.reading() as work:
            # Read under the lock: what is settled is older than any tick that can follow.
            now_ns = self.clock()
            moment_ns = self._last_tick_ns(now_ns) if at_tick else now_ns
            return self._drawn_pj(counter, moment_ns, work)

    def _drawn_pj(self, counter: str, moment_ns: int, work: Work) -> int:
        """Energy until a moment; parts and wholes of packages follow the packages."""
        if counter == "core":
            return self._drawn_pj(self._packages[0], moment_ns, work) * 2 // 5
        if counter == "uncore":
            return self._drawn_pj(self._packages[0], moment_ns, work) // 10
        if counter == "psys":
            true = self.profile.true_counters
            return sum(self._drawn_pj(each, moment_ns, work) for each in true) * 5 // 4
        static_w = self.model.dram_w if counter.endswith("/dram") else self.model.package_w
        elapsed_ns = max(moment_ns - self._begun_ns, 0)
        return round(static_w * 1e6) * elapsed_ns // 1000 + work.drawn_pj(counter, moment_ns)

    def _last_tick_ns(self, now_ns: int) -> int:
        tick_ns, jitter_ns = (round(s * 1e9) for s in (self.model.tick_s, self.model.jitter_s))
        number = now_ns // tick_ns + 1
        while True:
            # The same jitter for all who read: a hash of the tick's number in [-1, 1).
            spread = (number * 0x9E3779B97F4A7C15 % 2**64 >> 32) / 2**31 - 1
            moment_ns = number * tick_ns + int(spread * jitter_ns)
            if moment_ns <= now_ns:
                return moment_ns
            number -= 1

    def _new_name(self) -> str:
        return f"{os.getpid()}.{id(self):x}.{next(self._names)}"
