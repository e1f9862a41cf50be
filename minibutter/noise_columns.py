"""The noise of an epoch's gradients as columns of the table `epochs`."""

import math
from typing import Any

from minibutter.nn.noise import StepNoise
from minibutter.noise_scale.epochs import noise_of_epoch

NOISE_COLUMNS = (
    *("noise_trace", "noise_squared_gradient", "noise_simple_scale"),
    *("noise_simple_scale_low", "noise_simple_scale_high", "noise_state"),
)


def noise_columns(noise: StepNoise) -> dict[str, Any]:
    """One value for each of `NOISE_COLUMNS`.

    The scale is the plain ratio of the averages, and null where |G|² is not positive; whether the
    data can tell |G|² from 0 is what the state says, and the ends are null where they leave it
    open.

    Parameters
    ----------
    noise : of the steps of an epoch.
    """
    averages, scale = noise_of_epoch(
        noise.gradient_squares, noise.covariance_traces, noise.weights, noise.is_exact
    )
    ratio = averages.simple_noise_scale
    values = (
        *(averages.trace, averages.squared_gradient, ratio if math.isfinite(ratio) else None),
        *(scale.low, scale.high, scale.state),
    )
    return dict(zip(NOISE_COLUMNS, values, strict=True))
