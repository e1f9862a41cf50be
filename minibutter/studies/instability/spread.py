"""How much of the spread of test accuracies rounding alone makes, beside the order of batches.

A table of accuracies has a row an order and a column a perturbation. Its variance along a row is
that of rounding; down a column that of orders, and of the rounding that comes with each. Chaos
makes them equal: then an order does not decide the accuracy any more than a last bit does.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Spread:
    """Standard deviations of test accuracy, in percentage points.

    Attributes
    ----------
    over_k : over perturbations, of one order: the mean of all orders, ddof 0 as the code of the
        paper has it.
    over_orders : over orders, of one perturbation: the mean of all perturbations, ddof 0.
    over_k_unbiased, over_orders_unbiased : roots of the mean unbiased variances; `_low` and `_high`
        are their intervals of 95 %, from orders drawn again.
    ratio, low, high : over_k / over_orders, with such an interval.
    finite_test_set : expected of a test set of this size, where rows are right or wrong
        independently of each other, each with its own probability.
    binomial : the same where all rows have one probability.
    mean_accuracy : in percent.
    n_orders, n_perturbations, n_test : sizes.
    """

    over_k: float
    over_orders: float
    over_k_unbiased: float
    over_k_unbiased_low: float
    over_k_unbiased_high: float
    over_orders_unbiased: float
    over_orders_unbiased_low: float
    over_orders_unbiased_high: float
    ratio: float
    low: float
    high: float
    finite_test_set: float
    binomial: float
    mean_accuracy: float
    n_orders: int
    n_perturbations: int
    n_test: int


def analyse_spread(runs: pd.DataFrame, rng: np.random.Generator, draws: int = 4000) -> Spread:
    """Spread of one network's runs.

    Parameters
    ----------
    runs : columns `order`, `k`, `accuracy`, `right` and `n_test`, every order with every k.
    rng : of the bootstrap.
    draws : of the bootstrap.

    The finite test set: with p_i the share of the runs that are right in row i, the accuracy of
    independent errors has the variance Σ p_i (1 - p_i) / n², here without bias for R runs (Jordan
    2023, *Calibrated chaos*, arXiv:2304.01910, who finds such spreads where the accuracy on the
    distribution hardly varies).
    """
    table = runs.pivot(index="order", columns="k", values="accuracy").to_numpy() * 100
    n_orders, n_perturbations = table.shape
    # Rows that are drawn twice make the variance over them smaller, by this much on average.
    wider = np.sqrt(n_orders / (n_orders - 1))
    drawn = []
    for _ in range(draws):
        sample = table[rng.integers(n_orders, size=n_orders)]
        over_k, over_orders = _deviations(sample)
        k_variance, order_variance = _mean_variances(sample)
        drawn.append((over_k, wider * over_orders, k_variance**0.5, wider * order_variance**0.5))
    of_k, of_orders, *roots = np.array(drawn).T
    quotients = np.divide(of_k, of_orders, out=np.full(draws, np.inf), where=of_orders > 0)
    low, high = np.quantile(quotients, [0.025, 0.975], method="nearest")
    ranges = [np.quantile(root, [0.025, 0.975]) for root in roots]
    over_k, over_orders = _deviations(table)
    k_variance, order_variance = _mean_variances(table)
    n_test = int(runs["n_test"].iloc[0])
    right = np.array(
        [
            np.unpackbits(np.frombuffer(bytes.fromhex(code), np.uint8))[:n_test]
            for code in runs["right"]
        ]
    )
    share, n_runs = right.mean(axis=0), len(right)
    independent = np.sum(share * (1 - share)) * n_runs / max(n_runs - 1, 1)
    accuracy = float(right.mean())
    return Spread(
        float(over_k),
        float(over_orders),
        *map(float, (k_variance**0.5, *ranges[0])),
        *map(float, (order_variance**0.5, *ranges[1])),
        float(over_k / over_orders) if over_orders > 0 else float("nan"),
        float(low),
        float(high),
        float(100 * np.sqrt(independent) / n_test),
        float(100 * np.sqrt(accuracy * (1 - accuracy) / n_test)),
        float(table.mean()),
        n_orders,
        n_perturbations,
        n_test,
    )


def _centred(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns less their first numbers, so that those which are all the same have no
    spread at all, not even that of rounding."""
    return table - table[:, :1], table - table[:1]


def _deviations(table: np.ndarray) -> tuple[float, float]:
    """Mean standard deviation along rows, and down columns; ddof 0."""
    rows, columns = _centred(table)
    return rows.std(axis=1).mean(), columns.std(axis=0).mean()


def _mean_variances(table: np.ndarray) -> tuple[float, float]:
    """Mean variance along rows, and down columns; unbiased."""
    rows, columns = _centred(table)
    return rows.var(axis=1, ddof=1).mean(), columns.var(axis=0, ddof=1).mean()
