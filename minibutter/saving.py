"""Runs that last are kept while they are trained, and go on where they were.

A checkpoint is used only where it leads to the bits of an undisturbed run: written by the same
kernels, compilers and libraries on the same model of processor, whole, and of the same data.
Anything else is left alone with a note, and the run starts anew.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minibutter import store
from minibutter.courses import Course, Ending
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels.jit import code_id
from minibutter.nn.starts import Start
from minibutter.nn.state import TrainingState
from minibutter.provenance import Provenance

CHECKPOINT_S = 600.0
"""Seconds between two checkpoints, so that runs which do not last have none.

The least is lost, to first order, with √(2 C M) seconds, where a checkpoint takes C seconds and
failures are M apart (Young 1974, Communications of the ACM 17(9)): 588 for C = 2, which is 200 MB
of a large network on a shared disk, and M = one day. The optimum is flat."""

LEAST_PROGRESS_S = 0.5
"""Where a run is asked to stop, less than this is sooner trained again than written and read."""

_DECISIVE = (
    *("minibutter_version", "cpu_model", "blas"),
    *("python_version", "numpy_version", "numba_version", "llvmlite_version"),
)
"""Of the provenance: what the bits of a run depend on, besides its specification."""


class Saver:
    """The checkpoints of runs that are trained together, or one group after the other.

    Parameters
    ----------
    directory : of the sweep; None: nothing is kept, and nothing found.
    interval_s : between two checkpoints.
    provenance : of this process.
    on_note : called with what people should know, one sentence each.
    clock : returns seconds; monotonic.
    """

    def __init__(
        self,
        directory: Path | None,
        interval_s: float,
        provenance: Provenance,
        on_note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._interval_s = directory, interval_s
        self._on_note, self._clock = on_note, clock
        self._said: set[str] = set()
        self._last_s = clock()
        self._origin: dict[str, Any] = {}
        if directory is not None:
            columns = provenance.columns()
            self._origin = {name: columns[name] for name in _DECISIVE} | {"kernels": code_id()}

    def resume(self, run_id: str, start: Start) -> tuple[Start, Course]:
        """Where a run goes on: from its checkpoint if it has one that can be used.

        Parameters
        ----------
        run_id : of the run.
        start : its begin.
        """
        fresh = start, Course(run_id)
        if self._directory is None:
            return fresh
        try:
            kept = store.read_checkpoint(self._directory, run_id)
            if kept is None:
                return fresh
            self._check_origin(kept.record["origin"])
            state = TrainingState.from_arrays(kept.arrays)
            if state.epochs != len(kept.epochs["epoch"]):
                raise ValueError(
                    f"the state is that after {state.epochs} epochs, and there are rows of "
                    f"{len(kept.epochs['epoch'])}"
                )
            return start.resumed(state), Course(run_id, kept.epochs, kept.record)
        except (store.StoreError, ValueError, LookupError, TypeError) as problem:
            self._on_note(f"the checkpoint of run {run_id} is not used, it starts anew: {problem}")
            return fresh

    def begin(self) -> None:
        """A group begins to be trained now."""
        self._last_s = self._clock()

    def is_due(self, is_last: bool) -> bool:
        """Whether to keep what has been trained since `begin` or the last checkpoint.

        Parameters
        ----------
        is_last : whether training stops now, so that little progress is worth a checkpoint, too.
        """
        if self._directory is None:
            return False
        worth_s = min(LEAST_PROGRESS_S, self._interval_s) if is_last else self._interval_s
        return self._clock() - self._last_s >= worth_s

    def save(
        self, group: TrainingGroup, courses: Sequence[Course], ending: Ending, is_last: bool
    ) -> None:
        """Write a checkpoint of every repetition that has not ended; a disk that is full stops
        none of them.

        Parameters
        ----------
        group : with the repetitions of `courses`, in their order.
        ending : what was measured of them so far.
        is_last : whether training stops now.
        """
        for repetition, course in enumerate(courses):
            if course.outcome is not None:
                continue
            epochs, record = course.keep(ending, is_last)
            try:
                arrays = group.state(repetition).arrays()
                record |= {"origin": self._origin}
                store.write_checkpoint(
                    self._directory, store.Checkpoint(course.run_id, arrays, epochs, record)
                )
            except (OSError, MemoryError) as error:
                why = str(error) or type(error).__name__
                self._note_once(
                    f"a checkpoint cannot be written ({why}): training goes on, and a kill would "
                    "cost all since the last one"
                )
        self._last_s = self._clock()

    def _check_origin(self, origin: dict[str, Any]) -> None:
        """Raise ValueError unless what wrote a checkpoint computes the bits of this process."""
        for name, here in self._origin.items():
            if origin.get(name) != here:
                raise ValueError(
                    f"{name} was {origin.get(name)}, here it is {here}, and other bits might follow"
                )

    def _note_once(self, note: str) -> None:
        if note not in self._said:
            self._said.add(note)
            self._on_note(note)
