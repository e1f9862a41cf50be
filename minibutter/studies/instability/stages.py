"""What the study measures: the pieces of every stage."""

from itertools import product
from typing import Any

import numpy as np

from minibutter.studies.instability.exact import (
    BLOWN_UP,
    RESTRAINED,
    SETTLED,
    measure_known_systems,
    measure_one_layer,
)
from minibutter.studies.instability.measure import (
    measure_accuracy,
    measure_bits,
    measure_divergence,
)
from minibutter.studies.instability.sharpness import measure_edge, measure_network_sharpness
from minibutter.studies.instability.sizes import (
    DEEP,
    EXACT_KNOBS,
    NETWORKS,
    PROCESSORS,
    REORDERINGS,
    Case,
    Sizes,
)
from minibutter.studies.study import Measurement, Measurements, Settings


def recipe_of(settings: Settings, sizes: Sizes, network: str, rate: float) -> dict[str, Any]:
    """Arguments of `Recipe` but for the rule, the type and the start."""
    return {
        "dataset": settings.dataset,
        "n_train": sizes.n_train,
        "n_test": sizes.n_test,
        "seed": settings.seed,
        "learning_rate": rate,
        **NETWORKS[network],
    }


def seconds_an_epoch(network: str, dtype: str, n_train: int) -> float:
    """Roughly, on one core with vectors of 64 bytes; only for plans."""
    shape = NETWORKS[network]
    weights = 784 * shape["width"] + (shape["depth"] - 1) * shape["width"] ** 2
    return n_train * (6 * weights / 80e9 + 1e-6) * (2 if dtype == "float64" else 1)


def self_check(settings: Settings, sizes: Sizes) -> Measurements:
    """The instrument: what must not change a bit, and what must."""
    variants = ["again", "k = 2", "k = 4", "k = 8", "k = 3"]
    pieces = []
    for network, rule, dtype in (
        (DEEP, "nesterov", "float32"),
        (DEEP, "heavy ball", "float64"),
        ("relu 2x128", "plain", "float32"),
    ):
        arguments = recipe_of(settings, sizes, network, sizes.first_rate) | {
            "variants": variants,
            "epochs": 2,
            "rule": rule,
            "dtype": dtype,
        }
        predicted_s = 12 * seconds_an_epoch(network, dtype, sizes.n_train) + 1
        pieces.append(Measurement(measure_bits, _named(arguments, network), predicted_s))
    return Measurements("self-check", "are all bits decided by what we say?", tuple(pieces))


def known_systems(sizes: Sizes) -> Measurements:
    """Systems whose outcome is known."""
    listed = sorted(SETTLED + RESTRAINED + BLOWN_UP)
    drawn = [float(f"{step:.4g}") for step in np.geomspace(0.004, 0.13, sizes.band_points)]
    chunks = [listed, *(drawn[n : n + 30] for n in range(0, len(drawn), 30))]
    pieces = [
        Measurement(measure_one_layer, {"steps": c, "k": 3}, len(c) * 0.1) for c in chunks if c
    ]
    return Measurements("one-layer", "a network of one layer, and its band of steps", tuple(pieces))


def other_systems() -> Measurements:
    """Linear equation, heat equation, two scalars."""
    pieces = (Measurement(measure_known_systems, {}, 0.5),)
    return Measurements("known-systems", "equations that a pencil can solve", pieces)


def kernel_bits(settings: Settings, sizes: Sizes) -> Measurements:
    """Which knob of the kernels changes bits at all."""
    pieces = []
    chunks = [[*REORDERINGS, "one weight"], [*EXACT_KNOBS, "blas, 2 threads"]]
    chunks += [[processor] for processor in sizes.processors]
    for variants in chunks:
        arguments = recipe_of(settings, sizes, DEEP, sizes.first_rate) | {
            "variants": variants,
            "epochs": 1,
            "rule": "nesterov",
            "dtype": "float32",
        }
        predicted_s = 60.0 if variants[0] in PROCESSORS else 6.0
        pieces.append(Measurement(measure_bits, _named(arguments, DEEP), predicted_s))
    return Measurements("kernel-bits", "which kernels change bits?", tuple(pieces))


def divergence(settings: Settings, sizes: Sizes) -> Measurements:
    """Perturbed steps, against the learning rate."""
    pieces = []
    for case in sizes.cases:
        for rate, start in product(case.rates, range(case.starts)):
            pieces.append(_pair(settings, sizes, case, rate, start))
    return Measurements(
        "divergence", "pairs of trainings whose steps are rounded differently", tuple(pieces)
    )


def kernel_divergence(settings: Settings, sizes: Sizes) -> Measurements:
    """Other kernels, against the learning rate."""
    pieces = []
    for rate, kernel in product(sizes.kernel_rates, sizes.kernels):
        if kernel in EXACT_KNOBS and rate != sizes.kernel_rates[0]:
            continue
        case = Case(DEEP, "nesterov", "float32", (rate,), 1, (kernel,))
        pieces.append(_pair(settings, sizes, case, rate, 0))
    return Measurements(
        "kernel-divergence", "pairs of trainings by different kernels", tuple(pieces)
    )


_SLOWNESS = {"naive": 12.0, "blocked": 12.0, "blas": 2.0, "8 slices": 3.0, "lanes": 16.0}
"""Of variants, to the usual kernel; only for plans."""


def _pair(settings: Settings, sizes: Sizes, case: Case, rate: float, start: int) -> Measurement:
    arguments = recipe_of(settings, sizes, case.network, rate) | {
        "variants": list(case.variants),
        "snapshots": sizes.snapshots,
        "epochs": sizes.epochs_at(rate),
        "rule": case.rule,
        "dtype": case.dtype,
        "start": start,
        "order": start,
    }
    trainings = 1 + sum(_SLOWNESS.get(name, 1.0) for name in case.variants)
    epoch_s = seconds_an_epoch(case.network, case.dtype, sizes.n_train)
    predicted_s = trainings * sizes.epochs_at(rate) * epoch_s + 2
    return Measurement(measure_divergence, _named(arguments, case.network), predicted_s)


def spread(settings: Settings, sizes: Sizes) -> Measurements:
    """Accuracies over perturbations and orders."""
    pieces = []
    for network, k in product(sizes.spread_networks, sizes.spread_ks):
        arguments = recipe_of(settings, sizes, network, 0.1) | {
            "n_train": sizes.spread_train,
            "k": k,
            "orders": list(range(sizes.spread_orders)),
            "last": sizes.spread_epochs // 5,
            "epochs": sizes.spread_epochs,
            "step_epochs": sizes.spread_epochs // 5,
            "rule": "nesterov",
        }
        epoch_s = seconds_an_epoch(network, "float32", sizes.spread_train)
        predicted_s = sizes.spread_orders * sizes.spread_epochs * epoch_s + 1
        pieces.append(Measurement(measure_accuracy, _named(arguments, network), predicted_s))
    return Measurements(
        "spread", "accuracies over perturbations and over orders of the batches", tuple(pieces)
    )


def edge(settings: Settings, sizes: Sizes) -> Measurements:
    """Sharpness and batch sharpness of the network of the literature."""
    pieces = []
    for run in sizes.edge_runs:
        keywords = run.keywords
        arguments = {
            "dataset": settings.dataset,
            "n_rows": 1000,
            "seed": settings.seed,
            "label": run.label,
            **keywords,
        }
        step_s = 6e-3 if keywords["batch_size"] is None else 2e-4
        looks = keywords["steps"] / keywords["every"]
        predicted_s = keywords["steps"] * step_s + looks * 0.4
        pieces.append(Measurement(measure_edge, arguments, predicted_s))
    return Measurements("edge", "sharpness at the edge of stability", tuple(pieces))


def network_sharpness(settings: Settings, sizes: Sizes) -> Measurements:
    """Sharpness of the deep network whose trajectories part."""
    pieces = []
    for rate in sizes.sharpness_rates:
        arguments = recipe_of(settings, sizes, DEEP, rate) | {
            "n_rows": 1000,
            "snapshots": 10,
            "epochs": sizes.epochs_at(rate),
            "rule": "nesterov",
        }
        epoch_s = seconds_an_epoch(DEEP, "float32", sizes.n_train)
        predicted_s = sizes.epochs_at(rate) * epoch_s + 20
        arguments = _named(arguments, DEEP)
        pieces.append(Measurement(measure_network_sharpness, arguments, predicted_s))
    return Measurements("sharpness", "sharpness of the smooth deep network", tuple(pieces))


def _named(arguments: dict[str, Any], network: str) -> dict[str, Any]:
    """With the name of the network, which the tables are grouped by."""
    return arguments | {"network": network}
