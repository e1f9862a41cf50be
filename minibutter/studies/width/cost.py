"""What the measurements of the study take on one core, about: sixteen repetitions in lanes.

A row of a step is three products with every weight, two in the first layer, which needs no gradient
of its inputs. What a step and a row take beside their products matters in narrow networks.
"""

N_INPUTS, N_OUTPUTS = 196, 10
"""Of pooled digits."""

_LANES = 16
_FLOPS_PER_S = 6e10
_ROW_S = 2e-6
_STEP_S = 1e-5
_PARAMETER_S = 1.2e-9
_START_S = 1.0


def training_s(width: int, hidden_layers: int, batch_size: int, n_steps: int) -> float:
    """Steps of sixteen repetitions."""
    first, above = _weights(width, hidden_layers)
    flops = 2 * (2 * first + 3 * above) * _LANES
    of_step = _STEP_S + _PARAMETER_S * (first + above) * _LANES / 4
    return n_steps * (batch_size * (flops / _FLOPS_PER_S + _ROW_S) + of_step)


def evaluation_s(width: int, hidden_layers: int, n_rows: int) -> float:
    """A look at rows of sixteen repetitions."""
    return n_rows * (2 * sum(_weights(width, hidden_layers)) * _LANES / _FLOPS_PER_S + 2 * _ROW_S)


def accuracy_s(
    width: int, hidden_layers: int, batch_size: int, n_steps: int, n_evaluated: int
) -> float:
    """`training.measure_late_accuracy`; evaluated rows of all looks together."""
    trained = training_s(width, hidden_layers, batch_size, n_steps)
    return _START_S + trained + evaluation_s(width, hidden_layers, n_evaluated)


def stability_s(width: int, hidden_layers: int, n_rows: int, n_steps: int) -> float:
    """`stability.measure_stability`: some twelve descents, and sharpness in float64."""
    return _START_S + 12 * training_s(width, hidden_layers, n_rows, n_steps) + 5e-3 * width


def coordinates_s(width: int, n_rows: int, n_steps: int) -> float:
    """`coordinates.measure_coordinates`, with two hidden layers."""
    return _START_S + training_s(width, 2, n_rows, n_steps) + 2e-3 * width


def _weights(width: int, hidden_layers: int) -> tuple[int, int]:
    """Of the first layer, and of those above."""
    return N_INPUTS * width, width * (width * (hidden_layers - 1) + N_OUTPUTS)
