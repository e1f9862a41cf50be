"""Gradients of any batch at any point, outside of training: what studies of the landscape ask for.

Training keeps its gradients to itself; here they are returned, as flat vectors (P,) like the
parameters, so that the effect of a perturbation is a few lines of NumPy. What single rows
contribute is in `moments`, products with the Hessian in `curvature`.
"""

import numpy as np

from minibutter.nn.kernels import arena, epoch
from minibutter.nn.kernels.jit import in_python
from minibutter.nn.kernels.metrics import LOSS, add_row_losses
from minibutter.nn.network import Network, penalty_factors


class BatchGradient:
    """Loss and gradients of a network on batches of up to `batch_size` rows.

    The bits are those of training: same kernels, same order of summation.

    Parameters
    ----------
    network : any.
    batch_size : rows of the largest batch; memory is taken once.
    l1, l2 : factors of the weight penalty, which belongs to loss and gradient.

    Targets of a classification must sum to 1 in every row: the gradient relies on it.
    """

    def __init__(
        self, network: Network, batch_size: int, *, l1: float = 0.0, l2: float = 0.0
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self.network = network
        self._work = network.workspace(batch_size)
        self._penalty = penalty_factors(l1, l2, np.ones(network.depth))

    def loss(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
        """Mean loss of the rows, and the penalty.

        Parameters
        ----------
        parameters : (P,).
        x, y : (n, n_inputs) and (n, n_outputs), n at most the batch size, of the network's dtype.
        """
        blocks = self._forward(parameters, x, y)
        topology = self.network.topology
        total = np.zeros((1, 1))
        row_losses = in_python(arena.output_rows)(self._work, blocks)[LOSS]
        add_row_losses(total, row_losses.reshape(-1, 1)[: len(x)])
        epoch.penalty(topology, parameters, self._work.penalties, *self._penalty)
        return float(total[0, 0] / len(x) + self._work.penalties[0])

    def outputs(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Outputs (n, n_outputs) behind the output unit, as softmax gives them; takes what `loss`
        takes, of which they do not depend on y."""
        blocks = self._forward(parameters, x, y)
        units = in_python(arena.output_units)(self.network.topology, self._work, arena.P, blocks)
        return units[0, :, : len(x)].T.copy()

    def gradient(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Gradient (P,) of `loss`; takes what `loss` takes."""
        blocks = self._forward(parameters, x, y)
        topology, work = self.network.topology, self._work
        epoch.backward(topology, parameters, work, blocks, len(x))
        epoch.add_penalty_gradient(topology, parameters, work.dw, *self._penalty)
        return work.dw.copy()

    def _forward(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> int:
        """Check, gather and run the batch; returns its blocks."""
        self._check(parameters, x, y)
        order = np.arange(len(x))[None]
        topology, work = self.network.topology, self._work
        blocks = in_python(arena.count_batch_blocks)(topology, work, len(x))
        arena.gather(topology, work, x[None], y[None], order, 0, len(x))
        epoch.forward(topology, parameters, work, blocks)
        return blocks

    def _check(self, parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        network = self.network
        if not 1 <= len(x) <= self._work.batch_size:
            raise ValueError(
                f"the batch has {len(x)} rows; there is memory for 1 to {self._work.batch_size}"
            )
        network.check_array("parameters", parameters, (network.num_parameters,))
        network.check_array("x", x, (len(x), network.n_inputs))
        network.check_array("y", y, (len(x), network.n_outputs))
