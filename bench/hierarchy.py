"""Misses of the products: our cache simulator, cachegrind, and the prediction without either.

`python -m bench.hierarchy` makes the three products of square layers on every rung, with small
caches so that small layers straddle their boundaries, and prints what each of the three says; with
`--docs` it also writes the table between the markers of docs/hierarchy.md. It takes some minutes.

The simulator replays the stream of accesses at the addresses that arrays and stack had under
cachegrind, by cachegrind's rules; the prediction knows only the sizes.
"""

import argparse
from dataclasses import dataclass

from bench.cachegrind import VECTOR_BYTES, Case, Counts, count_misses, why_not
from bench.markers import ROOT, write_table
from minibutter import hierarchy
from minibutter.energy.cachesim import CacheLevel
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.loops import Cache
from minibutter.nn.product_loops import Kernel, Product

DOCUMENT = ROOT / "docs" / "hierarchy.md"
NAME = "bench.hierarchy"

D1, LL = CacheLevel(32 * 2**10, 8), CacheLevel(256 * 2**10, 8)
CACHES = {1: D1.size_bytes, 2: LL.size_bytes, 3: 8 * 2**20}
TILING = Tiling(tile_rows=6, tile_columns=16).resolved("float32", CACHES)
BATCH_SIZE = 64
AROUND_D1, AROUND_LL = (16, 24, 96, 144), (96, 144, 320, 328)
"""Units of square layers, two on either side of each boundary: arrays of 9, 14 | 84, 153 KiB around
the 32 of D1, and of 84, 153 | 560, 584 KiB around the 256 of LL."""

EDGES = (48, 72, 112, 232)
"""Layers of which all, or the array that one loop walks, nearly fills a level, so that a few lines
decide over all: shown, not promised."""

RUNGS = ("naive", "blocked", "tiled")
PRODUCTS = ("forward", "backward_parameters", "backward_input")
SYMBOLS = {
    "forward": "z = x w",
    "backward_parameters": "dw = xᵀ dz",
    "backward_input": "dx = dz wᵀ",
}
UNSEEN = 150
"""Lines that a product may touch besides its arrays and the stack of its loops: of its callers, and
constants. The stream leaves them out, cachegrind counts them."""


@dataclass(frozen=True)
class Row:
    """What three sources say of a product: misses of the first and the last level.

    Attributes
    ----------
    case : the product.
    measured : by cachegrind.
    simulated, predicted : misses of D1 and LL.
    margins : of the prediction, by level.
    """

    case: Case
    measured: Counts
    simulated: tuple[float, float]
    predicted: tuple[float, float]
    margins: tuple[float, float]


def make_cases(widths: tuple[int, ...]) -> list[Case]:
    """All products of square layers of these widths on all rungs."""
    sizes = tuple(vars(TILING).values())
    return [
        Case(rung, product, width, width, BATCH_SIZE, "float32", sizes)
        for rung in RUNGS
        for width in widths
        for product in PRODUCTS
    ]


def compare(cases: list[Case]) -> list[Row]:
    """Ask all three."""
    geometry = [f"{level.size_bytes},{level.ways},{level.line_bytes}" for level in (D1, LL)]
    return [
        Row(case, measured, simulate(case, measured.addresses), *predict(case))
        for case, measured in zip(cases, count_misses(cases, *geometry), strict=True)
    ]


def simulate(case: Case, addresses: dict[str, int] | None = None) -> tuple[float, float]:
    """Misses of a product by the simulator, in the model of cachegrind."""
    repeats = 2
    simulator = hierarchy.simulate_product(
        _product(case),
        case.kernel,
        Tiling(*case.tiling),
        [D1, LL],
        model="cachegrind",
        repeats=repeats,
        addresses=addresses,
        vector_bytes=VECTOR_BYTES,
    )
    d1, ll = simulator.counts
    return d1.misses / repeats, ll.misses / repeats


def predict(case: Case) -> tuple[tuple[float, float], tuple[float, float]]:
    """Misses of a product by the loops, and the margins of the two levels."""
    kernel = Kernel(case.kernel, Tiling(*case.tiling), VECTOR_BYTES)
    predictions = [
        hierarchy.predict_product(
            _product(case), kernel, Cache(level.size_bytes // level.line_bytes, level.sets)
        )
        for level in (D1, LL)
    ]
    fetched, _, margins = zip(*predictions, strict=True)
    return fetched, margins


def _product(case: Case) -> Product:
    return Product(case.product, case.fan_in, case.fan_out, case.batch_size, case.dtype)


def agrees(ours: float, measured: float, share: float = 0.05) -> bool:
    """Whether counts of misses are the same but for a share, or for what a stream leaves out."""
    return abs(ours - measured) <= max(share * measured, UNSEEN)


def make_table(rows: list[Row]) -> str:
    """The comparison as a table in Markdown."""
    head = (
        "| rung | product | units | level | cachegrind | simulator | off | predicted | off "
        "| nearest working set |\n|---|---|---:|---|---:|---:|---:|---:|---:|---:|"
    )
    lines, n_idle = [], 0
    for row in rows:
        for place, level in enumerate(("D1", "LL")):
            measured = (row.measured.d1_misses, row.measured.ll_misses)[place]
            simulated, predicted = row.simulated[place], row.predicted[place]
            case, margin = row.case, row.margins[place]
            if max(measured, simulated) < UNSEEN:
                n_idle += 1
                continue
            lines.append(
                f"| {case.kernel} | {SYMBOLS[case.product]} | {case.fan_in} | {level} "
                f"| {max(measured, 0):,.0f} | {simulated:,.0f} | {_off(simulated, measured)} "
                f"| {predicted:,.0f} | {_off(predicted, simulated)} "
                f"| {'-' if margin == float('inf') else f'x {margin:.2f}'} |"
            )
    promised = [row for row in rows if row.case.fan_in not in EDGES]
    agreeing = sum(
        agrees(ours, theirs)
        for row in promised
        for ours, theirs in zip(
            row.simulated, (row.measured.d1_misses, row.measured.ll_misses), strict=True
        )
    )
    widths = ", ".join(str(width) for width in sorted({row.case.fan_in for row in promised}))
    edges = ", ".join(map(str, EDGES))
    d1, ll = (f"{level.size_bytes // 1024} KiB" for level in (D1, LL))
    note = f"""Misses of one product with warm caches: square layers, batch {BATCH_SIZE}, float32;
D1 {d1} and LL {ll} of {D1.ways} ways, tiles of 6 x 16, blocks as for these caches.
The first *off* is the simulator's distance from cachegrind, the second the prediction's from the
simulator. {n_idle} rows in which both counted fewer than {UNSEEN} misses, because all fits, are
left out.

Layers of {widths} units: {agreeing} of {2 * len(promised)} counts of the simulator are within 5 %
or {UNSEEN} lines of cachegrind's. In layers of {edges} units something nearly fills a level, and
there a few lines that the stream leaves out tip the balance. The nearest working set that decides
is so many times larger or smaller than the level: from x 2 on the prediction is good to 10 %.

Written by `python -m bench.hierarchy --docs`."""
    return "\n".join([head, *lines, "", note])


def _off(ours: float, theirs: float) -> str:
    return f"{100 * (ours - theirs) / max(theirs, 1):+.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--docs", action="store_true", help="write the table to docs/hierarchy.md")
    options = parser.parse_args()
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    widths = tuple(sorted({*AROUND_D1, *AROUND_LL, *EDGES}))
    table = make_table(compare(make_cases(widths)))
    print(table)
    if options.docs:
        write_table(NAME, table, DOCUMENT)


if __name__ == "__main__":
    main()
