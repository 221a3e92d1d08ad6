"""The loops over every 2-minor and 3-minor that :mod:`kagscope.minors.sweeps` runs, compiled (MATH.md 4.6).

The vectors run along the column subsets that share a prefix, gathered side by side, so that every inner loop is element-wise over
contiguous memory: no reduction is reordered, results do not depend on vector width, and sums per column subset come for free.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from kagscope.minors._logarithm import (
    CHUNK,  # column subsets side by side: eight vectors of eight, and a chunk of 64 rows fits the first-level cache
    LANES,
    LN2_EIGHTH,
    SLOT_BITS,
    entropy_of_four,
    entropy_of_one,
    slots_of_four,
    slots_of_one,
)
from kagscope.minors._numba import SLOTS, fma, prefer_wide_vectors
from kagscope.minors.det2 import det2
from kagscope.minors.det3 import TERMS, careful_det3

WAYS = 2  # counters of a slot, summed at the end: one just written cannot be read at once, and neighbours are alike


@nb.njit(nogil=True, cache=True, inline="always")
def _gather(J, last, start, width, X):  # type: ignore[no-untyped-def]
    """Columns last[start : start + width] of J side by side in X, the rest zero."""
    for i in range(J.shape[0]):
        for b in range(width):
            X[i, b] = J[i, last[start + b]]
        for b in range(width, X.shape[1]):
            X[i, b] = 0.0


@nb.njit(nogil=True, cache=True, inline="always")
def _s1_chunk(col, X, acc, padded):  # type: ignore[no-untyped-def]
    m = len(col)
    for i in range(m):
        ai = col[i]
        xi = X[i]
        j = i + 1
        while j + 4 <= m:
            c0 = col[j]
            c1 = col[j + 1]
            c2 = col[j + 2]
            c3 = col[j + 3]
            x0 = X[j]
            x1 = X[j + 1]
            x2 = X[j + 2]
            x3 = X[j + 3]
            for b in range(padded):
                x = xi[b]
                t = abs(fma(ai, x0[b], -(c0 * x))) + abs(fma(ai, x1[b], -(c1 * x)))
                u = abs(fma(ai, x2[b], -(c2 * x))) + abs(fma(ai, x3[b], -(c3 * x)))
                acc[b] += t + u
            j += 4
        while j < m:
            c0 = col[j]
            x0 = X[j]
            for b in range(padded):
                acc[b] += abs(fma(ai, x0[b], -(c0 * xi[b])))
            j += 1


@nb.njit(nogil=True, cache=True)
def s1_pairs(J, prefixes, starts, last, g0, g1, s1):  # type: ignore[no-untyped-def]
    """Sum of |minor| over row pairs for each column pair, fused multiply-adds: 4 operations a minor.

    The fused form leaves about u |a| |b| where columns are exactly parallel: their Gram detects such pairs, which are recomputed.
    """
    prefer_wide_vectors()
    m = J.shape[0]
    X = np.empty((m, CHUNK))
    acc = np.empty(CHUNK)
    for g in range(g0, g1):
        col = np.ascontiguousarray(J[:, prefixes[g, 0]])
        for start in range(starts[g], starts[g + 1], CHUNK):
            width = min(CHUNK, starts[g + 1] - start)
            _gather(J, last, start, width, X)
            acc[:] = 0.0
            if width == CHUNK:
                _s1_chunk(col, X, acc, CHUNK)  # a constant length: LLVM unrolls the inner loop completely
            else:
                _s1_chunk(col, X, acc, (width + 7) // 8 * 8)
            for b in range(width):
                s1[start + b] = acc[b]


@nb.njit(nogil=True, cache=True, inline="always")
def add_sums(t, a1, a2, a4, top, b):  # type: ignore[no-untyped-def]
    q = t * t
    a1[b] += t
    a2[b] += q
    a4[b] = fma(q, q, a4[b])
    top[b] = t if t > top[b] else top[b]


@nb.njit(nogil=True, cache=True, inline="always")
def add_sums4(t, u, v, w, a1, a2, a4, top, b):  # type: ignore[no-untyped-def]
    """Add four minors at a time: fewer accesses to the accumulators, and less overhead before each inner loop."""
    tt = t * t
    uu = u * u
    vv = v * v
    ww = w * w
    a1[b] += (t + u) + (v + w)
    a2[b] += (tt + uu) + (vv + ww)
    a4[b] += fma(tt, tt, uu * uu) + fma(vv, vv, ww * ww)
    x = t if t > u else u
    y = v if v > w else w
    x = x if x > y else y
    top[b] = x if x > top[b] else top[b]


@nb.njit(nogil=True, cache=True)
def sums_pairs(J, prefixes, starts, last, g0, g1, sums):  # type: ignore[no-untyped-def]
    """S1, S2, S4, (entropy untouched), top of each column pair, each minor to full precision."""
    prefer_wide_vectors()
    m = J.shape[0]
    X = np.empty((m, CHUNK))
    acc = np.empty((5, CHUNK))
    a1, a2, a4, top = acc[0], acc[1], acc[2], acc[4]
    for g in range(g0, g1):
        col = np.ascontiguousarray(J[:, prefixes[g, 0]])
        for start in range(starts[g], starts[g + 1], CHUNK):
            width = min(CHUNK, starts[g + 1] - start)
            padded = (width + 7) // 8 * 8
            _gather(J, last, start, width, X)
            acc[:] = 0.0
            for i in range(m):
                ai = col[i]
                xi = X[i]
                j = i + 1
                while j + 4 <= m:
                    c0, c1, c2, c3 = col[j], col[j + 1], col[j + 2], col[j + 3]
                    x0, x1, x2, x3 = X[j], X[j + 1], X[j + 2], X[j + 3]
                    for b in range(padded):
                        x = xi[b]
                        t = abs(det2(ai, x, c0, x0[b]))
                        u = abs(det2(ai, x, c1, x1[b]))
                        v = abs(det2(ai, x, c2, x2[b]))
                        w = abs(det2(ai, x, c3, x3[b]))
                        add_sums4(t, u, v, w, a1, a2, a4, top, b)
                    j += 4
                while j < m:
                    c0 = col[j]
                    x0 = X[j]
                    for b in range(padded):
                        add_sums(abs(det2(ai, xi[b], c0, x0[b])), a1, a2, a4, top, b)
                    j += 1
            for row in range(5):
                for b in range(width):
                    sums[row, start + b] = acc[row, b]


@nb.njit(nogil=True, cache=True, inline="always")
def _count(hist, slots, start, stop):  # type: ignore[no-untyped-def]
    block = slots[start:stop]
    for b in range(0, stop - start, WAYS):
        hist[WAYS * block[b]] += 1
        hist[WAYS * block[b + 1] + 1] += 1


@nb.njit(nogil=True, cache=True, inline="always")
def _add_logs4(minors, ent, base, slots, hist, padded):  # type: ignore[no-untyped-def]
    """Entropy and histogram of four rows of minors; logarithms of a block are computed while the previous one is counted."""
    if len(hist) == 0:
        for b in range(0, padded, LANES):
            entropy_of_four(minors, ent, base, slots, b)
        return
    slots_of_four(minors, ent, base, slots, 0)
    for b in range(LANES, padded, LANES):
        slots_of_four(minors, ent, base, slots, b)
        _count(hist, slots, 4 * (b - LANES), 4 * b)
    _count(hist, slots, 4 * (padded - LANES), 4 * padded)


@nb.njit(nogil=True, cache=True, inline="always")
def _add_logs1(minors, ent, base, slots, hist, padded):  # type: ignore[no-untyped-def]
    """Entropy and histogram of one row."""
    if len(hist) == 0:
        for b in range(0, padded, LANES):
            entropy_of_one(minors, ent, base, slots, b)
        return
    for b in range(0, padded, LANES):
        slots_of_one(minors, ent, base, slots, b)
        _count(hist, slots, b, b + LANES)


@nb.njit(nogil=True, cache=True, inline="always")
def _set_bases(base, cells, start, width, spare):  # type: ignore[no-untyped-def]
    """Where the slots of each column's cell begin; padding of the last vector is counted in the spare cell."""
    for b in range(len(base)):
        cell = cells[start + b] if b < width else spare
        base[b] = np.uint32(cell * SLOTS - SLOT_BITS)


@nb.njit(nogil=True, cache=True, inline="always")
def _store(acc, sums, start, width):  # type: ignore[no-untyped-def]
    for row in range(5):
        scale = LN2_EIGHTH if row == 3 else 1.0
        for b in range(width):
            sums[row, start + b] = acc[row, b] * scale


@nb.njit(nogil=True, cache=True)
def all_pairs(J, prefixes, starts, last, cells, g0, g1, sums, hist):  # type: ignore[no-untyped-def]
    """S1, S2, S4, entropy, top of each column pair, and the histogram of each cell if ``hist`` is not empty.

    ``hist``, flat (cells, SLOTS, WAYS), has two further cells: one for the padding of vectors, and room for NaN. Zeros and
    subnormal minors are in the slots :data:`kagscope.minors._logarithm.ZERO_SLOTS`.
    """
    prefer_wide_vectors()
    m = J.shape[0]
    X = np.empty((m, CHUNK))
    acc = np.empty((5, CHUNK))
    a1, a2, a4, ent, top = acc[0], acc[1], acc[2], acc[3], acc[4]
    minors = np.empty((4, CHUNK))
    t0, t1, t2, t3 = minors[0], minors[1], minors[2], minors[3]
    slots = np.empty(4 * CHUNK, dtype=np.uint32)
    base = np.empty(CHUNK, dtype=np.uint32)
    spare = len(hist) // (WAYS * SLOTS) - 2
    for g in range(g0, g1):
        col = np.ascontiguousarray(J[:, prefixes[g, 0]])
        for start in range(starts[g], starts[g + 1], CHUNK):
            width = min(CHUNK, starts[g + 1] - start)
            padded = (width + 7) // 8 * 8
            _gather(J, last, start, width, X)
            _set_bases(base, cells, start, width, spare)
            acc[:] = 0.0
            for i in range(m):
                ai = col[i]
                xi = X[i]
                j = i + 1
                while j + 4 <= m:
                    c0, c1, c2, c3 = col[j], col[j + 1], col[j + 2], col[j + 3]
                    x0, x1, x2, x3 = X[j], X[j + 1], X[j + 2], X[j + 3]
                    for b in range(padded):
                        x = xi[b]
                        t = abs(det2(ai, x, c0, x0[b]))
                        u = abs(det2(ai, x, c1, x1[b]))
                        v = abs(det2(ai, x, c2, x2[b]))
                        w = abs(det2(ai, x, c3, x3[b]))
                        add_sums4(t, u, v, w, a1, a2, a4, top, b)
                        t0[b], t1[b], t2[b], t3[b] = t, u, v, w
                    _add_logs4(minors, ent, base, slots, hist, padded)
                    j += 4
                while j < m:
                    c0 = col[j]
                    x0 = X[j]
                    for b in range(padded):
                        t0[b] = abs(det2(ai, xi[b], c0, x0[b]))
                        add_sums(t0[b], a1, a2, a4, top, b)
                    _add_logs1(minors, ent, base, slots, hist, padded)
                    j += 1
            _store(acc, sums, start, width)


@nb.njit(nogil=True, cache=True, inline="always")
def det3(x, y, z, p, q, r, least):  # type: ignore[no-untyped-def]
    """|x p - y q + z r|, and whether it is so small beside its products that its digits may be lost."""
    a, b, c = x * p, y * q, z * r
    t = abs(a - b + c)
    return t, not (t >= least * (abs(a) + abs(b) + abs(c)))


@nb.njit(nogil=True, cache=True)
def _recompute_lost(J, first, second, i, j, h, X, minors, width, least, M, A, T):  # type: ignore[no-untyped-def]
    """Recompute minors of rows i, j and some from h on, in two columns and each column of X, whose digits may be lost."""
    for row in range(len(minors)):
        for b in range(width):
            _, lost = det3(X[i, b], X[j, b], X[h + row, b], M[j, h + row], M[i, h + row], M[i, j], least)
            if lost:
                for index, row_index in enumerate((i, j, h + row)):
                    A[index, 0], A[index, 1], A[index, 2] = J[row_index, first], J[row_index, second], X[row_index, b]
                minors[row, b] = careful_det3(A, T)


@nb.njit(nogil=True, cache=True)
def all_triples(J, prefixes, starts, last, cells, g0, g1, sums, hist, least):  # type: ignore[no-untyped-def]
    """The same for each column triple, by expansion along the last column.

    ``least``: share of its products below which a minor is recomputed; 0 where nothing is rounded.
    """
    prefer_wide_vectors()
    m = J.shape[0]
    X = np.empty((m, CHUNK))
    acc = np.empty((5, CHUNK))
    a1, a2, a4, ent, top = acc[0], acc[1], acc[2], acc[3], acc[4]
    minors = np.empty((4, CHUNK))
    t0, t1, t2, t3 = minors[0], minors[1], minors[2], minors[3]
    slots = np.empty(4 * CHUNK, dtype=np.uint32)
    base = np.empty(CHUNK, dtype=np.uint32)
    spare = len(hist) // (WAYS * SLOTS) - 2
    M, A, T = np.zeros((m, m)), np.empty((3, 3)), np.empty(TERMS)
    for g in range(g0, g1):
        p = prefixes[g, 0]
        q = prefixes[g, 1]
        for i in range(m):
            for j in range(m):
                M[i, j] = det2(J[i, p], J[i, q], J[j, p], J[j, q])
        for start in range(starts[g], starts[g + 1], CHUNK):
            width = min(CHUNK, starts[g + 1] - start)
            padded = (width + 7) // 8 * 8
            _gather(J, last, start, width, X)
            _set_bases(base, cells, start, width, spare)
            acc[:] = 0.0
            for i in range(m):
                xi = X[i]
                for j in range(i + 1, m):
                    xj = X[j]
                    mij = M[i, j]
                    h = j + 1
                    while h + 4 <= m:
                        x0, x1, x2, x3 = X[h], X[h + 1], X[h + 2], X[h + 3]
                        p0, p1, p2, p3 = M[j, h], M[j, h + 1], M[j, h + 2], M[j, h + 3]
                        q0, q1, q2, q3 = M[i, h], M[i, h + 1], M[i, h + 2], M[i, h + 3]
                        lost = 0
                        for b in range(padded):
                            x = xi[b]
                            y = xj[b]
                            t0[b], lost0 = det3(x, y, x0[b], p0, q0, mij, least)
                            t1[b], lost1 = det3(x, y, x1[b], p1, q1, mij, least)
                            t2[b], lost2 = det3(x, y, x2[b], p2, q2, mij, least)
                            t3[b], lost3 = det3(x, y, x3[b], p3, q3, mij, least)
                            lost |= int(lost0) | int(lost1) | int(lost2) | int(lost3)
                        if lost:
                            _recompute_lost(J, p, q, i, j, h, X, minors, width, least, M, A, T)
                        for b in range(padded):
                            add_sums4(t0[b], t1[b], t2[b], t3[b], a1, a2, a4, top, b)
                        _add_logs4(minors, ent, base, slots, hist, padded)
                        h += 4
                    while h < m:
                        x0 = X[h]
                        p0 = M[j, h]
                        q0 = M[i, h]
                        lost = 0
                        for b in range(padded):
                            t0[b], lost0 = det3(xi[b], xj[b], x0[b], p0, q0, mij, least)
                            lost |= int(lost0)
                        if lost:
                            _recompute_lost(J, p, q, i, j, h, X, minors[:1], width, least, M, A, T)
                        for b in range(padded):
                            add_sums(t0[b], a1, a2, a4, top, b)
                        _add_logs1(minors, ent, base, slots, hist, padded)
                        h += 1
            _store(acc, sums, start, width)
