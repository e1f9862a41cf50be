"""Trees of files whose counters a test moves by hand, and files that fail as the kernel's do."""

import errno
import os

import pytest

from minibutter.energy import open_meter
from minibutter.energy.profiles import INTEL_RANGE_UJ, PROFILES, Profile, ZoneSpec
from minibutter.energy.simulated import Clock
from minibutter.energy.tree import add_zone, build_tree, remove_zone, write_counter
from minibutter.energy.zones import POWERCAP, Files, open_read_only

JOULE = 1_000_000


class Machine:
    """A tree in a folder; zones with the same counter show the same number.

    What was drawn is added to the counters in whole microjoules, modulo range plus one unit.
    """

    def __init__(self, root, profile):
        self.root, self.clock = root, Clock()
        self.profile = PROFILES[profile] if isinstance(profile, str) else profile
        self.zones = {zone.link: zone for zone in self.profile.zones}
        self._ranges_uj = {zone.counter: zone.range_uj for zone in self.profile.zones}
        # Counters of their own never show the same: they began to count at different moments.
        names = dict.fromkeys(zone.counter for zone in self.profile.zones if zone.counter)
        self.raw_uj = {name: (i + 1) * 37 * JOULE for i, name in enumerate(names)}
        build_tree(root, self.profile, {zone.link: 0 for zone in self.profile.zones})
        self.show()

    def show(self):
        """Write all counters into their files."""
        for link, zone in self.zones.items():
            if zone.counter and (self.root / POWERCAP / link).exists():
                write_counter(self.root, link, self.raw_uj[zone.counter])

    def set(self, counter, raw_uj):
        self.raw_uj[counter] = raw_uj
        self.show()

    def draw(self, seconds=1.0, **energies_uj):
        """Let time pass; keywords are counters with `_` for `-` and `__` for `/`."""
        self.clock.advance(seconds)
        for key, energy_uj in energies_uj.items():
            counter = key.replace("__", "/").replace("_", "-")
            range_uj = self._ranges_uj[counter]
            modulus_uj = range_uj + max(round(range_uj / (2**32 - 1)), 1)
            self.raw_uj[counter] = (self.raw_uj[counter] + energy_uj) % modulus_uj
        self.show()

    def draw_all(self, seconds=1.0, energy_uj=10 * JOULE):
        """The same for every counter."""
        self.draw(seconds, **{c.replace("/", "__"): energy_uj for c in self.raw_uj})

    def path(self, link, name="energy_uj"):
        return self.root / POWERCAP / link / name

    def write(self, link, name, text):
        path = self.path(link, name)
        path.chmod(0o600)
        path.write_text(text)

    def unplug(self, link):
        remove_zone(self.root, link)

    def plug(self, zone):
        self.zones[zone.link] = zone
        self._ranges_uj[zone.counter] = zone.range_uj
        self.raw_uj.setdefault(zone.counter, 11 * JOULE)
        add_zone(self.root, zone)
        self.show()

    def replace(self, link, *zones):
        """Take a zone away, and register others."""
        self.unplug(link)
        for zone in zones:
            self.plug(zone)

    def meter(self, files=None, **options):
        return open_meter(self.root, clock=self.clock, files=files or FaultyFiles(), **options)


class FaultyFiles(Files):
    """Files of which some fail: the seam through which faults come in.

    A held file of a zone that is gone fails as that of the kernel does.

    Attributes
    ----------
    opening, reading : errno by a part of the path.
    opened : all paths, in order.
    """

    def __init__(self):
        self.opening, self.reading, self.opened, self._paths = {}, {}, [], {}
        super().__init__(self._open, self._pread)

    def _open(self, path):
        self.opened.append(str(path))
        for part, code in self.opening.items():
            if part in str(path):
                raise OSError(code, os.strerror(code), str(path))
        descriptor = open_read_only(path)
        self._paths[descriptor] = str(path)
        return descriptor

    def _pread(self, descriptor, n_bytes, offset):
        for part, code in self.reading.items():
            if part in self._paths[descriptor]:
                raise OSError(code, os.strerror(code))
        if os.fstat(descriptor).st_nlink == 0:
            raise OSError(ENODEV, os.strerror(ENODEV))
        return os.pread(descriptor, n_bytes, offset)


@pytest.fixture
def make_machine(tmp_path):
    """Builds a machine of a profile."""
    count = iter(range(100))

    def make(profile):
        return Machine(tmp_path / f"machine{next(count)}", profile)

    return make


@pytest.fixture
def server(make_machine):
    """Two packages with memory."""
    return make_machine("intel_server2")


@pytest.fixture
def single(make_machine):
    """One package and nothing else."""
    zone = ZoneSpec("intel-rapl:0", "package-0", "package-0", INTEL_RANGE_UJ)
    return make_machine(Profile((zone,), ("package-0",)))


@pytest.fixture
def files():
    """Files that can be made to fail."""
    return FaultyFiles()


def stamp_after(meter, machine, **draw):
    """Stamp behind what the machine draws as told, by default 10 J in a second on all counters."""
    if draw:
        machine.draw(**draw)
    else:
        machine.draw_all()
    return meter.stamp()


def measure(meter, machine, **draw):
    """Energy of one region in which the machine draws as told."""
    begin = meter.stamp()
    return meter.between(begin, stamp_after(meter, machine, **draw))


def assert_unavailable(energy, *parts):
    """Null with a reason, and nothing else."""
    assert (energy.energy_j, energy.source, energy.quality) == (None, None, "unavailable")
    assert (energy.resolution_j, energy.window_s) == (None, None)
    for part in parts:
        assert part in energy.reason


EACCES, EINVAL, ENODEV, EIO, ENOENT = (
    errno.EACCES,
    errno.EINVAL,
    errno.ENODEV,
    errno.EIO,
    errno.ENOENT,
)
