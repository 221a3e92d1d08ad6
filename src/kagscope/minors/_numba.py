"""Common parts of the kernels: wide vectors, fused multiply-add, and a logarithm that vectorises (MATH.md 4.6).

Kernels copy arrays element by element: assigning slices would also compile Numba's messages about shapes, which takes seconds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

# Between float64 and int64 by way of the bits: vectors before AVX-512 have no such conversion, nor a shift that keeps the sign.
# Kernels with a logarithm take a sixth to a quarter less time there.
SQRT_HALF = np.uint64(0x3FE6A09E667F3BCD)
SIGN = np.uint64(1 << 63)
FRACTION = np.uint64(52)
TWO_52 = np.uint64(0x4330000000000000)  # the bits of 2.0**52

LN2 = 0.6931471805599453

# The histogram of a kernel has bins -8 * 1080 … 8 * 24 - 1 of log2 M (normalised minors are below 2^24), one slot for exact
# zeros first.
LOWEST_BIN = -8 * 1080
SLOTS = 8 * (1080 + 24) + 1


@lru_cache(maxsize=1)
def bin_edges() -> NDArray[np.float64]:
    """Lower edges 2^(j / 8) of the bins; none is subnormal, so that subnormal minors count as zero."""
    bins = np.arange(LOWEST_BIN, LOWEST_BIN + SLOTS - 1)
    with np.errstate(under="ignore"):
        edges = np.ldexp(np.exp2(bins % 8 / 8), bins // 8)
    return np.maximum(edges, np.finfo(np.float64).tiny)


@intrinsic
def _prefer_wide_vectors(typingctx: Any) -> Any:
    """Let LLVM use 512-bit vectors in the calling kernel: its default of 256 halves the speed here."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite's own add() knows only unvalued attributes
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once. Numba never contracts by itself, so a * d - b * c of parallel columns stays exactly 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), codegen


@intrinsic
def _bits_of(typingctx: Any, x: Any) -> Any:
    """The bits of a float64 as uint64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), codegen


@intrinsic
def _float_of(typingctx: Any, x: Any) -> Any:
    """The float64 with these bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), codegen


# Numba's decorator hides the true signatures from type checkers.
prefer_wide_vectors: Any = _prefer_wide_vectors
fma: Any = _fma
bits_of: Any = _bits_of
float_of: Any = _float_of


@nb.njit(inline="always")
def split(x):  # type: ignore[no-untyped-def]
    """x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt 2): returns e, a float, and ln(1 + f), error below 1e-13 of it.

    x > 0 and normal; for other x both are finite but meaningless.
    """
    bits = bits_of(x)
    shifted = (bits - SQRT_HALF + SIGN) >> FRACTION  # e + 2048
    f = float_of(bits - ((shifted << FRACTION) + SIGN)) - 1.0
    f2 = f * f
    f4 = f2 * f2
    # pairs of terms, pairs of pairs, … (Estrin): in one chain of sixteen steps each would wait for the last
    a = fma(fma(0.1999999998052212, f, -0.24999999998678715), f2, fma(0.33333333333352627, f, -0.5))
    b = fma(fma(0.11110883493079292, f, -0.12499969433861402), f2, fma(0.14285717668738976, f, -0.16666667051317777))
    c = fma(fma(0.07570798136692093, f, -0.08322159949654626), f2, fma(0.09098288976571192, f, -0.10000953785277258))
    d = fma(fma(0.03767539222921075, f, -0.07432356134780242), f2, fma(0.07605896721749109, f, -0.071279488443482))
    q = fma(fma(d, f4, c), f4 * f4, fma(b, f4, a))
    return float_of(shifted | TWO_52) - (2.0**52 + 2048), fma(q, f2, f)
