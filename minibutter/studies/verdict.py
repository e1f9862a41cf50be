"""What a study says in the end: criteria with their intervals, and what follows from them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["reproduced", "not reproduced", "unresolved"]


@dataclass(frozen=True)
class Criterion:
    """One statement of a paper, and what was measured here.

    Attributes
    ----------
    name : short, as in "hyperbola".
    statement : what is expected, one sentence for people.
    state : what became of it.
    measured : the number that decides; None where there is none.
    low, high : ends of its interval; None where the data leave a side open, or there is none.
    expected_low, expected_high : the range in which `measured` was to lie; None for no limit.
    unit : of all these numbers; empty for pure numbers.
    confidence : of the interval; None without one.
    reason : why it is as it is, where the numbers alone do not say so.
    """

    name: str
    statement: str
    state: State
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None
    unit: str = ""
    confidence: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        for key in ("measured", "low", "high", "expected_low", "expected_high"):
            value = getattr(self, key)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{self.name}: {key} is {value}; what is not known is None")


def judge(
    name: str,
    statement: str,
    measured: float | None,
    interval: tuple[float | None, float | None] = (None, None),
    *,
    expected: tuple[float | None, float | None],
    unit: str = "",
    confidence: float | None = 0.95,
    reason: str = "",
) -> Criterion:
    """Hold a number with its interval against the range in which it was to lie.

    Reproduced: the number is in the range. Not reproduced: the whole interval is outside.
    Unresolved: there is no number, or it is outside while its interval reaches into the range. A
    number without an interval is taken as exact.

    Parameters
    ----------
    measured : None where the data say nothing; `reason` says why.
    interval : low and high, None for a side that is open or where there is no interval.
    expected : low and high, None for no limit.
    """
    low, high = interval
    has_interval = low is not None or high is not None
    expected_low, expected_high = (
        -math.inf if expected[0] is None else expected[0],
        math.inf if expected[1] is None else expected[1],
    )
    if measured is None or not math.isfinite(measured):
        state: State = "unresolved"
        measured = None
    elif expected_low <= measured <= expected_high:
        state = "reproduced"
    elif has_interval and (
        (low is None or low <= expected_high) and (high is None or high >= expected_low)
    ):
        state = "unresolved"
        reason = reason or "the interval reaches into the expected range, the value does not"
    else:
        state = "not reproduced"
    return Criterion(
        *(name, statement, state, measured, low, high, *expected, unit),
        confidence if has_interval else None,
        reason,
    )


@dataclass(frozen=True)
class Verdict:
    """All criteria of a study.

    Attributes
    ----------
    study, scale : which, and how large.
    criteria : in the order of the study's page.
    context : what else a reader must know: data set, sizes, seed, versions, processor, duration.
    """

    study: str
    scale: str
    criteria: tuple[Criterion, ...]
    context: Mapping[str, Any]

    @property
    def state(self) -> State:
        """Reproduced if all criteria are; not reproduced if one is not; else unresolved."""
        return overall([criterion.state for criterion in self.criteria])

    def to_json(self) -> str:
        """The file `verdict.json`; what is not known is null."""
        document = {
            "study": self.study,
            "scale": self.scale,
            "state": self.state,
            "criteria": [asdict(criterion) for criterion in self.criteria],
            "context": dict(self.context),
        }
        return json.dumps(document, indent=2, allow_nan=False) + "\n"


def overall(states: Sequence[State]) -> State:
    """What follows from several criteria; nothing follows from none."""
    if "not reproduced" in states:
        return "not reproduced"
    return "unresolved" if "unresolved" in states or not states else "reproduced"
