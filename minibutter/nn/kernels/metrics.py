"""The ten BUTTER metrics, measured row by row while the batch is still in the cache.

The same ten are recorded for every task, as in BUTTER, with Keras' definitions; for regression
`accuracy` compares the target with the rounded output and means little. A metric of an epoch is the
mean over its rows, except the root mean squared error, which is the root of the mean.

`row_metrics` measures every row, in the arrays' type and in the layout of lanes of `losses`;
`add_rows` adds the rows one by one, in float64; `finish_metrics` turns the sums of an epoch into
its values. Each loop over lanes is kept to few arrays: the compiler proves at run time that they
do not overlap, and gives up vectorising where that takes more than eight comparisons.

`squared_hinge` and `hinge` want targets -1 and 1. Keras maps 0 to -1 when all targets of a batch
are 0 or 1; here the caller decides once for the whole array (`is_binary`).

Source: Keras' metrics as used by BUTTER (TensorFlow 2): floors and clips at 1e-7, norms at 1e-12.
"""

import math

import numpy as np

from minibutter.nn.kernels.elementary import log, log1p
from minibutter.nn.kernels.jit import kernel

METRICS: tuple[str, ...] = (
    "loss",
    "accuracy",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "mean_squared_logarithmic_error",
    "hinge",
    "squared_hinge",
    "cosine_similarity",
    "kullback_leibler_divergence",
)
N_METRICS = len(METRICS)

LOSS = 0  # this slot of `rows` is what a loss writes: its row_losses
_LOSS, _ACCURACY, _MSE, _MAE, _RMSE, _MSLE, _HINGE, _SQUARED_HINGE, _COSINE, _KLD = range(10)

_EPSILON = 1e-7  # Keras' backend epsilon: the floor of logarithms
_SQUARED_NORM_FLOOR = 1e-12  # of Keras' l2_normalize


@kernel
def _floor(value, low):
    """max(value, low), except that NaN stays NaN."""
    return low if value < low else value


# ---------------------------------------------------------------------------------------------
# What output k of all rows of a block adds to their metrics. The arrays are handed over whole:
# views would be counted as references, which costs as much as a short loop.


@kernel
def _add_errors(rows, p, y, block, k):
    """Squared error += (y - p)²,  absolute error += |y - p|."""
    for lane in range(p.shape[2]):
        error = y[block, k, lane] - p[block, k, lane]
        rows[_MSE, block, lane] += error * error
        rows[_MAE, block, lane] += abs(error)


@kernel
def _add_hinges(rows, p, y, block, k, is_binary):
    """Hinge += max(1 - t p, 0), and its square, where t is y, or 2 y - 1 for binary targets."""
    zero, one = p.dtype.type(0), p.dtype.type(1)
    factor = p.dtype.type(2) if is_binary else one
    offset = one if is_binary else zero
    for lane in range(p.shape[2]):
        margin = _floor(one - (factor * y[block, k, lane] - offset) * p[block, k, lane], zero)
        rows[_HINGE, block, lane] += margin
        rows[_SQUARED_HINGE, block, lane] += margin * margin


@kernel
def _add_logarithmic_errors(rows, p, y, block, k):
    """MSLE += (log(1 + y) - log(1 + p))²,  KLD += y log(y / p), of floored and clipped numbers."""
    one, epsilon = p.dtype.type(1), p.dtype.type(_EPSILON)
    for lane in range(p.shape[2]):
        floored_p, floored_y = (
            _floor(p[block, k, lane], epsilon),
            _floor(y[block, k, lane], epsilon),
        )
        log_error = log1p(floored_y) - log1p(floored_p)
        rows[_MSLE, block, lane] += log_error * log_error
        clipped_p = one if floored_p > one else floored_p
        clipped_y = one if floored_y > one else floored_y
        rows[_KLD, block, lane] += clipped_y * (log(clipped_y) - log(clipped_p))


@kernel
def _add_logarithmic_errors_of_binary(rows, p, y, block, k):
    """As `_add_logarithmic_errors` for targets 0 and 1, whose logarithms are constants."""
    zero, one, epsilon = p.dtype.type(0), p.dtype.type(1), p.dtype.type(_EPSILON)
    log1p_of_0, log1p_of_1, log_of_0 = log1p(epsilon), log1p(one), log(epsilon)
    for lane in range(p.shape[2]):
        is_one = y[block, k, lane] == one
        floored_p = _floor(p[block, k, lane], epsilon)
        log_error = (log1p_of_1 if is_one else log1p_of_0) - log1p(floored_p)
        rows[_MSLE, block, lane] += log_error * log_error
        clipped_p = one if floored_p > one else floored_p
        log_ratio = (zero if is_one else log_of_0) - log(clipped_p)
        rows[_KLD, block, lane] += (one if is_one else epsilon) * log_ratio


@kernel
def _add_products(rows, norms, p, y, block, k):
    """Cosine += p y, and the squared norms: norms[0] += p², norms[1] += y²."""
    for lane in range(p.shape[2]):
        rows[_COSINE, block, lane] += p[block, k, lane] * y[block, k, lane]
    for lane in range(p.shape[2]):
        norms[0, lane] += p[block, k, lane] * p[block, k, lane]
        norms[1, lane] += y[block, k, lane] * y[block, k, lane]


@kernel
def _keep_largest(largest, slot, values, block, k):
    """Where values[k] > largest[slot], keep it, and k in largest[slot + 1].

    Of equal values the first stays. Positions are numbers of the arrays' type, which counts exactly
    far beyond any width.
    """
    zero, position = values.dtype.type(0), values.dtype.type(k)
    for lane in range(values.shape[2]):
        value = values[block, k, lane]
        # Without "+ 0" the compiler would store only where something changes, lane by lane.
        before, position_before = largest[slot, lane] + zero, largest[slot + 1, lane] + zero
        is_larger = value > before
        largest[slot, lane] = value if is_larger else before
        largest[slot + 1, lane] = position if is_larger else position_before


# ---------------------------------------------------------------------------------------------
# Rows


@kernel
def row_metrics(rows, p, y, is_binary, scratch):
    """The metrics of every row but its loss; `METRICS` names their order.

    Writes: rows (10, blocks, lanes) but rows[LOSS]; the slot of the root mean squared error is 0
    until `finish_metrics`. scratch (>= 4, lanes). Reads: p, y (blocks, width, lanes), is_binary:
    whether all targets of the data set are 0 or 1.
    """
    blocks, width, lanes = p.shape
    zero = p.dtype.type(0)
    for block in range(blocks):
        for m in range(_ACCURACY, N_METRICS):
            for lane in range(lanes):
                rows[m, block, lane] = zero
        for lane in range(lanes):
            scratch[0, lane] = zero
            scratch[1, lane] = zero
        for k in range(width):
            _add_errors(rows, p, y, block, k)
            _add_hinges(rows, p, y, block, k, is_binary)
            if is_binary:
                _add_logarithmic_errors_of_binary(rows, p, y, block, k)
            else:
                _add_logarithmic_errors(rows, p, y, block, k)
            _add_products(rows, scratch, p, y, block, k)
        _finish_rows(rows, scratch, block, width)
        # The scratch changes hands: norms are done with, and the largest entries are wanted.
        if width == 1:
            _measure_accuracy_of_one(rows, p, y, block)
        else:
            _measure_accuracy(rows, scratch, p, y, block)


@kernel
def _finish_rows(rows, norms, block, width):
    """Divide the sums over outputs by their number, and products by the roots of squared norms."""
    terms, floor = rows.dtype.type(width), rows.dtype.type(_SQUARED_NORM_FLOOR)
    for m in (_MSE, _MAE, _MSLE, _HINGE, _SQUARED_HINGE):
        for lane in range(rows.shape[2]):
            rows[m, block, lane] /= terms
    for lane in range(rows.shape[2]):
        squares = _floor(norms[0, lane], floor) * _floor(norms[1, lane], floor)
        rows[_COSINE, block, lane] /= math.sqrt(squares)


@kernel
def _measure_accuracy_of_one(rows, p, y, block):
    """Keras' accuracy of a single output: 1 where y is 1 and p > 1/2, or y is 0 and p <= 1/2."""
    zero, half, one = p.dtype.type(0), p.dtype.type(0.5), p.dtype.type(1)
    for lane in range(p.shape[2]):
        value = p[block, 0, lane]
        rounded = one if value > half else zero
        # value == value is false for NaN, which is never right.
        is_correct = (value == value) & (rounded == y[block, 0, lane])
        rows[_ACCURACY, block, lane] = one if is_correct else zero


@kernel
def _measure_accuracy(rows, scratch, p, y, block):
    """Keras' accuracy of several outputs: 1 where the largest of p and y are the same entry.

    Writes: rows[_ACCURACY, block], scratch (>= 4, lanes). Reads: rows[_MAE, block], p, y.
    """
    _, width, lanes = p.shape
    zero, one = p.dtype.type(0), p.dtype.type(1)
    for lane in range(lanes):
        scratch[0, lane] = p[block, 0, lane]
        scratch[1, lane] = zero
    for lane in range(lanes):
        scratch[2, lane] = y[block, 0, lane]
        scratch[3, lane] = zero
    for k in range(1, width):
        _keep_largest(scratch, 0, p, block, k)
        _keep_largest(scratch, 2, y, block, k)
    for lane in range(lanes):
        # The absolute error is NaN where an output is NaN; such a row is never right.
        error = rows[_MAE, block, lane]
        is_correct = (scratch[1, lane] == scratch[3, lane]) & (error == error)
        rows[_ACCURACY, block, lane] = one if is_correct else zero


# ---------------------------------------------------------------------------------------------
# Sums over rows


@kernel
def add_rows(sums, rows):
    """Add the rows of every repetition to its sums, one by one in their order.

    Updates: sums (L, 10) float64. Reads: rows (10, n, L). The ten sums of a repetition are ten
    variables side by side: each addition waits for the one before it, and not for the others.
    """
    _, n, repetitions = rows.shape
    for r in range(repetitions):
        loss, accuracy, mse, mae = sums[r, 0], sums[r, 1], sums[r, 2], sums[r, 3]
        msle, hinge, squared_hinge = sums[r, 5], sums[r, 6], sums[r, 7]
        cosine, kld = sums[r, 8], sums[r, 9]
        for i in range(n):
            loss += np.float64(rows[_LOSS, i, r])
            accuracy += np.float64(rows[_ACCURACY, i, r])
            mse += np.float64(rows[_MSE, i, r])
            mae += np.float64(rows[_MAE, i, r])
            msle += np.float64(rows[_MSLE, i, r])
            hinge += np.float64(rows[_HINGE, i, r])
            squared_hinge += np.float64(rows[_SQUARED_HINGE, i, r])
            cosine += np.float64(rows[_COSINE, i, r])
            kld += np.float64(rows[_KLD, i, r])
        sums[r, _LOSS], sums[r, _ACCURACY], sums[r, _MSE], sums[r, _MAE] = loss, accuracy, mse, mae
        sums[r, _MSLE], sums[r, _HINGE], sums[r, _SQUARED_HINGE] = msle, hinge, squared_hinge
        sums[r, _COSINE], sums[r, _KLD] = cosine, kld


@kernel
def add_row_losses(sums, row_losses):
    """As `add_rows`, for the loss alone. Updates: sums (R, >= 1). Reads: row_losses (n, R).

    Packed repetitions go four by four, so that additions need not wait for each other.
    """
    n, repetitions = row_losses.shape
    together = repetitions // 4 * 4
    for r in range(0, together, 4):
        first, second = sums[r, LOSS], sums[r + 1, LOSS]
        third, fourth = sums[r + 2, LOSS], sums[r + 3, LOSS]
        for i in range(n):
            first += np.float64(row_losses[i, r])
            second += np.float64(row_losses[i, r + 1])
            third += np.float64(row_losses[i, r + 2])
            fourth += np.float64(row_losses[i, r + 3])
        sums[r, LOSS], sums[r + 1, LOSS] = first, second
        sums[r + 2, LOSS], sums[r + 3, LOSS] = third, fourth
    for r in range(together, repetitions):
        for i in range(n):
            sums[r, LOSS] += np.float64(row_losses[i, r])


@kernel
def finish_metrics(sums, n_rows):
    """Turn sums over rows into the ten values of an epoch.

    Updates: sums (..., 10), divided by n_rows; the root mean squared error is filled in.
    """
    flat = sums.reshape(sums.size // N_METRICS, N_METRICS)
    for r in range(flat.shape[0]):
        for m in range(N_METRICS):
            flat[r, m] /= n_rows
        flat[r, _RMSE] = math.sqrt(flat[r, _MSE])
