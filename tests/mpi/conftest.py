"""Starting sweeps as a user would: as processes, with and without mpirun."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from minibutter import store
from minibutter.store.schema import columns_of_kind

TIMEOUT_S = 240


class Launcher:
    """Starts Python programs on ranks and reads the tables that they leave."""

    scripts = Path(__file__).parent
    mpi_run = scripts.parents[1] / "mpi_run.py"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        beside_python = Path(sys.executable).parent / "mpirun"
        found = str(beside_python) if beside_python.exists() else shutil.which("mpirun")
        if found is None:
            pytest.skip("mpirun is not installed; the extra `mpi` brings one")
        self.mpirun = found

    def command(self, n_ranks: int | None, *arguments: object) -> list[str]:
        """The command line; `n_ranks` None means without mpirun."""
        python = [sys.executable, *map(str, arguments)]
        return python if n_ranks is None else [self.mpirun, "-n", str(n_ranks), *python]

    def run(
        self, n_ranks: int | None, *arguments: object, **variables: str
    ) -> subprocess.CompletedProcess:
        """Run to the end, with more variables in the environment; stdout and stderr as text."""
        return subprocess.run(
            self.command(n_ranks, *arguments),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=os.environ | variables,
        )

    def start(self, n_ranks: int | None, *arguments: object, **variables: str) -> subprocess.Popen:
        """Start and return at once, for a test that kills."""
        return subprocess.Popen(
            self.command(n_ranks, *arguments),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | variables,
        )

    def epochs_as_bits(self, out: Path) -> pd.DataFrame:
        """The epochs table as pandas reads it, without what was measured, floats as their bits."""
        table = pd.read_parquet(out / "epochs").sort_values(["run_id", "epoch"], ignore_index=True)
        table = table.drop(columns=list(store.MEASURED_EPOCH_COLUMNS))
        for name in table.select_dtypes("float32"):
            table[name] = table[name].to_numpy().view("uint32")
        return table

    def runs_as_bits(self, out: Path) -> pd.DataFrame:
        """What a run is and what was computed of it, as pandas reads it."""
        kinds = ("identity", "computed")
        columns = [name for kind in kinds for name in columns_of_kind(store.RUNS_SCHEMA, kind)]
        return pd.read_parquet(out / "runs").sort_values("run_id", ignore_index=True)[columns]


@pytest.fixture
def launcher(tmp_path) -> Launcher:
    return Launcher(tmp_path)


@pytest.fixture
def sweep_file(tmp_path) -> Path:
    """12 runs that take some hundred milliseconds each."""
    return _write_sweep(tmp_path)


@pytest.fixture(scope="session")
def done_by_two(tmp_path_factory) -> Path:
    """Where two ranks, undisturbed, have put the tables of that sweep; not to be written to."""
    launcher = Launcher(tmp_path_factory.mktemp("two"))
    out = launcher.folder / "out"
    done = launcher.run(2, launcher.mpi_run, _write_sweep(launcher.folder), "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def _write_sweep(folder: Path) -> Path:
    path = folder / "small.toml"
    path.write_text(
        'dataset = "digits"\n'
        'shape = ["rectangle_residual", "exponential"]\n'
        "size = [1000, 1800]\n"
        "depth = 4\n"
        "learning_rate = 1e-2\n"
        "batch_size = 64\n"
        "epochs = 12\n"
        "l2 = 1e-4\n"
        "label_noise = 0.1\n"
        "evaluate_train = true\n"
        "repetitions = 3\n"
    )
    return path
