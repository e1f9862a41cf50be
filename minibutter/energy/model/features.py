"""What is known of a configuration before it runs: operations, bytes, working sets and steps."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVELS = ("l1", "l2", "l3", "dram")
WORKING_SETS = ("bwd_layer", "parameter", "parameter2x", "parameter2x_dataset")
"""BUTTER-E's, by growing scope: a layer, the forward pass, the backward pass, the epoch."""

FEATURE_COLUMNS = (
    *("kernel", "dtype", "lanes", "n_train", "batch_size", "depth"),
    "flops_per_epoch",
    *(f"traffic_{level}_bytes" for level in LEVELS),
    *(f"working_set_{name}_bytes" for name in WORKING_SETS),
)
"""Columns of the table `runs` that `features_of` reads."""


class ModelError(Exception):
    """No model can be fitted or used; the message says why and what to do."""


@dataclass(frozen=True)
class Features:
    """What is known of configurations without running them; every array has shape (n,).

    Attributes
    ----------
    flops : floating-point operations of an epoch, float64.
    traffic_bytes : predicted bytes of an epoch at each level of `LEVELS` that the machine has.
    working_set_bytes : by the names of `WORKING_SETS`.
    n_train : training rows. n_steps : optimizer steps of an epoch. depth : dense layers.
    lanes : repetitions trained together, which share their steps.
    variants : kernel and type of each, as in "tiled float32": seconds per FLOP differ by them.
    """

    flops: np.ndarray
    traffic_bytes: dict[str, np.ndarray]
    working_set_bytes: dict[str, np.ndarray]
    n_train: np.ndarray
    n_steps: np.ndarray
    depth: np.ndarray
    lanes: np.ndarray
    variants: tuple[str, ...]


def features_of(frame: pd.DataFrame) -> Features:
    """Features of configurations, measured or only planned.

    Parameters
    ----------
    frame : one row a configuration, with `FEATURE_COLUMNS`; `lanes` is 1 where it is missing, and
        levels but the first and working sets may be absent or empty.

    Raises
    ------
    ModelError
        If FLOPs or bytes of a row are not known.
    """
    is_unknown = ~is_known(frame)
    if is_unknown.any():
        kernels = ", ".join(sorted(set(frame.loc[is_unknown, "kernel"])))
        raise ModelError(
            f"FLOPs or bytes of {is_unknown.sum()} of {len(frame)} experiments are not known "
            f"(kernel {kernels}); leave them out of the sweep"
        )

    def column(name: str, missing: float = np.nan) -> np.ndarray:
        return frame[name].astype("Float64").to_numpy(np.float64, na_value=missing)

    n_train, batch_size = column("n_train"), column("batch_size")
    # Where all levels but one are known, the machine does not have that one: nothing goes there.
    traffic = {
        level: column(f"traffic_{level}_bytes", missing=0.0)
        for level in LEVELS
        if f"traffic_{level}_bytes" in frame and frame[f"traffic_{level}_bytes"].notna().any()
    }
    lanes = column("lanes", missing=1.0) if "lanes" in frame else np.ones(len(frame))
    return Features(
        flops=column("flops_per_epoch"),
        traffic_bytes=traffic,
        working_set_bytes={
            name: column(f"working_set_{name}_bytes")
            for name in WORKING_SETS
            if f"working_set_{name}_bytes" in frame
            and frame[f"working_set_{name}_bytes"].notna().all()
        },
        n_train=n_train,
        n_steps=np.ceil(n_train / np.minimum(batch_size, n_train)),
        depth=column("depth"),
        lanes=lanes,
        variants=tuple((frame["kernel"] + " " + frame["dtype"]).astype(str)),
    )


def is_known(frame: pd.DataFrame) -> pd.Series:
    """Whether the FLOPs and the bytes of each row are known."""
    known = pd.Series(True, frame.index)
    for name in ("flops_per_epoch", "traffic_l1_bytes"):
        known &= frame[name].notna() if name in frame else False
    return known
