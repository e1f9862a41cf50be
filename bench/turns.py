"""Taking turns: every side is a process on the same core, and only the one that is told to runs.

A library's threads, allocator and settings thus cannot disturb another's. The parent sends a number
of epochs down a pipe and waits; the child trains them between two readings of its own clock and
sends the seconds back, with the seconds in which it had the core: where these are fewer, something
else was running and the times are worth little. Nothing is timed before all sides have trained an
epoch, which compiles what is to be compiled, and agree on where it ends.
"""

import math
import time
from contextlib import ExitStack
from itertools import islice, pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np

from bench.sides import BATCH_SIZE, STEPS, Problem, sides_of
from minibutter.nn.ceiling import measure_fma_ceiling

SHORTEST_SAMPLE_S = 5e-3
"""What the fastest side's sample should last; all sides then train as many epochs."""

TOLERANCE, TOLERANCE_OF_DEEP = 5e-4, 5e-3
"""Distance of two sides after an epoch, in units of the distance moved from the start.

Rounding makes 1e-6 of it, up to 1e-4 where it opens a relu that is shut elsewhere; more than four
layers amplify this (16x18: 1e-3 from the reference in float64), but mistakes too. PyTorch's epsilon
in place of Keras', a rate that is wrong by 1 % or two batches interchanged make 9e-3 to 4e-2, and
0.3 in 16x18.
"""


class Disagreement(AssertionError):
    """A side ended elsewhere, so its times would be those of something else."""


def count_flops(problem: Problem) -> int:
    """Floating-point operations of the matrix products of one step of one network.

    2 n fan_in fan_out for z = a @ w of every layer, the same again for dw = a.T @ dz, and again
    for dx = dz @ w.T of every layer but the first.
    """
    units = (problem.n_inputs, *problem.hidden, problem.n_outputs)
    products = [2 * BATCH_SIZE * i * o for i, o in pairwise(units)]
    return 3 * sum(products) - products[0]


def serve(connection: Connection, problem: Problem, name: str) -> None:
    """A child's life: build and train one epoch, then as many as it is told, until told 0.

    Sends (None, parameters) after the first epoch or, when that fails, (reason, None).
    """
    orders = problem.orders()
    try:
        side = sides_of(problem)[name](problem)
        side.run_epoch(side.load_order(next(orders)))
    except Exception as error:  # A peer that is not there or cannot compile is a result.
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        connection.send((reason, None))
        return
    connection.send((None, side.parameters()))
    while epochs := connection.recv():
        first, *rest = (side.load_order(order) for order in islice(orders, 1 + epochs))
        side.run_epoch(first)  # The caches hold what the side before has left in them.
        cpu_begun_s, begun_s = time.process_time(), time.perf_counter()
        for order in rest:
            side.run_epoch(order)
        duration_s = time.perf_counter() - begun_s
        connection.send((duration_s, time.process_time() - cpu_begun_s))


class Child:
    """One side in a process of its own; a context manager that ends it.

    Attributes
    ----------
    first_epoch_s : from the start of the process to its end, imports and compilation included;
        None if it failed.
    end : parameters after it; None if it failed.
    reason : why it failed; None if it did not.
    """

    def __init__(self, problem: Problem, name: str) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        begun_s = time.perf_counter()
        self._process = context.Process(target=serve, args=(theirs, problem, name), daemon=True)
        self._process.start()
        theirs.close()
        self.reason, self.end = self._connection.recv()
        seconds = time.perf_counter() - begun_s
        self.first_epoch_s = None if self.end is None else seconds

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.reason is None:
            self._connection.send(0)
        self._process.join()

    def time_epochs(self, epochs: int) -> tuple[float, float]:
        """Seconds of that many epochs: by the clock, and with the core at its disposal."""
        self._connection.send(epochs)
        return self._connection.recv()


def check_agreement(
    ends: dict[str, np.ndarray], starts: np.ndarray, tolerance: float
) -> dict[str, float]:
    """How far every side is from the first one, in units of what that one has moved.

    Raises
    ------
    Disagreement
        Where it is more than `tolerance`, or not a number.
    """
    base = next(iter(ends.values()))
    moved = np.linalg.norm(base - starts)
    differences = {name: float(np.linalg.norm(end - base) / moved) for name, end in ends.items()}
    for name, difference in differences.items():
        if not difference <= tolerance:
            raise Disagreement(f"{name} went elsewhere: {difference:.2e} of the way")
    return differences


def quartiles(values: np.ndarray) -> list[float]:
    """First quartile, median and third."""
    return np.percentile(values, [25, 50, 75]).tolist()


def three_digits(value: float) -> str:
    """For tables: three digits, or all those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def is_disturbed(row: dict) -> bool:
    """Whether a quarter of the samples had less than 95 % of the core."""
    return row["core_share_quartiles"][0] < 0.95


def summarize_turns(
    times_us: dict[str, np.ndarray], ceilings: np.ndarray, flops: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], list[float]]:
    """Quartiles over rounds; ratios and shares are taken within each round.

    Parameters
    ----------
    times_us : microseconds a step by side, each (rounds,), ours first.
    ceilings : (rounds,), GFLOP/s.
    flops : of a step.

    Returns
    -------
    times : of every side.
    ratios : side / ours, of every side but ours.
    share : of the ceiling that our matrix products would reach if nothing else took time.
    """
    name, ours = next(iter(times_us.items()))
    times = {side: quartiles(values) for side, values in times_us.items()}
    ratios = {side: quartiles(values / ours) for side, values in times_us.items() if side != name}
    return times, ratios, quartiles(flops / (ours * 1e3) / ceilings)


def measure(problem: Problem, rounds: int) -> dict:
    """Check agreement, then time all sides in turns; one entry of the JSON's `networks`."""
    with ExitStack() as stack:
        children, missing = {}, {}
        for name in sides_of(problem):
            child = stack.enter_context(Child(problem, name))
            if child.reason is None:
                children[name] = child
            elif name.startswith("minibutter"):
                raise RuntimeError(f"{problem.name}, {name}: {child.reason}")
            else:
                missing[name] = child.reason
        tolerance = TOLERANCE if problem.network.depth <= 4 else TOLERANCE_OF_DEEP
        ends = {name: child.end for name, child in children.items()}
        differences = check_agreement(ends, problem.draw()[2], tolerance)
        fastest_s = min(child.time_epochs(1)[0] for child in children.values())
        epochs = math.ceil(SHORTEST_SAMPLE_S / fastest_s)
        steps = epochs * STEPS * problem.repetitions
        times_us: dict[str, list[float]] = {name: [] for name in children}
        ceilings, core_shares = [], []
        for turn in range(rounds):
            # Nobody always comes after the same other side.
            for name in children if turn % 2 == 0 else reversed(children):
                duration_s, cpu_s = children[name].time_epochs(epochs)
                times_us[name].append(duration_s / steps * 1e6)
                core_shares.append(cpu_s / duration_s)
            ceilings.append(measure_fma_ceiling(problem.network.dtype, samples=3))
    flops = count_flops(problem)
    times, ratios, share = summarize_turns(
        {name: np.array(values) for name, values in times_us.items()}, np.array(ceilings), flops
    )
    sides: dict[str, dict] = {
        name: {
            "us_per_step": times[name][1],
            "us_per_step_quartiles": times[name],
            "ratio_quartiles": ratios.get(name),
            "first_epoch_s": child.first_epoch_s,
            "difference": differences[name],
            "missing": None,
        }
        for name, child in children.items()
    }
    for name, reason in missing.items():
        sides[name] = {**dict.fromkeys(next(iter(sides.values()))), "missing": reason}
    return {
        "name": problem.name,
        "n_inputs": problem.n_inputs,
        "widths": [*problem.hidden, problem.n_outputs],
        "num_parameters": problem.network.num_parameters,
        "repetitions": problem.repetitions,
        "rounds": rounds,
        "epochs_per_sample": epochs,
        "flops_per_step": flops,
        "core_share_quartiles": quartiles(np.array(core_shares)),
        "ceiling_gflops": float(np.median(ceilings)),
        "share_of_ceiling_quartiles": share,
        "tolerance": tolerance,
        "sides": sides,
    }
