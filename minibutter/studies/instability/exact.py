"""Pieces of the study whose outcome is known beforehand: the systems of `demonstrations`."""

from pathlib import Path

import numpy as np
import pandas as pd

from minibutter.studies.instability.demonstrations import (
    OneLayerNetwork,
    classify,
    heat_steps,
    linear_amplification,
    train_two_scalars,
)
from minibutter.studies.instability.differences import PARTED, relative_l1

SETTLED = (0.005, 0.01, 0.02, 0.03)
RESTRAINED = (0.05, 0.07, 0.09, 0.099)
BLOWN_UP = (0.101, 0.11, 0.13)
"""Steps of the one-layer network whose class is known; the band is from 0.0323 to 0.1."""

ONE_LAYER_STEPS = 1000
_LATE = 200
_DECAYS = (1.1e7, 1.2e7, 1.3e7, 1.9e8, 2.0e8, 2.1e8, 2.2e8)
_PATCHES = 225**2 * 1024


def first_kernel() -> tuple[np.ndarray, np.ndarray]:
    """32 x 32 normal numbers, as `OneLayerNetwork.train` takes them: their part along the
    chessboard, and the length of the rest (2,); and these two directions (2, 1024)."""
    numbers = np.random.default_rng(7).standard_normal((32, 32))
    signs = 1 - 2 * (np.indices((32, 32)).sum(axis=0) % 2)
    along = np.sum(numbers * signs) / 32
    kernel = np.array([along, np.sqrt(np.sum(numbers**2) - along**2)])
    rest = (numbers - along * signs / 32) / kernel[1]
    return kernel, np.array([signs.ravel() / 32, rest.ravel()])


def measure_one_layer(data_dir: Path | None, *, steps: list[float], k: int) -> pd.DataFrame:
    """Class of the one-layer network, and what a perturbed step does to it, by the step.

    Returns
    -------
    One row a step: `step`, `behaviour`, `expected` (None where nobody has said), `loss_low` and
    `loss_high` of the last 200 steps, `amplitude` (largest |u| of them), `l1` (largest relative
    difference of the 1024 weights to those of the perturbed run), `parted_at` (first step with more
    than 0.1; None: never).
    """
    network, (kernel, directions) = OneLayerNetwork(), first_kernel()
    known = dict.fromkeys(SETTLED, "settled") | dict.fromkeys(RESTRAINED, "restrained")
    known |= dict.fromkeys(BLOWN_UP, "blown up")
    rows = []
    for step in steps:
        paths = [network.train(kernel, step, ONE_LAYER_STEPS, which) for which in (1, k)]
        shorter = min(map(len, paths))
        # Of the weights, not of their part along the chessboard: where that settles at once, its
        # bits are all the same, and a comparison of nothing would agree.
        weights = (
            path[:shorter, :1] * directions[0] + path[:shorter, 1:] * directions[1]
            for path in paths
        )
        apart = relative_l1(*weights)
        losses, late = network.loss(paths[0]), paths[0][-_LATE:, 0]
        behaviour = classify(losses[-_LATE:])
        is_lost = behaviour == "blown up"
        beyond = np.flatnonzero(apart > PARTED)
        rows.append(
            {
                "step": step,
                "behaviour": behaviour,
                "expected": known.get(step),
                "loss_low": None if is_lost else float(losses[-_LATE:].min()),
                "loss_high": None if is_lost else float(losses[-_LATE:].max()),
                "amplitude": None if is_lost else float(32 * np.abs(late).max()),
                "l1": float(apart.max()),
                "parted_at": float(beyond[0]) if len(beyond) else None,
            }
        )
    numbers = ("loss_low", "loss_high", "amplitude", "parted_at")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def measure_known_systems(data_dir: Path | None) -> pd.DataFrame:
    """The linear equation, the heat equation and the two scalar weights.

    Returns
    -------
    One row a run: `system`, `setting` (what is varied), `value`, `behaviour`, `expected`,
    `measured` and `predicted`: a number of the run and what theory says of it.
    """
    return pd.DataFrame([*_linear_rows(), *_heat_rows(), *_scalar_rows()])


def _linear_rows() -> list[dict]:
    """200 Euler steps on the modes, of size 1 at the start, against their amplification."""
    dt, modes, steps = 1e-8, np.array([_PATCHES, 0.0]), 200
    stable = {1.1e7: "grows", 1.2e7: "grows", 2.0e8: "stays"} | dict.fromkeys(
        (2.1e8, 2.2e8), "grows"
    )
    rows = []
    for decay in _DECAYS:
        size = np.ones(2)
        for _ in range(steps):
            size = size - dt * (decay * size - 0.25 * modes * size)
        per_step = float(np.abs(size).max() ** (1 / steps))
        predicted = float(np.abs(linear_amplification(dt, decay, -0.5, modes)).max())
        behaviour = "stays" if abs(per_step - 1) < 1e-9 else "grows" if per_step > 1 else "decays"
        rows.append(
            {
                "system": "linear equation",
                "setting": "decay",
                "value": decay,
                "behaviour": behaviour,
                "expected": stable.get(decay, "decays"),
                "measured": per_step,
                "predicted": predicted,
            }
        )
    return rows


def _heat_rows() -> list[dict]:
    u = np.random.default_rng(0).standard_normal(31)
    u[[0, -1]] = 0
    sawtooth = 4 * np.sin(29 / 60 * np.pi) ** 2  # of 29 free points, the fastest mode
    rows = []
    for dt in (0.4, 0.5, 0.51, 0.8):
        largest = heat_steps(dt, 3000, u)
        is_lost = classify(largest) == "blown up"
        slowest = 1 - 4 * dt * np.sin(np.pi / 60) ** 2
        rows.append(
            {
                "system": "heat equation",
                "setting": "dt",
                "value": dt,
                "behaviour": "blown up" if is_lost else "bounded",
                "expected": "bounded" if dt <= 0.5 else "blown up",
                "measured": float((largest[-1] / largest[-9]) ** (1 / 8)),
                "predicted": float(max(dt * sawtooth - 1, slowest)),
            }
        )
    return rows


def _scalar_rows() -> list[dict]:
    cases = (
        ((1.2, 0.9), 0.6, "settled", 2.0964),
        ((1.2, 0.9), 0.95, "settled", 2.0754),
        ((1.2, 0.9), 1.02, "restrained", None),
        ((3.0, 0.4), 0.2, "settled", 9.023),
        ((3.0, 0.4), 0.3, "settled", 3.273),
    )
    rows = []
    for start, step, expected, sharpness in cases:
        run = train_two_scalars(*start, step, 4000)
        rows.append(
            {
                "system": f"two weights from {start}",
                "setting": "step",
                "value": step,
                "behaviour": classify(run.output[-_LATE:]),
                "expected": expected,
                "measured": float(run.sharpness[-1]),
                "predicted": sharpness,
            }
        )
    return rows
