"""What the ranks that trained a run together have measured, added up to one result.

All of them have the same metrics; what each has measured is its own. Joules, readings and counts of
events are sums over the ranks, and not known where one of them is not. What belongs to a package is
counted once for each. Durations are those of the first rank, which writes the result down.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from minibutter.runs import RunResult
from minibutter.store import MEASURED_EPOCH_COLUMNS
from minibutter.store.schema import COUNTERS, ENERGY_QUALITIES

_SUMS = ("energy_idle_j", "energy_dynamic_j", "meter_reads", "meter_cpu_s")
_SUMS_OF_PACKAGES = ("energy_package_j", "energy_ranks", "energy_tail_j")
_LARGEST = ("finish_spread_s", "foreign_load")


def measured_by(result: RunResult) -> RunResult:
    """What a rank has to say to the one that adds up, without what that one knows."""
    run = (*_ENERGY, *_SUMS, *_SUMS_OF_PACKAGES, *_LARGEST)
    run += ("energy_mode", "counters_reason", "boot_id", "hostname", "package")
    return RunResult(
        {name: result.run[name] for name in run},
        {name: result.epochs[name] for name in MEASURED_EPOCH_COLUMNS},
    )


def add_up(own: RunResult, measured: Sequence[RunResult]) -> RunResult:
    """The result of a run that several ranks have trained.

    Parameters
    ----------
    own : of the rank that writes it down.
    measured : by all of them, itself included, from `measured_by`.
    """
    runs = [each.run for each in measured]
    run = own.run | _add_energies(runs)
    for name in _SUMS:
        run[name] = _total(each[name] for each in runs)
    for name in _SUMS_OF_PACKAGES:
        run[name] = _total(_of_packages(runs, name))
    for name in _LARGEST:
        run[name] = _known(max, (each[name] for each in runs))
    modes = {each["energy_mode"] for each in runs}
    run["energy_mode"] = modes.pop() if len(modes) == 1 else "shared"
    run["counters_reason"] = next(filter(None, (r["counters_reason"] for r in runs)), None)
    if run["energy_j"] is None:
        run |= dict.fromkeys(_PARTS_OF_ENERGY)
    return RunResult(run, own.epochs | _add_epochs([each.epochs for each in measured]))


_ENERGY = (
    "energy_j",
    "energy_source",
    "energy_quality",
    "energy_reason",
    "energy_resolution_j",
)
_PARTS_OF_ENERGY = (
    *("energy_idle_j", "energy_dynamic_j", "energy_mode", "finish_spread_s"),
    *_SUMS_OF_PACKAGES,
)
"""Null where energy_j is."""


def _of_packages(runs: Sequence[Mapping[str, Any]], name: str) -> list[float | None]:
    """What each package has of a column, from the ranks that trained there: the most that one of
    them saw, as they begin and end a little apart; None where one does not know."""
    packages: dict[tuple[Any, ...], list[float | None]] = {}
    for run in runs:
        key = run["boot_id"], run["hostname"], run["package"]
        packages.setdefault(key, []).append(run[name])
    return [None if None in seen else max(seen) for seen in packages.values()]


def _add_energies(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The columns of an energy from those of its parts: worth as much as the weakest."""
    unknown = [part for part in parts if part["energy_j"] is None]
    if unknown:
        return {
            "energy_j": None,
            "energy_source": None,
            "energy_quality": "unavailable",
            "energy_reason": unknown[0]["energy_reason"],
            "energy_resolution_j": None,
        }
    return {
        "energy_j": sum(part["energy_j"] for part in parts),
        "energy_source": "+".join(dict.fromkeys(part["energy_source"] for part in parts)),
        "energy_quality": min(
            (part["energy_quality"] for part in parts), key=ENERGY_QUALITIES.index
        ),
        "energy_reason": None,
        "energy_resolution_j": _total(part["energy_resolution_j"] for part in parts),
    }


def _add_epochs(epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The measured columns of the epochs, but their durations."""
    columns: dict[str, Any] = {}
    n_epochs = len(epochs[0]["duration_s"])
    energies = [
        _add_energies([{name: rank[name][epoch] for name in _ENERGY} for rank in epochs])
        for epoch in range(n_epochs)
    ]
    for name in _ENERGY:
        columns[name] = [energy[name] for energy in energies]
    columns["energy_window_s"] = [
        _known(max, windows)
        for windows in zip(*(rank["energy_window_s"] for rank in epochs), strict=True)
    ]
    for name in COUNTERS:
        counts = [rank[name] for rank in epochs]
        is_counted = all(count is not None for count in counts)
        columns[name] = [_total(n) for n in zip(*counts, strict=True)] if is_counted else None
    return columns


def _total(values: Iterable[float | None]) -> float | None:
    """The sum; None where a part is not known."""
    known = list(values)
    return None if None in known else sum(known)


def _known(choose: Callable[..., Any], values: Iterable[float | None]) -> float | None:
    return choose((value for value in values if value is not None), default=None)
