"""A powercap tree in a temporary folder, with the links of a true one."""

import pytest

INTEL_RANGE_UJ = 262143328850
AMD_RANGE_UJ = 65532610987
DRAM_RANGE_UJ = 65712999613


class FakePowercap:
    """`sys/class/powercap` of flat links to zones that are nested below `sys/devices`."""

    def __init__(self, folder):
        self.root = folder / "sys" / "class" / "powercap"
        self._devices = folder / "sys" / "devices" / "virtual" / "powercap"
        self.root.mkdir(parents=True)

    def add(self, zone, name, energy_uj=0, range_uj=INTEL_RANGE_UJ):
        """Zone such as `intel-rapl:0:1`, with its control type and its flat link."""
        control_type, *indices = zone.split(":")
        folder = self._devices / control_type
        self._add_folder(folder, control_type)
        for n in range(len(indices)):
            folder = folder / ":".join([control_type, *indices[: n + 1]])
        self._add_folder(folder, zone)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (folder / "energy_uj").write_text(f"{energy_uj}\n")

    def _add_folder(self, folder, link):
        if not folder.exists():
            folder.mkdir(parents=True)
            (self.root / link).symlink_to(folder)
            (folder / "subsystem").symlink_to(self.root)  # A loop, as in the true tree.

    def set(self, zone, energy_uj):
        """Let the counter of `zone` show this."""
        (self.root / zone / "energy_uj").write_text(f"{energy_uj}\n")

    def advance(self, zone, energy_uj):
        """Add to the counter of `zone`, modulo its range plus one unit."""
        range_uj = int((self.root / zone / "max_energy_range_uj").read_text())
        before_uj = int((self.root / zone / "energy_uj").read_text())
        modulus_uj = range_uj + round(range_uj / (2**32 - 1))
        self.set(zone, (before_uj + energy_uj) % modulus_uj)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def powercap(tmp_path):
    """An empty tree."""
    return FakePowercap(tmp_path)


@pytest.fixture
def server(powercap):
    """Two sockets with memory; the slots are not in the order of the packages."""
    for slot, package in (("1", 0), ("0", 1)):
        powercap.add(f"intel-rapl:{slot}", f"package-{package}", 1_000_000 * (package + 1))
        powercap.add(f"intel-rapl:{slot}:0", "dram", 500_000, DRAM_RANGE_UJ)
    return powercap


@pytest.fixture
def amd(powercap):
    """One package; its `core` zone is a single core."""
    powercap.add("intel-rapl:0", "package-0", 5_000_000, AMD_RANGE_UJ)
    powercap.add("intel-rapl:0:0", "core", 100_000, AMD_RANGE_UJ)
    return powercap


@pytest.fixture
def clock():
    """A clock that stands."""
    return Clock()
