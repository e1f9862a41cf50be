"""What the command line says about a sweep: `--set`, `--filter`, `--limit` and `--budget`."""

import math
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from minibutter.sweeps.expression import parse_condition
from minibutter.sweeps.runspec import SPEC_KEYS, Checks, SweepError, unknown_key
from minibutter.sweeps.selection import Selection

_ASSIGNABLE = ("repetitions", *SPEC_KEYS)
_PART = re.compile(r"""(?:"[^"]*"|'[^']*'|\[[^]]*]|\{[^}]*}|[^,])+""")


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Keys with values from texts such as `depth=3,5`.

    Values are written as in a TOML file; text may do without quotes where it has no comma.

    Raises
    ------
    SweepError
        If a text is no assignment, or its key is unknown.

    Examples
    --------
    >>> parse_assignments(["depth=3,5", "shape=exponential", "size={first=10,last=20,step=5}"])
    {'depth': [3, 5], 'shape': 'exponential', 'size': {'first': 10, 'last': 20, 'step': 5}}
    """
    assigned = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values:
            raise SweepError(f"--set {text}: write a key and its values, as in --set depth=3,5")
        if key not in _ASSIGNABLE:
            raise unknown_key("--set", key, _ASSIGNABLE)
        parts = [_value(part.strip()) for part in _PART.findall(values)]
        assigned[key] = parts[0] if len(parts) == 1 else parts
    return assigned


def _value(text: str) -> Any:
    """A value as TOML reads it, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_selection(
    condition: str | None, limit: int | None, budget: str | None, checks: Checks
) -> Selection:
    """What of a sweep is to be done now.

    Parameters
    ----------
    condition : an expression, see `sweeps.conditions`.
    limit : number of experiments.
    budget : number of core-hours, with their unit: 100core-h.
    checks : functions that refuse names which other rooms do not know.

    Raises
    ------
    SweepError
        Naming the option that cannot be understood.
    """
    parsed = None
    if condition is not None:
        parsed = parse_condition(condition, f"--filter {condition!r}", checks)
    if limit is not None and limit < 1:
        raise SweepError(f"--limit {limit}: must be at least 1")
    return Selection(parsed, limit, None if budget is None else _core_hours(budget))


def _core_hours(text: str) -> float:
    written = re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*core-?h(?:ours?)?\s*", text, re.IGNORECASE)
    try:
        hours = float(written[1]) if written else math.nan
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise SweepError(f"--budget {text}: write core-hours, as in --budget 100core-h")
    return hours
