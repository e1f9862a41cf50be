"""Planted tables, and what has to be said of them."""

import numpy as np
import pandas as pd
import pytest

from minibutter.studies.instability import conclusions
from minibutter.studies.instability.demonstrations import OneLayerNetwork
from minibutter.studies.instability.exact import (
    BLOWN_UP,
    RESTRAINED,
    SETTLED,
    first_kernel,
    measure_known_systems,
    measure_one_layer,
)
from minibutter.studies.instability.pairs import by_starts, growth_rates
from minibutter.studies.instability.spread import Spread

RATES = (0.1, 0.05, 0.02, 0.01)


def pairs_of(levels, variant="k = 3", starts=1, **columns):
    """Ends of pairs whose l1 is planted, a value a rate; starts differ by factors of 2."""
    return pd.DataFrame(
        {
            "network": "swish 5x64",
            "dtype": "float32",
            "rule": "nesterov",
            "learning_rate": rate,
            "start": start,
            "variant": variant,
            "epoch": 8,
            "time": 8.0,
            "l1_hidden": level * 2.0**start,
            "l1": level,
            "l2": level,
            "share_differing": float(level > 0),
            **columns,
        }
        for rate, level in zip(RATES, levels, strict=True)
        for start in range(starts)
    )


def judged(levels, **options):
    criteria = conclusions.judge_threshold(pairs_of(levels, **options), ["k = 3", "k = 5"])
    return {criterion.name: criterion for criterion in criteria}


def test_a_sharp_threshold_is_reproduced():
    found = judged((0.54, 0.32, 1.4e-5, 8.6e-7), starts=3)
    assert [criterion.state for criterion in found.values()] == ["reproduced"] * 3
    assert found["divergence"].measured == pytest.approx(1.08)
    assert (found["divergence"].low, found["divergence"].high) == pytest.approx((0.54, 2.16))
    assert found["divergence"].confidence == 0.75
    assert found["no divergence"].measured == pytest.approx(1.72e-6)
    assert "from 0.05 on; at 0.01" in found["no divergence"].reason


def test_a_blurred_threshold_is_not():
    found = judged((0.74, 0.34, 4.7e-2, 5.9e-2))
    assert found["divergence"].state == "reproduced"
    assert found["divergence"].confidence is None
    assert found["no divergence"].state == "not reproduced"
    assert found["monotone"].state == "not reproduced"
    assert found["monotone"].measured == 1


@pytest.mark.parametrize(
    ("levels", "first", "reason"),
    [
        ((1e-6,) * 4, "not reproduced", "does not part at any rate"),
        ((0.5,) * 4, "reproduced", "still parts at 0.01"),
    ],
)
def test_without_a_threshold_nothing_is_said_of_what_lies_below(levels, first, reason):
    found = judged(levels)
    assert found["divergence"].state == first
    for name in ("no divergence", "monotone"):
        assert found[name].state == "unresolved"
        assert reason in found[name].reason


def test_runs_that_diverged_are_left_out():
    assert judged((np.nan, 0.3, 1e-5, 1e-6))["divergence"].measured == pytest.approx(0.3)
    everything = judged((np.nan,) * 4)
    assert everything["divergence"].state == "unresolved"


def test_perturbations_of_one_start_count_as_one():
    table = pd.concat([pairs_of((0.5,) * 4), pairs_of((0.125,) * 4, variant="k = 5")])
    value, limits, confidence = by_starts(table)
    assert value == pytest.approx(0.25)
    assert limits == (None, None)
    assert confidence is None


def test_the_control_takes_the_worst_rate():
    assert conclusions.judge_control(pairs_of((1e-7, 3e-7, 1e-8, 0))).state == "reproduced"
    failed = conclusions.judge_control(pairs_of((1e-7, 1e-3, 1e-8, 0)))
    assert failed.state == "not reproduced"
    assert failed.reason == "largest at 0.05"
    assert conclusions.judge_control(pairs_of((np.nan,) * 4)).state == "unresolved"


@pytest.fixture
def bits():
    same = [(name, False, 0.0) for name in ("again", "k = 2", "lanes")] + [("AVX2", None, 0.0)]
    rows = [*same, ("k = 3", True, 0.4), ("naive", None, 0.9), ("blas", None, 0.9)]
    table = pd.DataFrame(rows, columns=["variant", "must_change", "share_differing"])
    return table.assign(network="swish 5x64", dtype="float32", reason="")


def test_a_self_check_that_fails_names_what_is_wrong(bits):
    assert conclusions.judge_instrument(bits).state == "reproduced"
    folded = bits.assign(share_differing=0.0)
    found = conclusions.judge_instrument(folded)
    assert (found.state, found.measured) == ("not reproduced", 1)
    assert "k = 3 (swish 5x64, float32)" in found.reason
    noisy = bits.assign(share_differing=0.5)
    assert conclusions.judge_instrument(noisy).measured == 3


def kernels_judged(bits, naive, blas, lanes=0.0, reference=(0.5, 0.3, 1e-5, 1e-6)):
    table = pd.concat(
        [
            pairs_of(reference),
            pairs_of(naive, variant="naive"),
            pairs_of(blas, variant="blas"),
            pairs_of((lanes,) * 4, variant="lanes"),
        ]
    )
    names = ["naive", "blas", "lanes", "AVX2"]
    return {found.name: found for found in conclusions.judge_kernels(table, bits, names)}


def test_kernels_that_part_as_the_step_does(bits):
    found = kernels_judged(bits, (0.25, 0.3, 1e-5, 3e-6), (0.6, 0.3, 1e-5, 1e-6))
    assert [criterion.state for criterion in found.values()] == ["reproduced"] * 3
    large = found["kernels, large rates"]
    assert large.measured == pytest.approx(0.5)
    assert "naive, at the learning rate 0.1; 2 kernels lie between 0.5 and 1.2" in large.reason
    assert found["kernels, small rates"].measured == pytest.approx(3e-6)
    assert found["kernels, same bits"].measured == 0


def test_kernels_that_do_not_and_lanes_that_are_not_the_same(bits):
    found = kernels_judged(bits, (1e-4, 0.3, 1e-5, 3e-6), (0.6, 0.3, 1e-5, 1e-2), lanes=1e-7)
    assert found["kernels, large rates"].state == "not reproduced"
    assert found["kernels, small rates"].state == "not reproduced"
    assert found["kernels, same bits"].state == "not reproduced"
    none = kernels_judged(bits.assign(share_differing=0.0), (0.0,) * 4, (0.0,) * 4)
    assert none["kernels, large rates"].state == "unresolved"


def test_kernels_are_held_against_k_3_where_it_did_not_diverge(bits):
    kernels = (0.25, 0.3, 1e-5, 3e-6), (0.6, 0.6, 1e-5, 1e-6)
    found = kernels_judged(bits, *kernels, reference=(np.nan, 0.3, 1e-5, 1e-6))
    assert found["kernels, large rates"].measured == pytest.approx(2)
    assert "blas, at the learning rate 0.05" in found["kernels, large rates"].reason
    nowhere = kernels_judged(bits, *kernels, reference=(np.nan,) * 4)
    assert nowhere["kernels, large rates"].state == "unresolved"
    assert "k = 3 diverged" in nowhere["kernels, large rates"].reason


@pytest.mark.parametrize(
    ("ratio", "low", "high", "state"),
    [
        (0.9, 0.6, 1.2, "reproduced"),
        (0.3, 0.2, 0.5, "unresolved"),
        (0.1, 0.05, 0.2, "not reproduced"),
        (float("nan"), 0, float("inf"), "unresolved"),
    ],
)
def test_spreads_are_held_against_the_range(ratio, low, high, state):
    numbers = dict.fromkeys(Spread.__dataclass_fields__, 0.1)
    spread = Spread(**numbers | {"ratio": ratio, "low": low, "high": high, "n_test": 2000})
    assert conclusions.judge_spread("relu 2x128", spread).state == state


def test_sharpness_at_its_threshold_and_beside_it():
    late = pd.DataFrame({"sharpness": [19.8, 20.1, 20.2], "threshold": 20.0, "has_ended": False})
    arguments = "sharpness", 0.02
    assert conclusions.judge_edge("edge", "one", late, *arguments).state == "reproduced"
    off = late.assign(sharpness=[17.0, 17.1, 17.2])
    assert conclusions.judge_edge("edge", "one", off, *arguments).state == "not reproduced"
    ended = late.assign(has_ended=True)
    assert conclusions.judge_edge("edge", "one", ended, *arguments).state == "unresolved"


def test_growth_is_that_of_each_pair():
    time = np.arange(1.0, 9.0)
    tables = [
        pairs_of((1.0,) * 4).iloc[[0] * 8].assign(time=time, l2=1e-7 * np.exp(rate * time), start=n)
        for n, rate in enumerate((0.5, 0.1))
    ]
    found = growth_rates(pd.concat(tables))
    np.testing.assert_allclose(found["rate"], [0.5, 0.1])
    np.testing.assert_allclose(found["rate_per_step"], [0.05, 0.01])
    np.testing.assert_allclose(found["intercept"], np.log(1e-7))


def test_the_exact_systems_are_reproduced_and_a_wrong_class_is_named():
    one_layer = measure_one_layer(None, steps=[*SETTLED, *RESTRAINED, *BLOWN_UP, 0.04], k=3)
    known = measure_known_systems(None)
    criteria = conclusions.judge_exact(one_layer, known)
    assert [criterion.state for criterion in criteria] == ["reproduced"] * 4
    np.testing.assert_allclose(
        known["measured"], known["predicted"].fillna(known["measured"]), rtol=2e-3
    )
    low, high = OneLayerNetwork().restrained_band()
    settled = one_layer[one_layer["behaviour"] == "settled"]
    assert settled["l1"].between(1e-18, 1e-13).all()  # some bits did change
    is_held = one_layer["behaviour"] == "restrained"
    assert (one_layer["step"].between(low, high) == is_held).all()
    # A little beyond the threshold two points alternate: held back, but nothing grows.
    is_chaotic = is_held & (one_layer["step"] != 0.04)
    assert (one_layer["parted_at"].notna() == is_chaotic).all()
    wrong = one_layer.assign(behaviour="settled")
    failed, *_ = conclusions.judge_exact(wrong, known)
    assert failed.measured == len(RESTRAINED + BLOWN_UP)
    assert "0.05 is settled" in failed.reason


def test_the_first_kernel_is_made_of_its_two_parts():
    kernel, directions = first_kernel()
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-15)
    numbers = np.random.default_rng(7).standard_normal(1024)
    np.testing.assert_allclose(kernel @ directions, numbers, atol=1e-14)


def test_powers_of_two_part_nothing_in_the_one_layer_network():
    table = measure_one_layer(None, steps=[0.05, 0.09], k=4)
    assert (table["l1"] == 0).all()
