"""The same training in several roundings: which change bits, and which must not."""

import os
from dataclasses import replace

import numpy as np
import pytest

from minibutter.studies.instability.measure import measure_bits, measure_divergence
from minibutter.studies.instability.trajectories import (
    Recipe,
    begin,
    follow,
    follow_named,
    outputs_of,
    snapshot_epochs,
)
from minibutter.studies.instability.variants import (
    VARIANTS,
    ReversedBatches,
    Variant,
    why_impossible,
)

DIGITS = {
    "dataset": "digits",
    "n_train": 200,
    "n_test": 60,
    "seed": 0,
    "depth": 3,
    "width": 20,
    "activation": "swish",
    "rule": "nesterov",
    "learning_rate": 0.05,
}
RECIPE = Recipe(**DIGITS, epochs=2)
HERE = [name for name, variant in VARIANTS.items() if not variant.features]


@pytest.fixture(scope="module")
def usual():
    return follow_named(RECIPE, None, None, np.array([2]))[0]


@pytest.mark.parametrize(
    "name", [name for name in HERE if VARIANTS[name].changes is False and "tile" not in name]
)
def test_what_must_not_change_a_bit_does_not(name, usual):
    assert np.array_equal(follow_named(RECIPE, None, name, np.array([2]))[0], usual)


@pytest.mark.parametrize("name", [name for name in HERE if VARIANTS[name].changes])
def test_what_must_change_bits_does_and_changes_last_digits_only(name, usual):
    found = follow_named(RECIPE, None, name, np.array([2]))[0]
    assert not np.array_equal(found, usual)
    np.testing.assert_allclose(found, usual, rtol=0, atol=2e-6)


def test_the_buffer_is_not_perturbed_but_by_the_weights_that_differ():
    """After one step the buffer holds a gradient of the same weights, whatever k is."""
    recipe = replace(RECIPE, batch_size=200)
    data = recipe.load(None)
    groups = [begin(recipe, data, variant) for variant in (Variant(""), VARIANTS["k = 3"])]
    for group in groups:
        group.run_epoch()
    first, second = (group.state(0) for group in groups)
    assert np.array_equal(first.slots, second.slots)
    assert not np.array_equal(first.parameters, second.parameters)


def test_reversed_batches_hold_the_same_rows():
    usual = np.random.default_rng(3).permutation(10)
    turned = ReversedBatches(np.random.default_rng(3), 4).permutation(10)
    assert turned.tolist() == [*usual[3::-1], *usual[7:3:-1], *usual[:7:-1]]


def test_float64_begins_at_the_same_weights_and_takes_another_path():
    recipe = replace(RECIPE, dtype="float64")
    data = recipe.load(None)
    assert data.x_train.dtype == np.float64
    networks = RECIPE.network(RECIPE.load(None)), recipe.network(data)
    starts = RECIPE.first_weights(networks[0]), recipe.first_weights(networks[1])
    np.testing.assert_array_equal(starts[0], starts[1].astype(np.float32))
    other = follow(recipe, data, VARIANTS["k = 3"], np.array([2]))[0]
    same = follow(recipe, data, Variant(""), np.array([2]))[0]
    assert 0 < np.abs(other - same).max() < 1e-14


def test_orders_differ_and_first_weights_do_not():
    data = RECIPE.load(None)
    network = RECIPE.network(data)
    other = replace(RECIPE, order=1)
    assert np.array_equal(RECIPE.first_weights(network), other.first_weights(network))
    assert RECIPE.shuffle().permutation(99).tolist() != other.shuffle().permutation(99).tolist()


def test_epochs_of_looks_are_spread_over_the_logarithm():
    assert snapshot_epochs(3, 10).tolist() == [1, 2, 3]
    assert snapshot_epochs(1000, 4).tolist() == [1, 10, 100, 1000]
    assert snapshot_epochs(1, 5).tolist() == [1]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
def test_a_training_that_diverges_has_no_weights_from_there_on():
    recipe = replace(RECIPE, learning_rate=1e30, epochs=3)
    found = follow(recipe, recipe.load(None), Variant(""), np.array([1, 3]))
    assert np.isnan(found).all()
    table = measure_divergence(
        None,
        network="any",
        variants=["k = 3"],
        snapshots=3,
        **DIGITS | {"learning_rate": 1e30, "epochs": 3},
    )
    assert len(table) == 3
    assert table[["l1", "l2", "disagreement", "accuracy"]].isna().all(axis=None)


def test_a_pair_is_looked_at_from_near_to_far():
    table = measure_divergence(
        None, network="any", variants=["again", "k = 3"], snapshots=4, **DIGITS, epochs=8
    )
    same, other = (table[table["variant"] == name] for name in ("again", "k = 3"))
    assert (same[["l1", "l2", "disagreement", "share_differing"]] == 0).all(axis=None)
    assert other["epoch"].tolist() == [1, 2, 4, 8]
    np.testing.assert_allclose(other["time"], 0.05 * 2 * other["epoch"])
    assert other["share_differing"].between(0.01, 1).all()
    assert other["l2"].between(1e-9, 1e-4).all()
    assert other["accuracy"].iloc[-1] > other["accuracy"].iloc[0]


def test_outputs_are_shares_of_classes():
    data = RECIPE.load(None)
    weights = follow(RECIPE, data, Variant(""), np.array([1, 2]))
    outputs = outputs_of(RECIPE, data, weights)
    assert outputs.shape == (2, 60, 10)
    np.testing.assert_allclose(outputs.sum(axis=2), 1, rtol=1e-6)


def test_bits_that_cannot_be_had_here_have_a_reason(monkeypatch):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", dict)
    table = measure_bits(None, network="any", variants=["AVX2", "k = 3"], epochs=1, **DIGITS)
    assert "this processor has no sse2, avx, avx2, fma" in table["reason"][0]
    assert np.isnan(table["share_differing"][0])
    assert table["share_differing"][1] > 0
    monkeypatch.setattr("llvmlite.binding.get_process_triple", lambda: "aarch64-linux")
    assert "another kind" in why_impossible(VARIANTS["SSE2"])
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert why_impossible(VARIANTS["blas, 2 threads"]) == "this machine has one core"


@pytest.mark.processors
@pytest.mark.timeout(1200)
def test_kernels_of_another_processor_change_bits_only_by_what_they_fuse(usual):
    """Vectors of another width add in the same order; a product that is rounded is another."""
    for name, names_sake in (("SSE2", "naive"), ("AVX2", None)):
        if why_impossible(VARIANTS[name]):
            pytest.skip(why_impossible(VARIANTS[name]))
        found = follow_named(RECIPE, None, name, np.array([2]))[0]
        expected = usual
        if names_sake is not None:
            expected = follow_named(RECIPE, None, names_sake, np.array([2]))[0]
        assert np.array_equal(found, expected), name
