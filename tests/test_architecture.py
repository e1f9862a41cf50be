"""The walls between the rooms, and what importing the package must not do."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minibutter

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_no_room_imports_through_a_wall():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = "numba numpy pandas pyarrow mpi4py typer pydantic sklearn matplotlib"
    code = f"import sys, minibutter; print(*[m for m in '{heavy}'.split() if m in sys.modules])"
    assert run_python(code) == ""


@pytest.mark.parametrize("module", ["minibutter.cli", "minibutter.launch", "minibutter.runs"])
def test_importing_a_room_starts_no_mpi_and_draws_nothing(module):
    code = (
        f"import sys, {module}; print(*[m for m in ('mpi4py', 'matplotlib') if m in sys.modules])"
    )
    assert run_python(code) == ""


def test_the_version_is_the_same_everywhere():
    assert minibutter.__version__ == PROJECT["project"]["version"]
    assert f"## {minibutter.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_two_lists_of_metrics_agree():
    """nn and store must not know each other, so each has the ten names."""
    from minibutter.nn.kernels.metrics import METRICS
    from minibutter.store import METRICS as STORED

    assert METRICS == STORED


def test_every_dependency_has_its_line_of_reason():
    text = (REPOSITORY / "pyproject.toml").read_text()
    for requirement in PROJECT["project"]["dependencies"]:
        line = next(line for line in text.splitlines() if f'"{requirement}"' in line)
        assert "# " in line, line
