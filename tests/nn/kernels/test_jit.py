"""Where compiled kernels are kept, who compiles them, and that they compute what Python does."""

import errno
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest

from minibutter.nn.kernels import jit
from minibutter.nn.network import Network
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.starts import TrainingData
from minibutter.nn.training import Trainer

SOURCES = Path(jit.__file__).parent


@pytest.fixture
def cache_base(tmp_path, monkeypatch):
    """An empty folder in the place of NUMBA_CACHE_DIR."""
    base = tmp_path / "cache"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(base))
    return base


@pytest.fixture
def sources(tmp_path):
    """A copy of the kernels that a test may change."""
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(SOURCES, tmp_path / "kernels", ignore=ignore))


def test_cache_directory_is_made_below_the_one_asked_for(cache_base):
    directory = jit.cache_directory(SOURCES)
    assert directory.parent == cache_base
    assert directory.is_dir()


def test_unchanged_sources_keep_their_cache_wherever_they_lie(cache_base, sources):
    assert jit.cache_directory(sources) == jit.cache_directory(SOURCES)


@pytest.mark.parametrize("name", sorted(path.name for path in SOURCES.glob("*.py")))
def test_change_in_any_kernel_source_leads_to_another_cache(name, cache_base, sources):
    before = jit.cache_directory(sources)
    with (sources / name).open("a") as source:
        source.write("# one more line\n")
    assert jit.cache_directory(sources) != before


def test_new_and_renamed_sources_lead_to_other_caches(cache_base, sources):
    found = [jit.cache_directory(sources)]
    (sources / "tile.py").write_text("")
    found.append(jit.cache_directory(sources))
    (sources / "tile.py").rename(sources / "tiles.py")
    found.append(jit.cache_directory(sources))
    assert len(set(found)) == 3


@pytest.mark.parametrize("package", [np, numba, llvmlite], ids=lambda package: package.__name__)
def test_other_package_leads_to_another_cache(package, cache_base, monkeypatch):
    before = jit.cache_directory(SOURCES)
    monkeypatch.setattr(package, "__version__", "0.0.1")
    assert jit.cache_directory(SOURCES) != before


def test_other_python_leads_to_another_cache(cache_base, monkeypatch):
    before = jit.cache_directory(SOURCES)
    monkeypatch.setattr(platform, "python_version", lambda: "3.11.0")
    assert jit.cache_directory(SOURCES) != before


def test_other_processors_features_and_settings_lead_to_other_caches(tmp_path):
    """Each is read when numba starts, so that each needs a process of its own."""
    script = "from minibutter.nn.kernels import jit; print(jit.kept.directory)"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    found = []
    for settings in (
        {},
        {"NUMBA_CPU_NAME": "generic"},
        {"NUMBA_CPU_FEATURES": "+sse2"},
        {"NUMBA_BOUNDSCHECK": "1"},
        {"NUMBA_OPT": "1"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=plain | {"NUMBA_CACHE_DIR": str(tmp_path)} | settings,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout.strip())
    assert all(Path(directory).parent == tmp_path for directory in found)
    assert len(set(found)) == 5


def test_user_cache_is_taken_where_numba_names_none(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jit.cache_directory(SOURCES).parent == tmp_path / "minibutter" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / ".cache" / "minibutter" / "kernels"
    assert jit.cache_directory(SOURCES).parent == expected


def test_folder_that_cannot_be_made_means_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert jit.cache_directory(SOURCES) is None


def test_user_without_a_home_means_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert jit.cache_directory(SOURCES) is None


# ---------------------------------------------------------------------------------------------
# What is kept


compiles = pytest.mark.skipif(
    numba.config.DISABLE_JIT, reason="nothing is compiled with NUMBA_DISABLE_JIT"
)


def increment(x):
    """A kernel for the tests below."""
    return x + 1


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """An empty folder of compiled kernels, and what this process did to it."""
    kept = jit.Kept(tmp_path / "kept")
    kept.directory.mkdir()
    monkeypatch.setattr(jit, "kept", kept)
    return kept


@compiles
def test_kernel_is_kept_in_its_directory_and_the_caches_of_others_stay_where_they_were(
    kept, cache_base
):
    assert jit.kernel(increment)(1) == 2
    assert (kept.n_kernels, kept.error) == (1, None)
    assert {path.suffix for path in kept.directory.iterdir()} == {".nbi", ".nbc"}
    assert not cache_base.exists()


@compiles
def test_kernel_that_was_kept_is_not_compiled_again(kept):
    jit.kernel(increment)(1)
    again = jit.kernel(increment)
    assert again(1) == 2
    assert sum(again.stats.cache_hits.values()) == 1
    assert kept.n_kernels == 1


def test_kernel_without_cache_directory_works_and_keeps_nothing(tmp_path, cache_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jit, "kept", jit.Kept(None))
    with jit.compile_once("increment"):
        assert jit.kernel(increment)(1) == 2
    assert list(tmp_path.iterdir()) == []
    assert not jit.is_ready("increment")


@compiles
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("n_bytes", [0, 40])
def test_torn_file_is_replaced(suffix, n_bytes, kept):
    """A node that loses power may leave a file empty or short, although it was renamed whole."""
    jit.kernel(increment)(1)
    (torn,) = kept.directory.glob(f"*{suffix}")
    torn.write_bytes(torn.read_bytes()[:n_bytes])
    assert jit.kernel(increment)(1) == 2
    assert kept.n_kernels == 2
    whole = jit.kernel(increment)
    assert whole(1) == 2
    assert sum(whole.stats.cache_hits.values()) == 1


@compiles
def test_two_processes_that_keep_two_types_at_once_never_swap_them(kept):
    """Both read the index before either has written it; numba alone would number both files 1, and
    the index of the second would then name the code of the first."""
    first, second = jit.kernel(increment), jit.kernel(increment)
    files = first._cache._cache_file
    save_code = files._save_data

    def save_code_late(name, code):
        assert second(1.5) == 2.5
        save_code(name, code)

    files._save_data = save_code_late
    second._cache._cache_file._load_index = dict
    assert first(1) == 2
    fresh = jit.kernel(increment)
    assert (fresh(1), fresh(1.5)) == (2, 2.5)
    assert isinstance(fresh(1), int)


@compiles
def test_folder_that_cannot_be_written_serves_with_what_it_has(kept, monkeypatch):
    """Numba's own check is made to fail: root, who may run the tests, may write everywhere."""

    def closed(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    jit.kernel(increment)(1)
    monkeypatch.setattr(jit._Locator, "ensure_cache_path", closed)
    again = jit.kernel(increment)
    assert (again(1), again(1.5)) == (2, 2.5)
    assert sum(again.stats.cache_hits.values()) == 1
    assert (kept.n_kernels, kept.error.errno) == (1, errno.EACCES)


@compiles
def test_run_goes_on_when_the_disk_takes_no_more(kept, monkeypatch):
    def no_space(self, name, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jit.caching.IndexDataCacheFile, "_save_data", no_space)
    with jit.compile_once("increment"):
        assert jit.kernel(increment)(1) == 2
    assert (kept.n_kernels, kept.error.errno) == (0, errno.ENOSPC)
    assert not jit.is_ready("increment")


# ---------------------------------------------------------------------------------------------
# Who compiles


class Starter:
    """Starts processes that compile two kernels, on an empty folder."""

    program = Path(__file__).parent / "two_kernels.py"

    def __init__(self, base: Path) -> None:
        self.base = base
        self.environment = os.environ | {"NUMBA_CACHE_DIR": str(base)}

    def start(self, pause_s: float) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, self.program, str(pause_s)],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def found(self, pattern: str) -> list[Path]:
        return list(self.base.glob(f"*/{pattern}"))

    def await_first_kernel(self) -> None:
        deadline_s = time.monotonic() + 60
        while not self.found("*.nbc"):
            assert time.monotonic() < deadline_s, "nothing was compiled in a minute"
            time.sleep(0.01)


@pytest.fixture
def starter(tmp_path):
    return Starter(tmp_path / "base")


@compiles
def test_of_four_processes_one_compiles_and_the_others_load(starter):
    processes = [starter.start(pause_s=2) for _ in range(4)]
    said = sorted(process.communicate(timeout=60)[0].split() for process in processes)
    assert said == [["0", "6", "12"]] * 3 + [["2", "6", "12"]]


@compiles
def test_killed_process_leaves_its_turn_and_what_it_had_compiled(starter):
    killed = starter.start(pause_s=60)
    starter.await_first_kernel()
    waiting = starter.start(pause_s=0)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=3)
    assert starter.found("*.ready") == []
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    # One was kept by the killed process, the other is left to do.
    assert waiting.communicate(timeout=60)[0].split() == ["1", "6", "12"]
    assert len(starter.found("two.ready")) == 1


def test_nobody_waits_where_all_is_ready(kept):
    with jit.compile_once("kernels"):
        pass
    assert jit.is_ready("kernels")
    with jit.compile_once("others"):  # holds the turn
        begun_s = time.monotonic()
        with jit.compile_once("kernels"):
            pass
        assert time.monotonic() - begun_s < 0.5
    assert jit.is_ready("others")


def test_nobody_waits_for_a_process_that_was_stopped_for_longer_than_its_patience(
    kept, monkeypatch
):
    monkeypatch.setattr(jit, "PATIENCE_S", 0.3)
    with jit.compile_once("others"):
        begun_s = time.monotonic()
        with jit.compile_once("kernels"):
            assert 0.3 <= time.monotonic() - begun_s < 2
    assert jit.is_ready("kernels")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_everybody_compiles_where_the_file_system_has_no_locks(code, kept, monkeypatch):
    def no_locks(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    begun_s = time.monotonic()
    with jit.compile_once("others"), jit.compile_once("kernels"):
        assert time.monotonic() - begun_s < 0.5
    assert jit.is_ready("kernels")


def test_everybody_compiles_where_the_folder_is_gone(kept):
    kept.directory.rmdir()
    with jit.compile_once("kernels"):
        pass
    assert not jit.is_ready("kernels")


def test_failed_compilation_is_not_taken_for_done(kept):
    with pytest.raises(ZeroDivisionError), jit.compile_once("kernels"):
        raise ZeroDivisionError
    assert not jit.is_ready("kernels")
    with jit.compile_once("kernels"):
        pass
    assert jit.is_ready("kernels")


# ---------------------------------------------------------------------------------------------
# What they compute


def train_one_epoch():
    """Metrics and parameters of one epoch of each task, activation and optimizer (float64)."""
    results = []
    for task, n_outputs, activation, shape, rule in (
        ("regression", 2, "tanh", "rectangle", "sgd"),
        ("binary", 1, "relu", "rectangle_residual", "rmsprop"),
        ("classification", 3, "gelu", "rectangle", "adam"),
        ("classification", 3, "sigmoid", "rectangle", "adam"),
    ):
        rng = np.random.default_rng(1)
        x = rng.standard_normal((7, 3))
        y = np.eye(7, n_outputs)
        network = Network(3, (4, 4, n_outputs), task, activation, shape, "float64")
        parameters = network.initial_parameters("glorot_uniform", rng)
        trainer = Trainer(
            network,
            parameters,
            make_optimizer(rule, 0.01),
            TrainingData(x, y, x, y),
            batch_size=3,
            shuffle=rng,
            l1=0.01,
            l2=0.02,
        )
        row = trainer.run_epoch()
        results += [row.train, row.test, parameters]
    return np.concatenate(results)


@compiles
def test_kernels_run_uncompiled_and_give_the_same_numbers(tmp_path, assert_within):
    script = (
        "import runpy, sys, numba, numpy\n"
        "assert numba.config.DISABLE_JIT\n"
        "numpy.save(sys.argv[2], runpy.run_path(sys.argv[1])['train_one_epoch']())\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, __file__, str(tmp_path / "uncompiled.npy")],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        check=True,
    )
    uncompiled, compiled = np.load(tmp_path / "uncompiled.npy"), train_one_epoch()
    # Where both call the same exp, tanh and erf, as on Linux with glibc, these three steps agree
    # bit for bit. They need not: Adam's powers of β are multiplied out by numba and left to the C
    # library by Python, which differ in the last digit from the fourth step on.
    bound = 100 * np.finfo(np.float64).eps * np.maximum(1, np.abs(uncompiled))
    assert_within(compiled, uncompiled, bound)
