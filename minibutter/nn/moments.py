"""How the gradients of single examples scatter around their mean, at one point or at every step.

What noise scales are made of: the squared norm of every example's gradient, that of the mean
gradient, how much of each example's gradient points along a direction, and all inner products of
pairs. Everything is of the mean loss without the penalty, which is the same for every example: it
moves the mean gradient and leaves the scatter alone.

Source: Goodfellow 2015, arXiv:1510.01799; what studies do with it: McCandlish et al. 2018,
arXiv:1812.06162, appendix A.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from minibutter.nn.kernels import arena, epoch, moments
from minibutter.nn.kernels.jit import in_python
from minibutter.nn.kernels.layout import aligned_zeros, count_blocks, lanes_of
from minibutter.nn.network import Network, penalty_factors
from minibutter.nn.steps import checked_rows


@dataclass(frozen=True)
class GradientMoments:
    """The gradients of n examples, as far as noise scales need them; all arrays are float64.

    Attributes
    ----------
    squared_norms : (n, depth), |g_i|² of every example and layer, biases included. The squared norm
        of a whole gradient is the sum over layers.
    mean_gradient : (P,), G.
    mean_squared_norms : (depth,), the parts of |G|².
    chunk_sizes : (n_chunks,) int64, rows of the chunks in which the data were walked through.
    chunk_squared_norms : (n_chunks, depth), the same of each chunk's mean gradient: |G| at a
        smaller batch size, and the blocks of a jackknife.
    """

    squared_norms: np.ndarray
    mean_gradient: np.ndarray
    mean_squared_norms: np.ndarray
    chunk_sizes: np.ndarray
    chunk_squared_norms: np.ndarray

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.squared_norms)


class ExampleMoments:
    """Moments of the gradients of any number of rows, in chunks.

    A gradient of a chunk has the bits of training; chunks are added in float64.

    Parameters
    ----------
    network : any.
    chunk_size : rows that are walked through at once; memory is taken once.

    Targets of a classification must sum to 1 in every row.
    """

    def __init__(self, network: Network, chunk_size: int = 256) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
        self.network = network
        self._work = network.workspace(chunk_size)
        self._scratch = Scratch(network, chunk_size)

    def moments(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> GradientMoments:
        """Squared norms of every row's gradient and of the mean gradient, by layers.

        Parameters
        ----------
        parameters : (P,).
        x, y : (n, n_inputs) and (n, n_outputs), n at least 1, of the network's dtype.

        Raises
        ------
        ValueError
            If an array does not fit the network.
        """
        network, work, scratch = self.network, self._work, self._scratch
        starts = self._starts(parameters, x, y)
        squared_norms = np.empty((len(x), network.depth))
        mean_gradient = np.zeros(network.num_parameters)
        chunk_sizes = np.diff([*starts, len(x)])
        chunk_squared_norms = np.empty((len(starts), network.depth))
        for chunk, (start, n) in enumerate(zip(starts, chunk_sizes, strict=True)):
            blocks = self._forward(parameters, x, y, start, n)
            moments.backward_with_squares(
                scratch.rows, network.topology, parameters, work, blocks, n, scratch.row
            )
            squared_norms[start : start + n] = scratch.of_rows(n) * float(n) ** 2
            moments.layer_squared_norms(
                chunk_squared_norms[chunk], network.topology, work.dw, scratch.partial
            )
            mean_gradient += work.dw * (n / len(x))
        mean_squared_norms = np.empty(network.depth)
        moments.layer_squared_norms(
            mean_squared_norms, network.topology, mean_gradient, scratch.partial
        )
        return GradientMoments(
            squared_norms, mean_gradient, mean_squared_norms, chunk_sizes, chunk_squared_norms
        )

    def projections(
        self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray, direction: np.ndarray
    ) -> np.ndarray:
        """g_i · direction of every row and layer, (n, depth) float64.

        Parameters
        ----------
        parameters, x, y : as for `moments`.
        direction : (P,); it is rounded to the network's dtype.
        """
        network, scratch = self.network, self._scratch
        starts = self._starts(parameters, x, y)
        direction = np.ascontiguousarray(direction, dtype=network.dtype)
        network.check_array("direction", direction, (network.num_parameters,))
        products = np.empty((len(x), network.depth))
        for start in starts:
            n = min(self._work.batch_size, len(x) - start)
            blocks = self._forward(parameters, x, y, start, n)
            moments.backward_with_products(
                *(scratch.rows, network.topology, parameters, direction),
                *(self._work, blocks, n, scratch.units),
            )
            products[start : start + n] = scratch.of_rows(n) * float(n)
        return products

    def gram(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """g_i · g_j of all pairs of rows, (n, n) float64; for as many rows as fit one chunk.

        Of one layer it is (x xᵀ) * (dz dzᵀ), element by element: n² numbers a layer instead of n P.

        Raises
        ------
        ValueError
            If an array does not fit the network, or there are more rows than in a chunk.
        """
        network, work, n = self.network, self._work, len(x)
        self._starts(parameters, x, y)
        if n > work.batch_size:
            raise ValueError(
                f"there are {n} rows; a Gram matrix holds one chunk, {work.batch_size}"
            )
        blocks = self._forward(parameters, x, y, 0, n)
        lanes, topology = work.x.shape[2], network.topology
        dz = in_python(epoch.output_gradient)(topology, work, blocks, 1)
        gram = np.zeros((n, n))
        for layer in range(network.depth - 1, -1, -1):
            below = (
                in_python(arena.layer_output)(topology, work, layer - 1, blocks)
                if layer > 0
                else work.x[:blocks]
            )
            inputs, deltas = (
                units.transpose(0, 2, 1).reshape(blocks * lanes, -1)[:n].astype(np.float64)
                for units in (below, dz)
            )
            gram += (inputs @ inputs.T) * (deltas @ deltas.T)
            if layer > 0:
                epoch.backward_input(topology, parameters, work, layer, dz)
                width = topology.fan_out[layer - 1]
                dz = in_python(arena.work_half)(work.dz, layer - 1, blocks, width, lanes)
        return gram

    def _starts(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> range:
        """Check the arrays; where the chunks begin."""
        if len(x) < 1:
            raise ValueError("there are 0 rows; moments need at least 1")
        self.network.check_array("parameters", parameters, (self.network.num_parameters,))
        self.network.check_array("x", x, (len(x), self.network.n_inputs))
        self.network.check_array("y", y, (len(x), self.network.n_outputs))
        return range(0, len(x), self._work.batch_size)

    def _forward(
        self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray, start: int, n: int
    ) -> int:
        topology, work = self.network.topology, self._work
        order = np.arange(start, start + n)[None]
        blocks = in_python(arena.count_batch_blocks)(topology, work, n)
        arena.gather(topology, work, x[None], y[None], order, 0, n)
        epoch.forward(topology, parameters, work, blocks)
        return blocks


class Scratch:
    """What the kernels of `moments` write: rows (depth, blocks, LANES), row (blocks, LANES)."""

    def __init__(self, network: Network, batch_size: int) -> None:
        blocks, lanes = count_blocks(batch_size, network.dtype), lanes_of(network.dtype)
        self.rows = aligned_zeros((network.depth, blocks, lanes), np.float64)
        self.row = aligned_zeros((blocks, lanes), np.float64)
        self.partial = np.zeros(8)
        self.units = aligned_zeros(blocks * max(network.widths) * lanes, network.dtype)

    def of_rows(self, n: int) -> np.ndarray:
        """What was written of n rows, (n, depth)."""
        return self.rows.reshape(len(self.rows), -1)[:, :n].T


# ---------------------------------------------------------------------------------------------
# Training


@dataclass(frozen=True)
class StepMoments:
    """What every step of an epoch measured, before it was made; arrays are float64.

    Attributes
    ----------
    batch_sizes : (n_steps,) int64; the last batch may be smaller.
    loss : (n_steps,), mean of the batch, without the penalty.
    penalty : (n_steps,).
    example_squared_norms : (n_steps, depth), mean of |g_i|² over the batch.
    batch_squared_norms : (n_steps, depth), |g|² of the batch's mean gradient.
    """

    batch_sizes: np.ndarray
    loss: np.ndarray
    penalty: np.ndarray
    example_squared_norms: np.ndarray
    batch_squared_norms: np.ndarray

    @classmethod
    def of_columns(cls, columns: np.ndarray, n_rows: int, batch_size: int) -> Self:
        """From what `train_epoch_with_moments` has written of an epoch of so many rows."""
        examples, batches = np.hsplit(columns[:, moments.N_STEP_COLUMNS :], 2)
        sizes = np.diff([*range(0, n_rows, batch_size), n_rows])
        loss, penalty = columns[:, moments.MEAN_LOSS], columns[:, moments.PENALTY_SUM]
        return cls(sizes, loss, penalty, examples, batches)


class MomentTrainer:
    """A run in progress, without metrics and tests, that measures moments at every step.

    Parameters have the bits that `training.Trainer` gives them.

    Parameters
    ----------
    network : what is trained.
    parameters : (num_parameters,), trained in place.
    optimizer : from `training.make_optimizer`.
    x, y : training set, (n_train, n_inputs) and (n_train, n_outputs), of the network's dtype.
    batch_size : rows per step, at most n_train.
    shuffle : draws the order of the rows, once per epoch.
    l1, l2 : penalty factors on the weights of every layer.

    Raises
    ------
    ValueError
        If an array does not fit the network, the batch not the training set, or a penalty factor
        is negative or not finite.
    """

    def __init__(
        self,
        network: Network,
        parameters: np.ndarray,
        optimizer: epoch.Optimizer,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch_size: int,
        shuffle: np.random.Generator,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        network.check_array("parameters", parameters, (network.num_parameters,))
        network.check_array("x", x, (len(x), network.n_inputs))
        network.check_array("y", y, (len(x), network.n_outputs))
        if not 1 <= batch_size <= len(x):
            raise ValueError(
                f"batch_size is {batch_size}; it must be between 1 and the {len(x)} training rows"
            )
        self.network, self.parameters, self.optimizer = network, parameters, optimizer
        self.steps = 0
        self._x, self._y = x, y
        self._shuffle = shuffle
        self._penalty = penalty_factors(l1, l2, np.ones(network.depth))
        self._work = network.workspace(batch_size)
        self._scratch = Scratch(network, batch_size)
        self._slots = aligned_zeros((2, network.num_parameters), network.dtype)

    def run_epoch(self) -> StepMoments:
        """Train on every row once, in a new random order."""
        return self.run(self._shuffle.permutation(len(self._x)))

    def run(self, rows: np.ndarray) -> StepMoments:
        """Train on these rows, in their order; the last batch may be smaller.

        Parameters
        ----------
        rows : (n,) int64, row numbers.
        """
        rows = checked_rows(rows, len(self._x))
        columns = np.empty(step_columns(rows.size, self._work.batch_size, self.network.depth))
        self.steps = moments.train_epoch_with_moments(
            *(np.zeros((1, epoch.N_SUMS)), columns, self.parameters, self._slots, self._work),
            *(self.network.topology, self.optimizer, self._x[None], self._y[None]),
            *(rows[None], self.steps, *self._penalty),
            *(False, False, self._scratch.rows, self._scratch.row, self._scratch.partial),
        )
        return StepMoments.of_columns(columns, rows.size, self._work.batch_size)


def step_columns(n_rows: int, batch_size: int, depth: int) -> tuple[int, int]:
    """Shape of what `train_epoch_with_moments` writes of an epoch of so many rows."""
    return -(-n_rows // batch_size), moments.N_STEP_COLUMNS + 2 * depth
