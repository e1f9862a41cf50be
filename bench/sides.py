"""The libraries that `bench.peers` compares, each behind the same two calls.

A `Side` trains the networks of one `Problem` by whole epochs and hands out its parameters. All
sides start from the same weights, are given the same random order of the rows in every epoch, from
which they gather their batches, and make the same steps: softmax cross-entropy, relu, Adam with
Keras' epsilon, float32, one thread. What a library can do ahead (data and orders in its own arrays,
compilation) is done before any clock runs.

Libraries are imported where they are needed: every side runs in a process of its own.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from minibutter.nn import reference
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import Start, TrainingData

N_ROWS, BATCH_SIZE, LEARNING_RATE = 4096, 256, 1e-3
STEPS = N_ROWS // BATCH_SIZE
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7

SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
"""Environment that holds every library to one thread; read when it is imported."""


@dataclass(frozen=True)
class Problem:
    """What is trained: one network, or several repetitions of it with rows of their own.

    Attributes
    ----------
    n_inputs, hidden, n_outputs : units.
    repetitions : how many networks of this kind, each with its own data and first weights.
    """

    n_inputs: int
    hidden: tuple[int, ...]
    n_outputs: int
    repetitions: int = 1

    @property
    def name(self) -> str:
        """`32x3` for three hidden layers of 32, `2-8-8-2` with inputs and outputs for lanes."""
        if self.repetitions > 1:
            return "-".join(map(str, (self.n_inputs, *self.hidden, self.n_outputs)))
        return f"{self.hidden[0]}x{len(self.hidden)}"

    @cached_property
    def network(self) -> Network:
        """As our kernels know it."""
        return Network(self.n_inputs, (*self.hidden, self.n_outputs), "classification")

    def draw(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, one-hot targets and first parameters; the same ones in every process.

        Returns
        -------
        x : float32 (repetitions, 4096, n_inputs), normal.
        y : float32 (repetitions, 4096, n_outputs), one-hot.
        starts : float32 (repetitions, num_parameters).
        """
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.repetitions, N_ROWS, self.n_inputs)).astype(np.float32)
        labels = rng.integers(0, self.n_outputs, (self.repetitions, N_ROWS))
        y = np.eye(self.n_outputs, dtype=np.float32)[labels]
        starts = [
            self.network.initial_parameters("glorot_uniform", rng) for _ in range(self.repetitions)
        ]
        return x, y, np.array(starts)

    def orders(self) -> Iterator[np.ndarray]:
        """Random orders of the rows, int64 (repetitions, 4096), one array an epoch, without end."""
        rng = np.random.default_rng(1)
        while True:
            yield np.array([rng.permutation(N_ROWS) for _ in range(self.repetitions)])

    def layers(self, parameters: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Views (w, b) of every layer in one flat vector."""
        network = self.network
        return [
            (network.weights(parameters, layer), network.biases(parameters, layer))
            for layer in range(network.depth)
        ]


def join_layers(layers) -> np.ndarray:
    """The flat vector of pairs (w, b), the order that `Network` has."""
    return np.concatenate([np.asarray(part).ravel() for pair in layers for part in pair])


class Side(Protocol):
    """Networks in training."""

    def load_order(self, order: np.ndarray) -> Any:
        """What `run_epoch` takes for an order (repetitions, 4096); no clock runs."""

    def run_epoch(self, order: Any) -> None:
        """Make `STEPS` steps in every network and return when they are done."""

    def parameters(self) -> np.ndarray:
        """Flat parameters (repetitions, num_parameters)."""


class Given:
    """In the place of a random generator: draws the order that was given to it."""

    order: np.ndarray

    def permutation(self, n: int) -> np.ndarray:
        """The order, of n rows."""
        return self.order


class Packed:
    """Our kernels: all repetitions in one `TrainingGroup`; a group of one is a single run.

    Its epoch gathers the rows of every batch and evaluates a test set, here of one row.
    """

    def __init__(self, problem: Problem, **options) -> None:
        x, y, starts = problem.draw()
        self.shuffles = [Given() for _ in starts]
        self.group = TrainingGroup(
            problem.network,
            [
                Start(start, TrainingData(rows, targets, rows[:1], targets[:1]), shuffle)
                for rows, targets, start, shuffle in zip(x, y, starts, self.shuffles, strict=True)
            ],
            make_optimizer("adam", LEARNING_RATE),
            batch_size=BATCH_SIZE,
            **options,
        )

    def load_order(self, order: np.ndarray) -> np.ndarray:
        return order

    def run_epoch(self, order: np.ndarray) -> None:
        for shuffle, rows in zip(self.shuffles, order, strict=True):
            shuffle.order = rows
        self.group.run_epoch()

    def parameters(self) -> np.ndarray:
        return np.array([self.group.parameters(r) for r in range(len(self.shuffles))])


class NumpyReference:
    """The oracle of our kernels, in NumPy, whose BLAS does the matrix products."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.x, self.y, self.w = problem.draw()
        self.optimizers = [
            reference.Adam(np.float32(LEARNING_RATE)) for _ in range(problem.repetitions)
        ]

    def load_order(self, order: np.ndarray) -> np.ndarray:
        return order

    def run_epoch(self, order: np.ndarray) -> None:
        skip = self.problem.network.skip
        for r, optimizer in enumerate(self.optimizers):
            for rows in order[r].reshape(STEPS, BATCH_SIZE):
                layers = self.problem.layers(self.w[r])
                gradient = reference.backward(
                    layers, skip, "relu", "classification", self.x[r, rows], self.y[r, rows]
                )
                self.w[r] = optimizer.update(self.w[r], join_layers(gradient))

    def parameters(self) -> np.ndarray:
        return self.w


class _TorchRun:
    """One network in PyTorch."""

    def __init__(self, layers, x, y, is_compiled: bool) -> None:
        import torch

        modules: list[torch.nn.Module] = []
        for w, b in layers:
            linear = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w.T.copy()))
                linear.bias.copy_(torch.from_numpy(b.copy()))
            modules += [linear, torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*modules[:-1])
        model, cross_entropy = self.model, torch.nn.functional.cross_entropy

        def loss(rows, labels):
            return cross_entropy(model(rows), labels)

        self.loss = torch.compile(loss) if is_compiled else loss
        self.adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
        self.x, self.labels = torch.from_numpy(x), torch.from_numpy(y.argmax(axis=1))
        self.step = 0

    def run_epoch(self, batches) -> None:
        for rows in batches:
            self.adam.zero_grad(set_to_none=True)
            self.loss(self.x[rows], self.labels[rows]).backward()
            self.step += 1
            # Keras' "epsilon hat", which is added before bias correction, in PyTorch's terms.
            self.adam.param_groups[0]["eps"] = EPSILON / math.sqrt(1 - BETA_2**self.step)
            self.adam.step()

    def parameters(self) -> np.ndarray:
        linears = self.model[::2]
        return join_layers((m.weight.detach().numpy().T, m.bias.detach().numpy()) for m in linears)


class Torch:
    """PyTorch with its fused Adam: eager, or forward, loss and backward by `torch.compile`."""

    def __init__(self, problem: Problem, is_compiled: bool = False) -> None:
        import torch

        torch.set_num_threads(1)
        self.runs = [
            _TorchRun(problem.layers(start), rows, targets, is_compiled)
            for rows, targets, start in zip(*problem.draw(), strict=True)
        ]

    def load_order(self, order: np.ndarray) -> list:
        import torch

        return [torch.from_numpy(rows).split(BATCH_SIZE) for rows in order]

    def run_epoch(self, order: list) -> None:
        for run, batches in zip(self.runs, order, strict=True):
            run.run_epoch(batches)

    def parameters(self) -> np.ndarray:
        return np.array([run.parameters() for run in self.runs])


def _jax_epoch(state, data, order, gathers_first):
    """The whole epoch as one scan; state is (layers, first moments, second moments, steps).

    data are x (N_ROWS, n_inputs) and y (N_ROWS, n_outputs), order is (STEPS, BATCH_SIZE). To gather
    all batches before the scan is faster when mapped over repetitions (by 4 to 9 %), and slower
    (by 15 to 20 %) alone.
    """
    import jax
    from jax import numpy as jnp

    def loss(layers, rows, targets):
        a = rows
        for w, b in layers[:-1]:
            a = jax.nn.relu(a @ w + b)
        w, b = layers[-1]
        return -(targets * jax.nn.log_softmax(a @ w + b)).sum() / BATCH_SIZE

    def gather(rows):
        return [part.at[rows].get(mode="promise_in_bounds") for part in data]

    def step(state, batch):
        layers, first, second, t = state
        gradient = jax.grad(loss)(layers, *(batch if gathers_first else gather(batch)))
        t = t + 1
        # 1 - beta^t as such loses four digits in float32, enough to turn a relu on or off.
        bias_1, bias_2 = (-jnp.expm1(t * math.log(beta)) for beta in (BETA_1, BETA_2))
        rate = LEARNING_RATE * jnp.sqrt(bias_2) / bias_1
        first = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, first, gradient)
        second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, second, gradient)
        layers = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), layers, first, second
        )
        return (layers, first, second, t), None

    return jax.lax.scan(step, state, gather(order) if gathers_first else order)[0]


class Jax:
    """JAX: one jitted scan an epoch, mapped over repetitions; state in place, data resident."""

    def __init__(self, problem: Problem) -> None:
        import jax
        from jax import numpy as jnp

        x, y, starts = problem.draw()
        states = []
        for start in starts:
            layers = [(jnp.array(w), jnp.array(b)) for w, b in problem.layers(start)]
            zeros = [jax.tree.map(jnp.zeros_like, layers) for _ in range(2)]
            states.append((layers, *zeros, jnp.float32(0)))
        self.is_mapped = problem.repetitions > 1
        if self.is_mapped:
            self.state = jax.tree.map(lambda *parts: jnp.stack(parts), *states)
            self.data = jnp.array(x), jnp.array(y)
        else:
            self.state, self.data = states[0], (jnp.array(x[0]), jnp.array(y[0]))
        epoch = partial(_jax_epoch, gathers_first=self.is_mapped)
        epoch = jax.vmap(epoch) if self.is_mapped else epoch
        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.wait = jax.block_until_ready

    def load_order(self, order: np.ndarray):
        from jax import numpy as jnp

        batches = jnp.array(order.reshape(-1, STEPS, BATCH_SIZE), jnp.int32)
        return self.wait(batches if self.is_mapped else batches[0])

    def run_epoch(self, order) -> None:
        self.state = self.wait(self.epoch(self.state, self.data, order))

    def parameters(self) -> np.ndarray:
        layers = self.state[0]
        if not self.is_mapped:
            return join_layers(layers)[np.newaxis]
        repetitions = range(len(layers[0][0]))
        return np.array([join_layers((w[r], b[r]) for w, b in layers) for r in repetitions])


class ScikitLearn:
    """scikit-learn's MLPClassifier, an epoch a `partial_fit`."""

    def __init__(self, problem: Problem) -> None:
        from sklearn.neural_network import MLPClassifier

        x, y, starts = problem.draw()
        self.x, self.labels = x[0], y[0].argmax(axis=1)
        self.model = MLPClassifier(
            problem.hidden,
            alpha=0,
            batch_size=BATCH_SIZE,
            learning_rate_init=LEARNING_RATE,
            shuffle=False,
            epsilon=EPSILON,
        )
        # Its arrays come into being with its own draw in a first epoch; then they get our weights,
        # and the next epoch starts with a new optimizer.
        self.model.partial_fit(self.x, self.labels, classes=np.arange(problem.n_outputs))
        for layer, (w, b) in enumerate(problem.layers(starts[0])):
            self.model.coefs_[layer][...] = w
            self.model.intercepts_[layer][...] = b
        del self.model._optimizer

    def load_order(self, order: np.ndarray) -> np.ndarray:
        return order[0]

    def run_epoch(self, order: np.ndarray) -> None:
        self.model.partial_fit(self.x[order], self.labels[order])

    def parameters(self) -> np.ndarray:
        layers = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        return join_layers(layers)[np.newaxis]


Makers = dict[str, Callable[[Problem], Side]]

# The first of each is the one that peers are compared with. A variant of ours is one more line:
# keywords of `TrainingGroup` through `partial`, or another class with the calls of a `Side`.
SINGLE_SIDES: Makers = {
    "minibutter": partial(Packed, records_metrics=False),
    "minibutter_metrics": Packed,
    "numpy": NumpyReference,
    "scikit_learn": ScikitLearn,
    "pytorch": Torch,
    "pytorch_compiled": partial(Torch, is_compiled=True),
    "jax": Jax,
}
LANES_SIDES: Makers = {
    "minibutter": partial(Packed, records_metrics=False),
    "minibutter_metrics": Packed,
    "pytorch": Torch,
    "jax": Jax,
}


def sides_of(problem: Problem) -> Makers:
    """Who takes part: repetitions go to those that could gain from having them together."""
    return LANES_SIDES if problem.repetitions > 1 else SINGLE_SIDES
