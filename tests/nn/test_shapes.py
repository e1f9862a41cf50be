"""Widths and parameter counts against BUTTER's, and the search against brute force."""

import random
import re
from collections import Counter

import pytest

from minibutter.nn.shapes import (
    SHAPES,
    SIZE_TOLERANCE,
    SizeUnreachable,
    count_parameters,
    find_outline,
    has_skip,
    shape_widths,
)

# Encoded inputs and outputs of BUTTER's thirteen data sets.
DIMENSIONS = {
    "529_pollen": (4, 1),
    "537_houses": (8, 1),
    "201_pol": (26, 11),
    "connect_4": (126, 3),
    "mnist": (784, 10),
    "sleep": (141, 5),
    "wine_quality_white": (11, 7),
    "nursery": (26, 4),
    "adult": (81, 1),
    "505_tecator": (124, 1),
    "294_satellite_image": (36, 6),
    "splice": (287, 3),
    "banana": (2, 1),
}

PUBLISHED = [
    ("wine_quality_white", "rectangle_residual", 4, 1024, (18, 18, 18, 7), 1033),
    ("wine_quality_white", "exponential", 4, 1024, (26, 17, 11, 7), 1053),
    ("wine_quality_white", "wide_first_8x", 4, 1024, (52, 6, 6, 7), 1033),
    ("wine_quality_white", "wide_first_10x", 4, 4096, (145, 14, 14, 7), 4099),
    ("wine_quality_white", "wide_first_20x", 4, 4096, (187, 9, 9, 7), 4096),
    ("529_pollen", "exponential", 5, 4096, (100, 32, 10, 3, 1), 4099),
    ("537_houses", "rectangle", 3, 65536, (251, 251, 1), 65763),
    ("201_pol", "exponential", 3, 512, (11, 11, 11), 561),
    ("mnist", "trapezoid", 6, 1048576, (596, 479, 362, 244, 127, 10), 1048550),
    ("connect_4", "wide_first_16x", 20, 131072, (629, *[39] * 18, 3), 131093),
    ("sleep", "exponential", 8, 65536, (201, 119, 70, 41, 24, 14, 8, 5), 65414),
    ("banana", "rectangle", 20, 16777216, (*[965] * 19, 1), 16783281),
]

# Trainable parameters of mnist's rectangles of depth 3, sizes 2^10 ... 2^24, as the paper prints
# them.
MNIST_RECTANGLES = [
    807, 2407, 4015, 8070, 16330, 32575, 65335, 131050, 261510, 523882, 1049407, 2097610, 4193002,
    8391382, 16774831,
]  # fmt: skip


def search_by_brute_force(shape, size, depth, n_inputs, n_outputs):
    """The parameter count nearest to size, trying every scale until it is far exceeded."""
    nearest, scale = None, 1
    while True:
        count = count_parameters(n_inputs, shape_widths(shape, scale, depth, n_outputs))
        if nearest is None or abs(count - size) < abs(nearest - size):
            nearest = count
        if count > 2 * size:
            return nearest
        scale += 1


def test_all_published_width_vectors_are_found(width_vectors):
    assert len(width_vectors) == 26
    for vector in width_vectors:
        arguments = (
            vector["shape"], vector["size"], vector["depth"], vector["n_inputs"],
            vector["n_outputs"],
        )  # fmt: skip
        if vector["conformant_20pct"]:
            outline = find_outline(*arguments)
            assert outline.widths == tuple(vector["widths"]), vector
            assert outline.num_parameters == vector["num_free_parameters"], vector
        else:
            with pytest.raises(SizeUnreachable, match=f"{vector['num_free_parameters']} param"):
                find_outline(*arguments)


@pytest.mark.parametrize(("dataset", "shape", "depth", "size", "widths", "count"), PUBLISHED)
def test_published_widths_are_found(dataset, shape, depth, size, widths, count):
    outline = find_outline(shape, size, depth, *DIMENSIONS[dataset])
    assert outline.widths == widths
    assert outline.num_parameters == count


def test_mnist_rectangles_have_the_parameter_counts_printed_in_the_paper():
    # The first, 807 parameters, misses its size of 1024 by more than 20 %: no search finds it.
    assert count_parameters(784, shape_widths("rectangle", 1, 3, 10)) == MNIST_RECTANGLES[0]
    with pytest.raises(SizeUnreachable, match="807 parameters"):
        find_outline("rectangle", 2**10, 3, 784, 10)
    found = [find_outline("rectangle", 2**e, 3, 784, 10).num_parameters for e in range(11, 25)]
    assert found == MNIST_RECTANGLES[1:]


def test_the_search_finds_the_global_optimum_or_rightly_nothing():
    for shape in SHAPES:
        for depth in (2, 3, 6, 11):
            for n_inputs, n_outputs in ((2, 1), (11, 7), (4, 30)):
                for size in (1, 20, 33, 64, 100, 777, 2048):
                    case = (shape, size, depth, n_inputs, n_outputs)
                    nearest = search_by_brute_force(*case)
                    try:
                        found = find_outline(*case)
                    except SizeUnreachable:
                        assert abs(nearest - size) > SIZE_TOLERANCE * size, case
                        continue
                    assert abs(found.num_parameters - size) == abs(nearest - size), case
                    assert count_parameters(n_inputs, found.widths) == found.num_parameters, case


def bisect(shape, size, depth, n_inputs, n_outputs):
    """BUTTER's search as it is written there: the first of the nearest networks of a bisection."""
    low, high, nearest = 1, 2**30, None
    while low <= high:
        scale = (low + high) // 2
        widths = shape_widths(shape, scale, depth, n_outputs)
        count = count_parameters(n_inputs, widths)
        if nearest is None or abs(count - size) < abs(nearest[1] - size):
            nearest = (widths, count)
        low, high = (scale + 1, high) if count < size else (low, scale - 1)
    return nearest


def test_the_search_finds_what_a_plain_bisection_finds_first():
    # Two networks are equally near to these sizes: once the larger comes first, once the smaller.
    ties = [("wide_first_10x", 340, 2, 1, 2), ("rectangle", 10, 2, 5, 3)]
    rng = random.Random(5)
    drawn = [
        (
            rng.choice(SHAPES),
            round(2 ** rng.uniform(3, rng.choice([9, 26, 62]))),
            rng.choice([2, 3, 4, 10, 40]),
            rng.choice([1, 2, 26, 784]),
            rng.choice([1, 2, 3, 30]),
        )
        for _ in range(2000)
    ]
    for case in (*ties, *drawn):
        try:
            found = find_outline(*case)
        except SizeUnreachable:
            assert abs(bisect(*case)[1] - case[1]) > SIZE_TOLERANCE * case[1], case
            continue
        assert (found.widths, found.num_parameters) == bisect(*case), case


def test_the_20_percent_rule_rejects_exactly_the_cells_that_butter_misses():
    shapes = [shape for shape in SHAPES if not shape.endswith(("_5x", "_10x", "_20x"))]
    depths = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20)
    rejected, cells = Counter(), 0
    for n_inputs, n_outputs in DIMENSIONS.values():
        for shape in shapes:
            for depth in depths:
                for exponent in range(5, 26):
                    cells += 1
                    try:
                        find_outline(shape, 2**exponent, depth, n_inputs, n_outputs)
                    except SizeUnreachable:
                        rejected[exponent] += 1
    assert cells == 30_576
    assert rejected == {5: 1166, 6: 946, 7: 625, 8: 379, 9: 205, 10: 76, 11: 23, 12: 14, 13: 1}


def test_a_miss_of_exactly_20_percent_is_allowed_and_a_wider_one_is_not():
    # Networks of depth 2 with one hidden unit; a second unit would miss by more.
    assert find_outline("rectangle", 10, 2, 5, 3).num_parameters == 12
    assert find_outline("rectangle", 10, 2, 5, 1).num_parameters == 8
    with pytest.raises(SizeUnreachable, match=r"1201 parameters \(\+20\.1%"):
        find_outline("rectangle", 1000, 2, 1198, 1)
    with pytest.raises(SizeUnreachable, match=r"799 parameters \(-20\.1%"):
        find_outline("rectangle", 1000, 2, 796, 1)


@pytest.mark.parametrize(
    ("shape", "size", "depth", "n_inputs", "n_outputs"),
    [
        ("rectangle", 1024, 2, 784, 10),
        ("trapezoid", 32, 20, 126, 3),
        ("exponential", 64, 9, 11, 7),
        ("wide_first_16x", 128, 3, 287, 3),
    ],
)
def test_unreachable_size_names_a_reachable_one(shape, size, depth, n_inputs, n_outputs):
    with pytest.raises(SizeUnreachable, match=rf"size {size} is unreachable.*{shape}") as caught:
        find_outline(shape, size, depth, n_inputs, n_outputs)
    named = int(re.search(r"nearest reachable size: (\d+)$", str(caught.value))[1])
    assert find_outline(shape, named, depth, n_inputs, n_outputs)
    # Every size that is nearer to the one asked for is out of reach, too.
    distance = abs(named - size)
    for nearer in range(max(1, size - distance + 1), size + distance):
        with pytest.raises(SizeUnreachable):
            find_outline(shape, nearer, depth, n_inputs, n_outputs)


def test_parameter_count_never_falls_as_the_scale_grows():
    # The premise of the search.
    for shape in SHAPES:
        for depth in (2, 3, 7, 20):
            counts = [count_parameters(5, shape_widths(shape, s, depth, 9)) for s in range(1, 400)]
            assert counts == sorted(counts), (shape, depth)


@pytest.mark.parametrize("shape", SHAPES)
def test_widths_begin_with_the_scale_and_end_with_the_outputs(shape):
    for scale in (1, 2, 17, 1000, 2**24):
        for depth in (2, 3, 20):
            widths = shape_widths(shape, scale, depth, 3)
            # Only the exponential shape refuses hidden layers narrower than the output.
            assert widths[0] == (max(scale, 3) if shape == "exponential" else scale)
            assert widths[-1] == 3
            assert len(widths) == depth
            assert min(widths) >= 1


def test_all_shapes_of_depth_2_are_rectangles():
    for shape in SHAPES:
        assert shape_widths(shape, 12, 2, 5) == (12, 5)


def test_residual_network_of_depth_2_has_no_skips():
    assert has_skip("rectangle_residual", 2) == (False, False)


def test_skips_are_around_all_hidden_layers_but_the_first():
    assert has_skip("rectangle_residual", 5) == (False, True, True, True, False)
    assert has_skip("rectangle", 5) == (False,) * 5


def test_unknown_shape_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"shape is 'round'; it must be one of rectangle, trapez"):
        shape_widths("round", 4, 3, 1)


def test_size_without_a_parameter_is_refused():
    with pytest.raises(ValueError, match=r"size is 0; .* must be at least 1"):
        find_outline("rectangle", 0, 3, 4, 1)


def test_depth_without_a_hidden_layer_is_refused():
    with pytest.raises(ValueError, match=r"depth is 1; .* at least 2"):
        find_outline("rectangle", 100, 1, 4, 1)
