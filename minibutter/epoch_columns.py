"""The epochs of a run as columns of the table `epochs`, those of earlier executions before them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minibutter.energy import Energy
from minibutter.energy.counters import COUNTERS
from minibutter.nn.groups import EpochRow
from minibutter.nn.kernels.metrics import METRICS
from minibutter.noise_columns import NOISE_COLUMNS, noise_columns
from minibutter.parts import ENERGY_COLUMNS, energy_columns


class EpochColumns:
    """The epochs of a run as they come in, column by column.

    Parameters
    ----------
    before : columns of the epochs that another execution has trained.

    Attributes
    ----------
    noise : tr Σ and |G|² of all epochs so far; None where they were not measured.
    """

    def __init__(self, before: Mapping[str, Any] | None = None) -> None:
        self._before = before
        self._n_before = 0 if before is None else len(before["epoch"])
        self._rows: list[tuple[int, EpochRow, float]] = []
        self._noise: list[dict[str, Any]] = []
        self.noise: list[tuple[float, float]] = []
        if before is not None:
            self.noise += zip(before["noise_trace"], before["noise_squared_gradient"], strict=True)
        self.energies: list[Energy] = []
        self.counts: dict[str, list[int | None] | None] = dict.fromkeys(COUNTERS)

    def add(self, epoch: int, row: EpochRow, duration_s: float) -> None:
        noise = dict.fromkeys(NOISE_COLUMNS)
        if row.noise is not None:
            # Of the steps, of which there are many, the averages are kept.
            noise, row = noise_columns(row.noise), replace(row, noise=None)
        self._noise.append(noise)
        self.noise.append((noise["noise_trace"], noise["noise_squared_gradient"]))
        self._rows.append((epoch, row, duration_s))

    @property
    def n_new(self) -> int:
        """Epochs of this execution."""
        return len(self._rows)

    @property
    def epochs_completed(self) -> int:
        return self._n_before + self.n_new

    def columns(self) -> dict[str, Any]:
        """The `epochs` table's columns; metrics in float32, as BUTTER published them."""
        new = self._new_columns()
        if self._before is None:
            return new
        n = self._n_before, self.n_new
        return {name: _joined((self._before[name], column), n) for name, column in new.items()}

    def _new_columns(self) -> dict[str, Any]:
        rows = self._rows
        columns: dict[str, Any] = {"epoch": np.array([row[0] for row in rows], dtype=np.int32)}
        for part in ("train", "test", "trained"):
            vectors = [getattr(row[1], part) for row in rows]
            is_measured = bool(vectors) and vectors[0] is not None
            # Where float64 diverges, float32 has long been infinite.
            with np.errstate(over="ignore"):
                values = np.array(vectors).astype(np.float32) if is_measured else None
            # The penalty at the end of the epoch is the same for both sets: test_penalty.
            names = METRICS if part == "trained" else (*METRICS, "penalty")
            for position, name in enumerate(names):
                column = values[:, position] if is_measured else [None] * len(rows)
                columns[f"{part}_{name}"] = column
        columns["batch_size_used"] = np.array([row[1].batch_size for row in rows], dtype=np.int32)
        columns["steps"] = np.array([row[1].steps for row in rows], dtype=np.int32)
        for name in NOISE_COLUMNS:
            columns[name] = [noise[name] for noise in self._noise]
        columns["duration_s"] = np.array([row[2] for row in rows], dtype=np.float64)
        energies = [energy_columns(energy) for energy in self.energies]
        for name in ENERGY_COLUMNS:
            columns[name] = [energy[name] for energy in energies]
        columns["energy_window_s"] = [energy.window_s for energy in self.energies]
        return columns | self.counts


def _joined(columns: tuple[Any, Any], n: tuple[int, int]) -> Any:
    """A column behind another, as an array if both are; None stands for nulls."""
    if all(isinstance(column, np.ndarray) for column in columns):
        return np.concatenate(columns)
    lists = ([None] * n[i] if column is None else list(column) for i, column in enumerate(columns))
    return [value for column in lists for value in column]
