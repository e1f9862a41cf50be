"""The Hessian of a loss at one point, exactly, as a product with any direction.

Differentiating the forward and the backward pass along a direction v gives H v at the price of two
gradients (the R-operator: R{f}(w) = d f(w + r v) / dr at r = 0). Every line below is the derivative
of one line of `reference.forward` or `reference.backward`, in their order. Names: rz is R{z}.

All is float64, whatever the network's dtype: a spectrum tells little in seven digits. Arrays stand
with units as rows and examples as columns, (width, n), as the losses have them.

Source: Pearlmutter 1994, *Fast exact multiplication by the Hessian*, Neural Computation 6(1).
"""

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.network import Network, check_penalty


class Hessian:
    """Loss, gradient and curvature of a network at one point, of the mean over some examples.

    Under relu the Hessian is that of the pieces, as everywhere in the field: kinks count nothing.

    Parameters
    ----------
    network : any; its dtype plays no part.
    parameters : (P,).
    x, y : (n, n_inputs) and (n, n_outputs). Targets of a classification must sum to 1 in every row.
    l2 : factor of the weight penalty, which belongs to loss, gradient and curvature.

    Raises
    ------
    ValueError
        If an array does not fit the network, or the factor is negative or not finite.

    Some five numbers of 8 bytes are kept for every unit and example, inputs included.
    """

    def __init__(
        self,
        network: Network,
        parameters: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        *,
        l2: float = 0.0,
    ) -> None:
        check_penalty(0.0, l2)
        for name, array, shape in (
            ("parameters", parameters, (network.num_parameters,)),
            ("x", x, (max(len(x), 1), network.n_inputs)),
            ("y", y, (max(len(x), 1), network.n_outputs)),
        ):
            if array.shape != shape:
                raise ValueError(
                    f"{name} has shape {array.shape}; the network and {len(x)} rows need {shape}"
                )
        self.network, self.n = network, len(x)
        self._l2 = float(l2)
        self._parameters = parameters.astype(np.float64)
        self._w = [network.weights(self._parameters, layer) for layer in range(network.depth)]
        self._forward(np.array(x.T, np.float64, order="C"), np.array(y.T, np.float64, order="C"))
        self._backward()

    def _forward(self, x: np.ndarray, y: np.ndarray) -> None:
        """Keep inputs of the layers, first derivatives f'(z), second ones, outputs and losses."""
        network, code = self.network, self.network.topology.activation
        self._inputs, self._slopes, self._bends = [x], [], []
        for layer, w in enumerate(self._w):
            below = self._inputs[layer]
            z = w.T @ below + network.biases(self._parameters, layer)[:, None]
            if layer == network.depth - 1:
                break
            a, slope = np.maximum(z, 0), np.empty_like(z)
            if code != epoch.RELU:
                epoch.activation_forward(code, a.ravel(), z.ravel())
            ones = np.ones(z.size)
            epoch.activation_backward(code, slope.ravel(), ones, z.ravel(), a.ravel())
            self._slopes.append(slope)
            self._bends.append(_second_derivative(code, z, a))
            self._inputs.append(a + below if network.skip[layer] else a)
        p, losses = np.empty((1, *z.shape)), np.empty((1, self.n))
        loss = network.topology.loss
        epoch.loss_forward(loss, p, losses, z[None], y[None], np.empty((4, self.n)))
        dz = np.empty_like(p)
        epoch.loss_backward(loss, dz, p, y[None], self.n)
        self._p, self._y, self._dz = p[0], y, [dz[0]]
        penalty = self._l2 * sum(float(np.sum(w**2)) for w in self._w)
        self.loss = float(losses.mean()) + penalty

    def _backward(self) -> None:
        """Keep dz of every layer, and dh f''(z) of the hidden ones."""
        dh = self._dz[0]
        for layer in range(self.network.depth - 1, 0, -1):
            dx = self._w[layer] @ self._dz[0]
            dh = dx + dh if self.network.skip[layer] else dx
            self._dz.insert(0, dh * self._slopes[layer - 1])
            if self._bends[layer - 1] is not None:
                self._bends[layer - 1] *= dh

    @property
    def gradient(self) -> np.ndarray:
        """Gradient (P,) of the loss, penalty included."""
        gradient = self.weighted_gradient(np.full(self.n, 1 / self.n))
        self._add_penalty(gradient, self._parameters)
        return gradient

    def weighted_gradient(self, weights: np.ndarray) -> np.ndarray:
        """Σ_i weights_i g_i (P,) of the gradients of the rows' own losses, without the penalty.

        A one among zeros gives the gradient of an example; random signs give a direction whose
        covariance is that of the gradients.

        Parameters
        ----------
        weights : (n,).
        """
        if np.shape(weights) != (self.n,):
            raise ValueError(f"weights have shape {np.shape(weights)}; there are {self.n} rows")
        total = np.empty(self.network.num_parameters)
        for layer, dz in enumerate(self._dz):
            weighted = dz * (np.asarray(weights) * self.n)  # dz is that of the mean loss
            self.network.weights(total, layer)[:] = self._inputs[layer] @ weighted.T
            self.network.biases(total, layer)[:] = weighted.sum(axis=1)
        return total

    def product(self, direction: np.ndarray) -> np.ndarray:
        """Hessian times a direction, both (P,).

        Raises
        ------
        ValueError
            If the direction has another shape than the parameters.
        """
        network = self.network
        if np.shape(direction) != (network.num_parameters,):
            raise ValueError(
                f"direction has shape {np.shape(direction)}; there are {network.num_parameters} "
                "parameters"
            )
        direction = np.ascontiguousarray(direction, np.float64)
        v = [network.weights(direction, layer) for layer in range(network.depth)]
        rz, rh = [], [None]  # x does not depend on the parameters
        for layer, w in enumerate(self._w):
            moved = v[layer].T @ self._inputs[layer]
            moved += network.biases(direction, layer)[:, None]
            if rh[layer] is not None:
                moved += w.T @ rh[layer]
            rz.append(moved)
            if layer < network.depth - 1:
                ra = self._slopes[layer] * moved
                is_skipped = network.skip[layer] and rh[layer] is not None
                rh.append(ra + rh[layer] if is_skipped else ra)
        product = np.empty(network.num_parameters)
        rdz = rdh = self._output_product(rz[-1])
        for layer in range(network.depth - 1, -1, -1):
            dz = self._dz[layer]
            dw = self._inputs[layer] @ rdz.T
            if rh[layer] is not None:
                dw += rh[layer] @ dz.T
            network.weights(product, layer)[:] = dw
            network.biases(product, layer)[:] = rdz.sum(axis=1)
            if layer > 0:
                rdx = self._w[layer] @ rdz + v[layer] @ dz
                rdh = rdx + rdh if network.skip[layer] else rdx
                rdz = rdh * self._slopes[layer - 1]
                if self._bends[layer - 1] is not None:
                    rdz += self._bends[layer - 1] * rz[layer - 1]
        self._add_penalty(product, direction)
        return product

    def _output_product(self, rz: np.ndarray) -> np.ndarray:
        """R{dz} of the output layer: how the gradient of the loss moves with the logits."""
        p, loss = self._p, self.network.topology.loss
        if loss == epoch.SOFTMAX_CROSS_ENTROPY:
            return p * (rz - np.sum(p * rz, axis=0)) / self.n
        slope = p * (1 - p)
        if loss == epoch.SIGMOID_BINARY_CROSS_ENTROPY:
            return slope * rz / p.size
        bend = 2 * (slope + (p - self._y) * (1 - 2 * p))
        return bend * slope * rz / p.size

    def _add_penalty(self, vector: np.ndarray, point: np.ndarray) -> None:
        """vector += 2 l2 point, on the weights."""
        if self._l2 != 0:
            for layer in range(self.network.depth):
                w = self.network.weights(point, layer)
                self.network.weights(vector, layer)[:] += 2 * self._l2 * w


def _second_derivative(code: int, z: np.ndarray, a: np.ndarray) -> np.ndarray | None:
    """f''(z), with a = f(z); None for relu, where it is 0."""
    if code == epoch.RELU:
        return None
    if code == epoch.TANH:
        return -2 * a * (1 - a * a)
    if code == epoch.SIGMOID:
        return a * (1 - a) * (1 - 2 * a)
    if code == epoch.SWISH:
        gate = (1 + np.tanh(z / 2)) / 2
        return gate * (1 - gate) * (2 + z * (1 - 2 * gate))
    return np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (2 - z * z)
