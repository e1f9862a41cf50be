"""Our training beside scikit-learn, PyTorch and JAX: microseconds a step, in turns on one core.

`python -m bench.peers` checks that all sides (`bench.sides`) make the same steps, times them in
turns (`bench.turns`), prints a table and writes `bench/results/peers.json` and
`docs/figures/peers.png`. `--readme` also writes the table between the markers of README.md;
`--from-json` does all of that from the stored JSON and measures nothing.
"""

import argparse
import json
import os
import tempfile
from importlib import metadata

from bench.markers import README, ROOT, write_table
from bench.sides import BATCH_SIZE, LEARNING_RATE, N_ROWS, SINGLE_THREAD, Problem
from bench.turns import is_disturbed, measure, three_digits
from minibutter.nn.ceiling import measure_fma_ceiling
from minibutter.provenance import read_provenance

HIDDEN = ((4,) * 2, (16,) * 2, (32,) * 3, (64,) * 3, (256,) * 3, (1024,) * 3, (16,) * 18)
PROBLEMS = (
    *(Problem(64, hidden, 10) for hidden in HIDDEN),
    Problem(2, (8, 8), 2, repetitions=16),
    Problem(8, (8, 8), 2, repetitions=16),
)

LABELS = {
    "minibutter": "minibutter",
    "minibutter_metrics": "minibutter + metrics",
    "numpy": "NumPy",
    "scikit_learn": "scikit-learn",
    "pytorch": "PyTorch",
    "pytorch_compiled": "torch.compile",
    "jax": "JAX",
}
# Ratios of these two are in the table, those of all in the JSON.
RATIOS = ("pytorch", "jax")
PACKAGES = ("scikit-learn", "torch", "jax", "jaxlib")

JSON = ROOT / "bench" / "results" / "peers.json"
FIGURE = ROOT / "docs" / "figures" / "peers.png"
NAME = "bench.peers"


def read_versions() -> dict[str, str | None]:
    """Of every peer; None for one that is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def measure_all(problems: list[Problem], rounds: int) -> dict:
    """The document of the JSON. A quarter of the rounds where a step takes milliseconds."""
    document = {
        "machine": {**read_provenance().columns(), "hostname": None},
        "versions": read_versions(),
        "dtype": "float32",
        "batch_size": BATCH_SIZE,
        "rows": N_ROWS,
        "learning_rate": LEARNING_RATE,
        "ceiling_gflops": {
            dtype: measure_fma_ceiling(dtype, samples=31) for dtype in ("float32", "float64")
        },
        "networks": [],
    }
    for problem in problems:
        is_large = problem.network.num_parameters > 2**16
        row = measure(problem, max(3, rounds // 4) if is_large else rounds)
        document["networks"].append(row)
        print(as_line(row), flush=True)
    return document


def as_line(row: dict) -> str:
    """Progress: a network's medians, what is missing, and whether the core was ours."""
    cells = [
        f"{name} {side['missing'] or format(side['us_per_step'], '.1f')}"
        for name, side in row["sides"].items()
    ]
    warning = " (disturbed)" if is_disturbed(row) else ""
    return f"{row['name']}: {', '.join(cells)}{warning}"


def sides_in(document: dict) -> list[str]:
    """Names of all sides that any network was trained with, in the order of `LABELS`."""
    present = {name for row in document["networks"] for name in row["sides"]}
    return [name for name in LABELS if name in present]


def as_markdown(document: dict) -> str:
    """The table of the README and the lines below it."""
    names = sides_in(document)
    compared = [name for name in RATIOS if name in names]
    header = [
        "network", "parameters", *(LABELS[name] for name in names),
        *(f"{LABELS[name]} / ours" for name in compared), "of the FMA ceiling",
    ]  # fmt: skip
    lines = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    for row in document["networks"]:
        name = row["name"] if row["repetitions"] == 1 else f"{row['repetitions']} of {row['name']}"
        times = [_format_us(row["sides"].get(side)) for side in names]
        ratios = [_format_ratio(row["sides"].get(side)) for side in compared]
        share = f"{100 * row['share_of_ceiling_quartiles'][1]:.0f} %"
        cells = [name, f"{row['num_parameters']:,}", *times, *ratios, share]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *as_notes(document)])


def _format_us(side: dict | None) -> str:
    """Three digits, or a dash where there is nothing."""
    if side is None or side["us_per_step"] is None:
        return "-"
    return three_digits(side["us_per_step"])


def _format_ratio(side: dict | None) -> str:
    """Median and quartiles."""
    if side is None or side["ratio_quartiles"] is None:
        return "-"
    low, middle, high = side["ratio_quartiles"]
    digits = 2 if middle < 10 else 0
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def as_notes(document: dict) -> list[str]:
    """What the table's numbers are."""
    machine, rows = document["machine"], document["networks"]
    versions = ", ".join(
        f"{name} {version}" for name, version in document["versions"].items() if version
    )
    rounds = sorted({row["rounds"] for row in rows})
    ours = next(iter(rows[0]["sides"]))
    notes = [
        f"Microseconds a training step (batch {document['batch_size']}, Adam, {document['dtype']}; "
        "per repetition where several are trained), medians of "
        f"{' or '.join(map(str, rounds))} rounds in turns on one core; ratios to {LABELS[ours]} "
        "are taken in each round, with quartiles. "
        f"Only {LABELS['minibutter_metrics']} computes the ten running metrics. "
        "4x2 is two hidden layers of 4 between 64 inputs and 10 outputs; 2-8-8-2 has 2 inputs and "
        "2 outputs.",
        "The last column divides the operations of a step's matrix products by its time and by the "
        f"ceiling, {document['ceiling_gflops']['float32']:.0f} GFLOP/s, measured in the same "
        "rounds.",
        "In every epoch all sides get the same random order of 4096 rows and gather their batches "
        "from it.",
        "PyTorch trains several repetitions one after the other, JAX maps over them.",
        "From the start of a process, which imports NumPy and minibutter for all, to its first "
        f"epoch's end, with compilation: {'; '.join(_first_epochs(document))}.",
        f"{machine['cpu_model']}, Python {machine['python_version']}, "
        f"numba {machine['numba_version']}, {versions}. "
        "Measured and written by `python -m bench.peers --readme`.",
    ]
    if disturbed := [row["name"] for row in rows if is_disturbed(row)]:
        notes.append(f"Disturbed by other work on the core, measure again: {', '.join(disturbed)}.")
    for row in rows:
        for name, side in row["sides"].items():
            if side["missing"]:
                notes.append(f"{LABELS[name]} is missing for {row['name']}: {side['missing']}.")
    return ["\n".join(notes)]


def _first_epochs(document: dict) -> list[str]:
    """By side, the range over networks; ours compiles for the first and then loads from disk."""
    texts = []
    for name in sides_in(document):
        sides = [row["sides"][name] for row in document["networks"] if name in row["sides"]]
        seconds = [side["first_epoch_s"] for side in sides if side["first_epoch_s"] is not None]
        if seconds:
            texts.append(f"{LABELS[name]} {min(seconds):.1f} to {max(seconds):.1f} s")
    return texts


def choose_problems(names: list[str] | None) -> list[Problem]:
    """Those of these names, or all."""
    return [problem for problem in PROBLEMS if names is None or problem.name in names]


def main() -> None:
    """Measure or read, print, keep."""
    parser = argparse.ArgumentParser(prog="bench.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--networks", nargs="+", choices=[problem.name for problem in PROBLEMS])
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument("--from-json", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.from_json:
        document = json.loads(JSON.read_text())
    else:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.environ.update(SINGLE_THREAD)
        with tempfile.TemporaryDirectory() as folder:
            # Compiled code of earlier days would make a first epoch look cheap.
            os.environ.update(NUMBA_CACHE_DIR=folder, TORCHINDUCTOR_CACHE_DIR=folder)
            document = measure_all(choose_problems(options.networks), options.rounds)
        if options.networks is None:
            JSON.parent.mkdir(exist_ok=True)
            JSON.write_text(json.dumps(document, indent=2) + "\n")
    table = as_markdown(document)
    print(table)
    if options.networks is None:
        from bench.figure import draw_peers

        draw_peers(document, LABELS, FIGURE)
    if options.readme:
        write_table(NAME, table, README)


if __name__ == "__main__":
    main()
