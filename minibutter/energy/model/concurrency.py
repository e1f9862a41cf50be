"""Runs beside each other on a package: what of each fell into the interval of another.

A share of a package's energy, by processor time or an n-th, is no measurement of a run: it does not
know that the neighbour took more joules a second, and what is fitted to it is biased. The energy of
the whole package over the run's interval is one. It has paid for the static power of that time, for
the work of the run, and for that part of the work of every other run there that fell into the
interval. Each is known: the epochs of a run are equal work, and its `Paces` tell when it did them.
An energy and the work that it paid for are all that a fit needs, whoever did the work.

What is not in the table is not seen: runs of another sweep or directory, failed runs, those that a
kill cut short, an execution that the table does not keep, and what a rank does between its runs.
Where the load of other processes is known (`foreign_load`), runs beside much of it are left out of
a fit; the energy of foreign work is known to nobody.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import sparse

CONCURRENT_MODES = ("shared", "gang")

PACKAGE_COLUMNS = (
    *("energy_mode", "energy_package_j"),
    *("boot_id", "package", "begun_ns", "ended_ns", "cache_state", "foreign_load"),
)
"""Columns of the table `runs` that tell what ran together; tables of older versions have few."""

_MAX_PAIRS = 2**22
"""Held at once: some 100 MB."""


def is_concurrent(runs: pd.DataFrame) -> pd.Series:
    """Whether other ranks could use the packages of each run, so that its own energy is a share."""
    if "energy_mode" not in runs:
        return pd.Series(False, runs.index)
    return runs["energy_mode"].isin(CONCURRENT_MODES)


def has_interval(runs: pd.DataFrame) -> pd.Series:
    """Whether it is known of each run when it began and ended, and in which boot of a kernel."""
    if not {"boot_id", "package", "begun_ns", "ended_ns"} <= set(runs):
        return pd.Series(False, runs.index)
    duration_ns = runs["ended_ns"].astype("Int64") - runs["begun_ns"].astype("Int64")
    return runs["boot_id"].notna() & (duration_ns > 0).fillna(False).astype(bool)


def interval_s(runs: pd.DataFrame) -> pd.Series:
    """Seconds from begin to end of runs that have an interval."""
    return (runs["ended_ns"] - runs["begun_ns"]).astype(np.float64) / 1e9


def has_whole_package(runs: pd.DataFrame) -> pd.Series:
    """Whether a run that was not alone has an energy of its packages that can be explained."""
    if "energy_package_j" not in runs:
        return pd.Series(False, runs.index)
    is_positive = (runs["energy_package_j"] > 0).fillna(False).astype(bool)
    return is_concurrent(runs) & has_interval(runs) & is_positive


def is_steady(runs: pd.DataFrame) -> pd.Series:
    """Whether a run does between its epochs what it does in them: emptying the caches takes joules
    of the package that no FLOPs and bytes of an epoch tell of."""
    if "cache_state" not in runs:
        return pd.Series(True, runs.index)
    return runs["cache_state"] != "cold"


class Paces:
    """How much of its work a run has done at any moment between its begin and its end.

    Every epoch is the same part of the work, and takes that part of the interval that its duration
    is of all durations: pauses between epochs are spread evenly over them. A run without epochs in
    the table works evenly.

    Parameters
    ----------
    run_ids : of n runs.
    epochs : with `run_id` and `duration_s`, in the order of each run's epochs; or None.
    """

    def __init__(self, run_ids: pd.Index, epochs: pd.DataFrame | None = None) -> None:
        n = len(run_ids)
        if epochs is None:
            epochs = pd.DataFrame({"run_id": [], "duration_s": []})
        number = run_ids.get_indexer(epochs["run_id"])
        order = np.argsort(number, kind="stable")
        order = order[np.searchsorted(number[order], 0) :]
        number = number[order]
        duration_s = epochs["duration_s"].to_numpy(np.float64)[order]
        passed_s = np.cumsum(duration_s)
        n_epochs = np.bincount(number, minlength=n)
        last = np.cumsum(n_epochs)
        before_s = np.concatenate([[0.0], passed_s])[last - n_epochs]
        all_s = np.concatenate([[0.0], passed_s])[last] - before_s
        within = np.arange(len(number)) - (last - n_epochs)[number] + 1
        work = within / n_epochs[number]
        is_timed = (all_s > 0)[number]
        time = np.where(
            is_timed, (passed_s - before_s[number]) / np.maximum(all_s, 1e-30)[number], work
        )
        # Run i has the stretch from 2 i to 2 i + 1 on both axes, so that one table serves all.
        time, work = 2 * number + time, 2 * number + work
        ends = 2.0 * np.arange(n)
        ends = np.concatenate([ends, ends + 1])
        self._time = np.concatenate([ends, time])
        self._work = np.concatenate([ends, work])
        by_time = np.argsort(self._time, kind="stable")
        self._time, self._work = self._time[by_time], np.sort(self._work)

    def done(self, runs: np.ndarray, passed: np.ndarray) -> np.ndarray:
        """Fraction of the work of some runs done when a fraction of their time has passed.

        Parameters
        ----------
        runs : int, shape (k,), from 0 to n - 1. passed : float64, shape (k,), from 0 to 1.
        """
        return np.interp(2 * runs + passed, self._time, self._work) - 2 * runs


def work_during(
    runs: pd.DataFrame, is_wanted: np.ndarray, paces: Paces | None = None
) -> tuple[sparse.csr_array, np.ndarray]:
    """Which part of each run's work the energy of the packages of another has paid for.

    Runs are on the same packages if their `boot_id` is the same and their `package` is, too. A run
    without `package` could use several, and its energy is that of all of them, so that all runs
    of its boot count. How much of its own work was done on which package is not known: whatever
    ran beside it on one package cannot be explained.

    Parameters
    ----------
    runs : n runs, with `boot_id`, `package`, `begun_ns` and `ended_ns` where they are known.
    is_wanted : bool, shape (n,): runs to tell it of; the others get their own work alone.
    paces : of the runs; each works evenly where they are left out.

    Returns
    -------
    fractions : shape (n, n); [i, j] is the fraction of the work of j, with 1 for i itself.
    is_beside_unbound : bool, shape (n,): wanted, on one package, and beside a run that could use
        several.
    """
    n = len(runs)
    paces = paces or Paces(pd.RangeIndex(n))
    is_beside_unbound = np.zeros(n, bool)
    own = np.arange(n)
    entries = [(own, own, np.ones(n))]
    places = np.flatnonzero(has_interval(runs))
    if len(places) and is_wanted.any():
        known = runs.iloc[places]
        begun_ns = known["begun_ns"].to_numpy(np.int64)
        ended_ns = known["ended_ns"].to_numpy(np.int64)
        package = known["package"].astype("Float64").to_numpy(np.float64, na_value=np.nan)
        is_unbound, is_wanted = np.isnan(package), is_wanted[places]
        for members in known.groupby("boot_id").indices.values():
            order = members[np.argsort(begun_ns[members], kind="stable")]
            for pair in _overlapping(begun_ns[order], ended_ns[order]):
                earlier, later = order[pair[0]], order[pair[1]]
                until_ns = np.minimum(ended_ns[earlier], ended_ns[later])
                for of, beside in ((earlier, later), (later, earlier)):
                    is_mixed = is_wanted[of] & ~is_unbound[of] & is_unbound[beside]
                    is_beside_unbound[places[of[is_mixed]]] = True
                    is_paid = is_unbound[of] | (package[of] == package[beside])
                    kept = np.flatnonzero(is_wanted[of] & is_paid)
                    of, beside, since_ns = of[kept], beside[kept], begun_ns[later[kept]]
                    span_ns = ended_ns[beside] - begun_ns[beside]
                    done = [
                        paces.done(places[beside], (moment_ns - begun_ns[beside]) / span_ns)
                        for moment_ns in (since_ns, until_ns[kept])
                    ]
                    fraction = done[1] - done[0]
                    entries.append((places[of], places[beside], fraction))
    rows, columns, fractions = map(np.concatenate, zip(*entries, strict=True))
    return sparse.csr_array((fractions, (rows, columns)), shape=(n, n)), is_beside_unbound


def _overlapping(
    begun_ns: np.ndarray, ended_ns: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of intervals that have time in common, each once, in portions.

    Intervals are sorted by their begin: after each come those that begin before it ends.
    """
    n_pairs = np.searchsorted(begun_ns, ended_ns) - np.arange(len(begun_ns)) - 1
    total = np.concatenate([[0], np.cumsum(n_pairs)])
    start = 0
    while start < len(n_pairs):
        stop = np.searchsorted(total, total[start] + _MAX_PAIRS, side="right") - 1
        stop = max(int(stop), start + 1)
        earlier = np.repeat(np.arange(start, stop), n_pairs[start:stop])
        rank = np.arange(total[start], total[stop]) - total[earlier]
        yield earlier, earlier + 1 + rank
        start = stop
