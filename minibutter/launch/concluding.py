"""The end of a study: its tables, figures and verdict on the disk, and where they came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibutter import store
from minibutter.provenance import read_provenance
from minibutter.studies.study import Conclusion, Settings, Study
from minibutter.studies.verdict import Verdict

FIGURE_FORMATS = ("png", "svg")


@dataclass(frozen=True)
class StudyOutcome:
    """What a study came to.

    Attributes
    ----------
    verdict : also in `verdict.json`.
    out : directory of everything.
    tables, figures : the files written.
    """

    verdict: Verdict
    out: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]


class Origins:
    """Who measured the pieces of a study, and for how long; on rank 0.

    Attributes
    ----------
    pieces : how many.
    measured_s : that they took one by one, added up, whichever start of the study made them.
    """

    _NAMES = ("minibutter_version", "git_commit", "cpu_model")

    def __init__(self) -> None:
        self.pieces, self.measured_s = 0, 0.0
        self._found: list[dict[str, Any]] = []

    def add(self, about: Mapping[str, Any]) -> None:
        """Count a piece with what was written beside it."""
        self.pieces += 1
        self.measured_s += about["duration_s"]
        origin = {name: about["provenance"][name] for name in self._NAMES}
        if origin not in self._found:
            self._found.append(origin)

    def context(self) -> dict[str, Any]:
        """For the verdict; more than one origin where the study went on elsewhere."""
        return {"pieces": self.pieces, "measured_s": self.measured_s, "measured_by": self._found}


def conclude(
    study: Study,
    settings: Settings,
    out: Path,
    conclusion: Conclusion,
    duration_s: float,
    origins: Origins,
) -> StudyOutcome:
    """Write what a study came to; on rank 0.

    Parameters
    ----------
    out : its directory.
    duration_s : of this start.
    origins : of all measurements, those of earlier starts included.

    Raises
    ------
    StoreError
        If the system does not take a file.
    """
    context = {
        "question": study.question,
        "dataset": settings.dataset,
        "seed": settings.seed,
        **conclusion.context,
        "duration_s": duration_s,
        **origins.context(),
        "provenance": read_provenance().columns(),
    }
    verdict = Verdict(study.name, settings.scale, conclusion.criteria, context)
    tables, figures = [], []
    for name, table in conclusion.tables.items():
        store.write_study_table(out / "tables", name, table)
        tables.append(out / "tables" / f"{name}.parquet")
    for name, draw in conclusion.figures.items():
        for ending in FIGURE_FORMATS:
            path = out / "figures" / f"{name}.{ending}"
            with store.saying(f"cannot write {path}"):
                draw(path)
            figures.append(path)
    with store.saying(f"cannot write {out / 'verdict.json'}"):
        store.replace_file(out / "verdict.json", verdict.to_json())
    return StudyOutcome(verdict, out, tuple(tables), tuple(figures))
