"""Training runs beside PyTorch: the same first parameters, the same batches, 200 steps, float64.

The network below is written for PyTorch and differentiated by it; nothing of ours takes part.
Keras' optimizers differ from PyTorch's in where epsilon stands, so Adam is given PyTorch's epsilon
of each step, and RMSprop is compared at epsilon 0 with `torch.optim` and at 1e-7 with Keras'
formula.
"""

import math

import numpy as np
import pytest

from minibutter.nn.gradients import BatchGradient
from minibutter.nn.kernels import epoch
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import TrainingData
from minibutter.nn.training import Trainer

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = pytest.mark.peers

N_ROWS, BATCH_SIZE, N_STEPS = 83, 16, 200  # the last batch of every epoch has 3 rows
RELATIVE_ERROR = 1e-9

# (task, outputs, activation, shape)
NETWORKS = [
    ("classification", 4, "relu", "rectangle"),
    ("classification", 4, "tanh", "rectangle_residual"),
    ("binary", 1, "relu", "rectangle_residual"),
    ("binary", 1, "gelu", "rectangle"),
    ("regression", 2, "sigmoid", "rectangle"),
    ("regression", 1, "tanh", "rectangle_residual"),
    ("classification", 4, "swish", "rectangle"),
]

PENALTIES = [(0.002, 0.0), (0.0, 0.005)]

TORCH_ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
    "swish": functional.silu,
}

TORCH_LOSSES = {
    "classification": functional.cross_entropy,
    "binary": functional.binary_cross_entropy_with_logits,
    "regression": lambda z, y: functional.mse_loss(torch.sigmoid(z), y),
}


class KerasRMSprop(torch.optim.Optimizer):
    """Keras' RMSprop, epsilon inside the root, on torch tensors."""

    def __init__(self, parameters, lr, momentum):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for tensor in group["params"]:
                state = self.state[tensor]
                zeros = torch.zeros_like(tensor)
                square = 0.9 * state.get("square", zeros) + 0.1 * tensor.grad.square()
                velocity = group["momentum"] * state.get("velocity", zeros)
                velocity = velocity + group["lr"] * tensor.grad / torch.sqrt(square + 1e-7)
                state["square"], state["velocity"] = square, velocity
                tensor.sub_(velocity)


class TorchRun:
    """The same run in PyTorch; parameters are weights (fan_out, fan_in) and biases by layer."""

    def __init__(self, network, parameters, l1, l2):
        self.network, self.l1, self.l2 = network, l1, l2
        self.w, self.b = [], []
        for layer in range(network.depth):
            self.w.append(torch.tensor(network.weights(parameters, layer).T, requires_grad=True))
            self.b.append(torch.tensor(network.biases(parameters, layer), requires_grad=True))

    def step(self, optimizer, x, y):
        """One step; returns loss and penalty before it."""
        h = torch.from_numpy(x)
        activation = TORCH_ACTIVATIONS[self.network.activation]
        for layer, (w, b) in enumerate(zip(self.w[:-1], self.b[:-1], strict=True)):
            a = activation(functional.linear(h, w, b))
            is_skipped = layer > 0 and self.network.shape == "rectangle_residual"
            h = a + h if is_skipped else a
        z = functional.linear(h, self.w[-1], self.b[-1])
        loss = TORCH_LOSSES[self.network.task](z, torch.from_numpy(y))
        penalty = sum(self.l1 * w.abs().sum() + self.l2 * w.square().sum() for w in self.w)
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        return loss.item(), penalty.item()

    def flat_parameters(self):
        """The vector (w_0, b_0, w_1, ...) with weights as (fan_in, fan_out)."""
        pairs = zip(self.w, self.b, strict=True)
        return np.concatenate([t.detach().numpy().T.ravel() for w_and_b in pairs for t in w_and_b])


class TorchAdam(torch.optim.Adam):
    """PyTorch's Adam with the epsilon that makes it Keras': 1e-7 / √(1 - β₂ᵗ)."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr, betas=(0.9, 0.999))
        self.t = 0

    def step(self):
        self.t += 1
        for group in self.param_groups:
            group["eps"] = 1e-7 / math.sqrt(1 - 0.999**self.t)
        super().step()


# Name -> (our optimizer, PyTorch's)
OPTIMIZERS = {
    "adam": (make_optimizer("adam", 0.003), lambda parameters: TorchAdam(parameters, lr=0.003)),
    "sgd_momentum": (
        make_optimizer("sgd", 0.02, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    ),
    "sgd_momentum_of_pytorch": (
        make_optimizer("sgd", 0.02, momentum=0.9, momentum_form="torch"),
        lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    ),
    "sgd_nesterov": (
        make_optimizer("sgd", 0.02, momentum=0.9, nesterov=True, perturbation=3),
        lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9, nesterov=True),
    ),
    "sgd": (
        make_optimizer("sgd", 0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    ),
    "rmsprop_momentum": (
        make_optimizer("rmsprop", 0.001, momentum=0.9),
        lambda parameters: KerasRMSprop(parameters, lr=0.001, momentum=0.9),
    ),
    "rmsprop_momentum_without_epsilon": (
        make_optimizer("rmsprop", 0.001, momentum=0.9)._replace(epsilon=0.0),
        lambda parameters: torch.optim.RMSprop(
            parameters, lr=0.001, alpha=0.9, eps=0.0, momentum=0.9
        ),
    ),
}


def draw_run(task, n_outputs, activation, shape):
    """A network, its first parameters and rows that have something to teach."""
    rng = np.random.default_rng(1)
    network = Network(6, (9, 9, 9, n_outputs), task, activation, shape, "float64")
    parameters = network.initial_parameters("glorot_uniform", rng)
    x = rng.uniform(0.1, 1, (N_ROWS, 6))
    scores = (x - 0.5) @ rng.standard_normal((6, n_outputs))
    if task == "regression":
        y = 1 / (1 + np.exp(-3 * scores))
    elif task == "binary":
        y = (scores > 0).astype(np.float64)
    else:
        y = np.eye(n_outputs)[scores.argmax(axis=1)]
    return network, parameters, x, y


def relative_error(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


# A shut relu has gradient 0, and without epsilon 0 / 0 is no step.
CASES = [
    (optimizer, *network)
    for optimizer in OPTIMIZERS
    for network in NETWORKS
    if not (optimizer.endswith("without_epsilon") and "relu" in network)
]


@pytest.mark.parametrize(("l1", "l2"), PENALTIES)
@pytest.mark.parametrize(("optimizer", "task", "n_outputs", "activation", "shape"), CASES)
def test_200_steps_equal_pytorch(optimizer, task, n_outputs, activation, shape, l1, l2):
    network, parameters, x, y = draw_run(task, n_outputs, activation, shape)
    rule, make_torch_optimizer = OPTIMIZERS[optimizer]
    peer = TorchRun(network, parameters, l1, l2)
    torch_optimizer = make_torch_optimizer([*peer.w, *peer.b])
    objective = BatchGradient(network, BATCH_SIZE, l1=l1, l2=l2)
    free = BatchGradient(network, BATCH_SIZE)
    slots = np.zeros((2, network.num_parameters))
    losses, penalties, torch_losses, torch_penalties = [], [], [], []
    rng, step = np.random.default_rng(2), 0
    first = parameters.copy()
    while step < N_STEPS:
        order = rng.permutation(N_ROWS)
        for start in range(0, N_ROWS, BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = x[rows], y[rows]
            losses.append(free.loss(parameters, *batch))
            penalties.append(objective.loss(parameters, *batch) - losses[-1])
            step += 1
            gradient = objective.gradient(parameters, *batch)
            epoch.update(rule, parameters, slots, gradient, step)
            torch_loss, torch_penalty = peer.step(torch_optimizer, *batch)
            torch_losses.append(torch_loss)
            torch_penalties.append(torch_penalty)
    # Both have moved far from where they started, or nothing would be compared.
    assert relative_error(parameters, first) > 0.05
    for what, actual, expected in (
        ("parameters", parameters, peer.flat_parameters()),
        ("losses", losses, torch_losses),
        ("penalties", penalties, torch_penalties),
    ):
        error = relative_error(actual, expected)
        assert error < RELATIVE_ERROR, (
            f"{what} differ by {error:.3g} of their norm; the last are "
            f"{actual[-1]!r} and {expected[-1]!r}"
        )


@pytest.mark.parametrize("optimizer", ["adam", "sgd_momentum", "rmsprop_momentum"])
def test_epochs_of_a_trainer_equal_pytorch(optimizer):
    network, parameters, x, y = draw_run("classification", 4, "relu", "rectangle_residual")
    l1, l2 = 0.001, 0.002
    rule, make_torch_optimizer = OPTIMIZERS[optimizer]
    peer = TorchRun(network, parameters, l1, l2)
    torch_optimizer = make_torch_optimizer([*peer.w, *peer.b])
    trainer = Trainer(
        network,
        parameters,
        rule,
        TrainingData(x, y, x, y),
        batch_size=BATCH_SIZE,
        shuffle=np.random.default_rng(3),
        l1=l1,
        l2=l2,
    )
    shuffle = np.random.default_rng(3)
    epochs = math.ceil(N_STEPS / math.ceil(N_ROWS / BATCH_SIZE))
    for _ in range(epochs):
        row = trainer.run_epoch()
        order = shuffle.permutation(N_ROWS)
        loss = penalty = 0.0
        for start in range(0, N_ROWS, BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch_loss, batch_penalty = peer.step(torch_optimizer, x[rows], y[rows])
            loss += len(rows) * batch_loss / N_ROWS
            penalty += len(rows) * batch_penalty / N_ROWS
        assert row.train[0] == pytest.approx(loss, rel=RELATIVE_ERROR, abs=0)
        assert row.train[-1] == pytest.approx(penalty, rel=RELATIVE_ERROR, abs=0)
    assert relative_error(parameters, peer.flat_parameters()) < RELATIVE_ERROR
