"""Single values of the files below `/sys` and `/proc`: text, numbers and lists of CPUs.

What cannot be read is None; who needs it says what is missing then. The paths are relative to a
root, so that a tree in a temporary folder takes the place of a machine.
"""

from pathlib import Path

CPUS = Path("sys/devices/system/cpu")


def read_text(path: Path) -> str | None:
    """The content without its newline; None if it cannot be read or is empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except (OSError, ValueError):
        return None


def read_integer(path: Path) -> int | None:
    """A decimal number; None if it cannot be read or is none."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def read_cpus(path: Path) -> tuple[int, ...] | None:
    """A list of CPUs; None if it cannot be read."""
    text = read_text(path)
    try:
        return None if text is None else parse_cpus(text)
    except ValueError:
        return None


def parse_cpus(text: str) -> tuple[int, ...]:
    """CPU numbers of a list of the kernel such as `0-3,8`, in increasing order.

    Raises
    ------
    ValueError
        If it is no such list.

    Examples
    --------
    >>> parse_cpus("0-3,8")
    (0, 1, 2, 3, 8)
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        cpus.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(cpus))


def format_cpus(cpus: tuple[int, ...]) -> str:
    """The kernel's way to write CPU numbers, the inverse of `parse_cpus`.

    Examples
    --------
    >>> format_cpus((0, 1, 2, 3, 8))
    '0-3,8'
    """
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def read_cpuinfo(root: Path) -> dict[str, str]:
    """The fields of the first processor in `/proc/cpuinfo`; empty if it cannot be read."""
    fields: dict[str, str] = {}
    try:
        # A line at a time: on large machines the rest is a megabyte of the same.
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    break
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        pass
    return fields
