"""A batch script for Slurm: a sweep as a chain of jobs, each going on where the last one stopped.

Only text is made here; who reads it before submitting it knows what will happen. What differs from
site to site stands at the top, with a word on what to write.
"""

import re
import shlex
from pathlib import PurePath

from minibutter.sweeps.spec import SweepError
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP, read_duration_s

_SCRIPT = """\
#!/bin/bash
# {title}: submit with `sbatch FILE`. A job whose time is up before the sweep is done
# (exit code {time_is_up}) queues itself again and goes on from there. After anything else,
# `sbatch FILE` goes on too: only runs that are missing are done.

# ---- Edit: what your site calls things, and how much you want of them ----

{places}
# A longer job waits longer in the queue; what does not fit into one is left for a longer one.
#SBATCH --time={time}
# One rank is one core: as many ranks a node as it has cores, not threads.
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={ranks_per_node}
#SBATCH --ntasks-per-core=1
# Energy counters count whole packages: without this line, other people's jobs are in the joules.
#SBATCH --exclusive

# ---- For Slurm; nothing to edit. Slurm reads no such line after the first command. ----

#SBATCH --job-name={name}
#SBATCH --output=%x-%j.log
# One log for all jobs of the chain.
#SBATCH --open-mode=append
#SBATCH --requeue
# To the ranks, not to this shell: they end what they are doing, store it and leave.
#SBATCH --signal=USR1@{grace_s}

# ---- Edit: whatever makes the interpreter and its MPI work on a node, for example: ----

# module load openmpi

# How often a job may queue itself again; `minibutter sweep plan --ranks` says how many it takes.
max_restarts={max_restarts}

# ---- What is done; nothing to edit, but perhaps --mpi. ----

set -u

# A rank that starts threads fights with its neighbours for their cores.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1
# Slurm 23.02 loses messages that are received in two steps; harmless elsewhere.
export MPI4PY_RC_RECV_MPROBE=0

{mpi_comment}
status=0
srun --mpi={mpi} --cpu-bind=cores --distribution=block:block \\
  {command} || status=$?

if [ "$status" -eq {time_is_up} ]; then
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt "$max_restarts" ]; then
    echo "time is up; queued again"
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo "time is up, and the job was queued $max_restarts times: sbatch this file to go on" >&2
  fi
fi
exit "$status"
"""

_LIBRARIES = (
    # What the name contains, the flavour of PMI, what else to know; the first that fits.
    (r"open mpi|ompi", "pmix", "Open MPI speaks PMIx, and since version 5 nothing else."),
    (r"cray", "cray_shasta", "Cray MPICH speaks its own PMI."),
    (
        r"intel",
        "pmi2",
        "Intel MPI speaks PMI-2 through Slurm's library:\n"
        "# export I_MPI_PMI_LIBRARY=/usr/lib64/libpmi2.so",
    ),
    (r"mpich|mvapich", "pmi2", "MPICH speaks PMI-2."),
)


def choose_pmi(library: str | None) -> tuple[str, str]:
    """How `srun` starts ranks of this MPI: the value of `--mpi`, and why.

    With another one every process believes that it is alone, and would do the whole sweep.

    Parameters
    ----------
    library : name and version, as MPI_Get_library_version tells them; None where it is not known.
    """
    for pattern, pmi, reason in _LIBRARIES:
        if library is not None and re.search(pattern, library, re.IGNORECASE):
            return pmi, reason
    known = f"{library} is not known here" if library else "no MPI was found where this was written"
    return "pmix", f"{known}: PMIx is a guess."


def make_script(
    sweep: str,
    *,
    python: str,
    time_limit: str = "24h",
    nodes: int = 1,
    ranks_per_node: int = 32,
    partition: str | None = None,
    account: str | None = None,
    options: tuple[str, ...] = (),
    library: str | None = None,
    grace_s: int = 300,
    max_restarts: int = 100,
) -> str:
    """The text of a batch script.

    Parameters
    ----------
    sweep : TOML file, as seen from the folder where the job is submitted, or a name from the
        catalogue.
    python : interpreter that has minibutter.
    time_limit : of a job, as in "24h" or "1-00:00:00".
    nodes, ranks_per_node : size of a job.
    partition, account : as Slurm calls them; None leaves a line to be filled in.
    options : more for `minibutter sweep run`, as in ("--out", "results/all").
    library : MPI that mpi4py loads, see `choose_pmi`.
    grace_s : seconds before the end at which the ranks are told.
    max_restarts : how often a job may queue itself again.

    Raises
    ------
    SweepError
        If the time is no duration or no longer than the grace, there is nobody to run it, or a
        partition or account cannot be the name of one.
    """
    duration_s = int(read_duration_s(time_limit))
    if duration_s <= grace_s:
        raise SweepError(
            f"time limit = {time_limit!r}: {grace_s} s of it are for ending in good order, so it "
            "must be longer than that"
        )
    if nodes < 1 or ranks_per_node < 1:
        raise SweepError(
            f"nodes = {nodes}, ranks per node = {ranks_per_node}: must be at least 1 each"
        )
    pmi, reason = choose_pmi(library)
    # A name without blanks, that is no option and no pattern of Slurm's.
    name = re.sub(r"[^\w.-]", "_", PurePath(sweep).stem).lstrip("-.") or "sweep"
    arguments = ("-m", "minibutter", "sweep", "run", sweep, *options, "--time-limit", "auto")
    return _SCRIPT.format(
        title=name,
        time_is_up=EXIT_TIME_IS_UP,
        places=_places(partition, account),
        time=_slurm_time(duration_s),
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        max_restarts=max_restarts,
        name=f"minibutter-{name}",
        grace_s=grace_s,
        mpi_comment=_comment(
            f'{reason}\nIf there are as many "1 rank" in the log as ranks, or srun knows no such '
            "PMI: `srun --mpi=list`\nsays what there is."
        ),
        mpi=pmi,
        command=shlex.join((python, *arguments)),
    )


def _places(partition: str | None, account: str | None) -> str:
    """The lines that say where a job is run and who pays; open ones are comments of Slurm's."""
    lines = []
    if partition is None or account is None:
        lines.append(
            "# Remove one # and write what `sinfo` and `sacctmgr show associations user=$USER` "
            "list."
        )
    for option, name in (("partition", partition), ("account", account)):
        if name is None:
            lines.append(f"##SBATCH --{option}={option.upper()}")
        elif re.fullmatch(r"[\w.,@+-]+", name):
            lines.append(f"#SBATCH --{option}={name}")
        else:
            raise SweepError(f"{option} = {name!r}: a name in Slurm has no blanks or quotes")
    return "\n".join(lines)


def _slurm_time(seconds: int) -> str:
    """Days-hours:minutes:seconds."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


def _comment(text: str) -> str:
    return "\n".join(line if line.startswith("#") else f"# {line}" for line in text.splitlines())
