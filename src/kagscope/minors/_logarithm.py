"""M ln M and the bin of M for eight minors at a time, as LLVM instructions (MATH.md 4.6).

x = 2^e m with m about 1; the leading four bits of m select a reciprocal c with a known logarithm, so that r = m c - 1 is below
0.03 and a polynomial of degree 6 suffices: log2 x = e - log2 c + log2(1 + r), relative error below 3e-12. Both tables are held
in registers, by an AVX-512 instruction that the loop vectoriser does not find. Without it, ln m is 2 atanh of
(m - 1) / (m + 1), a polynomial of its square, error below 1e-13: a division, but a third of the steps of one in m.
Logarithms are in eighths of powers of two, the bins of the histogram: powers of two are exact.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kagscope.minors._numba import LOWEST_BIN

LANES = 8
CHUNK = 64  # minors of one row of a buffer
LN2_EIGHTH = float(np.log(2.0)) / 8  # what sums of M 8 log2 M are multiplied by

# Slots leave a block with these high bits: those of a float64 in [2^14, 2^15).
SLOT_BITS = 0x40D << 14
# Where zeros and subnormals are counted: their bits read as the power 2^-1023, which no other minor has.
ZERO_SLOTS = slice(1 - 8 * 1023 - LOWEST_BIN, 1 - 8 * 1022 - LOWEST_BIN)

_DOUBLES, _WORDS, _HALVES = (ir.VectorType(one, LANES) for one in (ir.DoubleType(), ir.IntType(64), ir.IntType(32)))
_FRACTION = (1 << 52) - 1


def _table() -> tuple[int, list[float]]:
    """The bits of the lowest m, and c of each sixteenth of the numbers between it and twice it, exactly 1 about m = 1."""
    lowest = 0x3FE87851EB851EB9  # 1 in the middle of its interval
    edges = (np.uint64(lowest) + np.arange(17, dtype=np.uint64) * np.uint64(1 << 48)).view(np.float64)
    return lowest, [1.0 if low <= 1 < high else float(2 / (low + high)) for low, high in pairwise(edges)]


_LOWEST, _RECIPROCALS = _table()
_LOGARITHMS = [-8 * float(np.log2(c)) for c in _RECIPROCALS]
# log2(1 + r) = r (…), minimax in relative error, |r| < 0.0295.
_SHORT = (
    1.442695040893182,
    -0.7213475204666252,
    0.4808982595031806,
    -0.3606736985708595,
    0.288807596125479,
    -0.24076254407346112,
)
_SQRT_HALF = 0x3FE6A09E667F3BCD
# ln((1 + s) / (1 - s)) = 2 s (…) of powers of s^2, minimax in relative error, for quotients in [sqrt(1/2), sqrt 2).
_QUOTIENT = (
    0.9999999999999734,
    0.3333333333982573,
    0.1999999743609073,
    0.1428608400842218,
    0.11087088609839651,
    0.0980454196630961,
)


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * LANES)


class _Block:
    """Writes the instructions of a block of minors."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.builder = builder
        self.tables = "+avx512f" in context.codegen().magic_tuple()[2]
        self.fused = self.function("llvm.fma.v8f64", _DOUBLES)
        self.lowest = _LOWEST if self.tables else _SQRT_HALF
        scale = 8.0 if self.tables else 16 / float(np.log(2.0))
        self.coefficients = [_constant(_DOUBLES, scale * c) for c in (_SHORT if self.tables else _QUOTIENT)]

    def function(self, name: str, kind: Any) -> Any:
        """An intrinsic of (float, ``kind``, float) lanes."""
        typed = ir.FunctionType(_DOUBLES, [_DOUBLES, kind, _DOUBLES])
        return cgutils.get_or_insert_function(self.builder.module, typed, name)  # type: ignore[no-untyped-call]

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self.fused, [a, b, c])

    def chosen(self, table: list[float], index: Any) -> Any:
        """Entries of a table of sixteen by the lowest four bits of the index."""
        low, high = ir.Constant(_DOUBLES, table[:8]), ir.Constant(_DOUBLES, table[8:])
        return self.builder.call(self.function("llvm.x86.avx512.vpermi2var.pd.512", _WORDS), [low, index, high])

    def logarithm(self, x: Any) -> Any:
        """8 log2 x; for zeros and subnormals a value in 8 [-1023, -1022)."""
        b = self.builder
        shifted = b.add(b.bitcast(x, _WORDS), _constant(_WORDS, (1 << 63) - self.lowest))
        eighths = b.and_(b.lshr(shifted, _constant(_WORDS, 49)), _constant(_WORDS, 2**64 - 8))  # 8 (e + 2048)
        magic = b.bitcast(b.or_(eighths, _constant(_WORDS, 0x4330000000000000)), _DOUBLES)  # by the bits of 2^52
        whole = b.fsub(magic, _constant(_DOUBLES, 2.0**52 + 8 * 2048))
        m = b.bitcast(b.add(b.and_(shifted, _constant(_WORDS, _FRACTION)), _constant(_WORDS, self.lowest)), _DOUBLES)
        if self.tables:
            index = b.lshr(shifted, _constant(_WORDS, 48))
            power = r = self.fma(m, self.chosen(_RECIPROCALS, index), _constant(_DOUBLES, -1.0))
            whole = b.fadd(whole, self.chosen(_LOGARITHMS, index))
        else:
            r = b.fdiv(b.fsub(m, _constant(_DOUBLES, 1.0)), b.fadd(m, _constant(_DOUBLES, 1.0)))
            power = b.fmul(r, r)
        q = self.coefficients[-1]
        for c in self.coefficients[-2::-1]:
            q = self.fma(q, power, c)
        return self.fma(q, r, whole)

    def slots(self, logarithm: Any) -> Any:
        """The bin as an integer plus ``SLOT_BITS``: floor by the upper bits of a float64 in [2^14, 2^15)."""
        b = self.builder
        placed = b.fadd(logarithm, _constant(_DOUBLES, 2.0**14 - (LOWEST_BIN - 1)))
        return b.trunc(b.lshr(b.bitcast(placed, _WORDS), _constant(_WORDS, 38)), _HALVES)


def _entropy_block(rows: int, counting: bool) -> Any:
    """The intrinsic for eight columns and ``rows`` rows of a buffer of minors."""

    def typed(typingctx: Any, minors: Any, entropy: Any, base: Any, slots: Any, at: Any) -> Any:
        def codegen(context: Any, b: Any, sig: Any, args: Any) -> Any:
            data = [context.make_array(kind)(context, b, value).data for kind, value in zip(sig.args[:4], args[:4], strict=True)]

            def place(array: int, offset: Any, kind: Any) -> Any:
                return b.bitcast(b.gep(data[array], [offset]), kind.as_pointer())

            def constant(value: int) -> Any:
                return ir.Constant(ir.IntType(64), value)

            block, at = _Block(context, b), args[4]
            sums = place(1, at, _DOUBLES)
            total = b.load(sums, align=8)
            first = b.load(place(2, at, _HALVES), align=4) if counting else None
            for row in range(rows):
                x = b.load(place(0, b.add(at, constant(row * CHUNK)), _DOUBLES), align=8)
                logarithm = block.logarithm(x)
                total = block.fma(x, logarithm, total)
                if counting:
                    to = place(3, b.add(b.mul(at, constant(rows)), constant(row * LANES)), _HALVES)
                    b.store(b.add(block.slots(logarithm), first), to, align=4)
            b.store(total, sums, align=8)
            return context.get_dummy_value()

        return types.void(minors, entropy, base, slots, at), codegen

    return intrinsic(typed)


# (minors, entropy, base, slots, at): for the columns at … at + 7 of ``minors`` (rows, CHUNK) float64, contiguous, adds M 8 log2 M
# to ``entropy``, float64; if counting writes base + slot + SLOT_BITS, uint32, to slots[rows at …], row by row.
entropy_of_one: Any = _entropy_block(1, False)
entropy_of_four: Any = _entropy_block(4, False)
slots_of_one: Any = _entropy_block(1, True)
slots_of_four: Any = _entropy_block(4, True)
