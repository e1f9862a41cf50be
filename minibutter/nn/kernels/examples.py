"""What single examples contribute to a gradient, from what the backward pass has at hand.

The gradient of a dense layer for one example is the outer product of its input (with the constant
unit for the bias) and dz, so its squared norm is the product of two squared norms and the gradient
itself need not be formed (Goodfellow 2015, arXiv:1510.01799).
"""

import numpy as np

from minibutter.nn.kernels.arena import layer_output, work_half
from minibutter.nn.kernels.epoch import backward_input, output_gradient
from minibutter.nn.kernels.jit import kernel


@kernel
def add_squared_norms(squares, x, dz):
    """squares += Σ_j x_j² Σ_k dz_k², for the row in every lane.

    Updates: squares (blocks, lanes) float64. Reads: x (blocks, fan_in + 1, lanes), dz (blocks,
    fan_out, lanes).
    """
    blocks, fan_out, lanes = dz.shape
    for q in range(blocks):
        for lane in range(lanes):
            of_x, of_dz = 0.0, 0.0
            for j in range(x.shape[1]):
                of_x += np.float64(x[q, j, lane]) ** 2
            for k in range(fan_out):
                of_dz += np.float64(dz[q, k, lane]) ** 2
            squares[q, lane] += of_x * of_dz


@kernel
def example_squared_norms(squares, topology, parameters, work, blocks):
    """Squared norm of the gradient of every row's own loss; `forward` has run, in a single run.

    Writes: squares (blocks, LANES) float64; lanes without a row have no meaning.
    """
    squares[:] = 0
    last = topology.fan_out.size - 1
    dz = output_gradient(topology, work, blocks, 1)  # the mean over one row is the row's own loss
    for layer in range(last, 0, -1):
        add_squared_norms(squares, layer_output(topology, work, layer - 1, blocks), dz)
        backward_input(topology, parameters, work, layer, dz)
        width = topology.fan_out[layer - 1]
        dz = work_half(work.dz, layer - 1, blocks, width, work.x.shape[2])
    add_squared_norms(squares, work.x[:blocks], dz)
