"""Output units with their losses: logits in, probabilities and loss out, and the gradient back.

BUTTER pairs them by task: regression is a sigmoid with the mean squared error (targets are scaled
to [0, 1]), binary classification a sigmoid with binary cross-entropy, classification a softmax with
categorical cross-entropy. Output unit and loss stand together because together they are simpler and
safer than apart: the cross-entropies need no logarithm of a probability that has rounded to 0.

Legend: z (n, width) logits, p (n, width) outputs, y (n, width) targets, one-hot or in [0, 1].
A forward returns the *sum* over rows of the row's loss, in float64; a row's loss is the mean over
outputs for MSE and binary cross-entropy and the sum over classes for categorical cross-entropy, as
in Keras. A backward gives the gradient of the *mean* over the rows of the batch.
"""

import math

import numpy as np

from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.layers import logistic


@kernel
def sigmoid_mse_forward(p, z, y):
    """p = σ(z), row loss = mean_k (p_k - y_k)².

    Writes: p (n, width). Reads: z, y (n, width).
    """
    n, width = z.shape
    one = z.dtype.type(1)
    total = 0.0
    for i in range(n):
        row = 0.0
        for k in range(width):
            p[i, k] = logistic(z[i, k], one)
            row += np.float64(p[i, k] - y[i, k]) ** 2
        total += row / width
    return total


@kernel
def sigmoid_mse_backward(dz, p, y):
    """dz = 2 (p - y) p (1 - p) / (width n).

    Writes: dz (n, width). Reads: p, y (n, width).
    """
    n, width = p.shape
    one = p.dtype.type(1)
    scale = p.dtype.type(2 / (width * n))
    for i in range(n):
        for k in range(width):
            dz[i, k] = scale * (p[i, k] - y[i, k]) * p[i, k] * (one - p[i, k])


@kernel
def sigmoid_binary_cross_entropy_forward(p, z, y):
    """p = σ(z), row loss = mean_k -y log p - (1 - y) log(1 - p).

    From the logits: max(z, 0) - z y + log(1 + e^-|z|), which is exact where p rounds to 0 or 1.
    Writes: p (n, width). Reads: z, y (n, width).
    """
    n, width = z.shape
    one = z.dtype.type(1)
    total = 0.0
    for i in range(n):
        row = 0.0
        for k in range(width):
            p[i, k] = logistic(z[i, k], one)
            z_ik = np.float64(z[i, k])
            positive_part = z_ik if not (z_ik <= 0) else 0.0
            row += positive_part - z_ik * y[i, k] + math.log1p(math.exp(-abs(z_ik)))
        total += row / width
    return total


@kernel
def sigmoid_binary_cross_entropy_backward(dz, p, y):
    """dz = (p - y) / (width n): the derivative of σ cancels against that of the logarithm.

    Writes: dz (n, width). Reads: p, y (n, width).
    """
    n, width = p.shape
    scale = p.dtype.type(1 / (width * n))
    for i in range(n):
        for k in range(width):
            dz[i, k] = scale * (p[i, k] - y[i, k])


@kernel
def softmax_cross_entropy_forward(p, z, y):
    """p = e^z / Σ e^z, row loss = -Σ_k y_k log p_k.

    Subtracting the row's largest logit first changes nothing in exact arithmetic and keeps the
    exponentials at most 1; log p_k is then z_k - max - log Σ, without going through p_k.
    Writes: p (n, width). Reads: z, y (n, width).
    """
    n, width = z.shape
    total = 0.0
    for i in range(n):
        largest = z[i, 0]
        for k in range(1, width):
            if z[i, k] > largest:
                largest = z[i, k]
        normaliser = z.dtype.type(0)
        for k in range(width):
            p[i, k] = math.exp(z[i, k] - largest)
            normaliser += p[i, k]
        log_normaliser = math.log(np.float64(normaliser))
        row = 0.0
        for k in range(width):
            p[i, k] /= normaliser
            # 0 times an infinite log p is 0 here: only classes with y > 0 count.
            if y[i, k] != 0:
                row += y[i, k] * (log_normaliser - np.float64(z[i, k] - largest))
        total += row
    return total


@kernel
def softmax_cross_entropy_backward(dz, p, y):
    """dz = (p - y) / n, for targets that sum to 1.

    Writes: dz (n, width). Reads: p, y (n, width).
    """
    n, width = p.shape
    scale = p.dtype.type(1 / n)
    for i in range(n):
        for k in range(width):
            dz[i, k] = scale * (p[i, k] - y[i, k])


# ---------------------------------------------------------------------------------------------
# Weight penalty (Keras' kernel_regularizer: weights of every layer, no biases, no factor 1/2)


@kernel
def penalty_forward(w, l1, l2):
    """l1 Σ|w| + l2 Σ w², returned in float64.

    Reads: w (size,).
    """
    absolute, square = 0.0, 0.0
    for j in range(w.size):
        w_j = np.float64(w[j])
        absolute += abs(w_j)
        square += w_j * w_j
    return l1 * absolute + l2 * square


@kernel
def penalty_backward(dw, w, l1, l2):
    """dw += l1 sign(w) + 2 l2 w, with sign(0) = 0.

    Updates: dw (size,). Reads: w (size,).
    """
    zero = w.dtype.type(0)
    l1_step, l2_step = w.dtype.type(l1), w.dtype.type(2 * l2)
    for j in range(w.size):
        sign_step = l1_step if w[j] > zero else (-l1_step if w[j] < zero else zero)
        dw[j] += sign_step + l2_step * w[j]
