"""The state of the machine that joules and seconds depend on, besides the program.

Frequency governor, turbo, SMT, microcode, hypervisor, huge pages and the CPUs that the process may
use: recorded with every run, never changed. None means that the machine does not tell, as most
virtual ones; it is neither "off" nor "no".
"""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from minibutter.energy.sysfs import (
    CPUS,
    format_cpus,
    read_cpuinfo,
    read_cpus,
    read_integer,
    read_text,
)

NO_HYPERVISOR = "none"

_VIRTUAL_HARDWARE = {
    "qemu": "QEMU", "kvm": "KVM", "vmware": "VMware", "virtualbox": "VirtualBox",
    "innotek": "VirtualBox", "xen": "Xen", "amazon ec2": "Amazon EC2", "bochs": "Bochs",
    "google compute engine": "Google Compute Engine", "openstack": "OpenStack",
    "parallels": "Parallels", "virtual machine": "Hyper-V", "firecracker": "Firecracker",
}  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """What a run found; columns of the `runs` table."""

    affinity: str
    """The CPUs that the process may use, as the kernel writes them: `0-3,8`."""
    governor: str | None
    """Frequency governor of these CPUs; several are joined by commas."""
    turbo: bool | None
    """Whether the clock may rise above its nominal rate."""
    smt: bool | None
    """Whether cores of the machine run several threads at once."""
    microcode: str | None
    """Revision of the processor's microcode, which decides how RAPL filters its values."""
    hypervisor: str | None
    """`none` on bare metal, else its name, or `unknown` if only its presence shows."""
    transparent_huge_pages: str | None
    """`always`, `madvise` or `never`."""
    boot_id: str | None
    """Of the kernel since it was started, the same in all its containers: what belongs together."""

    @property
    def is_virtual(self) -> bool | None:
        """Whether this is a virtual machine."""
        return None if self.hypervisor is None else self.hypervisor != NO_HYPERVISOR

    def columns(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(vars(self))


def recent_environment() -> Environment:
    """The state of at most a second ago, for whoever asks a hundred times a second."""
    return _environment_of(int(time.monotonic()), tuple(sorted(os.sched_getaffinity(0))))


@lru_cache(maxsize=1)
def _environment_of(second: int, affinity: tuple[int, ...]) -> Environment:
    return read_environment(affinity=affinity)


def read_environment(
    root: Path = Path("/"), affinity: Collection[int] | None = None
) -> Environment:
    """The present state; well under a millisecond on most machines.

    Parameters
    ----------
    root : where `sys` and `proc` lie.
    affinity : CPU numbers; those that this process may use when left out.
    """
    cpus = tuple(sorted(os.sched_getaffinity(0) if affinity is None else affinity))
    cpuinfo = read_cpuinfo(root)
    return Environment(
        affinity=format_cpus(cpus),
        governor=_read_governors(root, cpus),
        turbo=_read_turbo(root),
        smt=_read_smt(root),
        microcode=cpuinfo.get("microcode"),
        hypervisor=_read_hypervisor(root, cpuinfo),
        transparent_huge_pages=_read_huge_pages(root),
        boot_id=read_boot_id(root),
    )


def read_boot_id(root: Path = Path("/")) -> str | None:
    """Identifies the running kernel; None where it cannot be read."""
    return read_text(root / "proc/sys/kernel/random/boot_id")


def is_container(root: Path = Path("/")) -> bool:
    """Whether the usual marks of a container are there: of Docker, Podman or systemd."""
    marks = (".dockerenv", "run/.containerenv", "run/systemd/container")
    return any((root / mark).exists() for mark in marks)


def _read_governors(root: Path, cpus: tuple[int, ...]) -> str | None:
    """Of every CPU; those of a policy share one file below `policy*`, which is read once."""
    policies = root / CPUS / "cpufreq"
    governors = set()
    for policy in policies.glob("policy*"):
        governor = read_text(policy / "scaling_governor")
        if governor is not None and set(read_cpus(policy / "affected_cpus") or ()) & set(cpus):
            governors.add(governor)
    if not governors:
        found = (read_text(root / CPUS / f"cpu{n}/cpufreq/scaling_governor") for n in cpus)
        governors = set(filter(None, found))
    return ",".join(sorted(governors)) or None


def _read_turbo(root: Path) -> bool | None:
    no_turbo = read_integer(root / CPUS / "intel_pstate/no_turbo")
    boost = read_integer(root / CPUS / "cpufreq/boost")
    if no_turbo is not None:
        return no_turbo == 0
    return None if boost is None else boost != 0


def _read_smt(root: Path) -> bool | None:
    active = read_integer(root / CPUS / "smt/active")
    return None if active is None else active != 0


def _read_hypervisor(root: Path, cpuinfo: dict[str, str]) -> str | None:
    """Told by the CPUID flag on x86; elsewhere the names of the hardware can only say yes."""
    name = read_text(root / "sys/hypervisor/type")
    for field in ("sys_vendor", "product_name"):
        hardware = (read_text(root / "sys/class/dmi/id" / field) or "").lower()
        name = name or next((n for mark, n in _VIRTUAL_HARDWARE.items() if mark in hardware), None)
    if "flags" not in cpuinfo:
        return name
    if "hypervisor" in cpuinfo["flags"].split():
        return name or "unknown"
    # Metal instances of a cloud bear its name and have no hypervisor.
    return NO_HYPERVISOR


def _read_huge_pages(root: Path) -> str | None:
    """The word in brackets of `always [madvise] never`."""
    text = read_text(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    _, _, behind = text.partition("[")
    return behind.partition("]")[0] or None
