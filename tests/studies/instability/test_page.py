"""docs/studies/instability.md: its code runs, its figures and what it names exist."""

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "studies" / "instability.md"
TEXT = PAGE.read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_snippets_run_one_after_the_other():
    assert len(SNIPPETS) == 4
    names: dict = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "instability.md", "exec"), names)
    # What the page says of the folded step.
    assert (names["moved"](names["folded"], 3) == names["moved"](names["folded"], 1)).all()


@pytest.mark.parametrize("name", re.findall(r"\]\(([\w/.]+\.png)\)", TEXT))
def test_figures_are_there_and_small(name):
    assert (PAGE.parent / name).stat().st_size < 150_000


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(studies\.[\w.]+)`", TEXT))))
def test_what_is_named_exists(name):
    assert import_module(f"minibutter.{name}").__doc__
