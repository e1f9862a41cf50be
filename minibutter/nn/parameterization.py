"""Parameterizations: how first weights and learning rates of a layer follow from its widths.

A layer computes z = (m V) x + μ c with trained V and c and constant multipliers m and μ, V starts
from a Gaussian, and V and c have learning rates of their own: abc-parameterizations (Yang & Hu,
arXiv:2011.14522, section 3). The kernels know nothing of it. They train W = m V and b = μ c, for
which the multipliers are folded into constants of the optimizer and the penalty: since dL/dV =
m dL/dW, the same function is reached step by step if on W

* SGD, with any momentum, has learning rate η m²;
* Adam has η m and ε / m: its mean scales with m as √v does, and ε is added to √v;
* RMSprop has η m and ε / m², because its ε stands inside the root;
* the penalty is l1 / m on |W| and l2 / m² on W²: l1 and l2 themselves are on V.

The checks of `tests/nn/test_parameterization.py` train both sides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibutter.nn.kernels import epoch
from minibutter.nn.kernels.layout import aligned_zeros
from minibutter.nn.network import Network

PARAMETERIZATIONS: tuple[str, ...] = ("standard", "ntk", "mup")

GAUSSIAN = "gaussian"
"""The initializer of parameterizations, beside the uniform ones of `network.INITIALIZERS`."""


@dataclass(frozen=True)
class Scales:
    """Of a layer's V, or of its c.

    Attributes
    ----------
    std : of the Gaussian that the numbers are drawn from; 0: they start at zero.
    multiplier : m of the effective m V; positive, of biases also 0, which are then none.
    rate : learning rate over the optimizer's.
    """

    std: float
    multiplier: float = 1.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        for name in ("std", "multiplier", "rate"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be at least 0 and finite")


@dataclass(frozen=True)
class Parameterization:
    """Scales of every layer, the output layer last.

    Attributes
    ----------
    weights, biases : one entry a layer.
    """

    weights: tuple[Scales, ...]
    biases: tuple[Scales, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.biases):
            raise ValueError(
                f"scales for the weights of {len(self.weights)} layers, and for the biases of "
                f"{len(self.biases)}; every layer needs both"
            )
        for layer, scales in enumerate(self.weights):
            if scales.multiplier == 0:
                raise ValueError(f"the multiplier of the weights of layer {layer} is 0")

    def initial_parameters(self, network: Network, rng: np.random.Generator) -> np.ndarray:
        """Draw effective weights, and biases if they have a std, layer by layer.

        Returns
        -------
        ndarray of shape (num_parameters,), of the network's dtype; the draws are float64, so that
        both dtypes start from the same.
        """
        self.check_depth(network)
        parameters = aligned_zeros(network.num_parameters, network.dtype)
        for layer, (weights, biases) in enumerate(zip(self.weights, self.biases, strict=True)):
            parts = (network.weights(parameters, layer), network.biases(parameters, layer))
            for part, scales in zip(parts, (weights, biases), strict=True):
                if scales.std > 0:
                    part[...] = scales.multiplier * scales.std * rng.standard_normal(part.shape)
        return parameters

    def fold_into(self, optimizer: epoch.Optimizer, network: Network) -> epoch.Optimizer:
        """The optimizer of the effective parameters; the same one where nothing is scaled."""
        self.check_depth(network)
        is_sgd = optimizer.rule in (epoch.SGD, epoch.TORCH_SGD)
        stop, rate, epsilon = [], [], []
        for layer, pair in enumerate(zip(self.weights, self.biases, strict=True)):
            start = network.topology.weight_start[layer]
            size = network.topology.fan_in[layer] * network.widths[layer]
            stop += [start + size, start + size + network.widths[layer]]
            for scales in pair:
                m = scales.multiplier
                rate.append(scales.rate * (m * m if is_sgd else m))
                power = 2 if optimizer.rule == epoch.RMSPROP else 1
                epsilon.append(m**-power if m > 0 else 1.0)
        if is_sgd:
            epsilon = [1.0] * len(epsilon)
        if set(rate) | set(epsilon) == {1.0}:
            return optimizer
        return optimizer._replace(
            part_stop=np.array(stop, np.int64),
            part_rate=np.array(rate, np.float64),
            part_epsilon=np.array(epsilon, np.float64),
        )

    @property
    def multipliers(self) -> np.ndarray:
        """Of the weights of every layer: float64 of shape (depth,)."""
        return np.array([scales.multiplier for scales in self.weights], np.float64)

    def check_depth(self, network: Network) -> None:
        """Raise ValueError for a network of another depth."""
        if len(self.weights) != network.depth:
            raise ValueError(
                f"scales for {len(self.weights)} layers; the network has {network.depth}"
            )


def standard(n_inputs: int, widths: Sequence[int], sigma0: float = 1.0) -> Parameterization:
    """z = W x + b: W from N(0, σ₀² / fan_in), b from zero, one learning rate for all."""
    fans_in = (n_inputs, *widths[:-1])
    return Parameterization(
        weights=tuple(Scales(sigma0 / math.sqrt(fan_in)) for fan_in in fans_in),
        biases=(Scales(0.0),) * len(widths),
    )


def ntk(
    n_inputs: int, widths: Sequence[int], sigma0: float = 1.0, bias_multiplier: float = 1.0
) -> Parameterization:
    """z = σ₀ / √fan_in V x + β c: V from N(0, 1), c from zero, one learning rate for all.

    That of the neural tangent kernel: Jacot, Gabriel & Hongler 2018 (arXiv:1806.07572, section 2),
    whose σ₀ is 1 and whose biases start from a Gaussian. With the standard parameterization's
    learning rate of each layer at η σ₀² / fan_in it is the same training by SGD.

    Parameters
    ----------
    bias_multiplier : β.
    """
    fans_in = (n_inputs, *widths[:-1])
    return Parameterization(
        weights=tuple(Scales(1.0, sigma0 / math.sqrt(fan_in)) for fan_in in fans_in),
        biases=(Scales(0.0, bias_multiplier),) * len(widths),
    )


def mup(
    n_inputs: int, widths: Sequence[int], base_width: int, is_sgd: bool, sigma0: float = 1.0
) -> Parameterization:
    """Maximal update parametrization: equal to `standard` where all hidden layers are `base_width`.

    With r = width / base_width of a hidden layer, and 1 for inputs and outputs, which do not grow:

    ======  ===============  ==========  =================  ==================
    layer   std of V         multiplier  rate, SGD          rate, Adam, RMSprop
    ======  ===============  ==========  =================  ==================
    input   σ₀ / √n_inputs   1           r_out              1
    hidden  σ₀ / √fan_in     1           r_out / r_in       1 / r_in
    output  σ₀ / √base       1 / r_in    r_in               1
    biases  0                1           r_out              1
    ======  ===============  ==========  =================  ==================

    Source: Yang et al. 2022, Tensor Programs V (arXiv:2203.03466), table 8, with the width of a
    base as in the authors' package `mup` (`MuSGD`, `MuAdam`, `MuReadout`). Unlike there, l2 is not
    scaled along with the learning rates.

    Parameters
    ----------
    base_width : hidden width at which nothing changes.
    is_sgd : whether for SGD; else for a rule that divides by the size of each gradient.

    Raises
    ------
    ValueError
        For a base width below 1.
    """
    if base_width < 1:
        raise ValueError(f"base_width is {base_width}; it must be at least 1")
    fans_in = (n_inputs, *widths[:-1])
    ratios = (1.0, *(width / base_width for width in widths[:-1]), 1.0)
    last = len(widths) - 1
    weights, biases = [], []
    for layer, fan_in in enumerate(fans_in):
        r_in, r_out = ratios[layer], ratios[layer + 1]
        if layer == last:
            scales = Scales(sigma0 / math.sqrt(base_width), 1 / r_in, r_in if is_sgd else 1.0)
        else:
            scales = Scales(sigma0 / math.sqrt(fan_in), 1.0, r_out / r_in if is_sgd else 1 / r_in)
        weights.append(scales)
        biases.append(Scales(0.0, 1.0, r_out if is_sgd else 1.0))
    return Parameterization(tuple(weights), tuple(biases))


def make_parameterization(
    name: str,
    network: Network,
    rule: str,
    sigma0: float = 1.0,
    bias_multiplier: float = 1.0,
    base_width: int | None = None,
) -> Parameterization:
    """One of `PARAMETERIZATIONS` for a network and an update rule (a key of `OPTIMIZERS`).

    Raises
    ------
    ValueError
        For an unknown name, or mup without a base width or with an impossible one.
    """
    shape = network.n_inputs, network.widths
    if name == "standard":
        return standard(*shape, sigma0)
    if name == "ntk":
        return ntk(*shape, sigma0, bias_multiplier)
    if name != "mup":
        raise ValueError(
            f"parameterization is {name!r}; it must be one of {', '.join(PARAMETERIZATIONS)}"
        )
    if base_width is None:
        raise ValueError("mup needs base_width: the hidden width at which nothing changes")
    return mup(*shape, base_width, rule == "sgd", sigma0)
