"""Optimizers: one kernel each, one pass over the flat parameter vector.

Constants and formulas are those of Keras (TensorFlow 2), because BUTTER was trained with them.
Two differences to the textbook, and to PyTorch, matter: Adam's epsilon is "epsilon hat" (Kingma &
Ba 2015, the remark before section 2.1), added to √v before bias correction; RMSprop's stands inside
the root. Keras before TensorFlow 2.11 put it outside the root when the momentum was 0.

SGD with momentum comes in two forms. Keras' buffer holds steps, the learning rate among them;
PyTorch's holds gradients, and the learning rate multiplies what comes out. They are the same rule
while the learning rate stands still, but round differently, and only PyTorch's has an update
direction of its own, which Nesterov's variant and the perturbation are written in.

Legend: w (P,) parameters, updated in place; dw (P,) gradient; the slots are the optimizer's memory,
(P,) each and zero at the start. Scalars arrive as float64 and are rounded to the parameters' type.
"""

import math

from minibutter.nn.kernels.jit import kernel


@kernel
def sgd_update(w, momentum_slot, dw, learning_rate, momentum):
    """v = μ v - η dw,  w += v  (Keras' form; μ = 0: plain gradient descent).

    Updates: w, momentum_slot. Reads: dw.
    """
    eta, mu = w.dtype.type(learning_rate), w.dtype.type(momentum)
    for j in range(w.size):
        v = mu * momentum_slot[j] - eta * dw[j]
        momentum_slot[j] = v
        w[j] += v


@kernel
def torch_sgd_update(w, momentum_slot, dw, learning_rate, momentum, is_nesterov, perturbation):
    """v = μ v + dw,  d = dw + μ v (Nesterov) or v,  w -= (k η) (d / k)  (PyTorch's form).

    In real numbers k cancels. In floating point it changes the rounding of the step and nothing
    else, the buffer neither; where k is a power of two not even that, as long as d / k is not
    subnormal. Compiled without fast-math, neither k is folded away nor the subtraction fused. As in
    PyTorch k η is a product of doubles, rounded once. Sun et al., NeurIPS 2022 (arXiv:2206.02001)
    make the error of finite precision visible by it.

    Updates: w, momentum_slot. Reads: dw, perturbation: k, a whole number.
    """
    eta, mu = w.dtype.type(perturbation * learning_rate), w.dtype.type(momentum)
    k = w.dtype.type(perturbation)
    for j in range(w.size):
        v = mu * momentum_slot[j] + dw[j]
        momentum_slot[j] = v
        d = dw[j] + mu * v if is_nesterov else v
        w[j] -= eta * (d / k)


@kernel
def rmsprop_update(w, square_slot, momentum_slot, dw, learning_rate, momentum, rho, epsilon):
    """s = ρ s + (1 - ρ) dw²,  v = μ v + η dw / √(s + ε),  w -= v  (not centred).

    Updates: w, square_slot, momentum_slot. Reads: dw.
    """
    eta, mu, eps = w.dtype.type(learning_rate), w.dtype.type(momentum), w.dtype.type(epsilon)
    keep, take = w.dtype.type(rho), w.dtype.type(1 - rho)
    for j in range(w.size):
        s = keep * square_slot[j] + take * dw[j] * dw[j]
        v = mu * momentum_slot[j] + eta * dw[j] / math.sqrt(s + eps)
        square_slot[j] = s
        momentum_slot[j] = v
        w[j] -= v


@kernel
def adam_update(w, mean_slot, square_slot, dw, step, learning_rate, beta_1, beta_2, epsilon):
    """m += (1 - β₁)(dw - m),  v += (1 - β₂)(dw² - v),  w -= η √(1 - β₂ᵗ)/(1 - β₁ᵗ) m / (√v + ε).

    Updates: w, mean_slot, square_slot. Reads: dw, step: t, 1 for the first update.
    """
    correction = math.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    eta, eps = w.dtype.type(learning_rate * correction), w.dtype.type(epsilon)
    take_1, take_2 = w.dtype.type(1 - beta_1), w.dtype.type(1 - beta_2)
    for j in range(w.size):
        m = mean_slot[j] + take_1 * (dw[j] - mean_slot[j])
        v = square_slot[j] + take_2 * (dw[j] * dw[j] - square_slot[j])
        mean_slot[j] = m
        square_slot[j] = v
        w[j] -= eta * m / (math.sqrt(v) + eps)
