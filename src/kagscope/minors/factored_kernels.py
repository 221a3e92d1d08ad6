"""The loops over minors of W that :mod:`kagscope.minors.factored` runs, compiled; vectors run over row subsets."""

from __future__ import annotations

import numba as nb
import numpy as np

from kagscope.minors._numba import LN2, fma, prefer_wide_vectors, split
from kagscope.minors.det2 import det2
from kagscope.minors.det3 import TERMS, careful_det3
from kagscope.minors.enumeration_kernels import add_sums, add_sums4, det3

GROUP = 8  # rows in a vector


@nb.njit(nogil=True, cache=True, inline="always")
def _ln(t):  # type: ignore[no-untyped-def]
    e, p = split(t)
    return fma(e, LN2, p)


@nb.njit(nogil=True, cache=True, inline="always")
def _add_row(total, xi, yi, x, y):  # type: ignore[no-untyped-def]
    a1, a2, a4, ent, top = total[0], total[1], total[2], total[3], total[4]
    for j in range(len(x)):
        t = abs(det2(xi, yi, x[j], y[j]))
        add_sums(t, a1, a2, a4, top, j)
        ent[j] = fma(t, _ln(t), ent[j])


@nb.njit(nogil=True, cache=True, inline="always")
def _add_logs4(ent, xi, yi0, yi1, yi2, yi3, x, y0, y1, y2, y3):  # type: ignore[no-untyped-def]
    """Add the entropy in a separate loop: with fewer arrays LLVM can check that none overlap, and vectorises."""
    for j in range(len(x)):
        t = abs(det2(xi, yi0, x[j], y0[j]))
        u = abs(det2(xi, yi1, x[j], y1[j]))
        v = abs(det2(xi, yi2, x[j], y2[j]))
        w = abs(det2(xi, yi3, x[j], y3[j]))
        ent[j] += fma(t, _ln(t), u * _ln(u)) + fma(v, _ln(v), w * _ln(w))


@nb.njit(nogil=True, cache=True, inline="always")
def _add_rows4(total, xi, yi0, yi1, yi2, yi3, x, y0, y1, y2, y3):  # type: ignore[no-untyped-def]
    a1, a2, a4, top = total[0], total[1], total[2], total[4]
    for j in range(len(x)):
        t = abs(det2(xi, yi0, x[j], y0[j]))
        u = abs(det2(xi, yi1, x[j], y1[j]))
        v = abs(det2(xi, yi2, x[j], y2[j]))
        w = abs(det2(xi, yi3, x[j], y3[j]))
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
                low = (i + 1) // GROUP * GROUP  # whole vectors: entries j <= i are not used
                xi = x[i]
                if four:
                    _add_rows4(total[:, i, low:], xi, y0[i], y1[i], y2[i], y3[i], x[low:], y0[low:], y1[low:], y2[low:], y3[low:])
                    if logs:
                        _add_logs4(
                            total[3, i, low:], xi, y0[i], y1[i], y2[i], y3[i], x[low:], y0[low:], y1[low:], y2[low:], y3[low:]
                        )
                else:
                    _add_row(total[:, i, low:], xi, y0[i], x[low:], y0[low:])
            s += 4 if four else 1


@nb.njit(nogil=True, cache=True)
def _recompute_lost(x, y, z, i, j, minors, least, t, A, T):  # type: ignore[no-untyped-def]
    """Recompute the minors ``t`` of rows i, j and every row h > j in columns x, y, z whose digits may be lost."""
    for h in range(j + 1, len(x)):
        _, lost = det3(z[i], z[j], z[h], minors[j, h], minors[i, h], minors[i, j], least)
        if lost:
            for index, row_index in enumerate((i, j, h)):
                A[index, 0], A[index, 1], A[index, 2] = x[row_index], y[row_index], z[row_index]
            t[h - j - 1] = careful_det3(A, T)


@nb.njit(nogil=True, cache=True)
def triple_rows(WT, prefixes, starts, last, cells, g0, g1, out, least):  # type: ignore[no-untyped-def]
    """Sums over column triples for each row triple, lexicographic: out (cells, 5, C(m, 3)), for one range of prefixes.

    ``least`` as for :func:`kagscope.minors.enumeration_kernels.all_triples`.
    """
    prefer_wide_vectors()
    m = WT.shape[1]
    minors, t, A, T = np.zeros((m, m)), np.empty(m), np.empty((3, 3)), np.empty(TERMS)
    for g in range(g0, g1):
        x = WT[prefixes[g, 0]]
        y = WT[prefixes[g, 1]]
        for i in range(m):
            for j in range(m):
                minors[i, j] = det2(x[i], y[i], x[j], y[j])
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
                    lost = 0
                    for h in range(length):
                        t[h], lost_here = det3(z[i], z[j], zs[h], mj[h], mi[h], mij, least)
                        lost |= int(lost_here)
                    if lost:
                        _recompute_lost(x, y, z, i, j, minors, least, t, A, T)
                    for h in range(length):
                        add_sums(t[h], a1, a2, a4, top, h)
                        ent[h] = fma(t[h], _ln(t[h]), ent[h])
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
