"""exp, log, log1p and tanh: their errors and edges, and the same bits however they are called."""

import hashlib
import math
import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from minibutter.nn.kernels import elementary
from minibutter.nn.kernels.jit import kernel

FUNCTIONS = {
    "exp": (elementary.exp, np.exp),
    "log": (elementary.log, np.log),
    "log1p": (elementary.log1p, np.log1p),
    "tanh": (elementary.tanh, np.tanh),
}
# In units of the last place; the table in the module's docstring.
BOUNDS = {"exp": 1.1, "log": 1.0, "log1p": 1.5, "tanh": 3.0}
DTYPES = ("float32", "float64")
NAN, INF = math.nan, math.inf


def make_loop(function):
    """A kernel with the plainest loop: what the compiler vectorises."""

    @numba.njit(error_model="numpy")
    def loop(y, x):
        for i in range(x.size):
            y[i] = function(x[i])

    return loop


LOOPS = {name: make_loop(function) for name, (function, _) in FUNCTIONS.items()}


def evaluate(name, x):
    y = np.empty_like(x)
    with np.errstate(all="ignore"):
        LOOPS[name](y, x)
    return y


def draw_arguments(rng, name, dtype, n):
    """Arguments where something happens: around 0 and 1, and over all exponents."""
    info = np.finfo(dtype)
    exponents = rng.uniform(info.minexp - info.nmant, info.maxexp, n)
    every_size = np.exp2(exponents) * rng.choice([-1, 1], n)
    near = {
        "exp": rng.uniform(math.log(info.tiny) - 40, math.log(info.max), n),
        "log": rng.uniform(0.3, 3, n),
        "log1p": rng.uniform(-1, 3, n),
        "tanh": rng.uniform(-20, 20, n),
    }[name]
    x = np.concatenate([every_size, near, rng.uniform(-1, 1, n)]).astype(dtype)
    lowest = {"log": 0, "log1p": -1}.get(name, -math.inf)
    return np.where(x < lowest, np.abs(x), x)


def errors_in_ulps(y, exact, dtype):
    """|y - exact| in units of the last place of `exact`, gradual underflow included."""
    info = np.finfo(dtype)
    _, exponent = np.frexp(np.maximum(np.abs(exact), np.longdouble(info.tiny)))
    return np.abs(y - exact) / np.ldexp(np.longdouble(1), exponent - 1 - info.nmant)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_below_the_documented_bound(name, dtype):
    if dtype == "float64" and np.finfo(np.longdouble).nmant < 60:
        pytest.skip("this machine has no wider type to compare float64 with")
    n = 300 if numba.config.DISABLE_JIT else 300_000
    x = draw_arguments(np.random.default_rng([1, len(name)]), name, dtype, n)
    y = evaluate(name, x)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][1](x.astype(np.longdouble))
        limit = exact.astype(dtype)
    is_finite = np.isfinite(limit)
    np.testing.assert_array_equal(y[~is_finite], limit[~is_finite])
    errors = errors_in_ulps(y[is_finite].astype(np.longdouble), exact[is_finite], dtype)
    worst = errors.argmax()
    assert errors[worst] < BOUNDS[name], (errors[worst], x[is_finite][worst])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "arguments", "values"),
    [
        ("exp", [NAN, INF, -INF, 0, -0.0, 1e4, -1e4], [NAN, INF, 0, 1, 1, INF, 0]),
        ("log", [NAN, INF, -INF, 0, -0.0, 1, -1, -1e-40], [NAN, INF, NAN, -INF, -INF, 0, NAN, NAN]),
        ("log1p", [NAN, INF, -INF, 0, -1, -1.5, 1e-30], [NAN, INF, NAN, 0, -INF, NAN, 1e-30]),
        ("tanh", [NAN, INF, -INF, 0, 1e-30, 30, -30], [NAN, 1, -1, 0, 1e-30, 1, -1]),
    ],
)
def test_edges(name, arguments, values, dtype):
    # Repeated, so that each argument passes through the vector code and through the rest loop.
    x, expected = (np.tile(np.array(numbers, dtype), 9) for numbers in (arguments, values))
    np.testing.assert_array_equal(evaluate(name, x), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponential_goes_to_its_ends_gradually(dtype):
    info = np.finfo(dtype)
    last = np.log(np.array([info.max], dtype))
    smallest = np.array([np.log(np.longdouble(info.smallest_subnormal))], dtype)
    assert np.isfinite(evaluate("exp", np.nextafter(last, 0, dtype=dtype))).all()
    assert evaluate("exp", last + 1)[0] == INF
    assert evaluate("exp", smallest)[0] > 0
    assert evaluate("exp", smallest - 1)[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_keeps_the_sign_of_zero_and_is_odd(dtype):
    x = draw_arguments(np.random.default_rng(2), "tanh", dtype, 50)
    np.testing.assert_array_equal(evaluate("tanh", -x), -evaluate("tanh", x))
    assert np.signbit(evaluate("tanh", np.array([-0.0], dtype)))[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_result_has_the_type_of_the_argument(name):
    function = FUNCTIONS[name][0]

    @kernel
    def size_of_result(x, sizes):
        results = np.empty(1, sizes.dtype)
        results[0] = 0
        y = function(x[0])
        sizes[0] = np.array([y]).itemsize

    for dtype in DTYPES:
        sizes = np.zeros(1)
        size_of_result(np.ones(1, dtype), sizes)
        assert sizes[0] == np.dtype(dtype).itemsize


def digests():
    """Per function and type, a digest of the bits of its values at some hundred arguments."""
    return {
        f"{name} {dtype}": hashlib.blake2b(
            evaluate(name, draw_arguments(np.random.default_rng(3), name, dtype, 101)).tobytes()
        ).hexdigest()
        for name in FUNCTIONS
        for dtype in DTYPES
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scalar_and_vector_code_give_the_same_bits(name, dtype):
    x = draw_arguments(np.random.default_rng(4), name, dtype, 101)
    together = evaluate(name, x)
    one_by_one = np.concatenate([evaluate(name, x[i : i + 1]) for i in range(len(x))])
    assert together.tobytes() == one_by_one.tobytes()


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="compares with what is compiled")
@pytest.mark.parametrize(
    "environment",
    [
        {"NUMBA_DISABLE_JIT": "1"},
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"},
    ],
    ids=["plain Python", "no features", "fma"],
)
def test_other_processors_and_plain_python_give_the_same_bits(environment):
    code = f"import runpy; print(runpy.run_path({__file__!r})['digests']())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(digests())


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_loop_becomes_vector_code(name, dtype):
    evaluate(name, np.ones(1, dtype))
    (code,) = [
        LOOPS[name].inspect_llvm(signature)
        for signature in LOOPS[name].signatures
        if signature[0].dtype.name == dtype
    ]
    element = {"float32": "float", "float64": "double"}[dtype]
    # One product of two vectors is enough: a loop is vectorised as a whole or not at all.
    assert any("fmul <" in line and f"x {element}>" in line for line in code.splitlines())
