"""A study of numbers, as small as one can be: two stages of which the second follows the first."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import typer

from minibutter.cli.studying import run_and_show
from minibutter.studies.catalogue import StudyError
from minibutter.studies.study import (
    Conclusion,
    Course,
    Measurement,
    Measurements,
    Settings,
    Step,
    SweepStage,
)
from minibutter.studies.verdict import judge

KILL_AT = "TOY_KILL_AT"
"""Environment variable: the number at which the process that squares it is killed."""


def square(data_dir: Path | None, number: int) -> pd.DataFrame:
    if os.environ.get(KILL_AT) == str(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return pd.DataFrame({"square": [number**2], "pid": [os.getpid()]})


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a figure")


@dataclass(frozen=True)
class Toy:
    name: str = "toy"
    question: str = "do squares add up?"
    refusal: str = ""

    def outline(self, settings: Settings) -> list[Step]:
        return [Step("squares", "squares of numbers", 6, 0.1), Step("runs", "two runs", 2, 0.5)]

    def course(self, settings: Settings) -> Course:
        if self.refusal:
            raise StudyError(self.refusal)
        squares = yield Measurements(
            "squares",
            "squares of numbers",
            tuple(Measurement(square, {"number": n}, 6.0 - n) for n in range(6)),
        )
        results = yield SweepStage(
            "runs",
            "two runs of a small network",
            {
                "dataset": settings.dataset,
                "size": 200,
                "depth": 2,
                "shape": "rectangle",
                "epochs": 1 + int(squares["square"].max()) % 2,
                "repetitions": 2,
            },
        )
        total = float(squares["square"].sum())
        return Conclusion(
            (
                judge("sum", "the squares add up to 55", total, expected=(55, 55)),
                judge("epochs", "each run has two", len(results.epochs) / 2, expected=(2, 2)),
            ),
            {"squares": squares},
            {"squares": draw},
            {"n_runs": len(results.runs)},
        )


if __name__ == "__main__":
    try:
        run_and_show(Toy(), Settings("quick", "iris"), Path(sys.argv[1]), as_json=False)
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from None
