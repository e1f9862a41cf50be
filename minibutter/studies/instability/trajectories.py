"""Trainings whose weights are looked at: the same recipe in every rounding that there is.

Everything but the rounding is the same: data, first weights, batches, and one thread of one
process. A trajectory is therefore an array, not a sample: whoever makes it again gets its bits, and
two need not run side by side to be compared.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minibutter.nn.gradients import BatchGradient
from minibutter.nn.network import Network
from minibutter.nn.schedules import StepSchedule
from minibutter.nn.slices import SlicedGroup
from minibutter.nn.training import Start, TrainingData, TrainingGroup, make_optimizer
from minibutter.studies.data import load_split
from minibutter.studies.instability.variants import VARIANTS, ReversedBatches, Variant

RULES = {
    "plain": {"momentum": 0.0, "momentum_form": "torch"},
    "heavy ball": {"momentum": 0.9, "momentum_form": "torch"},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}
"""Momentum by name, always in the form in which the whole step can be perturbed."""


@dataclass(frozen=True)
class Recipe:
    """All that decides a training but its rounding.

    Attributes
    ----------
    dataset, n_train, n_test, seed : of `load_split`; the seed is that of all else, too.
    depth, width, activation, dtype : hidden layers.
    rule : one of `RULES`.
    learning_rate, batch_size, epochs : of SGD.
    decay : α of the weight decay that is part of the gradient, α w; biases have none.
    step_epochs : the learning rate is divided by 10 after every so many epochs; None: never.
    order : which order of the batches is drawn; the first weights do not depend on it.
    start : which first weights are drawn.
    """

    dataset: str
    n_train: int
    n_test: int
    seed: int
    depth: int
    width: int
    activation: str
    rule: str
    learning_rate: float
    epochs: int
    dtype: str = "float32"
    batch_size: int = 128
    decay: float = 5e-4
    step_epochs: int | None = None
    order: int = 0
    start: int = 0

    def load(self, data_dir: Path | None) -> TrainingData:
        """The rows that it trains on and is tested on."""
        return load_split(
            *(self.dataset, data_dir, self.n_train, self.n_test, self.seed), dtype=self.dtype
        )

    def network(self, data: TrainingData, variant: Variant | None = None) -> Network:
        """784-width-...-width-10, say."""
        rung = {} if variant is None else {"kernel": variant.kernel, "tiling": variant.tiling}
        return Network(
            data.x_train.shape[1],
            (self.width,) * self.depth + (data.y_train.shape[1],),
            "classification",
            self.activation,
            dtype=self.dtype,
            **rung,
        )

    def first_weights(self, network: Network) -> np.ndarray:
        """He's uniform distribution; float32 and float64 begin at the same numbers, rounded."""
        rng = np.random.default_rng([self.seed, 1, self.start])
        return network.initial_parameters("he_uniform", rng)

    def shuffle(self) -> np.random.Generator:
        """Draws the orders of the rows."""
        return np.random.default_rng([self.seed, 2, self.order])

    def steps_of(self, data: TrainingData) -> int:
        """Of an epoch."""
        return -(-len(data.x_train) // self.batch_size)


def begin(recipe: Recipe, data: TrainingData, variant: Variant) -> TrainingGroup:
    """The recipe in one of its roundings, before the first epoch."""
    network = recipe.network(data, variant)
    # Nobody reads what a trainer says of the test rows: one is enough.
    data = replace(data, x_test=data.x_test[:1], y_test=data.y_test[:1])
    starts = []
    for _ in range(2 if variant.is_packed else 1):
        weights = recipe.first_weights(network)
        if variant.moves_a_weight:
            middle = network.weights(weights, network.depth // 2)
            middle[0, 0] = np.nextafter(middle[0, 0], weights.dtype.type(np.inf))
        order = recipe.shuffle()
        shuffle = ReversedBatches(order, recipe.batch_size) if variant.is_reversed else order
        starts.append(Start(weights, data, shuffle))
    options = {
        "batch_size": recipe.batch_size,
        "l2": recipe.decay / 2,
        "records_metrics": False,
        "schedule": None if recipe.step_epochs is None else StepSchedule(recipe.step_epochs),
    }
    optimizer = make_optimizer(
        "sgd", recipe.learning_rate, **RULES[recipe.rule], perturbation=variant.perturbation
    )
    if variant.slices > 1:
        return SlicedGroup(network, starts[0], optimizer, slices=variant.slices, **options)
    return TrainingGroup(network, starts, optimizer, **options)


def snapshot_epochs(epochs: int, n: int) -> np.ndarray:
    """At most n epochs, 1 and the last among them, evenly on a logarithmic scale."""
    return np.unique(np.rint(np.geomspace(1, epochs, min(n, epochs))).astype(int))


def follow(recipe: Recipe, data: TrainingData, variant: Variant, epochs: np.ndarray) -> np.ndarray:
    """Weights (n, P) after these epochs, of training in this process.

    From the first that is not finite on, all are NaN.
    """
    with threadpool_limits(variant.n_threads):
        group = begin(recipe, data, variant)
        found = np.full((len(epochs), group.network.num_parameters), np.nan, recipe.dtype)
        for epoch in range(1, int(epochs[-1]) + 1):
            if not group.run_epoch()[0].is_finite:
                break
            found[epochs == epoch] = group.parameters(0)
    return found


def follow_named(
    recipe: Recipe, data_dir: Path | None, name: str | None, epochs: np.ndarray
) -> np.ndarray:
    """The same for a variant by its name, None for the usual training.

    Kernels for another processor are compiled in a process of their own, whose compiled code is
    kept in a folder of its own: the name of the folder tells the features.
    """
    variant = Variant("") if name is None else VARIANTS[name]
    if not variant.features:
        return follow(recipe, recipe.load(data_dir), variant, epochs)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "weights.npy"
        order = {
            "recipe": asdict(recipe),
            "data_dir": None if data_dir is None else str(data_dir),
            "epochs": epochs.tolist(),
            "target": str(target),
        }
        features = ",".join(f"+{feature}" for feature in variant.features)
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(order),
            env=os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(
                f"training for a processor with {features} ended with {done.returncode}:\n"
                + done.stderr[-2000:]
            )
        return np.load(target)


def outputs_of(recipe: Recipe, data: TrainingData, weights: np.ndarray) -> np.ndarray:
    """Outputs (n, n_test, classes) for the test rows, of weights (n, P)."""
    tool = BatchGradient(recipe.network(data), len(data.x_test))
    return np.array(
        [tool.outputs(np.ascontiguousarray(w), data.x_test, data.y_test) for w in weights]
    )


def _main() -> None:
    """Follow what standard input says, and write the weights."""
    order = json.load(sys.stdin)
    data_dir = None if order["data_dir"] is None else Path(order["data_dir"])
    recipe = Recipe(**order["recipe"])
    with threadpool_limits(1):
        found = follow(recipe, recipe.load(data_dir), Variant(""), np.array(order["epochs"]))
    np.save(order["target"], found)


if __name__ == "__main__":
    _main()
