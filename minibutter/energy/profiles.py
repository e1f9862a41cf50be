"""The powercap trees that machines have, as data: what a reader must be right about.

Each `Profile` lists the zones as the kernel does, with the counter that each of them shows. Two
zones with the same counter are mirrors. `true_counters` are those whose sum is the energy of the
machine's packages and memory: what a reader has to find out.

Sources: drivers/powercap and arch/x86/events/rapl.c of the Linux kernel; reports of users for
masked containers and mirrored dies.
"""

from dataclasses import dataclass
from typing import NamedTuple

INTEL_RANGE_UJ = 262143328850  # 2^-14 J, in the kernel's integer nanojoules
AMD_RANGE_UJ = 65532610987  # 2^-16 J
SERVER_DRAM_RANGE_UJ = 65712999613  # 15.3 uJ, whatever the unit register says: Haswell to Ice Lake
PLATFORM_RANGE_UJ = 4294967295000000  # 1 J: psys of Sapphire Rapids


class ZoneSpec(NamedTuple):
    """A zone as the kernel lists it."""

    link: str  # `intel-rapl:0:1`: control type and hexadecimal slots
    name: str  # what its file `name` says
    counter: str | None  # what it counts; None: it has `power_uw` only
    range_uj: int = INTEL_RANGE_UJ
    max_power_w: float | None = None  # `constraint_0_max_power_uw`


class CacheSpec(NamedTuple):
    """One cache: every instance of it is listed."""

    level: int
    type: str
    size_kib: int
    ways: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """A machine.

    Attributes
    ----------
    zones : in any order.
    true_counters : what its energy is the sum of.
    has_class : whether `sys/class/powercap` exists.
    is_masked : whether the links dangle, as in a container.
    vendor : as in `/proc/cpuinfo`.
    is_virtual : whether the processor's flags have `hypervisor`.
    caches : by instance.
    pmus : performance monitoring units of the cores.
    packages : processors of each package.
    """

    zones: tuple[ZoneSpec, ...] = ()
    true_counters: tuple[str, ...] = ()
    has_class: bool = True
    is_masked: bool = False
    vendor: str = "GenuineIntel"
    is_virtual: bool = False
    caches: tuple[CacheSpec, ...] = ()
    pmus: tuple[str, ...] = ("cpu",)
    packages: tuple[tuple[int, ...], ...] = ((0,),)


def _server(
    n_packages: int, slots: str | None = None, dram_range_uj: int = SERVER_DRAM_RANGE_UJ
) -> tuple[ZoneSpec, ...]:
    """Packages with memory; `slots` gives the slot of each package where it is not its number."""
    zones = []
    for package in range(n_packages):
        slot = f"intel-rapl:{(slots or '0123456789ab')[package]}"
        name = f"package-{package}"
        zones.append(ZoneSpec(slot, name, name, max_power_w=205.0))
        dram = f"{name}/dram"
        zones.append(ZoneSpec(f"{slot}:0", "dram", dram, dram_range_uj, 41.25))
    return tuple(zones)


def _counters(zones: tuple[ZoneSpec, ...]) -> tuple[str, ...]:
    return tuple(zone.counter for zone in zones)


def _private_caches(cpu: int, level_1_kib: int, level_2_kib: int) -> tuple[CacheSpec, ...]:
    return (
        CacheSpec(1, "Data", level_1_kib, 12 if level_1_kib == 48 else 8, (cpu,)),
        CacheSpec(1, "Instruction", 32, 8, (cpu,)),
        CacheSpec(2, "Unified", level_2_kib, 16 if level_2_kib == 2048 else 8, (cpu,)),
    )


_SERVER_2 = _server(2)
_SERVER_4 = _server(4, dram_range_uj=INTEL_RANGE_UJ)
_SWAPPED = _server(2, "10")
_TWELVE = tuple(
    ZoneSpec(f"intel-rapl:{i:x}", f"package-{i}", f"package-{i}", max_power_w=150.0)
    for i in range(12)
)
_CLIENT = (
    ZoneSpec("intel-rapl:0", "package-0", "package-0", max_power_w=65.0),
    ZoneSpec("intel-rapl:0:0", "core", "core"),
    ZoneSpec("intel-rapl:0:1", "uncore", "uncore"),
    ZoneSpec("intel-rapl:1", "psys", "psys"),
    ZoneSpec("intel-rapl-mmio:0", "package-0", "package-0", max_power_w=65.0),
)
_DIES = tuple(
    ZoneSpec(f"intel-rapl:{2 * package + die}", name, name, max_power_w=200.0)
    for package in range(2)
    for die in range(2)
    for name in [f"package-{package}-die-{die}"]
)
_ZEN = (
    ZoneSpec("intel-rapl:0", "package-0", "package-0", AMD_RANGE_UJ),
    ZoneSpec("intel-rapl:0:0", "core", "core", AMD_RANGE_UJ),
)


def _mirrored(n_dies: int) -> tuple[ZoneSpec, ...]:
    dies = range(n_dies)
    return tuple(
        zone
        for i in dies
        for zone in (
            ZoneSpec(f"intel-rapl:{i:x}", f"package-0-die-{i}", "package-0", AMD_RANGE_UJ),
            ZoneSpec(f"intel-rapl:{i:x}:0", "core", "core", AMD_RANGE_UJ),
        )
    )


PROFILES = {
    "none": Profile(has_class=False),
    "empty_class": Profile(),
    "intel_server2": Profile(_SERVER_2, _counters(_SERVER_2), packages=((0, 1), (2, 3))),
    "intel_client": Profile(_CLIENT, ("package-0",)),
    "spr4": Profile(
        (
            *_SERVER_4,
            *(
                ZoneSpec(f"intel-rapl:{4 + i:x}", name, "psys", PLATFORM_RANGE_UJ)
                for i, name in enumerate(("psys", "psys-1", "psys-2", "psys-3"))
            ),
        ),
        _counters(_SERVER_4),
    ),
    "clx_ap": Profile(_DIES, _counters(_DIES)),
    "amd_zen": Profile(
        _ZEN,
        ("package-0",),
        vendor="AuthenticAMD",
        caches=(
            *(cache for cpu in range(4) for cache in _private_caches(cpu, 32, 512)),
            CacheSpec(3, "Unified", 16384, 16, (0, 1, 2, 3)),
        ),
        packages=((0, 1, 2, 3),),
    ),
    "amd_ccd_bug": Profile(_mirrored(12), ("package-0",), vendor="AuthenticAMD"),
    "threadripper": Profile(_mirrored(2), ("package-0",), vendor="AuthenticAMD"),
    "swapped_index": Profile(_SWAPPED, _counters(_SWAPPED)),
    "hybrid": Profile(
        _CLIENT,
        ("package-0",),
        caches=(
            *_private_caches(0, 48, 2048),
            *_private_caches(1, 48, 2048),
            *(CacheSpec(1, "Data", 32, 8, (cpu,)) for cpu in range(2, 6)),
            CacheSpec(2, "Unified", 4096, 16, (2, 3, 4, 5)),
            CacheSpec(3, "Unified", 30720, 12, (0, 1, 2, 3, 4, 5)),
        ),
        pmus=("cpu_core", "cpu_atom"),
    ),
    "x3d": Profile(
        _ZEN,
        ("package-0",),
        vendor="AuthenticAMD",
        caches=(
            *(cache for cpu in range(4) for cache in _private_caches(cpu, 32, 1024)),
            CacheSpec(3, "Unified", 98304, 16, (0, 1)),
            CacheSpec(3, "Unified", 32768, 16, (2, 3)),
        ),
    ),
    "container_masked": Profile(_SERVER_2, _counters(_SERVER_2), is_masked=True),
    "vm_rapl": Profile(_CLIENT[:1], ("package-0",), is_virtual=True),
    "arm_scmi": Profile((ZoneSpec("arm-scmi:0", "soc", "soc"),), vendor="ARM"),
    "dtpm_idle_inject": Profile(
        (
            ZoneSpec("dtpm:0", "package-0", None),
            ZoneSpec("dtpm:0:0", "cpu0-cpufreq", None),
            ZoneSpec("idle-inject:0", "idle_inject", None),
            *_SERVER_2,
        ),
        _counters(_SERVER_2),
    ),
    "twelve_zones": Profile(_TWELVE, _counters(_TWELVE)),
}
"""Trees by name; `energy.simulated` builds any of them."""
