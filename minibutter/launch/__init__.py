"""A sweep over ranks: who runs what, who says how far it is, and how it ends.

Rank 0 reads the sweep, looks into the directory for what is done already, and tells everybody the
list of what is missing, in groups of repetitions that are trained together. Whoever has nothing
left to do asks rank 0 for more, and gets the largest groups first. All ranks train, rank 0 too.
Runs with slices come before: all ranks train them together, one after the other (`together`).
Results go straight from each rank to its own shards; messages carry grants and progress only. The
same code runs without MPI, as one rank.
"""

from minibutter.launch.job import Job, prepare_job
from minibutter.launch.plain import (
    PlainReporter,
    closing_lines,
    main,
    opening_lines,
    remaining_s,
)
from minibutter.launch.ranks import (
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    INTERRUPTED,
    Alone,
    LaunchRefused,
    Progress,
    Team,
    find_mpi_library,
    find_ranks,
)
from minibutter.launch.stopping import LEFT_AT_ONCE, StopNow
from minibutter.launch.studying import StudyOutcome, StudyReporter, run_study
from minibutter.launch.sweep import (
    Outcome,
    Reporter,
    run_sweep,
)

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_REFUSED",
    "INTERRUPTED",
    "LEFT_AT_ONCE",
    "Alone",
    "Job",
    "LaunchRefused",
    "Outcome",
    "PlainReporter",
    "Progress",
    "Reporter",
    "StopNow",
    "StudyOutcome",
    "StudyReporter",
    "Team",
    "closing_lines",
    "find_mpi_library",
    "find_ranks",
    "main",
    "opening_lines",
    "prepare_job",
    "remaining_s",
    "run_study",
    "run_sweep",
]
