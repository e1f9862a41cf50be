"""Output units with their losses: logits in, probabilities and loss out, and the gradient back.

BUTTER pairs them by task: regression is a sigmoid with the mean squared error (targets are scaled
to [0, 1]), binary classification a sigmoid with binary cross-entropy, classification a softmax with
categorical cross-entropy. Output unit and loss stand together because together they are simpler and
safer than apart: the cross-entropies need no logarithm of a probability that has rounded to 0.

Arrays have the layout of lanes, (blocks, width, lanes): logits z, outputs p, targets y (one-hot or
in [0, 1]). Each pair (block, lane) is one row of `width` numbers; neighbours in memory belong to
neighbouring rows, so that every loop over lanes becomes vector code although a row is summed one
output after the other, from k = 0. One run hands its batch of n rows over as (1, width, n); L
repetitions as (n, width, L) or, for longer loops, (1, width, n L). The bits of a row are the same.

A forward writes the outputs and each row's loss: the mean over outputs for MSE and binary
cross-entropy, the sum over classes for categorical cross-entropy, as in Keras. A backward gives
the gradient of the *mean* over the n rows of a batch. All arithmetic is in the arrays' type.
"""

import numpy as np

from minibutter.nn.kernels.elementary import exp, log, log1p
from minibutter.nn.kernels.jit import kernel
from minibutter.nn.kernels.layers import logistic


@kernel
def sigmoid_mse_forward(p, row_losses, z, y):
    """p = σ(z), row loss = mean_k (p_k - y_k)².

    Writes: p (blocks, width, lanes), row_losses (blocks, lanes). Reads: z, y (as p).
    """
    blocks, width, lanes = z.shape
    one, zero, terms = z.dtype.type(1), z.dtype.type(0), z.dtype.type(width)
    for block in range(blocks):
        for lane in range(lanes):
            row_losses[block, lane] = zero
        for k in range(width):
            for lane in range(lanes):
                p_k = logistic(z[block, k, lane], one)
                error = p_k - y[block, k, lane]
                p[block, k, lane] = p_k
                row_losses[block, lane] += error * error
        for lane in range(lanes):
            row_losses[block, lane] /= terms


@kernel
def sigmoid_mse_backward(dz, p, y, n):
    """dz = 2 (p - y) p (1 - p) / (width n).

    Writes: dz (blocks, width, lanes). Reads: p, y (as dz), n: rows of the batch.
    """
    blocks, width, lanes = p.shape
    one = p.dtype.type(1)
    scale = p.dtype.type(2 / (width * n))
    for block in range(blocks):
        for k in range(width):
            for lane in range(lanes):
                p_k = p[block, k, lane]
                dz[block, k, lane] = scale * (p_k - y[block, k, lane]) * p_k * (one - p_k)


@kernel
def sigmoid_binary_cross_entropy_forward(p, row_losses, z, y):
    """p = σ(z), row loss = mean_k -y log p - (1 - y) log(1 - p).

    From the logits: max(z, 0) - z y + log(1 + e^-|z|), which is exact where p rounds to 0 or 1.
    Writes: p (blocks, width, lanes), row_losses (blocks, lanes). Reads: z, y (as p).
    """
    blocks, width, lanes = z.shape
    one, zero, terms = z.dtype.type(1), z.dtype.type(0), z.dtype.type(width)
    for block in range(blocks):
        for lane in range(lanes):
            row_losses[block, lane] = zero
        for k in range(width):
            for lane in range(lanes):
                z_k = z[block, k, lane]
                y_k = y[block, k, lane]
                p[block, k, lane] = logistic(z_k, one)
                positive_part = zero if z_k <= zero else z_k
                row_losses[block, lane] += positive_part - z_k * y_k + log1p(exp(-abs(z_k)))
        for lane in range(lanes):
            row_losses[block, lane] /= terms


@kernel
def sigmoid_binary_cross_entropy_backward(dz, p, y, n):
    """dz = (p - y) / (width n): the derivative of σ cancels against that of the logarithm.

    Writes: dz (blocks, width, lanes). Reads: p, y (as dz), n: rows of the batch.
    """
    _scaled_difference(dz, p, y, p.dtype.type(1 / (p.shape[1] * n)))


@kernel
def softmax_cross_entropy_forward(p, row_losses, z, y, scratch):
    """p = e^z / Σ e^z, row loss = -Σ_k y_k log p_k.

    Subtracting the row's largest logit first changes nothing in exact arithmetic and keeps the
    exponentials at most 1; log p_k is then z_k - max - log Σ, without going through p_k.
    Writes: p (blocks, width, lanes), row_losses (blocks, lanes), scratch (>= 3, lanes).
    Reads: z, y (as p).
    """
    blocks, width, lanes = z.shape
    zero = z.dtype.type(0)
    largest, normaliser, log_normaliser = scratch[0], scratch[1], scratch[2]
    for block in range(blocks):
        for lane in range(lanes):
            largest[lane] = z[block, 0, lane]
            normaliser[lane] = zero
            row_losses[block, lane] = zero
        for k in range(1, width):
            for lane in range(lanes):
                # Without "+ 0" the compiler would store only where z is larger, lane by lane.
                z_k, before = z[block, k, lane], largest[lane] + zero
                largest[lane] = z_k if z_k > before else before
        for k in range(width):
            for lane in range(lanes):
                grown = exp(z[block, k, lane] - largest[lane])
                p[block, k, lane] = grown
                normaliser[lane] += grown
        for lane in range(lanes):
            log_normaliser[lane] = log(normaliser[lane])
        for k in range(width):
            for lane in range(lanes):
                p[block, k, lane] /= normaliser[lane]
            for lane in range(lanes):
                y_k = y[block, k, lane]
                cost = y_k * (log_normaliser[lane] - (z[block, k, lane] - largest[lane]))
                # 0 times an infinite log p is 0 here: only classes with y > 0 count.
                row_losses[block, lane] += cost if y_k != zero else zero


@kernel
def softmax_cross_entropy_backward(dz, p, y, n):
    """dz = (p - y) / n, for targets that sum to 1.

    Writes: dz (blocks, width, lanes). Reads: p, y (as dz), n: rows of the batch.
    """
    _scaled_difference(dz, p, y, p.dtype.type(1 / n))


@kernel
def _scaled_difference(dz, p, y, scale):
    """dz = scale (p - y)."""
    blocks, width, lanes = p.shape
    for block in range(blocks):
        for k in range(width):
            for lane in range(lanes):
                dz[block, k, lane] = scale * (p[block, k, lane] - y[block, k, lane])


# ---------------------------------------------------------------------------------------------
# Weight penalty (Keras' kernel_regularizer: weights of every layer, no biases, no factor 1/2)


@kernel
def penalty_forward(totals, w, l1, l2):
    """total += l1 Σ|w| + l2 Σ w², for every repetition by itself.

    Updates: totals (R,) float64. Reads: w (size, R).
    """
    size, repetitions = w.shape
    for r in range(repetitions):
        absolute, square = 0.0, 0.0
        for j in range(size):
            w_j = np.float64(w[j, r])
            absolute += abs(w_j)
            square += w_j * w_j
        totals[r] += l1 * absolute + l2 * square


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
