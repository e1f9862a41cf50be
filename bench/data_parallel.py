"""When it pays to train one network on several ranks: slices of a batch beside an ordinary run.

`mpirun -n 2 python -m bench.data_parallel` trains the same network three ways in turns: an ordinary
run on one rank, with slices on one rank, and with slices on all ranks; the ranks that have no part
sleep. Ratios are taken in each round; medians and quartiles. Both runs with slices must end with
the same bits. Every rank is bound to a core of its own, if there are enough. Where something else
had the cores meanwhile, the share of the processor says so, and the times are worth little.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.markers import ROOT, write_table
from bench.turns import quartiles, three_digits
from minibutter.launch import Alone, Team, find_ranks
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.slices import SlicedGroup, default_slices
from minibutter.nn.starts import Start, TrainingData
from minibutter.provenance import read_provenance

NAME = "bench.data_parallel"
RESULTS = Path(__file__).parent / "results" / "data_parallel.json"
DOCUMENT = ROOT / "docs" / "data_parallel.md"

HIDDEN = tuple((width,) * 3 for width in (64, 128, 256, 512, 1024))
BATCH_SIZES = (256, 2048)
N_INPUTS, N_OUTPUTS, N_STEPS, N_TEST = 64, 10, 4, 64
SHORTEST_SAMPLE_S = 0.02
FEWEST_ROUNDS = 7
PLAIN, SLICED, SHARED = "ordinary", "slices on one rank", "slices on all ranks"


def draw_start(network: Network, n_train: int) -> Start:
    """Random rows and first weights, the same on every rank."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_train + N_TEST, N_INPUTS)).astype(network.dtype)
    y = np.eye(N_OUTPUTS, dtype=network.dtype)[rng.integers(0, N_OUTPUTS, len(x))]
    data = TrainingData(x[:n_train], y[:n_train], x[n_train:], y[n_train:])
    parameters = network.initial_parameters("glorot_uniform", rng)
    return Start(parameters, data, np.random.default_rng(1))


def make_sides(
    hidden: tuple[int, ...], batch_size: int, slices: int, ranks: Alone | Team
) -> dict[str, TrainingGroup]:
    """What this rank trains: rank 0 all three, the others their part of the last."""
    network = Network(N_INPUTS, (*hidden, N_OUTPUTS), "classification")
    options = {"optimizer": make_optimizer("adam", 1e-3), "batch_size": batch_size}

    def start() -> Start:
        return draw_start(network, N_STEPS * batch_size)

    sides: dict[str, TrainingGroup] = {}
    if ranks.rank == 0:
        sides[PLAIN] = TrainingGroup(network, [start()], **options)
        sides[SLICED] = SlicedGroup(network, start(), slices=slices, **options)
    sides[SHARED] = SlicedGroup(
        network, start(), slices=slices, partners=ranks.everybody, **options
    )
    return sides


def measure(
    hidden: tuple[int, ...],
    batch_size: int,
    slices: int,
    ranks: Alone | Team,
    most_rounds: int,
    row_s: float,
) -> dict | None:
    """Time all sides in turns; an entry of the JSON's `networks` on rank 0, None on the others.

    Parameters
    ----------
    most_rounds : of turns; fewer where they would take longer than `row_s`, but FEWEST_ROUNDS.
    """
    sides = make_sides(hidden, batch_size, slices, ranks)
    epoch_s = dict.fromkeys((PLAIN, SLICED, SHARED), 0.0)
    for name in epoch_s:
        ranks.everybody.meet()
        if name in sides:
            sides[name].run_epoch()
            begun_s = time.perf_counter()
            sides[name].run_epoch()
            epoch_s[name] = time.perf_counter() - begun_s
    if ranks.rank == 0 and not np.array_equal(
        sides[SLICED].parameters(0), sides[SHARED].parameters(0)
    ):
        raise AssertionError("one rank and all of them ended with different bits")
    epoch_s = ranks.everybody.meet(epoch_s)[0]
    epochs = math.ceil(SHORTEST_SAMPLE_S / min(epoch_s.values()))
    affordable = int(row_s / (epochs * sum(epoch_s.values())))
    rounds = max(FEWEST_ROUNDS, min(most_rounds, affordable))
    durations_s: dict[str, list[float]] = {name: [] for name in epoch_s}
    core_shares = []
    for turn in range(rounds):
        # Nobody always comes after the same other side.
        for name in durations_s if turn % 2 == 0 else reversed(durations_s):
            ranks.everybody.meet()
            if name in sides:
                cpu_begun_s, begun_s = time.process_time(), time.perf_counter()
                for _ in range(epochs):
                    sides[name].run_epoch()
                durations_s[name].append(time.perf_counter() - begun_s)
                cpu_s = time.process_time() - cpu_begun_s
                core_shares.append(cpu_s / durations_s[name][-1])
    shares = ranks.everybody.meet(core_shares)
    if ranks.rank != 0:
        return None
    return {
        "name": f"{hidden[0]}x{len(hidden)}",
        "num_parameters": sides[PLAIN].network.num_parameters,
        "batch_size": batch_size,
        "slices": slices,
        "rounds": rounds,
        "epochs_per_sample": epochs,
        **summarize(
            {side: np.array(s) / (epochs * N_STEPS) * 1e6 for side, s in durations_s.items()}
        ),
        "core_share_quartile": min(float(np.percentile(share, 25)) for share in shares),
    }


def summarize(step_us: dict[str, np.ndarray]) -> dict:
    """Quartiles over rounds; ratios are taken within each round.

    Parameters
    ----------
    step_us : microseconds a step of PLAIN, SLICED and SHARED, each (rounds,).
    """
    plain = step_us[PLAIN]
    return {
        "us_per_step": quartiles(plain),
        "speed_on_one_rank": quartiles(plain / step_us[SLICED]),
        "speed_on_all_ranks": quartiles(plain / step_us[SHARED]),
    }


def make_table(rows: Sequence[dict], n_ranks: int) -> str:
    """Markdown."""
    lines = [
        f"| network | parameters | batch | slices | ms a step | with slices | on {n_ranks} ranks |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        mark = " *" if row["core_share_quartile"] < 0.95 else ""
        cells = (
            f"{row['name']}{mark}",
            f"{row['num_parameters']:,}",
            str(row["batch_size"]),
            str(row["slices"]),
            three_digits(row["us_per_step"][1] / 1e3),
            _ratio(row["speed_on_one_rank"]),
            _ratio(row["speed_on_all_ranks"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(values: Sequence[float]) -> str:
    low, median, high = values
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure and print on rank 0, and keep the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31, help="of turns, at most")
    parser.add_argument("--row-seconds", type=float, default=20.0, help="of a row, about, at most")
    parser.add_argument("--slices", type=int, nargs="*", help="as many; else what suits the batch")
    parser.add_argument(
        "--docs", action="store_true", help=f"keep them in {RESULTS.name} and {DOCUMENT.name}"
    )
    options = parser.parse_args()
    ranks = find_ranks()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= ranks.size:
        os.sched_setaffinity(0, {cores[ranks.rank]})
    rows = []
    for batch_size in BATCH_SIZES:
        for hidden in HIDDEN:
            for slices in options.slices or [default_slices(batch_size)]:
                row = measure(
                    hidden, batch_size, slices, ranks, options.rounds, options.row_seconds
                )
                if row is not None:
                    rows.append(row)
                    print(make_table([row], ranks.size).splitlines()[-1], flush=True)
    if ranks.rank == 0:
        table = make_table(rows, ranks.size)
        cpu = read_provenance().cpu_model
        print(f"\n{table}")
        if options.docs:
            about = {"cpu": cpu, "python": platform.python_version(), "n_ranks": ranks.size}
            RESULTS.write_text(json.dumps({**about, "networks": rows}, indent=1) + "\n")
            command = f"mpirun -n {ranks.size} python -m {NAME} --docs"
            write_table(NAME, f"{table}\n\n{cpu}. Written by `{command}`.", DOCUMENT)
    ranks.part()


if __name__ == "__main__":
    main()
