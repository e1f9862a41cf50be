"""A network as data: its description, its parameter vector and the memory that a run needs.

`Network` is frozen and small; the numbers live in one flat vector (w_0, b_0, w_1, b_1, ...), so
that an optimizer, a checkpoint or a study handles a network as a point in R^P.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.shapes import SHAPES, count_parameters, format_widths, has_skip

ACTIVATIONS: dict[str, int] = {
    "relu": epoch.RELU,
    "tanh": epoch.TANH,
    "sigmoid": epoch.SIGMOID,
    "gelu": epoch.GELU,
}

LOSSES: dict[str, int] = {
    "regression": epoch.SIGMOID_MSE,
    "binary": epoch.SIGMOID_BINARY_CROSS_ENTROPY,
    "classification": epoch.SOFTMAX_CROSS_ENTROPY,
}
"""Output unit and loss by task, BUTTER's pairing."""

DTYPES: tuple[str, ...] = ("float32", "float64")

MAX_PARAMETERS = 2**40
"""4 TiB of float32; offsets into the parameter vector stay far from the end of int64."""


def _glorot_limit(fan_in: int, fan_out: int) -> float:
    return np.sqrt(6 / (fan_in + fan_out))


def _he_limit(fan_in: int, fan_out: int) -> float:
    return np.sqrt(6 / fan_in)


INITIALIZERS = {"glorot_uniform": _glorot_limit, "he_uniform": _he_limit}
"""Half width of the uniform distribution of a layer's weights. Glorot & Bengio 2010, eq. 16;
He et al. 2015, eq. 10, as a uniform distribution of the same variance."""


@dataclass(frozen=True)
class Network:
    """A fully connected network.

    Attributes
    ----------
    n_inputs : features of a row.
    widths : units of every layer, the output layer last.
    task : "regression", "binary" or "classification"; decides output unit and loss.
    activation : of the hidden layers, a key of `ACTIVATIONS`.
    shape : one of `SHAPES`; only "rectangle_residual" matters here, it adds skips.
    dtype : "float32" or "float64", of parameters, activations and gradients.
    kernel : rung of the matrix product, a key of `gemm.RUNGS`.
    """

    n_inputs: int
    widths: tuple[int, ...]
    task: str
    activation: str = "relu"
    shape: str = "rectangle"
    dtype: str = "float32"
    kernel: str = "tiled"

    def __post_init__(self) -> None:
        for field, value, known in (
            ("task", self.task, LOSSES),
            ("activation", self.activation, ACTIVATIONS),
            ("shape", self.shape, SHAPES),
            ("dtype", self.dtype, DTYPES),
            ("kernel", self.kernel, RUNGS),
        ):
            if value not in known:
                raise ValueError(f"{field} is {value!r}; it must be one of {', '.join(known)}")
        if len(self.widths) < 2 or min(self.n_inputs, *self.widths) < 1:
            raise ValueError(
                f"a network of {self.n_inputs} inputs and widths {self.widths} cannot be built: "
                "at least one hidden and one output layer, every width at least 1"
            )
        if self.num_parameters > MAX_PARAMETERS:
            raise ValueError(
                f"a network of {self.n_inputs} inputs and widths {format_widths(self.widths)} has "
                f"{self.num_parameters} parameters; at most {MAX_PARAMETERS} can be addressed"
            )
        for layer in range(1, len(self.widths)):
            if self.skip[layer] and self.widths[layer] != self.widths[layer - 1]:
                raise ValueError(
                    f"widths are {self.widths}, but layer {layer} of a residual network adds its "
                    "input to its output: all hidden layers must have the same width"
                )

    @property
    def depth(self) -> int:
        """Dense layers, the output layer included."""
        return len(self.widths)

    @property
    def n_outputs(self) -> int:
        """Width of the output layer."""
        return self.widths[-1]

    @property
    def num_parameters(self) -> int:
        """Weights and biases of all layers."""
        return count_parameters(self.n_inputs, self.widths)

    @property
    def skip(self) -> tuple[bool, ...]:
        """Which layers add their input to their activation."""
        return has_skip(self.shape, len(self.widths))

    @cached_property
    def topology(self) -> epoch.Topology:
        """The description as the kernels read it."""
        fan_out = np.array(self.widths, dtype=np.int64)
        fan_in = np.array([self.n_inputs, *self.widths[:-1]], dtype=np.int64)
        layer_end = np.cumsum((fan_in + 1) * fan_out)
        return epoch.Topology(
            fan_in=fan_in,
            fan_out=fan_out,
            weight_start=layer_end - (fan_in + 1) * fan_out,
            bias_start=layer_end - fan_out,
            unit_start=np.cumsum(fan_out) - fan_out,
            skip=np.array(self.skip, dtype=np.bool_),
            activation=ACTIVATIONS[self.activation],
            loss=LOSSES[self.task],
            rung=RUNGS[self.kernel],
        )

    def initial_parameters(self, initializer: str, rng: np.random.Generator) -> np.ndarray:
        """Draw weights layer by layer, row by row; biases are zero.

        Parameters
        ----------
        initializer : a key of `INITIALIZERS`.
        rng : consumed: one double per weight, so float32 and float64 start from the same draw.

        Returns
        -------
        ndarray of shape (num_parameters,), of the network's dtype.
        """
        if initializer not in INITIALIZERS:
            raise ValueError(
                f"initializer is {initializer!r}; it must be one of {', '.join(INITIALIZERS)}"
            )
        parameters = np.zeros(self.num_parameters, dtype=self.dtype)
        for layer in range(self.depth):
            w = self.weights(parameters, layer)
            limit = INITIALIZERS[initializer](*w.shape)
            w[...] = rng.uniform(-limit, limit, size=w.shape)
        return parameters

    def weights(self, vector: np.ndarray, layer: int) -> np.ndarray:
        """View (fan_in, fan_out) of a layer's weights in a vector (P,)."""
        start, end = self.topology.weight_start[layer], self.topology.bias_start[layer]
        return vector[start:end].reshape(-1, self.widths[layer])

    def biases(self, vector: np.ndarray, layer: int) -> np.ndarray:
        """View (fan_out,) of a layer's biases in a vector (P,)."""
        start = self.topology.bias_start[layer]
        return vector[start : start + self.widths[layer]]

    def workspace(self, batch_size: int) -> epoch.Workspace:
        """Memory for batches of at most `batch_size` rows; zeroed, so that it is paged in now."""
        dtype = np.dtype(self.dtype)
        widest = max(self.widths)
        units = batch_size * sum(self.widths)
        fan_ins = (self.n_inputs, *self.widths[:-1])
        largest = max(i * o for i, o in zip(fan_ins, self.widths, strict=True))
        return epoch.Workspace(
            x=np.zeros((batch_size, self.n_inputs), dtype),
            y=np.zeros((batch_size, self.n_outputs), dtype),
            z=np.zeros(units, dtype),
            a=np.zeros(units, dtype),
            h=np.zeros(units if any(self.skip) else 1, dtype),
            dz=np.zeros(batch_size * widest, dtype),
            dh=np.zeros((2, batch_size * widest), dtype),
            wt=np.zeros(largest, dtype),
            dw=np.zeros(self.num_parameters, dtype),
        )
