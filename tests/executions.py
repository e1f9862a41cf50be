"""Executing runs in tests: with a meter of their own, and what is compared of their results."""

import itertools

from minibutter import runs, store
from minibutter.energy import open_meter
from minibutter.provenance import read_provenance
from minibutter.store.schema import columns_of_kind

COMPUTED = columns_of_kind(store.RUNS_SCHEMA, "computed")


def execute(experiment, repetition=0, **options):
    with open_meter() as meter:
        return runs.execute(
            experiment,
            repetition,
            meter=meter,
            provenance=read_provenance(),
            sweep="test",
            **options,
        )


def execute_group(experiment, repetitions, meter=None, **options):
    with meter or open_meter() as meter:
        return runs.execute_group(
            experiment,
            repetitions,
            meter=meter,
            provenance=read_provenance(),
            sweep="test",
            **options,
        )


def bits(result):
    """All that may not differ between two executions of a run, floats as their bytes."""
    computed = {name: result.run[name] for name in COMPUTED}
    return computed, {
        name: column if isinstance(column, list) else column.tobytes()
        for name, column in result.epochs.items()
        if name not in store.MEASURED_EPOCH_COLUMNS
    }


def ticking_meter(folder, **options):
    """Of a powercap tree in a folder, whose package draws 5 J between any two looks at the clock.

    A look is a second, and a reading looks before and after.
    """
    zone = folder / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    energy_uj = zone / "energy_uj"
    energy_uj.write_text("0\n")
    looks = itertools.count()

    def clock():
        look = next(looks)
        energy_uj.write_text(f"{look * 5_000_000}\n")
        return look * 10**9

    return open_meter(folder, clock=clock, **options)
