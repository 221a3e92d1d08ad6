"""3 x 3 determinants to full relative precision, for compiled kernels."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kagscope.minors._numba import fma
from kagscope.minors.det2 import KERNEL, det2

LOST = 2.0**-16  # share of its products below which a determinant of rounded products is recomputed
LOST_TWICE = 2.0**-70  # share below which twice the precision is not enough
WIDE = 2.0**150  # entries beyond which products of three, or their rounding errors, leave the range
NOTHING = -10_000  # the power of two of a row or column of zeros
TINY = 1e-280  # determinants below which that may still happen
TERMS = 24  # of one determinant: six products of three, each the sum of four numbers


@njit(**KERNEL)
def two_sum(a, b):  # type: ignore[no-untyped-def]
    """a + b and its rounding error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@njit(**KERNEL)
def _difference(a, b, c, d):  # type: ignore[no-untyped-def]
    """a b - c d as the sum of two numbers, to twice the precision."""
    p, q = a * b, c * d
    high, low = two_sum(p, -q)
    return high, low + fma(a, b, -p) - fma(c, d, -q)


@njit(**KERNEL)
def _twofold(A):  # type: ignore[no-untyped-def]
    """|det A| of A (3, 3) in twice the precision, and the sum of the sizes of its products."""
    s, s_low = _difference(A[0, 0], A[1, 1], A[1, 0], A[0, 1])
    t, t_low = _difference(A[0, 0], A[2, 1], A[2, 0], A[0, 1])
    u, u_low = _difference(A[1, 0], A[2, 1], A[2, 0], A[1, 1])
    x, y, z = A[2, 2] * s, -A[1, 2] * t, A[0, 2] * u
    whole = 0.0
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        whole += abs(A[i, 2]) * (abs(A[j, 0] * A[k, 1]) + abs(A[k, 0] * A[j, 1]))
    low = fma(A[2, 2], s, -x) + fma(-A[1, 2], t, -y) + fma(A[0, 2], u, -z)
    low += A[2, 2] * s_low - A[1, 2] * t_low + A[0, 2] * u_low
    x, e = two_sum(x, y)
    x, f = two_sum(x, z)
    return abs(x + (e + f + low)), whole


@njit(**KERNEL)
def _balance(A):  # type: ignore[no-untyped-def]
    """Scale rows, then columns of A (3, 3) by powers of two, so that none is far from 1; return the sum of the powers."""
    rows, columns = np.full(3, NOTHING), np.full(3, NOTHING)
    for i in range(3):
        for j in range(3):
            if A[i, j] != 0:
                rows[i] = max(rows[i], math.frexp(A[i, j])[1])
    for j in range(3):
        for i in range(3):
            if A[i, j] != 0:
                columns[j] = max(columns[j], math.frexp(A[i, j])[1] - rows[i])
    for i in range(3):
        for j in range(3):
            if A[i, j] != 0:  # by both at once: by one alone an entry might overflow
                A[i, j] = math.ldexp(A[i, j], -(rows[i] + columns[j]))
    return rows.sum() + columns.sum()


@njit(**KERNEL)
def _expansion(A, T):  # type: ignore[no-untyped-def]
    """|det A| of A (3, 3) from all its products, exactly: T (TERMS,) numbers that add up to it, summed until nothing is lost."""
    n = 0
    for i in range(3):
        u, v = (i + 1) % 3, (i + 2) % 3
        p, q = A[1, u] * A[2, v], A[1, v] * A[2, u]
        for t in (p, fma(A[1, u], A[2, v], -p), -q, -fma(A[1, v], A[2, u], -q)):
            x = A[0, i] * t
            T[n], T[n + 1] = x, fma(A[0, i], t, -x)
            n += 2
    for _ in range(TERMS):  # Ogita, Rump & Oishi 2005
        rest = 0.0
        for i in range(1, TERMS):
            T[i], T[i - 1] = two_sum(T[i], T[i - 1])
            rest += abs(T[i - 1])
        if rest <= 1e-17 * abs(T[TERMS - 1]):
            break
    total = 0.0
    for i in range(TERMS):
        total += T[i]
    return abs(total)


@njit(**KERNEL)
def _vanishes(a, b, c, d):  # type: ignore[no-untyped-def]
    """Whether a d - b c is 0, and not by underflow."""
    nothing = (a == 0 or d == 0) and (b == 0 or c == 0)
    return nothing or (abs(a * d) > TINY and det2(a, b, c, d) == 0)


@njit(**KERNEL)
def _parallel(A):  # type: ignore[no-untyped-def]
    """Whether two rows or two columns of A (3, 3) are parallel."""
    for a, b in ((0, 1), (0, 2), (1, 2)):
        rows = columns = True
        for i, j in ((0, 1), (0, 2), (1, 2)):
            rows &= _vanishes(A[a, i], A[a, j], A[b, i], A[b, j])
            columns &= _vanishes(A[i, a], A[j, a], A[i, b], A[j, b])
        if rows or columns:
            return True
    return False


@njit(**KERNEL)
def careful_det3(A, T):  # type: ignore[no-untyped-def]
    """|det A| of A (3, 3), which may change, within a few units in the last place, and 0 exactly where it is 0.

    ``T`` (TERMS,) is workspace.
    """
    power = 0
    for i in range(3):
        for j in range(3):
            if abs(A[i, j]) > WIDE or 0 < abs(A[i, j]) < 1 / WIDE:  # products may leave the range
                power = 1
    if power:
        power = _balance(A)
    det, whole = _twofold(A)
    if det <= LOST_TWICE * whole or det < TINY:
        det = 0.0 if _parallel(A) else _expansion(A, T)
    return math.ldexp(det, power)
