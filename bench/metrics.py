"""What the metrics cost: an epoch with its 20 metrics beside one that knows only its losses.

`python -m bench.metrics` trains on 4096 rows and evaluates 1024, with the ten metrics of both, and
the same without them: training and a plain forward pass over the test rows. In turns on one pinned
core; medians and quartiles of the ratios. Losses and parameters of both must be the same bits.
"""

import argparse
import os
import time

import numpy as np

from bench.turns import quartiles
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import TrainingData
from minibutter.nn.training import Trainer

NETWORKS = ((4, 4), (16, 16), (32,) * 3, (64,) * 3, (256,) * 3)
N_INPUTS, N_OUTPUTS, N_TRAIN, N_TEST, BATCH_SIZE = 64, 10, 4096, 1024, 256


def make_trainer(hidden: tuple[int, ...], records_metrics: bool) -> Trainer:
    """A run on random rows, always the same ones."""
    rng = np.random.default_rng(0)
    network = Network(N_INPUTS, (*hidden, N_OUTPUTS), "classification")
    x = rng.standard_normal((N_TRAIN + N_TEST, N_INPUTS)).astype(np.float32)
    y = np.eye(N_OUTPUTS, dtype=np.float32)[rng.integers(0, N_OUTPUTS, len(x))]
    return Trainer(
        network,
        network.initial_parameters("glorot_uniform", rng),
        make_optimizer("adam", 1e-3),
        TrainingData(x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:]),
        batch_size=BATCH_SIZE,
        shuffle=np.random.default_rng(1),
        records_metrics=records_metrics,
    )


def measure(hidden: tuple[int, ...], rounds: int) -> list[float]:
    """Quartiles of the time of an epoch with all metrics over one without."""
    trainers = [make_trainer(hidden, records_metrics) for records_metrics in (True, False)]
    first, second = (trainer.run_epoch() for trainer in trainers)
    assert first.train[0] == second.train[0], "the metrics change the training loss"
    assert first.test[0] == second.test[0], "the metrics change the test loss"
    assert np.array_equal(*(trainer.parameters for trainer in trainers))
    ratios = []
    for _ in range(rounds):
        durations_s = []
        for trainer in trainers:
            begun_s = time.perf_counter()
            trainer.run_epoch()
            durations_s.append(time.perf_counter() - begun_s)
        ratios.append(durations_s[0] / durations_s[1])
    return quartiles(np.array(ratios))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for hidden in NETWORKS:
        low, median, high = measure(hidden, options.rounds)
        cost = f"{100 * (median - 1):.0f} % [{100 * (low - 1):.0f}, {100 * (high - 1):.0f}]"
        print(f"{hidden[0]}x{len(hidden)}: the 20 metrics cost {cost}", flush=True)


if __name__ == "__main__":
    main()
