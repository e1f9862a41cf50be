"""Sweep files: what they mean, and what is said about files that mean nothing."""

import pytest
from pydantic import ValidationError

from minibutter.sweeps.spec import RunSpec, SweepError, catalogue, load_sweep, parse_sweep

SMALL = {"dataset": "digits", "size": 1024, "depth": 3}


def test_a_grid_is_the_product_of_its_lists_with_the_last_key_fastest():
    sweep = parse_sweep({**SMALL, "size": [64, 128], "depth": [2, 3, 4]}, "x.toml")
    assert [(spec.size, spec.depth) for spec, _ in sweep.experiments] == [
        (64, 2), (64, 3), (64, 4), (128, 2), (128, 3), (128, 4),
    ]  # fmt: skip


def test_a_sweep_is_the_union_of_its_grids_and_a_grid_replaces_what_is_shared():
    document = {
        **SMALL,
        "repetitions": 3,
        "grid": [{"l1": [0.0, 0.1]}, {"l2": 0.5, "repetitions": 7, "size": 2048}],
    }
    sweep = parse_sweep(document, "folder/noise.toml")
    assert sweep.name == "noise"
    assert [(s.size, s.l1, s.l2, count) for s, count in sweep.experiments] == [
        (1024, 0.0, 0.0, 3), (1024, 0.1, 0.0, 3), (2048, 0.0, 0.5, 7),
    ]  # fmt: skip


def test_defaults_are_those_of_butter():
    spec = RunSpec(**SMALL)
    assert (spec.optimizer, spec.learning_rate, spec.batch_size) == ("adam", 1e-4, 256)
    assert (spec.epochs, spec.activation, spec.initializer) == (3000, "relu", "glorot_uniform")
    assert (spec.test_split, spec.split_method, spec.label_noise) == (0.2, "shuffled", 0.0)


def test_a_list_of_widths_is_one_network_and_a_list_of_lists_is_an_axis():
    one = parse_sweep({"dataset": "digits", "widths": [17, 17, 10]}, "x.toml")
    assert [spec.widths for spec, _ in one.experiments] == [(17, 17, 10)]
    two = parse_sweep({"dataset": "digits", "widths": [[5, 10], [6, 6, 10]]}, "x.toml")
    assert [spec.widths for spec, _ in two.experiments] == [(5, 10), (6, 6, 10)]


def test_whole_numbers_are_accepted_where_real_ones_are_meant():
    sweep = parse_sweep({**SMALL, "learning_rate": 1}, "x.toml")
    assert sweep.experiments[0][0].learning_rate == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dept": 3}, r"x\.toml: dept: unknown key; did you mean depth\?"),
        ({"grid": [{"lerning_rate": 1}]}, r"grid 1: lerning_rate: .* did you mean learning_rate"),
        ({"zzz": 3}, r"x\.toml: zzz: unknown key; known keys: .*dataset.*"),
        ({"size": "1024"}, r"size = '1024': .*valid integer"),
        ({"size": 1024.5}, r"size = 1024\.5: .*valid integer"),
        ({"size": 0}, "size = 0: must be greater than or equal to 1"),
        ({"size": 10**20}, "size = 1.*: must be less than or equal to"),
        ({"seed": 2**63}, "seed = 9.*: must be less than or equal to"),
        ({"batch_size": 2**31}, "batch_size = 2.*: must be less than or equal to 2147483647"),
        ({"depth": 1001}, "depth = 1001: must be less than or equal to 1000"),
        ({"repetitions": 10**11}, "repetitions = .*: must be a whole number from 1 to 1000000"),
        ({"name": "../evil"}, r"name = '../evil': becomes the name of a folder"),
        ({"name": ""}, "name = '': becomes the name of a folder"),
        ({"shape": [["rectangle"]]}, r"shape = .*must be a valid string"),
        ({"size": True}, "size = True: .*valid integer"),
        ({"depth": 1}, "depth = 1: .*greater than or equal to 2"),
        ({"learning_rate": -0.1}, r"learning_rate = -0\.1: .*greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan: .*"),
        ({"learning_rate": float("inf")}, "learning_rate = inf: .*finite"),
        ({"momentum": 1.0, "optimizer": "sgd"}, r"momentum = 1\.0: .*less than 1"),
        ({"momentum": 0.9}, "momentum = 0.9 with optimizer = 'adam'"),
        ({"split_method": "lst"}, "split_method = 'lst': .*'shuffled' or 'last'"),
        ({"dtype": "float16"}, "dtype = 'float16'"),
        ({"epochs": []}, r"epochs = \[\]: an axis needs at least one value"),
        ({"repetitions": 0}, "repetitions = 0: must be a whole number from 1"),
        ({"repetitions": [1, 2]}, r"repetitions = \[1, 2\]: must be a whole number"),
        ({"name": 3}, "name = 3: must be a string"),
        ({"grid": {"l1": 0.1}}, r"write each grid under a heading \[\[grid\]\]"),
        ({"grid": []}, "needs at least one grid"),
        ({"widths": [3, 10]}, "widths stand instead of size and depth"),
        ({"label_noise": 1.5}, "label_noise = 1.5"),
        ({"perturbation": [1, 3]}, "perturbation = 3 with optimizer = 'adam', which has none"),
        ({"perturbation": 0}, "perturbation = 0"),
        ({"sampling": "bootstrap"}, "sampling = 'bootstrap'"),
        ({"measure": ["noise_scale", "norms"]}, "measure = 'norms': must be 'noise_scale'"),
        ({"measure": [[], ["norms"]]}, "measure = 'norms': must be 'noise_scale'"),
        ({"measure": 3}, "measure = 3: must be a list"),
        ({"batch_size_max": 99}, "batch_size_max = 99 is of use only with batch_rule = 'noise_sc"),
        ({"batch_rule": "noise_scale", "batch_size_max": 9}, "needs batch_exchange_rate"),
        ({"batch_rule": "noise_scale", "batch_exchange_rate": 9.0}, "needs batch_size_max"),
        ({"batch_rule": "noise_scale", "batch_exchange_rate": 9.0, "batch_size_max": 9},
         "follows what is measured: give measure = .'noise_scale'.$"),
        ({"batch_exchange_rate": 0.0}, "batch_exchange_rate = 0.0: must be greater than 0"),
        ({"learning_rate_gamma": 0.5}, "gamma = 0.5 is of use only with learning_rate_step_epochs"),
        ({"learning_rate_step_epochs": 0}, "learning_rate_step_epochs = 0"),
        ({"parameterization": ["standard", "ntk"]}, "'ntk' with initializer = 'glorot_"),
        ({"sigma0": 2.0}, "sigma0 = 2.0 is of use only with initializer = 'gaussian'"),
        ({"initializer": "gaussian", "base_width": 8}, "base_width = 8 is of use only with param"),
        ({"initializer": "gaussian", "bias_multiplier": 0.1}, "bias_multiplier = 0.1 is of use on"),
        ({"initializer": "gaussian", "parameterization": "mup"}, "needs base_width, the hidden wi"),
        ({"optimizer": ["sgd", "adam"], "nesterov": True}, "nesterov = True needs momentum"),
        ({"optimizer": "rmsprop", "momentum_form": "torch"}, "momentum_form = 'torch' with opt"),
        ({"optimizer": "sgd", "momentum": [0.0, 0.9], "perturbation": [1, 3]},
         "perturbation = 3 with Keras' momentum, .* give momentum_form = 'torch' or nesterov"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_file_key_value_and_rule(change, message):
    with pytest.raises(SweepError, match=message) as raised:
        parse_sweep({**SMALL, **change}, "x.toml")
    assert str(raised.value).startswith("x.toml: ")


@pytest.mark.parametrize("key", ["dataset", "size", "depth"])
def test_what_every_run_needs_is_missed_by_name(key):
    document = {name: value for name, value in SMALL.items() if name != key}
    with pytest.raises(SweepError, match=f"{key}.* missing"):
        parse_sweep(document, "x.toml")


def test_names_that_other_rooms_own_are_checked_by_what_the_caller_passes_in():
    def refuse_blobs(value):
        if value == "blob":
            raise ValueError("unknown; it must be one of rectangle")

    with pytest.raises(SweepError, match=r"x\.toml: shape = 'blob': unknown; it must be one of"):
        parse_sweep({**SMALL, "shape": ["rectangle", "blob"]}, "x.toml", {"shape": refuse_blobs})


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("size = 3\ndepth =\n")
    with pytest.raises(SweepError, match=r"broken\.toml: not valid TOML: .*line 2"):
        load_sweep(str(path))


def test_a_missing_file_is_told_apart_from_an_unknown_name():
    with pytest.raises(
        SweepError, match=r"no such file, and no sweep of the catalogue .*quickstart"
    ):
        load_sweep("nowhere.toml")


def test_a_folder_or_binary_file_is_refused_as_a_sweep(tmp_path):
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, binary):
        with pytest.raises(SweepError, match="cannot be read as a TOML file"):
            load_sweep(str(path))


def test_every_sweep_of_the_catalogue_can_be_read_by_its_name():
    names = catalogue()
    assert "quickstart" in names
    for name, description in names.items():
        assert description
        assert load_sweep(name).experiments


def test_specifications_are_frozen():
    spec = RunSpec(**SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        spec.size = 3
