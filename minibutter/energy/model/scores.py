"""How near predictions come to measurements, over all and level by level."""

import numpy as np

from minibutter.energy.model.results import Residuals, Row, Scores


def score(predicted: np.ndarray, measured: np.ndarray) -> Scores:
    """Compare predictions with measurements; both float64 of shape (n,), `measured` positive."""
    ratio = predicted / measured
    r2_log = None
    if (predicted > 0).all():
        r2_log = _r2(np.log(predicted), np.log(measured))
    return Scores(
        n_configurations=len(measured),
        mape=float(np.abs(ratio - 1).mean()),
        r2=_r2(predicted, measured),
        r2_log=r2_log,
        mean_ratio=float(ratio.mean()),
        within_10_percent=float((np.abs(ratio - 1) <= 0.1).mean()),
    )


def _r2(predicted: np.ndarray, measured: np.ndarray) -> float | None:
    total = np.square(measured - measured.mean()).sum()
    return float(1 - np.square(measured - predicted).sum() / total) if total > 0 else None


def residuals_by_level(rows: tuple[Row, ...]) -> tuple[Residuals, ...]:
    """Errors of the configurations that each level holds; none where levels are not known."""
    found = {row.level for row in rows if row.level is not None}
    result = []
    for level in sorted(found, key=("l1", "l2", "l3", "dram").index):
        here = [row for row in rows if row.level == level]
        errors = np.array([row.predicted_j / row.energy_j - 1 for row in here])
        held_out = [row.held_out_j / row.energy_j - 1 for row in here if row.held_out_j is not None]
        result.append(
            Residuals(
                level=level,
                n_configurations=len(here),
                mape=float(np.abs(errors).mean()),
                median=float(np.median(errors)),
                held_out_mape=float(np.abs(held_out).mean()) if held_out else None,
            )
        )
    return tuple(result)
