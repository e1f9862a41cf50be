"""From the tables of the study to what is said of them: each function is one statement."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from minibutter.studies.instability.differences import PARTED
from minibutter.studies.instability.pairs import Range, by_starts, geometric_mean
from minibutter.studies.instability.spread import Spread
from minibutter.studies.verdict import Criterion, judge

TOGETHER = 1e-4
"""Relative L1 difference below which rounding has not decided the weights."""

ALLOWED_FACTOR = 10.0
"""Between the divergence that a kernel makes and that of k = 3."""


# ---------------------------------------------------------------------------------------------
# The instrument


def judge_instrument(bits: pd.DataFrame) -> Criterion:
    """Whether the same roundings give the same bits, and others do not."""
    known = bits.dropna(subset=["must_change"])
    known = known[known["reason"] == ""]
    wrong = known[known["must_change"].astype(bool) != (known["share_differing"] > 0)]
    named = ", ".join(f"{row.variant} ({row.network}, {row.dtype})" for row in wrong.itertuples())
    return judge(
        "self-check",
        "two unperturbed runs and k = 2, 4, 8 have the same bits, k = 3 has others: exceptions",
        float(len(wrong)),
        expected=(0, 0),
        reason=named and f"not as they must be: {named}; nothing else here can be trusted",
    )


def judge_exact(one_layer: pd.DataFrame, known: pd.DataFrame) -> list[Criterion]:
    """The systems whose classes are known."""
    listed = one_layer[one_layer["expected"].notna()]
    wrong = listed[listed["behaviour"] != listed["expected"]]
    within = listed[listed["expected"] == "restrained"]["l1"]
    outside = listed[listed["expected"] != "restrained"]["l1"]
    others = known[known["behaviour"] != known["expected"]]
    return [
        judge(
            "one-layer classes",
            "settled below 0.0323, restrained to 0.1, blown up beyond: steps of another class",
            float(len(wrong)),
            expected=(0, 0),
            reason=", ".join(f"{row.step:g} is {row.behaviour}" for row in wrong.itertuples()),
        ),
        judge(
            "one-layer rounding",
            "within the band k = 3 parts the weights: smallest relative L1 of its steps",
            float(within.min()),
            expected=(PARTED, None),
        ),
        judge(
            "one-layer control",
            "outside of the band it does not, not even where the loss explodes: largest relative "
            "L1",
            float(outside.max()),
            expected=(None, 1e-11),
        ),
        judge(
            "known systems",
            "linear equation, heat equation and two scalar weights behave as they must: exceptions",
            float(len(others)),
            expected=(0, 0),
            reason=", ".join(f"{row.system} at {row.value:g}" for row in others.itertuples()),
        ),
    ]


# ---------------------------------------------------------------------------------------------
# Divergence against the learning rate


def judge_threshold(ends: pd.DataFrame, perturbations: Sequence[str]) -> list[Criterion]:
    """Whether rounding decides the weights at large rates alone.

    Parameters
    ----------
    ends : last looks at one network.
    perturbations : variants of the step, as "k = 3".
    """
    chosen = ends[ends["variant"].isin(perturbations)].dropna(subset=["l1_hidden"])
    found = {rate: by_starts(pairs) for rate, pairs in chosen.groupby("learning_rate")}
    rates = np.array(sorted(found, reverse=True))
    levels = np.array([found[rate][0] for rate in rates])
    statement = "smooth deep network: relative L1 of a hidden matrix at the largest learning rate"
    if not len(rates):
        missing = "every run at every learning rate diverged"
        return [judge("divergence", statement, None, expected=(PARTED, None), reason=missing)]

    def at_rate(name: str, statement: str, rate: float, expected: Range, reason: str) -> Criterion:
        value, ends_of_range, confidence = found[rate]
        return judge(
            *(name, statement, value, ends_of_range),
            expected=expected,
            confidence=confidence,
            reason=reason,
        )

    reason = f"at the learning rate {rates[0]:g}"
    first = at_rate("divergence", statement, rates[0], (PARTED, None), reason)
    parted = np.flatnonzero(~(levels > PARTED))
    end = int(parted[0]) if len(parted) else len(rates)
    lower_statement = "the same at a fifth of the smallest learning rate above which it parts"
    inversions_statement = "from there to the largest it grows with the learning rate: inversions"
    if end == 0:
        reason = "it does not part at any rate, so that there is no threshold"
        return [
            first,
            judge("no divergence", lower_statement, None, expected=(None, TOGETHER), reason=reason),
            judge("monotone", inversions_statement, None, expected=(0, 0), reason=reason),
        ]
    edge = rates[end - 1]
    lower = np.flatnonzero(rates <= edge / 5 * (1 + 1e-9))
    if not len(lower):
        reason = f"it still parts at {edge:g}, and no rate below a fifth of that was tried"
        return [
            first,
            judge("no divergence", lower_statement, None, expected=(None, TOGETHER), reason=reason),
            judge("monotone", inversions_statement, None, expected=(0, 0), reason=reason),
        ]
    at = int(lower[0])
    between = levels[end - 1 : at + 1]
    return [
        first,
        at_rate(
            *("no divergence", lower_statement, rates[at], (None, TOGETHER)),
            f"it parts from {edge:g} on; at {rates[at]:g}",
        ),
        judge(
            "monotone",
            inversions_statement,
            float(np.sum(np.diff(between) > 0)),
            expected=(0, 0),
            reason=f"between {rates[at]:g} and {edge:g}",
        ),
    ]


def judge_control(ends: pd.DataFrame) -> Criterion:
    """Plain descent on an easy network: the effect must be absent at every rate."""
    stable = ends.dropna(subset=["l1"])
    levels = stable.groupby("learning_rate")["l1"].max()
    worst = levels.idxmax() if len(levels) else math.nan
    return judge(
        "negative control",
        "without momentum, 2 x 128 and swish: largest relative L1 of all weights at any rate",
        float(levels.max()) if len(levels) else None,
        expected=(None, 1e-5),
        reason=f"largest at {worst:g}" if len(levels) else "every run diverged",
    )


# ---------------------------------------------------------------------------------------------
# Spread of accuracies


def judge_spread(name: str, spread: Spread) -> Criterion:
    """Whether rounding makes as much spread as the order of the batches, under relu."""
    return judge(
        f"spread, {name}",
        "spread over perturbations / spread over batch orders",
        spread.ratio,
        (_known(spread.low), _known(spread.high)),
        expected=(0.4, 1.5),
        reason=(
            f"{spread.over_k:.3f} and {spread.over_orders:.3f} percentage points; independent "
            f"errors on {spread.n_test} rows alone make {spread.finite_test_set:.3f}"
        ),
    )


def _known(number: float) -> float | None:
    """None for a number that is not finite."""
    return float(number) if math.isfinite(number) else None


# ---------------------------------------------------------------------------------------------
# Sharpness


def judge_edge(
    name: str,
    statement: str,
    late: pd.DataFrame,
    column: str,
    width: float,
    reason: str = "",
) -> Criterion:
    """Whether a curvature stays at the threshold: its mean over late looks, in units of it.

    Parameters
    ----------
    late : looks of the last part of a training.
    column : "sharpness" or "batch_sharpness".
    width : of the range around 1.
    """
    if late.empty or late["has_ended"].any():
        return judge(
            *(name, statement, None),
            expected=(1 - width, 1 + width),
            reason="the training diverged before",
        )
    shares = (late[column] / late["threshold"]).to_numpy()
    error = shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else math.nan
    interval = (
        (shares.mean() - 1.96 * error, shares.mean() + 1.96 * error)
        if np.isfinite(error)
        else (None, None)
    )
    return judge(
        *(name, statement, float(shares.mean()), interval),
        expected=(1 - width, 1 + width),
        reason=reason,
    )


# ---------------------------------------------------------------------------------------------
# Kernels


def judge_kernels(
    ends: pd.DataFrame, bits: pd.DataFrame, kernels: Sequence[str]
) -> list[Criterion]:
    """Whether another order of summation parts trajectories as k = 3 does.

    Parameters
    ----------
    ends : last looks at the smooth deep network.
    bits : of `measure_bits`, of the same network.
    kernels : variants of the kernel.
    """
    changing = set(bits.loc[bits["share_differing"] > 0, "variant"])
    chosen = ends[ends["variant"].isin([name for name in kernels if name in changing])]
    levels = chosen.groupby(["learning_rate", "variant"])["l1_hidden"].agg(geometric_mean)
    reference = ends[ends["variant"] == "k = 3"].groupby("learning_rate")["l1_hidden"]
    levels, reference = levels.dropna(), reference.agg(geometric_mean).dropna()
    # Where k = 3 diverged there is nothing to compare a kernel with.
    levels = levels[levels.index.isin(reference.index, level="learning_rate")]
    large, small = "kernels, large rates", "kernels, small rates"
    large_statement = (
        "divergence of a kernel / that of k = 3 at the largest rate: the one farthest from 1"
    )
    small_statement = "largest relative L1 that any kernel makes at the smallest rate"
    if levels.empty:
        reason = (
            "no kernel that this machine can run changes a bit"
            if chosen.empty
            else "at every learning rate a kernel or k = 3 diverged"
        )
        return [
            judge(large, large_statement, None, expected=(0.1, 10), reason=reason),
            judge(small, small_statement, None, expected=(None, TOGETHER), reason=reason),
        ]
    rates = levels.index.get_level_values(0)
    top, bottom = levels[rates.max()], levels[rates.min()]
    shares = top / reference[rates.max()]
    farthest = np.log(shares.replace(0, 1e-17)).abs().idxmax()
    rest = [name for name in kernels if name not in changing]
    same = ends[ends["variant"].isin(rest)].dropna(subset=["share_differing"])
    return [
        judge(
            large,
            large_statement,
            float(shares[farthest]),
            expected=(1 / ALLOWED_FACTOR, ALLOWED_FACTOR),
            reason=f"{farthest}, at the learning rate {rates.max():g}; {len(shares)} kernels lie "
            f"between {shares.min():.2g} and {shares.max():.2g}",
        ),
        judge(
            small,
            small_statement,
            float(bottom.max()),
            expected=(None, TOGETHER),
            reason=f"{bottom.idxmax()}, at the learning rate {rates.min():g}",
        ),
        judge(
            "kernels, same bits",
            "knobs that change no bit after one epoch part nothing in the end: differing weights",
            float(same["share_differing"].max()) if len(same) else None,
            expected=(0, 0),
            reason=", ".join(sorted(set(same["variant"]))) or "none was followed",
        ),
    ]
