"""docs/studies/noise-scale.md: its code runs, and its figures and modules exist."""

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "studies" / "noise-scale.md"
TEXT = PAGE.read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_snippets_run_one_after_the_other():
    names = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, PAGE.name, "exec"), names)
    assert len(SNIPPETS) >= 2


@pytest.mark.parametrize("figure", re.findall(r"\]\((\S+\.png)\)", TEXT))
def test_figures_are_there_and_small(figure):
    assert (PAGE.parent / figure).stat().st_size < 150_000


def test_modules_of_the_stages_exist():
    rows = re.findall(r"^\| .*\| ((?:`\w+`(?:, )?)+) \|$", TEXT, flags=re.MULTILINE)
    modules = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(modules) >= 9
    for name in modules:
        assert import_module(f"minibutter.studies.noise_scale.{name}").__doc__
