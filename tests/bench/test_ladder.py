"""The pure parts of `bench.ladder`: what is drawn, counted, checked, written."""

import json
from collections import Counter

import numpy as np
import pytest

from bench import ladder
from bench.figure import draw_ladder
from bench.layer_shapes import CLASS_ENDS, MOST_UNITS, LayerShape, count_layers, draw_sample
from bench.markers import README, read_table
from bench.products import OPENBLAS, OURS, RUNGS, Wrong, as_blocks, as_rows, check, make_products
from bench.turns import quartiles
from minibutter.datasets.registry import BUTTER
from minibutter.nn.shapes import find_outline


def make_row(fan_in, fan_out, product, tiled, openblas, naive=1.0):
    return {
        "fan_in": fan_in,
        "fan_out": fan_out,
        "product": product,
        "flops": 512 * (fan_in + 1) * fan_out,
        "least_bytes": 1024,
        "core_share_quartiles": [0.99, 1.0, 1.0],
        "gflops_quartiles": {
            "openblas": [openblas] * 3,
            "naive": naive and [naive] * 3,
            "blocked": [2.0] * 3,
            "tiled": [tiled] * 3,
        },
        "tiled_to_openblas_quartiles": [tiled / openblas] * 3,
        "tiled_share_of_ceiling_quartiles": [tiled / 100] * 3,
        "ceiling_gflops": 100.0,
    }


@pytest.fixture
def document():
    """A measurement of two classes of layers; the naive rung was too slow for the larger one."""
    return {
        "machine": {"cpu_model": "a core", "python_version": "3.13", "numba_version": "0.65"},
        "blas": "openblas 0.3",
        "dtype": "float32",
        "batch_size": 256,
        "rounds": 3,
        "grid": {"layers": 1000, "shapes": 100, "seed": 0},
        "ceiling_gflops": 100.0,
        "products": [
            make_row(4, 4, "forward", 30.0, 10.0),
            make_row(4, 4, "backward_input", 12.0, 10.0),
            make_row(5, 5, "forward", 15.0, 10.0),
            make_row(64, 100, "forward", 90.0, 80.0, naive=None),
            make_row(64, 100, "backward_parameters", 72.0, 80.0, naive=None),
        ],
        "examples": [make_row(16, 16, "forward", 50.0, 25.0)],
        "tiles": {"1": 25.04, "2": 50.0},
    }


def cells_of(table):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]


def test_table_has_a_row_a_class_with_medians_and_the_worst(document):
    rows = cells_of(ladder.as_markdown(document))
    assert rows[0] == [
        "weights of the layer", "naive", "blocked", "tiled", "OpenBLAS",
        "tiled / OpenBLAS [worst]", "tiled of the FMA ceiling",
    ]  # fmt: skip
    assert rows[2:] == [
        ["4x4 to 8x8", "1", "2", "15", "10", "1.50 [1.20]", "15 %"],
        ["64x64 to 128x128", "-", "2", "81", "80", "1.01 [0.90]", "81 %"],
    ]


def test_verdict_counts_every_product_and_names_the_worst(document):
    assert ladder.as_verdict(document["products"]) == "4 of 5 (80 %), worst 0.90 (64x100)"
    notes = ladder.as_notes(document)
    assert "OpenBLAS in 4 of 5 (80 %), worst 0.90 (64x100, dw = xᵀ dz) of all products" in notes
    assert "z = x w 3 of 3 (100 %), worst 1.12 (64x100)" in notes
    assert "dw = xᵀ dz 0 of 1 (0 %), worst 0.90 (64x100)" in notes


def test_a_core_that_was_shared_is_reported(document):
    assert "disturbed" not in ladder.as_markdown(document)
    document["products"][0]["core_share_quartiles"] = [0.6, 0.9, 1.0]
    assert "disturbed the core during 1 of 5 products" in ladder.as_markdown(document)
    assert "(disturbed)" in ladder.as_line(document["products"][0])


def test_examples_show_intensity_and_speeds(document):
    assert cells_of(ladder.as_examples(document))[2:] == [
        ["16x16", "z = x w", "0.139", "136", "1", "2", "50", "25"]
    ]


def test_ratios_and_shares_are_taken_within_rounds():
    openblas = np.array([1.0, 2.0, 4.0])
    seconds = {OPENBLAS: openblas, "tiled": openblas / np.array([3.0, 1.0, 2.0])}
    row = ladder.summarize(seconds, np.array([2.0, 2.0, 2.0]) * 1e-9, 1)
    # Twice as fast in the middle round; the ratio of medians would be 2 or 1.5, by luck.
    assert row["tiled_to_openblas_quartiles"] == [1.5, 2.0, 2.5]
    assert row["tiled_share_of_ceiling_quartiles"] == quartiles(np.array([1.5, 0.25, 0.25]))
    assert row["gflops_quartiles"]["naive"] is None


@pytest.mark.parametrize(
    ("path", "name", "table"),
    [
        (README, ladder.NAME, ladder.as_markdown),
        (ladder.READING, ladder.NAME, ladder.as_examples),
        (ladder.READING, ladder.TILES_NAME, ladder.as_tiles),
    ],
    ids=["README", "reading", "reading, tiles"],
)
def test_the_documents_show_the_stored_measurement(path, name, table):
    assert read_table(name, path) == table(json.loads(ladder.JSON.read_text())), (
        "write it anew: python -m bench.ladder --from-json --readme"
    )


def test_tiles_stand_side_by_side_with_their_shares(document):
    assert cells_of(ladder.as_tiles(document)) == [
        ["rows of the tile", "1", "2"],
        ["---", "---:", "---:"],
        ["GFLOP/s", "25", "50"],
        ["of the ceiling", "25 %", "50 %"],
    ]


def test_the_figure_is_drawn_without_what_was_too_slow(document, tmp_path):
    draw_ladder(document, ladder.LABELS, tmp_path / "figures" / "ladder.png")
    assert (tmp_path / "figures" / "ladder.png").stat().st_size > 10_000


def test_layers_are_those_of_the_networks_of_the_grid():
    wine = BUTTER["wine_quality_white"]
    layers = count_layers([wine], depths=[3], sizes=[512])
    # All shapes but the wide ones have hidden layers that differ; each network has three layers.
    assert layers.total() % 3 == 0
    widths = find_outline("rectangle", 512, 3, wine.n_inputs, wine.n_outputs).widths
    assert layers[LayerShape(wine.n_inputs, widths[0], False)] >= 1
    assert layers[LayerShape(widths[0], widths[1])] >= 1
    assert layers[LayerShape(widths[1], wine.n_outputs)] >= 1


def test_gradient_of_the_input_is_wanted_where_a_layer_is_not_always_the_first():
    layers = count_layers([BUTTER["banana"]], depths=[2, 4], sizes=[32, 64])
    assert {layer.needs_dx for layer in layers if layer.fan_in == 2} >= {False}
    assert all(layer.needs_dx for layer in layers if layer.fan_in != 2)
    assert len({(layer.fan_in, layer.fan_out) for layer in layers}) == len(layers)


def test_a_sample_has_as_many_layers_of_every_class_and_the_same_each_time():
    rng = np.random.default_rng(3)
    sides = np.exp2(rng.uniform(0, 13, (20_000, 2))).astype(int).tolist()
    layers = Counter(LayerShape(*pair) for pair in sides)
    sample = draw_sample(layers, 20)
    assert sample == draw_sample(layers, 20)
    assert sample != draw_sample(layers, 20, seed=1)
    assert Counter(layer.size_class for layer in sample) == dict.fromkeys(range(10), 2)
    assert max(max(layer.fan_in, layer.fan_out) for layer in sample) <= MOST_UNITS


@pytest.mark.parametrize(
    ("fan_in", "fan_out", "name"),
    [(3, 5, "below 4x4"), (4, 4, "4x4 to 8x8"), (2047, 2049, "1024x1024 to 2048x2048"),
     (2048, 2048, "from 2048x2048")],
)  # fmt: skip
def test_classes_are_named_after_squares(fan_in, fan_out, name):
    assert ladder.name_class(LayerShape(fan_in, fan_out).size_class) == name


def test_classes_end_where_the_number_of_weights_has_grown_fourfold():
    assert [LayerShape(1, end).size_class for end in CLASS_ENDS] == list(range(1, 11))
    assert [LayerShape(1, end - 1).size_class for end in CLASS_ENDS] == list(range(10))


def test_blocks_are_turned_back_into_the_same_rows():
    rows = np.arange(96, dtype="float32").reshape(32, 3)
    blocks = as_blocks(rows, 4)
    assert blocks.shape == (2, 4, 16)
    assert blocks[1, 2, 5] == rows[21, 2]
    np.testing.assert_array_equal(as_rows(blocks, 3), rows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_rungs_make_the_products_of_numpy(dtype):
    products = make_products(LayerShape(7, 5), dtype, batch_size=32)
    assert [product.flops for product in products] == [2 * 32 * 8 * 5] * 2 + [2 * 32 * 7 * 5]
    assert (products[0].operands[0][:, 7] == 1).all()  # which the biases are multiplied by
    for product in products:
        assert set(product.repeat) == set(RUNGS)
        check(product)


def test_what_is_never_needed_is_not_made():
    products = make_products(LayerShape(7, 5, needs_dx=False), "float32", 32, OURS[:1])
    assert [product.name for product in products] == ["forward", "backward_parameters"]


def test_a_rung_that_makes_another_product_is_not_timed():
    product = make_products(LayerShape(3, 2), "float32", 32, OURS[:1])[0]
    product.repeat["naive"] = lambda times: None  # leaves the NaN that were put there
    with pytest.raises(Wrong, match="naive, forward: 64 of 64 numbers"):
        check(product)
