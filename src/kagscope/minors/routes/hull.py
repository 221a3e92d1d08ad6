"""The largest 2-minor without visiting all of them (MATH.md 4.5): for each pair of rows, prune to the outermost vectors first.

In the metric q(v) = v^T G^-1 v of the pair's own 2 x 2 Gram matrix G, |det(a, b)| <= sqrt(det G q(a) q(b)). So a good pair
found first leaves only the few vectors with q large enough to beat it; if many are left, only the vertices of their hull
conv{±v} can.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors.det2 import KERNEL, det2
from kagscope.minors.routes import register
from kagscope.minors.routes.one_moment import NarrowSide
from kagscope.minors.routes.zonogon import (
    BLOCK_ENTRIES,
    ENTRY_BITS,
    MOST_BITS,
    FloatArray,
    IndexArray,
    _merge_sort,
    drop_zero_columns,
    normalise_rows,
    to_own_basis,
)
from kagscope.minors.scaling import narrow, normalise
from kagscope.minors.task import Task
from kagscope.minors.threads import map_blocks

SINGULAR = 1e-6  # squared sine between the rows below which the pair is first transformed to better coordinates
BRUTE = 48  # survivors above which the hull is built
CANCELS = 1e-4  # largest minor of two columns, over the product of their largest entries, below which it is recomputed with care


@njit(**KERNEL, fastmath={"reassoc", "nnan", "nsz"})
def _gram(x, y):  # type: ignore[no-untyped-def]
    xx = xy = yy = 0.0
    for a in range(x.size):
        xx += x[a] * x[a]
        xy += x[a] * y[a]
        yy += y[a] * y[a]
    return xx, xy, yy


@njit(**KERNEL, fastmath={"nnan", "nsz"})
def _radii(x, y, xx, xy, yy, q):  # type: ignore[no-untyped-def]
    """q[a] = det(G) v_a^T G^-1 v_a, and the largest."""
    largest = 0.0
    for a in range(x.size):
        q[a] = x[a] * x[a] * yy - 2.0 * xy * x[a] * y[a] + y[a] * y[a] * xx
        largest = max(largest, q[a])
    return largest


@njit(**KERNEL, fastmath={"nnan", "nsz"})
def _farthest(x, y, p):  # type: ignore[no-untyped-def]
    """Index a of the largest |det(v_p, v_a)|, or the first within rounding of it."""
    s, t = x[p], y[p]
    largest = 0.0
    for a in range(x.size):
        largest = max(largest, abs(s * y[a] - t * x[a]))
    for a in range(x.size):
        if abs(s * y[a] - t * x[a]) >= largest:
            return a
    return 0


@njit(**KERNEL)
def _hull(u, v):  # type: ignore[no-untyped-def]
    """Keep the vertices of conv{±v} of these vectors of the right half-plane, in angular order; returns how many."""
    _merge_sort(u, v)
    n = u.size
    start = 0
    for a in range(n):
        if u[a] * u[a] + v[a] * v[a] > u[start] * u[start] + v[start] * v[start]:
            start = a
    p, q = np.empty(n + 1), np.empty(n + 1)
    kept = 0
    for k in range(n + 1):  # half a turn, from the longest vector, a vertex, to its opposite
        a = start + k
        sign = 1.0
        if a >= n:
            a -= n
            sign = -1.0
        s, t = sign * u[a], sign * v[a]
        while (
            kept >= 2 and (p[kept - 1] - p[kept - 2]) * (t - q[kept - 2]) - (q[kept - 1] - q[kept - 2]) * (s - p[kept - 2]) <= 0
        ):
            kept -= 1
        p[kept], q[kept] = s, t
        kept += 1
    kept -= 1
    for k in range(kept):
        u[k], v[k] = p[k], q[k]
    return kept


@njit(**KERNEL)
def _calipers(u, v):  # type: ignore[no-untyped-def]
    """Largest det over vertices in angular order over half a turn: the partner of the next vertex is never behind."""
    n = u.size
    best = 0.0
    j = 1
    for i in range(n):
        j = max(j, i + 1)
        while True:
            a, sign = (j, 1.0) if j < n else (j - n, -1.0)
            b, turn = (j + 1, 1.0) if j + 1 < n else (j + 1 - n, -1.0)
            here = sign * det2(u[i], u[a], v[i], v[a])
            best = max(best, abs(here))
            if j + 1 >= i + n or turn * det2(u[i], u[b], v[i], v[b]) <= here:
                break
            j += 1
    return best


@njit(**KERNEL)
def _top(x, y, floor, q):  # type: ignore[no-untyped-def]
    """max |det(v_a, v_b)|, or 0 where it is at most ``floor``; -1 where the rows are too nearly parallel for the metric."""
    xx, xy, yy = _gram(x, y)
    if xx == 0 or yy == 0:
        return 0.0
    singular = xx * yy - xy * xy
    if not singular > SINGULAR * xx * yy:
        return -1.0
    radius = _radii(x, y, xx, xy, yy, q)
    slack = 1.0 + 1e-6  # rounding of q
    if radius <= floor * math.sqrt(singular) / slack:  # |det| <= radius / sqrt(det G)
        return 0.0
    p = 0
    while q[p] < radius:
        p += 1
    a = _farthest(x, y, p)
    b = _farthest(x, y, a)
    best = max(floor, abs(det2(x[a], x[b], y[a], y[b])))
    least = best * best * singular / (radius * slack)
    n = x.size
    u, v = np.empty(n), np.empty(n)
    kept = 0
    for a in range(n):
        if q[a] >= least:
            u[kept] = abs(x[a])
            v[kept] = abs(y[a]) if x[a] == 0 else y[a] * math.copysign(1.0, x[a])
            kept += 1
    if kept > BRUTE:
        u, v = u[:kept], v[:kept]
        vertices = _hull(u, v)
        best = max(best, _calipers(u[:vertices], v[:vertices]))
    else:
        for a in range(kept):
            for b in range(a):
                best = max(best, abs(det2(u[a], u[b], v[a], v[b])))
    return best if best > floor else 0.0


@njit(**KERNEL)
def _careful_top(x, y, floor, q):  # type: ignore[no-untyped-def]
    """The same in the basis of two of the vectors."""
    n = x.size
    u, v = np.empty(n), np.empty(n)
    if not to_own_basis(x, y, u, v):
        return 0.0
    D = 0.0  # the largest coordinate, by which the squares in the metric stay in the range
    for a in range(n):
        D = max(D, abs(v[a]))
    for a in range(n):
        v[a] /= D
    best = _top(u, v, 0.0, q)
    if best < 0:
        best = 0.0
        for a in range(n):
            for b in range(a):
                best = max(best, abs(det2(u[a], u[b], v[a], v[b])))
    return best * D if best * D > floor else 0.0


@njit(**KERNEL)
def _tops(rows, first, second, largest, floor, tops):  # type: ignore[no-untyped-def]
    """tops[p] of each row pair; given the two ``largest`` entries (m, 2) of each row, 0 for pairs that beat neither those before
    them nor ``floor``."""
    q = np.empty(rows.shape[1])
    running = largest.size > 0
    for p in range(first.size):
        i, j = first[p], second[p]
        if running and largest[i, 0] * largest[j, 0] + largest[i, 1] * largest[j, 1] <= floor:
            continue
        x, y = rows[i], rows[j]
        best = _top(x, y, floor, q)
        if best < 0:
            best = _careful_top(x, y, floor, q)
        tops[p] = best
        if running:
            floor = max(floor, best)


_NONE = np.zeros((0, 2))


def row_pair_tops(J: FloatArray) -> FloatArray:
    """max over all column pairs of |det J[{i, j}, {a, b}]| for every row pair, exactly.

    Args:
        J: (m, n) float64.

    Returns:
        (m (m - 1) / 2,) float64 in lexicographic order of the pairs.
    """
    rows, exponents = normalise_rows(np.ascontiguousarray(J, dtype=np.float64))
    rows = drop_zero_columns(rows)
    first, second = np.triu_indices(J.shape[0], 1)
    tops = np.zeros(first.size)
    if rows.shape[1] > 1:
        map_blocks(
            lambda part: _tops(rows, first[part], second[part], _NONE, 0.0, tops[part]),
            first.size,
            max(1, BLOCK_ENTRIES // rows.shape[1]),
        )
    with np.errstate(under="ignore", over="ignore"):
        return np.ldexp(tops, exponents[first] + exponents[second])


def top(J: FloatArray) -> float:
    """Largest |2-minor| of J (m, n), exactly: pairs of the shorter side whose bound does not beat the best are skipped."""
    side = narrow(np.asarray(J, dtype=np.float64))
    sizes = np.abs(side).max(axis=1, initial=0.0)
    if len(side) > 1 and sizes[sizes > 0].min(initial=1.0) < 1e-60 * sizes.max(initial=1.0):  # squares would leave the range
        return float(row_pair_tops(side).max())
    (rows,), (exponent,) = normalise(side[None])
    rows = drop_zero_columns(rows)
    m, n = rows.shape
    if m < 2 or n < 2:
        return 0.0
    largest = -np.partition(-np.abs(rows), 1, axis=1)[:, :2]
    order = np.argsort(-largest[:, 0], kind="stable")  # likely winners first, so that most others are skipped
    rows, largest = np.ascontiguousarray(rows[order]), np.ascontiguousarray(largest[order])
    first, second = np.triu_indices(m, 1)
    tops = np.zeros(first.size)
    step = max(1, 8 * BLOCK_ENTRIES // n)
    _tops(rows, first[:step], second[:step], largest, 0.0, tops[:step])
    floor = float(tops[:step].max())
    rest = tops[step:]
    map_blocks(
        lambda part: _tops(rows, first[step:][part], second[step:][part], largest, floor, rest[part]), len(rest), 16 * step
    )
    with np.errstate(under="ignore", over="ignore"):
        return float(np.ldexp(tops.max(), 2 * exponent))


@njit(**KERNEL)
def _pair_tops(columns, pairs, tops):  # type: ignore[no-untyped-def]
    m = columns.shape[1]
    for p in range(pairs.shape[0]):
        x, y = columns[pairs[p, 0]], columns[pairs[p, 1]]
        best = size_x = size_y = 0.0
        for i in range(m):
            s, t = x[i], y[i]
            size_x, size_y = max(size_x, abs(s)), max(size_y, abs(t))
            for j in range(i):
                best = max(best, abs(s * y[j] - t * x[j]))
        if best < CANCELS * size_x * size_y:
            best = 0.0
            for i in range(m):
                for j in range(i):
                    best = max(best, abs(det2(x[i], x[j], y[i], y[j])))
        tops[p] = best


def column_pair_tops(J: FloatArray, pairs: NDArray[np.int64]) -> FloatArray:
    """max over all row pairs of |det J[{i, j}, {a, b}]| for each listed column pair (a, b), by visiting all of them.

    Args:
        J: (m, n) float64.
        pairs: (P, 2) column indices.
    """
    (scaled,), (exponent,) = normalise(np.asarray(J, dtype=np.float64)[None])
    columns, tops = np.ascontiguousarray(scaled.T), np.zeros(len(pairs))
    listed: IndexArray = np.ascontiguousarray(pairs, dtype=np.int64)
    map_blocks(lambda part: _pair_tops(columns, listed[part], tops[part]), len(pairs), 4096)
    with np.errstate(under="ignore", over="ignore"):
        return np.ldexp(tops, 2 * exponent)


@register
class Hull(NarrowSide):
    """The largest of all 2-minors of some columns."""

    name = "hulls of the outermost vectors"
    k, moment = 2, "top"
    column_bits, entry_bits = MOST_BITS, ENTRY_BITS

    def steps(self, task: Task) -> dict[str, float]:
        few, many = sorted(task.shape)
        return {"hulls": float(math.comb(few, 2) * many)}

    def side_value(self, side: FloatArray) -> float:
        return top(side)
