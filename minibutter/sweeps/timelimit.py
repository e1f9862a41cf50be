"""How long a sweep may take: as it was asked for, or as the batch system says.

A sweep that knows when it will be stopped begins nothing that cannot end before, and says so with
an exit code; one that does not know loses what it was doing. Nothing here reads a clock.
"""

import math
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minibutter.sweeps.spec import SweepError

AUTO = "auto"

EXIT_TIME_IS_UP = 75
"""Exit code of a sweep that ended in good order before it was done: start it again. EX_TEMPFAIL of
sysexits.h."""

_FORMS = (
    "2h, 90m, 1h30m, 02:00:00 (hours:minutes:seconds) or 1-12:00:00 (days before that), or auto, "
    "which asks the batch system"
)
_PATIENCE_S = 20.0
_UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_WITH_UNITS = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?"
                         r"(?:(\d+(?:\.\d+)?)s)?")  # fmt: skip
_WITH_COLONS = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d)")


@dataclass(frozen=True)
class TimeLimit:
    """What is left of a job.

    Attributes
    ----------
    seconds_left : at the time that was given; None where no limit is known.
    source : where this comes from, or why nothing is known, for people.
    """

    seconds_left: float | None
    source: str


def read_duration_s(text: str) -> float:
    """Seconds of a duration as people write it.

    Examples
    --------
    >>> read_duration_s("1h30m"), read_duration_s("02:00:00"), read_duration_s("1-12:00:00")
    (5400.0, 7200.0, 129600.0)

    Raises
    ------
    SweepError
        If it is none, or not above 0.
    """
    written = text.strip().lower()
    if found := _WITH_COLONS.fullmatch(written):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        duration_s = days * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds
    elif written and (found := _WITH_UNITS.fullmatch(written)):
        parts = zip(found.groups(), _UNIT_S.values(), strict=True)
        duration_s = sum(float(part) * unit_s for part, unit_s in parts if part)
    else:
        raise SweepError(f"time limit = {text!r}: must be written as in {_FORMS}")
    if not 0 < duration_s < math.inf:
        raise SweepError(f"time limit = {text!r}: must be longer than nothing, as in {_FORMS}")
    return duration_s


def ask(command: list[str]) -> str:
    """What a program prints, if it ends well within some seconds.

    Raises
    ------
    OSError, subprocess.SubprocessError
        If it is not there, fails or hangs.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    return done.stdout


def find_time_limit(
    asked: str | None,
    environment: Mapping[str, str],
    now_s: float,
    ask: Callable[[list[str]], str] = ask,
) -> TimeLimit:
    """Seconds that this job has left.

    Parameters
    ----------
    asked : a duration, counted from now; "auto", to ask the batch system; None for no limit.
    environment : variables of this process.
    now_s : seconds since 1970, as `time.time` tells them.
    ask : runs a program and returns what it prints, see `ask`.

    Raises
    ------
    SweepError
        If `asked` is neither a duration nor "auto".
    """
    if asked is None:
        return TimeLimit(None, "no time limit was asked for")
    if asked.strip().lower() != AUTO:
        return TimeLimit(read_duration_s(asked), "--time-limit")
    return _from_slurm(environment, now_s, ask) or _from_pbs(environment) or TimeLimit(
        None,
        "no batch system says when this job ends (SLURM_JOB_END_TIME, squeue, PBS_WALLTIME), so it "
        "has no time limit; --time-limit 2h sets one",
    )  # fmt: skip


def _from_slurm(
    environment: Mapping[str, str], now_s: float, ask: Callable[[list[str]], str]
) -> TimeLimit | None:
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return None
    end = environment.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal():
        # Where there is no limit Slurm gives a year, which limits no sweep either.
        return TimeLimit(max(int(end) - now_s, 0.0), "SLURM_JOB_END_TIME")
    try:
        said = ask(["squeue", "-h", "-j", job, "-o", "%L"]).strip()
    except (OSError, subprocess.SubprocessError) as error:
        return TimeLimit(
            None,
            f"Slurm was asked when job {job} ends, but squeue failed ({error}), so there is no "
            "time limit; --time-limit 2h sets one",
        )
    if said == "UNLIMITED":
        return TimeLimit(None, f"Slurm says that job {job} has no time limit")
    seconds_left = _slurm_seconds(said)
    if seconds_left is None:
        return TimeLimit(
            None,
            f"squeue says that {said!r} is left of job {job}, which is no time, so there is no "
            "time limit; --time-limit 2h sets one",
        )
    return TimeLimit(seconds_left, "squeue")


def _slurm_seconds(said: str) -> float | None:
    """Seconds from [days-][hours:]minutes:seconds, the way squeue prints them; None for none."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", said)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds


def _from_pbs(environment: Mapping[str, str]) -> TimeLimit | None:
    """Torque tells what was asked for, in seconds, and not when the job began."""
    asked = environment.get("PBS_WALLTIME", "")
    if not asked.isdecimal():
        return None
    return TimeLimit(float(asked), "PBS_WALLTIME, counted from the start of minibutter")
