"""docs/data_parallel.md: its sweep is one, and its code runs."""

import re
import tomllib
from pathlib import Path

from minibutter.experiments import plan_experiments
from minibutter.sweeps.spec import parse_sweep

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "data_parallel.md").read_text()


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def test_the_sweep_of_the_guide_can_be_run():
    (block,) = _blocks("toml")
    experiments = plan_experiments(parse_sweep(tomllib.loads(block), "guide.toml"))
    assert [(each.spec.slices, each.problem) for each in experiments] == [(8, None)] * 2


def test_the_code_of_the_guide_finds_noise(capsys):
    (block,) = _blocks("python")
    exec(compile(block, "docs/data_parallel.md", "exec"), {})
    assert 1 < float(capsys.readouterr().out) < 1000


def test_what_the_guide_names_exists():
    for name in re.findall(r"`(nn/\w+\.py|tests/[\w/]+\.py)`", TEXT):
        assert (ROOT / name).exists() or (ROOT / "minibutter" / name).exists(), name
