"""Ids and random streams: what changes them, and above all what does not."""

import numpy as np
import pytest

from minibutter.sweeps import identity
from minibutter.sweeps.spec import RunSpec

SPEC = RunSpec(dataset="digits", shape="trapezoid", size=1024, depth=3)

RULE = {
    "batch_rule": "noise_scale",
    "batch_exchange_rate": 9.0,
    "batch_size_max": 512,
    "measure": ("noise_scale",),
}


def id_of(spec: RunSpec) -> str:
    return identity.experiment_id(spec.canonical())


def test_an_id_is_128_bits_and_depends_on_content_alone():
    content = {"size": 3, "learning_rate": 1e-4}
    first = identity.experiment_id(content)
    assert len(bytes.fromhex(first)) == 16
    assert first == identity.experiment_id({"learning_rate": 0.0001, "size": 3})


def test_ids_of_today_stay_what_they_are():
    """A changed id orphans every stored result: raise ID_VERSION only on purpose."""
    assert id_of(SPEC) == "6327c072d84ed75a0a4d991978920f40"
    assert identity.run_id("ab", 7) == "ab-0007"


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "iris"}, {"shape": "rectangle"}, {"size": 1025}, {"depth": 4},
        {"activation": "tanh"}, {"initializer": "he_uniform"}, {"optimizer": "sgd"},
        {"learning_rate": 1.1e-4}, {"batch_size": 255}, {"epochs": 2999}, {"l1": 1e-9},
        {"l2": 1e-9}, {"label_noise": 0.1}, {"test_split": 0.21}, {"split_method": "last"},
        {"dtype": "float64"}, {"kernel": "blocked"}, {"seed": 1}, {"evaluate_train": True},
        {"on_divergence": "stop"}, {"target": "y"}, {"task": "regression"},
        {"tile_rows": 4}, {"tile_columns": 32}, {"block_rows": 48}, {"block_depth": 64},
        {"block_columns": 96}, {"slices": 2},
        {"perturbation": 3, "optimizer": "sgd"},
        {"learning_rate_step_epochs": 10}, {"sampling": "replacement"},
        {"measure": ("noise_scale",)},
        *({changed: value, **RULE} for changed, value in (
            ("batch_rule", "noise_scale"), ("batch_size_max", 512), ("batch_exchange_rate", 9.0)
        )),
        {"learning_rate_gamma": 0.5, "learning_rate_step_epochs": 10},
        {"parameterization": "ntk", "initializer": "gaussian"},
        {"sigma0": 1.5, "initializer": "gaussian"},
        {"bias_multiplier": 0.1, "parameterization": "ntk", "initializer": "gaussian"},
        {"nesterov": True, "optimizer": "sgd", "momentum": 0.9},
        {"momentum_form": "torch", "optimizer": "sgd", "momentum": 0.9},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_field_that_can_change_a_row_changes_the_id(change):
    key, value = next(iter(change.items()))
    changed = RunSpec(**{**SPEC.model_dump(), **change})
    assert getattr(SPEC, key) != value
    assert id_of(changed) != id_of(changed.model_copy(update={key: getattr(SPEC, key)}))


def test_without_momentum_and_with_nesterovs_there_is_one_form_of_it():
    def ids(**options):
        spec = SPEC.model_dump() | {"optimizer": "sgd"} | options
        return {id_of(RunSpec(**spec | {"momentum_form": form})) for form in ("keras", "torch")}

    assert len(ids()) == len(ids(momentum=0.9, nesterov=True)) == 1
    assert len(ids(momentum=0.9)) == 2


def test_all_shapes_are_one_experiment_at_depth_2():
    shapes = ("rectangle", "trapezoid", "exponential", "wide_first_8x", "rectangle_residual")
    ids = {id_of(RunSpec(dataset="digits", shape=s, size=1024, depth=2)) for s in shapes}
    assert len(ids) == 1


def test_explicit_widths_keep_of_the_shape_only_whether_there_are_skips():
    def with_shape(shape):
        return id_of(RunSpec(dataset="digits", shape=shape, widths=(5, 5, 10)))

    assert with_shape("trapezoid") == with_shape("rectangle") != with_shape("rectangle_residual")


def test_streams_are_reproducible_and_differ_by_name_repetition_experiment_and_root():
    experiment = id_of(SPEC)

    def draw(*key):
        return identity.random_stream(*key).random(4).tobytes()

    base = (experiment, 0, "init", 0)
    assert draw(*base) == draw(*base)
    others = [
        (experiment, 0, "shuffle", 0),
        (experiment, 1, "init", 0),
        (experiment, 0, "init", 1),
        (experiment[::-1], 0, "init", 0),
    ]
    assert len({draw(*base), *(draw(*other) for other in others)}) == 5


def test_streams_use_all_words_of_the_id_before_the_root_seed():
    experiment = "00000001000000020000000300000004"
    expected = np.random.default_rng(np.random.SeedSequence([1, 2, 3, 4, 9, 2, 77]))
    actual = identity.random_stream(experiment, 9, "shuffle", 77)
    assert actual.random() == expected.random()
