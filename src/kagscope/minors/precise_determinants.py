"""Minors of order 4 and more that rounded products lose, again: in twice the precision, and in whole numbers."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors._numba import fma
from kagscope.minors.det2 import KERNEL
from kagscope.minors.det3 import two_sum
from kagscope.minors.threads import map_blocks

FloatArray = NDArray[np.float64]
MOST_EXACT = 500_000  # minors in whole numbers, some seconds


@njit(**KERNEL)
def _twofold_dets(A, dets):  # type: ignore[no-untyped-def]
    """dets[s] = |det A[s]| by elimination with numbers of twice the precision, each the sum of two."""
    k = A.shape[1]
    H, L = np.empty((k, k)), np.empty((k, k))
    for s in range(A.shape[0]):
        high, low = 1.0, 0.0
        for i in range(k):
            for j in range(k):
                H[i, j], L[i, j] = A[s, i, j], 0.0
        for c in range(k):
            p = c
            for i in range(c + 1, k):
                if abs(H[i, c]) > abs(H[p, c]):
                    p = i
            a, b = H[p, c], L[p, c]
            x = high * a
            high, low = two_sum(x, fma(high, a, -x) + (high * b + low * a))
            if a == 0:
                break
            for j in range(c, k):
                H[c, j], H[p, j] = H[p, j], H[c, j]
                L[c, j], L[p, j] = L[p, j], L[c, j]
            for i in range(c + 1, k):
                q = H[i, c] / a
                q_low = (fma(-q, a, H[i, c]) + (L[i, c] - q * b)) / a
                for j in range(c + 1, k):
                    x = q * H[c, j]
                    e = fma(q, H[c, j], -x) + (q * L[c, j] + q_low * H[c, j])
                    y, f = two_sum(H[i, j], -x)
                    H[i, j], L[i, j] = two_sum(y, f + (L[i, j] - e))
        dets[s] = abs(high)


def twofold_dets(A: FloatArray) -> FloatArray:
    """(S,) |det| of (S, k, k), right to about 1e-31 of the product of the columns' lengths."""
    dets = np.empty(len(A))
    map_blocks(lambda block: _twofold_dets(A[block], dets[block]), len(A), 1 << 12)
    return dets


def integers(J: FloatArray) -> tuple[NDArray[np.object_], int]:
    """Python integers and e with J = integers 2^e, exactly."""
    mantissa, exponent = np.frexp(J)
    low = int(exponent[J != 0].min(initial=0)) - 53
    whole = np.ldexp(mantissa, 53).astype(np.int64).astype(object)
    shift = np.maximum(exponent - 53 - low, 0)
    return whole * np.vectorize(lambda s: 1 << int(s), otypes=[object])(shift), low


def exact_minors(A: NDArray[np.object_], exponent: int) -> FloatArray:
    """|det| of (…, k, k) integers times 2^exponent each, rounded once; NumPy's arrays of Python integers do the arithmetic."""
    k, dets = A.shape[-1], bareiss_dets(A)
    return np.vectorize(lambda x: _ldexp(x, k * exponent), otypes=[np.float64])(dets) if dets.size else np.zeros(dets.shape)


def bareiss_dets(A: NDArray[np.object_]) -> NDArray[np.object_]:
    """|det| of (…, k, k) integers, by elimination without fractions: every division leaves no rest (Bareiss 1968)."""
    *shape, k, _ = A.shape
    left = A.reshape(-1, k, k).copy()
    every, singular, before = np.arange(len(left)), np.zeros(len(left), dtype=bool), np.ones((len(left), 1, 1), dtype=object)
    for c in range(k - 1):
        row = c + (left[:, c:, c] != 0).argmax(axis=1)
        left[every, c], left[every, row] = left[every, row], left[every, c]
        singular |= left[:, c, c] == 0
        head = np.where(singular, 1, left[:, c, c])[:, None, None]
        rest = left[:, c + 1 :, c + 1 :] * head - left[:, c + 1 :, c : c + 1] * left[:, c : c + 1, c + 1 :]
        left[:, c + 1 :, c + 1 :], before = rest // before, head
    return np.asarray(np.where(singular, 0, np.abs(left[:, -1, -1])).reshape(shape), dtype=object)


def _ldexp(x: int, exponent: int) -> float:
    """x 2^exponent, however large x is."""
    spare = max(x.bit_length() - 64, 0)
    sticky = 1 if x & ((1 << spare) - 1) else 0
    return float(np.ldexp(float((x >> spare) | sticky), exponent + spare))
