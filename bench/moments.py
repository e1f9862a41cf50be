"""What exact gradient statistics cost: a training step that measures moments beside a plain one.

`python -m bench.moments` trains on 4096 rows, batch 256, Adam, with the squared norms of every
example's gradient and of the mean gradient, by layers, at every step, and without. In turns on one
pinned core; medians and quartiles of the ratios. Parameters of both must be the same bits.
"""

import argparse
import os
import time

import numpy as np

from bench.turns import quartiles
from minibutter.nn.moments import MomentTrainer
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import TrainingData
from minibutter.nn.training import Trainer

NETWORKS = ((4, 4), (16, 16), (32,) * 3, (64,) * 3, (256,) * 3)
N_INPUTS, N_OUTPUTS, N_TRAIN, BATCH_SIZE = 64, 10, 4096, 256
MAX_COST = 0.6
"""Of a step: what a study may pay that measures at every one."""


def make_trainers(hidden: tuple[int, ...], dtype: str) -> tuple[MomentTrainer, Trainer]:
    """The same run on random rows, measured and plain; the plain one tests a single row."""
    rng = np.random.default_rng(0)
    network = Network(N_INPUTS, (*hidden, N_OUTPUTS), "classification", dtype=dtype)
    x = rng.standard_normal((N_TRAIN, N_INPUTS)).astype(dtype)
    y = np.eye(N_OUTPUTS, dtype=dtype)[rng.integers(0, N_OUTPUTS, N_TRAIN)]
    parameters = network.initial_parameters("glorot_uniform", rng)
    optimizer = make_optimizer("adam", 1e-3)
    measured = MomentTrainer(
        *(network, parameters.copy(), optimizer, x, y),
        batch_size=BATCH_SIZE,
        shuffle=np.random.default_rng(1),
    )
    plain = Trainer(
        *(network, parameters.copy(), optimizer, TrainingData(x, y, x[:1], y[:1])),
        batch_size=BATCH_SIZE,
        shuffle=np.random.default_rng(1),
        records_metrics=False,
    )
    return measured, plain


def measure(hidden: tuple[int, ...], dtype: str, rounds: int) -> list[float]:
    """Quartiles of the time of an epoch with moments over one without."""
    trainers = make_trainers(hidden, dtype)
    for trainer in trainers:
        trainer.run_epoch()
    assert np.array_equal(*(trainer.parameters for trainer in trainers))
    ratios = []
    for _ in range(rounds):
        durations_s = []
        for trainer in trainers:
            begun_s = time.process_time()
            trainer.run_epoch()
            durations_s.append(time.process_time() - begun_s)
        ratios.append(durations_s[0] / durations_s[1])
    return quartiles(np.array(ratios))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for dtype in ("float32", "float64"):
        for hidden in NETWORKS:
            low, median, high = (ratio - 1 for ratio in measure(hidden, dtype, options.rounds))
            name = f"{dtype}, {hidden[0]}x{len(hidden)}"
            print(f"{name}: moments cost {median:.0%} [{low:.0%}, {high:.0%}]", flush=True)


if __name__ == "__main__":
    main()
