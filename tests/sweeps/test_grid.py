"""Grids against the products that they stand for."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibutter.sweeps import grid as grid_module
from minibutter.sweeps.cells import Cells
from minibutter.sweeps.expression import parse_condition
from minibutter.sweeps.grid import Axis, Grid
from minibutter.sweeps.runspec import RunSpec, SweepError


def axis(key, *values):
    return Axis((key,), tuple((value,) for value in values))


DATASET = axis("dataset", "digits")
PAIRS = Axis(("learning_rate", "label_noise"), ((1e-3, 0.1), (1e-4, 0.0), (1e-4, 0.1)))

axes_of_sizes = st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(
    lambda values: axis("size", *values)
)
axes_of_depths = st.lists(st.integers(2, 9), min_size=1, max_size=4, unique=True).map(
    lambda values: axis("depth", *values)
)
conditions = st.sampled_from(
    [None, "depth > 4", "size < depth", "label_noise > 0 or depth == 2", "size > 1000"]
)


def build(axes, text):
    """The cells as dictionaries, the way one would write it down."""
    cells = []
    for rows in itertools.product(*(each.rows for each in axes)):
        cell = {}
        for (keys, _), row in zip(axes, rows, strict=True):
            cell |= zip(keys, row, strict=True)
        cells.append(cell)
    return [cell for cell in cells if text is None or eval(text, {}, cell)]


@given(st.permutations([0, 1, 2, 3]), axes_of_sizes, axes_of_depths, conditions)
def test_a_grid_is_the_product_of_its_axes_less_what_its_conditions_refuse(
    order, sizes, depths, text
):
    axes = [[DATASET, sizes, depths, PAIRS][number] for number in order]
    wanted = build(axes, text)
    parsed = [] if text is None else [parse_condition(text, "", {})]
    grid = Grid(axes, 3, parsed)
    assert (len(grid), grid.repetitions) == (len(wanted), 3)
    assert list(grid) == [RunSpec(**row) for row in wanted]
    assert [grid[number - len(grid)] for number in range(len(grid))] == list(grid)
    columns = grid.columns()
    for key in ("size", "depth", "label_noise"):
        assert columns.numbers_of(key).tolist() == [row[key] for row in wanted]
    assert columns.numbers_of("epochs").tolist() == [3000] * len(wanted)
    keys = ("depth", "label_noise", "epochs")
    cells, codes = columns.distinct(keys)
    rows = columns.rows(keys, cells)
    assert [rows[code] for code in codes] == [
        (row["depth"], row["label_noise"], 3000) for row in wanted
    ]
    assert sorted(set(codes.tolist())) == list(range(len(cells)))
    assert [codes.tolist().index(number) for number in range(len(cells))] == cells.tolist()


def test_conditions_are_asked_chunk_by_chunk(monkeypatch):
    axes = [DATASET, axis("size", *range(1, 30)), axis("depth", *range(2, 9))]
    condition = parse_condition("size > depth", "", {})
    whole = Grid(axes, 1, [condition])
    monkeypatch.setattr(grid_module, "_CHUNK", 7)
    assert list(Grid(axes, 1, [condition])) == list(whole)


def test_a_grid_of_a_billion_billion_cells_is_counted_and_indexed_at_once():
    axes = [
        DATASET,
        axis("depth", 3),
        axis("size", *range(1, 10**5 + 1)),
        axis("epochs", *range(1, 10**5 + 1)),
        axis("seed", *range(10**5)),
        axis("batch_size", *range(1, 1001)),
    ]
    grid = Grid(axes)
    assert len(grid) == 10**18
    last = grid[10**18 - 1]
    assert (last.size, last.epochs, last.seed, last.batch_size) == (10**5, 10**5, 10**5 - 1, 1000)
    columns = grid.columns(np.array([0, 10**18 - 1, 1000]))
    assert columns.numbers_of("seed").tolist() == [0, 10**5 - 1, 1]
    cells, codes = columns.distinct(["size", "epochs", "seed"])
    assert sorted(cells[codes].tolist()) == [0, 1, 2]


def test_more_cells_than_can_be_counted_or_looked_at_are_refused():
    axes = [axis(key, *range(1, 10**5)) for key in ("size", "epochs", "batch_size", "seed")]
    with pytest.raises(SweepError, match=r"x: 9999\d+ combinations are more than .* several grids"):
        Grid(axes, where="x")
    with pytest.raises(SweepError, match="too many for include and exclude to look at"):
        Grid(axes[:2], 1, [parse_condition("size > epochs", "", {})], "x")


def test_a_rule_across_keys_is_checked_in_the_cells_that_are_left():
    axes = [
        DATASET,
        axis("size", 100),
        axis("depth", 3, 4),
        axis("optimizer", "adam", "sgd"),
        axis("momentum", 0.0, 0.9),
    ]
    with pytest.raises(SweepError, match=r"x: momentum = 0\.9 with optimizer = 'adam'"):
        Grid(axes, where="x")
    kept = parse_condition("optimizer != adam or momentum == 0", "", {})
    assert len(Grid(axes, 1, [kept])) == 6
    with pytest.raises(SweepError, match="x: widths needs at least one hidden layer"):
        Grid([DATASET, axis("widths", (5, 3), (3,))], where="x")


def test_depth_of_explicit_widths_is_the_number_of_their_layers():
    condition = parse_condition("depth == 3", "", {})
    grid = Grid([DATASET, axis("widths", (5, 10), (6, 6, 10), (7, 10))])
    assert grid.columns().where(condition).tolist() == [False, True, False]
    assert np.isnan(grid.columns().numbers_of("depth")).all()
    mixed = Grid.of_specs(
        [RunSpec(dataset="d", size=9, depth=3), RunSpec(dataset="d", widths=(5, 3))]
    )
    assert mixed.columns().where(condition).tolist() == [True, False]


def test_cells_are_those_of_all_grids_one_after_the_other():
    nothing = parse_condition("size > 99", "", {})
    grids = [
        Grid([DATASET, axis("size", 10, 20), axis("depth", 3)], 2),
        Grid([DATASET, axis("size", 30, 40), axis("depth", 3)], 1, [nothing]),
        Grid([DATASET, axis("size", 50, 60, 70), axis("depth", 3)], 5),
    ]
    cells = Cells(grids)
    pairs = [(spec.size, count) for spec, count in cells]
    assert pairs == [(10, 2), (20, 2), (50, 5), (60, 5), (70, 5)]
    assert [(cells[n][0].size, cells[n][1]) for n in range(-5, 0)] == pairs
    assert [spec.size for spec, _ in cells[1:4]] == [20, 50, 60]
    with pytest.raises(IndexError):
        cells[5]
    assert cells.numbers_of("size").tolist() == [10, 20, 50, 60, 70]
    found = {}
    for columns, places in cells.columns_of(np.array([4, 0, 2])):
        found |= dict(zip(places.tolist(), columns.numbers_of("size").tolist(), strict=True))
    assert found == {0: 70, 1: 10, 2: 50}


def test_corners_are_at_the_ends_of_every_axis_of_numbers_of_their_grid():
    grid = Grid([DATASET, axis("size", 10, 20, 30), axis("depth", 3, 5), axis("shape", "a", "b")])
    other = Grid([DATASET, axis("size", 1, 2, 3), axis("depth", 9)])
    cells = Cells([grid, other])
    corners = cells.are_corners(np.arange(len(cells)))
    sizes = cells.numbers_of("size")
    assert corners.tolist() == [size in (10, 30, 1, 3) for size in sizes]
    # Ends are those of the cells that are asked for.
    some = np.flatnonzero(sizes != 30)
    assert set(sizes[some][cells.are_corners(some)]) == {10, 20, 1, 3}


def test_specifications_made_one_by_one_are_a_grid_of_one_axis():
    specs = [RunSpec(dataset="d", size=n, depth=3, l1=n / 8) for n in (5, 3, 5)]
    cells = Cells.of_pairs([(specs[0], 2), (specs[1], 2), (specs[2], 7)])
    assert list(cells) == [(specs[0], 2), (specs[1], 2), (specs[2], 7)]
    assert len(cells.grids) == 2
    assert math.isnan(
        Grid.of_specs([RunSpec(dataset="d", widths=(5, 3))]).columns().numbers_of("size")[0]
    )
