"""exp, log, log1p and tanh of our own: the same bits in scalar and in vector code, on any machine.

A call of the C library in the middle of a loop keeps the compiler from vectorising it, and gives
other digits with another library. The functions here have no branch (only choices between two
computed values), no table and no call, so that a loop over contiguous numbers becomes vector code.
They are made of separate multiplications and additions: no fused ones, whose rounding differs, so
that every processor and plain Python give the same bits.

===========  ===============  ===============  ==================================================
function     error, float32   error, float64   method
===========  ===============  ===============  ==================================================
`exp(x)`     < 1.1 ulp        < 1.1 ulp        x = k ln 2 + r, |r| <= ln 2 / 2: 2^k (1 + polynomial)
`log(x)`     < 1.0 ulp        < 1.0 ulp        x = 2^k (1 + f): k ln 2 + series in s = f / (2 + f)
`log1p(x)`   < 1.5 ulp        < 1.5 ulp        as log of u = 1 + x rounded; f takes up 1 + x - u
`tanh(x)`    < 3.0 ulp        < 3.0 ulp        m / (m + 2) with m = e^(2|x|) - 1
===========  ===============  ===============  ==================================================

The bounds are measured by the tests (all float32 numbers were tried once) and hold for subnormal
arguments and results, too: underflow is gradual. NaN stays NaN; e^x overflows to inf above
log(largest number) and ends in 0; log 0 = log1p(-1) = -inf; a logarithm of less is NaN. Called
from kernels the type of the result is that of the argument.

Sources: the reductions are those of Cody & Waite, *Software Manual for the Elementary Functions*
(1980), chapters 5 and 6, with ln 2 split in two numbers; the way the logarithm is put together
is that of fdlibm's `e_log.c` (Sun Microsystems 1993). The polynomials are minimax fits of our own
(Remez' algorithm in 60 digits, coefficients rounded afterwards).
"""

import numpy as np
from numba import types
from numba.extending import overload

from minibutter.nn.kernels.jit import inlined_kernel


def _by_type(float32_kernel, float64_kernel, docstring):
    """One function of x that calls the kernel for the type of x, compiled and in plain Python."""

    def function(x):
        return float32_kernel(x) if isinstance(x, np.float32) else float64_kernel(x)

    @overload(function)
    def choose(x):
        chosen = float32_kernel if x == types.float32 else float64_kernel
        return lambda x: chosen(x)

    function.__doc__ = docstring
    return function


# ---------------------------------------------------------------------------------------------
# Constants. Each is of its type: a Python number would widen float32 arithmetic to float64.

_ZERO_32, _HALF_32, _ONE_32, _TWO_32 = (np.float32(c) for c in (0, 0.5, 1, 2))
_ZERO_64, _HALF_64, _ONE_64, _TWO_64 = (np.float64(c) for c in (0, 0.5, 1, 2))
_INF_32, _INF_64 = np.float32(np.inf), np.float64(np.inf)
_NAN_32, _NAN_64 = np.float32(np.nan), np.float64(np.nan)

# The upper part of ln 2 has so few bits that its product with any exponent is exact.
_LN2_HIGH_32, _LN2_LOW_32 = np.float32(0.69311523), np.float32(3.1946184945309417e-05)
_LN2_HIGH_64, _LN2_LOW_64 = np.float64(0.6931471805582987), np.float64(1.6465949582897081e-12)
_LOG2_E_32, _LOG2_E_64 = np.float32(1.4426950408889634), np.float64(1.4426950408889634)

# Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the last bits of the sum.
_ROUND_32, _ROUND_64 = np.float32(1.5 * 2**23), np.float64(1.5 * 2**52)
_ROUND_BITS_32, _ROUND_BITS_64 = _ROUND_32.view(np.int32), _ROUND_64.view(np.int64)

# Below the first e^x rounds to 0, above the second it is inf.
_EXP_RANGE_32 = (np.float32(-104), np.float32(89))
_EXP_RANGE_64 = (np.float64(-746), np.float64(710))

# (e^r - 1 - r) / r² for |r| <= ln 2 / 2, within 2^-28 and 2^-57 of e^r.
_EXP_32 = tuple(
    np.float32(c)
    for c in (0.49999993653, 0.166665219188, 0.0416683616644, 0.00836861210861, 0.00138153395293)
)
_EXP_64 = tuple(
    np.float64(c)
    for c in (
        0.500000000000000895,
        0.166666666666664227,
        0.0416666666665418042,
        0.00833333333349228785,
        0.00138888889410078405,
        0.00019841269505147131,
        0.0000248014954825220094,
        2.7557591402080657e-6,
        2.76294907540286643e-7,
        2.49976338524589847e-8,
    )
)

# (log((1 + s) / (1 - s)) - 2 s) / s³ in s² for √½ <= (1 + s) / (1 - s) <= √2, within 2^-30 and
# 2^-59 of the logarithm.
_LOG_32 = tuple(np.float32(c) for c in (0.66666776717329904, 0.39977495524892248, 0.29873074926932))
_LOG_64 = tuple(
    np.float64(c)
    for c in (
        0.66666666666667349,
        0.39999999999411088,
        0.28571428743263544,
        0.2222219847591112,
        0.18183569743210546,
        0.15313903169160342,
        0.1479750841041319,
    )
)

_SMALLEST_NORMAL_32, _SMALLEST_NORMAL_64 = np.finfo(np.float32).tiny, np.finfo(np.float64).tiny
_SUBNORMAL_SHIFT_32, _SUBNORMAL_SHIFT_64 = np.float32(24), np.float64(53)
_SUBNORMAL_SCALE_32, _SUBNORMAL_SCALE_64 = np.float32(2**24), np.float64(2**53)

_NOTHING_LOST_32, _NOTHING_LOST_64 = np.int32(64), np.int64(64)
_MANTISSA_32, _MANTISSA_64 = np.int32(2**23 - 1), np.int64(2**52 - 1)
_BIAS_32, _BIAS_64 = np.int32(127), np.int64(1023)
_ROOT_HALF_BITS_32 = np.float32(0.5**0.5).view(np.int32)
_ROOT_HALF_BITS_64 = np.float64(0.5**0.5).view(np.int64)

# From these arguments on tanh rounds to 1.
_TANH_LIMIT_32, _TANH_LIMIT_64 = np.float32(9.25), np.float64(19.25)


# ---------------------------------------------------------------------------------------------
# The exponential


@inlined_kernel
def _exp_parts_float32(x):
    """(q, k) with e^x = (1 + q) 2^k, |q| < 0.42, for |x| < 2^20; q keeps its relative accuracy."""
    rounded = x * _LOG2_E_32 + _ROUND_32
    k = rounded - _ROUND_32
    r = (x - k * _LN2_HIGH_32) - k * _LN2_LOW_32
    c2, c3, c4, c5, c6 = _EXP_32
    r2 = r * r
    q = r + r2 * ((c2 + r * c3) + r2 * ((c4 + r * c5) + r2 * c6))
    return q, np.int32(np.float32(rounded).view(np.int32) - _ROUND_BITS_32)


@inlined_kernel
def _exp_parts_float64(x):
    """As `_exp_parts_float32`."""
    rounded = x * _LOG2_E_64 + _ROUND_64
    k = rounded - _ROUND_64
    r = (x - k * _LN2_HIGH_64) - k * _LN2_LOW_64
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 = _EXP_64
    r2 = r * r
    r4 = r2 * r2
    low = (c2 + r * c3) + r2 * (c4 + r * c5)
    middle = (c6 + r * c7) + r2 * (c8 + r * c9)
    q = r + r2 * (low + r4 * (middle + r4 * (c10 + r * c11)))
    return q, np.int64(np.float64(rounded).view(np.int64) - _ROUND_BITS_64)


@inlined_kernel
def _power_of_2_float32(k):
    """2^k for an int32 of the exponents of normal numbers."""
    return np.int32(np.int32(k + _BIAS_32) << 23).view(np.float32)


@inlined_kernel
def _power_of_2_float64(k):
    """2^k for an int64 of the exponents of normal numbers."""
    return np.int64(np.int64(k + _BIAS_64) << 52).view(np.float64)


@inlined_kernel
def _exp_float32(x):
    lowest, highest = _EXP_RANGE_32
    # Two choices that a NaN falls through.
    x = lowest if x < lowest else x
    x = highest if x > highest else x
    q, k = _exp_parts_float32(x)
    # 2^k itself may be too large or too small; only the second product rounds.
    half = np.int32(k >> 1)
    return (_ONE_32 + q) * _power_of_2_float32(half) * _power_of_2_float32(np.int32(k - half))


@inlined_kernel
def _exp_float64(x):
    lowest, highest = _EXP_RANGE_64
    x = lowest if x < lowest else x
    x = highest if x > highest else x
    q, k = _exp_parts_float64(x)
    half = np.int64(k >> 1)
    return (_ONE_64 + q) * _power_of_2_float64(half) * _power_of_2_float64(np.int64(k - half))


exp = _by_type(_exp_float32, _exp_float64, "e^x.")


# ---------------------------------------------------------------------------------------------
# Logarithms


@inlined_kernel
def _split_float32(u):
    """(f, k) with u = 2^k (1 + f), √½ <= 1 + f < √2, for a normal number u > 0."""
    bits = np.int32(np.float32(u).view(np.int32) - _ROOT_HALF_BITS_32)
    m = np.int32(np.int32(bits & _MANTISSA_32) + _ROOT_HALF_BITS_32).view(np.float32)
    return m - _ONE_32, np.int32(bits >> 23)


@inlined_kernel
def _split_float64(u):
    """As `_split_float32`."""
    bits = np.int64(np.float64(u).view(np.int64) - _ROOT_HALF_BITS_64)
    m = np.int64(np.int64(bits & _MANTISSA_64) + _ROOT_HALF_BITS_64).view(np.float64)
    return m - _ONE_64, np.int64(bits >> 52)


@inlined_kernel
def _log_of_parts_float32(f, k):
    """k ln 2 + log(1 + f); k is a float32.

    With s = f / (2 + f) and h = f²/2, log(1 + f) = log((1 + s) / (1 - s)) = f - (h - s (h + R)),
    where R is a polynomial in s².
    """
    s = f / (_TWO_32 + f)
    z = s * s
    c1, c2, c3 = _LOG_32
    series = z * (c1 + z * (c2 + z * c3))
    h = _HALF_32 * f * f
    return k * _LN2_HIGH_32 - ((h - (s * (h + series) + k * _LN2_LOW_32)) - f)


@inlined_kernel
def _log_of_parts_float64(f, k):
    """As `_log_of_parts_float32`; k is a float64."""
    s = f / (_TWO_64 + f)
    z = s * s
    z2 = z * z
    c1, c2, c3, c4, c5, c6, c7 = _LOG_64
    low, middle, high = c1 + z * c2, c3 + z * c4, c5 + z * c6
    series = z * (low + z2 * (middle + z2 * (high + z2 * c7)))
    h = _HALF_64 * f * f
    return k * _LN2_HIGH_64 - ((h - (s * (h + series) + k * _LN2_LOW_64)) - f)


@inlined_kernel
def _to_float64(k):
    """A small int64 as float64; not every processor does that to vectors, but all can add."""
    return np.int64(k + _ROUND_BITS_64).view(np.float64) - _ROUND_64


@inlined_kernel
def _log_float32(x):
    is_subnormal = x < _SMALLEST_NORMAL_32
    f, k = _split_float32(x * _SUBNORMAL_SCALE_32 if is_subnormal else x)
    shift = _SUBNORMAL_SHIFT_32 if is_subnormal else _ZERO_32
    value = _log_of_parts_float32(f, np.float32(k) - shift)
    value = value if x < _INF_32 else x  # inf and NaN
    value = value if x != _ZERO_32 else -_INF_32
    return _NAN_32 if x < _ZERO_32 else value


@inlined_kernel
def _log_float64(x):
    is_subnormal = x < _SMALLEST_NORMAL_64
    f, k = _split_float64(x * _SUBNORMAL_SCALE_64 if is_subnormal else x)
    shift = _SUBNORMAL_SHIFT_64 if is_subnormal else _ZERO_64
    value = _log_of_parts_float64(f, _to_float64(k) - shift)
    value = value if x < _INF_64 else x
    value = value if x != _ZERO_64 else -_INF_64
    return _NAN_64 if x < _ZERO_64 else value


@inlined_kernel
def _log1p_float32(x):
    u = _ONE_32 + x
    f, k = _split_float32(u)
    # What the addition lost is exact wherever it matters, and f is x itself where k is 0.
    lost = x - (u - _ONE_32)
    # Above 2^64 nothing is lost, and 2^-k would leave the exponents of normal numbers.
    scale = k if k < _NOTHING_LOST_32 else _NOTHING_LOST_32
    value = _log_of_parts_float32(f + lost * _power_of_2_float32(np.int32(-scale)), np.float32(k))
    value = value if x < _INF_32 else x
    value = value if u != _ZERO_32 else -_INF_32
    return _NAN_32 if u < _ZERO_32 else value


@inlined_kernel
def _log1p_float64(x):
    u = _ONE_64 + x
    f, k = _split_float64(u)
    lost = x - (u - _ONE_64)
    scale = k if k < _NOTHING_LOST_64 else _NOTHING_LOST_64
    value = _log_of_parts_float64(f + lost * _power_of_2_float64(np.int64(-scale)), _to_float64(k))
    value = value if x < _INF_64 else x
    value = value if u != _ZERO_64 else -_INF_64
    return _NAN_64 if u < _ZERO_64 else value


log = _by_type(_log_float32, _log_float64, "The natural logarithm of x.")
log1p = _by_type(_log1p_float32, _log1p_float64, "log(1 + x), accurate for small x.")


# ---------------------------------------------------------------------------------------------
# The hyperbolic tangent


@inlined_kernel
def _tanh_float32(x):
    size = abs(x)
    size = _TANH_LIMIT_32 if size > _TANH_LIMIT_32 else size
    q, k = _exp_parts_float32(_TWO_32 * size)
    power = _power_of_2_float32(k)
    m = q * power + (power - _ONE_32)  # e^(2 size) - 1
    return np.copysign(m / (m + _TWO_32), x)


@inlined_kernel
def _tanh_float64(x):
    size = abs(x)
    size = _TANH_LIMIT_64 if size > _TANH_LIMIT_64 else size
    q, k = _exp_parts_float64(_TWO_64 * size)
    power = _power_of_2_float64(k)
    m = q * power + (power - _ONE_64)
    return np.copysign(m / (m + _TWO_64), x)


tanh = _by_type(_tanh_float32, _tanh_float64, "The hyperbolic tangent of x.")
