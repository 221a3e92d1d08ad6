"""Would entropy, histogram and top be faster with minors multiplied in float32 and added in float64, and how wrong?

Run: ``python benchmarks/float32.py`` (half a minute, compiling included). One thread, processor time, shortest of several
rounds; 64 x 784, k = 2, all pairs. S1, S2, S4 stay float64, so the time of their kernel belongs to the float32 way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

import kagscope as kag
from kagscope.minors import _numba
from kagscope.minors.scaling import normalise
from kagscope.minors.subsets import complete_pairs
from kagscope.minors.sweeps import enumerate_all, enumerate_sums

wide: Any = _numba.prefer_wide_vectors
CHUNK, SLOTS = 64, 8 * 260
F = np.float32
ONE, LN2, EIGHTHS, TINY, HALF = F(1), F(np.log(2)), F(8 / np.log(2)), F(1.17549435e-38), F(-0.5)
LOW, HIGH = np.sqrt(0.5) - 1, np.sqrt(2) - 1
NODES = (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
REST = (np.log1p(NODES) - NODES + NODES**2 / 2) / NODES**3  # ln(1 + f) = f - f^2 / 2 + f^3 REST(f)
C0, C1, C2, C3, C4, C5, C6 = (F(c) for c in np.polynomial.polynomial.polyfit(NODES, REST, 6))


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic
def _bits_of(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


@intrinsic
def _float_of(typingctx: Any, x: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


# Numba's decorator hides the true signatures from type checkers.
fma: Any = _fma
bits_of: Any = _bits_of
float_of: Any = _float_of


@nb.njit(inline="always")
def log_slot(t, with_slot):  # type: ignore[no-untyped-def]
    """ln t and, ``with_slot``, the slot of t in bins of 1/8 of log2, 0 for zero and subnormal t."""
    bits = bits_of(t)
    e = np.int32((bits - np.int32(0x3F3504F3)) >> np.int32(23))
    f = float_of(np.int32(bits - np.int32(e << np.int32(23)))) - ONE
    q = fma(fma(fma(fma(fma(fma(C6, f, C5), f, C4), f, C3), f, C2), f, C1), f, C0)
    p = fma(fma(q, f, HALF) * f, f, f)
    if not with_slot:
        return fma(F(e), LN2, p), np.int32(0)
    slot = np.int32(8) * e + np.int32(np.floor(p * EIGHTHS)) + np.int32(8 * 127 + 1)
    return fma(F(e), LN2, p), np.int32(0) if t < TINY else slot


def pairs(counting: bool) -> Any:
    """The kernel with or without a histogram."""

    @nb.njit(nogil=True)
    def visit(J, prefixes, starts, last, entropy, top, hist):  # type: ignore[no-untyped-def]
        """Entropy and top of each column pair, and if counting the histogram; as ``enumeration_kernels.all_pairs``."""
        wide()
        m = J.shape[0]
        X = np.empty((m, CHUNK), dtype=np.float32)
        ent, part, best = np.empty(CHUNK), np.empty(CHUNK, dtype=np.float32), np.empty(CHUNK, dtype=np.float32)
        slots = np.empty((4, CHUNK), dtype=np.int32)
        s0, s1, s2, s3 = slots[0], slots[1], slots[2], slots[3]
        for g in range(len(starts) - 1):
            col = np.ascontiguousarray(J[:, prefixes[g, 0]])
            for start in range(starts[g], starts[g + 1], CHUNK):
                width = min(CHUNK, starts[g + 1] - start)
                X[:] = F(0)
                for i in range(m):
                    for b in range(width):
                        X[i, b] = J[i, last[start + b]]
                ent[:] = 0.0
                best[:] = F(0)
                for i in range(m):
                    xi = X[i]
                    for j in range(i + 1, m, 4):  # beyond the last row: the last row with itself, whose minors are 0
                        r0, r1, r2, r3 = j, min(j + 1, m), min(j + 2, m), min(j + 3, m)
                        r1, r2, r3 = (i if r1 == m else r1), (i if r2 == m else r2), (i if r3 == m else r3)
                        x0, x1, x2, x3 = X[r0], X[r1], X[r2], X[r3]
                        for b in range(CHUNK):
                            x = xi[b]
                            t = abs(col[i] * x0[b] - col[r0] * x)
                            u = abs(col[i] * x1[b] - col[r1] * x)
                            v = abs(col[i] * x2[b] - col[r2] * x)
                            w = abs(col[i] * x3[b] - col[r3] * x)
                            lt, s0[b] = log_slot(t, counting)
                            lu, s1[b] = log_slot(u, counting)
                            lv, s2[b] = log_slot(v, counting)
                            lw, s3[b] = log_slot(w, counting)
                            part[b] = fma(t, lt, u * lu) + fma(v, lv, w * lw)
                            y = max(max(t, u), max(v, w))
                            best[b] = y if y > best[b] else best[b]
                        for b in range(CHUNK):
                            ent[b] += part[b]
                        if counting:
                            for row in range(4):
                                for b in range(width):
                                    hist[slots[row, b]] += 1
                for b in range(width):
                    entropy[start + b] = ent[b]
                    top[start + b] = best[b]

    return visit


def main() -> None:
    J = normalise(np.random.default_rng(0).normal(size=(1, 64, 784)))[0][0]
    subsets = complete_pairs(784)
    single, count = J.astype(np.float32), len(subsets.last)
    entropy, top, hist = np.empty(count), np.empty(count), np.zeros(SLOTS, dtype=np.int64)
    without, counted = pairs(False), pairs(True)
    lists = subsets.prefixes, subsets.starts, subsets.last
    work: dict[str, Callable[[], object]] = {
        "float64: S1, S2, S4, top": lambda: enumerate_sums(J, subsets),
        "float64: all but the histogram": lambda: enumerate_all(J, subsets, 2, False),
        "float64: all": lambda: enumerate_all(J, subsets, 2),
        "float32: entropy, top": lambda: without(single, *lists, entropy, top, hist),
        "float32: entropy, top, histogram": lambda: counted(single, *lists, entropy, top, hist),
    }
    best = dict.fromkeys(work, np.inf)
    with kag.limit_threads(1):
        for _ in range(6):
            for name, run in work.items():
                began = time.process_time()
                run()
                best[name] = min(best[name], 1e3 * (time.process_time() - began))
        true = enumerate_all(J, subsets, 2, False).sums
    for name, spent in best.items():
        print(f"{name:<36}{spent:8.0f} ms")
    sums, few, everything, fast, fast_all = best.values()
    print(f"float64 over float32: {few / (sums + fast):.2f} without, {everything / (sums + fast_all):.2f} with the histogram")
    divergence = abs(entropy.sum() - true[3].sum()) / true[0].sum()
    print(f"error: divergence {divergence:.1e}, top {abs(top.max() / true[4].max() - 1):.1e}")


if __name__ == "__main__":
    main()
