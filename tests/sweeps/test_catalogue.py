"""The catalogue against what is known of BUTTER's sweeps."""

import pytest

from minibutter.sweeps.spec import catalogue, load_sweep

CORE = {"201_pol", "529_pollen", "537_houses", "connect_4", "mnist", "sleep", "wine_quality_white"}
CORE_AND_SECONDARY = CORE | {"adult", "nursery"}
ALL = CORE_AND_SECONDARY | {"294_satellite_image", "505_tecator", "banana", "splice"}
SHAPES = {"rectangle", "trapezoid", "exponential", "wide_first_2x"}
ALL_SHAPES = SHAPES | {"rectangle_residual", "wide_first_4x", "wide_first_8x", "wide_first_16x"}
D8 = {2, 3, 4, 5, 7, 8, 9, 10}
D13 = D8 | {12, 14, 16, 18, 20}
D14 = D13 | {6}
PENALTIES = {0.32 / 2**n for n in range(13)}


def powers(first, last):
    return {2**exponent for exponent in range(first, last + 1)}


# Cells, repetitions, and the values of the keys that have several, by sweep.
SWEEPS = {
    "primary": (
        30_576,
        30,
        {"dataset": ALL, "shape": ALL_SHAPES, "depth": D14, "size": powers(5, 25)},
    ),
    "300_epoch": (
        1_176,
        10,
        {"dataset": CORE, "shape": SHAPES, "depth": D14, "size": powers(25, 27), "epochs": {300}},
    ),
    "30k_epoch": (
        5_488,
        10,
        {"dataset": CORE, "shape": SHAPES, "depth": D14, "size": powers(5, 18), "epochs": {30_000}},
    ),
    "learning_rate": (
        37_440,
        20,
        {
            "dataset": CORE_AND_SECONDARY,
            "shape": SHAPES,
            "depth": D13,
            "size": powers(5, 24),
            "learning_rate": {1e-2, 1e-3, 1e-4, 1e-5},
        },
    ),
    "label_noise": (
        50_960,
        30,
        {
            "dataset": CORE,
            "shape": SHAPES,
            "depth": D13,
            "size": powers(5, 24),
            "learning_rate": {1e-3, 1e-4},
            "label_noise": {0.0, 0.05, 0.1, 0.15, 0.2},
        },
    ),
    "batch_size": (
        8_640,
        30,
        {
            "dataset": CORE_AND_SECONDARY,
            "depth": D8,
            "size": powers(5, 24),
            "batch_size": powers(5, 10),
        },
    ),
    "regularization": (
        40_824,
        30,
        {
            "dataset": CORE_AND_SECONDARY,
            "depth": D8,
            "size": powers(5, 25),
            "l1": {0.0} | PENALTIES,
            "l2": {0.0} | PENALTIES,
        },
    ),
    "optimizer": (
        104_000,
        20,
        {
            "dataset": ALL,
            "depth": {2, 3, 4, 5, 6},
            "size": powers(5, 24),
            "optimizer": {"adam", "rmsprop", "sgd"},
            "momentum": {0.0, 0.9},
            "learning_rate": {1e-2, 1e-3, 1e-4, 1e-5},
            "batch_size": powers(5, 8),
        },
    ),
    "learning_rate_batch_size": (
        38_880,
        10,
        {
            "dataset": CORE_AND_SECONDARY,
            "depth": set(range(2, 8)),
            "size": powers(5, 24),
            "batch_size": powers(5, 10),
            "learning_rate": {2**n * 2.5e-5 for n in range(6)},
        },
    ),
    "size_adjusted_regularization": (
        34_020,
        10,
        {"dataset": CORE_AND_SECONDARY, "depth": set(range(2, 11)), "size": powers(5, 24)},
    ),
}


def values_of(sweep, key):
    return {
        value
        for grid in sweep.grids
        for code in set(grid.columns().codes(key).tolist())
        for value in [grid.columns().values(key)[code]]
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_of_butter_has_its_cells_axes_and_repetitions(name):
    n_cells, repetitions, axes = SWEEPS[name]
    sweep = load_sweep(name)
    assert len(sweep.experiments) == n_cells
    assert {grid.repetitions for grid in sweep.grids} == {repetitions}
    expected = {"shape": {"rectangle"}, "epochs": {3000}, "learning_rate": {1e-4}}
    expected |= {"batch_size": {256}, "optimizer": {"adam"}, "momentum": {0.0}}
    expected |= {"label_noise": {0.0}, "widths": {None}, "seed": {0}, "dtype": {"float32"}}
    for key, values in (expected | axes).items():
        assert values_of(sweep, key) == values, key


def test_cells_of_sweeps_with_keys_that_move_together():
    noise = {
        (s.learning_rate, s.label_noise) for s, _ in load_sweep("label_noise").experiments[:700]
    }
    assert noise == {(1e-4, n / 100) for n in (0, 5, 10, 15, 20)} | {(1e-3, 0.0), (1e-3, 0.05)}
    optimizers = {(s.optimizer, s.momentum) for s, _ in load_sweep("optimizer").experiments[:700]}
    assert optimizers == {
        ("adam", 0.0), ("rmsprop", 0.0), ("rmsprop", 0.9), ("sgd", 0.0), ("sgd", 0.9),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["regularization", "size_adjusted_regularization"])
def test_no_run_has_both_penalties_and_one_has_none(name):
    sweep = load_sweep(name, assignments={"dataset": "mnist", "depth": 5, "size": 1024})
    penalties = [(spec.l1, spec.l2) for spec, _ in sweep.experiments]
    one_by_one = PENALTIES
    if name != "regularization":
        one_by_one = {0.05 * 2**n / 1024 for n in range(10)}
    expected = {(0.0, 0.0)} | {(p, 0.0) for p in one_by_one} | {(0.0, p) for p in one_by_one}
    assert len(penalties) == len(expected)
    for found, wanted in zip(sorted(penalties), sorted(expected), strict=True):
        assert found == pytest.approx(wanted, rel=1e-12)


def test_butter_is_the_union_of_the_published_sweeps():
    unpublished = {"learning_rate_batch_size", "size_adjusted_regularization"}
    published = [cells for name, (cells, _, _) in SWEEPS.items() if name not in unpublished]
    assert len(load_sweep("butter").experiments) == sum(published) == 279_104
    assert set(catalogue()) == {*SWEEPS, "butter", "quickstart"}
