"""An estimate with its interval, or the reason why there is none."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Self

State = Literal["resolved", "lower bound", "upper bound", "unresolved"]


@dataclass(frozen=True)
class Estimate:
    """What the data say of a positive number.

    Attributes
    ----------
    value : best guess; None unless resolved.
    low, high : ends of the interval; None on a side that the data leave open.
    state : "resolved": all three are numbers; "lower bound", "upper bound": only that end is known;
        "unresolved": the data say nothing.
    reason : why it is not resolved; empty where it is.
    """

    value: float | None
    low: float | None
    high: float | None
    state: State
    reason: str = ""

    @classmethod
    def resolved(cls, value: float, low: float, high: float) -> Self:
        """A value with both ends."""
        return cls(float(value), float(low), float(high), "resolved")

    @classmethod
    def at_least(cls, low: float, reason: str) -> Self:
        """A lower bound; without one that is positive and finite, unresolved."""
        if not 0 < low < math.inf:
            return cls.unresolved(reason)
        return cls(None, float(low), None, "lower bound", reason)

    @classmethod
    def at_most(cls, high: float, reason: str) -> Self:
        """An upper bound; without one that is positive and finite, unresolved."""
        if not 0 < high < math.inf:
            return cls.unresolved(reason)
        return cls(None, None, float(high), "upper bound", reason)

    @classmethod
    def unresolved(cls, reason: str) -> Self:
        """Nothing but a reason."""
        return cls(None, None, None, "unresolved", reason)


def quantile_of_normal(confidence: float) -> float:
    """How many standard deviations to either side hold this share of a normal distribution.

    Raises
    ------
    ValueError
        If the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)
