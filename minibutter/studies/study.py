"""What a study is: stages that follow from one another, and what is concluded from their tables.

A study is a generator. It yields a stage, gets that stage's results back, and so may choose the
next stage by what the last one found; what it returns is its conclusion. It knows nothing of ranks,
files or terminals: `minibutter.launch.studying` does the stages on all ranks, keeps every finished
piece on the disk, and goes on from there when it is started again.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import pandas as pd

from minibutter.studies.verdict import Criterion
from minibutter.sweeps.identity import experiment_id

Scale = Literal["quick", "full"]


@dataclass(frozen=True)
class Settings:
    """What the user chooses.

    Attributes
    ----------
    scale : "quick", some minutes on two cores, or "full".
    dataset : name of a data set, as sweeps take it.
    data_dir : where local data sets lie; no result depends on it.
    seed : of everything random.
    """

    scale: Scale
    dataset: str
    data_dir: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """One piece of a stage: done by one rank, without a break, and kept as a table.

    Attributes
    ----------
    function : of a module, called with `data_dir` and the arguments by name; returns a DataFrame.
        The same arguments must give the same table on any rank, or a restart would mix two.
    arguments : plain values (text, numbers, lists, None), which are the identity of the piece.
    predicted_s : about how long it takes on one core; the longest are begun first.
    """

    function: Callable[..., pd.DataFrame]
    arguments: Mapping[str, Any]
    predicted_s: float

    @property
    def id(self) -> str:
        """32 hexadecimal digits, of the function's name and the arguments."""
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        return experiment_id({"function": name, "arguments": dict(self.arguments)})


@dataclass(frozen=True)
class Measurements:
    """A stage of pieces that do not depend on each other.

    Its result is one DataFrame: the tables of all pieces in the order given here, with a column for
    every plain argument that the tables do not have themselves; without pieces, an empty one.

    Attributes
    ----------
    name : for a folder, unique in the study.
    description : what is measured, for people.
    pieces : with different arguments.
    """

    name: str
    description: str
    pieces: tuple[Measurement, ...]


@dataclass(frozen=True)
class SweepStage:
    """A stage of ordinary runs.

    Its result is a `SweepResults`.

    Attributes
    ----------
    name : for a folder, unique in the study.
    description : what is trained, for people.
    document : the sweep as a TOML file would have it, read.
    """

    name: str
    description: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class SweepResults:
    """Tables of a sweep that has ended.

    Attributes
    ----------
    runs : one row a run, columns of `runs`.
    epochs : one row a run and epoch.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame


Stage = Measurements | SweepStage


@dataclass(frozen=True)
class Step:
    """What a dry run says of a stage before anything is known.

    Attributes
    ----------
    name, description : of the stage.
    pieces : at most so many measurements or runs.
    core_s : about so much time of one core, all pieces together.
    """

    name: str
    description: str
    pieces: int
    core_s: float

    @classmethod
    def of(cls, stage: Measurements) -> Self:
        """Of a stage with all the pieces that it may have."""
        core_s = sum(piece.predicted_s for piece in stage.pieces)
        return cls(stage.name, stage.description, len(stage.pieces), core_s)


@dataclass(frozen=True)
class Conclusion:
    """What a study returns.

    Attributes
    ----------
    criteria : what became of the paper's statements.
    tables : by name, what the figures show; written as Parquet and CSV.
    figures : by name, a function that draws to a path, whose ending chooses the format.
    context : what else a reader of the verdict must know: sizes, rates, goals.
    """

    criteria: tuple[Criterion, ...]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Callable[[Path], None]]
    context: Mapping[str, Any] = field(default_factory=dict)


Course = Generator[Stage, Any, Conclusion]


class Study(Protocol):
    """A question with its stages.

    Attributes
    ----------
    name : as on the command line.
    question : one line.
    """

    name: str
    question: str

    def outline(self, settings: Settings) -> list[Step]:
        """All stages that may come, with what they take; for `--dry-run`."""

    def course(self, settings: Settings) -> Course:
        """The stages, one after the other; runs on rank 0 only."""
