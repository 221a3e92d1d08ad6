"""The loops over minors of W that :mod:`kagscope.minors.factored` runs, compiled; vectors run over row subsets."""

from __future__ import annotations

import numba as nb
import numpy as np

from kagscope.minors._numba import LN2, fma, prefer_wide_vectors, split
from kagscope.minors.enumeration_kernels import add_sums, add_sums4

GROUP = 8  # rows of a vector


@nb.njit(nogil=True, cache=True, inline="always")
def _one_row(total, xi, yi, x, y):  # type: ignore[no-untyped-def]
    a1, a2, a4, ent, top = total[0], total[1], total[2], total[3], total[4]
    for j in range(len(x)):
        t = abs(xi * y[j] - x[j] * yi)
        add_sums(t, a1, a2, a4, top, j)
        e, p = split(t)
        ent[j] = fma(t, fma(e, LN2, p), ent[j])


@nb.njit(nogil=True, cache=True, inline="always")
def _ln(t):  # type: ignore[no-untyped-def]
    e, p = split(t)
    return fma(e, LN2, p)


@nb.njit(nogil=True, cache=True, inline="always")
def _four_logs(ent, xi, yi0, yi1, yi2, yi3, x, y0, y1, y2, y3):  # type: ignore[no-untyped-def]
    """The entropy apart from the sums: with fewer arrays in one loop LLVM can check that none overlap, and vectorises."""
    for j in range(len(x)):
        t = abs(xi * y0[j] - x[j] * yi0)
        u = abs(xi * y1[j] - x[j] * yi1)
        v = abs(xi * y2[j] - x[j] * yi2)
        w = abs(xi * y3[j] - x[j] * yi3)
        ent[j] += fma(t, _ln(t), u * _ln(u)) + fma(v, _ln(v), w * _ln(w))


@nb.njit(nogil=True, cache=True, inline="always")
def _four_rows(total, xi, yi0, yi1, yi2, yi3, x, y0, y1, y2, y3):  # type: ignore[no-untyped-def]
    a1, a2, a4, top = total[0], total[1], total[2], total[4]
    for j in range(len(x)):
        t = abs(xi * y0[j] - x[j] * yi0)
        u = abs(xi * y1[j] - x[j] * yi1)
        v = abs(xi * y2[j] - x[j] * yi2)
        w = abs(xi * y3[j] - x[j] * yi3)
        add_sums4(t, u, v, w, a1, a2, a4, top, j)


@nb.njit(nogil=True, cache=True)
def pair_rows(WT, prefixes, starts, last, cells, g0, g1, logs, out):  # type: ignore[no-untyped-def]
    """Sums over column pairs for each row pair (i, j > i): out (cells, 5, m, m) of S1, S2, S4, entropy, top, for one range of
    prefixes.

    ``WT`` is the transpose: the vectors run along rows j, four column pairs of one cell at a time.
    """
    prefer_wide_vectors()
    m = WT.shape[1]
    for g in range(g0, g1):
        x = WT[prefixes[g, 0]]
        s = starts[g]
        while s < starts[g + 1]:
            cell = cells[s]
            total = out[cell]
            four = s + 4 <= starts[g + 1] and cells[s + 3] == cell  # sorted by cell within a prefix
            y0 = WT[last[s]]
            y1 = WT[last[s + 1]] if four else y0
            y2 = WT[last[s + 2]] if four else y0
            y3 = WT[last[s + 3]] if four else y0
            for i in range(m - 1):
                low = (i + 1) // GROUP * GROUP  # whole vectors: entries j <= i are not read afterwards
                xi = x[i]
                if four:
                    _four_rows(total[:, i, low:], xi, y0[i], y1[i], y2[i], y3[i], x[low:], y0[low:], y1[low:], y2[low:], y3[low:])
                    if logs:
                        _four_logs(
                            total[3, i, low:], xi, y0[i], y1[i], y2[i], y3[i], x[low:], y0[low:], y1[low:], y2[low:], y3[low:]
                        )
                else:
                    _one_row(total[:, i, low:], xi, y0[i], x[low:], y0[low:])
            s += 4 if four else 1


@nb.njit(nogil=True, cache=True)
def triple_rows(WT, prefixes, starts, last, cells, g0, g1, out):  # type: ignore[no-untyped-def]
    """Sums over column triples for each row triple, lexicographic: out (cells, 5, C(m, 3)), for one range of prefixes."""
    prefer_wide_vectors()
    m = WT.shape[1]
    minors = np.zeros((m, m))
    for g in range(g0, g1):
        x = WT[prefixes[g, 0]]
        y = WT[prefixes[g, 1]]
        for i in range(m):
            for j in range(m):
                minors[i, j] = x[i] * y[j] - x[j] * y[i]
        for s in range(starts[g], starts[g + 1]):
            z = WT[last[s]]
            total = out[cells[s]]
            row = 0
            for i in range(m):
                for j in range(i + 1, m):
                    length = m - j - 1
                    mij = minors[i, j]
                    mi = minors[i, j + 1 :]
                    mj = minors[j, j + 1 :]
                    zs = z[j + 1 :]
                    a1 = total[0, row : row + length]
                    a2 = total[1, row : row + length]
                    a4 = total[2, row : row + length]
                    ent = total[3, row : row + length]
                    top = total[4, row : row + length]
                    for h in range(length):
                        t = abs(z[i] * mj[h] - z[j] * mi[h] + zs[h] * mij)
                        q = t * t
                        a1[h] += t
                        a2[h] += q
                        a4[h] = fma(q, q, a4[h])
                        e, p = split(t)
                        ent[h] = fma(t, fma(e, LN2, p), ent[h])
                        top[h] = t if t > top[h] else top[h]
                    row += length


@nb.njit(nogil=True, cache=True)
def pair_tops(tops, d, top):  # type: ignore[no-untyped-def]
    """top[b] = max over i < j of d_bi d_bj tops_ij; d is (B, m), tops (m, m) symmetric, padded to whole vectors."""
    prefer_wide_vectors()
    m = tops.shape[0]
    best = np.empty(m)
    for b in range(len(d)):
        best[:] = 0.0
        row = d[b]
        for i in range(m):
            di = row[i]
            line = tops[i]
            for j in range(m):
                t = di * line[j]
                best[j] = t if t > best[j] else best[j]
        largest = 0.0
        for j in range(m):
            largest = max(largest, best[j] * row[j])
        top[b] = largest
