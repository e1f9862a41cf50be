"""What the comparison of ranks says of times that are known."""

import numpy as np

from bench.data_parallel import DOCUMENT, NAME, PLAIN, SHARED, SLICED, make_table, summarize
from bench.markers import read_table


def test_ratios_are_taken_within_a_round_and_below_one_where_it_does_not_pay():
    plain = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    found = summarize({PLAIN: plain, SLICED: 2 * plain, SHARED: plain / [2, 1, 1, 0.5, 0.5]})
    assert found["us_per_step"] == [20.0, 30.0, 40.0]
    assert found["speed_on_one_rank"] == [0.5] * 3
    assert found["speed_on_all_ranks"] == [0.5, 1.0, 1.0]


def test_rows_that_were_disturbed_are_marked():
    row = {
        "name": "64x3", "num_parameters": 13130, "batch_size": 256, "slices": 2,
        "core_share_quartile": 0.99,
        **summarize({side: np.full(7, 250.0) for side in (PLAIN, SLICED, SHARED)}),
    }  # fmt: skip
    _, _, clean, disturbed = make_table([row, row | {"core_share_quartile": 0.5}], 2).splitlines()
    assert clean.startswith("| 64x3 | 13,130 | 256 | 2 | 0.25 | 1.00 (1.00 to 1.00) |")
    assert disturbed.startswith("| 64x3 * |")


def test_the_document_has_a_place_for_the_table():
    assert read_table(NAME, DOCUMENT)
