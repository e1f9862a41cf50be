"""The language of sweep files beyond lists: ranges, zips, conditions, extended files."""

import re
from pathlib import Path

import pytest

from minibutter.sweeps.spec import SweepError, load_sweep, parse_sweep

SMALL = {"dataset": "digits", "size": 1024, "depth": 3}


def cells(document, *keys, **options):
    """Values of some keys of all cells."""
    sweep = parse_sweep(document, "x.toml", **options)
    return [tuple(getattr(spec, key) for key in keys) for spec, _ in sweep.experiments]


@pytest.fixture
def write(tmp_path):
    """Writes files, and reads the sweep of the last one."""

    def write_all(**files):
        for name, text in files.items():
            path = tmp_path / f"{name}.toml"
            path.write_text(text)
        return str(path)

    return write_all


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (["noise_scale"], [("noise_scale",)]),
        ("noise_scale", [("noise_scale",)]),
        ([], [()]),
        ([[], ["noise_scale"]], [(), ("noise_scale",)]),
    ],
)
def test_of_a_key_whose_values_are_lists_an_axis_is_a_list_of_lists(written, values):
    assert cells(SMALL | {"measure": written}, "measure") == [(value,) for value in values]


# ---------------------------------------------------------------------------------------------
# Ranges and quotients


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ({"first": 3, "last": 6}, [3, 4, 5, 6]),
        ({"first": 3, "last": 10, "step": 3}, [3, 6, 9]),
        ({"first": 4, "last": 4}, [4]),
        ({"powers_of": 2, "first": 5, "last": 8}, [32, 64, 128, 256]),
        ({"powers_of": 10, "first": 1, "last": 3}, [10, 100, 1000]),
    ],
)
def test_a_range_has_both_its_ends(written, values):
    assert cells(SMALL | {"size": written}, "size") == [(value,) for value in values]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"first": 3}, "size: a range has first and last"),
        ({"powers_of": 2, "first": 5, "last": 8, "step": 2}, "a range has first and last, and"),
        ({"first": 3, "last": 6, "stop": 2}, "size: stop: unknown key; did you mean step?"),
        ({"first": 3.0, "last": 6}, "size.first = 3.0: must be a whole number"),
        ({"first": 6, "last": 3}, "size: there is nothing from 6 to 3"),
        ({"first": 3, "last": 6, "step": 0}, "in steps of 0"),
        ({"first": 1, "last": 10**9}, "1000000000 values are more than the 100000 of a range"),
        ({"powers_of": 1, "first": 5, "last": 8}, "powers_of must be at least 2"),
        ({"powers_of": 2, "first": 5, "last": 64}, "first and last from 0 to 63"),
        ({"first": 0, "last": 3}, "size = 0: must be greater than or equal to 1"),
        ({}, "a range has first and last"),
    ],
)
def test_a_range_that_is_none_is_refused(written, message):
    with pytest.raises(SweepError, match=rf"^x\.toml: .*{message}"):
        parse_sweep(SMALL | {"size": written}, "x.toml")


def test_a_quotient_is_worked_out_in_every_cell():
    quotient = {"values": [0.5, 2], "divided_by": "size"}
    document = SMALL | {"l2": quotient, "size": [10, 40], "depth": [3, 4]}
    assert cells(document, "size", "l2", "depth") == [
        (size, value / size, depth) for size in (10, 40) for value in (0.5, 2) for depth in (3, 4)
    ]
    zipped = SMALL | {"l1": quotient, "zip": {"a": {"size": [10, 40], "epochs": [7, 8]}}}
    del zipped["size"]
    assert cells(zipped, "size", "epochs", "l1") == [
        (size, epochs, value / size) for size, epochs in ((10, 7), (40, 8)) for value in (0.5, 2)
    ]


@pytest.mark.parametrize(
    ("quotient", "message"),
    [
        ({"values": [0.5]}, "l1: write it as in"),
        ({"values": [], "divided_by": "size"}, "l1: write it as in"),
        ({"values": [1], "divided_by": "seed"}, "l1 is divided by seed, which is not given here"),
        ({"values": [1], "divided_by": "l2"}, r"l1: 1 cannot be divided by l2 = 0\.0"),
        ({"values": [1], "divided_by": "dataset"}, "l1: 1 cannot be divided by dataset = 'digits'"),
        ({"values": ["a"], "divided_by": "size"}, "l1: 'a' cannot be divided by size = 1024"),
        ({"values": [-1], "divided_by": "size"}, "l1 = -0.0009765625: must be greater than or"),
        ({"values": [1], "divided_by": "size", "x": 1}, "l1: x: unknown key"),
    ],
)
def test_a_quotient_that_is_none_is_refused(quotient, message):
    with pytest.raises(SweepError, match=rf"^x\.toml: {message}"):
        parse_sweep(SMALL | {"l1": quotient, "l2": 0.0}, "x.toml")


# ---------------------------------------------------------------------------------------------
# Zips


def test_keys_of_a_zip_move_together():
    document = SMALL | {
        "depth": [3, 4],
        "zip": {"noise": {"learning_rate": [1e-3, 1e-4], "label_noise": [0.0, 0.1]}},
    }
    assert cells(document, "depth", "learning_rate", "label_noise") == [
        (3, 1e-3, 0.0), (3, 1e-4, 0.1), (4, 1e-3, 0.0), (4, 1e-4, 0.1),
    ]  # fmt: skip


def test_zips_of_a_grid_stand_beside_those_of_all_grids():
    document = SMALL | {
        "zip": {"a": {"l1": [0.1, 0.2], "epochs": [1, 2]}},
        "grid": [{"zip": {"b": {"seed": [5, 6], "depth": [7, 8]}}}, {}],
    }
    assert cells(document, "epochs", "seed", "depth") == [
        (1, 5, 7), (1, 6, 8), (2, 5, 7), (2, 6, 8), (1, 0, 3), (2, 0, 3),
    ]  # fmt: skip


def test_a_key_that_is_given_anew_leaves_its_zip_and_equal_rows_count_once():
    document = SMALL | {
        "zip": {"noise": {"learning_rate": [1e-3, 1e-4, 1e-4], "label_noise": [0.0, 0.1, 0.2]}},
        "grid": [{"label_noise": 0.3}, {"zip": {"noise": {"seed": [1, 2]}}}],
    }
    assert cells(document, "learning_rate", "label_noise", "seed") == [
        (1e-3, 0.3, 0), (1e-4, 0.3, 0), (1e-4, 0.0, 1), (1e-4, 0.0, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zips", "message"),
    [
        ([{"l1": [1]}], "zip = .*: write it under a heading with a name"),
        ({"l1": [1, 2]}, r"zip\.l1 = \[1, 2\]: write it under a heading with a name"),
        ({"a": {"sizes": [1]}}, r"zip\.a: sizes: unknown key; did you mean size\?"),
        (
            {"a": {"l1": [0.1], "l2": [0.1, 0.2]}},
            r"zip\.a: .* as many values each, but l1 has 1, l2 has 2",
        ),
        ({"a": {"l1": 0.1}}, r"zip\.a: l1 = 0\.1: must be a list or a range"),
        ({"a": {"l1": []}}, r"zip\.a: l1 = \[\]: an axis needs at least one value"),
        ({"a": {"l1": [-1]}}, r"zip\.a: l1 = -1: must be greater"),
        ({"a": {"size": [1]}}, r"zip\.a: size is also given outside of it"),
        ({"a": {"l1": [1]}, "b": {"l1": [1]}}, r"zip\.b: l1 is also given in zip\.a"),
    ],
)
def test_a_zip_that_is_none_is_refused(zips, message):
    with pytest.raises(SweepError, match=rf"^x\.toml: {message}"):
        parse_sweep(SMALL | {"zip": zips}, "x.toml")


# ---------------------------------------------------------------------------------------------
# Conditions


def test_cells_are_kept_where_no_exclude_and_one_include_holds():
    document = SMALL | {"size": [10, 20, 30], "depth": [2, 3, 4]}
    assert cells(document | {"exclude": ["size == 10", "depth > 2"]}, "size", "depth") == [
        (20, 2), (30, 2),
    ]  # fmt: skip
    assert cells(document | {"include": ["size == 10", "depth == 4"]}, "size", "depth") == [
        (10, 2), (10, 3), (10, 4), (20, 4), (30, 4),
    ]  # fmt: skip


def test_conditions_of_a_grid_are_added_to_those_of_all_grids():
    document = SMALL | {
        "size": [10, 20, 30],
        "exclude": "size == 10",
        "grid": [{"exclude": "size == 20"}, {"include": "size < 25", "repetitions": 4}],
    }
    sweep = parse_sweep(document, "x.toml")
    assert [(spec.size, count) for spec, count in sweep.experiments] == [(30, 1), (20, 4)]


def test_exclude_makes_a_rule_across_keys_hold():
    document = SMALL | {"optimizer": ["adam", "sgd"], "momentum": [0.0, 0.9]}
    with pytest.raises(SweepError, match=r"x\.toml: momentum = 0\.9 with optimizer = 'adam'"):
        parse_sweep(document, "x.toml")
    document["exclude"] = "optimizer == adam and momentum > 0"
    assert len(cells(document, "optimizer")) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exclude": "depht > 3"}, "exclude = 'depht > 3': depht: unknown key; did you mean depth"),
        ({"grid": [{}, {"include": ["1"]}]}, "grid 2: include = '1': 1 is no comparison"),
        ({"exclude": [3]}, "exclude = 3: must be a string"),
        ({"exclude": "size > 3"}, "include and exclude leave nothing of it"),
    ],
)
def test_a_condition_that_is_wrong_is_named_with_its_place(change, message):
    with pytest.raises(SweepError, match=rf"^x\.toml: {message}"):
        parse_sweep(SMALL | change, "x.toml")


# ---------------------------------------------------------------------------------------------
# Files that extend others

BASE = """
dataset = "digits"
size = [10, 20]
depth = 3
epochs = 5
repetitions = 4
exclude = "size == 20 and seed == 1"
[[grid]]
seed = [1, 2]
[[grid]]
epochs = 9
"""


def pairs(path, *keys, **options):
    sweep = load_sweep(path, **options)
    return [(*(getattr(spec, key) for key in keys), count) for spec, count in sweep.experiments]


def test_keys_of_an_extending_file_take_the_place_of_those_of_the_base_and_of_its_grids(write):
    path = write(base=BASE, child='extends = "base.toml"\nepochs = 7\nrepetitions = 2')
    assert pairs(path, "size", "seed", "epochs") == [
        (10, 1, 7, 2), (10, 2, 7, 2), (20, 2, 7, 2), (10, 0, 7, 2), (20, 0, 7, 2),
    ]  # fmt: skip
    sweep = load_sweep(path)
    assert sweep.name == "child"
    assert sweep.document["extended"]["base.toml"]["epochs"] == 5


def test_grids_of_an_extending_file_are_added_and_begin_with_the_keys_of_the_base(write):
    path = write(base=BASE, child='extends = "base.toml"\nsize = 20\n[[grid]]\nseed = [1, 3]')
    assert pairs(path, "size", "seed", "epochs") == [
        (20, 2, 5, 4), (20, 0, 9, 4), (20, 3, 5, 4),
    ]  # fmt: skip


def test_a_file_extends_several_others_and_files_that_extend_others(write):
    path = write(
        a="dataset = 'digits'\nsize = 1\ndepth = 3",
        b="dataset = 'digits'\nsize = 2\ndepth = 3\n[zip.z]\nl1 = [1, 2]\nl2 = [3, 4]",
        c="extends = ['a.toml', 'b.toml']\nepochs = 6",
        d="extends = 'c.toml'\n[zip.z]\nl2 = [7, 8, 9]",
    )
    assert pairs(path, "size", "l1", "l2", "epochs") == [
        (1, 0.0, 7, 6, 1), (1, 0.0, 8, 6, 1), (1, 0.0, 9, 6, 1),
        (2, 0.0, 7, 6, 1), (2, 0.0, 8, 6, 1), (2, 0.0, 9, 6, 1),
    ]  # fmt: skip


def test_a_base_is_looked_for_in_the_folder_of_the_file_and_in_the_catalogue(write, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "base.toml").write_text(BASE)
    outer = write(outer="extends = 'inner/middle.toml'")
    (tmp_path / "inner" / "middle.toml").write_text("extends = 'base.toml'\nepochs = 1")
    assert len(load_sweep(outer).experiments) == 5
    quick = load_sweep(write(quick="extends = 'quickstart'\nsize = [1024, 2048]"))
    assert len(quick.experiments) == 3 * 2 * 2


@pytest.mark.parametrize("length", [1, 2, 3])
def test_files_that_extend_each_other_in_a_circle_are_refused(write, length):
    files = {f"f{n}": f"extends = 'f{(n + 1) % length}.toml'" for n in range(length)}
    with pytest.raises(SweepError, match=r"extends goes round in a circle: .* extends .*\.toml$"):
        load_sweep(write(**files))


def test_the_same_base_twice_is_no_circle(write):
    path = write(base=BASE, a="extends = 'base.toml'", b="extends = ['a.toml', 'base.toml']")
    assert len(load_sweep(path).experiments) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 3", "child.toml: extends = 3: must be the path of a file"),
        ("extends = 'nowhere.toml'", "nowhere.toml: no such file"),
        ("extends = 'base.toml'\nepoch = 3", "child.toml: epoch: unknown key; did you mean epochs"),
        ("extends = 'base.toml'\nepochs = 0", "child.toml: epochs = 0: must be greater"),
        ("extends = 'broken.toml'", "broken.toml: sizes: unknown key"),
    ],
)
def test_a_mistake_is_named_with_the_file_that_it_is_in(write, text, message):
    with pytest.raises(SweepError, match=message):
        load_sweep(write(base=BASE, broken="sizes = 3", child=text))


# ---------------------------------------------------------------------------------------------
# Keys of the command line, and the guide


def test_assignments_are_the_last_layer_of_every_grid(write):
    path = write(base=BASE)
    given = {"size": [20, 30], "epochs": 1, "repetitions": 2}
    assert pairs(path, "size", "seed", "epochs", assignments=given) == [
        (20, 2, 1, 2), (30, 1, 1, 2), (30, 2, 1, 2), (20, 0, 1, 2), (30, 0, 1, 2),
    ]  # fmt: skip
    assert load_sweep(path, assignments=given).document["set"] == given
    with pytest.raises(SweepError, match=r"^--set: size = 0: must be greater"):
        load_sweep(path, assignments={"size": 0})


GUIDE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
SNIPPETS = re.findall(r"^```toml\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)
N_CELLS = [2 * 5 * 4, 2 * 5, 6 * 3 + 6 * 2 + 6 * 2, 84 - 16 - 17, 2 * 8 * 14 * 16]


@pytest.mark.parametrize(("snippet", "n_cells"), list(zip(SNIPPETS, N_CELLS, strict=True)))
def test_sweeps_of_the_guide_can_be_read_as_they_stand(write, snippet, n_cells):
    assert len(load_sweep(write(snippet=snippet)).experiments) == n_cells
