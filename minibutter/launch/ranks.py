"""Ranks and what they tell each other: how far they are, and that it is over.

The only module that knows mpi4py, and only under a launcher. A rank that waits sleeps; a spinning
one would burn the energy that its neighbours measure. Only ranks that train a network together spin
within a step, where sleep would take longer than what they wait for. An exception on one rank stops
all of them: the others would wait for it for ever (mpi4py documentation, "mpi4py.run").
"""

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from minibutter.energy.environment import read_boot_id
from minibutter.launch.stopping import LEFT_AT_ONCE, StopNow
from minibutter.nn.partners import Parcels
from minibutter.store import StoreError
from minibutter.sweeps.timelimit import EXIT_TIME_IS_UP

NAP_S = 0.02
"""Pause between two looks at the mailbox."""

SHORTEST_NAP_S = 0.0002
"""Pause of a rank that has just come to a meeting."""

SHORT_NAPS_S = 0.05
"""For so long the naps of whoever waits for an answer stay short: longer ones would double it."""

LONGEST_SPIN_S = 0.05
"""For so long a rank spins that waits within a step for the others: they come in microseconds, or
are held up by something that takes much longer, such as a disk."""

FORWARDING_S = 1.0
"""Left to the launcher for passing on the last words: MPICH's kills the ranks as soon as one aborts
and drops what it has not read by then (seen once in 60 on a busy machine)."""

EXIT_BUG, EXIT_REFUSED = 1, 2
EXIT_INTERRUPTED = 130  # as shells say it: 128 + SIGINT
INTERRUPTED = "\nstopped; the same command goes on from here"

_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class LaunchRefused(Exception):
    """A sweep cannot start as asked. Raised on all ranks, so that all end alike.

    The message says what to do; only rank 0 has one, so that it is printed once.
    """


@dataclass
class Progress:
    """How far one rank is; every message replaces the one before.

    Attributes
    ----------
    n_runs, n_failed, n_diverged : finished runs, and how many of them failed or diverged.
    work : predicted cost of what is done, the current run's epochs included.
    current : what is being trained, for people.
    is_done : whether the rank has nothing left.
    is_asked_to_stop : whether a signal has asked this rank to end early.
    """

    rank: int = 0
    n_runs: int = 0
    n_failed: int = 0
    n_diverged: int = 0
    work: float = 0.0
    current: str = ""
    is_done: bool = False
    is_asked_to_stop: bool = False


class Circle:
    """Ranks that meet: those of a node, or of a gang; one, where there is no MPI.

    Attributes
    ----------
    rank, size : of this circle.
    """

    rank, size = 0, 1

    def meet(self, value: Any = None, meanwhile: Callable[[], None] | None = None) -> list[Any]:
        """Wait until all have come, and hear what each of them says, in the order of ranks.

        Who is early sleeps.

        Parameters
        ----------
        meanwhile : called now and then while this rank waits.
        """
        return [value]

    def exchange(self, outgoing: Parcels, incoming: Parcels) -> None:
        """Move arrays between the ranks, see `nn.partners`. Who is early spins, for a while."""

    def split(self, key: Hashable) -> "Circle":
        """The ranks that give the same key."""
        return self


class _MpiCircle(Circle):
    """A communicator whose barriers do not spin."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size

    def meet(self, value: Any = None, meanwhile: Callable[[], None] | None = None) -> list[Any]:
        if self.size == 1:
            return [value]
        arrived = self._comm.Ibarrier()
        # Short at first, for those who come together; long where a rank waits for minutes.
        nap_s = SHORTEST_NAP_S
        while not arrived.Test():
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, NAP_S)
            if meanwhile is not None:
                meanwhile()
        return self._comm.allgather(value)

    def exchange(self, outgoing: Parcels, incoming: Parcels) -> None:
        requests = [self._comm.Irecv(array, source=rank) for rank, array in incoming]
        requests += [self._comm.Isend(array, dest=rank) for rank, array in outgoing]
        if not requests:
            return
        give_up_s = time.perf_counter() + LONGEST_SPIN_S
        while not requests[0].Testall(requests):
            if time.perf_counter() < give_up_s:
                os.sched_yield()  # Where ranks share a core, the other one has work to do.
            else:
                time.sleep(SHORTEST_NAP_S)

    def split(self, key: Hashable) -> Circle:
        keys = self.meet(key)
        return _MpiCircle(self._comm.Split(keys.index(key), self.rank))


class Alone:
    """One rank without MPI."""

    rank, size, has_threads = 0, 1, False
    everybody = node = Circle()

    def broadcast(self, value: Any) -> Any:
        return value

    def send(self, message: Progress | tuple[Any, ...]) -> None:
        """There is nobody to tell."""

    def receive_mail(self) -> Iterator[tuple[int, Any]]:
        return iter(())

    def tell_to_stop(self) -> None:
        """There is nobody to tell."""

    def is_told_to_stop(self) -> bool:
        return False

    def part(self) -> None:
        """There is nobody to wait for."""

    def abort(self, cause: BaseException) -> None:
        """There is nobody to stop; the exception goes on."""


class Team:
    """The ranks of an MPI launcher.

    Attributes
    ----------
    everybody : all of them. node : those that run on the same kernel, whatever their containers.
    """

    _FAREWELL_TAG, _READY_TAG = 2, 3
    _MAIL_TAG, _ANSWER_TAG, _STOP_TAG = 1, 4, 5

    def __init__(self) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = MPI.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        _refuse_another_mpi(self.size, MPI.Get_library_version().split("\n")[0])
        self.has_threads = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        # Of its own: on rank 0 a thread reads it while the main thread meets others elsewhere.
        self._mail = self._comm.Dup()
        self._is_told = False
        self.everybody = _MpiCircle(self._comm.Dup())
        self.node = self.everybody.split(self._find_node())
        self._sends: list = []
        self._answers: list = []

    def _find_node(self) -> Hashable:
        """What all ranks of this kernel have in common and no others.

        Ranks that share memory do, but containers of one kernel may not share it, and its counters
        must have one reader. So the kernel's own name for its present life counts where there is
        one.
        """
        sharing = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        first = sharing.allreduce(self.rank, op=self._mpi.MIN)
        sharing.Free()
        boot_id = read_boot_id()
        return first if boot_id is None else boot_id

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank; the others sleep until it is there."""
        if self.rank == 0:
            for rank in range(1, self.size):
                self._sends.append(self._comm.isend(None, dest=rank, tag=self._READY_TAG))
        else:
            self._await(self._READY_TAG)
        return self._comm.bcast(value, root=0)

    def send(self, message: Progress | tuple[Any, ...]) -> None:
        """Post a message to rank 0 without waiting for it to be read: how far this rank is, or a
        question, whose answer `receive_answer` waits for."""
        self._sends = [request for request in self._sends if not request.Test()]
        self._sends.append(self._mail.isend(message, dest=0, tag=self._MAIL_TAG))

    def ask(self, question: tuple[Any, ...]) -> Any:
        """Rank 0's answer to another rank's question; sleeps until it is there."""
        self.send(question)
        return self.receive_answer()

    def receive_answer(self) -> Any:
        """Rank 0's answer to the question that was sent last; sleeps until it is there."""
        # An answer takes a millisecond or two: longer naps are for a rank 0 without threads.
        asked_s = time.perf_counter()
        while not self._mail.iprobe(source=0, tag=self._ANSWER_TAG):
            is_early = time.perf_counter() - asked_s < SHORT_NAPS_S
            time.sleep(SHORTEST_NAP_S if is_early else NAP_S)
        return self._mail.recv(source=0, tag=self._ANSWER_TAG)

    def answer(self, rank: int, value: Any) -> None:
        """On rank 0: answer a question."""
        self._answers.append(self._mail.isend(value, dest=rank, tag=self._ANSWER_TAG))
        # Behind what somebody waits for: every call gives the interpreter's lock away.
        self._answers = [request for request in self._answers if not request.Test()]

    def receive_mail(self) -> Iterator[tuple[int, Any]]:
        """On rank 0: who has written, and what."""
        status = self._mpi.Status()
        while self._mail.iprobe(tag=self._MAIL_TAG, status=status):
            rank = status.source
            yield rank, self._mail.recv(source=rank, tag=self._MAIL_TAG)

    def tell_to_stop(self) -> None:
        """On rank 0: ask all others to end at their next epoch."""
        for rank in range(1, self.size):
            # Not among the answers, which a thread may be looking through.
            self._sends.append(self._mail.isend(None, dest=rank, tag=self._STOP_TAG))

    def is_told_to_stop(self) -> bool:
        """Whether rank 0 has asked this one to end."""
        if not self._is_told and self.rank != 0:
            self._is_told = self._mail.iprobe(source=0, tag=self._STOP_TAG)
        return self._is_told

    def part(self) -> None:
        """Sleep until rank 0 says that all is done, so that nobody spins in MPI_Finalize."""
        if self.rank == 0:
            requests = [
                self._comm.isend(None, dest=rank, tag=self._FAREWELL_TAG)
                for rank in range(1, self.size)
            ]
            while not self._mpi.Request.Testall(requests):
                time.sleep(NAP_S)
            return
        self._await(self._FAREWELL_TAG)
        if self.is_told_to_stop():
            self._mail.recv(source=0, tag=self._STOP_TAG)
        self._mpi.Request.Waitall(self._sends)

    def abort(self, cause: BaseException) -> None:
        """Say what happened where, and stop every rank: the others would wait for ever."""
        if isinstance(cause, KeyboardInterrupt):
            code, message = EXIT_INTERRUPTED, INTERRUPTED if self.rank == 0 else ""
        elif isinstance(cause, StopNow):
            code, message = EXIT_TIME_IS_UP, f"rank {self.rank}: {cause}: {LEFT_AT_ONCE}"
        elif isinstance(cause, StoreError):
            code, message = EXIT_REFUSED, f"error: rank {self.rank} of {self.size}: {cause}"
        else:
            lines = "".join(traceback.format_exception(cause))
            code, message = EXIT_BUG, f"rank {self.rank} of {self.size} failed:\n{lines}"
        print(message, file=sys.stderr, flush=True)
        time.sleep(FORWARDING_S)
        self._comm.Abort(code)
        # MPICH's Abort may return before the launcher's signal arrives.
        os._exit(code)

    def _await(self, tag: int) -> None:
        """Sleep until rank 0 has sent an empty message with this tag."""
        while not self._comm.iprobe(source=0, tag=tag):
            time.sleep(NAP_S)
        self._comm.recv(source=0, tag=tag)


_NAME_LIBRARY = (
    "import mpi4py; mpi4py.rc.initialize = False; "
    "from mpi4py import MPI; print(MPI.Get_library_version())"
)


def find_mpi_library() -> str | None:
    """Name and version of the MPI that mpi4py would load; None if it can load none.

    A process of its own looks, and does not start MPI: once loaded, a library stays, and one that
    does not fit may end the process that loads it.
    """
    command = [sys.executable, "-c", _NAME_LIBRARY]
    try:
        named = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return " ".join(named.stdout.partition("\n")[0].split()) or None


def find_ranks() -> Alone | Team:
    """The ranks that the launcher started; one, without MPI, where there is no launcher."""
    if any(variable in os.environ for variable in _RANK_VARIABLES):
        return Team()
    return Alone()


def refuse_lonely_tasks(environment: Mapping[str, str] = os.environ) -> None:
    """Tasks of one `srun` that is not told which MPI to serve do not know each other: each would do
    the whole sweep.

    Raises
    ------
    LaunchRefused
        If this process is one of several such tasks.
    """
    n_tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if not n_tasks.isdecimal() or int(n_tasks) == 1:
        return
    raise LaunchRefused(
        f"srun started {n_tasks} tasks, but none knows the others: use srun --mpi=pmi2, or what "
        "`srun --mpi=list` has for the MPI of mpi4py, or mpirun; --shard I/K needs no MPI"
        if environment.get("SLURM_PROCID", "0") == "0"
        else ""
    )


def _refuse_another_mpi(size: int, library: str) -> None:
    """An mpirun of another MPI starts processes that do not know each other: each would be rank 0
    of 1 and do the whole sweep.

    Raises
    ------
    LaunchRefused
        If the launcher's number of processes is not that of the communicator.
    """
    started = next((int(os.environ[name]) for name in _SIZE_VARIABLES if name in os.environ), size)
    if started == size:
        return
    is_first = all(os.environ.get(name, "0") == "0" for name in _RANK_VARIABLES)
    raise LaunchRefused(
        f"the launcher started {started} processes, but for mpi4py, which uses {library}, there "
        f"are {size}: use the mpirun of that MPI, or make mpi4py load the launcher's"
        if is_first
        else ""
    )
