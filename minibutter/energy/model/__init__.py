"""Where the joules go: a model of energy per epoch, fitted to measured runs.

`observe` chooses what may be used, `fit_energy` fits, `predict_energy` says what a sweep will take.
Nothing here is imported with `minibutter.energy`: reading counters needs neither pandas nor scipy.
"""

from minibutter.energy.model.features import ModelError, features_of
from minibutter.energy.model.fit import fit_energy
from minibutter.energy.model.observations import (
    EPOCH_COLUMNS,
    RUN_COLUMNS,
    Observations,
    observe,
)
from minibutter.energy.model.predict import Planned, Prediction, predict_energy
from minibutter.energy.model.results import EnergyModel, model_from_json, to_json

__all__ = [
    "EPOCH_COLUMNS",
    "RUN_COLUMNS",
    "EnergyModel",
    "ModelError",
    "Observations",
    "Planned",
    "Prediction",
    "features_of",
    "fit_energy",
    "model_from_json",
    "observe",
    "predict_energy",
    "to_json",
]
