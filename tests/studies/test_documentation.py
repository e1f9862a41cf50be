"""docs/studies.md: its code runs, and what it names exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
NAMES = sorted(set(re.findall(r"`((?:nn|noise_scale|studies)\.[\w.]+)`", TEXT)))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: f"{len(snippet)} characters")
def test_snippet_runs(snippet):
    exec(compile(snippet, "studies.md", "exec"), {})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_exists(name):
    module, *attributes = re.split(r"\.(?=[A-Z])|\.(?=\w+$)", f"minibutter.{name}")
    found = import_module(module)
    for attribute in attributes:
        found = getattr(found, attribute)
    assert found.__doc__


def test_all_instruments_are_named():
    assert len(SNIPPETS) == 1
    assert len(NAMES) >= 12
