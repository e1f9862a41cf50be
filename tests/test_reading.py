"""docs/reading.md: its code runs, and the tests that it names exist."""

import re
from pathlib import Path

import numba
import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "reading.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: f"{len(snippet)} characters")
def test_snippet_runs(snippet, capsys):
    if "inspect_asm" in snippet and numba.config.DISABLE_JIT:
        pytest.skip("without the JIT there is no assembly")
    exec(compile(snippet, "reading.md", "exec"), {})
    if "inspect_asm" in snippet:
        assert capsys.readouterr().out.strip()


def test_every_answer_is_a_test():
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= 8
    assert not {name for name in named if f"def {name}(" not in tests}


def test_every_file_that_is_named_exists():
    named = {name for name in re.findall(r"`([\w/]+\.py)`", TEXT) if name != "step.py"}
    places = [ROOT, ROOT / "tests", ROOT / "tests/nn", ROOT / "minibutter", ROOT / "minibutter/nn",
              ROOT / "minibutter/nn/kernels"]  # fmt: skip
    missing = {name for name in named if not any((place / name).is_file() for place in places)}
    assert not missing
