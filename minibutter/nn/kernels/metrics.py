"""The ten BUTTER metrics, summed row by row while the batch is still in the cache.

The same ten are recorded for every task, as in BUTTER, with Keras' definitions; for regression
`accuracy` compares the target with the rounded output and means little. A metric of an epoch is the
mean over its rows, except the root mean squared error, which is the root of the mean.

`squared_hinge` and `hinge` want targets -1 and 1. Keras maps 0 to -1 when all targets of a batch
are 0 or 1; here the caller decides once for the whole array (`is_binary`).

Source: Keras' metrics as used by BUTTER (TensorFlow 2): floors and clips at 1e-7, norms at 1e-12.
"""

import math

import numpy as np

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

_LOSS, _ACCURACY, _MSE, _MAE, _RMSE, _MSLE, _HINGE, _SQUARED_HINGE, _COSINE, _KLD = range(10)

_EPSILON = 1e-7  # Keras' backend epsilon: the floor of logarithms
_SQUARED_NORM_FLOOR = 1e-12  # of Keras' l2_normalize


@kernel
def _floor(value, low):
    """max(value, low), except that NaN stays NaN."""
    return low if value < low else value


@kernel
def _is_correct(p, y, i):
    """Keras' accuracy of row i: above one half for one output, else the same largest entry."""
    width = p.shape[1]
    if width == 1:
        # p == p is false for NaN, which is never right.
        return p[i, 0] == p[i, 0] and (1.0 if p[i, 0] > 0.5 else 0.0) == y[i, 0]
    best_p, best_y = 0, 0
    for k in range(width):
        if p[i, k] != p[i, k]:
            return False
        if p[i, k] > p[i, best_p]:
            best_p = k
        if y[i, k] > y[i, best_y]:
            best_y = k
    return best_p == best_y


@kernel
def add_metrics(sums, p, y, row_losses, is_binary):
    """Add one batch to the ten sums (float64; `METRICS` names their order).

    Updates: sums (10,). Reads: p, y (n, width), row_losses: the batch's summed loss,
    is_binary: whether all targets of this array are 0 or 1.
    The slot of the root mean squared error stays 0 until `finish_metrics`.
    """
    n, width = p.shape
    sums[_LOSS] += row_losses
    for i in range(n):
        square, absolute, square_log, hinge, square_hinge = 0.0, 0.0, 0.0, 0.0, 0.0
        divergence, dot, norm_p, norm_y = 0.0, 0.0, 0.0, 0.0
        for k in range(width):
            p_k, y_k = np.float64(p[i, k]), np.float64(y[i, k])
            error = y_k - p_k
            square += error * error
            absolute += abs(error)
            floored_p, floored_y = _floor(p_k, _EPSILON), _floor(y_k, _EPSILON)
            log_error = math.log1p(floored_y) - math.log1p(floored_p)
            square_log += log_error * log_error
            margin = _floor(1.0 - (2.0 * y_k - 1.0 if is_binary else y_k) * p_k, 0.0)
            hinge += margin
            square_hinge += margin * margin
            clipped_p = 1.0 if floored_p > 1.0 else floored_p
            clipped_y = 1.0 if floored_y > 1.0 else floored_y
            divergence += clipped_y * math.log(clipped_y / clipped_p)
            dot += y_k * p_k
            norm_p += p_k * p_k
            norm_y += y_k * y_k
        sums[_ACCURACY] += 1.0 if _is_correct(p, y, i) else 0.0
        sums[_MSE] += square / width
        sums[_MAE] += absolute / width
        sums[_MSLE] += square_log / width
        sums[_HINGE] += hinge / width
        sums[_SQUARED_HINGE] += square_hinge / width
        sums[_COSINE] += dot / math.sqrt(
            _floor(norm_p, _SQUARED_NORM_FLOOR) * _floor(norm_y, _SQUARED_NORM_FLOOR)
        )
        sums[_KLD] += divergence


@kernel
def finish_metrics(sums, n_rows):
    """Turn sums over rows into the ten values of an epoch.

    Updates: sums (10,), divided by n_rows; the root mean squared error is filled in.
    """
    for m in range(sums.size):
        sums[m] /= n_rows
    sums[_RMSE] = math.sqrt(sums[_MSE])
