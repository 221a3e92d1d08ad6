"""Every 2-minor and 3-minor, once, never stored: fused kernels (MATH.md 4.6).

The vectors run along the column subsets that share a prefix, gathered side by side, so that every inner loop is element-wise over
contiguous memory: no reduction is reordered, results do not depend on vector width, and sums per column subset come for free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from kagscope.minors._numba import LN2, LOG2E8, LOWEST_BIN, SLOTS, fma, prefer_wide_vectors, split
from kagscope.minors.subsets import SubsetList
from kagscope.minors.threads import even_parts, run_parts, threads

FloatArray = NDArray[np.float64]
CHUNK = 64  # column subsets side by side: eight vectors of eight, and a chunk of 64 rows fits the first-level cache


@nb.njit(nogil=True, cache=True, inline="always")
def _gather(J, last, start, width, X):  # type: ignore[no-untyped-def]
    """Columns last[start : start + width] of J side by side in X, the rest zero."""
    for i in range(J.shape[0]):
        for b in range(width):
            X[i, b] = J[i, last[start + b]]
        for b in range(width, X.shape[1]):
            X[i, b] = 0.0


@nb.njit(nogil=True, cache=True)
def s1_pairs(J, prefixes, starts, last, g0, g1, s1):  # type: ignore[no-untyped-def]
    """Sum of |minor| over row pairs for each column pair, fused multiply-adds: 4 operations a minor.

    The fused form leaves about u |a| |b| where columns are exactly parallel: such pairs are found by their Gram and done again.
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
                    for b in range(CHUNK):
                        x = xi[b]
                        t = abs(fma(ai, x0[b], -(c0 * x))) + abs(fma(ai, x1[b], -(c1 * x)))
                        u = abs(fma(ai, x2[b], -(c2 * x))) + abs(fma(ai, x3[b], -(c3 * x)))
                        acc[b] += t + u
                    j += 4
                while j < m:
                    c0 = col[j]
                    x0 = X[j]
                    for b in range(CHUNK):
                        acc[b] += abs(fma(ai, x0[b], -(c0 * xi[b])))
                    j += 1
            for b in range(width):
                s1[start + b] = acc[b]


@nb.njit(nogil=True, cache=True, inline="always")
def _add_sums(t, a1, a2, a4, top, b):  # type: ignore[no-untyped-def]
    q = t * t
    a1[b] += t
    a2[b] += q
    a4[b] = fma(q, q, a4[b])
    top[b] = t if t > top[b] else top[b]


@nb.njit(nogil=True, cache=True, inline="always")
def _add_all(t, a1, a2, a4, ent, top, slots, b):  # type: ignore[no-untyped-def]
    """All five sums of one minor, and its histogram slot: the entropy and the bin share one logarithm."""
    _add_sums(t, a1, a2, a4, top, b)
    e, p = split(t)
    ent[b] = fma(t, fma(float(e), LN2, p), ent[b])  # t = 0: e is about -1023 and t * finite = 0
    slot = 8 * e + np.int64(np.floor(p * LOG2E8)) - (LOWEST_BIN - 1)
    slots[b] = 0 if t < 2.2250738585072014e-308 else slot


@nb.njit(nogil=True, cache=True)
def sums_pairs(J, prefixes, starts, last, g0, g1, sums):  # type: ignore[no-untyped-def]
    """S1, S2, S4, (entropy untouched), top of each column pair, products rounded: parallel columns give exactly 0."""
    prefer_wide_vectors()
    m = J.shape[0]
    X = np.empty((m, CHUNK))
    acc = np.empty((5, CHUNK))
    a1, a2, a4, top = acc[0], acc[1], acc[2], acc[4]
    for g in range(g0, g1):
        col = np.ascontiguousarray(J[:, prefixes[g, 0]])
        for start in range(starts[g], starts[g + 1], CHUNK):
            width = min(CHUNK, starts[g + 1] - start)
            _gather(J, last, start, width, X)
            acc[:] = 0.0
            for i in range(m):
                ai = col[i]
                xi = X[i]
                for j in range(i + 1, m):
                    cj = col[j]
                    xj = X[j]
                    for b in range(CHUNK):
                        _add_sums(abs(ai * xj[b] - cj * xi[b]), a1, a2, a4, top, b)
            for row in range(5):
                for b in range(width):
                    sums[row, start + b] = acc[row, b]


@nb.njit(nogil=True, cache=True)
def all_pairs(J, prefixes, starts, last, cells, g0, g1, sums, hist):  # type: ignore[no-untyped-def]
    """S1, S2, S4, entropy, top of each column pair and the histogram of each cell."""
    prefer_wide_vectors()
    m = J.shape[0]
    X = np.empty((m, CHUNK))
    acc = np.empty((5, CHUNK))
    a1, a2, a4, ent, top = acc[0], acc[1], acc[2], acc[3], acc[4]
    slots = np.empty(CHUNK, dtype=np.int64)
    base = np.zeros(CHUNK, dtype=np.int64)
    for g in range(g0, g1):
        col = np.ascontiguousarray(J[:, prefixes[g, 0]])
        for start in range(starts[g], starts[g + 1], CHUNK):
            width = min(CHUNK, starts[g + 1] - start)
            _gather(J, last, start, width, X)
            for b in range(width):
                base[b] = cells[start + b] * SLOTS
            acc[:] = 0.0
            for i in range(m):
                ai = col[i]
                xi = X[i]
                for j in range(i + 1, m):
                    cj = col[j]
                    xj = X[j]
                    for b in range(CHUNK):
                        _add_all(abs(ai * xj[b] - cj * xi[b]), a1, a2, a4, ent, top, slots, b)
                    for b in range(width):
                        hist[base[b] + slots[b]] += 1
            for row in range(5):
                for b in range(width):
                    sums[row, start + b] = acc[row, b]


@nb.njit(nogil=True, cache=True)
def all_triples(J, prefixes, starts, last, cells, g0, g1, sums, hist):  # type: ignore[no-untyped-def]
    """S1, S2, S4, entropy, top of each column triple and the histogram of each cell: expansion along the last column."""
    prefer_wide_vectors()
    m = J.shape[0]
    X = np.empty((m, CHUNK))
    acc = np.empty((5, CHUNK))
    a1, a2, a4, ent, top = acc[0], acc[1], acc[2], acc[3], acc[4]
    slots = np.empty(CHUNK, dtype=np.int64)
    base = np.zeros(CHUNK, dtype=np.int64)
    minors = np.zeros((m, m))
    for g in range(g0, g1):
        p = prefixes[g, 0]
        q = prefixes[g, 1]
        for i in range(m):
            for j in range(m):
                minors[i, j] = J[i, p] * J[j, q] - J[j, p] * J[i, q]
        for start in range(starts[g], starts[g + 1], CHUNK):
            width = min(CHUNK, starts[g + 1] - start)
            padded = min(CHUNK, (width + 7) // 8 * 8)
            _gather(J, last, start, width, X)
            for b in range(width):
                base[b] = cells[start + b] * SLOTS
            acc[:] = 0.0
            for i in range(m):
                xi = X[i]
                for j in range(i + 1, m):
                    xj = X[j]
                    mij = minors[i, j]
                    for h in range(j + 1, m):
                        xh = X[h]
                        mjh = minors[j, h]
                        mih = minors[i, h]
                        for b in range(padded):
                            _add_all(abs(xi[b] * mjh - xj[b] * mih + xh[b] * mij), a1, a2, a4, ent, top, slots, b)
                        for b in range(width):
                            hist[base[b] + slots[b]] += 1
            for row in range(5):
                for b in range(width):
                    sums[row, start + b] = acc[row, b]


@dataclass(frozen=True)
class SubsetSums:
    """Sums over row subsets for each column subset of a list, and histograms over both for each cell.

    Attributes:
        sums: (5, P): S1, S2, S4, entropy, top.
        hist: (cells, SLOTS) int64, or None when it was not asked for.
    """

    sums: FloatArray
    hist: NDArray[np.int64] | None


def _parts(starts: NDArray[np.int64]) -> list[int]:
    """Ranges of prefixes of about equal work; their number depends on the problem alone, never on the threads."""
    weights = np.diff(starts)
    return even_parts([float(weight) for weight in weights], min(64, max(1, int(weights.sum()) // 512)))


def enumerate_all(J: FloatArray, subsets: SubsetList, k: int) -> SubsetSums:
    """Every moment of every column subset of ``subsets``, for k = 2 or 3, by enumeration. ``J``: (m, n) normalised."""
    kernel = all_pairs if k == 2 else all_triples
    sums = np.zeros((5, len(subsets.last)))
    cells = max(len(subsets.membership), 1)
    bounds = _parts(subsets.starts)
    lanes = min(threads(), len(bounds) - 1) or 1
    hist = np.zeros((lanes, cells * SLOTS), dtype=np.int64)  # integers: the order of addition is immaterial
    free = list(range(lanes))

    def work(part: int) -> None:
        lane = free.pop()
        kernel(J, subsets.prefixes, subsets.starts, subsets.last, subsets.cells, bounds[part], bounds[part + 1], sums, hist[lane])
        free.append(lane)

    run_parts(work, len(bounds) - 1)
    return SubsetSums(sums, hist.sum(axis=0).reshape(cells, SLOTS))


def enumerate_sums(J: FloatArray, subsets: SubsetList) -> SubsetSums:
    """S1, S2, S4 and top of every column pair, by enumeration without logarithms."""
    sums = np.zeros((5, len(subsets.last)))
    bounds = _parts(subsets.starts)
    run_parts(
        lambda part: sums_pairs(J, subsets.prefixes, subsets.starts, subsets.last, bounds[part], bounds[part + 1], sums),
        len(bounds) - 1,
    )
    return SubsetSums(sums, None)


def enumerate_s1(J: FloatArray, subsets: SubsetList) -> FloatArray:
    """(P,) S1 of every column pair with fused multiply-adds; see :func:`s1_pairs` for what the caller must repair."""
    s1 = np.zeros(len(subsets.last))
    bounds = _parts(subsets.starts)
    run_parts(
        lambda part: s1_pairs(J, subsets.prefixes, subsets.starts, subsets.last, bounds[part], bounds[part + 1], s1),
        len(bounds) - 1,
    )
    return s1
