"""How much the study measures, quick and full."""

from dataclasses import dataclass
from typing import Any

NETWORKS: dict[str, dict[str, Any]] = {
    "swish 5x64": {"activation": "swish", "depth": 5, "width": 64},
    "relu 5x64": {"activation": "relu", "depth": 5, "width": 64},
    "swish 2x128": {"activation": "swish", "depth": 2, "width": 128},
    "relu 2x128": {"activation": "relu", "depth": 2, "width": 128},
}
"""Hidden layers by name."""

DEEP, EASY = "swish 5x64", "swish 2x128"

EXACT_KNOBS = ("small blocks", "block depth 64", "tile of 4 rows", "lanes")
REORDERINGS = ("rows reversed", "2 slices", "8 slices", "naive", "blocked", "blas")
PROCESSORS = ("SSE2", "AVX", "AVX2")
KERNELS = (*REORDERINGS, *PROCESSORS, *EXACT_KNOBS)
"""Variants that are another kernel, not another step."""


@dataclass(frozen=True)
class Case:
    """Pairs of one kind: a network in one type under one rule.

    Attributes
    ----------
    network : of `NETWORKS`.
    rule, dtype : of its recipe.
    rates : learning rates.
    starts : how many first weights, each with orders of batches of its own.
    variants : that are compared with the usual training.
    """

    network: str
    rule: str
    dtype: str
    rates: tuple[float, ...]
    starts: int
    variants: tuple[str, ...]


@dataclass(frozen=True)
class EdgeRun:
    """A training of the network of the edge of stability.

    Attributes
    ----------
    label : for tables and figures.
    judged_from : the step from which on it must be at the threshold; None: it is only shown.
    keywords : of `measure_edge`.
    """

    label: str
    judged_from: int | None
    keywords: dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes
    ----------
    n_train, n_test : rows.
    first_rate, epochs : epochs at this learning rate; others train for the same time, learning
        rate times steps.
    snapshots : looks at every training.
    cases : of the divergence of perturbed steps.
    kernel_rates : where the kernels are followed, too.
    kernels : that are followed; all of `KERNELS` are tried for an epoch.
    processors : that kernels are compiled for, which takes a minute each for the first time.
    spread_networks, spread_orders, spread_ks, spread_epochs : of the spread of accuracies; the
        learning rate is divided by 10 four times on the way.
    spread_train : training rows of these.
    edge_runs : of the edge of stability.
    band_points : steps of the one-layer network besides those of known class.
    sharpness_rates : at which the sharpness of the deep network is followed.
    """

    n_train: int
    n_test: int
    first_rate: float
    epochs: int
    snapshots: int
    cases: tuple[Case, ...]
    kernel_rates: tuple[float, ...]
    kernels: tuple[str, ...]
    processors: tuple[str, ...]
    spread_networks: tuple[str, ...]
    spread_orders: int
    spread_ks: tuple[int, ...]
    spread_train: int
    spread_epochs: int
    edge_runs: tuple[EdgeRun, ...]
    band_points: int
    sharpness_rates: tuple[float, ...]

    def epochs_at(self, rate: float) -> int:
        """For the same time as the first rate's."""
        return max(round(self.epochs * self.first_rate / rate), 1)


def _descent(
    label: str, rate: float, steps: int, judged_from: int | None, **changed: Any
) -> EdgeRun:
    """Plain descent on all rows, but for what is changed."""
    usual = {"rule": "plain", "momentum": 0.0, "decay": 0.0, "batch_size": None, "every": 100}
    steady = {"growth": 1.0, "learning_rate": rate, "steps": steps}
    return EdgeRun(label, judged_from, usual | steady | changed)


def _batches(batch_size: int, steps: int) -> EdgeRun:
    """Minibatches at one rate, at which they come to no edge: only shown."""
    label = f"B = {batch_size}"
    return _descent(label, 0.1, steps, None, every=1000, batch_size=batch_size)


def _rising(batch_size: int) -> EdgeRun:
    """Minibatches at a rate that grows from 0.1 to 0.26, which presses them against the edge."""
    label = f"B = {batch_size}, rising rate"
    return _descent(label, 0.1, 11000, 9000, every=1000, batch_size=batch_size, growth=1.1)


_HEAVY_BALL = {"rule": "heavy ball", "momentum": 0.5}
_NESTEROV = {"rule": "nesterov", "momentum": 0.5}

QUICK = Sizes(
    n_train=8000,
    n_test=2000,
    first_rate=0.1,
    epochs=16,
    snapshots=24,
    cases=(
        Case(DEEP, "nesterov", "float32", (0.1, 0.05, 0.02, 0.01), 3, ("k = 3",)),
        Case("relu 5x64", "nesterov", "float32", (0.1, 0.05, 0.02, 0.01), 1, ("k = 3",)),
        Case(DEEP, "nesterov", "float64", (0.1,), 1, ("k = 3",)),
        Case(DEEP, "heavy ball", "float32", (0.1, 0.02), 1, ("k = 3",)),
        Case(EASY, "plain", "float32", (0.1, 0.02), 1, ("k = 3",)),
    ),
    kernel_rates=(0.1, 0.02, 0.01),
    kernels=("rows reversed", "8 slices", "blas", "SSE2", "small blocks"),
    processors=("SSE2", "AVX2"),
    spread_networks=("relu 2x128", "relu 5x64", "swish 2x128"),
    spread_orders=6,
    spread_ks=(1, 3, 5, 7),
    spread_train=8000,
    spread_epochs=50,
    edge_runs=(
        _descent("0.1", 0.1, 2000, 1300),
        _descent("0.1, heavy ball 0.5", 0.1, 3000, 2400, **_HEAVY_BALL),
        _descent("0.075, Nesterov 0.5", 0.075, 1500, 900, **_NESTEROV),
        *(_batches(batch_size, 12000) for batch_size in (16, 64)),
        *map(_rising, (16, 64)),
    ),
    band_points=60,
    sharpness_rates=(0.1, 0.05, 0.02),
)

_RATES = (0.1, 0.05, 0.02, 0.01, 0.003, 0.001)

FULL = Sizes(
    n_train=8000,
    n_test=2000,
    first_rate=0.1,
    epochs=40,
    snapshots=40,
    cases=(
        Case(DEEP, "nesterov", "float32", _RATES, 5, ("k = 3", "k = 5", "k = 7")),
        Case("relu 5x64", "nesterov", "float32", _RATES, 2, ("k = 3", "k = 5")),
        Case(DEEP, "nesterov", "float64", _RATES[:4], 1, ("k = 3",)),
        Case(DEEP, "heavy ball", "float32", _RATES[:4], 2, ("k = 3",)),
        Case(DEEP, "plain", "float32", _RATES[:4], 2, ("k = 3",)),
        Case(EASY, "nesterov", "float32", _RATES[:4], 2, ("k = 3",)),
        Case(EASY, "plain", "float32", _RATES, 2, ("k = 3",)),
    ),
    kernel_rates=(0.1, 0.05, 0.02, 0.01),
    kernels=(
        *("rows reversed", "2 slices", "8 slices", "naive", "blas", "one weight"),
        *("SSE2", "AVX", "AVX2", "small blocks", "lanes"),
    ),
    processors=PROCESSORS,
    spread_networks=("relu 2x128", "relu 5x64", "swish 2x128"),
    spread_orders=20,
    spread_ks=(1, 3, 5, 7, 9, 11),
    spread_train=8000,
    spread_epochs=50,
    edge_runs=(
        _descent("0.1", 0.1, 4000, 1300),
        _descent("0.05", 0.05, 8000, None, every=250),
        _descent("0.1, decay 0.01", 0.1, 4000, None, decay=0.01),
        _descent("0.1, heavy ball 0.5", 0.1, 5000, 2400, **_HEAVY_BALL),
        _descent("0.075, Nesterov 0.5", 0.075, 3000, 900, **_NESTEROV),
        _descent("0.05, heavy ball 0.9", 0.05, 2000, None, rule="heavy ball", momentum=0.9),
        *(_batches(batch_size, 60000) for batch_size in (16, 64)),
        *map(_rising, (16, 32, 64, 128)),
    ),
    band_points=240,
    sharpness_rates=_RATES[:4],
)
