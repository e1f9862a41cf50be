"""The rungs of the matrix products over the layers of BUTTER's networks, OpenBLAS as row 0.

`python -m bench.ladder` draws a sample of the layers in BUTTER's grid (`bench.layer_shapes`),
checks every product on every rung against NumPy in float64 (`bench.products`), times the rungs in
turns on one core, prints tables and writes `bench/results/ladder.json` and
`docs/figures/ladder.png`.
`--readme` also writes the tables between the markers of README.md and docs/reading.md;
`--from-json` does all of that from the stored JSON and measures nothing. With another `--dtype` or
number of `--shapes` than the stored measurement has, tables are printed and nothing is kept.

A sample is a compiled loop of repeats of some milliseconds on arrays that the loop before has left
in the caches. What counts is the processor time of the thread: it never waits, so that this is the
time that it takes on a core of its own, also when other work has the core in between.
"""

import argparse
import json
import math
import os
import time

import numpy as np
from threadpoolctl import threadpool_limits

from bench.layer_shapes import CLASS_ENDS, LayerShape, count_layers, draw_sample
from bench.markers import README, ROOT, write_table
from bench.products import BATCH_SIZE, OPENBLAS, OURS, RUNGS, Product, check, make_products
from bench.turns import is_disturbed, quartiles, three_digits
from minibutter.nn.ceiling import measure_fma_ceiling
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.kernels.tiling import Tiling
from minibutter.provenance import read_blas, read_provenance

SHORTEST_SAMPLE_S = 2e-3
LONGEST_PRODUCT_S = 50e-3
"""Slower rungs are left out where one product takes longer: they have been seen to be slow."""

N_SHAPES, ROUNDS, SEED = 60, 15, 0
EXAMPLES = tuple(LayerShape(units, units) for units in (16, 64, 256, 1024))
"""Layers that docs/reading.md speaks of; they are no part of the sample and its shares."""

TILED_EXAMPLE = LayerShape(64, 64)
TILE_ROWS_TRIED = range(1, 9)

LABELS = {"naive": "naive", "blocked": "blocked", "tiled": "tiled", OPENBLAS: "OpenBLAS"}
SYMBOLS = {
    "forward": "z = x w",
    "backward_parameters": "dw = xᵀ dz",
    "backward_input": "dx = dz wᵀ",
}

JSON = ROOT / "bench" / "results" / "ladder.json"
FIGURE = ROOT / "docs" / "figures" / "ladder.png"
READING = ROOT / "docs" / "reading.md"
NAME = "bench.ladder"
TILES_NAME = "bench.ladder, tiles"


# ---------------------------------------------------------------------------------------------
# Measuring


def time_repeats(product: Product, rung: str, repeats: int) -> tuple[float, float]:
    """Seconds of that many products: of the processor, and by the clock."""
    product.repeat[rung](1)  # What the rung before has driven out of the caches comes back.
    begun_s, cpu_begun_s = time.perf_counter(), time.thread_time()
    product.repeat[rung](repeats)
    return time.thread_time() - cpu_begun_s, time.perf_counter() - begun_s


def measure(shape: LayerShape, product: Product, dtype: str, rounds: int) -> dict:
    """Check a product, then time its rungs in turns; one entry of the JSON's `products`."""
    check(product)
    once_s = {rung: min(time_repeats(product, rung, 1)[0] for _ in range(2)) for rung in RUNGS}
    timed = [
        rung for rung in RUNGS if rung in (OPENBLAS, "tiled") or once_s[rung] <= LONGEST_PRODUCT_S
    ]
    repeats = {rung: max(math.ceil(SHORTEST_SAMPLE_S / once_s[rung]), 1) for rung in timed}
    seconds: dict[str, list[float]] = {rung: [] for rung in timed}
    ceilings, core_shares = [], []
    for turn in range(rounds):
        # Nobody always comes after the same other rung.
        for rung in timed if turn % 2 == 0 else reversed(timed):
            cpu_s, clock_s = time_repeats(product, rung, repeats[rung])
            seconds[rung].append(cpu_s / repeats[rung])
            core_shares.append(cpu_s / clock_s)
        ceilings.append(measure_fma_ceiling(dtype, samples=2))
    return {
        "fan_in": shape.fan_in,
        "fan_out": shape.fan_out,
        "product": product.name,
        "flops": product.flops,
        "least_bytes": product.least_bytes,
        "core_share_quartiles": quartiles(np.array(core_shares)),
        **summarize(
            {rung: np.array(values) for rung, values in seconds.items()},
            np.array(ceilings),
            product.flops,
        ),
    }


def summarize(seconds: dict[str, np.ndarray], ceilings: np.ndarray, flops: int) -> dict:
    """Quartiles over rounds; ratios and shares are taken within each round.

    Parameters
    ----------
    seconds : of one product by rung, each (rounds,).
    ceilings : (rounds,), GFLOP/s.
    flops : of one product.
    """
    speeds = {rung: flops / values / 1e9 for rung, values in seconds.items()}
    return {
        "gflops_quartiles": {
            rung: quartiles(speeds[rung]) if rung in speeds else None for rung in RUNGS
        },
        "tiled_to_openblas_quartiles": quartiles(speeds["tiled"] / speeds[OPENBLAS]),
        "tiled_share_of_ceiling_quartiles": quartiles(speeds["tiled"] / ceilings),
        "ceiling_gflops": float(np.median(ceilings)),
    }


def measure_all(dtype: str, n_shapes: int, rounds: int) -> dict:
    """The document of the JSON."""
    layers = count_layers()
    sample = draw_sample(layers, n_shapes, SEED)
    document = {
        "machine": {**read_provenance().columns(), "hostname": None},
        "blas": read_blas() or "unknown",
        "dtype": dtype,
        "batch_size": BATCH_SIZE,
        "rounds": rounds,
        "grid": {"layers": layers.total(), "shapes": len(layers), "seed": SEED},
        "ceiling_gflops": measure_fma_ceiling(dtype, samples=31),
        "products": [],
        "examples": [],
    }
    for part, shapes in (("products", sample), ("examples", EXAMPLES)):
        for shape in shapes:
            for product in make_products(shape, dtype):
                row = measure(shape, product, dtype, rounds)
                document[part].append(row)
                print(as_line(row), flush=True)
    document["tiles"] = measure_tiles(dtype, rounds)
    return document


def measure_tiles(dtype: str, rounds: int) -> dict[str, float]:
    """GFLOP/s of one forward product by the rows of a tile of one line, medians over rounds."""
    products = {}
    for rows in TILE_ROWS_TRIED:
        tiling = Tiling(tile_rows=rows, tile_columns=lanes_of(dtype))
        products[rows] = make_products(TILED_EXAMPLE, dtype, rungs=("tiled",), tiling=tiling)[0]
        check(products[rows])
    repeats = math.ceil(SHORTEST_SAMPLE_S / (products[1].flops / 20e9))
    speeds: dict[int, list[float]] = {rows: [] for rows in products}
    for _ in range(rounds):
        for rows, product in products.items():
            cpu_s, _ = time_repeats(product, "tiled", repeats)
            speeds[rows].append(repeats * product.flops / cpu_s / 1e9)
    return {str(rows): float(np.median(values)) for rows, values in speeds.items()}


# ---------------------------------------------------------------------------------------------
# Writing


def as_line(row: dict) -> str:
    """Progress: a product's medians, the ratio, and whether the core was ours."""
    speeds = ", ".join(f"{rung} {_format_speed(row['gflops_quartiles'][rung])}" for rung in RUNGS)
    ratio = row["tiled_to_openblas_quartiles"][1]
    warning = " (disturbed)" if is_disturbed(row) else ""
    return f"{_describe(row)}: {speeds} GFLOP/s, tiled/OpenBLAS {ratio:.2f}{warning}"


def _describe(row: dict) -> str:
    return f"{row['fan_in']}x{row['fan_out']} {row['product']}"


def _format_speed(speeds: list[float] | None) -> str:
    """Three digits of the median, or a dash where the rung was left out."""
    return "-" if speeds is None else three_digits(speeds[1])


def as_markdown(document: dict) -> str:
    """The table of the README by size of the layer, and the lines below it."""
    names = [*OURS, OPENBLAS]
    header = [
        "weights of the layer", *(f"{LABELS[name]}" for name in names),
        "tiled / OpenBLAS [worst]", "tiled of the FMA ceiling",
    ]  # fmt: skip
    lines = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    for size_class, rows in enumerate(group_by_class(document["products"])):
        if not rows:
            continue
        speeds = [_format_median(rows, name) for name in names]
        ratios = ratios_of(rows)
        shares = [row["tiled_share_of_ceiling_quartiles"][1] for row in rows]
        cells = [
            name_class(size_class), *speeds,
            f"{np.median(ratios):.2f} [{ratios.min():.2f}]", f"{100 * np.median(shares):.0f} %",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", as_notes(document)])


def group_by_class(rows: list[dict]) -> list[list[dict]]:
    """The products of every class of `CLASS_ENDS`, and of what is larger."""
    groups: list[list[dict]] = [[] for _ in range(len(CLASS_ENDS) + 1)]
    for row in rows:
        groups[LayerShape(row["fan_in"], row["fan_out"]).size_class].append(row)
    return groups


def name_class(size_class: int) -> str:
    """As squares: from 16 to 63 weights is 4x4 to 8x8."""
    sides = [math.isqrt(end) for end in CLASS_ENDS]
    if size_class == 0:
        return f"below {sides[0]}x{sides[0]}"
    if size_class == len(sides):
        return f"from {sides[-1]}x{sides[-1]}"
    low, high = sides[size_class - 1], sides[size_class]
    return f"{low}x{low} to {high}x{high}"


def _format_median(rows: list[dict], rung: str) -> str:
    """Median over products; a dash where more than half of them were left out."""
    speeds = [row["gflops_quartiles"][rung] for row in rows if row["gflops_quartiles"][rung]]
    if 2 * len(speeds) < len(rows):
        return "-"
    return _format_speed([0.0, float(np.median([speed[1] for speed in speeds])), 0.0])


def ratios_of(rows: list[dict]) -> np.ndarray:
    """tiled / OpenBLAS of every product, medians over rounds."""
    return np.array([row["tiled_to_openblas_quartiles"][1] for row in rows])


def as_verdict(rows: list[dict]) -> str:
    """How many products `tiled` makes at least as fast as OpenBLAS, and the worst of all."""
    ratios = ratios_of(rows)
    wins = np.count_nonzero(ratios >= 1)
    worst = rows[int(ratios.argmin())]
    return (
        f"{wins} of {len(rows)} ({100 * wins / len(rows):.0f} %), "
        f"worst {ratios.min():.2f} ({worst['fan_in']}x{worst['fan_out']})"
    )


def as_notes(document: dict) -> str:
    """What the table's numbers are, and what follows from them."""
    machine, rows, grid = document["machine"], document["products"], document["grid"]
    by_product = [
        f"{symbol} {as_verdict(members)}"
        for name, symbol in SYMBOLS.items()
        if (members := [row for row in rows if row["product"] == name])
    ]
    worst = SYMBOLS[rows[int(ratios_of(rows).argmin())]["product"]]
    n_shapes = len({(row["fan_in"], row["fan_out"]) for row in rows})
    notes = [
        f"GFLOP/s ({document['dtype']}, batch {document['batch_size']}, one core), medians "
        "over the products of the class; a rung is left out (-) where one product takes more than "
        f"{1e3 * LONGEST_PRODUCT_S:.0f} ms. Ratios are taken in each of {document['rounds']} "
        "rounds; a product counts with their median.",
        f"tiled is at or above OpenBLAS in {as_verdict(rows)[:-1]}, {worst}) of all products; by "
        f"product: {'; '.join(by_product)}.",
        f"{n_shapes} of the {grid['shapes']:,} layer shapes in BUTTER's grid "
        f"({grid['layers']:,} layers; seed {grid['seed']}), as many of each class, each "
        "with its products forward, of the parameters and, where it is ever needed, of the input. "
        "OpenBLAS has its best case: contiguous row-major matrices, called by compiled "
        "code, the bias as a row of w for both.",
        f"{machine['cpu_model']}, ceiling {document['ceiling_gflops']:.0f} GFLOP/s, "
        f"{document['blas']}, Python {machine['python_version']}, "
        f"numba {machine['numba_version']}. "
        "Measured and written by `python -m bench.ladder --readme`.",
    ]
    if disturbed := sum(map(is_disturbed, rows)):
        notes.append(
            f"Other work disturbed the core during {disturbed} of {len(rows)} products; "
            "measure again."
        )
    return "\n".join(notes)


def as_examples(document: dict) -> str:
    """The table of docs/reading.md: named layers, each product of them."""
    names = [*OURS, OPENBLAS]
    header = ["layer", "product", "Mflop", "flop/byte", *(LABELS[name] for name in names)]
    lines = [f"| {' | '.join(header)} |", "|---|---|" + "---:|" * (len(header) - 2)]
    for row in document["examples"]:
        cells = [
            f"{row['fan_in']}x{row['fan_out']}", SYMBOLS[row["product"]],
            f"{row['flops'] / 1e6:.3g}", f"{row['flops'] / row['least_bytes']:.3g}",
            *(_format_speed(row["gflops_quartiles"][name]) for name in names),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        f"GFLOP/s ({document['dtype']}, batch {document['batch_size']}); ceiling "
        f"{document['ceiling_gflops']:.0f} GFLOP/s; {document['machine']['cpu_model']}. "
        "Written by `python -m bench.ladder --readme`."
    )
    return "\n".join([*lines, "", note])


def as_tiles(document: dict) -> str:
    """The second table of docs/reading.md: the same product with tiles of other heights."""
    ceiling, speeds = document["ceiling_gflops"], document["tiles"]
    rows = [
        ["rows of the tile", *speeds],
        ["GFLOP/s", *(f"{speed:.3g}" for speed in speeds.values())],
        ["of the ceiling", *(f"{100 * speed / ceiling:.0f} %" for speed in speeds.values())],
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * len(speeds))
    note = (
        f"z = x w of a {TILED_EXAMPLE.name} layer, {document['dtype']}, batch "
        f"{document['batch_size']}. Written by `python -m bench.ladder --readme`."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    """Measure or read, print, keep."""
    parser = argparse.ArgumentParser(prog="bench.ladder", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--shapes", type=int, default=N_SHAPES, help="how many are drawn")
    parser.add_argument("--readme", action="store_true", help="write the tables into the documents")
    parser.add_argument("--from-json", action="store_true", help="measure nothing")
    options = parser.parse_args()
    is_kept = (options.dtype, options.shapes) == ("float32", N_SHAPES)
    if options.from_json:
        document = json.loads(JSON.read_text())
    else:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        with threadpool_limits(1):
            document = measure_all(options.dtype, options.shapes, options.rounds)
        if is_kept:
            JSON.parent.mkdir(exist_ok=True)
            JSON.write_text(json.dumps(document, indent=1) + "\n")
    print(as_markdown(document), as_examples(document), as_tiles(document), sep="\n\n")
    if is_kept:
        from bench.figure import draw_ladder

        draw_ladder(document, LABELS, FIGURE)
    if options.readme and is_kept:
        write_table(NAME, as_markdown(document), README)
        write_table(NAME, as_examples(document), READING)
        write_table(TILES_NAME, as_tiles(document), READING)


if __name__ == "__main__":
    main()
