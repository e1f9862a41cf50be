"""Where the tests find real data: files that are not part of the repository.

The folder is that of MINIBUTTER_TEST_DATA, else `shared/data` beside the repository. Tests that
need it are skipped, with the reason, where it is absent.
"""

import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minibutter import calibration, cli, hierarchy
from minibutter.datasets.idx import load_idx
from minibutter.energy.topology import Topology, read_topology
from minibutter.experiments import Experiment, plan_experiment
from minibutter.sweeps.spec import RunSpec
from tests.machines import PROFILES, FakeMachine


def _test_data(name: str) -> Path:
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MINIBUTTER_TEST_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}; MINIBUTTER_TEST_DATA can name another")
    return folder


@pytest.fixture(autouse=True)
def kept_calibration(tmp_path_factory, monkeypatch) -> Path:
    """Where this machine's calibration would be: a file of the test's own, which is not there."""
    path = tmp_path_factory.getbasetemp() / "calibrations" / f"{uuid.uuid4().hex}.json"
    monkeypatch.setattr(calibration, "calibration_path", lambda *_: path)
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the `.tsv.gz` files of 12 BUTTER data sets, all but mnist."""
    return _test_data("pmlb")


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Folder with the 10,000 test images of MNIST and their labels, as IDX files."""
    return _test_data("mnist")


@pytest.fixture(scope="session")
def pooled_digits(mnist_dir) -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images of MNIST, means of 2 x 2 pixels: x (n, 196) in [0, 1], y (n, 10)."""
    digits = load_idx(mnist_dir)
    x = digits.x.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float64)
    return x.reshape(len(x), -1), digits.y.astype(np.float64)


@pytest.fixture(scope="session")
def plan() -> Callable[..., Experiment]:
    """Plans a small experiment with iris; keywords change its specification, None takes one out."""
    iris = {"dataset": "iris", "size": 100, "depth": 3, "epochs": 3, "batch_size": 16}

    def plan_changed(**changes) -> Experiment:
        values = iris | changes
        return plan_experiment(
            RunSpec(**{key: value for key, value in values.items() if value is not None})
        )

    return plan_changed


@pytest.fixture
def make_tree(tmp_path) -> Callable[[str | None], FakeMachine]:
    """A tree of `/sys` and `/proc` with one of the profiles of `machines`, or an empty one."""

    def make(profile: str | None = None) -> FakeMachine:
        machine = FakeMachine(tmp_path / "root")
        machine.root.mkdir()
        if profile is not None:
            PROFILES[profile](machine)
        return machine

    return make


@pytest.fixture
def with_caches(make_tree, monkeypatch) -> Callable[..., Topology]:
    """Let the caches that this process may use be those of a profile of `machines`."""

    def pretend(profile: str | None, *affinity: int) -> Topology:
        topology = read_topology(make_tree(profile).root, affinity)
        monkeypatch.setattr(hierarchy, "machine_topology", lambda: topology)
        return topology

    return pretend


@pytest.fixture
def server_caches(with_caches) -> Topology:
    """Those of a core of a server: 32 KiB, 1 MiB, and 4 of 16 MiB."""
    return with_caches("server", 0, 8)


@pytest.fixture
def unknown_caches(with_caches) -> Topology:
    """Those of a virtual machine that tells nothing of them."""
    return with_caches("vm_rapl", 0, 1)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIBUTTER_DATA", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["minibutter", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
