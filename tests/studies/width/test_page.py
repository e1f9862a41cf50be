"""docs/studies/width.md: its code runs, and its figures are there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "studies" / "width.md"
TEXT = PAGE.read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
FIGURES = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: f"{len(snippet)} characters")
def test_snippet_runs(snippet):
    exec(compile(snippet, str(PAGE), "exec"), {})


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_there(name):
    assert 5_000 < (PAGE.parent / name).stat().st_size < 150_000


def test_the_page_has_both():
    assert len(SNIPPETS) == 2
    assert len(FIGURES) == 5
