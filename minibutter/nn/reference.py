"""Every operation of a network once, in NumPy: the text to read first, and the oracle of the tests.

Each function returns new arrays and is as short as its formula; nothing here is fast, and nothing
in production imports it. Shapes stand in the docstrings: n rows, fan_in and fan_out units, K
outputs. Gradients are named `d` plus the name of what they belong to: dz is the derivative of the
loss with respect to z. The type of the arrays (float32 or float64) is kept; metrics are float64.

Sources: Goodfellow, Bengio & Courville, *Deep Learning*, 6.5 (back-propagation); Hendrycks &
Gimpel, arXiv:1606.08415 (GELU); Ramachandran, Zoph & Le, arXiv:1710.05941 (Swish); Kingma & Ba,
arXiv:1412.6980 (Adam); Keras in TensorFlow 2 (constants, metrics), because BUTTER was trained and
measured with it.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import erf

# ---------------------------------------------------------------------------------------------
# Layers


def dense_forward(x, w, b):
    """z = x @ w + b; x (n, fan_in), w (fan_in, fan_out), b (fan_out), z (n, fan_out)."""
    return x @ w + b


def dense_backward(x, w, dz):
    """dx = dz @ wᵀ, dw = xᵀ @ dz, db = Σ_rows dz."""
    return dz @ w.T, x.T @ dz, dz.sum(axis=0)


def relu(z):
    """max(z, 0)."""
    return np.maximum(z, 0)


def relu_derivative(z):
    """1 where z > 0, else 0."""
    return (z > 0).astype(z.dtype)


def tanh_derivative(z):
    """1 - tanh² z."""
    return 1 - np.tanh(z) ** 2


def sigmoid(z):
    """1 / (1 + e^-z), computed as (1 + tanh(z/2)) / 2, which cannot overflow."""
    return (1 + np.tanh(z / 2)) / 2


def sigmoid_derivative(z):
    """σ(z) (1 - σ(z))."""
    return sigmoid(z) * (1 - sigmoid(z))


def normal_cdf(z):
    """Φ(z) = (1 + erf(z/√2)) / 2."""
    return (1 + erf(z / np.sqrt(2).astype(z.dtype))) / 2


def gelu(z):
    """z Φ(z)."""
    return z * normal_cdf(z)


def gelu_derivative(z):
    """Φ(z) + z φ(z), φ(z) = e^(-z²/2) / √(2π)."""
    return normal_cdf(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi).astype(z.dtype)


def swish(z):
    """z σ(z)."""
    return z * sigmoid(z)


def swish_derivative(z):
    """σ(z) + z σ(z) (1 - σ(z))."""
    return sigmoid(z) + z * sigmoid_derivative(z)


ACTIVATIONS = {
    "relu": (relu, relu_derivative),
    "tanh": (np.tanh, tanh_derivative),
    "sigmoid": (sigmoid, sigmoid_derivative),
    "gelu": (gelu, gelu_derivative),
    "swish": (swish, swish_derivative),
}

# ---------------------------------------------------------------------------------------------
# Outputs and losses: z (n, K) logits and y (n, K) targets -> p (n, K) outputs and losses (n,) of
# the rows; the gradients are those of the mean over rows


def softmax(z):
    """e^z / Σ e^z; subtracting the row maximum changes nothing and prevents overflow."""
    grown = np.exp(z - z.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def sigmoid_mse(z, y):
    """p = σ(z); mean over outputs of (p - y)²."""
    p = sigmoid(z)
    return p, np.mean((p - y) ** 2, axis=1)


def sigmoid_mse_gradient(p, y):
    """dz = 2 (p - y) p (1 - p) / (n K)."""
    return 2 * (p - y) * p * (1 - p) / p.size


def sigmoid_binary_cross_entropy(z, y):
    """p = σ(z); mean over outputs of -y log p - (1 - y) log(1 - p), from the logits."""
    return sigmoid(z), np.mean(np.logaddexp(0, z) - z * y, axis=1)


def sigmoid_binary_cross_entropy_gradient(p, y):
    """dz = (p - y) / (n K)."""
    return (p - y) / p.size


def softmax_cross_entropy(z, y):
    """p = softmax(z); -Σ_k y_k log p_k, from the logits."""
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return softmax(z), -np.sum(y * log_p, axis=1)


def softmax_cross_entropy_gradient(p, y):
    """dz = (p - y) / n."""
    return (p - y) / len(p)


LOSSES = {
    "regression": (sigmoid_mse, sigmoid_mse_gradient),
    "binary": (sigmoid_binary_cross_entropy, sigmoid_binary_cross_entropy_gradient),
    "classification": (softmax_cross_entropy, softmax_cross_entropy_gradient),
}


def penalty(w, l1, l2):
    """l1 Σ|w| + l2 Σ w² of one layer's weights."""
    return l1 * np.abs(w).sum() + l2 * (w**2).sum()


def penalty_gradient(w, l1, l2):
    """l1 sign(w) + 2 l2 w."""
    return l1 * np.sign(w) + 2 * l2 * w


# ---------------------------------------------------------------------------------------------
# A whole network: layers is a list of (w, b); skip says which layers add their input


def forward(layers, skip, activation, task, x, y):
    """Run a batch through the network.

    Returns
    -------
    inputs : list of the arrays that enter each layer, inputs[0] = x.
    z : list of the pre-activations.
    p : outputs (n, K).
    losses : (n,) of the rows, without penalty.
    """
    f, _ = ACTIVATIONS[activation]
    inputs, z = [x], []
    for layer, (w, b) in enumerate(layers):
        z.append(dense_forward(inputs[layer], w, b))
        if layer < len(layers) - 1:
            a = f(z[layer])
            inputs.append(a + inputs[layer] if skip[layer] else a)
    loss, _ = LOSSES[task]
    p, losses = loss(z[-1], y)
    return inputs, z, p, losses


def backward(layers, skip, activation, task, x, y, l1=0.0, l2=0.0):
    """Gradient of mean loss + penalty: a list of (dw, db), one pair a layer.

    The forward pass is walked from its end; each line of it stands as a comment above its
    derivative.
    """
    inputs, z, p, _ = forward(layers, skip, activation, task, x, y)
    _, f_derivative = ACTIVATIONS[activation]
    _, loss_gradient = LOSSES[task]
    gradients = [None] * len(layers)
    # p, losses = loss(z[-1], y)
    dz = loss_gradient(p, y)
    dh = dz  # gradient of the output of the layer above; the output layer itself has no skip
    for layer in range(len(layers) - 1, -1, -1):
        w, _ = layers[layer]
        # z[layer] = inputs[layer] @ w + b
        dx, dw, db = dense_backward(inputs[layer], w, dz)
        gradients[layer] = dw + penalty_gradient(w, l1, l2), db
        if layer == 0:
            return gradients
        # inputs[layer + 1] = f(z[layer]) + inputs[layer]: the skip carries dh around the layer
        if skip[layer]:
            dx = dx + dh
        dh = dx
        # inputs[layer] = f(z[layer - 1]), perhaps plus the layer's own input
        dz = dh * f_derivative(z[layer - 1])


# ---------------------------------------------------------------------------------------------
# Optimizers: an object holds its memory, `update` returns the new parameters


@dataclass
class SGD:
    """v = μ v - η dw,  w += v: Keras' form."""

    learning_rate: float
    momentum: float = 0.0
    v: np.ndarray | float = 0.0

    def update(self, w, dw):
        self.v = self.momentum * self.v - self.learning_rate * dw
        return w + self.v


@dataclass
class TorchSGD:
    """v = μ v + dw,  d = dw + μ v (Nesterov) or v,  w -= (k η) (d / k)."""

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    k: int = 1
    v: np.ndarray | float = 0.0

    def update(self, w, dw):
        self.v = self.momentum * self.v + dw
        d = dw + self.momentum * self.v if self.nesterov else self.v
        return w - (self.k * self.learning_rate) * (d / self.k)


@dataclass
class RMSprop:
    """s = ρ s + (1 - ρ) dw²,  v = μ v + η dw / √(s + ε),  w -= v."""

    learning_rate: float
    momentum: float = 0.0
    rho: float = 0.9
    epsilon: float = 1e-7
    s: np.ndarray | float = 0.0
    v: np.ndarray | float = 0.0

    def update(self, w, dw):
        self.s = self.rho * self.s + (1 - self.rho) * dw**2
        self.v = self.momentum * self.v + self.learning_rate * dw / np.sqrt(self.s + self.epsilon)
        return w - self.v


@dataclass
class Adam:
    """Kingma & Ba, with "epsilon hat": w -= η √(1 - β₂ᵗ)/(1 - β₁ᵗ) m / (√v + ε)."""

    learning_rate: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    m: np.ndarray | float = field(default=0.0)
    v: np.ndarray | float = field(default=0.0)
    t: int = 0

    def update(self, w, dw):
        self.t += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * dw
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * dw**2
        # A Python number: one of NumPy's float64 would widen float32 parameters.
        correction = (1 - self.beta_2**self.t) ** 0.5 / (1 - self.beta_1**self.t)
        return w - self.learning_rate * correction * self.m / (np.sqrt(self.v) + self.epsilon)


# ---------------------------------------------------------------------------------------------
# Metrics


def metrics(p, y, losses, is_binary):
    """The ten BUTTER metrics of outputs p (n, K), targets y (n, K) and row losses (n,).

    With Keras' definitions; `is_binary` says that all targets are 0 or 1, so that the hinge losses
    read them as -1 and 1.
    """
    p, y = p.astype(np.float64), y.astype(np.float64)
    correct = p.argmax(axis=1) == y.argmax(axis=1)
    if y.shape[1] == 1:
        correct = ((p > 0.5) == y)[:, 0]
    correct &= ~np.isnan(p).any(axis=1)  # NaN is never right
    mse = np.mean((p - y) ** 2)
    log_error = np.log1p(np.maximum(y, 1e-7)) - np.log1p(np.maximum(p, 1e-7))
    margin = np.maximum(1 - (2 * y - 1 if is_binary else y) * p, 0)
    clipped_p, clipped_y = np.clip(p, 1e-7, 1), np.clip(y, 1e-7, 1)
    squared_norms = np.maximum((p**2).sum(axis=1), 1e-12) * np.maximum((y**2).sum(axis=1), 1e-12)
    return {
        "loss": np.mean(losses, dtype=np.float64),
        "accuracy": np.mean(correct),
        "mean_squared_error": mse,
        "mean_absolute_error": np.mean(np.abs(p - y)),
        "root_mean_squared_error": np.sqrt(mse),
        "mean_squared_logarithmic_error": np.mean(log_error**2),
        "hinge": np.mean(margin),
        "squared_hinge": np.mean(margin**2),
        "cosine_similarity": np.mean((p * y).sum(axis=1) / np.sqrt(squared_norms)),
        "kullback_leibler_divergence": np.mean(
            (clipped_y * np.log(clipped_y / clipped_p)).sum(axis=1)
        ),
    }
