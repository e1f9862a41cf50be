"""The whole chain on a machine whose energy is known: sweep, ranks, meter, store, fit.

Static power and joules per FLOP and per byte of every level are planted in simulated counters with
ticks of 1 ms; a sweep over sizes, rungs and tilings on two ranks must bring them back.
"""

import json

import pandas as pd
import pytest

from minibutter.energy.simulated import PowerModel, build

pytestmark = [pytest.mark.mpi, pytest.mark.long]

MODEL = PowerModel(
    package_w=40.0,
    joules_per_flop=7e-10,
    joules_per_byte={"l1": 1e-9, "l2": 1e-9, "l3": 8e-9, "dram": 2e-8},
    tick_s=1e-3,
    jitter_s=1e-4,
)
# Networks that fit the first to the last of the simulated caches (32 KiB, 512 KiB, 4 MiB a core),
# on rungs and with tilings that move more and less between them. Every run takes a second or
# two, in many short epochs: what simulated counters have drawn by a moment within an epoch depends
# on how long the machine expected it to take.
GRIDS = (
    ("", {2_000: 3000, 16_000: 900, 65_536: 1500, 131_072: 1000, 300_000: 480}),
    ("block_depth = 16", {16_000: 800, 131_072: 800, 300_000: 480}),
    ("tile_rows = 2\ntile_columns = 16", {16_000: 600, 300_000: 360}),
    ('kernel = "naive"', {2_000: 600, 131_072: 90, 300_000: 45}),
)


def sweep_text(repetitions):
    """A grid for every size, so that large networks train for fewer epochs, on fewer rows."""
    text = f'name = "planted"\ndepth = 3\nrepetitions = {repetitions}\n'
    for keys, epochs_by_size in GRIDS:
        for size, epochs in epochs_by_size.items():
            dataset = "digits" if size < 50_000 else "wine"
            text += f'[[grid]]\ndataset = "{dataset}"\nsize = {size}\nepochs = {epochs}\n{keys}\n'
    return text


@pytest.mark.parametrize("mode", ["gang", "shared"])
def test_planted_coefficients_come_back_within_three_percent(launcher, monkeypatch, mode):
    machine = build(launcher.folder / "machine", "amd_zen", MODEL)
    monkeypatch.setenv("MINIBUTTER_POWERCAP_ROOT", str(machine.root))
    planted = {"static_power_w": MODEL.package_w, "energy_per_flop_j": MODEL.joules_per_flop}
    planted |= {f"energy_per_{name}_byte_j": j for name, j in MODEL.joules_per_byte.items()}
    # Durations scatter where others take the processors, host or guests: then the sweep grows, and
    # all of its runs are fitted.
    for repetitions in (2, 4, 6):
        found = sweep_and_fit(launcher, mode, launcher.folder / "out", repetitions)
        errors = {term: found[term] / value - 1 for term, value in planted.items()}
        if max(map(abs, errors.values())) <= 0.03:
            break
    assert errors == pytest.approx(dict.fromkeys(planted, 0.0), abs=0.03)


def sweep_and_fit(launcher, mode, out, repetitions):
    """Coefficients by term, of all runs that there are then."""
    sweep = launcher.folder / "planted.toml"
    sweep.write_text(sweep_text(repetitions))
    done = launcher.run(
        2, launcher.mpi_run, sweep, "--out", out, "--lanes", 1, "--energy", mode,
        "--idle-seconds", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = pd.read_parquet(out / "runs")
    assert (runs["energy_mode"] == mode).all()
    for account in map(json.loads, (out / "node_energy.jsonl").read_text().splitlines()):
        assert abs(account["imbalance_j"]) <= 1e-6 * account["total_j"]
    done = launcher.run(None, "-m", "minibutter", "energy", "fit", out, "--json")
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    (hierarchy,) = [form for form in model["forms"] if form["name"] == "hierarchy"]
    return {c["term"]: c["value"] for c in hierarchy["coefficients"]}
