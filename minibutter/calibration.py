"""What training costs on this machine: a few networks are timed, and the rates of `nn.cost` fitted.

The rates that come with the package are those of another processor. They put the runs of a sweep
into much the same order; how long a sweep takes, what still fits into a job, and which repetitions
are worth packing depend on the machine. The small networks of `PROBES` are trained for a few epochs
each, half a minute in all, and the rates that explain the times best are kept in the user's cache
folder, for this model of processor and these kernels.
"""

import json
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from minibutter.nn.cost import BUILT_IN, CostModel, Rates, step_amounts, step_us
from minibutter.nn.kernels import jit
from minibutter.nn.probes import PROBES, Probe, measure_step_us
from minibutter.nn.training import compile_kernels
from minibutter.provenance import read_cpu_model

_PRIOR_COUNT = 0.01
"""What a rate weighs that was there before, scaled to the machine's speed: a rate that is wrong by
its own size counts as much as a network that is wrong by a tenth. Rates that the probes tell
apart are free, the others stay in proportion."""

_FORMAT = 1


@dataclass(frozen=True)
class Calibration:
    """Rates of a machine, and how they were found.

    Attributes
    ----------
    model : the rates.
    cpu_model : of the processor, as `provenance.read_cpu_model` names it.
    kernels : digest of the kernels and what compiles them; None where none are kept.
    measured_at : when, in UTC.
    measured_us : of a step, for each of `PROBES`.
    """

    model: CostModel
    cpu_model: str
    kernels: str | None
    measured_at: str
    measured_us: tuple[float, ...]

    @property
    def errors(self) -> tuple[float, ...]:
        """Of each probe, what the rates make of it over what was measured, less 1."""
        return tuple(
            step_us(probe.network, probe.batch_size, probe.repetitions, self.model) / measured - 1
            for probe, measured in zip(PROBES, self.measured_us, strict=True)
        )


def calibrate(
    cpu_model: str,
    measure: Callable[[Probe], float] | None = None,
    on_probe: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Time the probes and fit the rates; takes half a minute, and compiles what is not compiled.

    Parameters
    ----------
    cpu_model : of this machine's processor.
    measure : microseconds of a step of a probe; `measure_step_us` by default.
    on_probe : called before each probe with its number, from 1, and how many there are.
    """
    if measure is None:
        compile_kernels("float32")
        measure = measure_step_us
    measured_us = []
    for number, probe in enumerate(PROBES, start=1):
        if on_probe is not None:
            on_probe(number, len(PROBES))
        measured_us.append(float(measure(probe)))
    return Calibration(
        model=fit_model(PROBES, measured_us),
        cpu_model=cpu_model,
        kernels=kernels_digest(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        measured_us=tuple(measured_us),
    )


def fit_model(
    probes: Sequence[Probe], measured_us: Sequence[float], start: CostModel = BUILT_IN
) -> CostModel:
    """The rates that explain the times with the least relative errors, none of them negative.

    Parameters
    ----------
    probes : what was timed.
    measured_us : of a step of each, above 0.
    start : rates that the probes say nothing about stay in proportion to these.
    """
    rates = []
    for is_packed, before in ((False, start.alone), (True, start.packed)):
        timed = [
            (step_amounts(probe.network, probe.batch_size, probe.repetitions), us)
            for probe, us in zip(probes, measured_us, strict=True)
            if probe.is_packed == is_packed
        ]
        rates.append(_fit_rates(timed, before))
    return CostModel(*rates)


def _fit_rates(timed: list[tuple[Rates, float]], before: Rates) -> Rates:
    # Takes half a second, which plans should not wait for.
    from minibutter.energy.model.regression import fit_relative

    if not timed:
        return before
    matrix = np.array([amounts for amounts, _ in timed], np.float64)
    measured_us = np.array([us for _, us in timed], np.float64)
    prior = np.array(before)
    speed = np.exp(np.median(np.log(measured_us / (matrix @ prior))))
    known = prior > 0
    fitted = fit_relative(
        np.concatenate([matrix, np.eye(len(prior))[known]]),
        np.concatenate([measured_us, speed * prior[known]]),
        counts=np.concatenate([np.ones(len(timed)), np.full(known.sum(), _PRIOR_COUNT)]),
    )
    return Rates(*(float(rate) for rate in fitted))


# ---------------------------------------------------------------------------------------------
# Keeping it


def kernels_digest() -> str | None:
    """Names kernels, compilers and processor that times belong to; None where none are kept."""
    return None if jit.kept.directory is None else jit.kept.directory.name


def calibration_path(cpu_model: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where the calibration of this processor and these kernels is kept: a JSON file in
    `minibutter/calibration` of the user's cache folder (`XDG_CACHE_HOME`, `~/.cache`).

    None where there is no such folder, or no kernels are kept to which it could belong.
    """
    kernels = kernels_digest()
    if kernels is None:
        return None
    try:
        cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home folder
        return None
    name = re.sub(r"[^a-z0-9]+", "-", cpu_model.lower()).strip("-")
    return cache / "minibutter" / "calibration" / f"{name}-{kernels}.json"


def find_calibration() -> Calibration | None:
    """That of this machine; None where none is kept."""
    return read_calibration(calibration_path(read_cpu_model()))


def machine_cost_model() -> CostModel:
    """Rates of this machine as they were measured, or else those that come with the package."""
    calibration = find_calibration()
    return BUILT_IN if calibration is None else calibration.model


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Keep a calibration; the file appears whole, in place of an older one.

    Raises
    ------
    OSError
        If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "format": _FORMAT,
        "cpu_model": calibration.cpu_model,
        "kernels": calibration.kernels,
        "measured_at": calibration.measured_at,
        "unit": "microseconds of a training step",
        "alone": calibration.model.alone._asdict(),
        "packed": calibration.model.packed._asdict(),
        "probes": [
            _describe(probe) | {"measured_us": us}
            for probe, us in zip(PROBES, calibration.measured_us, strict=True)
        ],
    }
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        unfinished.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def read_calibration(path: Path | None) -> Calibration | None:
    """What is kept there; None where there is nothing that can be used: it is measured again."""
    if path is None:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _from_document(document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # whatever is in the file
        return None


def _describe(probe: Probe) -> dict[str, Any]:
    return {
        "n_inputs": probe.network.n_inputs,
        "widths": list(probe.network.widths),
        "task": probe.network.task,
        "batch_size": probe.batch_size,
        "repetitions": probe.repetitions,
    }


def _from_document(document: dict[str, Any]) -> Calibration:
    timed = list(document["probes"])
    measured_us = tuple(float(row.pop("measured_us")) for row in timed)
    if document["format"] != _FORMAT or timed != [_describe(probe) for probe in PROBES]:
        raise ValueError("written by another version")
    model = CostModel(*(Rates(**document[name]) for name in ("alone", "packed")))
    if not all(math.isfinite(rate) and rate >= 0 for rates in model for rate in rates):
        raise ValueError("a rate that cannot be")
    return Calibration(
        model=model,
        cpu_model=document["cpu_model"],
        kernels=document["kernels"],
        measured_at=document["measured_at"],
        measured_us=measured_us,
    )
