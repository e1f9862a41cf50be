"""A network as data: its description, its parameter vector and the memory that a run needs.

`Network` is frozen and small; the numbers live in one flat vector (w_0, b_0, w_1, b_1, ...), so
that an optimizer, a checkpoint or a study handles a network as a point in R^P.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minibutter.nn.kernels import arena, epoch
from minibutter.nn.kernels.gemm import RUNGS
from minibutter.nn.kernels.jit import in_python
from minibutter.nn.kernels.layout import aligned_zeros, count_blocks, lanes_of
from minibutter.nn.kernels.metrics import N_METRICS
from minibutter.nn.kernels.plan import make_plan
from minibutter.nn.kernels.tiling import DEFAULT_TILING, Tiling
from minibutter.nn.shapes import SHAPES, count_parameters, format_widths, has_skip

ACTIVATIONS: dict[str, int] = {
    "relu": epoch.RELU,
    "tanh": epoch.TANH,
    "sigmoid": epoch.SIGMOID,
    "gelu": epoch.GELU,
    "swish": epoch.SWISH,
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


def penalty_factors(l1: float, l2: float, multipliers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of |W| and W² in every layer, where l1 and l2 are on V and W = m V.

    Parameters
    ----------
    multipliers : m of every layer, float64 of shape (depth,).

    Returns
    -------
    Two arrays, float64 of shape (depth,).

    Raises
    ------
    ValueError
        For an l1 or l2 that cannot be.
    """
    check_penalty(l1, l2)
    return l1 / multipliers, l2 / (multipliers * multipliers)


def check_penalty(l1: float, l2: float) -> None:
    """Raise ValueError for a factor of the weight penalty that cannot be."""
    for name, factor in (("l1", l1), ("l2", l2)):
        if not 0 <= factor < np.inf:
            raise ValueError(f"{name} is {factor}; a penalty factor is at least 0 and finite")


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
    tiling : sizes of tiles and cache blocks; the machine's by default.
    """

    n_inputs: int
    widths: tuple[int, ...]
    task: str
    activation: str = "relu"
    shape: str = "rectangle"
    dtype: str = "float32"
    kernel: str = "tiled"
    tiling: Tiling = DEFAULT_TILING

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
        for layer, is_skipped in enumerate(self.skip):
            if is_skipped and self.widths[layer] != self.widths[layer - 1]:
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

    @cached_property
    def num_parameters(self) -> int:
        """Weights and biases of all layers."""
        return count_parameters(self.n_inputs, self.widths)

    @property
    def skip(self) -> tuple[bool, ...]:
        """Which layers add their input to their activation."""
        return has_skip(self.shape, len(self.widths))

    @cached_property
    def topology(self) -> arena.Topology:
        """The description as the kernels read it, for a single run."""
        fan_out = np.array(self.widths, dtype=np.int64)
        fan_in = np.array([self.n_inputs, *self.widths[:-1]], dtype=np.int64)
        return arena.Topology(
            fan_in=fan_in,
            fan_out=fan_out,
            weight_start=np.cumsum((fan_in + 1) * fan_out) - (fan_in + 1) * fan_out,
            unit_start=np.cumsum(fan_out) - fan_out,
            skip=np.array(self.skip, dtype=np.bool_),
            has_skip=any(self.skip),
            activation=ACTIVATIONS[self.activation],
            loss=LOSSES[self.task],
            repetitions=1,
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
        parameters = aligned_zeros(self.num_parameters, self.dtype)
        for layer in range(self.depth):
            w = self.weights(parameters, layer)
            limit = INITIALIZERS[initializer](*w.shape)
            w[...] = rng.uniform(-limit, limit, size=w.shape)
        return parameters

    def weights(self, vector: np.ndarray, layer: int) -> np.ndarray:
        """View (fan_in, fan_out) of a layer's weights in a vector (P,)."""
        return self._with_biases(vector, layer)[:-1]

    def biases(self, vector: np.ndarray, layer: int) -> np.ndarray:
        """View (fan_out,) of a layer's biases in a vector (P,)."""
        return self._with_biases(vector, layer)[-1]

    def _with_biases(self, vector: np.ndarray, layer: int) -> np.ndarray:
        start = self.topology.weight_start[layer]
        rows, columns = self.topology.fan_in[layer] + 1, self.widths[layer]
        return vector[start : start + rows * columns].reshape(rows, columns)

    def check_array(self, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless the kernels can take the array: they check no bounds."""
        if array.shape != shape or array.dtype != self.dtype or not array.flags.c_contiguous:
            raise ValueError(
                f"{name} is a {array.dtype} array of shape {array.shape}, strides {array.strides}; "
                f"the network needs a C-contiguous {self.dtype} array of shape {shape}"
            )

    def workspace(self, batch_size: int, repetitions: int = 1) -> arena.Workspace:
        """Memory for batches of at most `batch_size` rows; zeroed, so that it is paged in now.

        Parameters
        ----------
        repetitions : 1, or LANES: how many are trained at once.
        """
        dtype, lanes = self.dtype, lanes_of(self.dtype)
        blocks = count_blocks(batch_size, dtype) if repetitions == 1 else batch_size
        hidden = self.widths[:-1]
        units, widest = blocks * sum(hidden) * lanes, blocks * max(self.widths) * lanes
        keeps_dh = any(self.skip) or self.activation != "relu"
        work = arena.Workspace(
            batch_size=batch_size,
            x=aligned_zeros((blocks, self.n_inputs + 1, lanes), dtype),
            z=aligned_zeros(units if self.activation != "relu" else 1, dtype),
            a=aligned_zeros(units if any(self.skip) else 1, dtype),
            h=aligned_zeros(blocks * sum(width + 1 for width in hidden) * lanes, dtype),
            dz=aligned_zeros((2, widest), dtype),
            dh=aligned_zeros((2, widest if keeps_dh else 1), dtype),
            output_blocks=aligned_zeros(blocks * self.n_outputs * lanes, dtype),
            outputs=aligned_zeros((4, blocks * self.n_outputs * lanes), dtype),
            dw=aligned_zeros(self.num_parameters * repetitions, dtype),
            row_values=aligned_zeros(N_METRICS * blocks * lanes, dtype),
            penalties=np.zeros(repetitions),
            loss_scratch=aligned_zeros((4, blocks * lanes), dtype),
            gathered_rows=np.zeros(lanes, np.int64),
            plan=make_plan(
                self.kernel, self.tiling, dtype, self.n_inputs, self.widths, batch_size, repetitions
            ),
            gather=0,
            forward=0,
            backward=0,
            add_metrics=0,
            measure=0,
        )
        work.x[:, -1] = 1
        for layer in range(len(hidden)):
            in_python(arena.layer_output)(self.topology, work, layer, blocks)[:, -1] = 1
        return work._replace(**epoch.compile_steps(self.topology, work))
