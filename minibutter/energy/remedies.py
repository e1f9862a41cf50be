"""The exact lines that open the energy counters to users, for a shell with sudo.

Nothing here is run by us. Counters were closed to ordinary users because fast readings of them leak
secrets of other processes (PLATYPUS, CVE-2020-8694): on a machine with users who do not trust each
other, the administrator may prefer a group to `a+r`.
"""

import sys
from pathlib import Path

_ZONES = "/sys/devices/virtual/powercap/intel-rapl/intel-rapl:*"
_UDEV_RULE = (
    'SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", ACTION=="add", '
    'RUN+="/bin/chmod a+r /sys%p/energy_uj"'
)


def open_powercap() -> tuple[str, ...]:
    """Lines that let every user read the zones: now, and from the next boot on (one of two)."""
    tmpfiles = f"z {_ZONES}/energy_uj 0444 - -\\nz {_ZONES}/intel-rapl:*/energy_uj 0444 - -"
    return (
        "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj  # until the next boot",
        f"echo '{_UDEV_RULE}' | sudo tee /etc/udev/rules.d/90-rapl.rules  # from then on: udev",
        f"printf '{tmpfiles}\\n' | sudo tee /etc/tmpfiles.d/rapl.conf  # or else: tmpfiles",
    )


def open_perf(interpreter: Path | None = None) -> tuple[str, ...]:
    """Lines that let a user open CPU-wide events: for all, at once and from boot on, or for Python.

    Parameters
    ----------
    interpreter : the file of Python, which gets the capability; the running one when left out.
    """
    python = (interpreter or Path(sys.executable)).resolve()
    return (
        "sudo sysctl kernel.perf_event_paranoid=0  # until the next boot",
        "echo kernel.perf_event_paranoid=0 | sudo tee /etc/sysctl.d/90-perf.conf  # from then on",
        f"sudo setcap cap_perfmon=ep {python}  # or else: this Python alone",
    )


def load_drivers() -> tuple[str, ...]:
    """Lines that load the drivers of the counters, now and at every boot."""
    return (
        "sudo modprobe -a intel_rapl_msr rapl  # until the next boot",
        r"printf 'intel_rapl_msr\nrapl\n' | sudo tee /etc/modules-load.d/rapl.conf  # from then on",
    )


def unmask() -> tuple[str, ...]:
    """Options that let a container see the zones, for Docker and for Podman."""
    return (
        "docker run --security-opt systempaths=unconfined ...",
        "podman run --security-opt unmask=/sys/devices/virtual/powercap ...",
    )


def allow_perf_in_container() -> tuple[str, ...]:
    """The option that lets a container call perf_event_open, for Docker and Podman alike."""
    return ("docker run --cap-add PERFMON ...  # podman takes the same option",)
