"""Where compiled kernels are kept, and that they compute what the same Python computes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from minibutter.nn.kernels import jit
from minibutter.nn.network import Network
from minibutter.nn.training import Trainer, TrainingData, make_optimizer

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


def test_other_compiler_leads_to_another_cache(cache_base, monkeypatch):
    before = jit.cache_directory(SOURCES)
    monkeypatch.setattr(numba, "__version__", "0.0.1")
    assert jit.cache_directory(SOURCES) != before


def test_kernels_that_check_bounds_are_kept_apart(cache_base, monkeypatch):
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 0)
    before = jit.cache_directory(SOURCES)
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert jit.cache_directory(SOURCES) != before


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


def test_folder_that_cannot_be_written_means_no_cache(cache_base, monkeypatch):
    # Asked of the system, because root may write everywhere and tests may run as root.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert jit.cache_directory(SOURCES) is None


def test_user_without_a_home_means_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert jit.cache_directory(SOURCES) is None


def increment(x):
    """A kernel for the two tests below."""
    return x + 1


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled with NUMBA_DISABLE_JIT")
def test_kernel_is_kept_in_the_cache_directory_and_other_caches_stay_where_they_were(
    tmp_path, cache_base, monkeypatch
):
    monkeypatch.setattr(jit, "_CACHE_DIRECTORY", tmp_path / "kept")
    assert jit.kernel(increment)(1) == 2
    assert list((tmp_path / "kept").rglob("*.nbi"))
    assert str(cache_base) == numba.config.CACHE_DIR
    assert not cache_base.exists()


def test_kernel_without_cache_directory_works_and_keeps_nothing(tmp_path, cache_base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jit, "_CACHE_DIRECTORY", None)
    assert jit.kernel(increment)(1) == 2
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="compares with what is compiled")
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
