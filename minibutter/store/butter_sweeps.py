"""Which of BUTTER's eight published sweeps a specification belongs to.

The axes are those of the data set's description (OEDI submission 5708). Sweeps overlap, and a
specification may belong to none.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

_CORE = ("529_pollen", "connect_4", "537_houses", "mnist", "201_pol", "sleep", "wine_quality_white")
_SECONDARY = ("nursery", "adult")
_TERTIARY = ("505_tecator", "294_satellite_image", "splice", "banana")
_CORE_SHAPES = ("rectangle", "trapezoid", "exponential", "wide_first_2x")
_SHAPES = (*_CORE_SHAPES, "rectangle_residual", "wide_first_4x", "wide_first_8x", "wide_first_16x")
_DEPTHS = (2, 3, 4, 5, 7, 8, 9, 10, 12, 14, 16, 18, 20)
_RATES = (1e-2, 1e-3, 1e-4, 1e-5)
_PENALTIES = (0.0, *(0.32 / 2**k for k in range(13)))


def _powers(first: int, last: int) -> tuple[int, ...]:
    return tuple(2**k for k in range(first, last + 1))


_ALWAYS = {
    "activation": ("relu",),
    "initializer": ("glorot_uniform",),
    "learning_rate_step_epochs": (None, pd.NA),
    "sampling": ("shuffle",),
    "batch_rule": ("fixed",),
    "nesterov": (False,),
    "momentum_form": ("keras",),
    "perturbation": (1,),
    "dtype": ("float32",),
    "test_split": (0.2,),
    "split_method": ("shuffled",),
}
_USUAL = {
    "learning_rate": (1e-4,),
    "batch_size": (256,),
    "epochs": (3000,),
    "l1": (0.0,),
    "l2": (0.0,),
    "label_noise": (0.0,),
    "optimizer": ("adam",),
    "momentum": (0.0,),
}
"""What a sweep has where its own axes do not say otherwise."""

SWEEPS: dict[str, tuple[dict[str, Collection], ...]] = {
    "primary_sweep": (
        {
            "dataset": (*_CORE, *_SECONDARY, *_TERTIARY),
            "shape": _SHAPES,
            "depth": (*_DEPTHS, 6),
            "size": _powers(5, 25),
        },
    ),
    "300_epoch_sweep": (
        {
            "dataset": _CORE,
            "shape": _CORE_SHAPES,
            "depth": (*_DEPTHS, 6),
            "size": _powers(25, 27),
            "epochs": (300,),
        },
    ),
    "30k_epoch_sweep": (
        {
            "dataset": _CORE,
            "shape": _CORE_SHAPES,
            "depth": (*_DEPTHS, 6),
            "size": _powers(5, 18),
            "epochs": (30000,),
        },
    ),
    "learning_rate_sweep": (
        {
            "dataset": (*_CORE, *_SECONDARY),
            "shape": _CORE_SHAPES,
            "depth": _DEPTHS,
            "size": _powers(5, 24),
            "learning_rate": _RATES,
        },
    ),
    "label_noise_sweep": tuple(
        {
            "dataset": _CORE,
            "shape": _CORE_SHAPES,
            "depth": _DEPTHS,
            "size": _powers(5, 24),
            "learning_rate": (rate,),
            "label_noise": levels,
        }
        for rate, levels in ((1e-4, (0.0, 0.05, 0.1, 0.15, 0.2)), (1e-3, (0.0, 0.05)))
    ),
    "batch_size_sweep": (
        {
            "dataset": (*_CORE, *_SECONDARY),
            "shape": ("rectangle",),
            "depth": (2, 3, 4, 5, 7, 8, 9, 10),
            "size": _powers(5, 24),
            "batch_size": (32, 64, 128, 256, 512, 1024),
        },
    ),
    "regularization_sweep": tuple(
        {
            "dataset": (*_CORE, *_SECONDARY),
            "shape": ("rectangle",),
            "depth": (2, 3, 4, 5, 7, 8, 9, 10),
            "size": _powers(5, 25),
            penalty: _PENALTIES,
        }
        for penalty in ("l1", "l2")
    ),
    "optimizer_sweep": tuple(
        {
            "dataset": (*_CORE, *_SECONDARY, *_TERTIARY),
            "shape": ("rectangle",),
            "depth": (2, 3, 4, 5, 6),
            "size": _powers(5, 24),
            "learning_rate": _RATES,
            "batch_size": (32, 64, 128, 256),
            "optimizer": optimizers,
            "momentum": momenta,
        }
        for optimizers, momenta in ((("adam",), (0.0,)), (("rmsprop", "sgd"), (0.0, 0.9)))
    ),
}
"""The hypercubes of each sweep: the values of its axes."""


def sweep_flags(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """For every sweep, which rows belong to it.

    Parameters
    ----------
    runs : with the columns of a specification, as in `RUNS_SCHEMA`.
    """
    return {
        sweep: np.logical_or.reduce(
            [
                np.logical_and.reduce(
                    [
                        runs[column].isin(values).to_numpy(bool)
                        for column, values in (_ALWAYS | _USUAL | cube).items()
                    ]
                )
                for cube in cubes
            ]
        )
        for sweep, cubes in SWEEPS.items()
    }
