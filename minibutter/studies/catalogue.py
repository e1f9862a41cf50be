"""The studies by name; each is imported when it is asked for."""

from importlib import import_module

from minibutter.studies.study import Study

STUDIES: dict[str, str] = {
    "noise-scale": "minibutter.studies.noise_scale.study",
    "width": "minibutter.studies.width.study",
    "instability": "minibutter.studies.instability.study",
}
"""Module of every study; its `STUDY` is the study."""


class StudyError(ValueError):
    """A study cannot be done as asked; the message says what to do."""


def find_study(name: str) -> Study:
    """The study with this name.

    Raises
    ------
    StudyError
        If there is none.
    """
    if name not in STUDIES:
        raise StudyError(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    return import_module(STUDIES[name]).STUDY
