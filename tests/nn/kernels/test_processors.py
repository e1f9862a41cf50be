"""The kernels as other processors would get them: compiled for less, or for more, than the host.

Numba compiles for the features that NUMBA_CPU_FEATURES names, so that a fresh process with fewer of
them runs what an older processor would run. What is newer than the host can only be looked at.
"""

import os
import platform
import re
import subprocess
import sys

import numba
import pytest

from minibutter.nn.kernels import tile

pytestmark = [
    pytest.mark.processors,
    pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the features are those of x86"),
]

# Name -> (NUMBA_CPU_FEATURES, bytes of a vector, whether a product and a sum round once).
PROCESSORS = {
    "SSE2": ("+sse2", 16, False),
    "AVX": ("+sse2,+avx", 32, False),
    "AVX2": ("+sse2,+avx,+avx2,+fma", 32, True),
    "AVX-512": ("+sse2,+avx,+avx2,+fma,+avx512f,+avx512vl,+avx512dq,+avx512bw", 64, True),
}

# What depends on the vectors: bits of products and squares that are transposed.
TESTS = (
    "kernels/test_gemm.py::test_tiled_adds_in_the_same_order_with_one_rounding_a_product",
    "kernels/test_gemm.py::test_tiled_has_the_bits_of_naive_where_nothing_is_fused",
    "kernels/test_gemm.py::test_epilogues_let_nan_pass_and_shut_only_where_the_gate_is_known_to_be",
    "kernels/test_gemm.py::test_every_lane_has_the_bits_of_its_own_product",
    "kernels/test_layout.py",
)
# Whole epochs, on the processor that has least: it takes half a minute to compile all kernels.
TESTS_OF_LEAST = ("test_training.py::test_three_epochs_equal_the_reference_run_batch_by_batch",)

_RUN = """
import sys
import pytest
from minibutter.nn.kernels import tile
assert tile.VECTOR_BYTES == int(sys.argv[1]), tile.VECTOR_BYTES
assert tile.HAS_FMA == (sys.argv[2] == "True"), tile.HAS_FMA
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--timeout=0", *sys.argv[3:]]))
"""

_COMPILE = """
from minibutter.nn.kernels import tile
from minibutter.nn.kernels.tiled import compile_tiles
print(tile.TILE_ROWS * tile.TILE_LINES * tile.LINE_BYTES // tile.VECTOR_BYTES)
compile_tiles("float32", tile.TILE_ROWS, tile.TILE_LINES)
"""


def run_python(code, *arguments, features, **environment):
    """Standard output of a process that compiles for these features."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ
        | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
        | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.mark.timeout(1200)  # compiles the kernels, unless an earlier test run has kept them
@pytest.mark.parametrize("processor", ["SSE2", "AVX", "AVX2"])
def test_kernels_do_the_same_on_processors_with_less(processor, request):
    features, vector_bytes, has_fma = PROCESSORS[processor]
    if vector_bytes > tile.VECTOR_BYTES or has_fma > tile.HAS_FMA:
        pytest.skip("this machine cannot run it")
    folder = request.path.parents[1]
    selected = TESTS + TESTS_OF_LEAST if processor == "SSE2" else TESTS
    tests = [str(folder / test) for test in selected]
    output = run_python(_RUN, str(vector_bytes), str(has_fma), *tests, features=features)
    assert " passed" in output
    assert ("SKIPPED" in output) == has_fma  # there alone the bits are not those of naive


@pytest.mark.parametrize("processor", PROCESSORS)
def test_sums_stay_in_registers_while_the_tile_runs_through_the_depth(processor, tmp_path):
    """The point of a tile: its innermost loop multiplies, adds, loads, and stores nothing."""
    features, vector_bytes, has_fma = PROCESSORS[processor]
    output = run_python(
        _COMPILE, features=features, NUMBA_DUMP_ASSEMBLY="1", NUMBA_CACHE_DIR=str(tmp_path)
    )
    n_sums = int(output.split("\n", 1)[0])
    arithmetic = re.compile(r"\bvfn?madd\d+ps\b" if has_fma else r"\bv?mulps\b")
    broadcast = re.compile(r"\bv?(broadcastss|shufps|permilps)\b|\{1to\d+\}")
    register = {16: "xmm", 32: "ymm", 64: "zmm"}[vector_bytes]
    store = re.compile(rf"\bv?mov[au]p[sd]\s+%{register}\d+, .*\(")
    loops = [
        loop
        for loop in find_innermost_loops(output)
        if len(arithmetic.findall(loop)) in (n_sums, 2 * n_sums)  # it may be unrolled
        and broadcast.search(loop)
        and register in loop
    ]
    assert loops, "no loop makes as many products as the tile has sums"
    assert any(not store.search(loop) for loop in loops), loops


def find_innermost_loops(assembly):
    """Instructions between a label and a jump back to it, without another label between them."""
    loops, label, body = [], None, []
    for line in assembly.splitlines():
        found = re.match(r"(\.?L\w+):", line)
        if found:
            label, body = found[1], []
        elif label is not None:
            body.append(line)
            if re.match(rf"\s+j\w+\s+{re.escape(label)}\b", line):
                loops.append("\n".join(body))
    return loops
