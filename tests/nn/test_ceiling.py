"""The ceilings: that all is computed and read that is counted, and that the figures can be true."""

import time

import numba
import numpy as np
import pytest

from minibutter.nn import ceiling
from minibutter.nn.ceiling import (
    CHAINS,
    LINE_BYTES,
    STEP_BYTES,
    measure_fma_ceiling,
    measure_read_bandwidth,
    run_chains,
    sum_passes,
)
from minibutter.nn.kernels.tile import VECTOR_BYTES

pytestmark = pytest.mark.skipif(
    numba.config.DISABLE_JIT, reason="the loops are written in LLVM IR and cannot be interpreted"
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_lane_of_every_chain_is_computed(dtype):
    scalar = np.dtype(dtype).type
    chains = np.arange(CHAINS, dtype=dtype)
    for _ in range(3):
        chains = chains * scalar(0.5) + scalar(1)
    lanes = VECTOR_BYTES // scalar().itemsize
    # Halves and their sums are exact in both types.
    assert run_chains(scalar(0.5), scalar(1), 3) == lanes * chains.sum()


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_every_number_of_a_working_set_is_read_in_every_pass(n_steps):
    rng = np.random.default_rng(n_steps)
    n_numbers = n_steps * STEP_BYTES // 8
    memory = rng.integers(-(2**40), 2**40, n_numbers + 1)  # The one behind must not be read.
    start = memory.ctypes.data
    expected = 3 * int(memory[:n_numbers].sum())
    assert sum_passes(start, start + n_steps * STEP_BYTES, 3) == expected


def test_a_working_set_without_a_step_is_refused():
    with pytest.raises(ValueError, match=f"is {STEP_BYTES - 1}; it must be at least {STEP_BYTES}"):
        measure_read_bandwidth(STEP_BYTES - 1)


def test_a_sample_that_does_not_read_everything_is_noticed(monkeypatch):
    reads_all = ceiling.sum_passes
    monkeypatch.setattr(
        ceiling, "sum_passes", lambda start, end, n: reads_all(start, end - STEP_BYTES, n)
    )
    with pytest.raises(AssertionError, match="not everything was read"):
        measure_read_bandwidth(16 * STEP_BYTES)


@pytest.fixture
def unshared(monkeypatch):
    """Count the processor's time of this process alone: other programs may run on the core."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)


@pytest.mark.usefixtures("unshared")
def test_reading_from_the_first_level_is_as_fast_as_the_arithmetic_and_no_faster_than_loads():
    """A core that starts n multiply-adds in a cycle starts as many loads of a vector, or up to
    three for one: no processor has more. A bandwidth beyond that was not read.
    """
    multiply_adds_per_s = measure_fma_ceiling("float64", 9) * 1e9 / 2
    read_per_s = measure_read_bandwidth(16 * 2**10, 5) * 1e9
    assert 0.2 * 8 * multiply_adds_per_s < read_per_s < 3.3 * 8 * multiply_adds_per_s


@pytest.mark.usefixtures("unshared")
def test_memory_is_slower_than_the_first_level():
    lines = 256 * 2**20 // LINE_BYTES
    near, far = measure_read_bandwidth(16 * 2**10, 3), measure_read_bandwidth(64 * lines, 3)
    assert far < 0.8 * near
